"""NAT behaviour discovery (RFC 5780) against the Binding server, through a NAT in a few lines."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from ice_punch.datagram import Address, Transmit
from ice_punch.nat import (
    BehaviourDetermined,
    BehaviourDiscovery,
    FilteringBehaviour,
    MappingBehaviour,
    Observation,
    mapping_verdict,
)
from ice_punch.stun import BindingServer, Message, parse_message

PRIMARY = ("192.0.2.1", 3478)
ALTERNATE = ("192.0.2.2", 3479)
MAPPING_SOCKET = ("10.0.0.2", 40000)
FILTERING_SOCKET = ("10.0.0.2", 40001)
PUBLIC_IP = "203.0.113.5"

Key = Callable[[Address], object]
KEYS: dict[str, Key] = {
    "endpoint-independent": lambda remote: None,
    "address-dependent": lambda remote: remote[0],
    "address-and-port-dependent": lambda remote: remote,
}


@dataclass
class Nat:
    """``mapping`` tells which remote addresses share a mapping, ``filtering`` which are let in."""

    mapping: str
    filtering: str
    mapped: dict[tuple[Address, object], Address] = field(default_factory=dict)
    allowed: dict[Address, set[object]] = field(default_factory=dict)

    def out(self, local: Address, remote: Address) -> Address:
        key = (local, KEYS[self.mapping](remote))
        public = self.mapped.setdefault(key, (PUBLIC_IP, 50000 + 7 * len(self.mapped)))
        self.allowed.setdefault(public, set()).add(KEYS[self.filtering](remote))
        return public

    def inward(self, public: Address, remote: Address) -> Address | None:
        if KEYS[self.filtering](remote) not in self.allowed.get(public, ()):
            return None
        return next(local for (local, _), address in self.mapped.items() if address == public)


@dataclass
class NoNat:
    """A public host; with a firewall, nothing comes in that was not asked for."""

    firewall: bool
    asked: set[tuple[Address, Address]] = field(default_factory=set)

    def out(self, local: Address, remote: Address) -> Address:
        self.asked.add((local, remote))
        return local

    def inward(self, public: Address, remote: Address) -> Address | None:
        return public if not self.firewall or (public, remote) in self.asked else None


class Path:
    """Carries datagrams between a discovery and a server, 10 ms each way, and counts."""

    DELAY = 0.01

    def __init__(self, nat: Nat | NoNat, server: BindingServer) -> None:
        self.nat = nat
        self.server = server
        self.requests: list[tuple[float, Address, Address, Message]] = []
        self.responses: list[tuple[float, Transmit, Address]] = []
        self.tamper: Callable[[Transmit], list[Transmit]] = lambda transmit: [transmit]
        self.lose: Callable[[int], bool] = lambda number: False

    def send(self, transmit: Transmit, now: float) -> None:
        data, local, destination = transmit
        self.requests.append((now, local, destination, parse_message(data)))
        if self.lose(len(self.requests)):
            return
        public = self.nat.out(local, destination)
        if destination not in self.server.addresses:
            return
        self.server.receive_datagram(data, public, destination, now + self.DELAY)
        for answer in self.server.datagrams_to_send(now):
            for tampered in self.tamper(answer):
                inside = self.nat.inward(tampered.destination, tampered.local)
                if inside is not None:
                    self.responses.append((now + 2 * self.DELAY, tampered, inside))

    def run(self, discovery: BehaviourDiscovery) -> tuple[BehaviourDetermined, float]:
        now = 0.0
        for _ in range(200):
            for transmit in discovery.datagrams_to_send(now):
                self.send(transmit, now)
            event = discovery.next_event()
            if event is not None:
                assert discovery.done
                assert discovery.get_timer() is None
                return event, now
            timer = discovery.get_timer()
            arrivals = [response[0] for response in self.responses]
            now = min([*arrivals, *([timer] if timer is not None else [])])
            due = [response for response in self.responses if response[0] <= now]
            self.responses = [response for response in self.responses if response[0] > now]
            for _, answer, inside in due:
                discovery.receive_datagram(answer.data, answer.local, inside, now)
            discovery.handle_timer(now)
        raise AssertionError("the discovery does not end")


def discover(
    nat: Nat | NoNat,
    *,
    server: BindingServer | None = None,
    sockets: tuple[Address, Address | None] = (MAPPING_SOCKET, FILTERING_SOCKET),
    **settings: int | float,
) -> tuple[BehaviourDetermined, float, Path]:
    path = Path(nat, server or BindingServer(PRIMARY, ALTERNATE))
    discovery = BehaviourDiscovery(PRIMARY, *sockets, random.Random(1), 0.0, **settings)  # type: ignore[arg-type]
    event, now = path.run(discovery)
    return event, now, path


@pytest.mark.parametrize("mapping", KEYS)
@pytest.mark.parametrize("filtering", KEYS)
def test_every_kind_of_nat_is_recognised_rfc5780_4_3_and_4_4(mapping: str, filtering: str) -> None:
    event, _, _ = discover(Nat(mapping, filtering))
    assert (event.mapping, event.filtering) == (mapping, filtering)
    assert event.mapped is not None
    assert event.mapped[0] == PUBLIC_IP
    assert event.other == ALTERNATE


@pytest.mark.parametrize(
    ("mapping", "destinations"),
    [
        ("endpoint-independent", [PRIMARY, ("192.0.2.2", 3478)]),
        ("address-dependent", [PRIMARY, ("192.0.2.2", 3478), ALTERNATE]),
        ("address-and-port-dependent", [PRIMARY, ("192.0.2.2", 3478), ALTERNATE]),
    ],
)
def test_mapping_tests_go_from_one_socket_in_order_rfc5780_4_3(
    mapping: str, destinations: list[Address]
) -> None:
    _, _, path = discover(Nat(mapping, "endpoint-independent"))
    sent = [to for _, local, to, _ in path.requests if local == MAPPING_SOCKET]
    assert sent == destinations


def test_filtering_tests_go_from_a_socket_that_asked_nobody_else_rfc5780_4_4() -> None:
    event, now, path = discover(Nat("endpoint-independent", "address-and-port-dependent"))
    sent = [(at, to) for at, local, to, _ in path.requests if local == FILTERING_SOCKET]
    assert {to for _, to in sent} == {PRIMARY}
    # one for connectivity, four times both flags, four times the port flag
    assert len(sent) == 1 + 4 + 4
    assert event.filtering is FilteringBehaviour.ADDRESS_AND_PORT_DEPENDENT
    # 0.1 s head start, a round trip, and twice 0.5 + 1 + 2 s of resends and 3 * 0.5 s of patience
    assert now == pytest.approx(0.1 + 0.02 + 2 * 5.0)


def test_transactions_are_paced_and_resends_are_not_in_step_rfc5780_5() -> None:
    _, _, path = discover(Nat("address-and-port-dependent", "address-and-port-dependent"))
    first_sends: dict[bytes, float] = {}
    for at, _, _, request in path.requests:
        first_sends.setdefault(request.transaction_id, at)
    assert len(first_sends) <= 10
    instants = [at for at, _, _, _ in path.requests]
    assert len(instants) == len(set(instants))


@pytest.mark.parametrize(
    ("firewall", "filtering"),
    [
        (False, FilteringBehaviour.ENDPOINT_INDEPENDENT),
        (True, FilteringBehaviour.ADDRESS_AND_PORT_DEPENDENT),
    ],
)
def test_a_public_host_is_open_with_or_without_a_firewall_rfc5780_4_3(
    firewall: bool, filtering: FilteringBehaviour
) -> None:
    event, _, path = discover(NoNat(firewall))
    assert event.mapping is MappingBehaviour.OPEN
    assert event.filtering is filtering
    assert event.mapped == MAPPING_SOCKET
    assert len([1 for _, local, _, _ in path.requests if local == MAPPING_SOCKET]) == 1


def test_a_server_with_one_address_leaves_both_unknown_rfc5780_4_3_and_4_4() -> None:
    event, now, _ = discover(
        Nat("endpoint-independent", "endpoint-independent"), server=BindingServer(PRIMARY)
    )
    assert event.mapping is MappingBehaviour.UNKNOWN
    assert event.filtering is FilteringBehaviour.UNKNOWN
    assert event.mapping_reason == event.filtering_reason == "the server has no alternate address"
    assert event.other is None
    assert now < 0.2


def test_a_silent_server_is_told_apart_from_a_nat_rfc5780_4_2() -> None:
    path = Path(Nat("endpoint-independent", "endpoint-independent"), BindingServer(PRIMARY))
    path.lose = lambda number: True
    discovery = BehaviourDiscovery(PRIMARY, MAPPING_SOCKET, FILTERING_SOCKET, random.Random(1), 0.0)
    event, now = path.run(discovery)
    assert event.mapping is MappingBehaviour.UNKNOWN
    assert event.mapping_reason == "the server does not answer"
    assert event.filtering_reason == "the server does not answer"
    assert event.mapped is None
    assert now == pytest.approx(5.1)


def test_lost_requests_are_sent_again_and_change_no_verdict() -> None:
    path = Path(Nat("address-dependent", "address-dependent"), BindingServer(PRIMARY, ALTERNATE))
    path.lose = lambda number: number % 3 == 1
    discovery = BehaviourDiscovery(
        PRIMARY, MAPPING_SOCKET, FILTERING_SOCKET, random.Random(1), 0.0, rc=6
    )
    event, _ = path.run(discovery)
    assert event.mapping is MappingBehaviour.ADDRESS_DEPENDENT
    assert event.filtering is FilteringBehaviour.ADDRESS_DEPENDENT


def test_420_to_change_request_ends_the_filtering_test_only_rfc5780_5() -> None:
    """The server offered OTHER-ADDRESS, and refuses CHANGE-REQUEST all the same."""
    refusing = BindingServer(PRIMARY)
    server = BindingServer(PRIMARY, ALTERNATE)

    def answer(data: bytes, source: Address, local: Address, now: float) -> None:
        chosen = refusing if b"\x00\x03\x00\x04" in data else server
        BindingServer.receive_datagram(chosen, data, source, local, now)
        server._outgoing += chosen.datagrams_to_send(now) if chosen is refusing else []

    server.receive_datagram = answer  # type: ignore[method-assign]
    event, now, _ = discover(
        Nat("endpoint-independent", "address-and-port-dependent"), server=server
    )
    assert event.mapping is MappingBehaviour.ENDPOINT_INDEPENDENT
    assert event.filtering is FilteringBehaviour.UNKNOWN
    assert event.filtering_reason == "the server answered 420 Unknown Attribute"
    assert now < 1


def test_a_server_that_ignores_change_request_is_not_taken_for_a_filtering_nat() -> None:
    path = Path(
        Nat("endpoint-independent", "address-and-port-dependent"),
        BindingServer(PRIMARY, ALTERNATE),
    )
    path.tamper = lambda answer: [
        answer._replace(local=PRIMARY)
        if answer.local in (ALTERNATE, ("192.0.2.1", 3479))
        else answer
    ]
    discovery = BehaviourDiscovery(PRIMARY, MAPPING_SOCKET, FILTERING_SOCKET, random.Random(1), 0.0)
    event, _ = path.run(discovery)
    assert event.filtering is FilteringBehaviour.UNKNOWN
    assert event.filtering_reason == "the server ignores CHANGE-REQUEST"


@pytest.mark.parametrize(
    "other",
    [
        ("192.0.2.1", 3479),
        ("192.0.2.2", 3478),
        ("0.0.0.0", 3479),
        ("224.0.0.1", 3479),
        ("192.0.2.2", 0),
        ("2001:db8::1", 3479),
    ],
)
def test_a_useless_other_address_sends_us_nowhere(other: Address) -> None:
    server = BindingServer(PRIMARY, ALTERNATE)
    server._other[PRIMARY] = other
    event, _, path = discover(Nat("endpoint-independent", "endpoint-independent"), server=server)
    assert event.mapping is MappingBehaviour.UNKNOWN
    assert event.filtering is FilteringBehaviour.UNKNOWN
    assert {to for _, _, to, _ in path.requests} == {PRIMARY}


def test_forged_and_foreign_datagrams_change_nothing() -> None:
    path = Path(
        Nat("endpoint-independent", "endpoint-independent"), BindingServer(PRIMARY, ALTERNATE)
    )

    def forge(answer: Transmit) -> list[Transmit]:
        wrong_id = answer.data[:8] + bytes(12) + answer.data[20:]
        return [
            answer._replace(data=b"\xff" * 40),
            answer._replace(data=wrong_id),
            answer._replace(data=answer.data[:-4]),
            answer._replace(local=("198.51.100.9", 3478)),
            answer,
        ]

    path.tamper = forge
    event, _, _ = discover(path.nat)
    assert event.mapping is MappingBehaviour.ENDPOINT_INDEPENDENT
    assert event.filtering is FilteringBehaviour.ENDPOINT_INDEPENDENT
    discovery = BehaviourDiscovery(PRIMARY, MAPPING_SOCKET, FILTERING_SOCKET, random.Random(1), 0.0)
    assert path.run(discovery)[0] == event


def test_icmp_ends_a_probe_and_is_no_sign_of_filtering_rfc8489_6_2_1() -> None:
    discovery = BehaviourDiscovery(PRIMARY, MAPPING_SOCKET, FILTERING_SOCKET, random.Random(1), 0.0)
    discovery.handle_timer(0.1)
    discovery.handle_icmp_error(MAPPING_SOCKET, ("192.0.2.9", 1), 0.2)
    discovery.handle_icmp_error(("10.0.0.3", 40000), PRIMARY, 0.2)
    discovery.receive_datagram(b"", PRIMARY, ("10.0.0.3", 40000), 0.2)
    assert not discovery.done
    discovery.handle_icmp_error(MAPPING_SOCKET, PRIMARY, 0.2)
    discovery.handle_icmp_error(FILTERING_SOCKET, PRIMARY, 0.2)
    event = discovery.next_event()
    assert event is not None
    assert event.mapping_reason == event.filtering_reason == "the server is unreachable"


def test_a_server_that_falls_silent_after_the_first_test_leaves_the_mapping_unknown() -> None:
    path = Path(Nat("address-dependent", "endpoint-independent"), BindingServer(PRIMARY, ALTERNATE))
    discovery = BehaviourDiscovery(
        PRIMARY, MAPPING_SOCKET, None, random.Random(1), 0.0, software=None
    )
    path.lose = lambda number: number > 1
    event, now = path.run(discovery)
    assert event.mapping is MappingBehaviour.UNKNOWN
    assert event.mapping_reason == "the server does not answer"
    assert event.mapped is not None
    assert now == pytest.approx(0.02 + 5.0)


def test_without_a_second_socket_filtering_is_not_tested() -> None:
    event, now, path = discover(
        Nat("address-dependent", "address-dependent"), sockets=(MAPPING_SOCKET, None)
    )
    assert event.mapping is MappingBehaviour.ADDRESS_DEPENDENT
    assert event.filtering_reason == "not tested"
    assert len(path.requests) == 3
    assert now == pytest.approx(0.06)


def test_one_socket_can_not_do_both_tests_rfc5780_4_4() -> None:
    with pytest.raises(ValueError, match="socket of its own"):
        BehaviourDiscovery(PRIMARY, MAPPING_SOCKET, MAPPING_SOCKET, random.Random(1), 0.0)


# Verdicts from several unrelated servers

A = ("198.51.100.1", 3478)
A2 = ("198.51.100.1", 3479)
B = ("198.51.100.2", 3478)
X = ("203.0.113.5", 1000)
Y = ("203.0.113.5", 1001)


@pytest.mark.parametrize(
    ("seen", "behaviour", "exact"),
    [
        ([], "unknown", True),
        ([(A, X)], "unknown", True),
        ([(A, X), (A2, X)], "unknown", True),
        ([(A, X), (B, X)], "endpoint-independent", True),
        ([(A, X), (B, Y)], "address-dependent", False),
        ([(A, X), (A2, X), (B, Y)], "address-dependent", True),
        ([(A, X), (A2, Y)], "address-and-port-dependent", True),
        ([(A, X), (A2, Y), (B, X)], "address-and-port-dependent", True),
        ([(A, X), (A, Y), (B, X)], "unknown", True),
    ],
)
def test_the_verdict_of_several_servers(
    seen: list[tuple[Address, Address]], behaviour: str, exact: bool
) -> None:
    verdict = mapping_verdict([Observation(*pair) for pair in seen])
    assert (verdict.behaviour, verdict.exact) == (behaviour, exact)
    assert verdict.varies_by_destination == ("dependent" in behaviour and "in" not in behaviour)
    assert verdict.reason


def test_a_host_that_servers_see_as_it_is_has_no_nat() -> None:
    verdict = mapping_verdict([Observation(A, X)], local=X)
    assert verdict.behaviour is MappingBehaviour.OPEN
    assert not verdict.varies_by_destination
    assert mapping_verdict([Observation(A, X), Observation(B, Y)], local=X).varies_by_destination


def test_mappings_of_both_ip_versions_are_not_compared() -> None:
    with pytest.raises(ValueError, match="apart"):
        mapping_verdict([Observation(A, X), Observation(("2001:db8::1", 3478), X)])
