"""Whatever goes through a virtual NAT in whatever order, it keeps the promises of RFC 4787.

The promises are checked from a log of what happened, by the words of the RFC, not from a table.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from ice_punch.datagram import Address
from ice_punch.lab.behaviour import (
    EarlyInbound,
    Filtering,
    Hairpinning,
    Mapping,
    NatBehaviour,
    Pooling,
    PortAllocation,
    Refresh,
)
from ice_punch.lab.trace import DropReason, Protocol
from ice_punch.lab.virtual.translation import TranslationTable

LIFETIME = 10.0
INSIDE = [(f"10.0.0.{n}", port) for n in (2, 3) for port in (5000, 5001)]
OUTSIDE = [(f"203.0.113.{n}", port) for n in (1, 2) for port in (3478, 50000)]

behaviours = st.builds(
    NatBehaviour,
    mapping=st.sampled_from(Mapping),
    filtering=st.sampled_from(Filtering),
    allocation=st.sampled_from(PortAllocation),
    step=st.sampled_from([1, 2, -1, 6, -10000]),
    hairpinning=st.sampled_from(Hairpinning),
    lifetime=st.sampled_from([None, LIFETIME]),
    refresh=st.sampled_from(Refresh),
    pooling=st.sampled_from(Pooling),
    external_addresses=st.sampled_from([1, 2, 5]),
    early_inbound=st.sampled_from([EarlyInbound.DROP, EarlyInbound.REJECT, EarlyInbound.RESET]),
)
moves = st.tuples(
    st.sampled_from(["out", "in", "hairpin"]),
    st.integers(0, len(INSIDE) - 1),
    st.integers(0, len(OUTSIDE) - 1),
    st.integers(0, 1000),
    st.sampled_from([Protocol.UDP, Protocol.UDP, Protocol.TCP]),
    st.sampled_from([0.0, 0.5, 4.0, 9.9, 11.0]),
)


@dataclass
class Log:
    """What has been seen of a NAT, and what the RFC makes of it."""

    behaviour: NatBehaviour
    mapped: dict[tuple[Protocol, Address, object], tuple[Address, float]] = field(
        default_factory=dict
    )
    """By protocol, internal address and what the mapping depends on: as whom, refreshed when."""
    contacts: dict[tuple[Protocol, Address, Address | str], float] = field(default_factory=dict)

    def key(self, protocol: Protocol, internal: Address, remote: Address) -> tuple[object, ...]:
        return {
            Mapping.ENDPOINT_INDEPENDENT: (protocol, internal, None),
            Mapping.ADDRESS_DEPENDENT: (protocol, internal, remote[0]),
            Mapping.ADDRESS_AND_PORT_DEPENDENT: (protocol, internal, remote),
        }[self.behaviour.mapping]

    def alive(self, protocol: Protocol, since: float | None, now: float) -> bool:
        if since is None:
            return False
        forever = self.behaviour.lifetime is None or protocol is Protocol.TCP
        return forever or now - since < LIFETIME

    def living(self, now: float) -> dict[tuple[Protocol, Address], tuple[Address, object]]:
        found = {}
        for key, (external, since) in self.mapped.items():
            if self.alive(key[0], since, now):
                where = (key[0], external)
                assert where not in found, "two mappings share an external address"
                found[where] = (key[1], key)
        return found

    def went_out(
        self, protocol: Protocol, internal: Address, remote: Address, external: Address, now: float
    ) -> None:
        key = self.key(protocol, internal, remote)
        known = self.mapped.get(key)  # type: ignore[call-overload]
        if known is not None and self.alive(protocol, known[1], now):
            assert external == known[0], "one mapping, one external address"
            refreshed = now if self.behaviour.refresh is not Refresh.INBOUND else known[1]
        else:
            assert (protocol, external) not in self.living(now), "the port was somebody else's"
            refreshed = now
        self.mapped[key] = (external, refreshed)  # type: ignore[index]
        for whom in (remote, remote[0]):
            since = self.contacts.get((protocol, internal, whom))
            kept = self.behaviour.refresh is Refresh.INBOUND and self.alive(protocol, since, now)
            if not kept:
                self.contacts[protocol, internal, whom] = now

    def comes_in(
        self, protocol: Protocol, remote: Address, external: Address, now: float
    ) -> Address | None:
        found = self.living(now).get((protocol, external))
        if found is None:
            return None
        internal, key = found
        whom = remote[0] if self.behaviour.filtering is Filtering.ADDRESS_DEPENDENT else remote
        if self.behaviour.filtering is not Filtering.ENDPOINT_INDEPENDENT:
            since = self.contacts.get((protocol, internal, whom))
            if not self.alive(protocol, since, now):
                return None
        if self.behaviour.refresh is not Refresh.OUTBOUND:
            self.mapped[key] = (external, now)  # type: ignore[index]
            for who in (remote, remote[0]):
                if (protocol, internal, who) in self.contacts:
                    self.contacts[protocol, internal, who] = now
        return internal


@settings(max_examples=300, deadline=None, derandomize=True)
@given(behaviours, st.lists(moves, max_size=60), st.integers(0, 3))
def test_a_nat_keeps_its_promises(
    behaviour: NatBehaviour, story: list[tuple[str, int, int, int, Protocol, float]], seed: int
) -> None:
    table = TranslationTable("198.51.100.1", behaviour, source=random.Random(seed))
    log = Log(behaviour)
    seen: list[Address] = [("198.51.100.1", 9)]
    now = 0.0
    for what, inside, outside, which, protocol, pause in story:
        now += pause
        internal, remote, external = INSIDE[inside], OUTSIDE[outside], seen[which % len(seen)]
        if what == "out":
            source = table.outbound(internal, remote, now, protocol)
            assert isinstance(source, tuple)
            assert source[0] in table.external_ips
            log.went_out(protocol, internal, remote, source, now)
            seen.append(source)
        elif what == "in":
            arrives = table.inbound(remote, external, now, protocol)
            allowed = log.comes_in(protocol, remote, external, now)
            assert (None if isinstance(arrives, DropReason) else arrives) == allowed
        elif behaviour.hairpinning is Hairpinning.NONE:
            assert table.hairpin(internal, external, now, protocol) is DropReason.NO_HAIRPIN
        else:
            hairpins(table, log, protocol, internal, external, now)


def hairpins(
    table: TranslationTable,
    log: Log,
    protocol: Protocol,
    internal: Address,
    external: Address,
    now: float,
) -> None:
    """Out and in again at once: by the same rules as both."""
    turned = table.hairpin(internal, external, now, protocol)
    known = {m.external for m in table.mappings if (m.protocol, m.internal) == (protocol, internal)}
    own = table.outbound(internal, external, now, protocol)
    assert isinstance(own, tuple)
    assert own in known
    log.went_out(protocol, internal, external, own, now)
    allowed = log.comes_in(protocol, own, external, now)
    if allowed is None:
        assert isinstance(turned, DropReason)
    else:
        inside = log.behaviour.hairpinning is Hairpinning.INTERNAL_SOURCE
        assert turned == (internal if inside else own, allowed)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.sampled_from(PortAllocation),
    st.lists(st.tuples(st.integers(2, 250), st.integers(1, 65535)), min_size=2, unique=True),
)
def test_many_hosts_never_share_a_port_and_keep_what_the_allocation_promises(
    allocation: PortAllocation, sources: list[tuple[int, int]]
) -> None:
    table = TranslationTable("198.51.100.1", NatBehaviour(allocation=allocation))
    given_ports = []
    for host, port in sources:
        external = table.outbound((f"10.0.0.{host}", port), OUTSIDE[0])
        assert isinstance(external, tuple)
        given_ports.append(external[1])
        if allocation is PortAllocation.PARITY_PRESERVING:
            assert external[1] % 2 == port % 2
        if allocation is PortAllocation.PRESERVING and port not in given_ports[:-1]:
            assert external[1] == port
        if allocation is not PortAllocation.PRESERVING:
            assert external[1] >= 1024
    assert len(set(given_ports)) == len(sources)
    assert [table.outbound((f"10.0.0.{h}", p), OUTSIDE[0]) for h, p in sources] == [
        ("198.51.100.1", port) for port in given_ports
    ]
