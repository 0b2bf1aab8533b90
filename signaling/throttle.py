"""The token bucket that shapes what one session sends. Sans-IO."""

from __future__ import annotations

from signaling.limits import Limits


class Throttle:
    """Two buckets, one for messages and one for bytes; the slower of the two decides.

    Nothing is refused: a message over the rate puts the bucket into debt, and the sender's
    connection is not read until the debt is paid. Order and exactly-once delivery survive a burst
    that way, and a flood costs its sender only.
    """

    __slots__ = ("_at", "_bytes", "_limits", "_messages")

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._messages = float(limits.message_burst)
        self._bytes = float(limits.byte_burst)
        self._at = now

    def take(self, size: int, now: float) -> float:
        """Charge one message of ``size`` bytes; return :attr:`debt`."""
        self._refill(now)
        self._messages -= 1.0
        self._bytes -= size
        return self.debt

    @property
    def debt(self) -> float:
        """Seconds until the bucket owes nothing, as of the last ``take``."""
        limits = self._limits
        return max(0.0, -self._messages / limits.message_rate, -self._bytes / limits.byte_rate)

    @property
    def abused(self) -> bool:
        """Whether a whole further burst came although the connection should not have been read."""
        limits = self._limits
        return (
            self._messages < -limits.message_burst
            or self._bytes < -limits.byte_burst - limits.frame
        )

    def _refill(self, now: float) -> None:
        limits = self._limits
        elapsed = max(0.0, now - self._at)
        self._at = now
        self._messages = min(limits.message_burst, self._messages + elapsed * limits.message_rate)
        self._bytes = min(limits.byte_burst, self._bytes + elapsed * limits.byte_rate)
