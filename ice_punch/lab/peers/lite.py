"""A lite implementation, RFC 8445 section 2.5."""

from __future__ import annotations

from typing import ClassVar

from ice_punch.ice import CandidatePair, PairState
from ice_punch.lab.peers.base import BaseMachine, may_pair
from ice_punch.lab.peers.messages import Check


class LiteAgent(BaseMachine):
    """Has host candidates, answers checks, takes what is nominated, and never checks itself.

    It does not hold one nomination against another that comes later: from a peer that nominates
    aggressively it takes the one of highest priority.
    """

    lite: ClassVar[bool] = True

    def _begin(self, now: float) -> None:
        if self.remote is not None and not self.remote.lite:
            self.controlling = False  # section 6.1.1

    def _conflicts(self, check: Check) -> bool:
        # Section 7.3.1.1, but there is nothing to compare: only a full agent can control us.
        return not check.controlling

    def _receive_check(self, check: Check, now: float) -> None:
        """Section 7.3.2."""
        if not check.use_candidate:
            return
        local, remote = self._bases[check.local], self._learn_remote(check)
        if self.selected is not None and self.selected.key == (check.local, check.source):
            return
        self._select(self._valid(CandidatePair(local, remote, controlling=False), now), now)

    def _advance(self, now: float) -> None:
        """Section 8.2: two lite peers take what they were told, unchecked."""
        lite = self.remote is not None and self.remote.lite
        if not lite or not self._remote_ended or self.selected is not None:
            return
        pairs = [
            CandidatePair(local, remote, controlling=self.controlling)
            for local in self._bases.values()
            for remote in self.remote_candidates
            if may_pair(local, remote)
        ]
        if pairs:
            best = max(pairs, key=lambda pair: pair.priority)
            self._validated.add(best.key)
            self._select(self._valid(best, now), now)

    def _valid(self, pair: CandidatePair, now: float) -> CandidatePair:
        pair.mapped = pair.local
        pair.valid_since = now
        pair.state = PairState.SUCCEEDED
        return pair
