"""Every attribute of RFC 8489, 8445, 8656 and 5780: its number, its bytes, its sizes."""

from __future__ import annotations

from typing import Any

import pytest
from stun_wire import ERROR, ID, REQUEST, attribute, raw

from ice_punch.stun import (
    ADDITIONAL_ADDRESS_FAMILY,
    ADDRESS_ERROR_CODE,
    ALTERNATE_DOMAIN,
    ALTERNATE_SERVER,
    ATTRIBUTES,
    CACHE_TIMEOUT,
    CHANGE_REQUEST,
    CHANGED_ADDRESS,
    CHANNEL_NUMBER,
    DATA,
    DONT_FRAGMENT,
    ERROR_CODE,
    EVEN_PORT,
    ICE_CONTROLLED,
    ICE_CONTROLLING,
    ICMP,
    LIFETIME,
    MAPPED_ADDRESS,
    NOMINATION,
    NONCE,
    OTHER_ADDRESS,
    PADDING,
    PASSWORD_ALGORITHM,
    PASSWORD_ALGORITHMS,
    PRIORITY,
    REALM,
    REFLECTED_FROM,
    REQUESTED_ADDRESS_FAMILY,
    REQUESTED_TRANSPORT,
    RESERVATION_TOKEN,
    RESPONSE_ORIGIN,
    RESPONSE_PORT,
    SOFTWARE,
    SOURCE_ADDRESS,
    UNKNOWN_ATTRIBUTES,
    USE_CANDIDATE,
    USERHASH,
    USERNAME,
    XOR_MAPPED_ADDRESS,
    XOR_PEER_ADDRESS,
    XOR_RELAYED_ADDRESS,
    AddressErrorCode,
    AlgorithmParameters,
    AttributeType,
    ChangeRequest,
    ErrorCode,
    IcmpError,
    Message,
    MessageClass,
    Method,
    StunParseError,
    parse_message,
)

V4 = ("192.0.2.1", 3478)
V6 = ("2001:db8::1", 3478)
V4_BYTES = "00010d96c0000201"
V4_XORED = "00012c84e112a643"
V6_BYTES = "00020d9620010db8000000000000000000000001"
# 2001:db8::1 XOR (cookie, 01..0c)
V6_XORED = "00022c840113a9fa0102030405060708090a0b0d"

