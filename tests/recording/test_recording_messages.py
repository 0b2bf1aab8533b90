"""STUN messages with other passwords and addresses: the same to whoever has the other password."""

from __future__ import annotations

import hmac
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ice_punch.recording.messages import rewritten
from ice_punch.recording.pseudonyms import Pseudonyms
from ice_punch.stun import (
    ALTERNATE_SERVER,
    DATA,
    ERROR_CODE,
    ICE_CONTROLLING,
    MAPPED_ADDRESS,
    NONCE,
    OTHER_ADDRESS,
    PRIORITY,
    SOFTWARE,
    USE_CANDIDATE,
    USERNAME,
    XOR_MAPPED_ADDRESS,
    ErrorCode,
    Integrity,
    Message,
    MessageClass,
    Method,
    StunParseError,
    parse_message,
)

ID = bytes(range(12))
OURS, PEER, NOBODY = b"our-password", b"peer-password", b"another-password"
KEYS = [(OURS, b"xxx-xxxxxxxx"), (PEER, b"yyyy-yyyyyyyy")]
SOURCE = ("198.51.100.7", 4711)
BOTH = (Integrity.SHA1, Integrity.SHA256)


def check(
    *, key: bytes | None = OURS, algorithms: tuple[Integrity, ...] = BOTH, fingerprint: bool = True
) -> bytes:
    message = Message(Method.BINDING, MessageClass.REQUEST, ID)
    message.add(USERNAME, "ours:theirs")
    message.add(PRIORITY, 1845501695)
    message.add(ICE_CONTROLLING, 7)
    message.add(USE_CANDIDATE, True)
    return message.to_bytes(key=key, algorithms=algorithms, fingerprint=fingerprint)


def answer(*, key: bytes | None = None) -> Message:
    message = Message(Method.BINDING, MessageClass.SUCCESS, ID)
    message.add(XOR_MAPPED_ADDRESS, SOURCE)
    message.add(MAPPED_ADDRESS, ("198.51.100.7", 4712))
    message.add(OTHER_ADDRESS, ("2001:db8::7", 3479))
    message.add(ALTERNATE_SERVER, ("10.0.0.5", 3478))
    message.add(SOFTWARE, "server at 198.51.100.7")
    message.add(NONCE, "no address")
    message.add(DATA, b"198.51.100.7")
    return message


@pytest.mark.parametrize(("real", "other"), KEYS)
@pytest.mark.parametrize("algorithms", [BOTH[:1], BOTH[1:], BOTH])
@pytest.mark.parametrize("fingerprint", [True, False])
def test_what_was_signed_is_signed_with_the_other_password(
    real: bytes, other: bytes, algorithms: tuple[Integrity, ...], fingerprint: bool
) -> None:
    written = rewritten(check(key=real, algorithms=algorithms, fingerprint=fingerprint), KEYS, None)
    assert written == check(key=other, algorithms=algorithms, fingerprint=fingerprint)


@pytest.mark.parametrize("key", [NOBODY, None])
def test_what_was_not_signed_by_us_stays_as_it_is(key: bytes | None) -> None:
    data = check(key=key)
    assert rewritten(data, KEYS, None) == data
    message = parse_message(rewritten(data, KEYS, Pseudonyms()))
    assert not any(message.verify(k, a) for _, k in KEYS for a in Integrity)


def test_a_message_of_which_only_one_signature_is_right_keeps_the_wrong_one() -> None:
    data = bytearray(check(fingerprint=False))
    data[-1] ^= 1
    message = parse_message(rewritten(bytes(data), KEYS, None))
    assert message.verify(KEYS[0][1], Integrity.SHA1)
    assert not message.verify(KEYS[0][1], Integrity.SHA256)


def test_a_truncated_signature_keeps_its_size() -> None:
    """RFC 8489 section 14.6: too short for us, and so it has to stay."""
    whole = check(algorithms=BOTH[1:], fingerprint=False)
    short = bytearray(whole[:-16])
    short[2:4] = (len(short) - 20).to_bytes(2, "big")
    at = len(short) - 16 - 4
    short[at + 2 : at + 4] = (16).to_bytes(2, "big")
    short[-16:] = hmac.digest(OURS, bytes(short[:at]), "sha256")[:16]
    assert parse_message(bytes(short)).verify(OURS, Integrity.SHA256, minimum_size=16)
    written = parse_message(rewritten(bytes(short), KEYS, None))
    assert written.verify(KEYS[0][1], Integrity.SHA256, minimum_size=16)
    assert not written.verify(KEYS[0][1], Integrity.SHA256)


def test_every_address_in_a_message_is_another_one() -> None:
    names = Pseudonyms()
    data = answer().to_bytes(key=PEER)
    written = rewritten(data, KEYS, names)
    message = parse_message(written)
    assert message.verify(KEYS[1][1])
    assert message.has_fingerprint
    assert message.get(XOR_MAPPED_ADDRESS) == names.address(SOURCE) != SOURCE
    assert message.get(MAPPED_ADDRESS) == (names.host("198.51.100.7"), 4712)
    assert message.get(OTHER_ADDRESS) == (names.host("2001:db8::7"), 3479)
    assert message.get(ALTERNATE_SERVER) == (names.host("10.0.0.5"), 3478)
    assert message.get(SOFTWARE) == "x" * len("server at 198.51.100.7")
    assert message.get(NONCE) == "no address"
    assert message.get(DATA) == bytes(12)
    assert len(written) == len(data)
    for ip in (b"198.51.100.7", b"\xc6\x33\x64\x07", b"\x0a\0\0\x05"):
        assert ip not in written


