"""STUN messages: the header (RFC 8489 section 5), attribute order (9, 14), integrity (14.5, 14.6)
and FINGERPRINT (7, 14.7)."""

from __future__ import annotations

import pytest
from aioice import stun as aioice_stun
from stun_wire import (
    COOKIE,
    ERROR,
    ID,
    INDICATION,
    REQUEST,
    SUCCESS,
    attribute,
    raw,
    with_fingerprint,
    with_integrity,
    with_integrity_sha256,
    with_more,
)

from ice_punch.stun import (
    DATA,
    FINGERPRINT,
    ICE_CONTROLLING,
    MAPPED_ADDRESS,
    MESSAGE_INTEGRITY,
    MESSAGE_INTEGRITY_SHA256,
    PRIORITY,
    SOFTWARE,
    USE_CANDIDATE,
    USERNAME,
    XOR_MAPPED_ADDRESS,
    XOR_PEER_ADDRESS,
    Integrity,
    Message,
    MessageClass,
    Method,
    StunParseError,
    looks_like_stun,
    mapped_address,
    parse_message,
    response_to,
)
from ice_punch.stun.message import decode_message_type, encode_message_type

KEY = b"VOkJxbRl1RmTxUk/WvJxBt"
PRIORITY_1 = attribute(0x0024, bytes(3) + b"\1")
PRIORITY_2 = attribute(0x0024, bytes(3) + b"\2")
USERNAME_A = attribute(0x0006, b"a:b")


def refused(data: bytes) -> bool:
    try:
        parse_message(data)
    except StunParseError:
        return True
    return False


# The header


@pytest.mark.parametrize("top", [0x40, 0x80, 0xC0])
def test_rfc8489_5_1_top_bits_other_than_zero_are_not_stun(top: int) -> None:
    data = bytearray(raw(REQUEST))
    data[0] |= top
    assert refused(bytes(data))
    assert not looks_like_stun(bytes(data))


@pytest.mark.parametrize("index", range(4, 8))
@pytest.mark.parametrize("bit", range(8))
def test_rfc8489_5_3_a_wrong_cookie_is_not_stun(index: int, bit: int) -> None:
    data = bytearray(raw(REQUEST))
    data[index] ^= 1 << bit
    assert refused(bytes(data))
    assert not looks_like_stun(bytes(data))


def test_rfc8489_5_7_length_is_the_size_without_the_header() -> None:
    message = Message(Method.BINDING, MessageClass.REQUEST, ID)
    message.add(USERNAME, "a:bc")
    for key in (None, KEY):
        for fingerprint in (False, True):
            data = message.to_bytes(key=key, fingerprint=fingerprint)
            assert int.from_bytes(data[2:4], "big") == len(data) - 20
            assert data[4:8] == COOKIE
            assert data[8:20] == ID


@pytest.mark.parametrize("change", [-20, -4, 4, 8, 0xFF00])
def test_rfc8489_5_7_a_length_that_is_not_the_datagrams_is_not_stun(change: int) -> None:
    good = raw(REQUEST, PRIORITY_1, PRIORITY_1, PRIORITY_1)
    length = (int.from_bytes(good[2:4], "big") + change) & 0xFFFF
    data = good[:2] + length.to_bytes(2, "big") + good[4:]
    assert refused(data)
    assert not looks_like_stun(data)


@pytest.mark.parametrize("extra", [1, 2, 3])
def test_rfc8489_5_7b_a_length_that_is_no_multiple_of_4_is_not_stun(extra: int) -> None:
    data = raw(REQUEST, PRIORITY_1, bytes(extra))
    assert int.from_bytes(data[2:4], "big") == len(data) - 20
    assert refused(data)
    assert not looks_like_stun(data)