# attribute, its type, a value, the value's bytes, sizes that are wrong
CASES: list[tuple[AttributeType[Any], int, Any, str, list[int]]] = [
    (MAPPED_ADDRESS, 0x0001, V4, V4_BYTES, []),
    (MAPPED_ADDRESS, 0x0001, V6, V6_BYTES, []),
    (CHANGE_REQUEST, 0x0003, ChangeRequest(True, False), "00000004", [0, 3, 5, 8]),
    (CHANGE_REQUEST, 0x0003, ChangeRequest(False, True), "00000002", []),
    (CHANGE_REQUEST, 0x0003, ChangeRequest(True, True), "00000006", []),
    (USERNAME, 0x0006, "evtj:h6vY", "6576746a3a68367659", [764, 1000]),
    (ERROR_CODE, 0x0009, ErrorCode(420, "no"), "000004146e6f", [0, 1, 3]),
    (UNKNOWN_ATTRIBUTES, 0x000A, (0x7FFF, 0), "7fff0000", [1, 3, 5]),
    (UNKNOWN_ATTRIBUTES, 0x000A, (1,), "0001", []),
    (CHANNEL_NUMBER, 0x000C, 0x4001, "40010000", [0, 2, 3, 5]),
    (LIFETIME, 0x000D, 600, "00000258", [0, 3, 5, 8]),
    (XOR_PEER_ADDRESS, 0x0012, V4, V4_XORED, []),
    (DATA, 0x0013, b"\0\1\2\3\4", "0001020304", []),
    (DATA, 0x0013, b"", "", []),
    (REALM, 0x0014, "example.org", b"example.org".hex(), [764]),
    (NONCE, 0x0015, "f//499k", b"f//499k".hex(), [764]),
    (XOR_RELAYED_ADDRESS, 0x0016, V6, V6_XORED, []),
    (REQUESTED_ADDRESS_FAMILY, 0x0017, 2, "02000000", [0, 1, 3, 5]),
    (EVEN_PORT, 0x0018, True, "80", [0, 2, 4]),
    (EVEN_PORT, 0x0018, False, "00", []),
    (REQUESTED_TRANSPORT, 0x0019, 17, "11000000", [0, 1, 3, 5]),
    (DONT_FRAGMENT, 0x001A, True, "", [1, 4]),
    (PASSWORD_ALGORITHM, 0x001D, AlgorithmParameters(2), "00020000", [0, 1, 2, 3, 5, 8]),
    (USERHASH, 0x001E, bytes(range(32)), bytes(range(32)).hex(), [0, 16, 31, 33]),
    (XOR_MAPPED_ADDRESS, 0x0020, V4, V4_XORED, []),
    (XOR_MAPPED_ADDRESS, 0x0020, V6, V6_XORED, []),
    (RESERVATION_TOKEN, 0x0022, b"12345678", b"12345678".hex(), [0, 7, 9]),
    (PRIORITY, 0x0024, 0x6E0001FF, "6e0001ff", [0, 2, 3, 5, 8]),
    (USE_CANDIDATE, 0x0025, True, "", [1, 2, 4]),
    (PADDING, 0x0026, bytes(6), "000000000000", []),
    (RESPONSE_PORT, 0x0027, 3479, "0d970000", [0, 1, 3, 5, 8]),
    (ADDITIONAL_ADDRESS_FAMILY, 0x8000, 2, "02000000", [0, 1, 5]),
    (ADDRESS_ERROR_CODE, 0x8001, AddressErrorCode(2, 440, "no v6"), "020004286e6f207636", [0, 3]),
    (
        PASSWORD_ALGORITHMS,
        0x8002,
        (AlgorithmParameters(2), AlgorithmParameters(1)),
        "0002000000010000",
        [1, 2, 3, 5, 6, 7],
    ),
    (PASSWORD_ALGORITHMS, 0x8002, (AlgorithmParameters(9, b"abc"),), "0009000361626300", []),
    (ALTERNATE_DOMAIN, 0x8003, "stun.example.org", b"stun.example.org".hex(), [256]),
    (ICMP, 0x8004, IcmpError(3, 4, 1400), "0000060400000578", [0, 4, 7, 9]),
    (SOFTWARE, 0x8022, "ice-punch \u2713", "6963652d70756e636820e29c93", [764]),
    (ALTERNATE_SERVER, 0x8023, V4, V4_BYTES, []),
    (CACHE_TIMEOUT, 0x8027, 60, "0000003c", [0, 3, 5]),
    (ICE_CONTROLLED, 0x8029, 2**64 - 1, "ff" * 8, [0, 4, 7, 9]),
    (ICE_CONTROLLING, 0x802A, 1, "0000000000000001", [0, 4, 7, 9]),
    (NOMINATION, 0xC001, 7, "00000007", [0, 2, 3, 5, 8]),
    (RESPONSE_ORIGIN, 0x802B, V6, V6_BYTES, []),
    (OTHER_ADDRESS, 0x802C, V4, V4_BYTES, []),
    (SOURCE_ADDRESS, 0x0004, V4, V4_BYTES, []),
    (CHANGED_ADDRESS, 0x0005, V4, V4_BYTES, []),
    (REFLECTED_FROM, 0x000B, V4, V4_BYTES, []),
]
ADDRESSES = [case[0] for case in CASES if case[2] == V4 or case[2] == V6]

names = [f"{case[0].name}-{index}" for index, case in enumerate(CASES)]


def parsed(type_: int, value: bytes, message_type: int = REQUEST) -> Message:
    return parse_message(raw(message_type, attribute(type_, value)))


