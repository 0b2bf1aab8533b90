"""What happened to every packet of a virtual internet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from ice_punch.datagram import Address, format_address

if TYPE_CHECKING:
    from ice_punch.lab.virtual.stream import Segment


class DropReason(StrEnum):
    LOST = "lost"
    QUEUE_FULL = "queue full"
    TOO_BIG = "too big"
    LINK_DOWN = "link down"
    FILTERED = "filtered"
    """The mapping exists; the NAT does not let this source through it (RFC 4787 section 5)."""
    NO_MAPPING = "no mapping"
    NO_HAIRPIN = "no hairpin"
    NO_PORT = "no port"
    """The NAT has no external port left."""
    NO_ROUTE = "no route"
    NO_LISTENER = "no listener"
    NO_PERMISSION = "no permission"
    """A relay was not asked to accept this peer (RFC 8656 section 9)."""
    UDP_BLOCKED = "udp blocked"
    BLOCKED = "blocked"
    """A firewall lets nothing of the kind out."""
    BLACKLISTED = "blacklisted"
    HOPS = "too many hops"


class Protocol(StrEnum):
    UDP = "udp"
    TCP = "tcp"
    ICMP = "icmp"


class IcmpKind(StrEnum):
    PORT_UNREACHABLE = "port unreachable"
    TOO_BIG = "packet too big"


@dataclass(frozen=True, slots=True)
class IcmpError:
    """What an ICMP error says, and about which packet, as its sender put it on the wire."""

    kind: IcmpKind
    protocol: Protocol
    source: Address
    destination: Address
    mtu: int = 0


@dataclass(slots=True)
class PacketRecord:
    """One packet from its sender to its end. Times are virtual seconds."""

    number: int
    sent_at: float
    sender: str
    source: Address
    destination: Address
    data: bytes
    wire_source: Address
    """The source as last translated."""
    wire_destination: Address
    """The destination as last translated."""
    protocol: Protocol = Protocol.UDP
    segment: Segment | None = None
    error: IcmpError | None = None
    ended_at: float | None = None
    receiver: str | None = None
    """The host that got it; ``None`` while it travels and when it was dropped."""
    dropped: DropReason | None = None
    dropped_by: str | None = None
    """The node that dropped it."""
    copy_of: int | None = None
    """The number of the packet that a link made this one of."""
    hops: int = 0

    @property
    def size(self) -> int:
        """Bytes of payload."""
        return len(self.data)

    @property
    def ip_size(self) -> int:
        """Bytes of the IP packet."""
        ip = 40 if ":" in self.wire_destination[0] else 20
        if self.segment is not None:
            return ip + 20 + len(self.segment.payload)
        return ip + 8 + len(self.data)

    @property
    def delivered(self) -> bool:
        return self.receiver is not None

    def __str__(self) -> str:
        end = "travelling"
        if self.receiver is not None:
            end = f"{self.receiver} at {self.ended_at:.6f}"
        elif self.dropped is not None:
            end = f"dropped by {self.dropped_by}: {self.dropped} at {self.ended_at:.6f}"
        source, destination, wire_source, wire_destination = map(
            format_address,
            (self.source, self.destination, self.wire_source, self.wire_destination),
        )
        protocol = "" if self.protocol is Protocol.UDP else f"{self.protocol} "
        return (
            f"{self.sent_at:.6f} {self.sender} {protocol}{source} > {destination} "
            f"{self.size} bytes [{wire_source} > {wire_destination}] {end}"
        )


class Trace:
    """Every packet in the order sent."""

    def __init__(self) -> None:
        self.packets: list[PacketRecord] = []

    def __iter__(self) -> Iterator[PacketRecord]:
        return iter(self.packets)

    def __len__(self) -> int:
        return len(self.packets)

    def sent_by(self, host: str) -> list[PacketRecord]:
        return [p for p in self.packets if p.sender == host]

    def received_by(self, host: str) -> list[PacketRecord]:
        return [p for p in self.packets if p.receiver == host]

    def dropped(self, reason: DropReason | None = None) -> list[PacketRecord]:
        """The packets dropped, for any reason or for one."""
        return [p for p in self.packets if p.dropped is not None and reason in (None, p.dropped)]

    def between(self, sender: str, receiver: str) -> list[PacketRecord]:
        return [p for p in self.packets if p.sender == sender and p.receiver == receiver]

    def __str__(self) -> str:
        return "\n".join(map(str, self.packets))
