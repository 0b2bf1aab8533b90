"""A virtual internet in virtual time: a pure function of topology, machines and seed."""

from __future__ import annotations

import heapq
import ipaddress
import math
import random
from collections.abc import Callable, Iterable
from typing import Final

from ice_punch.datagram import Address
from ice_punch.errors import InvalidConfiguration
from ice_punch.lab.behaviour import NatBehaviour, NatKind
from ice_punch.lab.links import IDEAL, AccessLink, Link, LinkProfile
from ice_punch.lab.trace import DropReason, PacketRecord, Protocol, Trace
from ice_punch.lab.virtual.attachment import Attachment, DatagramMachine, EventHandler
from ice_punch.lab.virtual.firewall import StatefulFirewall
from ice_punch.lab.virtual.gateway import Gateway, VirtualNat
from ice_punch.lab.virtual.host import Interface, VirtualHost
from ice_punch.lab.virtual.node import VirtualNetwork, VirtualNode
from ice_punch.lab.virtual.translation import TranslationTable

__all__ = ["VirtualHost", "VirtualInternet", "VirtualNat", "VirtualNetwork", "VirtualNode"]

Action = Callable[[], None]

MAX_PACKETS: Final = 1_000_000
"""In one trace. Two machines that answer each other's answers get there without time passing."""