@pytest.mark.parametrize("case", CASES, ids=names)
def test_each_attribute_is_written_and_read_as_its_rfc_draws_it(
    case: tuple[AttributeType[Any], int, Any, str, list[int]],
) -> None:
    kind, type_, value, value_hex, _ = case
    message = Message(Method.BINDING, MessageClass.REQUEST, ID)
    message.add(kind, value)
    expected = raw(REQUEST, attribute(type_, bytes.fromhex(value_hex)))
    assert message.to_bytes(fingerprint=False) == expected
    assert message.get(kind) == value
    received = parse_message(expected)
    assert received.get(kind) == value
    assert received.unknown_required == ()


@pytest.mark.parametrize("case", CASES, ids=names)
def test_an_attribute_of_the_wrong_size_is_a_parse_error(
    case: tuple[AttributeType[Any], int, Any, str, list[int]],
) -> None:
    _, type_, _, _, wrong_sizes = case
    for size in wrong_sizes:
        with pytest.raises(StunParseError):
            parsed(type_, bytes(size))


def test_the_cases_above_are_all_there_is() -> None:
    assert {case[0].type for case in CASES} == set(ATTRIBUTES)
    assert all(case[0].type == case[1] for case in CASES)


def test_rfc8489_14_types_below_0x8000_are_comprehension_required() -> None:
    assert PRIORITY.comprehension_required
    assert not SOFTWARE.comprehension_required
    assert {kind.comprehension_required for kind in ATTRIBUTES.values()} == {True, False}
    assert repr(PRIORITY) == "<PRIORITY 0x0024>"


# Addresses


@pytest.mark.parametrize("kind", ADDRESSES)
@pytest.mark.parametrize(
    "value",
    [
        "",
        "00",
        "000102",
        "0001",
        "00010d96",
        "00010d96c00002",
        "00010d96c000020100",
        "00020d96",
        V6_BYTES[:-2],
        V6_BYTES + "00",
        "00020d96c0000201",
        "0001" + V6_BYTES[4:],
    ],
)
def test_rfc8489_14_1_1_an_address_has_the_size_of_its_family(
    kind: AttributeType[Any], value: str
) -> None:
    with pytest.raises(StunParseError):
        parsed(kind.type, bytes.fromhex(value))


@pytest.mark.parametrize("kind", ADDRESSES)
@pytest.mark.parametrize("first", ["01", "80", "ff"])
def test_rfc8489_14_1_3_the_first_byte_of_an_address_is_ignored(
    kind: AttributeType[Any], first: str
) -> None:
    clean = parsed(kind.type, bytes.fromhex(V4_BYTES)).get(kind)
    assert parsed(kind.type, bytes.fromhex(first + V4_BYTES[2:])).get(kind) == clean is not None


@pytest.mark.parametrize("kind", ADDRESSES)
@pytest.mark.parametrize("family", ["00", "03", "04", "ff"])
def test_rfc8489_6_3_3_1_an_address_of_an_unknown_family_is_ignored(
    kind: AttributeType[Any], family: str
) -> None:
    strange = attribute(kind.type, bytes.fromhex(f"00{family}0d96c0000201aabbccdd"))
    message = parse_message(raw(REQUEST, strange, attribute(0x0024, bytes(4))))
    assert message.get(kind) is None
    assert message.get(PRIORITY) == 0
    assert message.unknown_required == ()
    plain = attribute(kind.type, bytes.fromhex(V4_BYTES))
    assert parse_message(raw(REQUEST, strange, plain)).get(kind) is not None


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0",
        "255.255.255.255",
        "10.0.0.1",
        "::",
        "::1",
        "2001:db8::8:800:200c:417a",
        "fe80::1",
        "::ffff:192.0.2.1",
        "64:ff9b::c000:201",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:1",
    ],
)
@pytest.mark.parametrize("kind", [MAPPED_ADDRESS, XOR_MAPPED_ADDRESS])
def test_addresses_come_back_in_canonical_text(kind: AttributeType[Any], text: str) -> None:
    for port in (0, 1, 0x2112, 65535):
        message = Message(Method.BINDING, MessageClass.SUCCESS, ID)
        message.add(kind, (text, port))
        assert parse_message(message.to_bytes()).get(kind) == (text, port)


