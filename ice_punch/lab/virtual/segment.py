"""TCP segments, and the arithmetic of their sequence numbers, RFC 9293 section 3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

HEADERS: Final = 40
"""Bytes of IPv4 and TCP headers; with IPv6 they are 60."""
WINDOW: Final = 65535
"""Bytes. What arrives is taken at once, so it never changes."""
SEQUENCE_SPACE: Final = 1 << 32


@dataclass(frozen=True, slots=True)
class Segment:
    """RFC 9293 section 3.1, as far as the virtual internet looks."""

    seq: int
    ack_number: int = 0
    payload: bytes = b""
    syn: bool = False
    ack: bool = False
    fin: bool = False
    rst: bool = False
    window: ClassVar[int] = WINDOW

    @property
    def size(self) -> int:
        """Bytes of the packet in IPv4."""
        return HEADERS + len(self.payload)

    @property
    def length(self) -> int:
        """How much of the sequence space it takes, SEG.LEN."""
        return len(self.payload) + self.syn + self.fin

    @staticmethod
    def reset_for(segment: Segment) -> Segment | None:
        """The RST with which a host that knows no such connection answers, or a NAT in its place.
        None for a RST, which is never answered (RFC 9293 section 3.5.2)."""
        if segment.rst:
            return None
        if segment.ack:
            return Segment(segment.ack_number, rst=True)
        end = (segment.seq + segment.length) % SEQUENCE_SPACE
        return Segment(0, end, rst=True, ack=True)

    def __str__(self) -> str:
        """``SYN ACK``, ``ACK 1200 bytes``."""
        names = ("syn", "ack", "fin", "rst")
        words = [name.upper() for name in names if getattr(self, name)]
        if self.payload:
            words.append(f"{len(self.payload)} bytes")
        return " ".join(words)


def expand(wire: int, near: int) -> int:
    """The number of which ``wire`` is the lowest 32 bits, and to which ``near`` is nearest."""
    half = SEQUENCE_SPACE // 2
    return near + (wire - near + half) % SEQUENCE_SPACE - half
