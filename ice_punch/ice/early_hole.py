"""A hole opened early: as soon as candidates of the peer's are known and before checks may start,
indications open our own filter for the peer's first check.

They go to what signaling names, so both the number an address gets and the number of all are
bounded: nobody can use us to flood somebody else. While both sides wait for an instant that they
agreed on nothing is sent: an early packet may spoil the peer's port (see ``Advice.spoiled``).
"""

from __future__ import annotations

from collections import Counter

from ice_punch.datagram import Address
from ice_punch.ice.candidate import CandidateType
from ice_punch.ice.facts import is_public
from ice_punch.ice.pair import CandidatePair, PairState
from ice_punch.ice.session import Session
from ice_punch.stun import Message, MessageClass, Method

EACH = 2
"""Indications from one base to one address."""
IN_ALL = 32
AGAIN_AFTER = 5.0
"""Seconds between the two: a filter stays open for longer."""


class EarlyHole:
    """Takes slots of the pacer that nothing else wants."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._sent: Counter[tuple[Address, Address]] = Counter()
        self._last_at: dict[tuple[Address, Address], float] = {}

    def _open(self) -> bool:
        session = self._session
        return (
            session.remote_credentials is None
            and not session.ended
            and not session.config.lite
            and session.config.early_hole
            and self._sent.total() < IN_ALL
        )

    def next_pair(self, now: float) -> CandidatePair | None:
        """The pair whose turn it is."""
        if not self._open():
            return None
        return next((p for p in self._session.check_list if self._due_at(p) <= now), None)

    def get_timer(self) -> float | None:
        """When another indication is due."""
        if not self._open():
            return None
        due = min((self._due_at(p) for p in self._session.check_list), default=float("inf"))
        return None if due == float("inf") else due

    def _due_at(self, pair: CandidatePair) -> float:
        helps = (
            pair.local.type is CandidateType.HOST
            and pair.state in (PairState.WAITING, PairState.FROZEN)
            and is_public(pair.remote.host)
        )
        if not helps or self._sent[pair.key] >= EACH:
            return float("inf")
        return self._last_at.get(pair.key, float("-inf")) + AGAIN_AFTER

    def indicate(self, pair: CandidatePair, now: float) -> None:
        """One Binding indication (RFC 8445 section 11) on ``pair``."""
        session = self._session
        indication = Message(Method.BINDING, MessageClass.INDICATION, session.random.randbytes(12))
        self._sent[pair.key] += 1
        self._last_at[pair.key] = now
        session.counters["early_indications"] += 1
        session.send(indication.to_bytes(), pair.base, pair.remote.address)