def test_rfc8489_5_7c_every_method_and_class_is_coded_with_interleaved_bits() -> None:
    seen = set()
    for method in range(0x1000):
        for message_class in MessageClass:
            bits = f"{method:012b}"
            class_bits = f"{message_class:02b}"
            expected = int(f"00{bits[:5]}{class_bits[0]}{bits[5:8]}{class_bits[1]}{bits[8:]}", 2)
            assert encode_message_type(method, message_class) == expected
            assert decode_message_type(expected) == (method, message_class)
            seen.add(expected)
    assert seen == set(range(0x4000))


@pytest.mark.parametrize("message_class", MessageClass)
@pytest.mark.parametrize("method", [0x000, 0x001, 0x00A, 0x080, 0x0FF, 0x7A5, 0xFFF])
def test_rfc8489_5_7c_unknown_methods_survive_a_round_trip(
    method: int, message_class: MessageClass
) -> None:
    data = Message(method, message_class, ID).to_bytes()
    parsed = parse_message(data)
    assert (parsed.method, parsed.message_class) == (method, message_class)
    assert parsed.transaction_id == ID


@pytest.mark.parametrize("size", range(20))
def test_rfc8489_5_shorter_than_a_header_is_not_stun(size: int) -> None:
    assert refused(raw(REQUEST)[:size])
    assert not looks_like_stun(raw(REQUEST)[:size])


def test_rfc8489_5_a_bare_header_is_a_message() -> None:
    assert looks_like_stun(raw(REQUEST))
    message = parse_message(raw(REQUEST))
    assert not message.has_fingerprint
    assert message.integrity == frozenset()
    assert not message.verify(KEY)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_can_be_parsed(kind: type) -> None:
    data = kind(with_fingerprint(raw(REQUEST, PRIORITY_1)))
    assert looks_like_stun(data)
    message = parse_message(data)
    assert message.get(PRIORITY) == 1
    assert isinstance(message.transaction_id, bytes)


def test_what_is_no_message_can_not_be_made() -> None:
    for id_ in (b"", bytes(11), bytes(13), bytes(16)):
        with pytest.raises(ValueError, match="12 bytes"):
            Message(Method.BINDING, MessageClass.REQUEST, id_)
    for method in (-1, 0x1000):
        with pytest.raises(ValueError, match="method"):
            Message(method, MessageClass.REQUEST, ID)


def test_a_message_too_long_for_its_length_field_can_not_be_made() -> None:
    message = Message(Method.SEND, MessageClass.INDICATION, ID)
    message.add(DATA, bytes(65516))
    assert len(message.to_bytes(fingerprint=True)) == 20 + 65520 + 8
    message.add(PRIORITY, 1)
    for key, fingerprint in ((None, True), (KEY, False), (KEY, True)):
        with pytest.raises(ValueError, match="bytes of attributes"):
            message.to_bytes(key=key, fingerprint=fingerprint)
    assert not refused(message.to_bytes(fingerprint=False))


def test_rfc8489_6_3_1_1_a_response_has_the_requests_method_and_id() -> None:
    request = Message(Method.ALLOCATE, MessageClass.REQUEST, ID)
    response = response_to(request, MessageClass.ERROR)
    assert (response.method, response.transaction_id) == (Method.ALLOCATE, ID)
    assert response.message_class is MessageClass.ERROR


# Attributes as a sequence


def test_rfc8489_14_5_of_duplicates_the_first_counts() -> None:
    assert parse_message(raw(REQUEST, PRIORITY_1, PRIORITY_2)).get(PRIORITY) == 1
    assert parse_message(raw(REQUEST, PRIORITY_2, PRIORITY_1)).get(PRIORITY) == 2
    message = Message(Method.BINDING, MessageClass.REQUEST, ID)
    message.add(PRIORITY, 1)
    message.add(PRIORITY, 2)
    assert message.get(PRIORITY) == parse_message(message.to_bytes()).get(PRIORITY) == 1


