"""The one timer Ta behind every new transaction: server queries, relay requests and checks."""

from __future__ import annotations

MINIMUM_TA = 0.005
"""Seconds. RFC 8445 section 14.2: never more than one new transaction every 5 ms."""

DEFAULT_PEER_TA = 0.05
"""Seconds. RFC 8839 section 5.5: what a peer uses that does not send ``a=ice-pacing``."""


class Pacer:
    """Gives out slots that lie at least ``ta`` seconds apart, RFC 8445 section 14.2."""

    def __init__(self, ta: float = 0.02) -> None:
        self.ta = max(ta, MINIMUM_TA)
        self._next_at = float("-inf")

    @property
    def next_at(self) -> float:
        """When the next slot is free."""
        return self._next_at

    def take(self, now: float) -> bool:
        """Take the slot of ``now`` if it is free."""
        if now < self._next_at:
            return False
        self._next_at = now + self.ta
        return True

    def reserve(self, now: float) -> float:
        """Take the next free slot, which may lie ahead, and return when it is."""
        slot = max(now, self._next_at)
        self._next_at = slot + self.ta
        return slot

    def agree(self, remote_ta: float | None) -> None:
        """The higher of both sides' values is used by both (RFC 8445 section 14.2)."""
        self.ta = max(self.ta, DEFAULT_PEER_TA if remote_ta is None else remote_ta)
