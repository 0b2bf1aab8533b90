"""What a server gives: allocations, permissions, channels, data (RFC 8656 sections 5 to 12)."""

from __future__ import annotations

import itertools
import random

import pytest
from server_support import KEY, UDP, Asker, code_of
from turn_world import CLIENT, OTHER_PEER, PEER, SERVER

from ice_punch.stun import (
    ADDITIONAL_ADDRESS_FAMILY,
    ADDRESS_ERROR_CODE,
    ALTERNATE_SERVER,
    CHANNEL_NUMBER,
    DATA,
    DONT_FRAGMENT,
    EVEN_PORT,
    ICMP,
    LIFETIME,
    OTHER_ADDRESS,
    PRIORITY,
    REQUESTED_ADDRESS_FAMILY,
    REQUESTED_TRANSPORT,
    RESERVATION_TOKEN,
    SOFTWARE,
    UNKNOWN_ATTRIBUTES,
    XOR_MAPPED_ADDRESS,
    XOR_PEER_ADDRESS,
    XOR_RELAYED_ADDRESS,
    AttributeType,
    BindingServer,
    IcmpError,
    MessageClass,
    Method,
    long_term_key,
    parse_message,
)
from ice_punch.turn import (
    AllocationClosed,
    AllocationOpened,
    FiveTuple,
    TurnLimits,
    TurnServer,
    default_peer_filter,
)

IPV4, IPV6 = 1, 2
V6_ONLY = {"relay_ips": ["2001:db8::10"]}
V4_ONLY = {"relay_ips": ["203.0.113.10"]}
PEER_V6 = ("2001:db8:7::7", 7000)
CHANNEL = 0x4000


def bind_channel(asker: Asker, number: int = CHANNEL, peer=PEER, **where) -> int | None:
    attributes = [(CHANNEL_NUMBER, number), (XOR_PEER_ADDRESS, peer)]
    return asker.code(Method.CHANNEL_BIND, attributes, **where)


def send(asker: Asker, data: bytes, peer=PEER, *more, **where) -> list:
    """What a Send indication makes the server send on."""
    attributes = [(XOR_PEER_ADDRESS, peer), (DATA, data), *more]
    kind = MessageClass.INDICATION
    assert asker.ask(Method.SEND, attributes, message_class=kind, **where) is None
    return [(t.data, t.local, t.destination) for t in asker.relayed]


def on_channel(asker: Asker, data: bytes, number: int = CHANNEL, **where) -> list:
    message = number.to_bytes(2, "big") + len(data).to_bytes(2, "big") + data
    assert asker.raw(message, **where) == []
    return [(t.data, t.local, t.destination) for t in asker.relayed]


# -- Allocate -----------------------------------------------------------------------------------


def test_rfc8656_7_2_an_allocation_is_a_port_for_ten_minutes() -> None:
    asker = Asker()
    answer = asker.proven(Method.ALLOCATE, [UDP])
    ip, port = answer.get(XOR_RELAYED_ADDRESS)
    assert ip == "203.0.113.10"
    assert 49152 <= port <= 65535
    assert answer.get(XOR_MAPPED_ADDRESS) == CLIENT
    assert answer.get(LIFETIME) == 600
    assert answer.get(SOFTWARE) == "ice-punch"
    assert answer.get(RESERVATION_TOKEN) is None
    assert asker.server.get_timer() == 600


@pytest.mark.parametrize(
    ("wanted", "granted"),
    [(0, 600), (1, 600), (600, 600), (1000, 1000), (3600, 3600), (9999, 3600)],
)
def test_rfc8656_7_2_a_lifetime_is_between_the_default_and_the_maximum(wanted, granted) -> None:
    answer = Asker().proven(Method.ALLOCATE, [UDP, (LIFETIME, wanted)])
    assert answer.get(LIFETIME) == granted


