"""STUN messages: RFC 8489 sections 5, 7, 9 and 14."""

from __future__ import annotations

import hmac
import struct
import zlib
from collections.abc import Iterable
from enum import Enum, IntEnum
from typing import Any, Final, TypeVar

from ice_punch.datagram import Address
from ice_punch.stun.attributes import (
    ATTRIBUTES,
    FINGERPRINT,
    MAPPED_ADDRESS,
    MESSAGE_INTEGRITY,
    MESSAGE_INTEGRITY_SHA256,
    XOR_MAPPED_ADDRESS,
    AttributeType,
)
from ice_punch.stun.codecs import MAGIC_COOKIE, StunParseError

T = TypeVar("T")


class MessageClass(IntEnum):
    """The class bits C1 C0, RFC 8489 section 5."""

    REQUEST = 0
    INDICATION = 1
    SUCCESS = 2
    ERROR = 3


class Method(IntEnum):
    """RFC 8489 section 18.2 and RFC 8656 section 17."""

    BINDING = 1
    ALLOCATE = 3
    REFRESH = 4
    SEND = 6
    DATA = 7
    CREATE_PERMISSION = 8
    CHANNEL_BIND = 9


class Integrity(Enum):
    """Which HMAC protects a message: MESSAGE-INTEGRITY or MESSAGE-INTEGRITY-SHA256."""

    SHA1 = "sha1"
    SHA256 = "sha256"


HEADER_SIZE: Final = 20
TRANSACTION_ID_SIZE: Final = 12
MAX_METHOD: Final = 0xFFF
FINGERPRINT_XOR: Final = 0x5354554E

_HEADER: Final = struct.Struct("!HHI12s")
_TYPE_AND_LENGTH: Final = struct.Struct("!HH")
_COOKIE_BYTES: Final = MAGIC_COOKIE.to_bytes(4, "big")
_FINGERPRINT: Final = struct.Struct("!HHI")
_PADDING: Final = (b"", b"\0\0\0", b"\0\0", b"\0")
_MAX_LENGTH: Final = 0xFFFC

_INTEGRITY_TYPES: Final = {
    Integrity.SHA1: MESSAGE_INTEGRITY.type,
    Integrity.SHA256: MESSAGE_INTEGRITY_SHA256.type,
}
_HMAC_SIZES: Final = {Integrity.SHA1: 20, Integrity.SHA256: 32}
_NO_INTEGRITY: Final[frozenset[Integrity]] = frozenset()
_CLASSES: Final = tuple(MessageClass)

_SHA1_TYPE: Final = MESSAGE_INTEGRITY.type
_SHA256_TYPE: Final = MESSAGE_INTEGRITY_SHA256.type
_FINGERPRINT_TYPE: Final = FINGERPRINT.type
_COMPUTED: Final = frozenset((_SHA1_TYPE, _SHA256_TYPE, _FINGERPRINT_TYPE))
_DECODERS: Final = {attribute.type: attribute.decode for attribute in ATTRIBUTES.values()}


def encode_message_type(method: int, message_class: int) -> int:
    """Interleaves M11..M0 with C1 and C0, RFC 8489 section 5."""
    return (
        (method & 0xF80) << 2
        | (method & 0x070) << 1
        | (method & 0x00F)
        | (message_class & 2) << 7
        | (message_class & 1) << 4
    )


def decode_message_type(message_type: int) -> tuple[int, MessageClass]:
    """The method and class of a 14-bit message type, RFC 8489 section 5."""
    method = (message_type & 0x3E00) >> 2 | (message_type & 0xE0) >> 1 | (message_type & 0xF)
    return method, _CLASSES[(message_type & 0x100) >> 7 | (message_type & 0x10) >> 4]


_KNOWN_TYPES: Final = {
    type_: decode_message_type(type_)
    for type_ in (encode_message_type(m, c) for m in Method for c in MessageClass)
}


