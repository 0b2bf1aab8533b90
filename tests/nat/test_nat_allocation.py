"""Port allocation and pooling, RFC 4787 sections 4.1 and 4.2: verdicts, and how to get there."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nat_support import PRIMARY, PUBLIC_IP, Bench, NoNat, SmallNat

from ice_punch.datagram import Address
from ice_punch.nat import (
    AllocationBehaviour,
    AllocationDetermined,
    AllocationDiscovery,
    PoolingBehaviour,
    SocketMapping,
    allocation_verdict,
    pooling_verdict,
    port_order,
)

IP = "10.0.0.2"
ORDER = port_order(40_000, 12)
SOCKETS = [(IP, port) for port in ORDER]


def mappings(ports: list[int], order: list[int] = ORDER) -> list[SocketMapping]:
    """Sockets used in ``order``, and the external ports they got."""
    return [
        SocketMapping((IP, local), (PUBLIC_IP, port))
        for local, port in zip(order, ports, strict=False)
    ]


def shuffled(seed: int = 0) -> list[int]:
    return [1024 + int(random.Random(f"{seed}/{n}").random() * 64_000) for n in range(12)]


def parity(seed: int = 0) -> list[int]:
    return [port & ~1 | local & 1 for local, port in zip(ORDER, shuffled(seed), strict=True)]


# -- verdicts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ports", "behaviour"),
    [
        (ORDER, AllocationBehaviour.PRESERVING),
        ([port + 777 for port in ORDER], AllocationBehaviour.CONTIGUOUS),
        ([50_000 + n for n in range(12)], AllocationBehaviour.SEQUENTIAL),
        ([50_000 - 3 * n for n in range(12)], AllocationBehaviour.SEQUENTIAL),
        ([50_000 + 2 * n for n in range(12)], AllocationBehaviour.SEQUENTIAL),
        (parity(), AllocationBehaviour.PARITY_PRESERVING),
        (shuffled(), AllocationBehaviour.RANDOM),
        (ORDER[:2], AllocationBehaviour.UNKNOWN),
        ([], AllocationBehaviour.UNKNOWN),
    ],
)
def test_every_allocation_has_its_verdict(ports: list[int], behaviour: AllocationBehaviour) -> None:
    verdict = allocation_verdict(mappings(ports))
    assert verdict.behaviour is behaviour
    assert (verdict.step is not None) is (behaviour is AllocationBehaviour.SEQUENTIAL)
    assert verdict.reason


@pytest.mark.parametrize("step", [1, -1, 2, -2, 17, 10_000])
def test_the_step_of_sequential_allocation_is_told(step: int) -> None:
    assert allocation_verdict(mappings([30_000 + step * n for n in range(4)])).step == step


def test_a_step_that_is_larger_than_anyone_counts_by_is_none() -> None:
    ports = [(1024 + 21_001 * n) % 65_536 for n in range(12)]
    assert allocation_verdict(mappings(ports)).behaviour is AllocationBehaviour.RANDOM


def test_where_there_is_no_nat_there_is_no_allocation() -> None:
    plain = [SocketMapping((IP, port), (IP, port)) for port in ORDER]
    assert allocation_verdict(plain).behaviour is AllocationBehaviour.OPEN


def test_an_internal_port_that_was_taken_does_not_hide_that_the_others_are_preserved() -> None:
    ports = [*ORDER[:4], 1025, *ORDER[5:8], 1026, *ORDER[9:]]
    assert allocation_verdict(mappings(ports)).behaviour is AllocationBehaviour.PRESERVING


def test_ports_that_others_took_in_between_do_not_hide_a_sequence() -> None:
    ports = [50_000, 50_001, 50_002, 50_005, 50_006, 50_007, 50_008, 50_009, 50_010]
    verdict = allocation_verdict(mappings(ports))
    assert (verdict.behaviour, verdict.step) == (AllocationBehaviour.SEQUENTIAL, 1)


def test_a_sequence_goes_on_at_the_other_end_of_the_ports() -> None:
    ports = [65_533, 65_534, 65_535, 1024, 1025, 1026, 1027]
    assert allocation_verdict(mappings(ports)).step == 1


def test_a_nat_may_count_for_each_of_its_addresses() -> None:
    seen = [
        SocketMapping((IP, local), (f"203.0.113.{n % 3}", 50_000 + 1000 * (n % 3) + 2 * (n // 3)))
        for n, local in enumerate(ORDER)
    ]
    assert allocation_verdict(seen).step == 2


def test_sockets_used_in_the_order_of_their_ports_can_not_tell_contiguous_from_sequential() -> None:
    order = list(range(40_000, 40_008))
    verdict = allocation_verdict(mappings([port + 5 for port in order], order))
    assert verdict.behaviour is AllocationBehaviour.UNKNOWN
    assert "order" in verdict.reason


def test_ports_of_one_parity_can_not_show_that_parity_is_kept() -> None:
    order = list(range(40_000, 40_024, 2))
    verdict = allocation_verdict(mappings([port & ~1 for port in shuffled()], order))
    assert verdict.behaviour is AllocationBehaviour.UNKNOWN


@given(
    start=st.integers(1024, 65_535), step=st.integers(-10_000, 10_000), number=st.integers(4, 16)
)
def test_any_step_is_found_wherever_it_starts_and_wraps(start: int, step: int, number: int) -> None:
    if step == 0:
        return
    span = 65_536 - 1024
    order = port_order(40_000, number)
    ports = [1024 + (start - 1024 + step * n) % span for n in range(number)]
    wraps = sum(b - a != step for a, b in pairwise(ports))
    verdict = allocation_verdict(mappings(ports, order))
    if 4 * wraps < number - 1 and ports != order:
        assert verdict.step == step


@given(st.lists(st.integers(0, 65_535), max_size=16))
def test_any_ports_at_all_have_a_verdict(ports: list[int]) -> None:
    assert allocation_verdict(mappings(ports)).reason


@given(st.integers(0, 10_000))
def test_random_ports_never_look_like_an_order(seed: int) -> None:
    found = allocation_verdict(mappings(shuffled(seed))).behaviour
    # Parity may be kept by chance, once in 4096 runs; nothing else may.
    assert found in (AllocationBehaviour.RANDOM, AllocationBehaviour.PARITY_PRESERVING)


@pytest.mark.parametrize(
    ("seen", "behaviour"),
    [
        ([(IP, "203.0.113.1"), (IP, "203.0.113.1")], PoolingBehaviour.PAIRED),
        ([(IP, "203.0.113.1"), (IP, "203.0.113.2")], PoolingBehaviour.ARBITRARY),
        ([(IP, "203.0.113.1")], PoolingBehaviour.UNKNOWN),
        ([], PoolingBehaviour.UNKNOWN),
        ([(IP, "203.0.113.1"), ("10.0.0.3", "203.0.113.2")], PoolingBehaviour.UNKNOWN),
        (
            [
                (IP, "203.0.113.1"),
                ("10.0.0.3", "203.0.113.2"),
                (IP, "203.0.113.1"),
                ("10.0.0.3", "203.0.113.2"),
            ],
            PoolingBehaviour.PAIRED,
        ),
    ],
)
def test_pooling_is_judged_for_each_host(
    seen: list[tuple[str, str]], behaviour: PoolingBehaviour
) -> None:
    verdict = pooling_verdict(
        SocketMapping((host, 1000 + n), (external, 2000 + n))
        for n, (host, external) in enumerate(seen)
    )
    assert verdict.behaviour is behaviour
    assert set(verdict.external_ips) == {external for _, external in seen}


def test_the_order_of_ports_has_each_beside_one_that_came_before() -> None:
    order = port_order(40_000, 16)
    assert len(set(order)) == 16
    assert all({port - 1, port + 1} & set(order[:n]) for n, port in enumerate(order) if n)
    assert all(
        not a + 1 == b == c - 1 for a, b, c in zip(order, order[1:], order[2:], strict=False)
    )


# -- the discovery --------------------------------------------------------------------------------


def discover(nat: SmallNat, **settings: object) -> tuple[AllocationDetermined, float, Bench]:
    bench = Bench(nat, **settings)  # type: ignore[arg-type]
    discovery = AllocationDiscovery(PRIMARY, SOCKETS, random.Random(1), 0.0)
    event, now = bench.run(discovery)
    assert isinstance(event, AllocationDetermined)
    return event, now, bench


PORTS: dict[AllocationBehaviour, Callable[[Address, int], int]] = {
    AllocationBehaviour.PRESERVING: lambda local, number: local[1],
    AllocationBehaviour.CONTIGUOUS: lambda local, number: local[1] - 9_000,
    AllocationBehaviour.SEQUENTIAL: lambda local, number: 20_000 + 4 * number,
    AllocationBehaviour.PARITY_PRESERVING: lambda local, number: parity()[number],
    AllocationBehaviour.RANDOM: lambda local, number: shuffled()[number],
}


@pytest.mark.parametrize("behaviour", PORTS)
def test_the_discovery_finds_each_with_one_request_per_socket(
    behaviour: AllocationBehaviour,
) -> None:
    event, now, bench = discover(SmallNat(port=PORTS[behaviour]))
    assert event.allocation.behaviour is behaviour
    assert event.pooling.behaviour is PoolingBehaviour.PAIRED
    assert [local for _, local, _, _ in bench.sent] == SOCKETS
    assert [mapping.local for mapping in event.mappings] == SOCKETS
    assert now < 1.2


def test_no_more_than_ten_transactions_begin_in_a_second_rfc5780_5() -> None:
    _, _, bench = discover(SmallNat())
    times = [at for at, _, _, _ in bench.sent]
    assert all(b - a >= 0.1 - 1e-9 for a, b in pairwise(times))


def test_a_lost_request_delays_the_next_socket_and_so_keeps_the_order() -> None:
    nat = SmallNat(port=PORTS[AllocationBehaviour.SEQUENTIAL])
    event, _, bench = discover(nat, lose=lambda number: number % 3 == 0)
    assert event.allocation.step == 4
    assert list(dict.fromkeys(local for _, local, _, _ in bench.sent)) == SOCKETS


def test_arbitrary_pooling_is_seen() -> None:
    event, _, _ = discover(SmallNat(ip=lambda number: f"203.0.113.{number % 2}"))
    assert event.pooling.behaviour is PoolingBehaviour.ARBITRARY
    assert event.pooling.external_ips == ("203.0.113.0", "203.0.113.1")


def test_a_silent_server_is_not_asked_from_every_socket() -> None:
    event, _, bench = discover(SmallNat(), lose=lambda number: True)
    assert event.allocation.behaviour is AllocationBehaviour.UNKNOWN
    assert event.allocation.reason == "the server does not answer"
    assert {local for _, local, _, _ in bench.sent} == {SOCKETS[0]}


def test_an_icmp_error_ends_it() -> None:
    discovery = AllocationDiscovery(PRIMARY, SOCKETS, random.Random(1), 0.0)
    discovery.handle_icmp_error(SOCKETS[0], PRIMARY, 0.1)
    event = discovery.next_event()
    assert event is not None
    assert event.allocation.reason == "the server is unreachable"


def test_without_a_nat_it_says_so() -> None:
    event, _, _ = discover(NoNat())
    assert event.allocation.behaviour is AllocationBehaviour.OPEN


def test_answers_from_elsewhere_and_to_elsewhere_are_ignored() -> None:
    discovery = AllocationDiscovery(PRIMARY, SOCKETS, random.Random(1), 0.0)
    bench = Bench(SmallNat())
    request = discovery.datagrams_to_send(0.0)[0]
    bench.server.receive_datagram(request.data, (PUBLIC_IP, 9), PRIMARY, 0.0)
    (answer,) = bench.server.datagrams_to_send(0.0)
    discovery.receive_datagram(answer.data, ("198.51.100.9", 3478), SOCKETS[0], 0.1)
    discovery.receive_datagram(answer.data, PRIMARY, SOCKETS[1], 0.1)
    discovery.receive_datagram(b"\xff" * 50, PRIMARY, SOCKETS[0], 0.1)
    assert discovery.get_timer() == pytest.approx(0.5)  # the first socket is still waiting
    discovery.receive_datagram(answer.data, PRIMARY, SOCKETS[0], 0.2)
    discovery.handle_timer(0.2)
    assert discovery.datagrams_to_send(0.2)[0].local == SOCKETS[1]


def test_two_sockets_are_too_few() -> None:
    with pytest.raises(ValueError, match="three sockets"):
        AllocationDiscovery(PRIMARY, SOCKETS[:2], random.Random(1), 0.0)
