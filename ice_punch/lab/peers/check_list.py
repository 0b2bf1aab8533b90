"""The check list of RFC 5245 section 5.7, for peers that share nothing with our agent."""

from __future__ import annotations

from collections import deque
from typing import Final

from ice_punch.datagram import Address
from ice_punch.ice import CandidatePair, PairState

MAX_PAIRS: Final = 100
UNTRIED: Final = (PairState.WAITING, PairState.FROZEN)


class ClassicCheckList:
    """Pairs by priority, and the triggered ones that go first."""

    def __init__(self) -> None:
        self.pairs: list[CandidatePair] = []
        self.triggered: deque[CandidatePair] = deque()

    @property
    def has_work(self) -> bool:
        return bool(self.triggered) or any(pair.state in UNTRIED for pair in self.pairs)

    @property
    def best_valid(self) -> CandidatePair | None:
        return next((pair for pair in self.pairs if pair.valid), None)

    def find(self, base: Address, remote: Address) -> CandidatePair | None:
        return next((pair for pair in self.pairs if pair.key == (base, remote)), None)

    def add(self, pair: CandidatePair) -> bool:
        """False if there is no room. One pair of a foundation is Waiting, the others are Frozen
        until it has succeeded."""
        if len(self.pairs) >= MAX_PAIRS:
            return False
        alike = (other for other in self.pairs if other.foundation == pair.foundation)
        first = all(other.state is PairState.SUCCEEDED for other in alike)
        pair.state = PairState.WAITING if first else PairState.FROZEN
        self.pairs.append(pair)
        self._sort()
        return True

    def update_priorities(self, *, controlling: bool) -> None:
        for pair in self.pairs:
            pair.update_priority(controlling=controlling)
        self._sort()

    def _sort(self) -> None:
        self.pairs.sort(key=lambda pair: -pair.priority)

    def trigger(self, pair: CandidatePair, *, ahead: bool = False) -> None:
        if pair in self.triggered:
            return
        if not pair.valid:
            pair.state = PairState.WAITING
        if ahead:
            self.triggered.appendleft(pair)
        else:
            self.triggered.append(pair)

    def next(self) -> CandidatePair | None:
        """Section 5.8: a triggered one, the best that is Waiting, the best that is Frozen."""
        if self.triggered:
            return self.triggered.popleft()
        for state in UNTRIED:
            for pair in self.pairs:
                if pair.state is state:
                    return pair
        return None

    def succeeded(self, pair: CandidatePair) -> None:
        """Section 7.1.3.2.3."""
        pair.state = PairState.SUCCEEDED
        for other in self.pairs:
            if other.state is PairState.FROZEN and other.foundation == pair.foundation:
                other.state = PairState.WAITING

    def conclude(self, selected: CandidatePair) -> list[CandidatePair]:
        """Section 8.1.2: what was not tried is gone. Returns the pairs of lower priority that are
        left, whose checks are sent no more."""
        self.triggered.clear()
        self.pairs = [p for p in self.pairs if p is selected or p.state not in UNTRIED]
        return [pair for pair in self.pairs if pair.priority < selected.priority]
