"""The Binding server: RFC 8489 sections 6.3 and 12, RFC 5780 section 6."""

from __future__ import annotations

import pytest
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
    ERROR_CODE,
    MAPPED_ADDRESS,
    OTHER_ADDRESS,
    PADDING,
    RESPONSE_ORIGIN,
    RESPONSE_PORT,
    SOFTWARE,
    UNKNOWN_ATTRIBUTES,
    XOR_MAPPED_ADDRESS,
    BindingServer,
    Message,
    MessageClass,
    Method,
    parse_message,
)

CLIENT = ("203.0.113.9", 50000)
D = ("192.0.2.1", 3478)
C = ("192.0.2.2", 3479)

NO_CHANGE = attribute(0x0003, b"\0\0\0\0")
CHANGE_IP = attribute(0x0003, b"\0\0\0\4")
CHANGE_PORT = attribute(0x0003, b"\0\0\0\2")
CHANGE_BOTH = attribute(0x0003, b"\0\0\0\6")
RESPONSE_PORT_9 = attribute(0x0027, b"\0\x09\0\0")


def ask(
    server: BindingServer, data: bytes, source: Address = CLIENT, local: Address = D
) -> tuple[Message, Transmit] | None:
    server.receive_datagram(data, source, local, 0.0)
    sent = server.datagrams_to_send(0.0)
    assert len(sent) <= 1
    assert server.datagrams_to_send(0.0) == []
    return (parse_message(sent[0].data), sent[0]) if sent else None


def answered(
    server: BindingServer, data: bytes, source: Address = CLIENT, local: Address = D
) -> tuple[Message, Transmit]:
    result = ask(server, data, source, local)
    assert result is not None
    return result


# Binding


@pytest.mark.parametrize("source", [CLIENT, ("2001:db8::9", 1), ("203.0.113.9", 65535)])
def test_rfc8489_6_3_1_1_6_success_tells_the_source_and_leaves_from_where_it_was_asked(
    source: Address,
) -> None:
    local = ("198.51.100.7", 12345)
    response, transmit = answered(BindingServer(), raw(REQUEST), source, local)
    assert response.message_class is MessageClass.SUCCESS
    assert response.method == Method.BINDING
    assert response.get(XOR_MAPPED_ADDRESS) == source
    assert (transmit.local, transmit.destination) == (local, source)


def test_rfc8489_5_6_the_response_carries_the_requests_id() -> None:
    response, _ = answered(BindingServer(), raw(REQUEST, id_=b"0123456789ab"))
    assert response.transaction_id == b"0123456789ab"


def test_rfc8489_6_3_1_1_5_and_16_1_2_1_software_is_told_and_configurable() -> None:
    assert answered(BindingServer(), raw(REQUEST))[0].get(SOFTWARE) == "ice-punch"
    assert answered(BindingServer(software="x 1"), raw(REQUEST))[0].get(SOFTWARE) == "x 1"
    assert answered(BindingServer(software=None), raw(REQUEST))[0].get(SOFTWARE) is None
    error, _ = answered(BindingServer(software="x 1"), raw(REQUEST, attribute(0x7FFF, b"")))
    assert error.get(SOFTWARE) == "x 1"
    with pytest.raises(ValueError, match="127 fit"):
        BindingServer(software="x" * 128)


def test_rfc8489_7_and_12_5_fingerprint_is_answered_and_not_required() -> None:
    assert not answered(BindingServer(), raw(REQUEST))[0].has_fingerprint
    assert answered(BindingServer(), with_fingerprint(raw(REQUEST)))[0].has_fingerprint
    error = with_fingerprint(raw(REQUEST, attribute(0x7FFF, b"")))
    assert answered(BindingServer(), error)[0].has_fingerprint


def test_rfc8489_12_2_no_credentials_are_demanded_and_those_that_come_are_ignored() -> None:
    request = with_integrity(raw(REQUEST, attribute(0x0006, b"a:b")), b"key")
    response, _ = answered(BindingServer(), request)
    assert response.message_class is MessageClass.SUCCESS
    assert response.integrity == frozenset()


def test_rfc8489_6_3_1_1_a_resent_request_is_answered_the_same() -> None:
    server = BindingServer()
    first = answered(server, raw(REQUEST))[1]
    assert answered(server, raw(REQUEST))[1] == first


def test_rfc8489_6_3_2_known_but_unexpected_attributes_are_ignored() -> None:
    odd = raw(REQUEST, attribute(0x0024, bytes(4)), attribute(0x0014, b"realm"))
    assert answered(BindingServer(), odd)[0].message_class is MessageClass.SUCCESS


