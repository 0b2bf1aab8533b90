"""Plain requests take a short way through the Binding server, which no answer shows."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from stun_wire import (
    ERROR,
    ID,
    INDICATION,
    REQUEST,
    SUCCESS,
    attribute,
    raw,
    with_fingerprint,
    with_integrity,
    with_more,
)

from ice_punch.datagram import Address, Transmit
from ice_punch.stun import (
    SOFTWARE,
    XOR_MAPPED_ADDRESS,
    BindingServer,
    Message,
    StunParseError,
    parse_message,
)

CLIENT = ("203.0.113.9", 50000)
D = ("192.0.2.1", 3478)
C = ("192.0.2.2", 3479)
ELSEWHERE = ("198.51.100.7", 3478)

thorough = settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))

SERVERS = {
    "plain": lambda: BindingServer(),
    "silent about itself": lambda: BindingServer(software=None),
    "of five letters": lambda: BindingServer(D, software="abcde"),
    "with two addresses": lambda: BindingServer(D, C),
    "of IPv6": lambda: BindingServer(("2001:db8::1", 3478), ("2001:db8::2", 3479)),
}
"""``answer_plain`` has to agree with the full path on every one of them."""


def full_path(kind: str) -> BindingServer:
    server = SERVERS[kind]()
    server.answer_plain = lambda data, source, local: None  # type: ignore[method-assign]
    return server


def outcome(server: BindingServer, data: bytes, source: Address, local: Address) -> object:
    try:
        server.receive_datagram(data, source, local, 0.0)
    except ValueError as error:
        return str(error)
    return server.datagrams_to_send(0.0), server.counters


def agree(kind: str, data: bytes, source: Address, local: Address) -> bool:
    """Whether the short way was taken. Fails where the two ways part."""
    server = SERVERS[kind]()
    assert outcome(SERVERS[kind](), data, source, local) == outcome(
        full_path(kind), data, source, local
    )
    answer = server.answer_plain(data, source, local)
    if answer is None:
        assert server.counters == BindingServer().counters
        return False
    assert ([Transmit(answer, local, source)], server.counters) == outcome(
        full_path(kind), data, source, local
    )
    return True


texts = st.binary(max_size=40) | st.sampled_from(
    [b"", b"libjuice", b"\xff\xfe", bytes(763), bytes(764)]
)
softwares = st.builds(
    lambda value, pad: attribute(0x8022, value, pad), texts, st.binary(min_size=3, max_size=3)
)
others = st.builds(
    attribute,
    st.sampled_from(
        [
            0x0001,
            0x0003,
            0x0006,
            0x0024,
            0x0026,
            0x0027,
            0x0020,
            0x8022,
            0x8028,
            0x8029,
            0x7FFF,
            0xC057,
        ]
    ),
    st.binary(max_size=12),
    st.binary(min_size=3, max_size=3),
)
ids = st.binary(min_size=12, max_size=12)
kinds = st.sampled_from(list(SERVERS))
addresses = st.tuples(
    st.ip_addresses(v=4).map(str)
    | st.ip_addresses(v=6).map(str)
    | st.sampled_from(
        ["::ffff:203.0.113.9", "::1", "::ffff:0:1", "0.0.0.0", "255.255.255.255", "fe80::1"]
    ),
    st.integers(0, 65535),
)
locals_ = st.sampled_from([D, C, ELSEWHERE, ("192.0.2.1", 3479), ("2001:db8::1", 3478), ("::1", 1)])


@st.composite
def nearly_plain(draw: st.DrawFn) -> bytes:
    """A request with a few attributes, the plain ones mostly, or something close to one."""
    type_ = draw(
        st.sampled_from([REQUEST] * 8 + [INDICATION, SUCCESS, ERROR, 0x0003, 0x8001, 0x4001])
    )
    message = raw(type_, *draw(st.lists(softwares | softwares | others, max_size=2)), id_=draw(ids))
    if draw(st.booleans()):
        message = with_fingerprint(message)
    if draw(st.integers(0, 4)) == 0:
        message = with_more(message, draw(softwares | others))
    changed = bytearray(message)
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        changed[draw(st.integers(0, len(changed) - 1))] = draw(st.integers(0, 255))
    cut = draw(st.sampled_from([0] * 8 + [1, 4]))
    return bytes(changed[: len(changed) - cut]) + draw(
        st.sampled_from([b""] * 8 + [b"\0", bytes(4)])
    )


@thorough
@given(kinds, nearly_plain(), addresses, locals_)
@example("plain", with_fingerprint(raw(REQUEST, attribute(0x8022, b"x" * 763))), CLIENT, D)
@example("plain", raw(REQUEST, attribute(0x8022, b"x" * 764)), CLIENT, D)
@example("plain", raw(REQUEST), ("203.0.113.9", 0), D)
@example("with two addresses", raw(REQUEST), CLIENT, D)
@example("with two addresses", raw(REQUEST), ("2001:db8::9", 9), D)
def test_both_ways_answer_byte_for_byte_the_same(
    kind: str, data: bytes, source: Address, local: Address
) -> None:
    agree(kind, data, source, local)


@thorough
@given(kinds, st.binary(max_size=120), addresses, locals_)
def test_both_ways_do_the_same_with_any_bytes(
    kind: str, data: bytes, source: Address, local: Address
) -> None:
    agree(kind, data, source, local)
    agree(kind, raw(REQUEST)[:8] + data, source, local)


BARE = raw(REQUEST, id_=ID)
NAMED = raw(REQUEST, attribute(0x8022, b"libnice"), id_=ID)
FORGED = attribute(0x8028, b"\1\2\3\4")


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("source", [CLIENT, ("2001:db8::9", 9)])
@pytest.mark.parametrize("data", [BARE, NAMED, with_fingerprint(BARE), with_fingerprint(NAMED)])
def test_what_clients_send_all_day_takes_the_short_way(
    data: bytes, source: Address, kind: str
) -> None:
    for local in (D, ELSEWHERE):
        assert agree(kind, data, source, local)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        BARE[:19],
        BARE + b"\0",
        with_more(BARE, FORGED),
        with_more(NAMED, FORGED),
        with_more(with_fingerprint(BARE), attribute(0x8022, b"late")),
        with_fingerprint(with_fingerprint(BARE)),
        with_integrity(BARE, b"key"),
        with_fingerprint(with_integrity(BARE, b"key")),
        raw(REQUEST, attribute(0x8022, b"a"), attribute(0x8022, b"b")),
        raw(REQUEST, attribute(0x0003, b"\0\0\0\6")),
        raw(REQUEST, attribute(0x0026, bytes(8))),
        raw(REQUEST, attribute(0x0027, b"\0\x09\0\0")),
        raw(REQUEST, attribute(0xC057, b"x")),
        raw(REQUEST, attribute(0x7FFF, b"")),
        raw(REQUEST, b"\x80\x22\xff\xffabcd"),
        raw(INDICATION),
        raw(SUCCESS),
        raw(0x0003),
    ],
)
def test_all_else_takes_the_full_path(data: bytes) -> None:
    assert not agree("plain", data, CLIENT, D)


def test_a_software_that_looks_like_a_fingerprint_is_none() -> None:
    """Its last 8 bytes are FINGERPRINT's, and right, but belong to the text."""
    inside = raw(REQUEST, attribute(0x8022, bytes(8)))
    crc = with_fingerprint(raw(REQUEST))[20:]
    data = inside[:24] + crc
    assert agree("plain", data, CLIENT, D)
    answer = BindingServer().answer_plain(data, CLIENT, D)
    assert answer is not None
    assert not parse_message(answer).has_fingerprint


