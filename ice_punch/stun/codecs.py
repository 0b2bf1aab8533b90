"""How attribute values look on the wire, RFC 8489 section 14: one decoder and encoder per form.

A decoder takes the value without its padding and the transaction id. It returns the Python value,
or None when the attribute is to be ignored, and raises StunParseError for a size or content that
the attribute can not have; it raises nothing else for any byte string.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, Generic, NamedTuple, TypeVar

MAGIC_COOKIE: Final = 0x2112A442
COOKIE: Final = MAGIC_COOKIE.to_bytes(4, "big")
"""The same as it stands in a message."""
"""RFC 8489 section 5."""

MAX_SENT_BYTES: Final = 508
"""RFC 8489 section 14.3: fewer than 509 bytes; the text attributes share this bound."""
MAX_SENT_CHARACTERS: Final = 127
"""RFC 8489 sections 14.8, 14.9, 14.10 and 14.14: fewer than 128 characters."""
MAX_RECEIVED_BYTES: Final = 763
"""RFC 8489 section 14.3: what senders of RFC 5389 were allowed."""

T = TypeVar("T")


class StunParseError(ValueError):
    """These bytes are not a STUN message, or one whose attributes are malformed."""


class Codec(NamedTuple, Generic[T]):
    decode: Callable[[bytes, bytes], T | None]
    encode: Callable[[T, bytes], bytes]


class ErrorCode(NamedTuple):
    """RFC 8489 section 14.8: a code of 300 to 699 and a phrase for people."""

    code: int
    reason: str = ""


class AddressErrorCode(NamedTuple):
    """RFC 8656 section 18.12. ``family`` is 1 for IPv4 and 2 for IPv6."""

    family: int
    code: int
    reason: str = ""


class ChangeRequest(NamedTuple):
    """RFC 5780 section 7.2."""

    change_ip: bool
    change_port: bool


class IcmpError(NamedTuple):
    """RFC 8656 section 18.13. ``data`` is the next hop's MTU for the messages that carry one."""

    type: int
    code: int
    data: int = 0


class AlgorithmParameters(NamedTuple):
    """One entry of RFC 8489 section 14.11: an algorithm number and its parameters, mostly none."""

    algorithm: int
    parameters: bytes = b""


def padding(size: int) -> int:
    """How many bytes follow a value of ``size`` bytes up to the 32-bit boundary."""
    return -size & 3


# Text


def text(
    *,
    prepare: Callable[[str], str] | None = None,
    max_characters: int | None = MAX_SENT_CHARACTERS,
    lenient: bool = False,
) -> Codec[str]:
    """UTF-8. ``lenient`` replaces what is not UTF-8, for text that only people read."""
    errors = "replace" if lenient else "strict"

    def decode(value: bytes, transaction_id: bytes) -> str:
        if len(value) > MAX_RECEIVED_BYTES:
            raise StunParseError("a text of more than 763 bytes")
        try:
            return value.decode("utf-8", errors)
        except UnicodeDecodeError:
            raise StunParseError("a text that is not UTF-8") from None

    def encode(value: str, transaction_id: bytes) -> bytes:
        encoded = (prepare(value) if prepare else value).encode()
        if len(encoded) > MAX_SENT_BYTES:
            raise ValueError(f"a text of {len(encoded)} bytes; at most {MAX_SENT_BYTES} fit")
        if max_characters is not None and len(value) > max_characters:
            raise ValueError(f"a text of {len(value)} characters; at most {max_characters} fit")
        return encoded

    return Codec(decode, encode)


def _decode_domain(value: bytes, transaction_id: bytes) -> str:
    if len(value) > 255:
        raise StunParseError("a domain of more than 255 bytes")
    return value.decode("ascii", "replace")


def _encode_domain(value: str, transaction_id: bytes) -> bytes:
    encoded = value.encode("ascii")
    if len(encoded) > 255:
        raise ValueError("a domain of more than 255 characters")
    return encoded


DOMAIN: Final = Codec(_decode_domain, _encode_domain)


# Numbers, flags and plain bytes


