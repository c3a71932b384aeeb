"""Where the time of a batch goes, stage by stage."""

import time


class Clock:
    """Time spent in each stage of a batch, µs."""

    def __init__(self) -> None:
        self.stage_us: dict[str, int] = {}
        self._last = time.perf_counter()

    def mark(self, stage: str) -> None:
        """What passed since the mark before was `stage`."""
        now = time.perf_counter()
        self.stage_us[stage] = self.stage_us.get(stage, 0) + round((now - self._last) * 1e6)
        self._last = now
