"""Our own TURN server on loopback, which sees its clients as if through a NAT."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

from ice_punch.datagram import Address
from ice_punch.net.ice_server import IceServer
from ice_punch.stun import Method, StunParseError, parse_message
from ice_punch.turn import TurnServer

USER, PASSWORD = "robot", "correct horse"
OUTSIDE = "198.51.100.1"
"""Where the NAT shows its hosts, at their own ports."""


class TurnThroughNat(asyncio.DatagramProtocol):
    """Relays nothing: what is sent to peers leaves the world here."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("relay_ips", ["203.0.113.10", "2001:db8::10"])
        options.setdefault("alternate_servers", ())
        self._options = options
        self.asked: list[tuple[Method, Address]] = []
        """Requests and indications, by whom."""
        self.server: TurnServer
        self.address: Address = ("", 0)
        self._transport: asyncio.DatagramTransport | None = None
        self._inside: dict[Address, Address] = {}

    async def __aenter__(self) -> TurnThroughNat:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(
            lambda: self, local_addr=("127.0.0.1", 0)
        )
        self.address = self._transport.get_extra_info("sockname")[:2]
        self.server = TurnServer(users={USER: PASSWORD}, random=random.Random(1), **self._options)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._transport is not None
        self._transport.abort()

    @property
    def ice_server(self) -> IceServer:
        return IceServer("turn", *self.address, "udp", USER, PASSWORD)

    def methods(self) -> list[Method]:
        return [method for method, _ in self.asked]

    def datagram_received(self, data: bytes, addr: Address) -> None:
        with contextlib.suppress(StunParseError):
            self.asked.append((Method(parse_message(data).method), addr))
        outside = (OUTSIDE, addr[1])
        self._inside[outside] = addr
        self.answer(data, outside)

    def answer(self, data: bytes, outside: Address) -> None:
        now = asyncio.get_running_loop().time()
        self.server.receive_datagram(data, outside, self.address, now)
        assert self._transport is not None
        for transmit in self.server.datagrams_to_send(now):
            if transmit.destination in self._inside:
                self._transport.sendto(transmit.data, self._inside[transmit.destination])