class VirtualInternet:
    """The internet itself, its clock and its queue of events.

    Every node hangs on its network by one link, so a path between two public nodes takes the
    delay of both their links. Links are given as a :class:`LinkProfile` for both directions, with
    ``downlink`` where they differ, or as an :class:`AccessLink`.
    """

    def __init__(
        self, seed: int = 0, *, start: float = 0.0, max_packets: int = MAX_PACKETS
    ) -> None:
        """Raises :class:`InvalidConfiguration` for a start that is no time."""
        if not math.isfinite(start):
            raise InvalidConfiguration(f"time does not start at {start}")
        self.max_packets = max_packets
        self.seed = seed
        self.now = start
        self.trace = Trace()
        self.public = VirtualNetwork(self, "public internet")
        self.hosts: list[VirtualHost] = []
        self._queue: list[tuple[float, int, Action, bool]] = []
        self._sequence = 0
        self._names: set[str] = set()

    def random(self, name: str) -> random.Random:
        """A source of randomness that depends on the seed and ``name`` only."""
        return random.Random(f"{self.seed}/{name}")  # noqa: S311

    # -- what there is ------------------------------------------------------------------------

    def host(
        self,
        name: str,
        *addresses: str,
        behind: Gateway | None = None,
        link: LinkProfile | AccessLink = IDEAL,
        downlink: LinkProfile | None = None,
    ) -> VirtualHost:
        """A new host with one interface, public or in the inside network of a gateway.

        Raises :class:`InvalidConfiguration` for a name or an address that is taken or malformed.
        """
        if not addresses:
            raise InvalidConfiguration(f"the host {name} needs an address")
        made = VirtualHost(self, name)
        self._interface(made, name, addresses, behind, link, downlink)
        self.hosts.append(made)
        return made

    def interface(
        self,
        host: VirtualHost,
        *addresses: str,
        behind: Gateway | None = None,
        link: LinkProfile | AccessLink = IDEAL,
        downlink: LinkProfile | None = None,
    ) -> Interface:
        """One more interface of a host. Raises like :meth:`host`."""
        name = f"{host.name} {len(host.interfaces) + 1}"
        if not addresses:
            raise InvalidConfiguration(f"the interface {name} needs an address")
        return self._interface(host, name, addresses, behind, link, downlink)

    def nat(
        self,
        name: str,
        address: str,
        behaviour: NatBehaviour | NatKind = NatKind.PORT_RESTRICTED,
        *,
        behind: Gateway | None = None,
        link: LinkProfile | AccessLink = IDEAL,
        downlink: LinkProfile | None = None,
        firewall: StatefulFirewall | None = None,
    ) -> Gateway:
        """A new NAT with the outside address ``address``, or as many from there on as it has.

        Hosts say ``behind=`` it. ``firewall`` is for the IPv6 that goes past the NAT. Raises
        :class:`InvalidConfiguration` like :meth:`host`, and for the kind ``none``.
        """
        table = self._table(name, address, behaviour)
        return self._gateway(name, behind, link, downlink, table=table, firewall=firewall)

    def nat64(
        self,
        name: str,
        address: str,
        behaviour: NatBehaviour | NatKind = NatKind.PORT_RESTRICTED,
        *,
        prefix: str | None = None,
        behind: Gateway | None = None,
        link: LinkProfile | AccessLink = IDEAL,
        downlink: LinkProfile | None = None,
        firewall: StatefulFirewall | None = None,
    ) -> Gateway:
        """A new NAT64 with the outside IPv4 address ``address``; ``prefix`` is the inside IPv6
        prefix where IPv6 itself gets out as well. Raises like :meth:`nat`."""
        table = self._table(name, address, behaviour)
        made = self._gateway(name, behind, link, downlink, nat64=table, firewall=firewall)
        if prefix is not None:
            made.network.add_route(prefix, made)
        return made

    def router(
        self,
        name: str,
        *prefixes: str,
        behind: Gateway | None = None,
        link: LinkProfile | AccessLink = IDEAL,
        downlink: LinkProfile | None = None,
        firewall: StatefulFirewall | None = None,
    ) -> Gateway:
        """A new router to the inside ``prefixes``, with or without a firewall. Raises like
        :meth:`host`."""
        made = self._gateway(name, behind, link, downlink, firewall=firewall)
        for prefix in prefixes:
            made.network.add_route(prefix, made)
        return made

    def attach(
        self,
        host: VirtualHost,
        machine: DatagramMachine,
        *,
        on_event: EventHandler | None = None,
        ports: Iterable[int] | None = None,
        ips: Iterable[str] | None = None,
    ) -> Attachment:
        """Let ``machine`` live on ``host``, on the given ports or on all that nobody else has, of
        all its IP addresses or of the given ones.

        With ``on_event`` the machine's events are taken from it and passed on as
        ``on_event(now, event)``; without, they stay in the machine for the caller to fetch.
        """
        chosen = None if ports is None else frozenset(ports)
        where = None if ips is None else frozenset(ips)
        attachment = Attachment(host, machine, on_event, chosen, where)
        host.attachments.append(attachment)
        self.at(self.now, attachment.flush, flush=False)
        return attachment

    # -- time ---------------------------------------------------------------------------------

    def at(self, time: float, action: Action, *, flush: bool = True) -> None:
        """Call ``action`` at ``time``; afterwards, unless told not to, flush every machine.

        Raises ValueError for a time that has passed or is none.
        """
        if not time >= self.now:
            raise ValueError(f"{time} has passed, it is {self.now}")
        self._sequence += 1
        heapq.heappush(self._queue, (time, self._sequence, action, flush))

    def after(self, delay: float, action: Action) -> None:
        """:meth:`at`, ``delay`` seconds from now."""
        self.at(self.now + delay, action)

    def flush(self) -> None:
        """Flush every machine, after the caller did something to one outside :meth:`at`."""
        for host in self.hosts:
            for attachment in host.attachments:
                attachment.flush()
            host.flush_streams()

    def run(self, until: float, stop: Callable[[], bool] | None = None) -> bool:
        """Let time pass up to and including ``until``.

        Returns ``True`` as soon as ``stop()``, asked after every event, does; the clock then
        shows when that was. Raises ValueError for a time that never comes, and
        :class:`InvalidConfiguration` past ``max_packets``.
        """
        if not math.isfinite(until):
            raise ValueError(f"time does not pass until {until}")
        self.flush()
        if stop is not None and stop():
            return True
        while self._queue and self._queue[0][0] <= until:
            time, _, action, flush = heapq.heappop(self._queue)
            self.now = max(self.now, time)
            action()
            if flush:
                self.flush()
            if stop is not None and stop():
                return True
        self.now = max(self.now, until)
        return False

    # -- packets ------------------------------------------------------------------------------

    def new_packet(
        self,
        sender: str,
        data: bytes,
        source: Address,
        destination: Address,
        *,
        protocol: Protocol = Protocol.UDP,
    ) -> PacketRecord:
        if len(self.trace) >= self.max_packets:
            raise InvalidConfiguration(
                f"more than {self.max_packets} packets, the last from {sender}, at {self.now:g} s"
            )
        packet = PacketRecord(
            len(self.trace),
            self.now,
            sender,
            source,
            destination,
            data,
            source,
            destination,
            protocol,
        )
        self.trace.packets.append(packet)
        return packet

    def copy(self, packet: PacketRecord) -> PacketRecord:
        """A link made two of one."""
        made = self.new_packet(
            packet.sender,
            packet.data,
            packet.source,
            packet.destination,
            protocol=packet.protocol,
        )
        made.sent_at = packet.sent_at
        made.wire_source, made.wire_destination = packet.wire_source, packet.wire_destination
        made.segment, made.error = packet.segment, packet.error
        made.copy_of, made.hops = packet.number, packet.hops
        return made

    def drop(self, packet: PacketRecord, reason: DropReason, node: str) -> None:
        packet.dropped = reason
        packet.dropped_by = node
        packet.ended_at = self.now

    # -- making -------------------------------------------------------------------------------

    def _interface(
        self,
        host: VirtualHost,
        name: str,
        addresses: tuple[str, ...],
        behind: Gateway | None,
        link: LinkProfile | AccessLink,
        downlink: LinkProfile | None,
    ) -> Interface:
        network = self.public if behind is None else behind.inside
        canonical = tuple(map(_canonical, addresses))
        made = Interface(host, network, self._link(name, link, downlink), canonical)
        host.interfaces.append(made)
        return made

    def _table(
        self, name: str, address: str, behaviour: NatBehaviour | NatKind
    ) -> TranslationTable:
        resolved = behaviour.behaviour if isinstance(behaviour, NatKind) else behaviour
        if resolved is None:
            raise InvalidConfiguration("a NAT of the kind none is no NAT")
        ip = _canonical(address)
        if ":" in ip:
            raise InvalidConfiguration(f"the outside of a NAT is IPv4: {ip}")
        if int(ipaddress.IPv4Address(ip)) + resolved.external_addresses > 2**32:
            raise InvalidConfiguration(
                f"there are no {resolved.external_addresses} addresses from {ip} on"
            )
        return TranslationTable(ip, resolved, source=self.random(f"{name} table"))

    def _gateway(
        self,
        name: str,
        behind: Gateway | None,
        link: LinkProfile | AccessLink,
        downlink: LinkProfile | None,
        *,
        table: TranslationTable | None = None,
        firewall: StatefulFirewall | None = None,
        nat64: TranslationTable | None = None,
    ) -> Gateway:
        network = self.public if behind is None else behind.inside
        return Gateway(
            self,
            name,
            network,
            self._link(name, link, downlink),
            table=table,
            firewall=firewall,
            nat64=nat64,
        )

    def _link(
        self, name: str, link: LinkProfile | AccessLink, downlink: LinkProfile | None
    ) -> Link:
        if name in self._names:
            raise InvalidConfiguration(f"two nodes have the name {name}")
        self._names.add(name)
        if isinstance(link, LinkProfile):
            link = AccessLink(link, link if downlink is None else downlink)
        return Link(link, self.random(f"{name} up"), self.random(f"{name} down"))


def _canonical(ip: str) -> str:
    try:
        return str(ipaddress.ip_address(ip))
    except ValueError as error:
        raise InvalidConfiguration(f"not an IP address: {ip}") from error
