"""A virtual internet in virtual time: a pure function of topology, machines and seed."""

from __future__ import annotations

import heapq
import ipaddress
import random
from collections.abc import Callable, Iterable

from ice_punch.datagram import Address, Transmit
from ice_punch.errors import InvalidConfiguration
from ice_punch.lab.behaviour import NatBehaviour, NatKind
from ice_punch.lab.links import IDEAL, Link, LinkProfile
from ice_punch.lab.trace import DropReason, PacketRecord, Trace
from ice_punch.lab.virtual.attachment import Attachment, DatagramMachine, EventHandler
from ice_punch.lab.virtual.relay import FIRST_RELAYED_PORT, VirtualRelay
from ice_punch.lab.virtual.translation import TranslationTable

Action = Callable[[], None]


class VirtualNode:
    """Anything with a link to a network."""

    def __init__(
        self, internet: VirtualInternet, name: str, network: VirtualNetwork, link: Link
    ) -> None:
        self.internet = internet
        self.name = name
        self.network = network
        self.link = link

    def transmit(self, packet: PacketRecord) -> None:
        """Send a packet up this node's link, into its network."""
        internet = self.internet
        arrival = self.link.up.arrival(internet.now)
        if arrival is None:
            internet.drop(packet, DropReason.LOST, self.name)
        elif arrival == internet.now:
            self.network.route(packet)
        else:
            internet.at(arrival, lambda: self.network.route(packet), flush=False)

    def take(self, packet: PacketRecord) -> None:
        """Bring a packet down this node's link, to the node."""
        internet = self.internet
        arrival = self.link.down.arrival(internet.now)
        if arrival is None:
            internet.drop(packet, DropReason.LOST, self.name)
        else:
            internet.at(arrival, lambda: self.accept(packet), flush=False)

    def accept(self, packet: PacketRecord) -> None:
        raise NotImplementedError


class VirtualHost(VirtualNode):
    """A host with one link and any number of addresses."""

    def __init__(
        self,
        internet: VirtualInternet,
        name: str,
        network: VirtualNetwork,
        link: Link,
        addresses: tuple[str, ...],
    ) -> None:
        super().__init__(internet, name, network, link)
        self.addresses = addresses
        self.attachments: list[Attachment] = []
        self.relays: dict[Address, VirtualRelay] = {}
        """The relays that this host is a client of, by relayed address."""
        self._served: dict[Address, VirtualRelay] = {}

    @property
    def address(self) -> str:
        """The first IP address."""
        return self.addresses[0]

    def send(self, transmit: Transmit) -> None:
        """Put a datagram on the wire."""
        data, local, destination = transmit
        if local in self.relays:
            self.relays[local].send(transmit)
            return
        if local[0] not in self.addresses:
            raise ValueError(f"{self.name} has no address {local[0]} to send from")
        packet = self.internet.new_packet(self.name, bytes(data), local, destination)
        self.transmit(packet)

    def allocate(self, client: Attachment, server_port: int = 3478) -> VirtualRelay:
        """Relay for a machine elsewhere: it may send from the new relay's ``address``."""
        address = (self.address, FIRST_RELAYED_PORT + len(self._served))
        relay = VirtualRelay(self, client, address, (self.address, server_port))
        self._served[address] = client.host.relays[address] = relay
        return relay

    def accept(self, packet: PacketRecord) -> None:
        served = self._served.get(packet.wire_destination)
        if served is not None:
            served.accept_from_peer(packet)
        elif packet.peer is not None:
            self._accept_relayed(packet)
        else:
            self._accept_datagram(packet)

    def _accept_relayed(self, packet: PacketRecord) -> None:
        for relay in self._served.values():
            if packet.source == relay.client_address and packet.sender == relay.client.host.name:
                relay.accept_from_client(packet)
                return
        for relay in self.relays.values():
            if packet.wire_destination == relay.client_address:
                relay.accept_at_client(packet)
                return

    def _accept_datagram(self, packet: PacketRecord) -> None:
        port = packet.wire_destination[1]
        fallback: Attachment | None = None
        for attachment in self.attachments:
            if attachment.ports is None:
                fallback = fallback or attachment
            elif port in attachment.ports:
                fallback = attachment
                break
        if fallback is None:
            self.internet.drop(packet, DropReason.NO_LISTENER, self.name)
            return
        packet.receiver = self.name
        packet.ended_at = self.internet.now
        fallback.receive(packet.data, packet.wire_source, packet.wire_destination)


class VirtualNat(VirtualNode):
    """A NAT between ``inside`` and the network that its link leads to."""

    def __init__(
        self,
        internet: VirtualInternet,
        name: str,
        network: VirtualNetwork,
        link: Link,
        address: str,
        behaviour: NatBehaviour,
    ) -> None:
        super().__init__(internet, name, network, link)
        self.address = address
        self.table = TranslationTable(address, behaviour)
        self.inside = VirtualNetwork(internet, f"{name} inside", gateway=self)

    def outbound(self, packet: PacketRecord) -> None:
        translated = self.table.outbound(packet.wire_source, packet.wire_destination)
        if isinstance(translated, DropReason):
            self.internet.drop(packet, translated, self.name)
            return
        packet.wire_source = translated
        self.transmit(packet)

    def accept(self, packet: PacketRecord) -> None:
        translated = self.table.inbound(packet.wire_source, packet.wire_destination)
        if isinstance(translated, DropReason):
            self.internet.drop(packet, translated, self.name)
            return
        packet.wire_destination = translated
        self.inside.route(packet)


