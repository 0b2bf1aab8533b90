"""Knocking: what a side does whose NAT maps by destination.

Its peer can not know the port that its checks come from, so only its own checks can open the way,
and those sent before the peer's filter is open are lost. The resends of RFC 8489 section 6.2.1
are up to seconds apart; every idle slot of Ta (RFC 8445 section 14.2) is put to use instead, for
a while: one more check, a transaction of its own, on the pairs that it can help.
"""

from __future__ import annotations

from collections.abc import Callable

from ice_punch.ice.candidate import CandidateType
from ice_punch.ice.checks import Checks
from ice_punch.ice.pair import CandidatePair, PairState
from ice_punch.ice.session import Session

KNOCK_FOR = 3.0
"""Seconds from the first check of a pair: more than signaling takes to start the other side."""


class Knocking:
    """Repeats checks in slots that nothing else wants."""

    def __init__(
        self, session: Session, checks: Checks, mapping_varies: Callable[[], bool]
    ) -> None:
        self._session = session
        self._checks = checks
        self._mapping_varies = mapping_varies
        self._turns: list[CandidatePair] = []

    def follow_pairs(self, now: float) -> None:
        """Find the pairs that a repeated check can help."""
        session = self._session
        turns = self._turns
        concluded = all(c in session.selected for c in session.config.components)
        if concluded or session.remote_credentials is None or not self._mapping_varies():
            turns.clear()
            return
        helped = [pair for pair in session.check_list if self._helps(pair, now)]
        for pair in [pair for pair in turns if pair not in helped]:
            turns.remove(pair)
        turns.extend(pair for pair in helped if pair not in turns)

    def has_work(self) -> bool:
        return bool(self._turns)

    def stop(self) -> None:
        self._turns.clear()

    def knock(self, ta: float, now: float) -> None:
        """One more check on the pair whose turn it is."""
        pair = self._turns.pop(0)
        self._turns.append(pair)
        self._checks.repeat(pair, ta, now)

    def _helps(self, pair: CandidatePair, now: float) -> bool:
        return (
            pair.state is PairState.IN_PROGRESS
            and pair.component not in self._session.selected
            and pair.local.type is CandidateType.HOST
            and pair.remote.type is CandidateType.SRFLX
            and bool(pair.checks)
            and now < pair.checks[0].retransmission.first_sent_at + KNOCK_FOR
        )
