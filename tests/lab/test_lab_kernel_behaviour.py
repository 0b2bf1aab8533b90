"""What no discovery protocol tells of a kernel NAT, told by plain packets: ports, addresses,
hairpins, lifetimes, and what becomes of those who knock too early."""

from __future__ import annotations

import contextlib
import itertools
import socket
import time
from collections.abc import Iterator

import pytest

from ice_punch.datagram import Address
from ice_punch.lab.behaviour import (
    NINE,
    Blocking,
    EarlyInbound,
    Filtering,
    Hairpinning,
    Mapping,
    NatBehaviour,
    NatKind,
    Pooling,
    PortAllocation,
    Refresh,
)
from ice_punch.lab.kernel import KernelHost, KernelInternet, enter
from ice_punch.lab.scenario import Scenario, peer
from support.netns import NETNS, UdpProbe, udp_probes

pytestmark = NETNS

ONE, TWO = "203.0.113.10", "203.0.113.11"
EXTERNAL = "198.51.100.16"
IP_RECVERR = 11
OPEN = Filtering.ENDPOINT_INDEPENDENT


@contextlib.contextmanager
def behind(
    nat: NatBehaviour, *more: tuple[str, str | None]
) -> Iterator[tuple[KernelInternet, list[UdpProbe]]]:
    """A host behind this NAT with a probe, a server's probe, and more of them as asked for."""
    with KernelInternet(nat_a=nat, nat_b="none") as net:
        places = [("peer_a", None), ("public", ONE), *more]
        with udp_probes(*((getattr(net, name), ip) for name, ip in places)) as probes:
            yield net, probes


@contextlib.contextmanager
def two_behind(nat: NatBehaviour) -> Iterator[KernelInternet]:
    """Both peers on one local network behind this NAT."""
    none = peer(NatKind.NONE)
    with KernelInternet.of(Scenario(a=none, b=none, shared_nats=(nat,))) as net:
        yield net


def mapped(inside: UdpProbe, server: UdpProbe) -> Address:
    """Where the server sees the probe."""
    return inside.seen_by(server)


def probe_at(stack: contextlib.ExitStack, host: KernelHost, port: int) -> UdpProbe:
    probe = UdpProbe(host, port=port)
    stack.callback(probe.close)
    return probe


# -- ports and addresses ----------------------------------------------------------------------


def test_preserved_ports_are_the_internal_ones_and_nobody_shares_one() -> None:
    with two_behind(NatBehaviour(filtering=OPEN)) as net, contextlib.ExitStack() as stack:
        a, b = (probe_at(stack, host, 50000) for host in (net.peer_a, net.peer_b))
        server = probe_at(stack, net.public, 7000)
        first, second = mapped(a, server), mapped(b, server)
        assert first == (net.peer_a.public_address, 50000)
        assert second[0] == first[0]
        assert second[1] != 50000
        for external, owner in ((first, a), (second, b)):
            server.send(external)
            assert owner.source_of_next() == server.address


@pytest.mark.parametrize("step", [1, -7])
def test_sequential_ports_come_step_by_step(step: int) -> None:
    nat = NatBehaviour(allocation=PortAllocation.SEQUENTIAL, step=step)
    with behind(nat) as (net, (_, server)), udp_probes(*[(net.peer_a, None)] * 5) as probes:
        ports = [mapped(probe, server)[1] for probe in probes]
        assert [b - a for a, b in itertools.pairwise(ports)] == [step] * 4
        assert [mapped(probe, server)[1] for probe in probes] == ports


def test_every_destination_takes_a_step_where_the_mapping_depends_on_it() -> None:
    nat = NatBehaviour(
        mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT, allocation=PortAllocation.SEQUENTIAL, step=2
    )
    with behind(nat, ("public", ONE), ("public", TWO)) as (_, (inside, *servers)):
        ports = [mapped(inside, server)[1] for server in servers]
        assert ports == [ports[0], ports[0] + 2, ports[0] + 4]


def test_parity_is_preserved_and_nothing_else() -> None:
    nat = NatBehaviour(allocation=PortAllocation.PARITY_PRESERVING)
    with behind(nat) as (net, (_, server)), contextlib.ExitStack() as stack:
        for port in range(50000, 50008):
            probe = probe_at(stack, net.peer_a, port)
            external = mapped(probe, server)[1]
            assert external % 2 == port % 2
            assert external != port


def test_contiguous_ports_stay_neighbours() -> None:
    nat = NatBehaviour(allocation=PortAllocation.CONTIGUOUS)
    with behind(nat) as (net, (_, server)), contextlib.ExitStack() as stack:
        probes = [probe_at(stack, net.peer_a, port) for port in (50000, 50001, 50007)]
        ports = [mapped(probe, server)[1] for probe in probes]
        assert [port - ports[0] for port in ports] == [0, 1, 7]
        assert ports[0] != 50000


