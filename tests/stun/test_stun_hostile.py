"""Bytes from strangers: whatever comes, parsing answers with a message or with StunParseError."""

from __future__ import annotations

import ipaddress
import string
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from stun_wire import COOKIE, attribute, raw, with_fingerprint, with_integrity

from ice_punch.stun import (
    ATTRIBUTES,
    CHANGE_REQUEST,
    DATA,
    ERROR_CODE,
    ICE_CONTROLLED,
    ICE_CONTROLLING,
    NONCE,
    PADDING,
    PASSWORD_ALGORITHMS,
    PRIORITY,
    SOFTWARE,
    UNKNOWN_ATTRIBUTES,
    USE_CANDIDATE,
    USERHASH,
    USERNAME,
    XOR_MAPPED_ADDRESS,
    XOR_PEER_ADDRESS,
    AddressErrorCode,
    AlgorithmParameters,
    AttributeType,
    BindingServer,
    ChangeRequest,
    ClientTransaction,
    ErrorCode,
    Integrity,
    Message,
    MessageClass,
    Method,
    StunParseError,
    looks_like_stun,
    parse_message,
    security_features,
)

KEY = b"a key of some length"
quick = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))

types = st.one_of(
    st.sampled_from([*ATTRIBUTES, 0x0008, 0x001C, 0x8028, 0x0000, 0x7FFF, 0x8000, 0xFFFF]),
    st.integers(0, 0xFFFF),
)
attributes = st.builds(attribute, types, st.binary(max_size=40), st.binary(min_size=3, max_size=3))
bodies = st.lists(attributes, max_size=8)
ids = st.binary(min_size=12, max_size=12)


def survives(data: bytes) -> Message | None:
    """Parses and looks at everything."""
    try:
        message = parse_message(data)
    except StunParseError:
        return None
    assert looks_like_stun(data)
    for kind in ATTRIBUTES.values():
        message.get(kind)
    for algorithm in Integrity:
        assert message.verify(KEY, algorithm) <= (algorithm in message.integrity)
    assert len(message.transaction_id) == 12
    assert all(type_ < 0x8000 and type_ not in ATTRIBUTES for type_ in message.unknown_required)
    repr(message)
    return message


@quick
@given(st.binary(max_size=200))
def test_any_bytes_parse_or_raise_the_one_error(data: bytes) -> None:
    survives(data)
    looks_like_stun(data)


@quick
@given(st.integers(0, 0xFFFF), bodies, ids, st.booleans(), st.booleans())
@example(0x0001, [attribute(0x0009, b"\0\0\4")], bytes(12), False, False)
def test_any_attributes_parse_or_raise_the_one_error(
    message_type: int, body: list[bytes], id_: bytes, sign: bool, fingerprint: bool
) -> None:
    data = raw(message_type, *body, id_=id_)
    if sign:
        data = with_integrity(data, KEY)
    if fingerprint:
        data = with_fingerprint(data)
    message = survives(data)
    if message is not None and fingerprint:
        assert message.has_fingerprint
    if message is not None and sign and Integrity.SHA1 in message.integrity:
        early = any(part[:2] in (b"\0\x08", b"\0\x1c") for part in body)
        assert early or message.verify(KEY)


@quick
@given(types, st.binary(max_size=800))
def test_any_value_of_any_attribute_parses_or_raises_the_one_error(
    type_: int, value: bytes
) -> None:
    survives(raw(0x0001, attribute(type_, value)))


@quick
@given(st.integers(0, 0x3FFF), st.binary(max_size=100))
def test_any_body_below_a_right_header_parses_or_raises_the_one_error(
    message_type: int, body: bytes
) -> None:
    body = body[: len(body) & ~3]
    head = message_type.to_bytes(2, "big") + len(body).to_bytes(2, "big")
    assert looks_like_stun(head + COOKIE + bytes(12) + body)
    survives(head + COOKIE + bytes(12) + body)


