"""Makes STUN of bytes that a fuzzer has mutated, so that what is behind the checks of length,
cookie, CRC and HMAC is reached as well."""

from __future__ import annotations

import hashlib
import hmac
import zlib

COOKIE = bytes.fromhex("2112a442")
SHA1, SHA256, FINGERPRINT = 0x0008, 0x001C, 0x8028
MOST = 1400
"""Bytes: what a datagram may carry."""


def repaired(data: bytes, *, transaction_id: bytes | None = None) -> bytes:
    """The same with two zero bits, a right length and the cookie, without what protected it."""
    padded = data[:MOST].ljust(20, b"\0")
    body = _unprotected(padded[20:])
    head = bytes([padded[0] & 0x3F, padded[1]]) + len(body).to_bytes(2, "big")
    return head + COOKIE + (transaction_id or padded[8:20]) + body


def _unprotected(body: bytes) -> bytes:
    """Up to the first attribute that is computed. The last one ends with the body."""
    offset = 0
    while offset + 4 <= len(body):
        type_ = int.from_bytes(body[offset : offset + 2], "big")
        size = int.from_bytes(body[offset + 2 : offset + 4], "big")
        if type_ in (SHA1, SHA256, FINGERPRINT):
            break
        rest = len(body) - offset - 4
        if size > rest:
            body = body[: offset + 2] + rest.to_bytes(2, "big") + body[offset + 4 :]
            return body + bytes(-rest % 4)
        offset += 4 + size + -size % 4
    return body[:offset] + bytes(max(offset - len(body), 0))


def _longer(message: bytes, by: int) -> bytes:
    return message[:2] + (len(message) - 20 + by).to_bytes(2, "big") + message[4:]


def signed(message: bytes, key: bytes, *, sha256: bool = False) -> bytes:
    """A repaired message with MESSAGE-INTEGRITY or MESSAGE-INTEGRITY-SHA256."""
    size = 32 if sha256 else 20
    covered = _longer(message, 4 + size)
    digest = hmac.digest(key, covered, hashlib.sha256 if sha256 else hashlib.sha1)
    type_ = SHA256 if sha256 else SHA1
    return covered + type_.to_bytes(2, "big") + size.to_bytes(2, "big") + digest


def fingerprinted(message: bytes) -> bytes:
    covered = _longer(message, 8)
    crc = zlib.crc32(covered) ^ 0x5354554E
    return covered + FINGERPRINT.to_bytes(2, "big") + b"\0\4" + crc.to_bytes(4, "big")