def test_a_repeated_request_gets_the_same_allocation_and_another_one_a_437() -> None:
    asker = Asker()
    once = bytes(range(12))
    first = asker.allocate(transaction_id=once)
    asker.now += 0.5
    assert asker.allocate(transaction_id=once) == first
    assert asker.server.allocations == 1
    assert asker.code(Method.ALLOCATE, [UDP]) == 437


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ([], 400),
        ([(REQUESTED_TRANSPORT, 6)], 442),
        ([UDP, (REQUESTED_ADDRESS_FAMILY, 3)], 440),
        ([UDP, (REQUESTED_ADDRESS_FAMILY, IPV4), (ADDITIONAL_ADDRESS_FAMILY, IPV6)], 400),
        ([UDP, (ADDITIONAL_ADDRESS_FAMILY, IPV4)], 400),
        ([UDP, (EVEN_PORT, True), (ADDITIONAL_ADDRESS_FAMILY, IPV6)], 400),
        ([UDP, (RESERVATION_TOKEN, bytes(8))], 508),
        ([UDP, (RESERVATION_TOKEN, bytes(8)), (EVEN_PORT, False)], 400),
        ([UDP, (RESERVATION_TOKEN, bytes(8)), (REQUESTED_ADDRESS_FAMILY, IPV4)], 400),
        ([UDP, (RESERVATION_TOKEN, bytes(8)), (ADDITIONAL_ADDRESS_FAMILY, IPV6)], 400),
    ],
)
def test_rfc8656_7_2_what_can_not_be_asked_for_is_refused(attributes, code: int) -> None:
    asker = Asker()
    assert asker.code(Method.ALLOCATE, attributes) == code
    assert asker.server.allocations == 0


@pytest.mark.parametrize(
    ("options", "attributes", "families"),
    [
        ({}, [], {4}),
        ({}, [(REQUESTED_ADDRESS_FAMILY, IPV4)], {4}),
        ({}, [(REQUESTED_ADDRESS_FAMILY, IPV6)], {6}),
        ({}, [(ADDITIONAL_ADDRESS_FAMILY, IPV6)], {4, 6}),
        (V6_ONLY, [(REQUESTED_ADDRESS_FAMILY, IPV6)], {6}),
        (V6_ONLY, [(ADDITIONAL_ADDRESS_FAMILY, IPV6)], {6}),
        (V4_ONLY, [(ADDITIONAL_ADDRESS_FAMILY, IPV6)], {4}),
        (V6_ONLY, [], 440),
        (V4_ONLY, [(REQUESTED_ADDRESS_FAMILY, IPV6)], 440),
    ],
)
def test_rfc8656_7_2_the_families_of_relayed_addresses(options, attributes, families) -> None:
    answer = Asker(**options).proven(Method.ALLOCATE, [UDP, *attributes])
    if isinstance(families, int):
        assert code_of(answer) == families
        return
    relayed = answer.get_all(XOR_RELAYED_ADDRESS)
    assert {6 if ":" in ip else 4 for ip, _ in relayed} == families
    assert len(relayed) == len(families)
    lacking = answer.get(ADDRESS_ERROR_CODE)
    dual = (ADDITIONAL_ADDRESS_FAMILY, IPV6) in attributes
    assert (lacking is not None) == (dual and len(families) == 1)
    if lacking is not None:
        assert lacking.code == 440


def test_rfc8656_7_2_even_ports_and_the_one_after() -> None:
    asker = Asker()
    _, port = asker.allocate([(EVEN_PORT, False)])
    assert port % 2 == 0
    second = ("198.51.100.2", 1)
    answer = asker.proven(Method.ALLOCATE, [UDP, (EVEN_PORT, True)], source=second)
    ip, port = answer.get(XOR_RELAYED_ADDRESS)
    token = answer.get(RESERVATION_TOKEN)
    assert port % 2 == 0
    assert len(token) == 8
    third = ("198.51.100.3", 1)
    assert asker.allocate([(RESERVATION_TOKEN, token)], source=third) == (ip, port + 1)
    fourth = ("198.51.100.4", 1)
    again = [UDP, (RESERVATION_TOKEN, token)]
    assert asker.code(Method.ALLOCATE, again, source=fourth) == 508


def test_a_reserved_port_is_kept_for_30_seconds_and_from_others() -> None:
    asker = Asker(port_range=(50000, 50001))
    answer = asker.proven(Method.ALLOCATE, [UDP, (EVEN_PORT, True)])
    assert answer.get(XOR_RELAYED_ADDRESS)[1] == 50000
    other = ("198.51.100.2", 1)
    assert asker.code(Method.ALLOCATE, [UDP], source=other) == 508
    asker.now += 31
    asker.server.handle_timer(asker.now)
    token = [UDP, (RESERVATION_TOKEN, answer.get(RESERVATION_TOKEN))]
    assert asker.code(Method.ALLOCATE, token, source=other) == 508
    assert asker.code(Method.ALLOCATE, [UDP], source=other) is None