class Message:
    """A STUN message, to be sent or received.

    A message that was parsed can be given further attributes and sent on: its integrity and
    fingerprint attributes, and whatever followed them, are then left behind.
    """

    __slots__ = (
        "_integrity_offsets",
        "_parts",
        "_raw",
        "_values",
        "has_fingerprint",
        "integrity",
        "message_class",
        "method",
        "transaction_id",
        "unknown_required",
    )

    method: int
    message_class: MessageClass
    transaction_id: bytes
    unknown_required: tuple[int, ...]
    """Of a parsed message: the comprehension-required types it holds that we do not know."""
    integrity: frozenset[Integrity]
    """Of a parsed message: the integrity attributes it holds, unverified."""
    has_fingerprint: bool
    """Of a parsed message: whether it ends in a right FINGERPRINT."""

    def __init__(self, method: int, message_class: MessageClass, transaction_id: bytes) -> None:
        """Raises ValueError for a method beyond 0xFFF or an id that is not 12 bytes."""
        if not 0 <= method <= MAX_METHOD:
            raise ValueError(f"a method is 0 to 0xfff, not {method:#x}")
        if len(transaction_id) != TRANSACTION_ID_SIZE:
            raise ValueError(f"a transaction id has 12 bytes, not {len(transaction_id)}")
        self.method = method
        self.message_class = message_class
        self.transaction_id = transaction_id
        self.unknown_required = ()
        self.integrity = _NO_INTEGRITY
        self.has_fingerprint = False
        self._values: dict[int, Any] = {}
        self._parts: list[bytes] = []
        self._raw = b""
        self._integrity_offsets: dict[Integrity, int] = {}

    def __repr__(self) -> str:
        return (
            f"<{self.message_class.name.lower()} method={self.method:#05x} "
            f"id={self.transaction_id.hex()}>"
        )

    def get(self, attribute: AttributeType[T]) -> T | None:
        """The attribute's value, the first one's if it is there twice (RFC 8489 section 14)."""
        return self._values.get(attribute.type)

    def get_all(self, attribute: AttributeType[T]) -> tuple[T, ...]:
        """Every value of an attribute that may stand there more than once, in order, as
        XOR-PEER-ADDRESS does (RFC 8656 section 10.1); ``get`` gives the first. Raises
        StunParseError for a malformed one."""
        body = b"".join(self._parts)
        found: list[T] = []
        offset = 0
        while offset < len(body):
            type_, length = _TYPE_AND_LENGTH.unpack_from(body, offset)
            start = offset + 4
            if type_ == attribute.type:
                value = attribute.decode(body[start : start + length], self.transaction_id)
                if value is not None:
                    found.append(value)
            offset = start + length + (-length & 3)
        return tuple(found)

    def add(self, attribute: AttributeType[T], value: T) -> None:
        """Appends an attribute. Raises ValueError for a value that it can not carry."""
        type_ = attribute.type
        if type_ in _COMPUTED:
            raise ValueError(f"{attribute.name} is computed by to_bytes")
        encoded = attribute.encode(value, self.transaction_id)
        size = len(encoded)
        self._parts.append(_TYPE_AND_LENGTH.pack(type_, size) + encoded + _PADDING[size & 3])
        self._values.setdefault(type_, value)

    def to_bytes(
        self,
        *,
        key: bytes | None = None,
        algorithms: Iterable[Integrity] = (Integrity.SHA1,),
        fingerprint: bool = True,
    ) -> bytes:
        """The message on the wire.

        With a ``key`` it is protected by each of ``algorithms``, MESSAGE-INTEGRITY first (RFC 8489
        sections 14.5 and 14.6). Raises ValueError for more attributes than 65,532 bytes.
        """
        message_type = encode_message_type(self.method, self.message_class)
        rest = _COOKIE_BYTES + self.transaction_id + b"".join(self._parts)
        # From here on: the length that the header would have, which HMAC and CRC cover
        length = len(rest) - 16
        if key is not None:
            for algorithm in _in_order(algorithms):
                size = _HMAC_SIZES[algorithm]
                length += 4 + size
                if length > _MAX_LENGTH:
                    break
                head = _TYPE_AND_LENGTH.pack(message_type, length)
                digest = hmac.digest(key, head + rest, algorithm.value)
                rest += _TYPE_AND_LENGTH.pack(_INTEGRITY_TYPES[algorithm], size) + digest
        if fingerprint:
            length += 8
        if length > _MAX_LENGTH:
            raise ValueError(f"a message of {length} bytes of attributes")
        data = _TYPE_AND_LENGTH.pack(message_type, length) + rest
        if fingerprint:
            data += _FINGERPRINT.pack(_FINGERPRINT_TYPE, 4, zlib.crc32(data) ^ FINGERPRINT_XOR)
        return data

    def verify(
        self,
        key: bytes,
        algorithm: Integrity = Integrity.SHA1,
        *,
        minimum_size: int = 32,
    ) -> bool:
        """Whether a parsed message is protected with ``key``; False when it is not protected.

        ``minimum_size`` is the usage's policy for MESSAGE-INTEGRITY-SHA256 (RFC 8489 section 14.6):
        32 bytes, or from 16 on where truncation is allowed. Takes the same time for any wrong HMAC.
        """
        offset = self._integrity_offsets.get(algorithm)
        if offset is None:
            return False
        raw = self._raw
        _, size = _TYPE_AND_LENGTH.unpack_from(raw, offset)
        # RFC 8489 section 14.5: the length is that of a message which ends here
        head = raw[:2] + (offset + 4 + size - HEADER_SIZE).to_bytes(2, "big")
        digest = hmac.digest(key, head + raw[4:offset], algorithm.value)
        right = hmac.compare_digest(digest[:size], raw[offset + 4 : offset + 4 + size])
        return right and (algorithm is Integrity.SHA1 or size >= minimum_size)