def number(layout: str) -> Codec[int]:
    """One unsigned integer; ``layout`` may hold reserved bytes: zero when sent, then ignored."""
    packer = struct.Struct(layout)
    wanted = packer.size
    pack, unpack = packer.pack, packer.unpack

    def decode(value: bytes, transaction_id: bytes) -> int:
        if len(value) != wanted:
            raise StunParseError(f"a number of {len(value)} bytes in place of {wanted}")
        result: int = unpack(value)[0]
        return result

    def encode(value: int, transaction_id: bytes) -> bytes:
        try:
            return pack(value)
        except struct.error:
            raise ValueError(f"{value!r} does not fit this attribute") from None

    return Codec(decode, encode)


def _decode_flag(value: bytes, transaction_id: bytes) -> bool:
    if value:
        raise StunParseError("a flag with a value")
    return True


def _encode_flag(value: bool, transaction_id: bytes) -> bytes:
    if value is not True:
        raise ValueError("a flag is added or left out, never false")
    return b""


FLAG: Final = Codec(_decode_flag, _encode_flag)


def octets(sizes: range | None = None) -> Codec[bytes]:
    """Bytes as they are, of any size or one of ``sizes``."""

    def decode(value: bytes, transaction_id: bytes) -> bytes:
        if sizes is not None and len(value) not in sizes:
            raise StunParseError(f"a value of {len(value)} bytes")
        return value

    def encode(value: bytes, transaction_id: bytes) -> bytes:
        if (len(value) > 65532) if sizes is None else (len(value) not in sizes):
            raise ValueError(f"a value of {len(value)} bytes")
        return bytes(value)

    return Codec(decode, encode)


# RFC 5780 section 7.5: 16 bits, then 2 bytes of padding. Half of the servers and clients in the
# field count the padding in the attribute's length and half do not.
def _decode_response_port(value: bytes, transaction_id: bytes) -> int:
    if len(value) not in (2, 4):
        raise StunParseError("a RESPONSE-PORT of the wrong size")
    return value[0] << 8 | value[1]


RESPONSE_PORT: Final = Codec(_decode_response_port, number("!Hxx").encode)


def _decode_even_port(value: bytes, transaction_id: bytes) -> bool:
    if len(value) != 1:
        raise StunParseError("an EVEN-PORT of the wrong size")
    return bool(value[0] & 0x80)


def _encode_even_port(value: bool, transaction_id: bytes) -> bytes:
    return b"\x80" if value else b"\x00"


EVEN_PORT: Final = Codec(_decode_even_port, _encode_even_port)


def _decode_change_request(value: bytes, transaction_id: bytes) -> ChangeRequest:
    if len(value) != 4:
        raise StunParseError("a CHANGE-REQUEST of the wrong size")
    return ChangeRequest(bool(value[3] & 4), bool(value[3] & 2))


def _encode_change_request(value: ChangeRequest, transaction_id: bytes) -> bytes:
    return bytes((0, 0, 0, value.change_ip << 2 | value.change_port << 1))


CHANGE_REQUEST: Final = Codec(_decode_change_request, _encode_change_request)


_ICMP: Final = struct.Struct("!HHI")


# RFC 8656 section 18.13 draws 7 bits of type and 9 bits of code
def _decode_icmp(value: bytes, transaction_id: bytes) -> IcmpError:
    if len(value) != _ICMP.size:
        raise StunParseError("an ICMP attribute of the wrong size")
    _, type_and_code, data = _ICMP.unpack(value)
    return IcmpError(type_and_code >> 9, type_and_code & 0x1FF, data)


def _encode_icmp(value: IcmpError, transaction_id: bytes) -> bytes:
    if not (0 <= value.type < 128 and 0 <= value.code < 512 and 0 <= value.data < 2**32):
        raise ValueError(f"{value} does not fit an ICMP attribute")
    return _ICMP.pack(0, value.type << 9 | value.code, value.data)


ICMP: Final = Codec(_decode_icmp, _encode_icmp)


# Error codes, RFC 8489 section 14.8 and RFC 8656 section 18.12