def test_dont_fragment_is_understood() -> None:
    asker = Asker()
    asker.allocate([(DONT_FRAGMENT, True)])
    asker.permit(PEER)
    assert send(asker, b"x", PEER, (DONT_FRAGMENT, True))


def test_ports_come_in_an_order_that_tells_nothing() -> None:
    asker = Asker(limits=TurnLimits(allocations_per_user=1000))
    ports = [asker.allocate(source=("198.51.100.2", 1000 + n))[1] for n in range(200)]
    assert len(set(ports)) == 200
    steps = {(b - a) % 16384 for a, b in itertools.pairwise(ports)}
    assert len(steps) > 190
    other = Asker(TurnServer(["203.0.113.10"], {"robot": "correct horse"}, random.Random(99)))
    assert other.allocate()[1] != ports[0]


def test_every_port_of_a_range_is_found_and_then_there_are_no_more() -> None:
    limits = TurnLimits(allocations_per_user=100)
    asker = Asker(port_range=(50000, 50012), limits=limits)
    ports = [asker.allocate(source=("198.51.100.2", 1000 + n))[1] for n in range(13)]
    assert sorted(ports) == list(range(50000, 50013))
    assert asker.code(Method.ALLOCATE, [UDP], source=("198.51.100.2", 1)) == 508


def test_quotas_of_a_user_and_of_all() -> None:
    limits = TurnLimits(allocations_per_user=2, allocations=3)
    asker = Asker(users={"robot": "correct horse", "other": "correct horse"}, limits=limits)
    ask = [asker.code(Method.ALLOCATE, [UDP], source=("198.51.100.2", 1 + n)) for n in range(3)]
    assert ask == [None, None, 486]
    asker.username = "other"
    asker.key = long_term_key("other", "ice-punch", "correct horse")
    assert asker.code(Method.ALLOCATE, [UDP], source=("198.51.100.3", 1)) is None
    assert asker.code(Method.ALLOCATE, [UDP], source=("198.51.100.3", 2)) == 508


def test_quota_is_free_again_once_an_allocation_ends() -> None:
    asker = Asker(limits=TurnLimits(allocations_per_user=1))
    asker.allocate()
    other = ("198.51.100.2", 1)
    assert asker.code(Method.ALLOCATE, [UDP], source=other) == 486
    assert asker.code(Method.REFRESH, [(LIFETIME, 0)]) is None
    assert asker.code(Method.ALLOCATE, [UDP], source=other) is None
    asker.now += 601
    assert asker.code(Method.ALLOCATE, [UDP]) is None
    assert asker.server.allocations == 1


def test_a_server_can_send_its_clients_elsewhere() -> None:
    alternates = [("2001:db8::99", 3478), ("203.0.113.99", 3478)]
    asker = Asker(alternate_servers=alternates)
    answer = asker.proven(Method.ALLOCATE, [UDP])
    assert code_of(answer) == 300
    # RFC 8489 section 10: that of the request's family comes first.
    assert answer.get_all(ALTERNATE_SERVER) == (alternates[1], alternates[0])
    assert answer.verify(KEY)


def test_rfc8656_21_4_clients_behind_teredo_and_6to4_are_refused() -> None:
    asker = Asker()
    for ip in ("2001:0:1::1", "2002:c000:207::1"):
        assert asker.code(Method.ALLOCATE, [UDP], source=(ip, 5000)) == 403


def test_one_address_over_two_transports_is_two_clients() -> None:
    asker = Asker()
    over_udp = asker.allocate()
    over_tcp = asker.allocate(transport="tcp")
    assert over_udp != over_tcp
    asker.permit(PEER)
    asker.permit(PEER, transport="tcp")
    asker.server.receive_datagram(b"x", PEER, over_tcp, asker.now)
    assert asker.server.datagrams_to_send(asker.now) == []
    (transmit,) = asker.server.streams_to_send(asker.now)
    assert (transmit.local, transmit.destination) == (SERVER, CLIENT)
    asker.server.client_gone(CLIENT, SERVER, asker.now)
    assert asker.server.allocations == 1
    assert asker.server.is_relayed(over_udp)
    assert not asker.server.is_relayed(over_tcp)


