"""A TURN client, a server and peers in virtual time, on a network that can lose and delay."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ice_punch.datagram import Address, Transmit
from ice_punch.stun import MessageClass, Method, StunParseError, parse_message
from ice_punch.turn import TurnClient, TurnEvent, TurnServer

SERVER: Address = ("203.0.113.10", 3478)
SERVER_V6: Address = ("2001:db8::10", 3478)
CLIENT: Address = ("198.51.100.1", 50000)
PEER: Address = ("192.0.2.7", 7000)
OTHER_PEER: Address = ("192.0.2.8", 8000)
USERS = {"robot": "correct horse"}
ONE_WAY = 0.05


@dataclass
class Packet:
    """What was on the wire."""

    sent_at: float
    source: Address
    destination: Address
    data: bytes
    transport: str
    lost: bool = False

    @property
    def kind(self) -> str:
        """``ALLOCATE request``, ``channel data``, ``data`` and the like."""
        if self.data[:1] and self.data[0] & 0xF0 == 0x40:
            return "channel data"
        try:
            message = parse_message(self.data)
        except StunParseError:
            return "data"
        return f"{Method(message.method).name} {message.message_class.name.lower()}"


@dataclass
class PlainPeer:
    """Remembers what it got; ``echo`` sends it back."""

    address: Address
    echo: bool = False
    received: list[tuple[float, bytes, Address]] = field(default_factory=list)


class World:
    """``lose`` is asked for every packet, with its number from 0 on."""

    def __init__(
        self,
        server: TurnServer | None = None,
        *,
        seed: int = 1,
        one_way: float = ONE_WAY,
        lose: Callable[[int, Packet], bool] | None = None,
        server_address: Address = SERVER,
        **server_options: Any,
    ) -> None:
        self.now = 1000.0
        self.random = random.Random(seed)
        self.server_address = server_address
        self.server = server or make_server(random.Random(f"{seed} server"), **server_options)
        self.packets: list[Packet] = []
        self.lose = lose or (lambda number, packet: False)
        self.one_way = one_way
        self.clients: dict[Address, TurnClient] = {}
        self.transports: dict[Address, str] = {}
        self.events: dict[Address, list[tuple[float, TurnEvent]]] = {}
        self.peers: dict[Address, PlainPeer] = {}
        self._queue: list[tuple[float, int, Packet]] = []
        self._count = 0

    def client(
        self,
        address: Address = CLIENT,
        username: str | None = "robot",
        password: str | None = "correct horse",
        **options: Any,
    ) -> TurnClient:
        source = random.Random(f"{self.random.random()} {address}")
        client = TurnClient(
            self.server_address, address, username, password, source, self.now, **options
        )
        self.clients[address] = client
        self.transports[address] = options.get("transport", "udp")
        self.events[address] = []
        self.pump()
        return client

    def peer(self, address: Address = PEER, *, echo: bool = False) -> PlainPeer:
        peer = self.peers[address] = PlainPeer(address, echo)
        return peer

    def told(self, kind: type, address: Address = CLIENT) -> list[Any]:
        """The events of this kind that a client has told."""
        return [event for _, event in self.events[address] if isinstance(event, kind)]

    def kinds(self, since: int = 0) -> list[str]:
        return [packet.kind for packet in self.packets[since:]]

    # -- running ------------------------------------------------------------------------------

    def pump(self) -> None:
        for address, client in self.clients.items():
            for transmit in client.datagrams_to_send(self.now):
                self.put(transmit, self.transports[address])
            while (event := client.next_event()) is not None:
                self.events[address].append((self.now, event))
        for transmit in self.server.datagrams_to_send(self.now):
            self.put(transmit, "udp")
        for transmit in self.server.streams_to_send(self.now):
            self.put(transmit, self.transports[transmit.destination])

    def put(self, transmit: Transmit, transport: str = "udp") -> None:
        """A packet leaves."""
        packet = Packet(self.now, transmit.local, transmit.destination, transmit.data, transport)
        packet.lost = self.lose(len(self.packets), packet)
        self.packets.append(packet)
        if not packet.lost:
            self._count += 1
            heapq.heappush(self._queue, (self.now + self.one_way, self._count, packet))

    def run(self, seconds: float) -> None:
        self.run_until(lambda: False, seconds)

    def run_until(self, condition: Callable[[], bool], timeout: float = 120.0) -> bool:
        """Go on until the condition holds; whether it came to that in time."""
        end = self.now + timeout
        self.pump()
        while not condition():
            times = [self._queue[0][0]] if self._queue else []
            times += [t for c in self.clients.values() if (t := c.get_timer()) is not None]
            if (at := self.server.get_timer()) is not None:
                times.append(at)
            if min(times, default=end) >= end:
                self.now = end
                return condition()
            self.now = max(self.now, min(times))
            self._turn()
            self.pump()
        return True

    def _turn(self) -> None:
        while self._queue and self._queue[0][0] <= self.now:
            self._arrive(heapq.heappop(self._queue)[2])
        for client in self.clients.values():
            timer = client.get_timer()
            if timer is not None and timer <= self.now:
                client.handle_timer(self.now)
        timer = self.server.get_timer()
        if timer is not None and timer <= self.now:
            self.server.handle_timer(self.now)

    def _arrive(self, packet: Packet) -> None:
        data, source, destination = packet.data, packet.source, packet.destination
        if destination in self.clients:
            self.clients[destination].receive_datagram(data, source, destination, self.now)
        elif destination == self.server_address or self.server.is_relayed(destination):
            self.server.receive_datagram(
                data, source, destination, self.now, transport=packet.transport
            )
        elif destination in self.peers:
            peer = self.peers[destination]
            peer.received.append((self.now, data, source))
            if peer.echo:
                self.put(Transmit(data, destination, source))
        self.pump()


def make_server(source: random.Random, **options: Any) -> TurnServer:
    options.setdefault("relay_ips", ["203.0.113.10", "2001:db8::10"])
    options.setdefault("users", USERS)
    return TurnServer(random=source, **options)


def is_request(packet: Packet, method: Method) -> bool:
    return packet.kind == f"{method.name} {MessageClass.REQUEST.name.lower()}"
