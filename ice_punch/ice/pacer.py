"""The one timer Ta behind every new transaction: server queries, relay requests and checks."""

from __future__ import annotations

MINIMUM_TA = 0.005
"""Seconds. RFC 8445 section 14.2: never more than one new transaction every 5 ms."""

MAXIMUM_TA = 1.0
"""Seconds. A peer that asks for more would keep the session from ever coming to an end."""

DEFAULT_PEER_TA = 0.05
"""Seconds. RFC 8839 section 5.5: what a peer uses that does not send ``a=ice-pacing``."""


class Pacer:
    """Gives out slots that lie at least ``ta`` seconds apart, RFC 8445 section 14.2.

    Pacers with the same ``common`` pacer, one for each agent of a process, also keep its distance
    among each other: ``Pacer(MINIMUM_TA)`` is what the RFC demands of all agents together.
    """

    def __init__(self, ta: float = 0.02, *, common: Pacer | None = None) -> None:
        self.ta = max(ta, MINIMUM_TA)
        self._common = common
        self._next_at = float("-inf")

    @property
    def next_at(self) -> float:
        """When the next slot is free."""
        if self._common is None:
            return self._next_at
        return max(self._next_at, self._common.next_at)

    def take(self, now: float) -> bool:
        """Take the slot of ``now`` if it is free."""
        if now < self.next_at:
            return False
        self.reserve(now)
        return True

    def reserve(self, now: float) -> float:
        """Take the next free slot, which may lie ahead, and return when it is."""
        slot = max(now, self.next_at)
        self._next_at = slot + self.ta
        if self._common is not None:
            self._common.reserve(slot)
        return slot

    def agree(self, remote_ta: float | None) -> None:
        """The higher of both sides' values is used by both (RFC 8445 section 14.2)."""
        proposed = DEFAULT_PEER_TA if remote_ta is None else min(remote_ta, MAXIMUM_TA)
        self.ta = max(self.ta, proposed)