@st.composite
def valid_messages(draw: st.DrawFn) -> bytes:
    message = Message(draw(st.integers(0, 0xFFF)), draw(st.sampled_from(MessageClass)), draw(ids))
    for kind, value in draw(st.lists(known_values, max_size=6)):
        message.add(kind, value)
    algorithms = draw(st.sets(st.sampled_from(Integrity)))
    return message.to_bytes(key=KEY, algorithms=algorithms, fingerprint=draw(st.booleans()))


def is_plain_ipv6(ip: str) -> bool:
    """The text of an IPv4-mapped address depends on the Python version."""
    return ipaddress.IPv6Address(ip).ipv4_mapped is None


ports = st.integers(0, 65535)
addresses = st.one_of(
    st.tuples(st.ip_addresses(v=4).map(str), ports),
    st.tuples(st.ip_addresses(v=6).map(str).filter(is_plain_ipv6), ports),
)
texts = st.text(alphabet=string.ascii_letters + string.punctuation + " \u00e9\u20ac", max_size=100)
known_values: st.SearchStrategy[tuple[AttributeType[Any], Any]] = st.one_of(
    st.tuples(st.sampled_from([XOR_MAPPED_ADDRESS, XOR_PEER_ADDRESS]), addresses),
    st.tuples(st.just(USERNAME), texts.filter(bool)),
    st.tuples(st.sampled_from([SOFTWARE, NONCE]), texts),
    st.tuples(st.just(PRIORITY), st.integers(0, 2**32 - 1)),
    st.tuples(st.sampled_from([ICE_CONTROLLED, ICE_CONTROLLING]), st.integers(0, 2**64 - 1)),
    st.tuples(st.just(USE_CANDIDATE), st.just(True)),
    st.tuples(st.just(ERROR_CODE), st.builds(ErrorCode, st.integers(300, 699), texts)),
    st.tuples(st.just(UNKNOWN_ATTRIBUTES), st.lists(st.integers(0, 65535), max_size=9).map(tuple)),
    st.tuples(st.just(USERHASH), st.binary(min_size=32, max_size=32)),
    st.tuples(st.sampled_from([DATA, PADDING]), st.binary(max_size=50)),
    st.tuples(st.just(CHANGE_REQUEST), st.builds(ChangeRequest, st.booleans(), st.booleans())),
    st.tuples(
        st.just(PASSWORD_ALGORITHMS),
        st.lists(
            st.builds(AlgorithmParameters, st.integers(0, 65535), st.binary(max_size=9)),
            max_size=4,
        ).map(tuple),
    ),
    st.tuples(
        st.just(ATTRIBUTES[0x8001]),
        st.builds(AddressErrorCode, st.integers(0, 255), st.integers(300, 699), texts),
    ),
)


@quick
@given(
    st.integers(0, 0xFFF),
    st.sampled_from(MessageClass),
    ids,
    st.lists(known_values, max_size=8),
    st.sets(st.sampled_from(Integrity)),
    st.booleans(),
)
def test_what_is_written_is_what_is_read(
    method: int,
    message_class: MessageClass,
    id_: bytes,
    values: list[tuple[AttributeType[Any], Any]],
    algorithms: set[Integrity],
    fingerprint: bool,
) -> None:
    message = Message(method, message_class, id_)
    for kind, value in values:
        message.add(kind, value)
    data = message.to_bytes(key=KEY, algorithms=algorithms, fingerprint=fingerprint)
    read = parse_message(data)
    assert (read.method, read.message_class, read.transaction_id) == (method, message_class, id_)
    for kind, _ in values:
        assert read.get(kind) == next(value for other, value in values if other is kind)
    assert read.integrity == algorithms
    assert all(read.verify(KEY, algorithm) for algorithm in algorithms)
    assert not any(read.verify(KEY + b"x", algorithm) for algorithm in algorithms)
    assert read.has_fingerprint == fingerprint
    again = read.to_bytes(key=KEY, algorithms=algorithms, fingerprint=fingerprint)
    assert again == data


