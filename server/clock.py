"""Where the time of a batch goes, stage by stage."""

import time


class Clock:
    """Time spent in each stage of a batch, µs. `now`: seconds; a benchmark sets a clock of the CPU in its place."""

    now = staticmethod(time.perf_counter)

    def __init__(self) -> None:
        self._us: dict[str, int] = {}
        self._last = self.now()

    def mark(self, stage: str) -> None:
        """What passed since the mark before was `stage`."""
        now = self.now()
        self._us[stage] = self._us.get(stage, 0) + round((now - self._last) * 1e6)
        self._last = now

    def __str__(self) -> str:
        return ",".join([f"{stage}={us}" for stage, us in self._us.items()])
