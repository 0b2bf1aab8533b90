"""One end of an encrypted link, in its own process: a JSON line in, a JSON line out.

It says {"description": ...}, is told {"remote": ...}, says {"ready": cipher}, and then is told a
method of `Work` to carry out, with its arguments: {"do": "ping", "size": ..., "rounds": ...}.
Counting and echoing say {"started": true}, and end with {"do": "stop"}.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import socket
import statistics
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from OpenSSL import SSL, _util

from ice_punch import IceConnection
from ice_punch.channel import Channel
from ice_punch.dtls import Certificate, DtlsMachine, DtlsRole, openssl
from ice_punch.net.gatherer import GatheringOptions
from ice_punch.sdp import Description, Setup

ffi: Any = _util.ffi
lib: Any = _util.lib

BURST = 52
"""Datagrams sent in one turn of the loop, at most: with 1200 bytes a packet of the kernel's."""
STALLED = 0.25
"""Seconds without an answer after which what is under way counts as lost."""
SOL_UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104

Handler = Callable[[list[bytes]], None]


def ignore(_: list[bytes]) -> None:
    pass


class Link:
    """What every stack has to offer: datagrams in bursts, and a handler for what arrives."""

    def __init__(self, first: bool, ip: str) -> None:
        self.first, self.ip = first, ip
        self.on_data: Handler = ignore

    async def describe(self) -> Any:
        raise NotImplementedError

    async def connect(self, remote: Any) -> str:
        raise NotImplementedError

    async def send(self, datagrams: list[bytes]) -> None:
        raise NotImplementedError


class IcePunch(Link):
    """The public channel after real ICE."""

    async def describe(self) -> Any:
        self.certificate = Certificate.generate()
        self.connection = IceConnection(controlling=self.first, options=GatheringOptions())
        async for _ in self.connection.gather():
            pass
        return self.connection.describe(
            setup=Setup.ACTIVE if self.first else Setup.PASSIVE,
            fingerprints=self.certificate.fingerprints(),
        ).to_sdp()

    async def connect(self, remote: Any) -> str:
        description = Description.parse(remote)
        self.connection.set_remote_description(description)
        await self.connection.connect(20.0)
        machine = DtlsMachine(
            self.certificate,
            DtlsRole.CLIENT if self.first else DtlsRole.SERVER,
            description.fingerprints,
            mtu=self.connection.max_datagram_size,
            rtt=0.01,
        )
        self.channel = Channel(self.connection, machine)
        await self.channel.open()
        self.reader = asyncio.ensure_future(self._read())
        assert self.channel.encryption is not None
        return self.channel.encryption.cipher

    async def _read(self) -> None:
        while True:
            datagrams = await self.channel.recv_many()
            self.on_data(datagrams)

    async def send(self, datagrams: list[bytes]) -> None:
        if len(datagrams) == 1:
            self.channel.send_nowait(datagrams[0])
        else:
            await self.channel.send_many(datagrams)


class IcePunchSingle(IcePunch):
    """The same, a call for each datagram."""

    async def _read(self) -> None:
        async for datagram in self.channel:
            self.on_data([datagram])

    async def send(self, datagrams: list[bytes]) -> None:
        for datagram in datagrams:
            self.channel.send_nowait(datagram)


class IcePunchProtocol(IcePunch):
    """The channel as asyncio's datagram transport: what arrives is told by a call, as it is by that
    of a socket."""

    async def connect(self, remote: Any) -> str:
        cipher = await super().connect(remote)
        self.reader.cancel()
        self.transport, _ = await self.channel.create_datagram_endpoint(lambda: Protocol(self))
        return cipher

    async def send(self, datagrams: list[bytes]) -> None:
        for datagram in datagrams:
            self.transport.sendto(datagram)


class Protocol(asyncio.DatagramProtocol):
    def __init__(self, link: Link) -> None:
        self._link = link

    def datagram_received(self, data: bytes, _: Any) -> None:
        self._link.on_data([data])


class Udp(Link):
    """No encryption and no ICE: asyncio's datagram transport."""

    async def describe(self) -> Any:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((self.ip, 0))
        self.socket.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            self.socket.setsockopt(socket.SOL_SOCKET, option, 4 << 20)
        return [*self.socket.getsockname()]

    async def connect(self, remote: Any) -> str:
        self.socket.connect(tuple(remote))
        loop = asyncio.get_running_loop()
        self.transport, _ = await loop.create_datagram_endpoint(
            lambda: Protocol(self), sock=self.socket
        )
        return "none"

    async def send(self, datagrams: list[bytes]) -> None:
        for datagram in datagrams:
            self.transport.sendto(datagram)