# -- Refresh and the end ------------------------------------------------------------------------


def test_rfc8656_8_2_an_allocation_lives_from_refresh_to_refresh() -> None:
    asker = Asker(nonce_lifetime=1e6)
    relayed = asker.allocate()
    for lifetime in (None, 1000, 5000):
        asker.now += 599
        wanted = [] if lifetime is None else [(LIFETIME, lifetime)]
        answer = asker.proven(Method.REFRESH, wanted)
        assert answer.get(LIFETIME) == min(lifetime or 600, 3600)
    asker.now += 3599
    assert asker.server.knows(CLIENT, SERVER, asker.now)
    asker.now += 2
    asker.server.handle_timer(asker.now)
    assert not asker.server.is_relayed(relayed)
    assert asker.server.get_timer() is None
    assert asker.code(Method.REFRESH) == 437


def test_an_expired_allocation_is_none_even_before_the_timer_is_handled() -> None:
    asker = Asker()
    relayed = asker.allocate()
    asker.permit(PEER)
    asker.now += 601
    assert asker.from_peer(b"x", PEER, relayed) == []
    assert asker.server.allocations == 0


def test_a_shorter_refresh_shortens() -> None:
    asker = Asker()
    asker.allocate([(LIFETIME, 3600)])
    asker.proven(Method.REFRESH, [(LIFETIME, 600)])
    asker.now += 601
    assert asker.code(Method.REFRESH) == 437


def test_rfc8656_8_2_a_refresh_of_zero_is_the_end_and_its_repetition_a_437() -> None:
    asker = Asker()
    relayed = asker.allocate()
    answer = asker.proven(Method.REFRESH, [(LIFETIME, 0)])
    assert answer.get(LIFETIME) == 0
    assert not asker.server.is_relayed(relayed)
    assert asker.code(Method.REFRESH, [(LIFETIME, 0)]) == 437


def test_rfc8656_8_1_each_half_of_a_dual_allocation_ends_by_itself() -> None:
    asker = Asker()
    answer = asker.proven(Method.ALLOCATE, [UDP, (ADDITIONAL_ADDRESS_FAMILY, IPV6)])
    v4, v6 = answer.get_all(XOR_RELAYED_ADDRESS)
    assert asker.permit(PEER, PEER_V6) is None
    assert bind_channel(asker, CHANNEL, PEER) is None
    assert bind_channel(asker, CHANNEL + 1, PEER_V6) is None
    gone = [(REQUESTED_ADDRESS_FAMILY, IPV4), (LIFETIME, 0)]
    assert asker.code(Method.REFRESH, gone) is None
    assert on_channel(asker, b"x") == []
    assert on_channel(asker, b"x", CHANNEL + 1) == [(b"x", v6, PEER_V6)]
    assert asker.from_peer(b"x", PEER, v4) == []
    assert asker.permit(PEER) == 443
    assert asker.code(Method.REFRESH, gone) == 443
    asker.now += 500
    assert asker.code(Method.REFRESH, [(REQUESTED_ADDRESS_FAMILY, IPV6)]) is None
    asker.now += 500
    assert asker.server.knows(CLIENT, SERVER, asker.now)


def test_rfc8656_5_requests_without_an_allocation_are_a_437() -> None:
    asker = Asker()
    assert asker.permit(PEER) == 437
    assert bind_channel(asker) == 437
    assert asker.code(Method.REFRESH) == 437
    assert send(asker, b"x") == []
    assert on_channel(asker, b"x") == []


# -- permissions --------------------------------------------------------------------------------


def test_rfc8656_9_a_permission_lasts_5_minutes_for_every_port_of_the_peer() -> None:
    asker = Asker()
    relayed = asker.allocate()
    assert asker.from_peer(b"x", PEER, relayed) == []
    assert asker.permit(PEER) is None
    (message,) = asker.from_peer(b"x", (PEER[0], 9), relayed)
    indication = parse_message(message)
    assert (indication.method, indication.message_class) == (Method.DATA, MessageClass.INDICATION)
    assert indication.get(XOR_PEER_ADDRESS) == (PEER[0], 9)
    assert indication.get(DATA) == b"x"
    assert asker.from_peer(b"x", OTHER_PEER, relayed) == []
    asker.now += 299
    assert asker.from_peer(b"x", PEER, relayed)
    asker.now += 2
    assert asker.from_peer(b"x", PEER, relayed) == []
    assert send(asker, b"x") == []


