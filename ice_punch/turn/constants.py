"""The numbers of RFC 8656 that both ends go by."""

from __future__ import annotations

from typing import Final

DEFAULT_LIFETIME: Final = 600.0
"""Seconds of an allocation, section 6."""
PERMISSION_LIFETIME: Final = 300.0
"""Seconds, section 9."""
CHANNEL_LIFETIME: Final = 600.0
"""Seconds, section 12."""
RESERVATION_LIFETIME: Final = 30.0
"""Seconds, section 7.2."""

UDP: Final = 17
"""The protocol number in REQUESTED-TRANSPORT, section 18.8."""
IPV4: Final = 1
IPV6: Final = 2
"""The families of RFC 8489 section 14.1."""

FIRST_CHANNEL: Final = 0x4000
LAST_CHANNEL: Final = 0x4FFF
"""Section 12, table 2. RFC 5766 had numbers up to 0x7FFF."""

MAX_DATA: Final = 65456
"""Bytes of a datagram that a Send or Data indication has room for, in a UDP datagram of its own
(65,507 bytes): a STUN header of 20, an XOR-PEER-ADDRESS of 24, the head of DATA of 4, padding."""


def family_of(ip: str) -> int:
    return IPV6 if ":" in ip else IPV4