@quick
@given(valid_messages(), st.data())
def test_a_mutated_message_parses_or_raises_the_one_error(
    data: bytes, choose: st.DataObject
) -> None:
    changed = bytearray(data)
    for _ in range(choose.draw(st.integers(1, 4))):
        changed[choose.draw(st.integers(0, len(changed) - 1))] = choose.draw(st.integers(0, 255))
    survives(bytes(changed))


@quick
@given(valid_messages(), st.data())
def test_a_cut_or_lengthened_message_is_refused(data: bytes, choose: st.DataObject) -> None:
    assert survives(data[: choose.draw(st.integers(0, len(data) - 1))]) is None
    assert survives(data + choose.draw(st.binary(min_size=1, max_size=9))) is None


@quick
@given(valid_messages(), st.data())
def test_a_cut_message_with_its_length_made_right_parses_or_raises_the_one_error(
    data: bytes, choose: st.DataObject
) -> None:
    cut = data[20 : 20 + 4 * choose.draw(st.integers(0, (len(data) - 20) // 4))]
    survives(data[:2] + len(cut).to_bytes(2, "big") + data[4:20] + cut)


@quick
@given(valid_messages().filter(lambda data: len(data) > 28), st.data())
def test_a_changed_protected_message_never_verifies_unnoticed(
    data: bytes, choose: st.DataObject
) -> None:
    """Any change up to the last integrity attribute is seen by HMAC or CRC."""
    message = parse_message(data)
    if not message.integrity:
        return
    end = len(data) - (8 if message.has_fingerprint else 0)
    index = choose.draw(st.integers(0, end - 1))
    changed = bytearray(data)
    changed[index] ^= choose.draw(st.integers(1, 255))
    try:
        read = parse_message(bytes(changed))
    except StunParseError:
        return
    if read.integrity == message.integrity:
        assert not all(read.verify(KEY, algorithm) for algorithm in read.integrity)


@quick
@given(st.binary(max_size=120), valid_messages(), bodies)
def test_the_server_answers_requests_and_survives_the_rest(
    junk: bytes, message: bytes, body: list[bytes]
) -> None:
    server = BindingServer(("192.0.2.1", 3478), ("192.0.2.2", 3479))
    for data in (junk, message, raw(0x0001, *body)):
        server.receive_datagram(data, ("203.0.113.9", 50000), ("192.0.2.1", 3478), 0.0)
    for transmit in server.datagrams_to_send(0.0):
        assert parse_message(transmit.data).message_class in (
            MessageClass.SUCCESS,
            MessageClass.ERROR,
        )
    counters = server.counters
    assert counters.received == 3 == counters.answered + sum(counters.dropped.values())


@quick
@given(st.one_of(st.binary(max_size=120), valid_messages()), bodies, st.integers(0, 0x3FFF))
def test_a_protected_transaction_is_ended_by_nobody_else(
    junk: bytes, body: list[bytes], message_type: int
) -> None:
    id_ = b"transaction."
    local, server = ("10.0.0.2", 40000), ("192.0.2.1", 3478)
    client = ClientTransaction(
        Message(Method.BINDING, MessageClass.REQUEST, id_), local, server, 0.0, key=KEY
    )
    for data in (junk, raw(message_type, *body, id_=id_), raw(0x0101, *body, id_=id_)):
        assert not client.receive_datagram(data, server, local, 0.1)
    assert client.next_event() is None
    assert client.get_timer() == 0.5


@quick
@given(st.text(max_size=30))
def test_any_nonce_has_features_or_none(rest: str) -> None:
    security_features(rest)
    security_features("obMatJos2" + rest)


def test_a_message_of_thousands_of_unknown_attributes_costs_linear_time() -> None:
    many = raw(0x0001, *(attribute(n, b"") for n in range(0x4000, 0x7FF8)))
    message = parse_message(many)
    assert len(message.unknown_required) == 0x7FF8 - 0x4000


@pytest.mark.parametrize("count", [0, 1, 100])
def test_every_byte_pair_as_type_and_class_is_survived(count: int) -> None:
    for message_type in range(0, 0x10000, 7):
        survives(raw(message_type, bytes(4 * count)))