def _in_order(algorithms: Iterable[Integrity]) -> tuple[Integrity, ...]:
    if algorithms == (Integrity.SHA1,):
        return (Integrity.SHA1,)
    wanted = set(algorithms)
    return tuple(algorithm for algorithm in Integrity if algorithm in wanted)


def response_to(request: Message, message_class: MessageClass) -> Message:
    """A response with the request's method and transaction id, RFC 8489 section 6.3.1.1."""
    return Message(request.method, message_class, request.transaction_id)


def mapped_address(response: Message) -> Address | None:
    """XOR-MAPPED-ADDRESS or else MAPPED-ADDRESS, as RFC 8489 section 6.3.3 and RFC 3489 have it."""
    return response.get(XOR_MAPPED_ADDRESS) or response.get(MAPPED_ADDRESS)


def looks_like_stun(data: bytes | bytearray | memoryview) -> bool:
    """Whether the header is that of a STUN message (RFC 8489 section 6.3): the first two bits, the
    magic cookie, and a length that is the datagram's and a multiple of 4. Nothing beyond the
    header is looked at."""
    size = len(data)
    return (
        size >= HEADER_SIZE
        and data[0] < 0x40
        and not size & 3
        and data[4:8] == _COOKIE_BYTES
        and (data[2] << 8 | data[3]) == size - HEADER_SIZE
    )


def parse_message(data: bytes | bytearray | memoryview) -> Message:
    """Reads a datagram. Raises StunParseError, and nothing else, for what is not a STUN message:
    a bad header (RFC 8489 section 5), an attribute of the wrong size, a FINGERPRINT that is wrong
    or not the last attribute (section 14.7)."""
    raw = data if type(data) is bytes else bytes(data)
    size = len(raw)
    if size < HEADER_SIZE:
        raise StunParseError("fewer bytes than a STUN header has")
    message_type, length, cookie, transaction_id = _HEADER.unpack_from(raw)
    if message_type & 0xC000:
        raise StunParseError("the first two bits are not zero")
    if cookie != MAGIC_COOKIE:
        raise StunParseError("no magic cookie")
    if length & 3 or length != size - HEADER_SIZE:
        raise StunParseError("the length is not that of the datagram")

    values: dict[int, Any] = {}
    unknown: dict[int, None] = {}
    offset = HEADER_SIZE
    while offset < size:
        type_, length = _TYPE_AND_LENGTH.unpack_from(raw, offset)
        start = offset + 4
        end = start + length
        if end > size:
            raise StunParseError("an attribute overruns the message")
        decode = _DECODERS.get(type_)
        if decode is not None:
            if type_ not in values:
                value = decode(raw[start:end], transaction_id)
                if value is not None:
                    values[type_] = value
        elif type_ in _COMPUTED:
            break
        elif type_ < 0x8000:
            unknown[type_] = None
        offset = (end + 3) & ~3

    message = Message.__new__(Message)
    known_type = _KNOWN_TYPES.get(message_type)
    message.method, message.message_class = known_type or decode_message_type(message_type)
    message.transaction_id = transaction_id
    message.unknown_required = tuple(unknown)
    message.integrity = _NO_INTEGRITY
    message.has_fingerprint = False
    message._values = values
    message._parts = [raw[HEADER_SIZE:offset]]
    message._raw = raw
    message._integrity_offsets = {}
    if offset < size:
        _parse_tail(message, raw, offset, size)
    return message


def _parse_tail(message: Message, raw: bytes, offset: int, size: int) -> None:
    """Reads from the first integrity attribute or FINGERPRINT on.

    RFC 8489 section 9: MESSAGE-INTEGRITY is followed by MESSAGE-INTEGRITY-SHA256 and FINGERPRINT
    only, MESSAGE-INTEGRITY-SHA256 by FINGERPRINT only; anything else there is not looked at.
    """
    offsets = message._integrity_offsets
    values = message._values
    while offset < size:
        type_, length = _TYPE_AND_LENGTH.unpack_from(raw, offset)
        start = offset + 4
        end = start + length
        if end > size:
            raise StunParseError("an attribute overruns the message")
        if type_ == _FINGERPRINT_TYPE:
            if length != 4 or end != size:
                raise StunParseError("a FINGERPRINT that is not the last 8 bytes")
            value = int.from_bytes(raw[start:end], "big")
            if zlib.crc32(raw[:offset]) ^ FINGERPRINT_XOR != value:
                raise StunParseError("a wrong FINGERPRINT")
            values[type_] = value
            message.has_fingerprint = True
        elif type_ == _SHA1_TYPE:
            if not offsets:
                values[type_] = MESSAGE_INTEGRITY.decode(raw[start:end], b"")
                offsets[Integrity.SHA1] = offset
        elif type_ == _SHA256_TYPE and Integrity.SHA256 not in offsets:
            values[type_] = MESSAGE_INTEGRITY_SHA256.decode(raw[start:end], b"")
            offsets[Integrity.SHA256] = offset
        offset = (end + 3) & ~3
    if offsets:
        message.integrity = frozenset(offsets)