def test_rfc8489_6_3_1_unknown_optional_attributes_are_ignored() -> None:
    request = raw(REQUEST, attribute(0xC057, b"\1\2\3"))
    assert answered(BindingServer(), request)[0].message_class is MessageClass.SUCCESS


def test_an_ipv4_client_of_a_dual_stack_socket_is_told_its_ipv4_address() -> None:
    source = ("::ffff:203.0.113.9", 50000)
    response, transmit = answered(BindingServer(), raw(REQUEST), source, ("::", 3478))
    assert response.get(XOR_MAPPED_ADDRESS) == CLIENT
    assert transmit.destination == source


def test_one_server_serves_several_addresses() -> None:
    server = BindingServer()
    for local in (("192.0.2.1", 3478), ("2001:db8::1", 3478)):
        assert answered(server, raw(REQUEST), CLIENT, local)[1].local == local


# Errors


def test_rfc8489_6_3_1_0_and_6_3_1_1_3_unknown_required_attributes_are_a_420() -> None:
    server = BindingServer(D, C)
    request = raw(REQUEST, attribute(0x7FFF, b"x"), NO_CHANGE, attribute(0x0002, b""))
    response, transmit = answered(server, request)
    assert response.message_class is MessageClass.ERROR
    assert response.get(ERROR_CODE) == (420, "Unknown Attribute")
    assert response.get(UNKNOWN_ATTRIBUTES) == (0x7FFF, 0x0002)
    assert response.get(XOR_MAPPED_ADDRESS) is None
    assert (transmit.local, transmit.destination) == (D, CLIENT)
    assert server.counters.errors == {420: 1}


def test_rfc8489_9_1_unknown_attributes_after_integrity_are_no_420() -> None:
    request = with_more(with_integrity(raw(REQUEST), b"k"), attribute(0x7FFF, b"x"))
    assert answered(BindingServer(), request)[0].message_class is MessageClass.SUCCESS


@pytest.mark.parametrize(
    ("reason", "data"),
    [
        ("not-stun", b""),
        ("not-stun", b"\x16\xfe\xfd" + bytes(40)),
        ("not-stun", b"\x80" + raw(REQUEST)[1:]),
        ("not-stun", raw(REQUEST)[:19]),
        ("not-stun", raw(REQUEST) + b"\0"),
        ("no-cookie", raw(INDICATION)[:4] + bytes(16)),
        ("no-cookie", raw(SUCCESS)[:4] + bytes(16)),
        ("no-cookie", raw(0x0003)[:4] + bytes(16)),
        ("not-stun", raw(REQUEST)[:4] + bytes(18)),
        ("malformed", b"\0\1\0\4" + bytes(16) + b"\x80\x22\0\x08"),
        ("malformed", raw(REQUEST, attribute(0x0024, b"\1\2"))),
        ("malformed", raw(REQUEST, b"\x80\x22\0\x08abcd")),
        ("malformed", with_fingerprint(raw(REQUEST))[:-1] + b"\xff"),
        ("malformed", with_more(with_fingerprint(raw(REQUEST)), NO_CHANGE)),
        ("indication", raw(INDICATION)),
        ("indication", raw(INDICATION, attribute(0x7FFF, b""))),
        ("response", raw(SUCCESS)),
        ("response", raw(ERROR)),
        ("unsupported-method", raw(0x0003)),
        ("unsupported-method", raw(0x0002)),
        ("unsupported-method", raw(0x3EEF)),
    ],
)
def test_rfc8489_6_3_3_what_is_no_binding_request_is_dropped_and_counted(
    reason: str, data: bytes
) -> None:
    """RFC 8489 sections 6.3, 6.3.2 and 12: no answer."""
    server = BindingServer(D, C)
    assert ask(server, data) is None
    assert server.counters.dropped == {reason: 1}
    assert (server.counters.received, server.counters.answered) == (1, 0)


@pytest.mark.parametrize("source", [CLIENT, ("2001:db8::9", 1)])
@pytest.mark.parametrize("server", [BindingServer(D, C), BindingServer(software=None)])
def test_rfc8489_12_6_a_client_of_rfc_3489_is_told_its_address(
    server: BindingServer, source: Address
) -> None:
    """As RFC 5389 section 12.2 has it; libnice is such a client."""
    id_ = bytes(range(16))
    server.receive_datagram(raw(REQUEST)[:4] + id_, source, D, 0.0)
    [transmit] = server.datagrams_to_send(0.0)
    assert (transmit.local, transmit.destination) == (D, source)
    assert transmit.data[:2] == raw(SUCCESS)[:2]
    assert transmit.data[4:20] == id_
    response = parse_message(
        raw(SUCCESS)[:2] + transmit.data[2:4] + raw(SUCCESS)[4:8] + transmit.data[8:]
    )
    assert response.get(MAPPED_ADDRESS) == source
    assert response.get(XOR_MAPPED_ADDRESS) is response.get(OTHER_ADDRESS) is None
    assert not response.has_fingerprint