def test_the_phrase_of_an_error_is_for_people_and_its_code_stays() -> None:
    message = Message(Method.BINDING, MessageClass.ERROR, ID)
    message.add(ERROR_CODE, ErrorCode(487, "Role Conflict with 198.51.100.7"))
    error = parse_message(rewritten(message.to_bytes(), KEYS, Pseudonyms())).get(ERROR_CODE)
    assert error == (487, "x" * 31)
    message = Message(Method.BINDING, MessageClass.ERROR, ID)
    message.add(ERROR_CODE, ErrorCode(487, "Role Conflict"))
    assert rewritten(message.to_bytes(), KEYS, Pseudonyms()) == message.to_bytes()


def test_attributes_that_nobody_knows_are_emptied_and_stay_in_their_place() -> None:
    data = answer().to_bytes(fingerprint=False) + b"\x7f\xfe\0\x04\xc6\x33\x64\x07"
    data += b"\xc0\x57\0\x05abcdepad"
    data = data[:2] + (len(data) - 20).to_bytes(2, "big") + data[4:]
    data = parse_message(data).to_bytes(key=OURS)
    written = rewritten(data, KEYS, Pseudonyms())
    message = parse_message(written)
    assert message.verify(KEYS[0][1])
    assert message.unknown_required == (0x7FFE,)
    assert b"\xc6\x33\x64\x07" not in written
    assert b"abc" not in written
    assert b"pad" not in written


def test_what_follows_the_signature_is_emptied() -> None:
    data = (
        check(algorithms=BOTH[:1], fingerprint=False)
        + b"\0\x01\0\x08\0\x01\x12\x34\xc6\x33\x64\x07"
    )
    data = data[:2] + (len(data) - 20).to_bytes(2, "big") + data[4:]
    assert parse_message(data).verify(OURS)
    written = rewritten(data, KEYS, Pseudonyms())
    assert parse_message(written).verify(KEYS[0][1])
    assert b"\xc6\x33\x64\x07" not in written


def test_what_is_no_message_stays_none_and_shows_nothing() -> None:
    cut = answer().to_bytes(key=PEER)[:-4]
    assert rewritten(cut, KEYS, None) == cut
    written = rewritten(cut, KEYS, Pseudonyms())
    assert len(written) == len(cut)
    assert b"198.51" not in written
    with pytest.raises(StunParseError):
        parse_message(written)
    for size in (8, 20, 21, 1200):
        with pytest.raises(StunParseError):
            parse_message(
                rewritten(b"\0\x01\0\x07\x21\x12\xa4\x42".ljust(size), KEYS, Pseudonyms())
            )


attributes = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *(0x0001, 0x0006, 0x0008, 0x0009, 0x0012, 0x0020, 0x001C, 0x0024, 0x0025, 0x7FFE),
                *(0x8001, 0x8003, 0x8022, 0x8023, 0x8028, 0x8029, 0xC057),
            ]
        ),
        st.one_of(
            st.binary(max_size=36),
            st.sampled_from(
                [
                    b"",
                    b"\0\x01\x12\x34\xc6\x33\x64\x07",
                    b"\0\x02\x12\x34" + bytes(range(16)),
                    b"\0\x03\x12\x34\xc6\x33\x64\x07",
                    b"\0\0\x04\x57role 198.51.100.7",
                    bytes(20),
                    bytes(32),
                ]
            ),
        ),
    ),
    max_size=6,
)


def whatever(found: list[tuple[int, bytes]], kind: int, sign: bool) -> bytes:
    body = b"".join(
        type_.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value + bytes(-len(value) % 4)
        for type_, value in found
    )
    data = kind.to_bytes(2, "big") + len(body).to_bytes(2, "big") + b"\x21\x12\xa4\x42" + ID + body
    if not sign:
        return data
    try:
        return parse_message(data).to_bytes(key=OURS, algorithms=BOTH)
    except StunParseError:
        return data


@settings(max_examples=600, deadline=None, derandomize=True)
@given(attributes, st.sampled_from([0x0001, 0x0101, 0x0111, 0x0011, 0x0003]), st.booleans())
def test_any_message_parses_as_before_or_not_at_all_as_before(
    found: list[tuple[int, bytes]], kind: int, sign: bool
) -> None:
    data = whatever(found, kind, sign)
    for names in (None, Pseudonyms()):
        written = rewritten(data, KEYS, names)
        assert len(written) == len(data)
        try:
            before = parse_message(data)
        except StunParseError:
            with pytest.raises(StunParseError):
                parse_message(written)
            continue
        after = parse_message(written)
        for attribute in ("method", "message_class", "transaction_id", "unknown_required"):
            assert getattr(after, attribute) == getattr(before, attribute)
        assert after.integrity == before.integrity
        assert after.has_fingerprint == before.has_fingerprint
        for (real, other), algorithm in itertools.product(KEYS, Integrity):
            assert after.verify(other, algorithm) == before.verify(real, algorithm)
        for plain in (PRIORITY, USE_CANDIDATE, ICE_CONTROLLING):
            assert after.get(plain) == before.get(plain)
        for address in (XOR_MAPPED_ADDRESS, MAPPED_ADDRESS, ALTERNATE_SERVER):
            value = before.get(address)
            expected = value if value is None or names is None else names.address(value)
            assert after.get(address) == expected
        # what was done once is done: nothing is left to replace but what replaced it
        assert rewritten(written, [(o, o) for _, o in KEYS], None) == written


@given(st.binary(max_size=200))
def test_no_bytes_raise(rest: bytes) -> None:
    data = b"\0\x01" + len(rest).to_bytes(2, "big") + b"\x21\x12\xa4\x42" + rest
    assert len(rewritten(data, KEYS, Pseudonyms())) == len(data)
    assert rewritten(data, [], None) == data