def test_random_ports_tell_nothing_of_the_next() -> None:
    nat = NatBehaviour(allocation=PortAllocation.RANDOM)
    with behind(nat) as (net, (_, server)), udp_probes(*[(net.peer_a, None)] * 8) as probes:
        ports = [mapped(probe, server)[1] for probe in probes]
        assert len(set(ports)) == 8
        assert not {p.address[1] for p in probes} & set(ports)
        assert len({b - a for a, b in itertools.pairwise(ports)}) == 7
        assert min(ports) >= 1024


@pytest.mark.parametrize("allocation", [PortAllocation.PRESERVING, PortAllocation.RANDOM])
def test_paired_pooling_keeps_a_host_at_one_address(allocation: PortAllocation) -> None:
    nat = NatBehaviour(external_addresses=4, allocation=allocation)
    with behind(nat) as (net, (_, server)), udp_probes(*[(net.peer_a, None)] * 12) as probes:
        assert len(net.peer_a.public_addresses) == 4
        seen = {mapped(probe, server)[0] for probe in probes}
        assert len(seen) == 1
        assert seen < set(net.peer_a.public_addresses)


def test_arbitrary_pooling_scatters_a_host_but_not_a_mapping() -> None:
    nat = NatBehaviour(external_addresses=4, pooling=Pooling.ARBITRARY)
    more = (("public", TWO),)
    with (
        behind(nat, *more) as (net, (_, one, two)),
        udp_probes(*[(net.peer_a, None)] * 24) as probes,
    ):
        seen = [mapped(probe, one) for probe in probes]
        assert len({ip for ip, _ in seen}) > 1
        assert [mapped(probe, two) for probe in probes] == seen


# -- filtering --------------------------------------------------------------------------------


def test_an_unused_socket_can_not_be_reached_even_through_a_full_cone() -> None:
    with behind(NatBehaviour(filtering=OPEN), ("peer_a", None)) as (net, (_, server, unused)):
        server.send((net.peer_a.public_address, unused.address[1]))
        assert unused.hears_nothing()


@pytest.mark.parametrize(
    "nat",
    [n for n in NINE if n.mapping is not Mapping.ENDPOINT_INDEPENDENT],
    ids=lambda nat: nat.short,
)
def test_whoever_the_endpoint_has_sent_to_may_come_through_any_mapping(nat: NatBehaviour) -> None:
    """RFC 4787 section 5 speaks of the internal endpoint, not of a mapping."""
    more = (("public", TWO), ("public", TWO), ("peer_b", None))
    with behind(nat, *more) as (_, (inside, one, two, neighbour, stranger)):
        first, second = mapped(inside, one), mapped(inside, two)
        assert first != second
        for _ in range(2):
            two.send(first)
            assert inside.source_of_next() == two.address
            two.send(second)
            assert inside.source_of_next() == two.address
        neighbour.send(first)
        if nat.filtering is Filtering.ADDRESS_AND_PORT_DEPENDENT:
            assert inside.hears_nothing(0.1)
        else:
            assert inside.source_of_next() == neighbour.address
        stranger.send(first)
        if nat.filtering is OPEN:
            assert inside.source_of_next() == stranger.address
        else:
            assert inside.hears_nothing(0.1)


def test_an_answer_leaves_by_its_own_mapping_not_by_the_one_it_was_asked_through() -> None:
    nat = NINE[6]
    assert nat.short == "APDM/EIF"
    with behind(nat, ("peer_b", None)) as (_, (inside, server, stranger)):
        external = mapped(inside, server)
        stranger.send(external)
        assert inside.source_of_next() == stranger.address
        assert mapped(inside, stranger) != external


# -- hairpins ---------------------------------------------------------------------------------


def test_without_hairpinning_a_host_does_not_reach_its_neighbour_through_the_nat() -> None:
    with (
        two_behind(NatBehaviour(filtering=OPEN)) as net,
        udp_probes((net.peer_a, None), (net.peer_b, None), (net.public, None)) as (a, b, server),
    ):
        a.send(mapped(b, server))
        assert b.hears_nothing()


@pytest.mark.parametrize("kind", [Hairpinning.INTERNAL_SOURCE, Hairpinning.EXTERNAL_SOURCE])
def test_a_hairpinned_packet_has_the_source_that_the_kind_says(kind: Hairpinning) -> None:
    with (
        two_behind(NatBehaviour(filtering=OPEN, hairpinning=kind)) as net,
        udp_probes((net.peer_a, None), (net.peer_b, None), (net.public, None)) as (a, b, server),
    ):
        external_a, external_b = mapped(a, server), mapped(b, server)
        a.send(external_b)
        inside = kind is Hairpinning.INTERNAL_SOURCE
        assert b.source_of_next() == (a.address if inside else external_a)
        if not inside:  # A host takes no packet from outside that has its own address as source.
            a.send(external_a)
            assert a.source_of_next() == external_a


