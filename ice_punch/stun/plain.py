"""Plain Binding requests, answered without parsing or building a message.

A server is asked little else all day. What is not surely a plain request is left to the full path,
and what both answer they answer byte for byte the same.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final
from zlib import crc32

from ice_punch.datagram import Address
from ice_punch.stun.addresses import IPV4, xored_ipv4
from ice_punch.stun.attributes import (
    FINGERPRINT,
    MAPPED_ADDRESS,
    OTHER_ADDRESS,
    RESPONSE_ORIGIN,
    SOFTWARE,
    XOR_MAPPED_ADDRESS,
)
from ice_punch.stun.codecs import COOKIE, MAGIC_COOKIE, MAX_RECEIVED_BYTES
from ice_punch.stun.counters import ServerCounters
from ice_punch.stun.message import (
    FINGERPRINT_XOR,
    HEADER_SIZE,
    MessageClass,
    Method,
    encode_attribute,
    encode_message,
    encode_message_type,
)

_REQUEST: Final = encode_message_type(Method.BINDING, MessageClass.REQUEST).to_bytes(2, "big")
_SUCCESS: Final = encode_message_type(Method.BINDING, MessageClass.SUCCESS)
_BARE: Final = _REQUEST + bytes(2) + COOKIE
_SOFTWARE: Final = SOFTWARE.type.to_bytes(2, "big")
_FINGERPRINT: Final = struct.pack("!HH", FINGERPRINT.type, 4)
_FINGERPRINT_SIZE: Final = 8
_pack_u32: Final = struct.Struct("!I").pack

_XOR_IPV4_SIZE: Final = 12
_XOR_IPV4: Final = XOR_MAPPED_ADDRESS.type << 48 | 8 << 32 | IPV4 << 16 | MAGIC_COOKIE >> 16
"""The first 8 bytes of an XOR-MAPPED-ADDRESS before the port is XORed into them."""


def has_fingerprint(data: bytes) -> bool | None:
    """Of a well-formed Binding request with nothing but, in this order, SOFTWARE and FINGERPRINT:
    whether it has the second. None for every other datagram, which may well be a request."""
    size = len(data)
    if data[:2] != _REQUEST or data[4:8] != COOKIE or data[2] << 8 | data[3] != size - HEADER_SIZE:
        return None
    end = HEADER_SIZE
    if data[20:22] == _SOFTWARE:
        length = data[22] << 8 | data[23]
        if length > MAX_RECEIVED_BYTES:
            return None
        end += 4 + length + 3 & ~3
    if end == size:
        return False
    if end + _FINGERPRINT_SIZE != size or data[end : end + 4] != _FINGERPRINT:
        return None
    right = data[end + 4 :] == _pack_u32(crc32(data[:end]) ^ FINGERPRINT_XOR)
    return True if right else None


class PlainAnswers:
    """What a server of this SOFTWARE, with these other addresses, answers to plain requests."""

    def __init__(
        self, software: str | None, other: Mapping[Address, Address], counters: ServerCounters
    ) -> None:
        """``other`` is OTHER-ADDRESS (RFC 5780 section 7.4), by the address that is asked.
        ``counters`` count what is answered here. Raises ValueError for a ``software`` that
        SOFTWARE can not carry."""
        self._other = other
        self._counters = counters
        self._software = b"" if software is None else encode_attribute(SOFTWARE, software)
        size = len(self._software)
        self._head = _success_head(_XOR_IPV4_SIZE + size)
        self._head_before_fingerprint = _success_head(_XOR_IPV4_SIZE + size + _FINGERPRINT_SIZE)
        self._pack = struct.Struct(f"!8s12sQI{size}s").pack

    def answer(self, data: bytes, source: Address, local: Address) -> bytes | None:
        """The response, to be sent from ``local`` to ``source`` now, if this is a Binding request
        with nothing but SOFTWARE and FINGERPRINT. None, and nothing counted: the full path is to
        look at it. Raises ValueError for a ``source`` without an IP address."""
        fingerprint = False
        if len(data) != HEADER_SIZE or data[:8] != _BARE:
            found = has_fingerprint(data)
            if found is None:
                return None
            fingerprint = found
        ip, port = source
        if not 0 < port < 65536:
            return None
        number = xored_ipv4(ip)
        if number is None or (self._other and local in self._other):
            return self._other_answer(data[8:20], source, local, fingerprint)
        counters = self._counters
        counters.received += 1
        counters.answered += 1
        if not fingerprint:
            return self._pack(self._head, data[8:20], _XOR_IPV4 ^ port, number, self._software)
        head = self._head_before_fingerprint
        answer = self._pack(head, data[8:20], _XOR_IPV4 ^ port, number, self._software)
        return answer + _FINGERPRINT + _pack_u32(crc32(answer) ^ FINGERPRINT_XOR)

    def _other_answer(
        self, transaction_id: bytes, source: Address, local: Address, fingerprint: bool
    ) -> bytes | None:
        """To an IPv6 address, which is XORed with the transaction id too, or with the attributes
        of RFC 5780 section 6.1."""
        if source[0].startswith("::"):  # perhaps an IPv4 address that an IPv6 socket heard
            return None
        attributes = encode_attribute(XOR_MAPPED_ADDRESS, source, transaction_id)
        other = self._other.get(local)
        if other is not None:
            attributes += encode_attribute(OTHER_ADDRESS, other)
            attributes += encode_attribute(MAPPED_ADDRESS, source)
            attributes += encode_attribute(RESPONSE_ORIGIN, local)
        attributes += self._software
        self._counters.received += 1
        self._counters.answered += 1
        return encode_message(_SUCCESS, transaction_id, attributes, fingerprint=fingerprint)


def _success_head(length: int) -> bytes:
    return struct.pack("!HH", _SUCCESS, length) + COOKIE
