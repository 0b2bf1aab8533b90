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
        limits = self._limits
        elapsed = now - self._at
        messages, octets = self._messages, self._bytes
        if elapsed > 0.0:
            messages += elapsed * limits.message_rate
            if messages > limits.message_burst:
                messages = float(limits.message_burst)
            octets += elapsed * limits.byte_rate
            if octets > limits.byte_burst:
                octets = float(limits.byte_burst)
        self._at = now
        self._messages = messages = messages - 1.0
        self._bytes = octets = octets - size
        return 0.0 if messages >= 0.0 and octets >= 0.0 else self.debt

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
