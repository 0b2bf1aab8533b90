"""Transport addresses on the wire: RFC 8489 sections 14.1 and 14.2."""

from __future__ import annotations

import ipaddress
import struct
from functools import lru_cache
from typing import Final

from ice_punch.datagram import Address
from ice_punch.stun.codecs import COOKIE, MAGIC_COOKIE, Codec, StunParseError

IPV4: Final = 1
IPV6: Final = 2

_HEAD: Final = struct.Struct("!xBH")
_IPV4: Final = struct.Struct("!xBHI")
_pack_ipv4: Final = _IPV4.pack
_SIZE_V4: Final = 8
_SIZE_V6: Final = 20


@lru_cache(maxsize=4096)
def ipv4_text(number: int) -> str:
    return f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


@lru_cache(maxsize=1024)
def _ipv6_text(number: int) -> str:
    if number >> 32 == 0xFFFF:  # RFC 5952 section 5, and what sockets say
        return f"::ffff:{ipv4_text(number & 0xFFFFFFFF)}"
    return str(ipaddress.IPv6Address(number))


_OCTETS: Final = {str(octet): octet for octet in range(256)}


@lru_cache(maxsize=4096)
def address_number(ip: str) -> tuple[int, int]:
    """The family and the address as a number. Raises ValueError for what is no address."""
    try:
        a, b, c, d = map(_OCTETS.__getitem__, ip.split("."))
    except (KeyError, ValueError):
        address = ipaddress.ip_address(ip)
        return IPV4 if address.version == 4 else IPV6, int(address)
    return IPV4, a << 24 | b << 16 | c << 8 | d


@lru_cache(maxsize=4096)
def xored_ipv4(ip: str) -> int | None:
    """An IPv4 address as XOR-MAPPED-ADDRESS has it; None for an IPv6 one. Raises ValueError for
    what is no address."""
    family, number = address_number(ip)
    return number ^ MAGIC_COOKIE if family == IPV4 else None


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
        return (ipv4_text(number ^ cookie), port ^ cookie >> 16)
    if family == IPV6:
        if size != _SIZE_V6:
            raise StunParseError("an IPv6 address of the wrong size")
        _, port = _HEAD.unpack_from(value)
        number = int.from_bytes(value[4:], "big") ^ int.from_bytes(mask, "big")
        return (_ipv6_text(number), port ^ cookie >> 16)
    return None  # RFC 8489 section 6.3.3: an unknown family is ignored


def _encode(address: Address, cookie: int, mask: bytes) -> bytes:
    family, number = address_number(address[0])
    port = address[1]
    if not 0 <= port <= 65535:
        raise ValueError(f"{port} is not a port")
    if family == IPV4:
        return _pack_ipv4(IPV4, port ^ cookie >> 16, number ^ cookie)
    number ^= int.from_bytes(mask, "big")
    return _HEAD.pack(IPV6, port ^ cookie >> 16) + number.to_bytes(16, "big")


def _decode_plain(value: bytes, transaction_id: bytes) -> Address | None:
    return _decode(value, 0, b"")


def _encode_plain(address: Address, transaction_id: bytes) -> bytes:
    return _encode(address, 0, b"")


def _decode_xor(value: bytes, transaction_id: bytes) -> Address | None:
    return _decode(value, MAGIC_COOKIE, COOKIE + transaction_id)


def _encode_xor(address: Address, transaction_id: bytes) -> bytes:
    return _encode(address, MAGIC_COOKIE, COOKIE + transaction_id)


ADDRESS: Final = Codec(_decode_plain, _encode_plain)
XOR_ADDRESS: Final = Codec(_decode_xor, _encode_xor)
