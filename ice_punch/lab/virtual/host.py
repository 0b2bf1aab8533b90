"""Hosts, their interfaces, and the machines that live on them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from ice_punch.datagram import Address, Transmit
from ice_punch.lab.links import Link
from ice_punch.lab.trace import DropReason, IcmpKind, PacketRecord, Protocol
from ice_punch.lab.virtual.node import VirtualNetwork, VirtualNode
from ice_punch.lab.virtual.stream import StreamEvent, StreamStack

if TYPE_CHECKING:
    from ice_punch.lab.virtual.attachment import Attachment
    from ice_punch.lab.virtual.internet import VirtualInternet


class Interface(VirtualNode):
    """One network card of a host, with any number of addresses."""

    def __init__(
        self,
        host: VirtualHost,
        network: VirtualNetwork,
        link: Link,
        addresses: tuple[str, ...],
    ) -> None:
        super().__init__(host.internet, host.name, network, link)
        self.host = host
        self.addresses = addresses
        for ip in addresses:
            network.add(ip, self)

    def accept(self, packet: PacketRecord) -> None:
        self.host.accept(packet, self)

    def transmit(self, packet: PacketRecord) -> None:
        if self.host.interface_of(packet.wire_destination[0]) is None:
            super().transmit(packet)
        else:  # what a host sends to itself never leaves it
            self._receive_later(packet)

    def hear(self, error: PacketRecord) -> None:
        self._receive_later(error)

    def _receive_later(self, packet: PacketRecord) -> None:
        internet = self.internet
        internet.at(internet.now, partial(self.accept, packet), flush=False)


class VirtualHost:
    """A host. Its machines send from any of its addresses, and receive at those."""

    def __init__(self, internet: VirtualInternet, name: str) -> None:
        self.internet = internet
        self.name = name
        self.interfaces: list[Interface] = []
        self.attachments: list[Attachment] = []
        self.rejects_strays = False
        """Whether a datagram to a port that nobody has is answered with ICMP port unreachable."""
        self.stream_users: list[Callable[[StreamEvent, float], None]] = []
        """Told everything that happens to the host's TCP connections."""
        self._streams: StreamStack | None = None
        self._streams_due: float | None = None

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(ip for interface in self.interfaces for ip in interface.addresses)

    @property
    def address(self) -> str:
        """The first IP address."""
        return self.interfaces[0].addresses[0]

    def interface_of(self, ip: str) -> Interface | None:
        return next((i for i in self.interfaces if ip in i.addresses), None)

    def send(self, transmit: Transmit) -> None:
        """Put a datagram on the wire. Raises ValueError where it would come from an address that
        this host has not."""
        data, local, destination = transmit
        interface = self.interface_of(local[0])
        if interface is None:
            raise ValueError(f"{self.name} has no address {local[0]} to send from")
        interface.transmit(self.internet.new_packet(self.name, bytes(data), local, destination))

    def accept(self, packet: PacketRecord, interface: Interface) -> None:
        internet = self.internet
        if packet.protocol is Protocol.ICMP:
            self._end(packet)
            self._accept_error(packet)
        elif packet.segment is not None:
            self._end(packet)
            streams = self.streams
            streams.receive_segment(
                packet.segment, packet.wire_source, packet.wire_destination, internet.now
            )
            self.flush_streams()
        else:
            attachment = self._listener(packet.wire_destination)
            if attachment is None:
                internet.drop(packet, DropReason.NO_LISTENER, self.name)
                if self.rejects_strays:
                    interface.complain(packet, IcmpKind.PORT_UNREACHABLE)
                return
            self._end(packet)
            refused = attachment.receive(packet.data, packet.wire_source, packet.wire_destination)
            if refused is not None:
                packet.receiver = None
                internet.drop(packet, refused, self.name)

    def _listener(self, address: Address) -> Attachment | None:
        listening = [a for a in self.attachments if a.listens_at(address)]
        # Who asked for the very port comes before who takes everything.
        return min(listening, key=lambda a: a.ports is None, default=None)

    def _end(self, packet: PacketRecord) -> None:
        packet.receiver = self.name
        packet.ended_at = self.internet.now

    def _accept_error(self, packet: PacketRecord) -> None:
        error = packet.error
        if error is None:
            return
        now = self.internet.now
        if error.protocol is Protocol.TCP:
            if error.kind is IcmpKind.TOO_BIG:
                self.streams.receive_too_big(error.source, error.destination, error.mtu, now)
            else:
                self.streams.receive_unreachable(error.source, error.destination, now)
            self.flush_streams()
        elif error.kind is IcmpKind.PORT_UNREACHABLE:
            attachment = self._listener(error.source)
            if attachment is not None:
                attachment.receive_icmp_error(error.source, error.destination)

    # -- TCP ----------------------------------------------------------------------------------

    @property
    def streams(self) -> StreamStack:
        """The host's TCP."""
        if self._streams is None:
            self._streams = StreamStack(self.internet.random(f"{self.name} streams"))
        return self._streams

    def wake_streams(self) -> None:
        """:meth:`flush_streams`, as the next thing that happens."""
        self.internet.at(self.internet.now, self.flush_streams, flush=False)

    def flush_streams(self) -> None:
        """Put on the wire what TCP wants to send, and note when it wants to be called."""
        streams = self._streams
        if streams is None:
            return
        internet = self.internet
        while (event := streams.next_event()) is not None:
            for user in self.stream_users:
                user(event, internet.now)
        for segment, local, destination in streams.segments_to_send(internet.now):
            interface = self.interface_of(local[0])
            if interface is None:
                continue
            packet = internet.new_packet(
                self.name, segment.payload, local, destination, protocol=Protocol.TCP
            )
            packet.segment = segment
            interface.transmit(packet)
        due = streams.get_timer()
        if due is not None and due != self._streams_due:
            internet.at(max(due, internet.now), lambda: self._streams_timer(due), flush=False)
        self._streams_due = due

    def _streams_timer(self, due: float) -> None:
        if due == self._streams_due and self._streams is not None:
            self._streams_due = None
            self._streams.handle_timer(self.internet.now)
            self.flush_streams()