def test_rfc8656_11_2_a_send_indication_renews_no_permission() -> None:
    asker = Asker()
    relayed = asker.allocate()
    asker.permit(PEER)
    asker.now += 299
    assert send(asker, b"x") == [(b"x", relayed, PEER)]
    asker.now += 2
    assert send(asker, b"x") == []


def test_rfc8656_10_2_several_peers_in_one_request_or_none_of_them() -> None:
    asker = Asker()
    relayed = asker.allocate()
    assert asker.permit(PEER, ("127.0.0.1", 9), OTHER_PEER) == 403
    assert asker.from_peer(b"x", PEER, relayed) == []
    assert asker.permit(PEER, OTHER_PEER) is None
    assert asker.from_peer(b"x", PEER, relayed)
    assert asker.from_peer(b"x", OTHER_PEER, relayed)
    assert asker.permit() == 400
    assert asker.permit(PEER_V6) == 443


@pytest.mark.parametrize(
    "ip",
    [
        "127.0.0.1",
        "127.255.0.9",
        "0.0.0.0",
        "0.1.2.3",
        "224.0.0.1",
        "239.255.255.250",
        "255.255.255.255",
        "::",
        "::1",
        "ff02::1",
        "::ffff:192.0.2.7",
        "2001:0:1::1",
        "2002:7f00:1::1",
    ],
)
def test_the_servers_own_host_and_groups_and_tunnels_are_no_peers(ip: str) -> None:
    asker = Asker()
    asker.allocate([(ADDITIONAL_ADDRESS_FAMILY, IPV6)])
    assert asker.permit((ip, 9)) == 403
    assert bind_channel(asker, CHANNEL, (ip, 9)) == 403
    assert not default_peer_filter(ip)


@pytest.mark.parametrize("ip", ["192.0.2.7", "10.0.0.1", "2001:db8::7", "fd00::1", "126.9.9.9"])
def test_other_addresses_are(ip: str) -> None:
    assert default_peer_filter(ip)


def test_who_may_be_a_peer_can_be_chosen() -> None:
    asker = Asker(peer_filter=lambda ip: ip == "127.0.0.1")
    asker.allocate()
    assert asker.permit(("127.0.0.1", 9)) is None
    assert asker.permit(PEER) == 403


def test_permissions_are_bounded_and_lapsed_ones_make_room() -> None:
    asker = Asker(limits=TurnLimits(permissions=3))
    asker.allocate()
    assert [asker.permit((f"192.0.2.{n}", 9)) for n in range(4)] == [None, None, None, 508]
    assert asker.permit(("192.0.2.0", 9)) is None
    asker.now += 301
    assert asker.permit(("192.0.2.9", 9)) is None


# -- channels -----------------------------------------------------------------------------------


def test_rfc8656_12_a_channel_carries_data_both_ways() -> None:
    asker = Asker()
    relayed = asker.allocate()
    assert bind_channel(asker) is None
    assert on_channel(asker, b"out") == [(b"out", relayed, PEER)]
    assert asker.from_peer(b"back", PEER, relayed) == [b"\x40\x00\x00\x04back"]
    # Not for another port of the same host.
    (message,) = asker.from_peer(b"back", (PEER[0], 9), relayed)
    assert parse_message(message).get(DATA) == b"back"


def test_rfc8656_12_6_padding_is_not_data_and_a_cut_message_is_nothing() -> None:
    asker = Asker()
    relayed = asker.allocate()
    bind_channel(asker)
    asker.raw(b"\x40\x00\x00\x01x\0\0\0")
    assert [t.data for t in asker.relayed] == [b"x"]
    asker.raw(b"\x40\x00\x00\x05four")
    assert asker.relayed == []
    asker.raw(b"\x40\x00\x00\x00")
    assert [(t.data, t.local) for t in asker.relayed] == [(b"", relayed)]


def test_rfc8656_12_2_a_number_and_a_peer_belong_to_each_other() -> None:
    asker = Asker()
    asker.allocate()
    assert bind_channel(asker) is None
    assert bind_channel(asker) is None  # again, to keep it
    assert bind_channel(asker, CHANNEL, OTHER_PEER) == 400
    assert bind_channel(asker, CHANNEL + 1, PEER) == 400
    assert bind_channel(asker, CHANNEL + 1, (PEER[0], 9)) is None
    asker.now += 601
    asker.allocate()
    assert bind_channel(asker, CHANNEL, OTHER_PEER) is None


