"""One end of a link without encryption, in its own process; commands and answers are those of
`dtls_party`."""

from __future__ import annotations

import asyncio
import os
import struct
import sys
from typing import Any

import dtls_party
from dtls_party import SOL_UDP, UDP_GRO, UDP_SEGMENT, Link, Udp, main

from ice_punch import GatheringOptions, IceConnection
from ice_punch.channel import Channel
from ice_punch.sdp import Description


class IcePunch(dtls_party.IcePunch):
    """The public channel after real ICE, a call for many datagrams."""

    async def describe(self) -> Any:
        self.connection = IceConnection(controlling=self.first, options=GatheringOptions())
        async for _ in self.connection.gather():
            pass
        return self.connection.local_description

    async def connect(self, remote: Any) -> str:
        self.connection.set_remote_description(remote)
        await self.connection.connect(20.0)
        self.channel = Channel(self.connection)
        await self.channel.open()
        self.reader = asyncio.ensure_future(self._read())
        return "none"


class IcePunchSingle(IcePunch, dtls_party.IcePunchSingle):
    """A call for each datagram."""


class IcePunchWithoutOffload(IcePunchSingle):
    def __init__(self, first: bool, ip: str) -> None:
        os.environ["ICE_PUNCH_UDP_OFFLOAD"] = "off"
        super().__init__(first, ip)


class Aioice(Link):
    async def describe(self) -> Any:
        import aioice
        from party import _ours

        self.connection = aioice.Connection(ice_controlling=self.first)
        await self.connection.gather_candidates()
        return Description(
            ufrag=self.connection.local_username,
            pwd=self.connection.local_password,
            protocol="UDP",
            formats=("octet-stream",),
            candidates=tuple(map(_ours, self.connection.local_candidates)),
            end_of_candidates=True,
        ).to_sdp()

    async def connect(self, remote: Any) -> str:
        from party import _theirs

        description = Description.parse(remote)
        self.connection.remote_username = description.ufrag
        self.connection.remote_password = description.pwd
        for candidate in description.candidates:
            await self.connection.add_remote_candidate(_theirs(candidate))
        await self.connection.add_remote_candidate(None)
        await self.connection.connect()
        self.reader = asyncio.ensure_future(self._read())
        return "none"

    async def _read(self) -> None:
        while True:
            datagram = await self.connection.recv()
            self.on_data([datagram])

    async def send(self, datagrams: list[bytes]) -> None:
        for datagram in datagrams:
            await self.connection.send(datagram)


class Bare(Udp):
    """UDP_SEGMENT and UDP_GRO on a connected socket and nothing else: no ICE, no checks, no queue.
    One step of Python for each datagram."""

    async def connect(self, remote: Any) -> str:
        self.socket.connect(tuple(remote))
        self.socket.setsockopt(SOL_UDP, UDP_GRO, 1)
        self.buffer = bytearray(65535)
        asyncio.get_running_loop().add_reader(self.socket.fileno(), self._on_readable)
        return "none"

    async def send(self, datagrams: list[bytes]) -> None:
        batch = []
        for datagram in datagrams:
            batch.append(datagram)
        control = [(SOL_UDP, UDP_SEGMENT, struct.pack("=H", len(batch[0])))]
        self.socket.sendmsg([b"".join(batch)], control)

    def _on_readable(self) -> None:
        view = memoryview(self.buffer)
        for _ in range(4):
            try:
                end, ancillary, _, _ = self.socket.recvmsg_into([self.buffer], 64)
            except OSError:
                return
            size = int.from_bytes(ancillary[0][2][:4], sys.byteorder) if ancillary else end
            self.on_data([bytes(view[n : min(n + size, end)]) for n in range(0, end, size)])


dtls_party.LINKS.update(
    {
        "ice-punch": IcePunch,
        "ice-punch-single": IcePunchSingle,
        "ice-punch-no-offload": IcePunchWithoutOffload,
        "aioice": Aioice,
        "bare": Bare,
    }
)

if __name__ == "__main__":
    name, role, ip, *loop = sys.argv[1:]
    if loop == ["uvloop"]:
        import uvloop

        uvloop.run(main(name, role == "first", ip))
    else:
        asyncio.run(main(name, role == "first", ip))