@pytest.mark.parametrize("length", [5, 8, 0x7FFF, 0xFFFF])
def test_rfc8489_14_3_a_value_that_overruns_the_message_is_refused(length: int) -> None:
    cut = b"\x80\x22" + length.to_bytes(2, "big") + b"abcd"
    assert refused(raw(REQUEST, cut))
    # ... wherever the message is already signed, too
    assert refused(with_more(with_integrity(raw(REQUEST), KEY), cut))


def test_rfc8489_14_4_padding_is_zero_when_sent_and_ignored_when_received() -> None:
    for size in range(1, 9):
        name = "x" * size
        message = Message(Method.BINDING, MessageClass.REQUEST, ID)
        message.add(USERNAME, name)
        expected = raw(REQUEST, attribute(0x0006, name.encode()))
        assert message.to_bytes(fingerprint=False) == expected
        dirty = raw(REQUEST, attribute(0x0006, name.encode(), b"\xff\xfe\xfd"), PRIORITY_1)
        assert parse_message(dirty).get(USERNAME) == name
        assert parse_message(dirty).get(PRIORITY) == 1


def test_rfc8489_6_3_1_unknown_required_attributes_are_listed_once_in_order() -> None:
    message = parse_message(
        raw(
            REQUEST,
            attribute(0x7FFF, b"z"),
            attribute(0x8FFF, b"optional"),
            attribute(0x0000, b""),
            PRIORITY_1,
            attribute(0x7FFF, b"again"),
            attribute(0x0010, bytes(4)),
        )
    )
    assert message.unknown_required == (0x7FFF, 0x0000, 0x0010)
    assert message.get(PRIORITY) == 1


def test_rfc8489_6_3_unknown_optional_attributes_are_ignored() -> None:
    message = parse_message(raw(REQUEST, attribute(0xC057, b"\1\2\3"), attribute(0xFFFF, b"")))
    assert message.unknown_required == ()


# Order after integrity


def test_rfc8489_9_1_attributes_after_message_integrity_are_ignored() -> None:
    signed = with_integrity(raw(REQUEST, USERNAME_A), KEY)
    data = with_fingerprint(
        with_more(signed, PRIORITY_1, attribute(0x7FFF, b"?"), attribute(0x0006, b"c:d"))
    )
    message = parse_message(data)
    assert message.get(USERNAME) == "a:b"
    assert message.get(PRIORITY) is None
    assert message.unknown_required == ()
    assert message.has_fingerprint
    assert message.verify(KEY)


def test_rfc8489_9_1_not_even_the_size_of_an_attribute_after_integrity_matters() -> None:
    signed = with_integrity(raw(REQUEST, USERNAME_A), KEY)
    assert parse_message(with_more(signed, attribute(0x0024, b"\1\2"))).verify(KEY)


def test_rfc8489_9_1_message_integrity_sha256_after_message_integrity_counts() -> None:
    both = with_integrity_sha256(with_integrity(raw(REQUEST, USERNAME_A), KEY), KEY)
    message = parse_message(with_fingerprint(both))
    assert message.integrity == {Integrity.SHA1, Integrity.SHA256}
    assert message.verify(KEY, Integrity.SHA1)
    assert message.verify(KEY, Integrity.SHA256)
    # also when ignored attributes stand between the two: the HMAC covers them
    spaced = with_integrity_sha256(with_more(with_integrity(raw(REQUEST), KEY), PRIORITY_1), KEY)
    message = parse_message(spaced)
    assert message.get(PRIORITY) is None
    assert message.verify(KEY, Integrity.SHA1)
    assert message.verify(KEY, Integrity.SHA256)


def test_rfc8489_9_2_after_message_integrity_sha256_only_fingerprint_counts() -> None:
    signed = with_integrity_sha256(raw(REQUEST, USERNAME_A), KEY)
    data = with_fingerprint(with_integrity(with_more(signed, PRIORITY_1), KEY))
    message = parse_message(data)
    assert message.integrity == {Integrity.SHA256}
    assert message.get(PRIORITY) is None
    assert message.has_fingerprint
    assert message.verify(KEY, Integrity.SHA256)
    assert not message.verify(KEY, Integrity.SHA1)