@pytest.mark.parametrize("number", [0, 0x3FFF, 0x5000, 0x7FFF, 0xFFFF])
def test_rfc8656_12_2_other_numbers_are_no_channels(number: int) -> None:
    asker = Asker()
    asker.allocate()
    assert bind_channel(asker, number) == 400


@pytest.mark.parametrize(
    "attributes",
    [
        [],
        [(CHANNEL_NUMBER, CHANNEL)],
        [(XOR_PEER_ADDRESS, PEER)],
        [(CHANNEL_NUMBER, CHANNEL), (XOR_PEER_ADDRESS, (PEER[0], 0))],
    ],
)
def test_rfc8656_12_2_a_bind_request_that_lacks_something_is_a_400(attributes) -> None:
    asker = Asker()
    asker.allocate()
    assert asker.code(Method.CHANNEL_BIND, attributes) == 400


def test_rfc8656_12_a_channel_lasts_10_minutes_and_its_permission_5() -> None:
    asker = Asker()
    relayed = asker.allocate([(LIFETIME, 3600)])
    bind_channel(asker)
    asker.now += 299
    assert on_channel(asker, b"x")
    asker.now += 2
    assert on_channel(asker, b"x") == []
    assert asker.permit(PEER) is None
    assert on_channel(asker, b"x")
    asker.now += 298
    assert asker.permit(PEER) is None
    asker.now += 2
    assert on_channel(asker, b"x") == []
    (message,) = asker.from_peer(b"x", PEER, relayed)
    assert parse_message(message).method == Method.DATA
    # The peer may now have another number, and the number another peer.
    assert bind_channel(asker, CHANNEL + 1, PEER) is None
    assert bind_channel(asker, CHANNEL, OTHER_PEER) is None
    assert on_channel(asker, b"x", CHANNEL + 1) == [(b"x", relayed, PEER)]
    assert on_channel(asker, b"x", CHANNEL) == [(b"x", relayed, OTHER_PEER)]


def test_channels_are_bounded_and_lapsed_ones_make_room() -> None:
    asker = Asker(limits=TurnLimits(channels=2))
    asker.allocate([(LIFETIME, 3600)])
    codes = [bind_channel(asker, CHANNEL + n, (PEER[0], 1 + n)) for n in range(3)]
    assert codes == [None, None, 508]
    asker.now += 601
    assert bind_channel(asker, CHANNEL + 2, (PEER[0], 3)) is None


def test_channels_of_one_client_are_nothing_to_another() -> None:
    asker = Asker()
    asker.allocate()
    other = ("198.51.100.2", 1)
    theirs = asker.allocate(source=other)
    bind_channel(asker)
    assert on_channel(asker, b"x", source=other) == []
    assert bind_channel(asker, CHANNEL, OTHER_PEER, source=other) is None
    assert on_channel(asker, b"x", source=other) == [(b"x", theirs, OTHER_PEER)]


# -- data ---------------------------------------------------------------------------------------


def test_two_allocations_of_one_server_reach_each_other() -> None:
    asker = Asker()
    other = ("198.51.100.2", 1)
    ours, theirs = asker.allocate(), asker.allocate(source=other)
    asker.permit(theirs)
    asker.permit(ours, source=other)
    ((data, local, destination),) = send(asker, b"hello", theirs)
    assert (local, destination) == (ours, theirs)
    (message,) = asker.from_peer(data, local, destination)
    assert parse_message(message).get(DATA) == b"hello"


def test_rfc8656_11_5_icmp_is_passed_on_where_there_is_a_permission() -> None:
    asker = Asker()
    relayed = asker.allocate()
    asker.permit(PEER)
    asker.server.receive_icmp_error(relayed, OTHER_PEER, IcmpError(3, 3), asker.now)
    assert asker.server.datagrams_to_send(asker.now) == []
    asker.server.receive_icmp_error(relayed, PEER, IcmpError(3, 3), asker.now)
    (transmit,) = asker.server.datagrams_to_send(asker.now)
    indication = parse_message(transmit.data)
    assert indication.get(ICMP) == IcmpError(3, 3)
    assert indication.get(XOR_PEER_ADDRESS) == PEER
    assert indication.get(DATA) is None