@pytest.mark.parametrize(
    "what", [CHANGE_BOTH, RESPONSE_PORT_9, attribute(0x0002, b"\0\1\x10\0\xc0\0\2\1")]
)
def test_rfc8489_12_6_a_client_of_rfc_3489_can_send_nothing_elsewhere(what: bytes) -> None:
    server = BindingServer(D, C)
    request = raw(REQUEST, what)
    server.receive_datagram(request[:4] + bytes(16) + request[20:], CLIENT, D, 0.0)
    [transmit] = server.datagrams_to_send(0.0)
    assert (transmit.local, transmit.destination) == (D, CLIENT)
    assert transmit.data[:2] == raw(ERROR)[:2]
    assert server.counters.errors == {420: 1}


def test_a_source_that_can_not_be_answered_is_dropped() -> None:
    server = BindingServer()
    assert ask(server, raw(REQUEST), ("203.0.113.9", 0)) is None
    assert server.counters.dropped == {"source-port": 1}


def test_answers_that_nobody_fetches_are_bounded() -> None:
    server = BindingServer()
    for _ in range(1500):
        server.receive_datagram(raw(REQUEST), CLIENT, D, 0.0)
    assert len(server.datagrams_to_send(0.0)) == 1024
    assert server.counters.dropped == {"overload": 476}
    assert server.counters.answered == 1024
    assert ask(server, raw(REQUEST)) is not None


def test_no_answer_draws_another_answer() -> None:
    """Two servers can not be made to answer each other."""
    server, victim = BindingServer(D, C), BindingServer(("198.51.100.1", 3478))
    for request in (raw(REQUEST), raw(REQUEST, attribute(0x7FFF, b"")), raw(REQUEST, CHANGE_BOTH)):
        _, transmit = answered(server, request, ("198.51.100.1", 3478))
        assert ask(victim, transmit.data, transmit.local, ("198.51.100.1", 3478)) is None


# RFC 5780


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (b"", D),
        (NO_CHANGE, D),
        (CHANGE_IP, ("192.0.2.2", 3478)),
        (CHANGE_PORT, ("192.0.2.1", 3479)),
        (CHANGE_BOTH, C),
    ],
)
def test_rfc5780_6_1_3_the_flags_choose_the_source_of_the_response(
    flags: bytes, expected: Address
) -> None:
    response, transmit = answered(BindingServer(D, C), raw(REQUEST, flags))
    assert transmit.local == expected
    assert transmit.destination == CLIENT
    assert response.get(RESPONSE_ORIGIN) == expected
    assert response.get(OTHER_ADDRESS) == C
    assert response.get(MAPPED_ADDRESS) == response.get(XOR_MAPPED_ADDRESS) == CLIENT


@pytest.mark.parametrize("local", BindingServer(D, C).addresses)
def test_rfc5780_6_1_4_to_8_source_and_other_address_depend_on_where_it_was_asked(
    local: Address,
) -> None:
    """RFC 5780 table 1, at each of the four addresses."""
    changed = ("192.0.2.2" if local[0] == "192.0.2.1" else "192.0.2.1", 6957 - local[1])
    for flags, origin in (
        (b"", local),
        (CHANGE_IP, (changed[0], local[1])),
        (CHANGE_PORT, (local[0], changed[1])),
        (CHANGE_BOTH, changed),
    ):
        response, transmit = answered(BindingServer(D, C), raw(REQUEST, flags), CLIENT, local)
        assert transmit.local == response.get(RESPONSE_ORIGIN) == origin
        assert response.get(OTHER_ADDRESS) == changed


def test_rfc5780_6_1_1_mapped_address_and_xor_mapped_address_are_both_there() -> None:
    response, _ = answered(BindingServer(D, C), raw(REQUEST))
    assert response.get(MAPPED_ADDRESS) == response.get(XOR_MAPPED_ADDRESS) == CLIENT


@pytest.mark.parametrize("flags", [NO_CHANGE, CHANGE_IP, CHANGE_PORT, CHANGE_BOTH])
def test_rfc5780_6_4_without_a_second_address_change_request_is_a_420(flags: bytes) -> None:
    response, transmit = answered(BindingServer(D), raw(REQUEST, attribute(0x7FFF, b""), flags))
    assert response.get(ERROR_CODE) == (420, "Unknown Attribute")
    assert response.get(UNKNOWN_ATTRIBUTES) == (0x7FFF, 0x0003)
    assert response.get(OTHER_ADDRESS) is None
    assert transmit.local == D


