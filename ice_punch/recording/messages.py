"""STUN messages with other passwords and other addresses, every byte else in its place."""

from __future__ import annotations

import hmac
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ice_punch.recording.pseudonyms import Pseudonyms
from ice_punch.stun import (
    ADDRESS_ERROR_CODE,
    ALTERNATE_DOMAIN,
    ALTERNATE_SERVER,
    ATTRIBUTES,
    CHANGED_ADDRESS,
    COOKIE,
    DATA,
    ERROR_CODE,
    FINGERPRINT,
    MAPPED_ADDRESS,
    MESSAGE_INTEGRITY,
    MESSAGE_INTEGRITY_SHA256,
    NONCE,
    OTHER_ADDRESS,
    PADDING,
    REALM,
    REFLECTED_FROM,
    RESERVATION_TOKEN,
    RESPONSE_ORIGIN,
    SOFTWARE,
    SOURCE_ADDRESS,
    USERHASH,
    USERNAME,
    XOR_MAPPED_ADDRESS,
    XOR_PEER_ADDRESS,
    XOR_RELAYED_ADDRESS,
    AttributeType,
    Integrity,
    Message,
    StunParseError,
    parse_message,
)

HEADER = 20
FINGERPRINT_SIZE = 8
FINGERPRINT_XOR = 0x5354554E
"""RFC 8489 section 14.7."""
SHORTEST_SHA256 = 16
"""Bytes, RFC 8489 section 14.6."""

Keys = tuple[bytes, bytes]
"""The real HMAC key and the one in its place."""

_ADDRESSES: dict[int, AttributeType[Any]] = {
    attribute.type: attribute
    for attribute in (
        MAPPED_ADDRESS,
        XOR_MAPPED_ADDRESS,
        ALTERNATE_SERVER,
        XOR_PEER_ADDRESS,
        XOR_RELAYED_ADDRESS,
        RESPONSE_ORIGIN,
        OTHER_ADDRESS,
        SOURCE_ADDRESS,
        CHANGED_ADDRESS,
        REFLECTED_FROM,
    )
}
_TEXTS = {
    USERNAME.type: 0,
    REALM.type: 0,
    NONCE.type: 0,
    SOFTWARE.type: 0,
    ERROR_CODE.type: 4,
    ADDRESS_ERROR_CODE.type: 4,
}
"""Attributes with text for people, and where in the value it begins."""
_OPAQUE = {DATA.type, PADDING.type, RESERVATION_TOKEN.type, USERHASH.type}
_INTEGRITY = {
    MESSAGE_INTEGRITY.type: Integrity.SHA1,
    MESSAGE_INTEGRITY_SHA256.type: Integrity.SHA256,
}


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an attribute is: its header begins at ``start``, its value is from 4 bytes later to
    ``end``."""

    type: int
    start: int
    end: int


def rewritten(data: bytes, keys: Sequence[Keys], pseudonyms: Pseudonyms | None) -> bytes:
    """``data`` protected with the second of a pair of ``keys`` where it was with the first, and
    with the addresses of ``pseudonyms``. It has the same length and parses, or does not, as before.

    Integrity that verifies with none of the keys stays as it is. Raises TooManyPseudonyms.
    """
    try:
        message = parse_message(data)
    except StunParseError:
        return data if pseudonyms is None else _malformed(len(data))
    written = bytearray(data)
    places = list(_places(data))
    if pseudonyms is not None:
        _replace_addresses(written, places, message.transaction_id, pseudonyms)
    if message.integrity:
        _sign(written, places, message, keys)
    if message.has_fingerprint:
        checksum = zlib.crc32(written[:-FINGERPRINT_SIZE]) ^ FINGERPRINT_XOR
        written[-4:] = checksum.to_bytes(4, "big")
    return bytes(written)


def masked(text: str, pseudonyms: Pseudonyms) -> str:
    """``text``, or as many ``x`` if there is an address in it."""
    return text if pseudonyms.text(text) == text else "x" * len(text.encode())


def _malformed(size: int) -> bytes:
    """What looks like STUN and has a length that no message can have (RFC 8489 section 5)."""
    return (b"\0\x01\xff\xff" + COOKIE).ljust(size, b"\0")


def _places(data: bytes) -> Iterator[_Place]:
    offset = HEADER
    while offset < len(data):
        end = offset + 4 + int.from_bytes(data[offset + 2 : offset + 4], "big")
        yield _Place(int.from_bytes(data[offset : offset + 2], "big"), offset, end)
        offset = (end + 3) & ~3


def _replace_addresses(
    written: bytearray, places: list[_Place], transaction_id: bytes, pseudonyms: Pseudonyms
) -> None:
    protected = False
    for place in places:
        begin, end = place.start + 4, place.end
        padded = (end + 3) & ~3
        written[end:padded] = bytes(len(written[end:padded]))
        if place.type in _INTEGRITY or place.type == FINGERPRINT.type:
            protected = True
            continue
        value = bytes(written[begin:end])
        # RFC 8489 section 14.5: after MESSAGE-INTEGRITY nobody looks at them
        written[begin:end] = (
            bytes(len(value))
            if protected
            else _other_value(place.type, value, transaction_id, pseudonyms)
        )


def _other_value(type_: int, value: bytes, transaction_id: bytes, pseudonyms: Pseudonyms) -> bytes:
    """Of the same length, and decoded to the like of it."""
    if type_ in _ADDRESSES:
        return _other_address(_ADDRESSES[type_], value, transaction_id, pseudonyms)
    if type_ in _TEXTS:
        begin = _TEXTS[type_]
        text = value[begin:].decode("utf-8", "replace")
        changed = pseudonyms.text(text) != text
        return value[:begin] + b"x" * len(value[begin:]) if changed else value
    if type_ == ALTERNATE_DOMAIN.type:
        return b"x" * len(value)
    if type_ in _OPAQUE or type_ not in ATTRIBUTES:
        return bytes(len(value))
    return value


def _other_address(
    attribute: AttributeType[Any], value: bytes, transaction_id: bytes, pseudonyms: Pseudonyms
) -> bytes:
    try:
        address = attribute.decode(value, transaction_id)
    except StunParseError:  # a second one of its type, which nobody reads
        return bytes(len(value))
    if address is None:  # of an unknown family, RFC 8489 section 6.3.3
        return value[:2] + bytes(len(value) - 2)
    encoded = attribute.encode(pseudonyms.address(address), transaction_id)
    return value[:1] + encoded[1:]


def _sign(written: bytearray, places: list[_Place], message: Message, keys: Sequence[Keys]) -> None:
    done: set[Integrity] = set()
    for place in places:
        algorithm = _INTEGRITY.get(place.type)
        if algorithm is None or algorithm not in message.integrity or algorithm in done:
            continue
        done.add(algorithm)
        for real, other in keys:
            if message.verify(real, algorithm, minimum_size=SHORTEST_SHA256):
                size = place.end - place.start - 4
                length = (place.end - HEADER).to_bytes(2, "big")
                covered = bytes(written[:2]) + length + bytes(written[4 : place.start])
                digest = hmac.digest(other, covered, algorithm.value)
                written[place.start + 4 : place.end] = digest[:size]
                break