@pytest.mark.parametrize("kind", [Hairpinning.INTERNAL_SOURCE, Hairpinning.EXTERNAL_SOURCE])
def test_hairpinned_packets_have_to_pass_the_filter(kind: Hairpinning) -> None:
    with (
        two_behind(NatBehaviour(hairpinning=kind)) as net,
        udp_probes((net.peer_a, None), (net.peer_b, None), (net.public, None)) as (a, b, server),
    ):
        external_a, external_b = mapped(a, server), mapped(b, server)
        a.send(external_b)
        assert b.hears_nothing()
        b.send(external_a)
        assert a.receive()[0] == b"probe"
        a.send(external_b)
        assert b.receive()[0] == b"probe"


def test_hairpinning_maps_by_destination_like_everything_else() -> None:
    nat = NatBehaviour(
        mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT,
        filtering=OPEN,
        allocation=PortAllocation.RANDOM,
        hairpinning=Hairpinning.EXTERNAL_SOURCE,
    )
    with (
        two_behind(nat) as net,
        udp_probes((net.peer_a, None), (net.peer_b, None), (net.public, None)) as (a, b, server),
    ):
        external_a, external_b = mapped(a, server), mapped(b, server)
        a.send(external_b)
        source = b.source_of_next()
        assert source[0] == external_a[0]
        assert source != external_a
        b.send(source)
        answered = a.source_of_next()
        assert answered[0] == external_b[0]
        assert answered != external_b


# -- lifetimes --------------------------------------------------------------------------------


def test_a_mapping_lives_as_long_as_it_is_used_outwards_and_then_ends() -> None:
    nat = NatBehaviour(filtering=OPEN, allocation=PortAllocation.RANDOM, lifetime=1.2)
    with behind(nat) as (_, (inside, server)):
        external = mapped(inside, server)
        for _ in range(3):
            time.sleep(0.8)
            assert mapped(inside, server) == external
        time.sleep(0.8)
        server.send(external)
        assert inside.source_of_next() == server.address
        # What came in did not refresh it, RFC 4787 section 4.3.
        time.sleep(0.6)
        server.send(external)
        assert inside.hears_nothing(0.1)
        assert mapped(inside, server) != external


def test_inbound_refresh_keeps_a_mapping_that_nobody_uses_outwards() -> None:
    nat = NatBehaviour(allocation=PortAllocation.RANDOM, lifetime=1.2, refresh=Refresh.BOTH)
    with behind(nat) as (_, (inside, server)):
        external = mapped(inside, server)
        for _ in range(3):
            time.sleep(0.8)
            server.send(external)
            assert inside.source_of_next() == server.address
        time.sleep(0.8)
        assert mapped(inside, server) == external
        time.sleep(1.3)
        server.send(external)
        assert inside.hears_nothing(0.1)


def test_inbound_refresh_alone_lets_a_mapping_end_though_it_is_used_outwards() -> None:
    nat = NatBehaviour(lifetime=1.2, refresh=Refresh.INBOUND)
    with behind(nat) as (_, (inside, server)):
        external = mapped(inside, server)
        time.sleep(0.8)
        mapped(inside, server)
        time.sleep(0.6)
        server.send(external)
        assert inside.hears_nothing(0.1)


# -- too early --------------------------------------------------------------------------------


def is_refused(sender: UdpProbe, to: Address) -> bool:
    """Whether ICMP tells the sender that its datagram found nobody."""
    sender.socket.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    sender.send(to)
    try:
        sender.receive(2.0)
        return False
    except TimeoutError:
        return False
    except ConnectionRefusedError:
        return True
    finally:
        sender.socket.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 0)


@pytest.mark.parametrize("known", [True, False], ids=["to a mapping", "to nothing"])
def test_reject_answers_an_early_packet_with_port_unreachable(known: bool) -> None:
    nat = NatBehaviour(early_inbound=EarlyInbound.REJECT)
    with behind(nat, ("public", TWO)) as (net, (inside, server, stranger)):
        external = mapped(inside, server)
        target = external if known else (net.peer_a.public_address, external[1] ^ 1)
        assert is_refused(stranger, target)
        server.send(external)
        assert inside.source_of_next() == server.address


