"""Transport addresses on the wire: RFC 8489 sections 14.1 and 14.2."""

from __future__ import annotations

import ipaddress
import struct
from functools import lru_cache
from typing import Final

from ice_punch.datagram import Address
from ice_punch.stun.codecs import MAGIC_COOKIE, Codec, StunParseError

IPV4: Final = 1
IPV6: Final = 2

_HEAD: Final = struct.Struct("!xBH")
_IPV4: Final = struct.Struct("!xBHI")
_SIZE_V4: Final = 8
_SIZE_V6: Final = 20
_COOKIE: Final = MAGIC_COOKIE.to_bytes(4, "big")
_NO_COOKIE: Final = bytes(4)
_NO_TRANSACTION_ID: Final = bytes(12)


@lru_cache(maxsize=4096)
def _ipv4_text(number: int) -> str:
    return f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


@lru_cache(maxsize=1024)
def _ipv6_text(number: int) -> str:
    if number >> 32 == 0xFFFF:  # RFC 5952 section 5, and what sockets say
        return f"::ffff:{_ipv4_text(number & 0xFFFFFFFF)}"
    return str(ipaddress.IPv6Address(number))


@lru_cache(maxsize=1024)
def _packed(ip: str) -> bytes:
    return ipaddress.ip_address(ip).packed


def _decode(value: bytes, cookie: int, mask: bytes) -> Address | None:
    """``mask`` is what an IPv6 address is XORed with, beginning with the cookie."""
    size = len(value)
    if size < 4:
        raise StunParseError("an address of fewer than 4 bytes")
    family = value[1]  # RFC 8489 section 14.1: the byte before is ignored
    if family == IPV4:
        if size != _SIZE_V4:
            raise StunParseError("an IPv4 address of the wrong size")
        _, port, number = _IPV4.unpack(value)
        return (_ipv4_text(number ^ cookie), port ^ cookie >> 16)
    if family == IPV6:
        if size != _SIZE_V6:
            raise StunParseError("an IPv6 address of the wrong size")
        _, port = _HEAD.unpack_from(value)
        number = int.from_bytes(value[4:], "big") ^ int.from_bytes(mask, "big")
        return (_ipv6_text(number), port ^ cookie >> 16)
    return None  # RFC 8489 section 6.3.3: an unknown family is ignored


def _encode(address: Address, mask: bytes) -> bytes:
    packed = _packed(address[0])
    port = address[1]
    if not 0 <= port <= 65535:
        raise ValueError(f"{port} is not a port")
    size = len(packed)
    number = int.from_bytes(packed, "big") ^ int.from_bytes(mask[:size], "big")
    head = _HEAD.pack(IPV4 if size == 4 else IPV6, port ^ int.from_bytes(mask[:2], "big"))
    return head + number.to_bytes(size, "big")


def _decode_plain(value: bytes, transaction_id: bytes) -> Address | None:
    return _decode(value, 0, _NO_COOKIE)


def _encode_plain(address: Address, transaction_id: bytes) -> bytes:
    return _encode(address, _NO_COOKIE + _NO_TRANSACTION_ID)


def _decode_xor(value: bytes, transaction_id: bytes) -> Address | None:
    return _decode(value, MAGIC_COOKIE, _COOKIE + transaction_id)


def _encode_xor(address: Address, transaction_id: bytes) -> bytes:
    return _encode(address, _COOKIE + transaction_id)


ADDRESS: Final = Codec(_decode_plain, _encode_plain)
XOR_ADDRESS: Final = Codec(_decode_xor, _encode_xor)
