"""The check list of a data stream: pairing, pruning, freezing and what to check next."""

from __future__ import annotations

from collections.abc import Container, Iterator

from ice_punch.datagram import Address
from ice_punch.ice.candidate import Candidate
from ice_punch.ice.pair import CandidatePair, PairState


def may_pair(local: Candidate, remote: Candidate) -> bool:
    """RFC 8445 section 6.1.2.2: same component, family and transport; IPv6 link-local addresses
    with their like."""
    return (
        local.component == remote.component
        and local.transport == remote.transport == "udp"
        and local.ip_version == remote.ip_version != 0
        and (local.ip_version == 4 or local.is_link_local == remote.is_link_local)
    )


class CheckList:
    """The pairs of one data stream, best first, and the triggered-check queue beside them.

    Only bases are paired: a server-reflexive candidate would be replaced by its base and pruned at
    once (RFC 8445 section 6.1.2.4).
    """

    def __init__(self, max_pairs: int = 100, *, impatient: bool = False) -> None:
        """``impatient``: of a restart, where an address that the peer has told may be one of
        before: a pair whose check was resent holds no other pair of its foundation back."""
        self._impatient = impatient
        self.max_pairs = max_pairs
        """RFC 8445 section 6.1.2.5."""
        self.pairs: list[CandidatePair] = []
        self.triggered_check_queue: list[CandidatePair] = []
        self.deferred: list[CandidatePair] = []
        """Triggered checks that ordinary ones go ahead of."""
        self.pairs_refused = 0
        self.peer_checked_at: float | None = None
        """When the peer's first check came; of a lite peer, which makes none, when we began."""
        self._by_key: dict[tuple[Address, Address], CandidatePair] = {}

    def __iter__(self) -> Iterator[CandidatePair]:
        return iter(self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def find(self, base: Address, remote: Address) -> CandidatePair | None:
        return self._by_key.get((base, remote))

    @property
    def valid_list(self) -> list[CandidatePair]:
        """RFC 8445 section 7.2.5.3.2, highest priority first."""
        return [pair for pair in self.pairs if pair.valid]

    def add(self, pair: CandidatePair) -> bool:
        """Insert a pair; False if it is there already or there is no room for it.

        Over the limit, Failed pairs go first, then those of lowest priority that were not tried
        yet (RFC 8838 section 10).
        """
        if pair.key in self._by_key:
            return False
        if len(self.pairs) >= self.max_pairs:
            victim = next((p for p in reversed(self.pairs) if p.state is PairState.FAILED), None)
            if victim is None:
                victim = next(
                    (
                        p
                        for p in reversed(self.pairs)
                        if p.state in (PairState.FROZEN, PairState.WAITING)
                        and p.priority < pair.priority
                    ),
                    None,
                )
            if victim is None:
                self.pairs_refused += 1
                return False
            self.remove(victim)
        pair.state = self._initial_state(pair)
        self._by_key[pair.key] = pair
        self.pairs.append(pair)
        self.sort()
        return True

    def remove(self, pair: CandidatePair) -> None:
        self.pairs.remove(pair)
        del self._by_key[pair.key]
        self.unqueue(pair)

    def sort(self) -> None:
        self.pairs.sort(key=lambda pair: (-pair.priority, pair.component))

    def update_priorities(self, *, controlling: bool) -> None:
        """A role switch changes every pair priority (RFC 8445 section 7.3.1.1)."""
        for pair in self.pairs:
            pair.update_priority(controlling=controlling)
        self.sort()

    def _initial_state(self, pair: CandidatePair) -> PairState:
        group = [other for other in self.pairs if other.foundation == pair.foundation]
        # RFC 8838 section 12, rule 2: the foundation has already worked.
        if any(other.state is PairState.SUCCEEDED for other in group):
            return PairState.WAITING
        # Rule 3: some pair of the foundation comes before this one.
        rank = (pair.component, -pair.priority)
        if any((other.component, -other.priority) <= rank for other in group):
            return PairState.FROZEN
        # Rule 1, and RFC 8445 section 6.1.2.6: the first of its foundation is Waiting, alone as
        # long as nothing was sent, as if all pairs had been there from the start.
        for other in group:
            if other.state is PairState.WAITING and other not in self.triggered_check_queue:
                other.state = PairState.FROZEN
        return PairState.WAITING

    def trigger(self, pair: CandidatePair, *, ahead: bool = False) -> None:
        """Queue a triggered check (RFC 8445 section 7.3.1.4), at most one a pair."""
        if pair in self.triggered_check_queue or pair in self.deferred:
            if not ahead:
                return
            self.unqueue(pair)
        if ahead:
            self.triggered_check_queue.insert(0, pair)
        else:
            self.triggered_check_queue.append(pair)

    def defer(self, pair: CandidatePair) -> None:
        """Queue a triggered check behind the ordinary ones, at most one a pair."""
        if pair not in self.triggered_check_queue and pair not in self.deferred:
            self.deferred.append(pair)

    def unqueue(self, pair: CandidatePair) -> None:
        for queue in (self.triggered_check_queue, self.deferred):
            if pair in queue:
                queue.remove(pair)

    def succeeded(self, pair: CandidatePair) -> None:
        """RFC 8445 section 7.2.5.3.3: every Frozen pair of the foundation becomes Waiting."""
        pair.state = PairState.SUCCEEDED
        for other in self.pairs:
            if other.state is PairState.FROZEN and other.foundation == pair.foundation:
                other.state = PairState.WAITING

    def has_work(self) -> bool:
        if self.triggered_check_queue or self.deferred:
            return True
        active, frozen = set(), []
        for pair in self.pairs:
            if pair.state is PairState.WAITING:
                return True
            if self._holds_back(pair):
                active.add(pair.foundation)
            elif pair.state is PairState.FROZEN:
                frozen.append(pair)
        return any(pair.foundation not in active for pair in frozen)

    def next_triggered(self) -> CandidatePair | None:
        """Step 1 of RFC 8445 section 6.1.4.2."""
        return self.triggered_check_queue.pop(0) if self.triggered_check_queue else None

    def next_ordinary(self) -> CandidatePair | None:
        """Steps 2 and 3 of RFC 8445 section 6.1.4.2."""
        waiting = self._first_waiting()
        if waiting is not None:
            return waiting
        for pair in self.pairs:
            if self._may_unfreeze(pair):
                pair.state = PairState.WAITING
        return self._first_waiting()

    def next_deferred(self) -> CandidatePair | None:
        return self.deferred.pop(0) if self.deferred else None

    def _first_waiting(self) -> CandidatePair | None:
        deferred = self.deferred
        return next(
            (p for p in self.pairs if p.state is PairState.WAITING and p not in deferred), None
        )

    def _may_unfreeze(self, pair: CandidatePair) -> bool:
        return pair.state is PairState.FROZEN and not any(
            other.state is PairState.WAITING or self._holds_back(other)
            for other in self.pairs
            if other.foundation == pair.foundation
        )

    def _holds_back(self, pair: CandidatePair) -> bool:
        """Whether the check that is out may still unfreeze its foundation."""
        if pair.state is not PairState.IN_PROGRESS:
            return False
        check = pair.current_check
        return not (self._impatient and check is not None and check.retransmission.sends > 1)

    def conclude(
        self, selected: CandidatePair, keep: Container[CandidatePair] = ()
    ) -> list[CandidatePair]:
        """RFC 8445 section 8.1.2: a component has its nominated pair. Returns the pairs that were
        In-Progress, whose transactions end; untried pairs of the component are gone. Those of
        ``keep`` stay as they are."""
        in_progress: list[CandidatePair] = []
        for pair in list(self.pairs):
            if pair is selected or pair.component != selected.component or pair in keep:
                continue
            self.unqueue(pair)
            if pair.state is PairState.IN_PROGRESS:
                in_progress.append(pair)
            elif pair.state in (PairState.WAITING, PairState.FROZEN):
                self.remove(pair)
        return in_progress