def test_the_zone_of_a_link_local_address_stays_here() -> None:
    message = Message(Method.BINDING, MessageClass.SUCCESS, ID)
    message.add(XOR_MAPPED_ADDRESS, ("fe80::1%eth0", 1))
    assert parse_message(message.to_bytes()).get(XOR_MAPPED_ADDRESS) == ("fe80::1", 1)


@pytest.mark.parametrize("address", [("example.org", 1), ("1.2.3", 1), ("", 1), ("1.2.3.4", 65536)])
def test_what_is_no_address_can_not_be_sent(address: tuple[str, int]) -> None:
    message = Message(Method.BINDING, MessageClass.SUCCESS, ID)
    for kind in (MAPPED_ADDRESS, XOR_MAPPED_ADDRESS):
        with pytest.raises(ValueError, match=r"."):
            message.add(kind, address)
    with pytest.raises(ValueError, match="port"):
        message.add(MAPPED_ADDRESS, ("192.0.2.1", -1))


# Text


@pytest.mark.parametrize("kind", [USERNAME, REALM, NONCE, SOFTWARE])
def test_rfc8489_14_3_2_texts_of_up_to_763_bytes_are_read(kind: AttributeType[str]) -> None:
    text = "\u20ac" * 254 + "x"
    assert len(text.encode()) == 763
    assert parsed(kind.type, text.encode()).get(kind) == text
    with pytest.raises(StunParseError):
        parsed(kind.type, text.encode() + b"x")


def test_rfc8489_14_8_1_a_reason_of_up_to_763_bytes_is_read() -> None:
    text = "\u20ac" * 254 + "x"
    assert parsed(0x0009, b"\0\0\4\x14" + text.encode()).get(ERROR_CODE) == (420, text)
    with pytest.raises(StunParseError):
        parsed(0x0009, b"\0\0\4\x14" + text.encode() + b"x")


def test_rfc8489_14_3_1_a_username_of_fewer_than_509_bytes_is_sent() -> None:
    message = Message(Method.BINDING, MessageClass.REQUEST, ID)
    message.add(USERNAME, "x" * 508)
    message.add(USERNAME, "\u00e9" * 254)
    for text in ("x" * 509, "\u00e9" * 255):
        with pytest.raises(ValueError, match="508 fit"):
            message.add(USERNAME, text)


@pytest.mark.parametrize("kind", [REALM, NONCE, SOFTWARE])
def test_rfc8489_14_9_14_10_14_14_texts_of_fewer_than_128_characters_are_sent(
    kind: AttributeType[str],
) -> None:
    message = Message(Method.BINDING, MessageClass.REQUEST, ID)
    message.add(kind, "\U0001d11e" * 127)
    with pytest.raises(ValueError, match="127 fit"):
        message.add(kind, "x" * 128)


def test_rfc8489_14_8_1_a_reason_of_fewer_than_128_characters_is_sent() -> None:
    message = Message(Method.BINDING, MessageClass.ERROR, ID)
    message.add(ERROR_CODE, ErrorCode(400, "\U0001d11e" * 127))
    with pytest.raises(ValueError, match="reason phrase"):
        message.add(ERROR_CODE, ErrorCode(400, "x" * 128))