def test_rfc5780_6_4_without_a_second_address_there_is_no_other_address() -> None:
    response, _ = answered(BindingServer(D), raw(REQUEST))
    assert response.get(OTHER_ADDRESS) is None
    at_another_address, _ = answered(
        BindingServer(D, C), raw(REQUEST), ("2001:db8::9", 1), ("2001:db8::1", 3478)
    )
    assert at_another_address.get(OTHER_ADDRESS) is None


@pytest.mark.parametrize(
    ("primary", "alternate"),
    [
        (None, C),
        (D, D),
        (D, ("192.0.2.1", 3479)),
        (D, ("192.0.2.2", 3478)),
        (D, ("2001:db8::1", 3479)),
    ],
)
def test_rfc5780_6_an_alternate_address_differs_in_ip_address_and_port(
    primary: Address | None, alternate: Address
) -> None:
    with pytest.raises(ValueError, match="alternate"):
        BindingServer(primary, alternate)


@pytest.mark.parametrize("server", [BindingServer(D), BindingServer(D, C)])
def test_rfc5780_7_5_1_the_response_goes_to_response_port(server: BindingServer) -> None:
    response, transmit = answered(server, raw(REQUEST, RESPONSE_PORT_9))
    assert transmit.destination == (CLIENT[0], 9)
    assert response.get(XOR_MAPPED_ADDRESS) == CLIENT
    assert response.get(MAPPED_ADDRESS) == CLIENT
    assert response.get(RESPONSE_ORIGIN) == D
    assert response.get(RESPONSE_PORT) is None


def test_rfc5780_7_5_a_response_port_of_0_is_a_400() -> None:
    response, transmit = answered(BindingServer(D), raw(REQUEST, attribute(0x0027, bytes(4))))
    assert response.get(ERROR_CODE) == (400, "Bad Request")
    assert transmit.destination == CLIENT


@pytest.mark.parametrize("server", [BindingServer(D), BindingServer(D, C)])
def test_rfc5780_6_1_11_padding_with_response_port_is_a_400(server: BindingServer) -> None:
    request = raw(REQUEST, RESPONSE_PORT_9, attribute(0x0026, bytes(100)))
    response, transmit = answered(server, request)
    assert response.get(ERROR_CODE) == (400, "Bad Request")
    assert response.get(PADDING) is None
    assert transmit.destination == CLIENT


@pytest.mark.parametrize(
    ("asked", "mtu", "given"),
    [
        (1500, 1500, 1500),
        (60000, 1500, 1500),
        (1500, 9000, 1500),
        (1501, 9000, 1504),
        (1000, 1280, 1000),
        (60000, 1278, 1280),
        (0, 1500, 0),
    ],
)
def test_rfc5780_6_1_9_padding_is_answered_with_padding_and_never_amplified(
    asked: int, mtu: int, given: int
) -> None:
    """The RFC's SHOULD is the MTU whatever came. Less is given to less, so that a forged request
    does not make the server send more than it cost."""
    server = BindingServer(D, C, mtu=mtu)
    response, transmit = answered(server, raw(REQUEST, attribute(0x0026, bytes(asked))))
    assert response.get(PADDING) == bytes(given)
    assert response.get(MAPPED_ADDRESS) == CLIENT
    assert transmit.destination == CLIENT


def test_rfc5780_6_1_a_420_answers_padding_and_ports_without_obeying_them() -> None:
    request = raw(REQUEST, attribute(0x7FFF, b""), RESPONSE_PORT_9, CHANGE_BOTH)
    response, transmit = answered(BindingServer(D, C), request)
    assert response.get(ERROR_CODE) == (420, "Unknown Attribute")
    assert (transmit.local, transmit.destination) == (D, CLIENT)


def test_no_answer_is_much_larger_than_its_request() -> None:
    plain = raw(REQUEST, id_=ID)
    assert len(answered(BindingServer(D), plain)[1].data) <= 48
    worst = answered(
        BindingServer(("2001:db8::1", 1), ("2001:db8::2", 2)), plain, ("2001:db8::9", 9)
    )
    assert len(worst[1].data) <= 132
    unknown = raw(REQUEST, *(attribute(0x4000 + n, b"") for n in range(5000)))
    assert len(answered(BindingServer(D), unknown)[1].data) < len(unknown)


def test_the_counters_tell_what_happened() -> None:
    server = BindingServer(D)
    for data in (raw(REQUEST), raw(REQUEST, CHANGE_IP), b"x", raw(INDICATION), raw(INDICATION)):
        server.receive_datagram(data, CLIENT, D, 0.0)
    counters = server.counters
    assert (counters.received, counters.answered) == (5, 2)
    assert counters.errors == {420: 1}
    assert counters.dropped == {"not-stun": 1, "indication": 2}
