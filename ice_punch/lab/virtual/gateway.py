"""What stands between an inside network and an outside one: router, NAT, firewall, NAT64."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ice_punch.datagram import Address
from ice_punch.lab.behaviour import EarlyInbound
from ice_punch.lab.links import Link
from ice_punch.lab.trace import DropReason, IcmpError, IcmpKind, PacketRecord, Protocol
from ice_punch.lab.virtual.firewall import StatefulFirewall
from ice_punch.lab.virtual.nat64 import embed, extract
from ice_punch.lab.virtual.node import VirtualNetwork, VirtualNode
from ice_punch.lab.virtual.segment import Segment
from ice_punch.lab.virtual.translation import TranslationTable

if TYPE_CHECKING:
    from ice_punch.lab.virtual.internet import VirtualInternet

_REFUSALS = (DropReason.FILTERED, DropReason.NO_MAPPING)


class Gateway(VirtualNode):
    """A router whose link leads outside. What it does to IPv4 and to IPv6 is up to its parts:
    a translation table for IPv4, a firewall for whatever is not translated, and another table
    that takes IPv6 to IPv4. Without any part it routes."""

    def __init__(
        self,
        internet: VirtualInternet,
        name: str,
        network: VirtualNetwork,
        link: Link,
        *,
        table: TranslationTable | None = None,
        firewall: StatefulFirewall | None = None,
        nat64: TranslationTable | None = None,
    ) -> None:
        super().__init__(internet, name, network, link)
        self.translation = table
        self.firewall = firewall
        self.nat64 = nat64
        self.inside = VirtualNetwork(internet, f"{name} inside", gateway=self)
        for translation in (table, nat64):
            for ip in translation.external_ips if translation is not None else ():
                network.add(ip, self)

    @property
    def table(self) -> TranslationTable:
        """The IPv4 translation table of a NAT."""
        assert self.translation is not None
        return self.translation

    @property
    def address(self) -> str:
        """The (first) outside IP address of a NAT."""
        return self.table.external_ip

    def reboot(self) -> None:
        """Forget every mapping, filter and connection."""
        for part in (self.translation, self.nat64, self.firewall):
            if part is not None:
                part.forget()

    def rebind(self) -> None:
        """Move every mapping to a new port."""
        for part in (self.translation, self.nat64):
            if part is not None:
                part.rebind()

    # -- from inside --------------------------------------------------------------------------

    def outbound(self, packet: PacketRecord) -> None:
        source, destination = packet.wire_source, packet.wire_destination
        ipv6 = ":" in destination[0]
        if packet.protocol is Protocol.ICMP:
            self._icmp_outbound(packet)
        elif ipv6 and self.nat64 is not None and (ipv4 := extract(destination[0])) is not None:
            self._to_ipv4(packet, self.nat64, (ipv4, destination[1]))
        elif ipv6 or self.translation is None:
            self._through_firewall(packet)
        elif destination[0] in self.translation.external_ips:
            self._hairpin(packet, self.translation)
        else:
            translated = self.translation.outbound(
                source, destination, self.internet.now, packet.protocol
            )
            if isinstance(translated, DropReason):
                self.internet.drop(packet, translated, self.name)
                return
            packet.wire_source = translated
            self.transmit(packet)

    def _to_ipv4(self, packet: PacketRecord, table: TranslationTable, destination: Address) -> None:
        translated = table.outbound(
            packet.wire_source, destination, self.internet.now, packet.protocol
        )
        if isinstance(translated, DropReason):
            self.internet.drop(packet, translated, self.name)
            return
        packet.wire_source, packet.wire_destination = translated, destination
        self.transmit(packet)

    def _through_firewall(self, packet: PacketRecord) -> None:
        if self.firewall is not None:
            reason = self.firewall.outbound(
                packet.protocol, packet.wire_source, packet.wire_destination, self.internet.now
            )
            if reason is not None:
                self.internet.drop(packet, reason, self.name)
                return
        self.transmit(packet)

    def _hairpin(self, packet: PacketRecord, table: TranslationTable) -> None:
        turned = table.hairpin(
            packet.wire_source, packet.wire_destination, self.internet.now, packet.protocol
        )
        if isinstance(turned, DropReason):
            self.internet.drop(packet, turned, self.name)
            return
        packet.wire_source, packet.wire_destination = turned
        self.inside.route(packet)

    def _icmp_outbound(self, packet: PacketRecord) -> None:
        """What hosts inside complain of goes out as it is, about the packet as it came in."""
        error = packet.error
        table = self.translation
        if error is None or table is None or ":" in packet.wire_destination[0]:
            self.transmit(packet)
            return
        external = table.outbound(
            error.destination, error.source, self.internet.now, error.protocol
        )
        if isinstance(external, DropReason):
            self.internet.drop(packet, external, self.name)
            return
        packet.wire_source = external
        packet.error = IcmpError(error.kind, error.protocol, error.source, external, error.mtu)
        self.transmit(packet)

    # -- from outside -------------------------------------------------------------------------

    def accept(self, packet: PacketRecord) -> None:
        ip = packet.wire_destination[0]
        if packet.protocol is Protocol.ICMP:
            self._icmp_inbound(packet)
        elif self.translation is not None and ip in self.translation.external_ips:
            self._translate_inbound(packet, self.translation)
        elif self.nat64 is not None and ip in self.nat64.external_ips:
            source = packet.wire_source
            if self._translate_inbound(packet, self.nat64, route=False):
                packet.wire_source = (embed(source[0]), source[1])
                self.inside.route(packet)
        elif self.firewall is not None and (
            reason := self.firewall.inbound(
                packet.protocol, packet.wire_source, packet.wire_destination, self.internet.now
            )
        ):
            self.internet.drop(packet, reason, self.name)
        else:
            self.inside.route(packet)

    def _translate_inbound(
        self, packet: PacketRecord, table: TranslationTable, *, route: bool = True
    ) -> bool:
        internal = table.inbound(
            packet.wire_source, packet.wire_destination, self.internet.now, packet.protocol
        )
        if isinstance(internal, DropReason):
            self.internet.drop(packet, internal, self.name)
            if internal in _REFUSALS:
                self._refuse(packet, table.behaviour.early_inbound)
            return False
        packet.wire_destination = internal
        if route:
            self.inside.route(packet)
        return True

    def _refuse(self, packet: PacketRecord, how: EarlyInbound) -> None:
        if how in (EarlyInbound.REJECT, EarlyInbound.CLAIM):
            self.complain(packet, IcmpKind.PORT_UNREACHABLE)
        elif how is EarlyInbound.RESET and packet.segment is not None:
            reset = Segment.reset_for(packet.segment)
            if reset is not None:
                answer = self.internet.new_packet(
                    self.name,
                    b"",
                    packet.wire_destination,
                    packet.wire_source,
                    protocol=Protocol.TCP,
                )
                answer.segment = reset
                self.transmit(answer)

    def return_to_sender(self, packet: PacketRecord) -> None:
        """A complaint goes back the way that the packet came from."""
        inside = packet.wire_destination[0] in self.inside.nodes
        if inside:
            self.inside.route(packet)
        else:
            self.transmit(packet)

    def _icmp_inbound(self, packet: PacketRecord) -> None:
        """RFC 5508 section 4: to whoever sent the packet that the error is about."""
        error = packet.error
        if error is None:
            self.internet.drop(packet, DropReason.NO_MAPPING, self.name)
            return
        ip = error.source[0]
        for table in (self.translation, self.nat64):
            if table is None or ip not in table.external_ips:
                continue
            internal = table.internal_of(error.protocol, error.source)
            if internal is None:
                self.internet.drop(packet, DropReason.NO_MAPPING, self.name)
                return
            destination = error.destination
            if table is self.nat64:
                destination = (embed(destination[0]), destination[1])
            packet.error = IcmpError(error.kind, error.protocol, internal, destination, error.mtu)
            packet.wire_destination = internal
            break
        self.inside.route(packet)


VirtualNat = Gateway
"""A gateway with a translation table."""