class VirtualNetwork:
    """An address space: nodes reach each other in it, and what lies outside through the gateway."""

    def __init__(
        self, internet: VirtualInternet, name: str, gateway: VirtualNat | None = None
    ) -> None:
        self.internet = internet
        self.name = name
        self.gateway = gateway
        self.nodes: dict[str, VirtualNode] = {}

    def add(self, ip: str, node: VirtualNode) -> None:
        if ip in self.nodes:
            raise InvalidConfiguration(f"{self.name} has two nodes with the address {ip}")
        self.nodes[ip] = node

    def route(self, packet: PacketRecord) -> None:
        node = self.nodes.get(packet.wire_destination[0])
        if node is not None:
            node.take(packet)
        elif self.gateway is not None:
            self.gateway.outbound(packet)
        else:
            self.internet.drop(packet, DropReason.NO_ROUTE, self.name)


class VirtualInternet:
    """The internet itself, its clock and its queue of events.

    Every node hangs on its network by one link, so a path between two public nodes takes the
    delay of both their links.
    """

    def __init__(self, seed: int = 0, *, start: float = 0.0) -> None:
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

    def host(
        self,
        name: str,
        *addresses: str,
        behind: VirtualNat | None = None,
        link: LinkProfile = IDEAL,
        downlink: LinkProfile | None = None,
    ) -> VirtualHost:
        """A new host, public or in the private network of a NAT.

        ``link`` holds for both directions unless ``downlink`` differs. Raises
        :class:`InvalidConfiguration` for a name or an address that is taken or malformed.
        """
        network = self.public if behind is None else behind.inside
        if not addresses:
            raise InvalidConfiguration(f"the host {name} needs an address")
        canonical = tuple(map(_canonical, addresses))
        made = VirtualHost(self, name, network, self._link(name, link, downlink), canonical)
        for ip in canonical:
            network.add(ip, made)
        self.hosts.append(made)
        return made

    def nat(
        self,
        name: str,
        address: str,
        behaviour: NatBehaviour | NatKind = NatKind.PORT_RESTRICTED,
        *,
        behind: VirtualNat | None = None,
        link: LinkProfile = IDEAL,
        downlink: LinkProfile | None = None,
    ) -> VirtualNat:
        """A new NAT with the outside address ``address``; its hosts say ``behind=`` it.

        Raises :class:`InvalidConfiguration` like :meth:`host`, and for the kind ``none``.
        """
        resolved = behaviour.behaviour if isinstance(behaviour, NatKind) else behaviour
        if resolved is None:
            raise InvalidConfiguration("a NAT of the kind none is no NAT")
        network = self.public if behind is None else behind.inside
        ip = _canonical(address)
        made = VirtualNat(self, name, network, self._link(name, link, downlink), ip, resolved)
        network.add(ip, made)
        return made

    def attach(
        self,
        host: VirtualHost,
        machine: DatagramMachine,
        *,
        on_event: EventHandler | None = None,
        ports: Iterable[int] | None = None,
    ) -> Attachment:
        """Let ``machine`` live on ``host``, on the given ports or on all that nobody else has.

        With ``on_event`` the machine's events are taken from it and passed on as
        ``on_event(now, event)``; without, they stay in the machine for the caller to fetch.
        """
        chosen = None if ports is None else frozenset(ports)
        attachment = Attachment(host, machine, on_event, chosen)
        host.attachments.append(attachment)
        self.at(self.now, attachment.flush, flush=False)
        return attachment

    def at(self, time: float, action: Action, *, flush: bool = True) -> None:
        """Call ``action`` at ``time``; afterwards, unless told not to, flush every machine."""
        if time < self.now:
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

    def run(self, until: float, stop: Callable[[], bool] | None = None) -> bool:
        """Let time pass up to and including ``until``.

        Returns ``True`` as soon as ``stop()``, asked after every event, does; the clock then
        shows when that was.
        """
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

    def new_packet(
        self, sender: str, data: bytes, source: Address, destination: Address
    ) -> PacketRecord:
        packet = PacketRecord(
            len(self.trace), self.now, sender, source, destination, data, source, destination
        )
        self.trace.packets.append(packet)
        return packet

    def drop(self, packet: PacketRecord, reason: DropReason, node: str) -> None:
        packet.dropped = reason
        packet.dropped_by = node
        packet.ended_at = self.now

    def _link(self, name: str, up: LinkProfile, down: LinkProfile | None) -> Link:
        if name in self._names:
            raise InvalidConfiguration(f"two nodes have the name {name}")
        self._names.add(name)
        return Link(
            up, up if down is None else down, self.random(f"{name} up"), self.random(f"{name} down")
        )


def _canonical(ip: str) -> str:
    try:
        return str(ipaddress.ip_address(ip))
    except ValueError as error:
        raise InvalidConfiguration(f"not an IP address: {ip}") from error
