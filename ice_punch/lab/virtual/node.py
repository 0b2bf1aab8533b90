"""Networks, and what hangs on them by a link."""

from __future__ import annotations

import ipaddress
from functools import partial
from typing import TYPE_CHECKING

from ice_punch.errors import InvalidConfiguration
from ice_punch.lab.links import Link, LinkDirection, LinkProfile
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

    def complain(self, packet: PacketRecord, kind: IcmpKind) -> None:
        """Tell the sender of a packet that came down the link that it went no further."""
        error = self._error_about(packet, kind)
        if error is not None:
            self.transmit(error)

    def hear(self, error: PacketRecord) -> None:
        """ICMP has something to say of a packet that was about to go up the link."""
        raise NotImplementedError

    def _error_about(
        self, packet: PacketRecord, kind: IcmpKind, mtu: int = 0
    ) -> PacketRecord | None:
        """None for an error, about which there are none (RFC 1122 section 3.2.2)."""
        if packet.protocol is Protocol.ICMP:
            return None
        source, destination = packet.wire_source, packet.wire_destination
        made = self.internet.new_packet(self.name, b"", destination, source, protocol=Protocol.ICMP)
        made.error = IcmpError(kind, packet.protocol, source, destination, mtu)
        return made

    def _pass(self, packet: PacketRecord, direction: LinkDirection, *, into_network: bool) -> None:
        internet = self.internet
        if not self.up:
            internet.drop(packet, DropReason.LINK_DOWN, self.name)
            return
        passage = direction.carry(packet.ip_size, internet.now)
        if not passage.arrivals:
            internet.drop(packet, _WHY[passage.why], self.name)
            if passage.why == "too big":
                self._tell_mtu(packet, direction.profile, into_network=into_network)
            return
        # What follows translates the packet, so its copies come first.
        arriving = [packet, *(internet.copy(packet) for _ in passage.arrivals[1:])]
        onward = self.network.route if into_network else self.accept
        for arrived, arrival in zip(arriving, passage.arrivals, strict=True):
            if into_network and arrival == internet.now:
                onward(arrived)
            else:
                internet.at(arrival, partial(onward, arrived), flush=False)

    def _tell_mtu(self, packet: PacketRecord, link: LinkProfile, *, into_network: bool) -> None:
        """Whoever stands where the packet would have entered the link says so."""
        assert link.mtu is not None
        error = self._error_about(packet, IcmpKind.TOO_BIG, link.mtu) if link.tells_mtu else None
        if error is None:
            return
        if into_network:
            self.hear(error)
        else:
            self.network.route(error)


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

    def route(self, packet: PacketRecord, *, inbound: bool = False) -> None:
        """Bring a packet to the node that has its destination, or out through the gateway, unless
        it is ``inbound`` from there."""
        packet.hops += 1
        if packet.hops > MAX_HOPS:
            self.internet.drop(packet, DropReason.HOPS, self.name)
            return
        ip = packet.wire_destination[0]
        node = self.nodes.get(ip) or self._next_hop(ip)
        if node is not None:
            node.take(packet)
        elif self.gateway is not None and not inbound:
            self.gateway.outbound(packet)
        else:
            self.internet.drop(packet, DropReason.NO_ROUTE, self.name)

    def _next_hop(self, ip: str) -> VirtualNode | None:
        if not self._routes:
            return None
        try:
            address = ipaddress.ip_address(ip)
        except ValueError:
            return None
        for prefix, node in self._routes:
            if address.version == prefix.version and address in prefix:
                return node
        return None