def test_an_ipv4_address_that_an_ipv6_socket_heard_is_told_as_such_either_way() -> None:
    source = ("::ffff:203.0.113.9", 50000)
    server = BindingServer()
    assert server.answer_plain(BARE, source, D) is None
    server.receive_datagram(BARE, source, D, 0.0)
    assert told(server.datagrams_to_send(0.0)[0].data).get(XOR_MAPPED_ADDRESS) == CLIENT


def test_the_short_way_does_not_pass_by_the_bound_on_answers_that_nobody_fetches() -> None:
    server = BindingServer()
    for _ in range(2000):
        server.receive_datagram(BARE, CLIENT, D, 0.0)
    assert len(server.datagrams_to_send(0.0)) == 1024
    assert server.counters.dropped == {"overload": 976}


def test_an_address_that_is_none_is_the_callers_mistake_on_both_ways() -> None:
    for server in (BindingServer(), full_path("plain")):
        with pytest.raises(ValueError, match="nowhere"):
            server.receive_datagram(BARE, ("nowhere", 1), D, 0.0)


def told(data: bytes) -> Message:
    try:
        return parse_message(data)
    except StunParseError as error:
        raise AssertionError(data.hex()) from error


@pytest.mark.parametrize("software", [None, "x", "four", "ice-punch 0.1"])
def test_the_answer_says_what_it_should(software: str | None) -> None:
    server = BindingServer(software=software)
    for data in (BARE, with_fingerprint(NAMED)):
        answer = server.answer_plain(data, ("203.0.113.9", 0x2112), D)
        assert answer is not None
        response = told(answer)
        assert response.transaction_id == ID
        assert response.get(XOR_MAPPED_ADDRESS) == ("203.0.113.9", 0x2112)
        assert response.get(SOFTWARE) == software
        assert response.has_fingerprint == (data != BARE)
    assert (server.counters.received, server.counters.answered) == (2, 2)
