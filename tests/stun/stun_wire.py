"""STUN bytes put together by hand, so that the code under test is not its own witness."""

from __future__ import annotations

import hashlib
import hmac
import zlib

COOKIE = bytes.fromhex("2112a442")
ID = bytes(range(1, 13))
REQUEST = 0x0001
INDICATION = 0x0011
SUCCESS = 0x0101
ERROR = 0x0111


def attribute(type_: int, value: bytes, padding: bytes = bytes(3)) -> bytes:
    head = type_.to_bytes(2, "big") + len(value).to_bytes(2, "big")
    return head + value + padding[: -len(value) % 4]


def raw(message_type: int, *attributes: bytes, id_: bytes = ID) -> bytes:
    body = b"".join(attributes)
    return message_type.to_bytes(2, "big") + len(body).to_bytes(2, "big") + COOKIE + id_ + body


def lengthened(message: bytes, by: int) -> bytes:
    """The header as it will be once ``by`` more bytes follow."""
    length = int.from_bytes(message[2:4], "big") + by
    return message[:2] + length.to_bytes(2, "big") + message[4:]


def with_integrity(message: bytes, key: bytes) -> bytes:
    covered = lengthened(message, 24)
    return covered + attribute(0x0008, hmac.new(key, covered, hashlib.sha1).digest())


def with_integrity_sha256(message: bytes, key: bytes, size: int = 32) -> bytes:
    covered = lengthened(message, 4 + size)
    return covered + attribute(0x001C, hmac.new(key, covered, hashlib.sha256).digest()[:size])


def with_fingerprint(message: bytes) -> bytes:
    covered = lengthened(message, 8)
    return covered + attribute(0x8028, (zlib.crc32(covered) ^ 0x5354554E).to_bytes(4, "big"))


def with_more(message: bytes, *attributes: bytes) -> bytes:
    """``attributes`` after all else, and the length made right for them."""
    more = b"".join(attributes)
    return lengthened(message, len(more)) + more
