"""The STUN attributes of RFC 8489, RFC 8445 (ICE), RFC 8656 (TURN) and RFC 5780 (NAT behaviour),
and three of RFC 3489.

Each is a typed descriptor: ``message.get(PRIORITY)`` is ``int | None``. The names are the
registry's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar

from ice_punch.datagram import Address
from ice_punch.stun import addresses, codecs
from ice_punch.stun.codecs import (
    AddressErrorCode,
    AlgorithmParameters,
    ChangeRequest,
    Codec,
    ErrorCode,
    IcmpError,
)
from ice_punch.stun.credentials import opaque_string

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class AttributeType(Generic[T]):
    """One kind of attribute: its 16-bit type, its name, and how its value is coded."""

    type: int
    name: str
    decode: Callable[[bytes, bytes], T | None]
    """(value, transaction id): None means that the attribute is to be ignored. Raises
    StunParseError."""
    encode: Callable[[T, bytes], bytes]
    """(value, transaction id). Raises ValueError for what the attribute can not carry."""

    @property
    def comprehension_required(self) -> bool:
        """RFC 8489 section 14: types below 0x8000."""
        return self.type < 0x8000

    def __repr__(self) -> str:
        return f"<{self.name} 0x{self.type:04x}>"


_registry: dict[int, AttributeType[Any]] = {}


def _define(type_: int, name: str, codec: Codec[T]) -> AttributeType[T]:
    attribute = AttributeType(type_, name, codec.decode, codec.encode)
    _registry[type_] = attribute
    return attribute


ATTRIBUTES: Final[Mapping[int, AttributeType[Any]]] = MappingProxyType(_registry)
"""Every attribute that parsing understands, by type."""

_U32: Final = codecs.number("!I")
_U64: Final = codecs.number("!Q")
_PREPARED: Final = codecs.text(prepare=opaque_string)

# RFC 8489 section 14
MAPPED_ADDRESS: Final[AttributeType[Address]] = _define(0x0001, "MAPPED-ADDRESS", addresses.ADDRESS)
USERNAME: Final[AttributeType[str]] = _define(
    0x0006, "USERNAME", codecs.text(prepare=opaque_string, max_characters=None)
)
ERROR_CODE: Final[AttributeType[ErrorCode]] = _define(0x0009, "ERROR-CODE", codecs.ERROR_CODE)
UNKNOWN_ATTRIBUTES: Final[AttributeType[tuple[int, ...]]] = _define(
    0x000A, "UNKNOWN-ATTRIBUTES", codecs.UNKNOWN_ATTRIBUTES
)
REALM: Final[AttributeType[str]] = _define(0x0014, "REALM", _PREPARED)
NONCE: Final[AttributeType[str]] = _define(0x0015, "NONCE", codecs.text())
PASSWORD_ALGORITHM: Final[AttributeType[AlgorithmParameters]] = _define(
    0x001D, "PASSWORD-ALGORITHM", codecs.PASSWORD_ALGORITHM
)
USERHASH: Final[AttributeType[bytes]] = _define(0x001E, "USERHASH", codecs.octets(range(32, 33)))
XOR_MAPPED_ADDRESS: Final[AttributeType[Address]] = _define(
    0x0020, "XOR-MAPPED-ADDRESS", addresses.XOR_ADDRESS
)
PASSWORD_ALGORITHMS: Final[AttributeType[tuple[AlgorithmParameters, ...]]] = _define(
    0x8002, "PASSWORD-ALGORITHMS", codecs.PASSWORD_ALGORITHMS
)
ALTERNATE_DOMAIN: Final[AttributeType[str]] = _define(0x8003, "ALTERNATE-DOMAIN", codecs.DOMAIN)
SOFTWARE: Final[AttributeType[str]] = _define(0x8022, "SOFTWARE", codecs.text(lenient=True))
ALTERNATE_SERVER: Final[AttributeType[Address]] = _define(
    0x8023, "ALTERNATE-SERVER", addresses.ADDRESS
)

# RFC 8445 section 16.1
PRIORITY: Final[AttributeType[int]] = _define(0x0024, "PRIORITY", _U32)
USE_CANDIDATE: Final[AttributeType[bool]] = _define(0x0025, "USE-CANDIDATE", codecs.FLAG)
ICE_CONTROLLED: Final[AttributeType[int]] = _define(0x8029, "ICE-CONTROLLED", _U64)
ICE_CONTROLLING: Final[AttributeType[int]] = _define(0x802A, "ICE-CONTROLLING", _U64)

# draft-thatcher-ice-renomination section 4; the number is libwebrtc's
NOMINATION: Final[AttributeType[int]] = _define(0xC001, "NOMINATION", _U32)

# RFC 8656 section 18
CHANNEL_NUMBER: Final[AttributeType[int]] = _define(0x000C, "CHANNEL-NUMBER", codecs.number("!Hxx"))
LIFETIME: Final[AttributeType[int]] = _define(0x000D, "LIFETIME", _U32)
XOR_PEER_ADDRESS: Final[AttributeType[Address]] = _define(
    0x0012, "XOR-PEER-ADDRESS", addresses.XOR_ADDRESS
)
DATA: Final[AttributeType[bytes]] = _define(0x0013, "DATA", codecs.octets())
XOR_RELAYED_ADDRESS: Final[AttributeType[Address]] = _define(
    0x0016, "XOR-RELAYED-ADDRESS", addresses.XOR_ADDRESS
)
REQUESTED_ADDRESS_FAMILY: Final[AttributeType[int]] = _define(
    0x0017, "REQUESTED-ADDRESS-FAMILY", codecs.number("!Bxxx")
)
EVEN_PORT: Final[AttributeType[bool]] = _define(0x0018, "EVEN-PORT", codecs.EVEN_PORT)
REQUESTED_TRANSPORT: Final[AttributeType[int]] = _define(
    0x0019, "REQUESTED-TRANSPORT", codecs.number("!Bxxx")
)
DONT_FRAGMENT: Final[AttributeType[bool]] = _define(0x001A, "DONT-FRAGMENT", codecs.FLAG)
RESERVATION_TOKEN: Final[AttributeType[bytes]] = _define(
    0x0022, "RESERVATION-TOKEN", codecs.octets(range(8, 9))
)
ADDITIONAL_ADDRESS_FAMILY: Final[AttributeType[int]] = _define(
    0x8000, "ADDITIONAL-ADDRESS-FAMILY", codecs.number("!Bxxx")
)
ADDRESS_ERROR_CODE: Final[AttributeType[AddressErrorCode]] = _define(
    0x8001, "ADDRESS-ERROR-CODE", codecs.ADDRESS_ERROR_CODE
)
ICMP: Final[AttributeType[IcmpError]] = _define(0x8004, "ICMP", codecs.ICMP)

# RFC 5780 section 7
CHANGE_REQUEST: Final[AttributeType[ChangeRequest]] = _define(
    0x0003, "CHANGE-REQUEST", codecs.CHANGE_REQUEST
)
PADDING: Final[AttributeType[bytes]] = _define(0x0026, "PADDING", codecs.octets())
RESPONSE_PORT: Final[AttributeType[int]] = _define(0x0027, "RESPONSE-PORT", codecs.RESPONSE_PORT)
CACHE_TIMEOUT: Final[AttributeType[int]] = _define(0x8027, "CACHE-TIMEOUT", _U32)
RESPONSE_ORIGIN: Final[AttributeType[Address]] = _define(
    0x802B, "RESPONSE-ORIGIN", addresses.ADDRESS
)
OTHER_ADDRESS: Final[AttributeType[Address]] = _define(0x802C, "OTHER-ADDRESS", addresses.ADDRESS)

# RFC 3489 section 11.2: comprehension-required, and in every response of a server of that age,
# whose MAPPED-ADDRESS RFC 8489 section 6.3.3 has us accept
SOURCE_ADDRESS: Final[AttributeType[Address]] = _define(0x0004, "SOURCE-ADDRESS", addresses.ADDRESS)
CHANGED_ADDRESS: Final[AttributeType[Address]] = _define(
    0x0005, "CHANGED-ADDRESS", addresses.ADDRESS
)
REFLECTED_FROM: Final[AttributeType[Address]] = _define(0x000B, "REFLECTED-FROM", addresses.ADDRESS)

# Placed and checked by the message itself: RFC 8489 sections 14.5, 14.6 and 14.7
MESSAGE_INTEGRITY: Final[AttributeType[bytes]] = AttributeType(
    0x0008, "MESSAGE-INTEGRITY", *codecs.octets(range(20, 21))
)
MESSAGE_INTEGRITY_SHA256: Final[AttributeType[bytes]] = AttributeType(
    0x001C, "MESSAGE-INTEGRITY-SHA256", *codecs.octets(range(16, 33, 4))
)
FINGERPRINT: Final[AttributeType[int]] = AttributeType(0x8028, "FINGERPRINT", *_U32)