def test_rfc8489_14_5_the_first_message_integrity_counts() -> None:
    twice = with_integrity(with_integrity(raw(REQUEST), b"other"), KEY)
    assert not parse_message(twice).verify(KEY)
    assert parse_message(twice).verify(b"other")
    twice = with_integrity_sha256(with_integrity_sha256(raw(REQUEST), b"other"), KEY)
    assert not parse_message(twice).verify(KEY, Integrity.SHA256)


# Integrity


@pytest.mark.parametrize(
    "algorithms",
    [(Integrity.SHA1,), (Integrity.SHA256,), (Integrity.SHA1, Integrity.SHA256)],
)
@pytest.mark.parametrize("fingerprint", [False, True])
def test_rfc8489_14_5_and_14_6_integrity_covers_the_message_before_it(
    algorithms: tuple[Integrity, ...], fingerprint: bool
) -> None:
    message = Message(Method.BINDING, MessageClass.REQUEST, ID)
    message.add(USERNAME, "a:b")
    expected = raw(REQUEST, USERNAME_A)
    if Integrity.SHA1 in algorithms:
        expected = with_integrity(expected, KEY)
    if Integrity.SHA256 in algorithms:
        expected = with_integrity_sha256(expected, KEY)
    if fingerprint:
        expected = with_fingerprint(expected)
    for given in (algorithms, list(reversed(algorithms)), frozenset(algorithms)):
        assert message.to_bytes(key=KEY, algorithms=given, fingerprint=fingerprint) == expected
    parsed = parse_message(expected)
    assert parsed.integrity == set(algorithms)
    for algorithm in algorithms:
        assert parsed.verify(KEY, algorithm)


def test_rfc8489_14_5_every_changed_bit_breaks_the_integrity() -> None:
    message = Message(Method.BINDING, MessageClass.REQUEST, ID)
    message.add(USERNAME, "a:bc")
    data = message.to_bytes(
        key=KEY, algorithms=(Integrity.SHA1, Integrity.SHA256), fingerprint=False
    )
    for index in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[index] ^= 1 << bit
            try:
                parsed = parse_message(bytes(changed))
            except StunParseError:
                continue
            both = parsed.verify(KEY) and parsed.verify(KEY, Integrity.SHA256)
            assert not both, f"byte {index}, bit {bit}"


@pytest.mark.parametrize("size", [0, 16, 19, 21, 24, 32])
def test_rfc8489_14_5_message_integrity_has_20_bytes(size: int) -> None:
    assert refused(raw(REQUEST, attribute(0x0008, bytes(size))))


@pytest.mark.parametrize("size", [0, 4, 12, 15, 17, 18, 19, 30, 33, 36, 64])
def test_rfc8489_14_6_message_integrity_sha256_has_16_to_32_bytes_in_fours(size: int) -> None:
    assert refused(raw(REQUEST, attribute(0x001C, bytes(size))))


@pytest.mark.parametrize("size", [16, 20, 24, 28, 32])
def test_rfc8489_14_6_truncation_is_accepted_only_where_the_policy_says_so(size: int) -> None:
    message = parse_message(with_integrity_sha256(raw(REQUEST, USERNAME_A), KEY, size))
    assert message.integrity == {Integrity.SHA256}
    assert message.verify(KEY, Integrity.SHA256) == (size == 32)
    for least in (16, 20, 24, 28, 32):
        accepted = message.verify(KEY, Integrity.SHA256, minimum_size=least)
        assert accepted == (size >= least)
    assert not message.verify(b"other", Integrity.SHA256, minimum_size=16)


