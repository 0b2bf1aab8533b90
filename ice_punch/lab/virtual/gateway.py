"""What stands between an inside network and an outside one: router, NAT, firewall, NAT64."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ice_punch.datagram import Address
from ice_punch.lab.behaviour import EarlyInbound
from ice_punch.lab.links import Link
from ice_punch.lab.trace import DropReason, IcmpError, IcmpKind, PacketRecord, Protocol
from ice_punch.lab.virtual.firewall import StatefulFirewall
from ice_punch.lab.virtual.nat64 import embedded, extract
from ice_punch.lab.virtual.node import VirtualNetwork, VirtualNode
from ice_punch.lab.virtual.segment import Segment
from ice_punch.lab.virtual.translation import TranslationTable

if TYPE_CHECKING:
    from ice_punch.lab.virtual.internet import VirtualInternet

HEADER_DIFFERENCE: Final = 20
"""Bytes by which an IPv6 header is longer: what NAT64 makes of an MTU (RFC 7915 section 4.2)."""
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
        if packet.protocol is Protocol.ICMP:
            self._icmp_outbound(packet)
            return
        table, destination = self._translator_to(packet.wire_destination)
        if table is None:
            self._through_firewall(packet)
        elif destination[0] in table.external_ips:
            self._hairpin(packet, table, destination)
        else:
            translated = table.outbound(
                packet.wire_source, destination, self.internet.now, packet.protocol
            )
            if isinstance(translated, DropReason):
                self.internet.drop(packet, translated, self.name)
                return
            packet.wire_source, packet.wire_destination = translated, destination
            self.transmit(packet)

    def _translator_to(self, destination: Address) -> tuple[TranslationTable | None, Address]:
        """What translates packets to there, if anything does, and where they go then."""
        if ":" not in destination[0]:
            return self.translation, destination
        ipv4 = None if self.nat64 is None else extract(destination[0])
        return (None, destination) if ipv4 is None else (self.nat64, (ipv4, destination[1]))

    def _through_firewall(self, packet: PacketRecord) -> None:
        if self.firewall is not None:
            reason = self.firewall.outbound(
                packet.protocol, packet.wire_source, packet.wire_destination, self.internet.now
            )
            if reason is not None:
                self.internet.drop(packet, reason, self.name)
                return
        self.transmit(packet)

    def _hairpin(self, packet: PacketRecord, table: TranslationTable, destination: Address) -> None:
        turned = table.hairpin(packet.wire_source, destination, self.internet.now, packet.protocol)
        if isinstance(turned, DropReason):
            self.internet.drop(packet, turned, self.name)
            if turned in _REFUSALS:
                self._refuse(packet, table.behaviour.early_inbound, self.inside.route)
            return
        source, packet.wire_destination = turned
        packet.wire_source = self._seen_inside(table, source)
        self.inside.route(packet)

    def _seen_inside(self, table: TranslationTable, source: Address) -> Address:
        return embedded(source) if table is self.nat64 and ":" not in source[0] else source

    def _icmp_outbound(self, packet: PacketRecord) -> None:
        """What is complained of inside goes out about the packet as it came in."""
        error = packet.error
        assert error is not None
        table, remote = self._translator_to(error.source)
        if table is None:
            self.transmit(packet)
            return
        external = table.external_of(error.protocol, error.destination, remote, self.internet.now)
        if external is None:
            self.internet.drop(packet, DropReason.NO_MAPPING, self.name)
            return
        mtu = max(0, error.mtu - HEADER_DIFFERENCE) if table is self.nat64 else error.mtu
        packet.error = IcmpError(error.kind, error.protocol, remote, external, mtu)
        packet.wire_source, packet.wire_destination = external, remote
        if remote[0] in table.external_ips:
            self._icmp_inbound(packet)
        else:
            self.transmit(packet)

    # -- from outside -------------------------------------------------------------------------

    def accept(self, packet: PacketRecord) -> None:
        if packet.protocol is Protocol.ICMP:
            self._icmp_inbound(packet)
            return
        table = self._translator_of(packet.wire_destination[0])
        if table is not None:
            self._translate_inbound(packet, table)
        elif self.firewall is not None and (
            reason := self.firewall.inbound(
                packet.protocol, packet.wire_source, packet.wire_destination, self.internet.now
            )
        ):
            self.internet.drop(packet, reason, self.name)
        else:
            self.inside.route(packet, inbound=True)

    def _translator_of(self, ip: str) -> TranslationTable | None:
        """Whose outside address that is."""
        for table in (self.translation, self.nat64):
            if table is not None and ip in table.external_ips:
                return table
        return None

    def _translate_inbound(self, packet: PacketRecord, table: TranslationTable) -> None:
        internal = table.inbound(
            packet.wire_source, packet.wire_destination, self.internet.now, packet.protocol
        )
        if isinstance(internal, DropReason):
            self.internet.drop(packet, internal, self.name)
            if internal in _REFUSALS:
                self._refuse(packet, table.behaviour.early_inbound, self.transmit)
            return
        packet.wire_source = self._seen_inside(table, packet.wire_source)
        packet.wire_destination = internal
        self.inside.route(packet, inbound=True)

    def _refuse(
        self, packet: PacketRecord, how: EarlyInbound, answer: Callable[[PacketRecord], None]
    ) -> None:
        if how in (EarlyInbound.REJECT, EarlyInbound.CLAIM):
            error = self._error_about(packet, IcmpKind.PORT_UNREACHABLE)
            if error is not None:
                answer(error)
        elif how is EarlyInbound.RESET and packet.segment is not None:
            segment = Segment.reset_for(packet.segment)
            if segment is not None:
                reset = self.internet.new_packet(
                    self.name,
                    b"",
                    packet.wire_destination,
                    packet.wire_source,
                    protocol=Protocol.TCP,
                )
                reset.segment = segment
                answer(reset)

    def hear(self, error: PacketRecord) -> None:
        self._icmp_inbound(error)

    def _icmp_inbound(self, packet: PacketRecord) -> None:
        """RFC 5508 section 4: to whoever sent the packet that the error is about."""
        error = packet.error
        assert error is not None
        source, destination, mtu = error.source, error.destination, error.mtu
        table = self._translator_of(source[0])
        if table is not None:
            internal = table.internal_of(error.protocol, source, self.internet.now)
            if internal is None:
                self.internet.drop(packet, DropReason.NO_MAPPING, self.name)
                return
            if table is self.nat64:
                mtu = mtu and mtu + HEADER_DIFFERENCE
            source, destination = internal, self._seen_inside(table, destination)
            packet.error = IcmpError(error.kind, error.protocol, source, destination, mtu)
            packet.wire_source = self._seen_inside(table, packet.wire_source)
            packet.wire_destination = internal
        elif self.firewall is not None and not self.firewall.knows(
            error.protocol, source, destination, self.internet.now
        ):
            self.internet.drop(packet, DropReason.FILTERED, self.name)
            return
        self.inside.route(packet, inbound=True)


VirtualNat = Gateway
"""A gateway with a translation table."""