def test_what_is_over_the_rate_of_an_allocation_is_dropped() -> None:
    asker = Asker(limits=TurnLimits(bytes_per_second=10_000))
    relayed = asker.allocate()
    asker.permit(PEER)
    passed = sum(bool(send(asker, bytes(1000))) for _ in range(50))
    assert passed == 10
    assert asker.from_peer(bytes(1000), PEER, relayed) == []
    asker.now += 0.5
    assert sum(bool(asker.from_peer(bytes(1000), PEER, relayed)) for _ in range(50)) == 5
    assert asker.server.counters.dropped["rate"] == 86


def test_rfc8489_6_3_1_unknown_attributes_that_matter_are_named() -> None:
    asker = Asker()
    unknown = AttributeType(0x7FFF, "NEW", lambda value, _: value, lambda value, _: value)
    optional = AttributeType(0xBFFF, "NEW TOO", lambda value, _: value, lambda value, _: value)
    answer = asker.proven(Method.ALLOCATE, [UDP, (unknown, b"new"), (optional, b"new")])
    assert code_of(answer) == 420
    assert answer.get(UNKNOWN_ATTRIBUTES) == (0x7FFF,)
    assert answer.verify(KEY)
    assert asker.code(Method.ALLOCATE, [UDP, (PRIORITY, 1), (optional, b"new")]) is None
    asker.permit(PEER)
    assert send(asker, b"x", PEER, (optional, b"new"))
    assert send(asker, b"x", PEER, (unknown, b"new")) == []


def test_a_binding_request_is_answered_over_every_transport() -> None:
    asker = Asker()
    for transport in ("udp", "tcp", "tls"):
        answer = asker.ask(Method.BINDING, transport=transport)
        assert answer.get(XOR_MAPPED_ADDRESS) == CLIENT


def test_a_binding_server_with_two_addresses_can_be_built_in() -> None:
    binding = BindingServer(SERVER, ("203.0.113.11", 3479))
    asker = Asker(binding_server=binding)
    answer = asker.ask(Method.BINDING)
    assert answer.get(OTHER_ADDRESS) == ("203.0.113.11", 3479)


# -- sockets and events -------------------------------------------------------------------------


class Sockets:
    def __init__(self, taken: set[int]) -> None:
        self.taken = taken
        self.bound: list = []

    def open(self, address) -> bool:
        if address[1] in self.taken:
            return False
        self.bound.append(address)
        return True

    def close(self, address) -> None:
        self.bound.remove(address)


def test_a_shell_binds_an_address_before_it_is_given_out_and_lets_it_go_after() -> None:
    sockets = Sockets(taken=set(range(50000, 50010)) - {50007})
    asker = Asker(sockets=sockets, port_range=(50000, 50009))
    relayed = asker.allocate()
    assert relayed == ("203.0.113.10", 50007)
    assert sockets.bound == [relayed]
    other = ("198.51.100.2", 1)
    assert asker.code(Method.ALLOCATE, [UDP], source=other) == 508
    asker.proven(Method.REFRESH, [(LIFETIME, 0)])
    assert sockets.bound == []
    asker.allocate(source=other)
    asker.now += 700
    asker.server.handle_timer(asker.now)
    assert sockets.bound == []


def test_events_tell_who_has_what() -> None:
    asker = Asker()
    relayed = asker.allocate()
    asker.proven(Method.REFRESH, [(LIFETIME, 0)])
    where = FiveTuple(CLIENT, SERVER, "udp")
    assert asker.server.next_event() == AllocationOpened(where, "robot", (relayed,))
    closed = asker.server.next_event()
    assert isinstance(closed, AllocationClosed)
    assert (closed.five_tuple, closed.relayed) == (where, (relayed,))
    assert closed.reason == "given back by its client"
    assert asker.server.next_event() is None


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"relay_ips": []}, "IP address"),
        ({"port_range": (5, 4)}, "range"),
        ({"realm": ""}, "empty"),
        ({"users": {"a\x00": "b"}}, "user name"),
        ({"users": {"a": ""}}, "empty"),
    ],
)
def test_a_server_that_can_not_be_is_refused(options, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        Asker(**options)
