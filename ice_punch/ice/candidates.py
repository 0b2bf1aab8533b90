"""The candidates of both sides: made, numbered, kept unique and found again."""

from __future__ import annotations

from dataclasses import replace

from ice_punch.datagram import Address
from ice_punch.ice.candidate import (
    Candidate,
    CandidateType,
    Foundations,
    candidate_priority,
)


class LocalCandidates:
    """Our candidates. Priorities are unique per component (RFC 8445 section 5.1.2)."""

    def __init__(self) -> None:
        self.all: list[Candidate] = []
        self._foundations = Foundations()
        self._preferences: set[tuple[str, int, int]] = set()
        self._by_base: dict[Address, Candidate] = {}

    def carried_over(self, *, only_relays: bool = False) -> LocalCandidates:
        """What an ICE restart leaves: all but the peer-reflexive ones, with equal foundations."""
        gone = {CandidateType.PRFLX}
        if only_relays:
            gone |= {CandidateType.HOST, CandidateType.SRFLX}
        left = LocalCandidates()
        left.all = [c for c in self.all if c.type not in gone]
        left._foundations = self._foundations
        left._by_base = {base: c for base, c in self._by_base.items() if c.type not in gone}
        left._preferences = {self._taken_by(candidate) for candidate in left.all}
        return left

    def remove_base(self, base: Address) -> None:
        """Forget every candidate of this base."""
        for candidate in [c for c in self.all if c.base == base]:
            self.all.remove(candidate)
            if candidate.type is not CandidateType.PRFLX:
                self._preferences.discard(self._taken_by(candidate))
        self._by_base.pop(base, None)

    def at_base(self, base: Address) -> Candidate | None:
        """The host or relayed candidate whose base this is."""
        return self._by_base.get(base)

    def at_address(self, address: Address) -> Candidate | None:
        return next((c for c in self.all if c.address == address), None)

    def preference_of(self, candidate: Candidate) -> int:
        return (candidate.priority >> 8) & 0xFFFF

    def _taken_by(self, candidate: Candidate) -> tuple[str, int, int]:
        """The local preference that no other candidate of its kind has."""
        return (_group(candidate.type), candidate.component, self.preference_of(candidate))

    def _unique_preference(self, type_: CandidateType, component: int, wanted: int) -> int:
        # RFC 8445 section 5.1.2.1: several of one type have different local preferences. Hosts and
        # relays share them: what a peer learns from a check of either is peer-reflexive
        # (section 7.1.1), and there the two are of one type.
        group = _group(type_)
        while (group, component, wanted) in self._preferences and wanted > 0:
            wanted -= 1
        self._preferences.add((group, component, wanted))
        return wanted

    def forget_reflexive(self, address: Address, base: Address) -> None:
        """The NAT gave up this mapping: the candidate leads nowhere any more."""
        for candidate in self.all:
            if (candidate.type, candidate.address) == (CandidateType.SRFLX, address) and (
                candidate.base == base
            ):
                self.all.remove(candidate)
                self._preferences.discard(self._taken_by(candidate))
                return

    def add(
        self,
        type_: CandidateType,
        address: Address,
        *,
        base: Address,
        component: int,
        local_preference: int,
        related: Address | None = None,
        server: str | None = None,
        server_ip: str | None = None,
        priority: int | None = None,
    ) -> Candidate | None:
        """Make a candidate; None if it is redundant: same address and base as one of higher
        priority (RFC 8445 section 5.1.3). ``server_ip`` is where ``server`` was reached, which is
        what the foundation depends on (section 5.1.1.3)."""
        known = next((c for c in self.all if c.address == address and c.base == base), None)
        if known is not None and (known.type, type_) == (CandidateType.PRFLX, CandidateType.SRFLX):
            self.all.remove(known)  # of the two only the server-reflexive one can be signalled
        elif known is not None:
            return None
        if priority is None:
            preference = self._unique_preference(type_, component, local_preference)
            priority = candidate_priority(type_, preference, component)
        candidate = Candidate(
            foundation=self._foundations.get(type_, base[0], server_ip or server, "udp"),
            component=component,
            transport="udp",
            priority=priority,
            host=address[0],
            port=address[1],
            type=type_,
            related_address=related,
            base=base,
            server=server,
        )
        self.all.append(candidate)
        if base == address:
            self._by_base[base] = candidate
        return candidate


def _group(type_: CandidateType) -> str:
    return "srflx" if type_ is CandidateType.SRFLX else "base"


class RemoteCandidates:
    """The peer's candidates, signalled or learned from its checks, bounded."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.all: list[Candidate] = []
        self._learned = 0

    @property
    def full(self) -> bool:
        return len(self.all) >= self.limit

    def find(self, address: Address, component: int) -> Candidate | None:
        return next(
            (c for c in self.all if c.address == address and c.component == component), None
        )

    def add(self, candidate: Candidate) -> None:
        self.all.append(candidate)

    def replace(self, old: Candidate, new: Candidate) -> None:
        self.all[self.all.index(old)] = new

    def learn(self, address: Address, component: int, priority: int) -> Candidate:
        """A peer-reflexive candidate with a foundation that nobody can signal (RFC 8445 section
        7.3.1.3)."""
        self._learned += 1
        candidate = Candidate(
            foundation=f"prflx-{self._learned}",
            component=component,
            transport="udp",
            priority=priority,
            host=address[0],
            port=address[1],
            type=CandidateType.PRFLX,
        )
        self.all.append(candidate)
        return candidate

    def learned_at(self, host: str) -> int:
        """How many peer-reflexive candidates have this IP address."""
        return sum(c.type is CandidateType.PRFLX and c.host == host for c in self.all)

    def mapping_varies(self) -> bool:
        """Whether the peer told two reflexive addresses of one base."""
        seen: dict[tuple[Address, int], set[Address]] = {}
        for candidate in self.all:
            related = candidate.related_address
            if candidate.type is not CandidateType.SRFLX or related is None:
                continue
            if related[0] in ("0.0.0.0", "::"):  # noqa: S104 (hidden, RFC 8839 section 5.1)
                continue
            seen.setdefault((related, candidate.component), set()).add(candidate.address)
        return any(len(addresses) > 1 for addresses in seen.values())


def same_but_signalled(learned: Candidate, signalled: Candidate) -> Candidate:
    """RFC 8838 section 11: the pair's state stays, type and priority become the signalled ones."""
    return replace(signalled, host=learned.host, port=learned.port)