def test_integrity_and_fingerprint_are_not_added_by_hand() -> None:
    message = Message(Method.BINDING, MessageClass.REQUEST, ID)
    for kind in (MESSAGE_INTEGRITY, MESSAGE_INTEGRITY_SHA256):
        with pytest.raises(ValueError, match="computed"):
            message.add(kind, bytes(20))
    with pytest.raises(ValueError, match="computed"):
        message.add(FINGERPRINT, 1)


def test_a_message_that_is_sent_carries_no_verdict_on_itself() -> None:
    message = Message(Method.BINDING, MessageClass.REQUEST, ID)
    message.to_bytes(key=KEY)
    assert not message.verify(KEY)
    assert not message.has_fingerprint


# FINGERPRINT


def test_rfc8489_7_1_fingerprint_is_the_crc_xor_0x5354554e() -> None:
    message = Message(Method.BINDING, MessageClass.REQUEST, ID)
    message.add(PRIORITY, 1)
    assert message.to_bytes() == with_fingerprint(raw(REQUEST, PRIORITY_1))
    assert parse_message(message.to_bytes()).has_fingerprint


def test_rfc8489_7_1_a_wrong_fingerprint_is_refused() -> None:
    good = with_fingerprint(raw(REQUEST, PRIORITY_1))
    for index in range(len(good)):
        for bit in range(8):
            changed = bytearray(good)
            changed[index] ^= 1 << bit
            try:
                parsed = parse_message(bytes(changed))
            except StunParseError:
                continue
            assert not parsed.has_fingerprint, f"byte {index}, bit {bit}"


@pytest.mark.parametrize("size", [0, 3, 5, 8])
def test_rfc8489_7_1_fingerprint_has_4_bytes(size: int) -> None:
    assert refused(raw(REQUEST, attribute(0x8028, bytes(size))))


@pytest.mark.parametrize("after", [PRIORITY_1, attribute(0x8FFF, b""), attribute(0x7FFF, b"")])
def test_rfc8489_14_7_fingerprint_is_the_last_attribute_or_not_valid(after: bytes) -> None:
    before = raw(REQUEST, USERNAME_A)
    assert refused(with_more(with_fingerprint(before), after))
    # ... even if its CRC is that of the longer message
    fingerprint_then_more = with_fingerprint(with_more(before, after))
    moved = fingerprint_then_more[: len(before)] + fingerprint_then_more[-8:] + after
    assert refused(moved)
    assert refused(with_fingerprint(with_fingerprint(before)))
    assert refused(with_integrity(with_fingerprint(before), KEY))


# A whole message, read by another stack and from it


def test_an_ice_check_is_understood_by_aioice() -> None:
    message = Message(Method.BINDING, MessageClass.REQUEST, ID)
    message.add(USERNAME, "evtj:h6vY")
    message.add(PRIORITY, 0x6E0001FF)
    message.add(ICE_CONTROLLING, 2**64 - 1)
    message.add(USE_CANDIDATE, True)
    read = aioice_stun.parse_message(message.to_bytes(key=KEY))
    assert read.check_message_integrity(KEY)
    assert read.attributes["USERNAME"] == "evtj:h6vY"
    assert read.attributes["PRIORITY"] == 0x6E0001FF
    assert read.attributes["ICE-CONTROLLING"] == 2**64 - 1
    assert "USE-CANDIDATE" in read.attributes


@pytest.mark.parametrize("address", [("192.0.2.1", 3478), ("2001:db8::7", 65535)])
def test_a_response_of_aioice_is_understood(address: tuple[str, int]) -> None:
    written = aioice_stun.Message(
        message_method=aioice_stun.Method.BINDING,
        message_class=aioice_stun.Class.RESPONSE,
        transaction_id=ID,
    )
    written.attributes["XOR-MAPPED-ADDRESS"] = address
    written.add_message_integrity(KEY)
    written.add_fingerprint()
    read = parse_message(bytes(written))
    assert read.message_class is MessageClass.SUCCESS
    assert read.get(XOR_MAPPED_ADDRESS) == address
    assert read.verify(KEY)
    assert read.has_fingerprint


