"""How often each of many may do something, in bounded memory. Sans-IO."""

from __future__ import annotations

from collections import OrderedDict


class Gates:
    """A leaky bucket per key: ``burst`` at once, and one more every ``interval`` seconds.

    The ``keys`` used last are remembered; who was forgotten begins anew.
    """

    def __init__(self, burst: int, interval: float, keys: int = 10_000) -> None:
        self._burst = burst
        self._interval = interval
        self._keys = keys
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, key: str, now: float) -> float:
        """Seconds until the gate of ``key`` opens; 0 if it is open."""
        return max(0.0, (self._level(key, now) + 1.0 - self._burst) * self._interval)

    def count(self, key: str, now: float) -> None:
        """Note that it was done once more, open or not."""
        level = min(self._level(key, now) + 1.0, float(self._burst))
        self._levels[key] = (level, now)
        self._levels.move_to_end(key)
        if len(self._levels) > self._keys:
            self._levels.popitem(last=False)

    def take(self, key: str, now: float) -> float:
        """Pass the gate if it is open: 0 then, else the seconds to wait."""
        wait = self.wait(key, now)
        if wait <= 0.0:
            self.count(key, now)
        return wait

    def refund(self, key: str, share: float, now: float) -> None:
        """Take back ``share``, 0 to 1, of what was counted last: it turned out to be cheap."""
        if key in self._levels:
            self._levels[key] = (max(0.0, self._level(key, now) - share), now)

    def _level(self, key: str, now: float) -> float:
        level, at = self._levels.get(key, (0.0, now))
        return max(0.0, level - (now - at) / self._interval)
