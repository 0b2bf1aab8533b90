"""When to nominate, and which pair: questions the agent asks; the agent acts on the answers."""

from __future__ import annotations

from typing import Protocol

from ice_punch.ice.candidate import CandidateType
from ice_punch.ice.check_list import CheckList
from ice_punch.ice.pair import CandidatePair, PairState

_UNDECIDED = (PairState.FROZEN, PairState.WAITING, PairState.IN_PROGRESS)


class NominationPolicy(Protocol):
    def nominate(
        self, check_list: CheckList, component: int, ta: float, now: float
    ) -> tuple[CandidatePair | None, float | None]:
        """The pair to nominate now, or else when to ask again (None: when something changes)."""
        ...


UNKNOWN_RTT = 0.5
"""Seconds, for a pair whose only check was sent twice: the answer, or the first, took its time."""


PEER_BEGINS_WITHIN = 3.0
"""Seconds that a peer is waited for which answers checks and makes none."""


class PatientPolicy:
    """Nominates the best valid pair once no better one can still win.

    A better pair that is undecided is waited for no longer than one and a half round trips of the
    valid pair, plus its place in the pacing: what opens two NATs is the peer's check and our
    triggered one, and they need no more. A better pair on which the peer's own check has come has
    as long from our last check on it. Candidate types never hold nomination back.
    """

    def __init__(self, *, round_trips: float = 1.5, shortest: float = 0.05, longest: float = 1.0):
        self.round_trips = round_trips
        self.shortest = shortest
        self.longest = longest

    def nominate(
        self, check_list: CheckList, component: int, ta: float, now: float
    ) -> tuple[CandidatePair | None, float | None]:
        valid = [p for p in check_list.valid_list if p.component == component]
        if not valid:
            return None, None
        best = next((p for p in valid if p.silent_since is None), valid[0])
        better = [
            p
            for p in check_list
            if p.component == component and p.priority > best.priority and p.state in _UNDECIDED
        ]
        if not better:
            return best, None
        since = min(p.valid_since for p in valid if p.valid_since is not None)
        begun = check_list.peer_checked_at
        if begun is None:
            # It answers, and has yet to learn of us: its own checks may open better pairs.
            if now < since + PEER_BEGINS_WITHIN:
                return None, since + PEER_BEGINS_WITHIN
        else:
            since = max(since, begun)
        rtt = best.rtt if best.rtt is not None else UNKNOWN_RTT
        untried = sum(1 for p in better if p.state is not PairState.IN_PROGRESS)
        patience = min(max(self.round_trips * rtt, self.shortest) + untried * ta, self.longest)
        until = max([since + patience, *(sent + self.round_trips * rtt for sent in _heard(better))])
        until = min(until, since + self.longest)
        if now >= until:
            return best, None
        return None, until


def _heard(pairs: list[CandidatePair]) -> list[float]:
    """When the last check left on each pair that the peer has checked itself: it is half open."""
    return [
        pair.current_check.retransmission.first_sent_at
        for pair in pairs
        if pair.requests_received
        and pair.current_check is not None
        and pair.remote.type is not CandidateType.PRFLX
    ]