class Sketch(Udp):
    """OpenSSL's calls in a loop over UDP_SEGMENT and UDP_GRO: no ICE, no checks, no errors."""

    async def connect(self, remote: Any) -> str:
        self.socket.connect(tuple(remote))
        self.socket.setsockopt(SOL_UDP, UDP_GRO, 1)
        connection = openssl.make_connection(
            Certificate.generate(), lambda _: True, self.first, 1400
        )
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection.do_handshake()
            except SSL.WantReadError:
                for record in openssl.read_records(connection):
                    await loop.sock_sendall(self.socket, record)
                with contextlib.suppress(TimeoutError):
                    answer = await asyncio.wait_for(loop.sock_recv(self.socket, 65535), 0.2)
                    connection.bio_write(answer)
            else:
                break
        for record in openssl.read_records(connection):
            await loop.sock_sendall(self.socket, record)
        self.connection: Any = connection
        self.plain = ffi.new("char[]", 1 << 14)
        self.records = ffi.new("char[]", 1 << 17)
        self.received = bytearray(65535)
        self.view = ffi.from_buffer(self.received)
        loop.add_reader(self.socket.fileno(), self._on_readable)
        return str(connection.get_cipher_name())

    async def send(self, datagrams: list[bytes]) -> None:
        ssl = self.connection._ssl
        for datagram in datagrams:
            lib.SSL_write(ssl, datagram, len(datagram))
        size = lib.BIO_read(self.connection._from_ssl, self.records, 1 << 17)
        segment = struct.pack("=H", size // len(datagrams))
        data = memoryview(ffi.buffer(self.records, size))
        with contextlib.suppress(BlockingIOError):
            self.socket.sendmsg([data], [(SOL_UDP, UDP_SEGMENT, segment)])

    def _on_readable(self) -> None:
        ssl, into = self.connection._ssl, self.connection._into_ssl
        for _ in range(4):
            try:
                end, ancillary, _, _ = self.socket.recvmsg_into([self.received], 64)
            except OSError:
                return
            size = int.from_bytes(ancillary[0][2][:4], sys.byteorder) if ancillary else end
            step, arrived = 16384 // size * size, []
            for start in range(0, end, step):
                lib.BIO_write(into, self.view + start, min(step, end - start))
                while (length := lib.SSL_read(ssl, self.plain, 1 << 14)) > 0:
                    arrived.append(ffi.unpack(self.plain, length))
            self.on_data(arrived)


class Aiortc(Link):
    """aiortc's ``RTCDtlsTransport`` after its own ICE."""

    async def describe(self) -> Any:
        import aiortc

        self.gatherer = aiortc.RTCIceGatherer(iceServers=[])
        await self.gatherer.gather()
        self.ice = aiortc.RTCIceTransport(self.gatherer)
        self.ice._connection.ice_controlling = self.first
        self.dtls = aiortc.RTCDtlsTransport(self.ice, [aiortc.RTCCertificate.generateCertificate()])
        ice = self.gatherer.getLocalParameters()
        return {
            "candidates": [vars(c) for c in self.gatherer.getLocalCandidates()],
            "ice": [ice.usernameFragment, ice.password],
            "fingerprints": [
                [f.algorithm, f.value] for f in self.dtls.getLocalParameters().fingerprints
            ],
        }

    async def connect(self, remote: Any) -> str:
        import aiortc

        for candidate in remote["candidates"]:
            await self.ice.addRemoteCandidate(aiortc.RTCIceCandidate(**candidate))
        await self.ice.addRemoteCandidate(None)
        await self.ice.start(aiortc.RTCIceParameters(*remote["ice"]))
        prints = [aiortc.RTCDtlsFingerprint(*f) for f in remote["fingerprints"]]
        self.dtls._set_role("client" if self.first else "server")
        self.dtls._register_data_receiver(self)  # type: ignore[arg-type]
        await self.dtls.start(aiortc.RTCDtlsParameters(fingerprints=prints))
        return str(self.dtls._ssl.get_cipher_name())

    async def _handle_data(self, data: bytes) -> None:
        self.on_data([data])

    async def send(self, datagrams: list[bytes]) -> None:
        for datagram in datagrams:
            await self.dtls._send_data(datagram)


LINKS = {
    "ice-punch": IcePunch,
    "ice-punch-single": IcePunchSingle,
    "ice-punch-protocol": IcePunchProtocol,
    "aiortc": Aiortc,
    "sketch": Sketch,
    "udp": Udp,
}


class Work:
    """What the two ends do over a link."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self._stop: asyncio.Event = asyncio.Event()

    def stop(self) -> None:
        self._stop.set()

    async def send(self, size: int, seconds: float, window: int) -> dict[str, Any]:
        """As fast as a window of so many datagrams under way allows."""
        burst = [bytes((n,)) * size for n in range(min(BURST, window // 4))]
        sent = answered = lost = 0
        heard = asyncio.Event()

        def on_data(datagrams: list[bytes]) -> None:
            nonlocal answered
            answered = max(answered, *(int.from_bytes(d[:8]) for d in datagrams))
            heard.set()

        self.link.on_data = on_data
        began, cpu = time.monotonic(), time.process_time()
        while time.monotonic() < began + seconds:
            if sent - lost - answered + len(burst) <= window:
                await self.link.send(burst)
                sent += len(burst)
                await asyncio.sleep(0)
                continue
            heard.clear()
            try:
                await asyncio.wait_for(heard.wait(), STALLED)
            except TimeoutError:
                lost = sent - answered
        elapsed, cpu = time.monotonic() - began, time.process_time() - cpu
        await asyncio.sleep(STALLED)  # for what is under way
        return {"sent": sent, "lost": lost, "seconds": elapsed, "cpu": cpu}

    async def count(self, window: int) -> dict[str, Any]:
        """Count what arrives and say so eight times in a window."""
        received = answered = 0
        tasks: set[asyncio.Task[None]] = set()

        def on_data(datagrams: list[bytes]) -> None:
            nonlocal received, answered
            received += len(datagrams)
            if received - answered >= window // 8:
                answered = received
                task = asyncio.ensure_future(self.link.send([received.to_bytes(8) + bytes(30)]))
                tasks.add(task)
                task.add_done_callback(tasks.discard)

        self.link.on_data = on_data
        say(started=True)
        cpu = time.process_time()
        await self._stop.wait()
        return {"received": received, "cpu": time.process_time() - cpu}

    async def flood(self, size: int, seconds: float) -> dict[str, Any]:
        """As fast as it goes, heedless of the other side."""
        burst, sent = [bytes(size)] * BURST, 0
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            await self.link.send(burst)
            sent += BURST
            await asyncio.sleep(0)
        return {"sent": sent}

    async def stall(self) -> dict[str, Any]:
        """Stop reading, and watch the memory (MB) from the time it has been full once."""
        assert isinstance(self.link, IcePunch)
        channel = self.link.channel
        self.link.reader.cancel()
        say(started=True)
        while not channel.stats.dropped_oldest and not self._stop.is_set():
            await asyncio.sleep(0.05)
        await asyncio.sleep(1.0)  # until buffers have their size
        sizes = [resident()]
        while not self._stop.is_set():
            await asyncio.sleep(0.2)
            sizes.append(resident())
        return {
            "before": sizes[0] / 1e6,
            "peak": max(sizes) / 1e6,
            "after": sizes[-1] / 1e6,
            "dropped": channel.stats.dropped_oldest,
        }

    async def ping(self, size: int, rounds: int) -> dict[str, Any]:
        """One datagram there and back at a time."""
        arrived = asyncio.Event()
        self.link.on_data = lambda _: arrived.set()
        times = []
        for _ in range(rounds):
            arrived.clear()
            began = time.perf_counter()
            await self.link.send([bytes(size)])
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(arrived.wait(), 1.0)
            times.append(time.perf_counter() - began)
        return {"median": statistics.median(times), "p99": sorted(times)[rounds * 99 // 100]}

    async def tick(self, size: int, hertz: float, seconds: float) -> dict[str, Any]:
        """A steady stream of small datagrams, which the other side sends back."""
        got = 0

        def on_data(datagrams: list[bytes]) -> None:
            nonlocal got
            got += len(datagrams)

        self.link.on_data = on_data
        began, cpu = time.monotonic(), time.process_time()
        for n in range(int(seconds * hertz)):
            await asyncio.sleep(began + n / hertz - time.monotonic())
            await self.link.send([bytes(size)])
        elapsed = time.monotonic() - began
        return {"cpu": (time.process_time() - cpu) / elapsed, "got": got}

    async def echo(self) -> dict[str, Any]:
        """Send back what arrives."""
        tasks: set[asyncio.Task[None]] = set()

        def on_data(datagrams: list[bytes]) -> None:
            for datagram in datagrams:
                task = asyncio.ensure_future(self.link.send([datagram]))
                tasks.add(task)
                task.add_done_callback(tasks.discard)

        self.link.on_data = on_data
        say(started=True)
        began, cpu = time.monotonic(), time.process_time()
        await self._stop.wait()
        return {"cpu": (time.process_time() - cpu) / (time.monotonic() - began)}


def resident() -> int:
    """Bytes of memory that this process has in use (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


async def main(stack: str, first: bool, ip: str) -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    link = LINKS[stack](first, ip)
    say(description=await link.describe())
    say(ready=await link.connect(json.loads(await lines.readline())["remote"]))
    work: Work | None = None
    doing: asyncio.Task[None] | None = None

    async def do(coroutine: Any) -> None:
        say(**await coroutine)

    while line := await lines.readline():
        command = json.loads(line)
        what = command.pop("do")
        if what == "stop":
            assert work is not None
            work.stop()
        else:
            work = Work(link)
            doing = asyncio.ensure_future(do(getattr(work, what)(**command)))
    if doing is not None:
        doing.cancel()
    # Nothing is owed to anybody: the peer is stopped too.
    os._exit(0)


if __name__ == "__main__":
    if sys.argv[4:] == ["uvloop"]:
        import uvloop

        uvloop.run(main(sys.argv[1], sys.argv[2] == "first", sys.argv[3]))
    else:
        asyncio.run(main(sys.argv[1], sys.argv[2] == "first", sys.argv[3]))
