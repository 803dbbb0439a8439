"""Where the time of a round, or of many, goes."""

from time import perf_counter


class Stopwatch:
    """Adds up the seconds between laps, by name.

    Attributes:
        laps: the seconds of each name.
    """

    def __init__(self) -> None:
        self._began = self._last = perf_counter()
        self.laps: dict[str, float] = {}

    def start(self) -> None:
        """Begin the next lap now."""
        self._last = perf_counter()

    def lap(self, name: str) -> None:
        """End a lap, and add its seconds to those of `name`."""
        now = perf_counter()
        self.laps[name] = self.laps.get(name, 0.0) + (now - self._last)
        self._last = now

    def move(self, source: str, target: str, seconds: float) -> None:
        """Count part of a lap as another one."""
        self.laps[source] -= seconds
        self.laps[target] = seconds

    def total(self) -> float:
        """Return the seconds since the stopwatch was made."""
        return perf_counter() - self._began
