"""Networks, and what hangs on them by a link."""

from __future__ import annotations

import ipaddress
from functools import partial
from typing import TYPE_CHECKING

from ice_punch.errors import InvalidConfiguration
from ice_punch.lab.links import Link, LinkDirection
from ice_punch.lab.trace import DropReason, IcmpError, IcmpKind, PacketRecord, Protocol

if TYPE_CHECKING:
    from ice_punch.lab.virtual.gateway import Gateway
    from ice_punch.lab.virtual.internet import VirtualInternet

MAX_HOPS = 64
_WHY = {
    "lost": DropReason.LOST,
    "queue full": DropReason.QUEUE_FULL,
    "too big": DropReason.TOO_BIG,
}


class VirtualNode:
    """Anything with a link to a network."""

    def __init__(
        self, internet: VirtualInternet, name: str, network: VirtualNetwork, link: Link
    ) -> None:
        self.internet = internet
        self.name = name
        self.network = network
        self.link = link
        self.up = True
        """A link that is down loses everything."""

    def transmit(self, packet: PacketRecord) -> None:
        """Send a packet up this node's link, into its network."""
        self._pass(packet, self.link.up, into_network=True)

    def take(self, packet: PacketRecord) -> None:
        """Bring a packet down this node's link, to the node."""
        self._pass(packet, self.link.down, into_network=False)

    def accept(self, packet: PacketRecord) -> None:
        raise NotImplementedError

    def complain(self, packet: PacketRecord, kind: IcmpKind, mtu: int = 0) -> None:
        """Tell the sender of a packet by ICMP that it did not get through."""
        if packet.protocol is Protocol.ICMP:
            return
        error = IcmpError(kind, packet.protocol, packet.wire_source, packet.wire_destination, mtu)
        complaint = self.internet.new_packet(
            self.name, b"", packet.wire_destination, packet.wire_source, protocol=Protocol.ICMP
        )
        complaint.error = error
        self.return_to_sender(complaint)

    def return_to_sender(self, packet: PacketRecord) -> None:
        self.network.route(packet)

    def _pass(self, packet: PacketRecord, direction: LinkDirection, *, into_network: bool) -> None:
        internet = self.internet
        if not self.up:
            internet.drop(packet, DropReason.LINK_DOWN, self.name)
            return
        passage = direction.carry(packet.ip_size, internet.now)
        if not passage.arrivals:
            internet.drop(packet, _WHY[passage.why], self.name)
            if passage.why == "too big" and direction.profile.tells_mtu:
                assert direction.profile.mtu is not None
                self.complain(packet, IcmpKind.TOO_BIG, direction.profile.mtu)
            return
        for number, arrival in enumerate(passage.arrivals):
            arrived = packet if number == 0 else internet.copy(packet)
            onward = self.network.route if into_network else self.accept
            if into_network and arrival == internet.now:
                onward(arrived)
            else:
                internet.at(arrival, partial(onward, arrived), flush=False)


class VirtualNetwork:
    """An address space: nodes reach each other in it, and what lies outside through the gateway."""

    def __init__(
        self, internet: VirtualInternet, name: str, gateway: Gateway | None = None
    ) -> None:
        self.internet = internet
        self.name = name
        self.gateway = gateway
        self.nodes: dict[str, VirtualNode] = {}
        self._routes: list[tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, VirtualNode]] = []

    def add(self, ip: str, node: VirtualNode) -> None:
        if ip in self.nodes:
            raise InvalidConfiguration(f"{self.name} has two nodes with the address {ip}")
        self.nodes[ip] = node

    def add_route(self, prefix: str, node: VirtualNode) -> None:
        """What lies in ``prefix`` is reached through ``node``; the longest prefix wins."""
        try:
            network = ipaddress.ip_network(prefix)
        except ValueError as error:
            raise InvalidConfiguration(f"not a prefix: {prefix}") from error
        self._routes.append((network, node))
        self._routes.sort(key=lambda route: route[0].prefixlen, reverse=True)

    def route(self, packet: PacketRecord) -> None:
        """Bring a packet to the node that has its destination, or out through the gateway."""
        packet.hops += 1
        if packet.hops > MAX_HOPS:
            self.internet.drop(packet, DropReason.HOPS, self.name)
            return
        ip = packet.wire_destination[0]
        node = self.nodes.get(ip) or self._next_hop(ip)
        if node is not None:
            node.take(packet)
        elif self.gateway is not None:
            self.gateway.outbound(packet)
        else:
            self.internet.drop(packet, DropReason.NO_ROUTE, self.name)

    def _next_hop(self, ip: str) -> VirtualNode | None:
        if not self._routes:
            return None
        address = ipaddress.ip_address(ip)
        for prefix, node in self._routes:
            if address.version == prefix.version and address in prefix:
                return node
        return None
