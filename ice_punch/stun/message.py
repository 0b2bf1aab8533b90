"""STUN messages: RFC 8489 sections 5, 7, 9 and 14."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import IntEnum
from hmac import compare_digest
from typing import Any, Final, TypeVar
from zlib import crc32

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
from ice_punch.stun.integrity import Integrity, authentication_code

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


HEADER_SIZE: Final = 20
TRANSACTION_ID_SIZE: Final = 12
MAX_METHOD: Final = 0xFFF
FINGERPRINT_XOR: Final = 0x5354554E

_HEADER: Final = struct.Struct("!HHI12s")
_TYPE_AND_LENGTH: Final = struct.Struct("!HH")
_pack_head: Final = _TYPE_AND_LENGTH.pack
_read_head: Final = _TYPE_AND_LENGTH.unpack_from
_COOKIE_BYTES: Final = MAGIC_COOKIE.to_bytes(4, "big")
_pack_fingerprint: Final = struct.Struct("!HHI").pack
_PADDING: Final = (b"", b"\0\0\0", b"\0\0", b"\0")
_MAX_LENGTH: Final = 0xFFFC

_INTEGRITY_ATTRIBUTES: Final = {
    Integrity.SHA1: (_pack_head(MESSAGE_INTEGRITY.type, 20), 24),
    Integrity.SHA256: (_pack_head(MESSAGE_INTEGRITY_SHA256.type, 32), 36),
}
"""Type and length on the wire, and the size of the whole attribute."""
_SHA1_ONLY: Final = (Integrity.SHA1,)
_NO_INTEGRITY: Final[frozenset[Integrity]] = frozenset()
_SHA1: Final = frozenset((Integrity.SHA1,))
_SHA256: Final = frozenset((Integrity.SHA256,))
_BOTH: Final = _SHA1 | _SHA256
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
        "_end",
        "_parts",
        "_raw",
        "_sha1_offset",
        "_sha256_offset",
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
        # Of a parsed message: the datagram, where its attributes but the computed ones end, and
        # where the integrity attributes begin
        self._raw = b""
        self._end = 0
        self._sha1_offset = self._sha256_offset = 0

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
        body = self._body()
        found: list[T] = []
        offset = 0
        while offset < len(body):
            type_, length = _read_head(body, offset)
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
        self._parts.append(_pack_head(type_, size) + encoded + _PADDING[size & 3])
        self._values.setdefault(type_, value)

    def to_bytes(
        self,
        *,
        key: bytes | None = None,
        algorithms: Iterable[Integrity] = _SHA1_ONLY,
        fingerprint: bool = True,
    ) -> bytes:
        """The message on the wire.

        With a ``key`` it is protected by each of ``algorithms``, MESSAGE-INTEGRITY first (RFC 8489
        sections 14.5 and 14.6). Raises ValueError for more attributes than 65,532 bytes.
        """
        return encode_message(
            encode_message_type(self.method, self.message_class),
            self.transaction_id,
            self._body(),
            key=key,
            algorithms=algorithms,
            fingerprint=fingerprint,
        )

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
        is_sha1 = algorithm is Integrity.SHA1
        offset = self._sha1_offset if is_sha1 else self._sha256_offset
        if not offset:
            return False
        raw = self._raw
        start = offset + 4
        size = 20 if is_sha1 else raw[offset + 2] << 8 | raw[offset + 3]
        # RFC 8489 section 14.5: the length is that of a message which ends here
        head = raw[:2] + (start + size - HEADER_SIZE).to_bytes(2, "big")
        digest = authentication_code(key, algorithm, head + raw[4:offset])
        if is_sha1:
            return compare_digest(digest, raw[start : start + 20])
        right = compare_digest(digest[:size], raw[start : start + size])
        return right and size >= minimum_size

    def _body(self) -> bytes:
        """The attributes but the computed ones."""
        return self._raw[HEADER_SIZE : self._end] + b"".join(self._parts)


def encode_message(
    message_type: int,
    transaction_id: bytes,
    attributes: bytes,
    *,
    key: bytes | None = None,
    algorithms: Iterable[Integrity] = _SHA1_ONLY,
    fingerprint: bool = True,
) -> bytes:
    """``Message.to_bytes`` for attributes that are encoded already, as ``encode_attribute`` does:
    for whoever sends the same ones again and again. Raises ValueError for more than 65,532 bytes
    of them."""
    rest = _COOKIE_BYTES + transaction_id + attributes
    # From here on: the length that the header would have, which HMAC and CRC cover
    length = len(attributes)
    if key is not None:
        for algorithm in _SHA1_ONLY if algorithms == _SHA1_ONLY else _in_order(algorithms):
            type_and_size, size = _INTEGRITY_ATTRIBUTES[algorithm]
            length += size
            if length > _MAX_LENGTH:
                break
            head = _pack_head(message_type, length)
            rest += type_and_size + authentication_code(key, algorithm, head + rest)
    if fingerprint:
        length += 8
    if length > _MAX_LENGTH:
        raise ValueError(f"a message of {length} bytes of attributes")
    data = _pack_head(message_type, length) + rest
    if fingerprint:
        return data + _pack_fingerprint(_FINGERPRINT_TYPE, 4, crc32(data) ^ FINGERPRINT_XOR)
    return data


def encode_attribute(attribute: AttributeType[T], value: T, transaction_id: bytes = b"") -> bytes:
    """An attribute on the wire, padding included. Of those of RFC 8489, 8445, 8656 and 5780 the
    XORed addresses alone depend on the transaction id. Raises ValueError for a value that the
    attribute can not carry."""
    encoded = attribute.encode(value, transaction_id)
    size = len(encoded)
    return _pack_head(attribute.type, size) + encoded + _PADDING[size & 3]


def _in_order(algorithms: Iterable[Integrity]) -> tuple[Integrity, ...]:
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
    unknown: dict[int, None] | None = None
    offset = HEADER_SIZE
    while offset < size:
        type_, length = _read_head(raw, offset)
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
            unknown = unknown or {}
            unknown[type_] = None
        offset = (end + 3) & ~3

    message = Message.__new__(Message)
    known_type = _KNOWN_TYPES.get(message_type)
    message.method, message.message_class = known_type or decode_message_type(message_type)
    message.transaction_id = transaction_id
    message.unknown_required = () if unknown is None else tuple(unknown)
    message.integrity = _NO_INTEGRITY
    message.has_fingerprint = False
    message._values = values
    message._parts = []
    message._raw = raw
    message._end = offset
    message._sha1_offset = message._sha256_offset = 0
    if offset < size:
        _parse_tail(message, raw, offset, size)
    return message


def _parse_tail(message: Message, raw: bytes, offset: int, size: int) -> None:
    """Reads from the first integrity attribute or FINGERPRINT on.

    RFC 8489 section 9: MESSAGE-INTEGRITY is followed by MESSAGE-INTEGRITY-SHA256 and FINGERPRINT
    only, MESSAGE-INTEGRITY-SHA256 by FINGERPRINT only; anything else there is not looked at.
    """
    values = message._values
    while offset < size:
        type_, length = _read_head(raw, offset)
        start = offset + 4
        end = start + length
        if end > size:
            raise StunParseError("an attribute overruns the message")
        if type_ == _FINGERPRINT_TYPE:
            if length != 4 or end != size:
                raise StunParseError("a FINGERPRINT that is not the last 8 bytes")
            value = crc32(raw[:offset]) ^ FINGERPRINT_XOR
            if value.to_bytes(4, "big") != raw[start:]:
                raise StunParseError("a wrong FINGERPRINT")
            values[type_] = value
            message.has_fingerprint = True
        elif type_ == _SHA1_TYPE:
            if not message.integrity:
                if length != 20:
                    raise StunParseError(f"a MESSAGE-INTEGRITY of {length} bytes")
                values[type_] = raw[start:end]
                message._sha1_offset = offset
                message.integrity = _SHA1
        elif type_ == _SHA256_TYPE and not message._sha256_offset:
            values[type_] = MESSAGE_INTEGRITY_SHA256.decode(raw[start:end], b"")
            message._sha256_offset = offset
            message.integrity = _BOTH if message._sha1_offset else _SHA256
        offset = (end + 3) & ~3
