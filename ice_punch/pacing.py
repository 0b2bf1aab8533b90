"""A token bucket: so many bytes a second, and no burst that a home uplink would drop."""

from __future__ import annotations

BURST = 0.004
"""Seconds of the rate that may leave at once. An event loop's timers are a millisecond off."""
SMALLEST_BURST = 2 * 1500
"""Bytes that may leave at once, however slow the rate."""
SHORTEST_WAIT = 0.001


class TokenBucket:
    """Times in seconds, of any monotonic clock."""

    def __init__(self, rate: float, now: float) -> None:
        """``rate`` in bytes a second, above zero."""
        self.rate = rate
        self._most = max(SMALLEST_BURST, rate * BURST)
        self._tokens = self._most
        self._at = now

    def change(self, rate: float, now: float) -> None:
        """Another rate from now on. It gives no new burst, however often it is called."""
        self._tokens = self.available(now)
        self.rate = rate
        self._most = max(SMALLEST_BURST, rate * BURST)

    def available(self, now: float) -> float:
        """Bytes that may leave now. The last datagram may be larger than what is left of them."""
        self._tokens = min(self._most, self._tokens + max(0.0, now - self._at) * self.rate)
        self._at = max(self._at, now)
        return self._tokens

    def spend(self, size: int) -> None:
        """``size`` bytes have left."""
        self._tokens -= size

    def next_at(self, now: float) -> float:
        """When it is worth asking again."""
        return now + max(SHORTEST_WAIT, (SMALLEST_BURST / 2 - self.available(now)) / self.rate)
