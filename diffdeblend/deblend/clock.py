"""How long each stage of a call takes."""

import time
from collections.abc import Callable


class Clock:
    """Seconds of each stage, told as they begin.

    - `report`: called with the name of each stage; None for nobody.
    """

    def __init__(self, report: Callable[[str], None] | None):
        self.report = report
        self.seconds: dict[str, float] = {}
        self._name: str | None = None
        self._made = self._began = time.perf_counter()

    @property
    def total(self) -> float:
        """Seconds since the clock was made."""
        return time.perf_counter() - self._made

    def stage(self, name: str | None) -> None:
        """A stage begins, and the one before ends; None: nothing follows."""
        now = time.perf_counter()
        if self._name is not None:
            self.seconds[self._name] = self.seconds.get(self._name, 0.0) + now - self._began
        self._name, self._began = name, now
        if name is not None and self.report is not None:
            self.report(name)
