"""When to nominate, and which pair: questions the agent asks; the agent acts on the answers."""

from __future__ import annotations

from typing import Protocol

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


class PatientPolicy:
    """Nominates the best valid pair once no better one can still win.

    A better pair that is undecided is waited for no longer than one and a half round trips of the
    valid pair, plus its place in the pacing: what opens two NATs is the peer's check and our
    triggered one, and they need no more. Candidate types never hold nomination back.
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
        best = valid[0]
        better = [
            p
            for p in check_list
            if p.component == component and p.priority > best.priority and p.state in _UNDECIDED
        ]
        if not better:
            return best, None
        since = min(p.valid_since for p in valid if p.valid_since is not None)
        rtt = best.rtt if best.rtt is not None else UNKNOWN_RTT
        untried = sum(1 for p in better if p.state is not PairState.IN_PROGRESS)
        patience = min(max(self.round_trips * rtt, self.shortest) + untried * ta, self.longest)
        if now >= since + patience:
            return best, None
        return None, since + patience