@pytest.mark.parametrize("junk", [b"\xff", b"ok\xc3", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80"])
def test_rfc8489_14_14_2_software_that_is_not_utf_8_kills_no_message(junk: bytes) -> None:
    message = parse_message(raw(REQUEST, attribute(0x8022, junk), attribute(0x0024, bytes(4))))
    software = message.get(SOFTWARE)
    assert software is not None
    assert "\ufffd" in software
    assert message.get(PRIORITY) == 0
    assert "\ufffd" in str(parsed(0x0009, b"\0\0\4\0" + junk).get(ERROR_CODE))
    assert "\ufffd" in str(parsed(0x8003, junk).get(ALTERNATE_DOMAIN))


@pytest.mark.parametrize("kind", [USERNAME, REALM, NONCE])
def test_rfc8489_14_3_text_that_authenticates_and_is_not_utf_8_is_a_parse_error(
    kind: AttributeType[str],
) -> None:
    with pytest.raises(StunParseError):
        parsed(kind.type, b"a\xff")


@pytest.mark.parametrize("kind", [USERNAME, REALM])
def test_rfc8489_14_3_1_and_14_9_1_names_are_sent_as_opaque_strings(
    kind: AttributeType[str],
) -> None:
    message = Message(Method.BINDING, MessageClass.REQUEST, ID)
    message.add(kind, "cafe\u0301\u00a0bar")
    assert parse_message(message.to_bytes()).get(kind) == "caf\u00e9 bar"
    with pytest.raises(ValueError, match=r"U\+0007"):
        message.add(kind, "bell\7")


def test_rfc8489_14_16_a_domain_is_ascii() -> None:
    message = Message(Method.BINDING, MessageClass.ERROR, ID)
    message.add(ALTERNATE_DOMAIN, "x" * 255)
    with pytest.raises(ValueError, match="255"):
        message.add(ALTERNATE_DOMAIN, "x" * 256)
    with pytest.raises(ValueError, match="ascii"):
        message.add(ALTERNATE_DOMAIN, "\u00fc.example")


# ERROR-CODE


@pytest.mark.parametrize(
    "head", ["00000400", "ffff0400", "0000fc00", "fffffc00", "0000f400", "00008c00"]
)
def test_rfc8489_14_8_3_the_reserved_bits_of_an_error_code_are_ignored(head: str) -> None:
    assert parsed(0x0009, bytes.fromhex(head), ERROR).get(ERROR_CODE) == (400, "")


@pytest.mark.parametrize("hundreds", [0, 1, 2, 7])
def test_rfc8489_14_8_4_the_class_of_an_error_code_is_3_to_6(hundreds: int) -> None:
    with pytest.raises(StunParseError):
        parsed(0x0009, bytes((0, 0, hundreds, 0)), ERROR)
    message = Message(Method.BINDING, MessageClass.ERROR, ID)
    with pytest.raises(ValueError, match="not an error code"):
        message.add(ERROR_CODE, ErrorCode(hundreds * 100))


@pytest.mark.parametrize("hundreds", [3, 4, 5, 6])
def test_rfc8489_14_8_5_the_number_of_an_error_code_is_0_to_99(hundreds: int) -> None:
    for number in (0, 1, 99):
        code = parsed(0x0009, bytes((0, 0, hundreds, number)), ERROR).get(ERROR_CODE)
        assert code == (hundreds * 100 + number, "")
    for number in (100, 255):
        with pytest.raises(StunParseError):
            parsed(0x0009, bytes((0, 0, hundreds, number)), ERROR)
    with pytest.raises(StunParseError):
        parsed(0x8001, bytes((1, 0, hundreds, 100)), ERROR)


def test_rfc8656_18_12_the_reserved_bits_of_an_address_error_code_are_ignored() -> None:
    value = bytes.fromhex("02fffc28")
    assert parsed(0x8001, value).get(ADDRESS_ERROR_CODE) == (2, 440, "")


# Reserved bits and paddings within values


@pytest.mark.parametrize(
    ("type_", "value", "kind", "expected"),
    [
        (0x0017, "02ffffff", REQUESTED_ADDRESS_FAMILY, 2),
        (0x0018, "ff", EVEN_PORT, True),
        (0x0018, "7f", EVEN_PORT, False),
        (0x0019, "11ffffff", REQUESTED_TRANSPORT, 17),
        (0x000C, "4001ffff", CHANNEL_NUMBER, 0x4001),
        (0x8000, "02ffffff", ADDITIONAL_ADDRESS_FAMILY, 2),
        (0x8004, "ffff060400000578", ICMP, IcmpError(3, 4, 1400)),
        (0x0003, "fffffffb", CHANGE_REQUEST, ChangeRequest(False, True)),
        (0x0027, "0d97ffff", RESPONSE_PORT, 3479),
    ],
)
def test_rfc8656_18_6_reserved_bits_are_zero_when_sent_and_ignored_when_received(
    type_: int, value: str, kind: AttributeType[Any], expected: object
) -> None:
    """RFC 8656 sections 18.1, 18.6, 18.7, 18.8, 18.11 and 18.13; RFC 5780 sections 7.2 and 7.5."""
    assert parsed(type_, bytes.fromhex(value)).get(kind) == expected


def test_rfc5780_7_5_response_port_is_read_with_its_padding_counted_or_not() -> None:
    assert parsed(0x0027, bytes.fromhex("0d970000")).get(RESPONSE_PORT) == 3479
    assert parsed(0x0027, bytes.fromhex("0d97")).get(RESPONSE_PORT) == 3479


def test_rfc8656_18_13_icmp_type_has_7_bits_and_code_9() -> None:
    message = Message(Method.DATA, MessageClass.INDICATION, ID)
    message.add(ICMP, IcmpError(127, 511, 2**32 - 1))
    assert parse_message(message.to_bytes()).get(ICMP) == (127, 511, 2**32 - 1)
    for wrong in (IcmpError(128, 0), IcmpError(0, 512), IcmpError(0, 0, 2**32), IcmpError(-1, 0)):
        with pytest.raises(ValueError, match="fit"):
            message.add(ICMP, wrong)


# PASSWORD-ALGORITHM(S)


@pytest.mark.parametrize("padding", ["00", "ff", ""])
def test_rfc8489_14_12_1_the_padding_of_parameters_is_zero_when_sent_and_ignored(
    padding: str,
) -> None:
    value = bytes.fromhex("00090003616263" + padding)
    assert parsed(0x001D, value).get(PASSWORD_ALGORITHM) == (9, b"abc")
    assert parsed(0x8002, value).get(PASSWORD_ALGORITHMS) == ((9, b"abc"),)
    message = Message(Method.BINDING, MessageClass.REQUEST, ID)
    message.add(PASSWORD_ALGORITHM, AlgorithmParameters(9, b"abc"))
    assert message.to_bytes(fingerprint=False).endswith(bytes.fromhex("0009000361626300"))


@pytest.mark.parametrize("value", ["0009", "00090001", "0009000561626364", "00090003616263000001"])
def test_rfc8489_14_11_algorithms_that_overrun_the_attribute_are_a_parse_error(value: str) -> None:
    for type_ in (0x001D, 0x8002):
        with pytest.raises(StunParseError):
            parsed(type_, bytes.fromhex(value))


def test_rfc8489_14_12_password_algorithm_is_exactly_one() -> None:
    for value in ("", "0001000000020000"):
        with pytest.raises(StunParseError):
            parsed(0x001D, bytes.fromhex(value))
    assert parsed(0x8002, b"").get(PASSWORD_ALGORITHMS) == ()


# Values that do not fit


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (PRIORITY, 2**32),
        (PRIORITY, -1),
        (PRIORITY, 1.5),
        (ICE_CONTROLLED, 2**64),
        (RESPONSE_PORT, 65536),
        (CHANNEL_NUMBER, 65536),
        (REQUESTED_TRANSPORT, 256),
        (LIFETIME, 2**32),
        (USERHASH, bytes(31)),
        (RESERVATION_TOKEN, bytes(9)),
        (USE_CANDIDATE, False),
        (DONT_FRAGMENT, False),
        (UNKNOWN_ATTRIBUTES, (65536,)),
        (PASSWORD_ALGORITHM, AlgorithmParameters(65536)),
        (DATA, bytes(65533)),
        (SOFTWARE, "\ud800"),
        (USERNAME, ""),
        (ADDRESS_ERROR_CODE, AddressErrorCode(256, 440)),
    ],
)
def test_a_value_that_does_not_fit_is_a_value_error(kind: AttributeType[Any], value: Any) -> None:
    message = Message(Method.BINDING, MessageClass.REQUEST, ID)
    with pytest.raises(ValueError, match=r"."):
        message.add(kind, value)
    assert message.to_bytes(fingerprint=False) == raw(REQUEST)
