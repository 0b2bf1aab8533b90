"""Relays of the virtual internet: what a TURN allocation does to packets, without the protocol.

A packet between client and relay is one record in the trace and the packet between relay and peer
another; the former carries the peer's address in ``PacketRecord.peer``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ice_punch.datagram import Address, Transmit
from ice_punch.lab.trace import DropReason, PacketRecord

if TYPE_CHECKING:
    from ice_punch.lab.virtual.attachment import Attachment
    from ice_punch.lab.virtual.internet import VirtualHost

FIRST_RELAYED_PORT = 49152
"""RFC 8656 section 7.2."""
CLIENT_PORT = 61000


class VirtualRelay:
    """One allocation. Its client sends from ``address`` and gets what is sent there.

    Whoever the client has sent to may answer (RFC 8656 section 9: permissions are for IP
    addresses). The client's own packets cross its NAT like any others.
    """

    def __init__(
        self, server: VirtualHost, client: Attachment, address: Address, server_address: Address
    ) -> None:
        self.server = server
        self.client = client
        self.address = address
        self.server_address = server_address
        self.client_address: Address = (client.host.address, CLIENT_PORT + len(client.host.relays))
        self.permissions: set[str] = set()
        self._mapped: Address | None = None

    def send(self, transmit: Transmit) -> None:
        """From the client, towards the relay."""
        host = self.client.host
        packet = host.internet.new_packet(
            host.name, bytes(transmit.data), self.client_address, self.server_address
        )
        packet.peer = transmit.destination
        host.transmit(packet)

    def accept_from_client(self, packet: PacketRecord) -> None:
        """At the server: pass on to the peer."""
        assert packet.peer is not None
        self._end(packet)
        self._mapped = packet.wire_source
        self.permissions.add(packet.peer[0])
        onward = self.server.internet.new_packet(
            self.server.name, packet.data, self.address, packet.peer
        )
        self.server.transmit(onward)

    def accept_from_peer(self, packet: PacketRecord) -> None:
        """At the server: pass on to the client."""
        internet = self.server.internet
        if self._mapped is None or packet.wire_source[0] not in self.permissions:
            internet.drop(packet, DropReason.NO_PERMISSION, self.server.name)
            return
        self._end(packet)
        onward = internet.new_packet(
            self.server.name, packet.data, self.server_address, self._mapped
        )
        onward.peer = packet.wire_source
        self.server.transmit(onward)

    def accept_at_client(self, packet: PacketRecord) -> None:
        assert packet.peer is not None
        packet.receiver = self.client.host.name
        packet.ended_at = self.client.host.internet.now
        self.client.receive(packet.data, packet.peer, self.address)

    def _end(self, packet: PacketRecord) -> None:
        packet.receiver = self.server.name
        packet.ended_at = self.server.internet.now