def test_rfc8489_6_3_3_2_xor_mapped_address_is_preferred_and_mapped_address_accepted() -> None:
    plain = attribute(0x0001, bytes.fromhex("00010d96c0000201"))
    xored = attribute(0x0020, bytes.fromhex("00012c84e112a641"))
    assert mapped_address(parse_message(raw(SUCCESS, plain))) == ("192.0.2.1", 3478)
    assert mapped_address(parse_message(raw(SUCCESS, plain, xored))) == ("192.0.2.3", 3478)
    assert mapped_address(parse_message(raw(SUCCESS))) is None


def test_a_parsed_message_can_be_extended_and_signed_anew() -> None:
    received = parse_message(with_fingerprint(with_integrity(raw(REQUEST, USERNAME_A), KEY)))
    received.add(PRIORITY, 7)
    data = received.to_bytes(key=b"new")
    again = parse_message(data)
    assert (again.get(USERNAME), again.get(PRIORITY)) == ("a:b", 7)
    assert again.verify(b"new")
    assert not again.verify(KEY)


def test_classes_are_told_apart() -> None:
    classes = [parse_message(raw(t)).message_class for t in (REQUEST, INDICATION, SUCCESS, ERROR)]
    assert classes == list(MessageClass)


def test_a_message_shows_no_secret_when_printed() -> None:
    message = Message(Method.BINDING, MessageClass.REQUEST, ID)
    message.add(USERNAME, "alice")
    message.add(SOFTWARE, "x")
    message.to_bytes(key=KEY)
    assert "alice" not in repr(message)
    assert ID.hex() in repr(message)


def test_plain_addresses_are_not_xored() -> None:
    message = Message(Method.BINDING, MessageClass.SUCCESS, ID)
    message.add(MAPPED_ADDRESS, ("192.0.2.1", 3478))
    assert message.to_bytes(fingerprint=False).endswith(bytes.fromhex("00010d96c0000201"))


def test_an_attribute_that_may_be_there_several_times_is_read_in_order() -> None:
    """As XOR-PEER-ADDRESS is in a CreatePermission request: RFC 8656 section 10.1."""
    peers = [("192.0.2.1", 1), ("2001:db8::1", 2), ("192.0.2.1", 1)]
    message = Message(Method.CREATE_PERMISSION, MessageClass.REQUEST, ID)
    for peer in peers:
        message.add(XOR_PEER_ADDRESS, peer)
        message.add(SOFTWARE, "abc")
    assert message.get_all(XOR_PEER_ADDRESS) == tuple(peers)
    read = parse_message(message.to_bytes(key=KEY))
    assert read.get_all(XOR_PEER_ADDRESS) == tuple(peers)
    assert read.get(XOR_PEER_ADDRESS) == peers[0]
    assert read.get_all(PRIORITY) == ()


def test_of_several_attributes_one_of_an_unknown_family_is_ignored_and_a_cut_one_refused() -> None:
    good = attribute(0x0012, bytes.fromhex("000121122112a442"))
    strange = attribute(0x0012, bytes.fromhex("000921122112a442"))
    assert parse_message(raw(REQUEST, strange, good)).get_all(XOR_PEER_ADDRESS) == (("0.0.0.0", 0),)
    with pytest.raises(StunParseError):
        parse_message(raw(REQUEST, good, attribute(0x0012, b"\0\1"))).get_all(XOR_PEER_ADDRESS)


def test_what_follows_the_integrity_is_none_of_several_attributes_either() -> None:
    good = attribute(0x0012, bytes.fromhex("000121122112a442"))
    data = with_more(with_integrity(raw(REQUEST, good), KEY), good)
    assert len(parse_message(data).get_all(XOR_PEER_ADDRESS)) == 1
