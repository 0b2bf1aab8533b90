"""What happened to every packet of a virtual internet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from ice_punch.datagram import Address, format_address


class DropReason(StrEnum):
    LOST = "lost"
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


@dataclass(slots=True)
class PacketRecord:
    """One datagram from its sender to its end. Times are virtual seconds."""

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
    ended_at: float | None = None
    receiver: str | None = None
    """The host that got it; ``None`` while it travels and when it was dropped."""
    dropped: DropReason | None = None
    dropped_by: str | None = None
    """The node that dropped it."""
    peer: Address | None = None
    """Between a relay and its client: where the data comes from or goes to in the end."""

    @property
    def size(self) -> int:
        return len(self.data)

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
        return (
            f"{self.sent_at:.6f} {self.sender} {source} > {destination} "
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
