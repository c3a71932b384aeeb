"""Where the time of a batch goes, stage by stage."""

import time


class Clock:
    """Time spent in each stage of a batch, µs. `now`: seconds; a benchmark sets a clock of the CPU in its place."""

    now = staticmethod(time.perf_counter)

    def __init__(self) -> None:
        self._began = self.now()
        self._marks: list[tuple[str, float]] = []

    def mark(self, stage: str) -> None:
        """What passed since the mark before was `stage`."""
        self._marks.append((stage, self.now()))

    def __str__(self) -> str:
        us, last = dict[str, int](), self._began
        for stage, now in self._marks:
            us[stage] = us.get(stage, 0) + round((now - last) * 1e6)
            last = now
        return ",".join([f"{stage}={spent}" for stage, spent in us.items()])