@pytest.mark.parametrize("early", [EarlyInbound.DROP, EarlyInbound.RESET])
def test_drop_and_reset_say_nothing_to_an_early_datagram(early: EarlyInbound) -> None:
    with behind(NatBehaviour(early_inbound=early), ("public", TWO)) as (_, (a, server, stranger)):
        stranger.socket.connect(mapped(a, server))
        stranger.socket.send(b"early")
        assert stranger.hears_nothing()
        assert a.hears_nothing(0.05)


@pytest.mark.parametrize(
    ("early", "error"),
    [(EarlyInbound.RESET, ConnectionRefusedError), (EarlyInbound.DROP, TimeoutError)],
)
def test_an_early_segment_is_reset_or_dropped(early: EarlyInbound, error: type[OSError]) -> None:
    with KernelInternet(nat_a=NatBehaviour(early_inbound=early), nat_b="none") as net:
        with enter(net.public.namespace):
            stranger = socket.socket()
        with stranger:
            stranger.settimeout(0.5)
            with pytest.raises(error):
                stranger.connect((net.peer_a.public_address, 443))


def test_a_blacklisted_source_is_not_heard_for_a_while_even_once_it_is_welcome() -> None:
    nat = NatBehaviour(early_inbound=EarlyInbound.BLACKLIST, blacklist_seconds=1.0)
    more = (("public", TWO), ("public", TWO))
    with behind(nat, *more) as (_, (inside, server, early, neighbour)):
        external = mapped(inside, server)
        early.send(external)
        began = time.monotonic()
        for source in (early, neighbour):
            inside.send(source.address)
            source.receive()
            source.send(external)
        assert inside.hears_nothing()
        server.send(external)
        assert inside.source_of_next() == server.address
        time.sleep(max(0.0, began + 1.1 - time.monotonic()))
        early.send(external)
        assert inside.source_of_next() == early.address


def test_a_router_that_claims_early_packets_gives_that_peer_another_port() -> None:
    nat = NatBehaviour(early_inbound=EarlyInbound.CLAIM)
    with behind(nat, ("public", TWO)) as (_, (inside, server, early)):
        external = mapped(inside, server)
        assert external[1] == inside.address[1]
        assert is_refused(early, external)
        moved = mapped(inside, early)
        assert moved[1] != external[1]
        assert mapped(inside, server) == external


# -- blocking ---------------------------------------------------------------------------------


@pytest.mark.parametrize("blocking", Blocking)
def test_what_is_blocked_does_not_leave(blocking: Blocking) -> None:
    with (
        KernelInternet(nat_a=NatBehaviour(blocking=blocking), nat_b="none") as net,
        udp_probes((net.peer_a, None), (net.public, ONE)) as (inside, server),
    ):
        free = blocking is Blocking.NOTHING
        assert inside.reaches(server, expected=free) == free
        for port in (443, 444):
            allowed = blocking is not Blocking.ALL_BUT_TCP_443 or port == 443
            with contextlib.ExitStack() as stack:
                with enter(net.public.namespace):
                    stack.enter_context(socket.create_server((ONE, port)))
                with enter(net.peer_a.namespace):
                    client = stack.enter_context(socket.socket())
                client.settimeout(5.0 if allowed else 0.3)
                if allowed:
                    client.connect((ONE, port))
                else:
                    with pytest.raises(TimeoutError):
                        client.connect((ONE, port))


# -- routers in a row -------------------------------------------------------------------------


def test_a_carrier_grade_nat_maps_what_the_home_router_has_mapped() -> None:
    home = NatBehaviour(filtering=OPEN)
    carrier = NatBehaviour(allocation=PortAllocation.RANDOM)
    scenario = Scenario(a=peer((home, carrier)), b=peer(NatKind.NONE))
    with (
        KernelInternet.of(scenario) as net,
        udp_probes((net.peer_a, None), (net.public, ONE), (net.public, TWO)) as (a, one, two),
    ):
        external = mapped(a, one)
        assert external[0] == net.peer_a.public_address
        assert external[1] != a.address[1]
        assert mapped(a, two) == external
        inner = [r.external[0] for r in net.layout.seats[0].routers]
        assert inner == ["100.64.1.16", EXTERNAL]
        one.send(external)
        assert a.source_of_next() == one.address


def test_a_carrier_rejects_for_the_home_router_too() -> None:
    home = NatBehaviour(early_inbound=EarlyInbound.REJECT)
    scenario = Scenario(a=peer((home, NatBehaviour(filtering=OPEN))), b=peer(NatKind.NONE))
    with (
        KernelInternet.of(scenario) as net,
        udp_probes((net.peer_a, None), (net.public, ONE), (net.public, TWO)) as (a, one, two),
    ):
        assert is_refused(two, mapped(a, one))