def _decode_error(value: bytes) -> tuple[int, str]:
    if not 4 <= len(value) <= 4 + MAX_RECEIVED_BYTES:
        raise StunParseError("an error code of the wrong size")
    hundreds, rest = value[2] & 7, value[3]  # the bits before are reserved and ignored
    if not (3 <= hundreds <= 6 and rest <= 99):
        raise StunParseError(f"an error code of class {hundreds}, number {rest}")
    return hundreds * 100 + rest, value[4:].decode("utf-8", "replace")


def _encode_error(family: int, code: int, reason: str) -> bytes:
    if not 300 <= code <= 699:
        raise ValueError(f"{code} is not an error code; 300 to 699 are")
    phrase = reason.encode()
    if len(reason) > MAX_SENT_CHARACTERS or len(phrase) > MAX_SENT_BYTES:
        raise ValueError("a reason phrase of 128 characters or more")
    return bytes((family, 0, code // 100, code % 100)) + phrase


def _decode_error_code(value: bytes, transaction_id: bytes) -> ErrorCode:
    return ErrorCode(*_decode_error(value))


def _encode_error_code(value: ErrorCode, transaction_id: bytes) -> bytes:
    return _encode_error(0, value.code, value.reason)


ERROR_CODE: Final = Codec(_decode_error_code, _encode_error_code)


def _decode_address_error_code(value: bytes, transaction_id: bytes) -> AddressErrorCode:
    code, reason = _decode_error(value)
    return AddressErrorCode(value[0], code, reason)


def _encode_address_error_code(value: AddressErrorCode, transaction_id: bytes) -> bytes:
    return _encode_error(value.family, value.code, value.reason)


ADDRESS_ERROR_CODE: Final = Codec(_decode_address_error_code, _encode_address_error_code)


# Lists


def _decode_types(value: bytes, transaction_id: bytes) -> tuple[int, ...]:
    if len(value) % 2:
        raise StunParseError("a list of attribute types with half a type")
    return struct.unpack(f"!{len(value) // 2}H", value)


def _encode_types(value: tuple[int, ...], transaction_id: bytes) -> bytes:
    try:
        return struct.pack(f"!{len(value)}H", *value)
    except struct.error:
        raise ValueError("an attribute type has 16 bits") from None


UNKNOWN_ATTRIBUTES: Final = Codec(_decode_types, _encode_types)

_ALGORITHM: Final = struct.Struct("!HH")


def _decode_algorithms(value: bytes, transaction_id: bytes) -> tuple[AlgorithmParameters, ...]:
    found = []
    offset, size = 0, len(value)
    while offset < size:
        if size - offset < _ALGORITHM.size:
            raise StunParseError("a cut password algorithm")
        algorithm, length = _ALGORITHM.unpack_from(value, offset)
        start = offset + _ALGORITHM.size
        if start + length > size:
            raise StunParseError("the parameters of a password algorithm overrun the attribute")
        found.append(AlgorithmParameters(algorithm, value[start : start + length]))
        # The padding of the last entry may be the attribute's own
        offset = start + length + padding(length)
    return tuple(found)


def _encode_algorithm(value: AlgorithmParameters, transaction_id: bytes) -> bytes:
    size = len(value.parameters)
    try:
        head = _ALGORITHM.pack(value.algorithm, size)
    except struct.error:
        raise ValueError(f"{value.algorithm!r} is not a password algorithm") from None
    return head + value.parameters + bytes(padding(size))


def _encode_algorithms(value: tuple[AlgorithmParameters, ...], transaction_id: bytes) -> bytes:
    return b"".join(_encode_algorithm(entry, transaction_id) for entry in value)


def _decode_one_algorithm(value: bytes, transaction_id: bytes) -> AlgorithmParameters:
    entries = _decode_algorithms(value, transaction_id)
    if len(entries) != 1:
        raise StunParseError("a PASSWORD-ALGORITHM without exactly one algorithm")
    return entries[0]


PASSWORD_ALGORITHMS: Final = Codec(_decode_algorithms, _encode_algorithms)
PASSWORD_ALGORITHM: Final = Codec(_decode_one_algorithm, _encode_algorithm)
