"""What the signaling server costs: memory of idle connections, CPU of relayed messages, and a storm
of clients that all come back after a restart.

The server is a process of its own; its CPU time and memory are the kernel's figures. peerjs-server
is measured beside it where ``--peerjs DIR`` names a directory in which ``npm install peer`` ran.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvloop
from harness import where
from signaling_clients import REQUEST, LeanClient, text_frame

from signaling.events import Event, PeerJoined, Resumed, SignalReceived, Welcomed
from signaling.limits import Limits
from signaling.server import SignalingServer

MANY = 10**9
LIMITS = Limits(
    connections_per_address=MANY,
    sessions_per_address=MANY,
    accept_rate=1e9,
    accept_burst=MANY,
    message_rate=1e9,
    message_burst=MANY,
    byte_rate=1e12,
    byte_burst=10**12,
)
HOST = "127.0.0.1"
MESSAGE = 500
"""Bytes of a relayed message, JSON and all."""
PAIRS, IN_FLIGHT = 100, 4
TICKS = os.sysconf("SC_CLK_TCK")
PEERJS = """
const {PeerServer} = require('peer');
const options = {port: %d, host: '127.0.0.1', path: '/', concurrent_limit: 1e6};
PeerServer(options, () => console.log('{}'));
"""


# -- servers --------------------------------------------------------------------------------------


async def serve(engine: str, port: int, redis: str | None, tls: str | None) -> None:
    backend = context = None
    if tls is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(tls)
    if redis is not None:
        from signaling.backends.redis import RedisBackend

        backend = RedisBackend(redis, random.SystemRandom(), LIMITS)
    server = await SignalingServer.start(
        HOST,
        port,
        limits=LIMITS,
        engine=engine,
        backend=backend,
        ssl=context,
        reuse_port=backend is not None,
    )
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, cut_everybody, server)
    print(json.dumps({"port": server.port}), flush=True)
    await asyncio.get_running_loop().create_future()


def cut_everybody(server: SignalingServer) -> None:
    """As a router does that forgets its connections."""
    for client in list(server._sockets.values()):
        transport = getattr(client, "transport", None) or client._tcp  # type: ignore[attr-defined]
        transport.abort()


@contextlib.contextmanager
def running(*command: str, directory: str | None = None) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=directory
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def port_of(process: subprocess.Popen[bytes]) -> int:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        sys.exit("a server did not start")
    return int(json.loads(line).get("port", 0))


def our_server(
    engine: str, port: int = 0, redis: str | None = None, tls: str | None = None
) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    more = () if redis is None else ("--redis", redis)
    more += () if tls is None else ("--certificate", tls)
    return running(
        sys.executable, __file__, "serve", "--engine", engine, "--port", str(port), *more
    )


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


# -- relay ----------------------------------------------------------------------------------------


class Talker(asyncio.Protocol):
    """One end of a pair, as lean as can be: it counts what comes and answers with one more."""

    def __init__(self, request: bytes, on_text: Callable[[Talker, bytes], None]) -> None:
        self._request = request
        self._on_text = on_text
        self._buffer = b""
        self._upgraded = False
        self.id = 0
        self.seq = 0
        self.to = ""
        self.ready = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data
        if not self._upgraded:
            _, end, data = data.partition(b"\r\n\r\n")
            if not end:
                return
            self._upgraded = True
            self._on_text(self, b"")
        at = 0
        while len(data) - at >= 4:
            size, begin = data[at + 1], at + 2
            if size == 126:
                size, begin = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
            if len(data) < begin + size:
                break
            self._on_text(self, data[begin : begin + size])
            at = begin + size
        self._buffer = data[at:]


class OurTalk:
    """Signals of ``icepunch.v1``: each is acknowledged, numbered and kept for a resume."""

    def __init__(self) -> None:
        self.received = 0

    def request(self, index: int) -> bytes:
        return REQUEST

    def on_text(self, talker: Talker, text: bytes) -> None:
        if not text:
            hello = {"type": "hello", "v": 1, "room": f"room-of-a-pair-{talker.pair:08}"}
            talker.transport.write(text_frame(json.dumps(hello)))
        elif text.startswith(b'{"type":"signal"'):
            self.received += 1
            talker.seq += 1
            if talker.seq % 16 == 0:
                talker.transport.write(text_frame(f'{{"type":"ack","seq":{talker.seq}}}'))
            self.send(talker)
        elif text.startswith((b'{"type":"welcome"', b'{"type":"peer"')):
            message = json.loads(text)
            talker.seq += message["type"] == "peer"
            peers = message.get("peers") or ([message] if message["type"] == "peer" else [])
            if peers and not talker.ready.done():
                talker.to = peers[0]["id"]
                talker.ready.set_result(None)

    def send(self, talker: Talker) -> None:
        talker.id += 1
        generation = talker.id // 100  # of one the server passes on 128 candidates
        head = f'{{"type":"signal","id":{talker.id},"to":"{talker.to}","link":"a-link",'
        head += f'"gen":{generation},'
        head += '"kind":"cand","data":"'
        talker.transport.write(text_frame(head + "x" * (MESSAGE - len(head) - 2) + '"}'))


class PeerjsTalk:
    def __init__(self) -> None:
        self.received = 0

    def request(self, index: int) -> bytes:
        path = f"GET /peerjs?key=peerjs&id=p{index}&token=t{index} HTTP/1.1".encode()
        return REQUEST.replace(b"GET /v1/ws HTTP/1.1", path).replace(
            b"Sec-WebSocket-Protocol: icepunch.v1\r\n", b""
        )

    def on_text(self, talker: Talker, text: bytes) -> None:
        if text.startswith(b'{"type":"OPEN"'):
            talker.to = f"p{talker.index ^ 1}"
            talker.ready.set_result(None)
        elif text:
            self.received += 1
            self.send(talker)

    def send(self, talker: Talker) -> None:
        head = f'{{"type":"CANDIDATE","dst":"{talker.to}","payload":"'
        talker.transport.write(text_frame(head + "x" * (MESSAGE - len(head) - 2) + '"}'))


async def relay(pid: int, port: int, talk: Any, seconds: float) -> float:
    """Relayed messages per second of the server's CPU."""
    loop = asyncio.get_running_loop()
    talkers = []
    for index in range(2 * PAIRS):

        def make(index: int = index) -> Talker:
            talker = Talker(talk.request(index), talk.on_text)
            talker.index, talker.pair = index, index // 2  # type: ignore[attr-defined]
            return talker

        _, talker = await loop.create_connection(make, HOST, port)
        talkers.append(talker)
    await asyncio.wait_for(asyncio.gather(*(talker.ready for talker in talkers)), 20)
    for talker in talkers:
        for _ in range(IN_FLIGHT // 2):
            talk.send(talker)
    await asyncio.sleep(1.0)
    before, cpu = talk.received, cpu_seconds(pid)
    await asyncio.sleep(seconds)
    rate = (talk.received - before) / (cpu_seconds(pid) - cpu)
    for talker in talkers:
        talker.transport.abort()
    return rate


def measure_relay(options: argparse.Namespace) -> None:
    names = [*options.engine, *(["peerjs-server"] if options.peerjs else [])]
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(options.runs):
        for name in names:
            talk = PeerjsTalk() if name == "peerjs-server" else OurTalk()
            with server(name, options) as process:
                port = port_of(process) or options.peerjs_port
                work = relay(process.pid, port, talk, options.seconds)
                found[name].append(uvloop.run(work))
    print(f"messages of {MESSAGE} bytes relayed per second of the server's CPU, {PAIRS} pairs")
    for name, rates in found.items():
        print(f"  {name:14} {spread(rates, 0)}")


@contextlib.contextmanager
def server(name: str, options: argparse.Namespace) -> Iterator[subprocess.Popen[bytes]]:
    if name != "peerjs-server":
        with our_server(name) as process:
            yield process
        return
    with running("node", "-e", PEERJS % options.peerjs_port, directory=options.peerjs) as process:
        yield process


def spread(values: list[float], digits: int) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return " / ".join(f"{value:,.{digits}f}" for value in (low, middle, high))


# -- idle -----------------------------------------------------------------------------------------


async def fill(
    port: int, name: str, count: int, tls: ssl.SSLContext | None = None
) -> list[LeanClient]:
    welcomed: set[int] = set()

    def on_event(client: LeanClient, event: Event) -> None:
        if isinstance(event, Welcomed):
            welcomed.add(id(client))

    chance = random.Random(1)
    clients = [
        LeanClient(
            (HOST, port), f"{name}-rooms-of-pairs-{index // 2:08}", chance, on_event, ssl=tls
        )
        for index in range(count)
    ]
    for index, client in enumerate(clients):
        client.start()
        while len(welcomed) < index - 100:
            await asyncio.sleep(0.005)
    while len(welcomed) < count:
        await asyncio.sleep(0.05)
    await asyncio.sleep(1.0)
    return clients


def measure_idle(options: argparse.Namespace) -> None:
    what = "over TLS " if options.tls else ""
    print(f"memory of a joined, idle connection {what}in kB, {options.clients} of them")
    with contextlib.ExitStack() as stack:
        certificate = context = None
        if options.tls:
            certificate = stack.enter_context(a_certificate())
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        for engine in options.engine:
            sizes = []
            for _ in range(options.runs):
                with our_server(engine, tls=certificate) as process:
                    port = port_of(process)

                    async def run(port: int = port, pid: int = process.pid) -> float:
                        warm = await fill(port, "warm", 200, context)  # what is paid once
                        before = resident(pid)
                        await fill(port, "more", options.clients, context)
                        assert all(client.session.established for client in warm)
                        return (resident(pid) - before) / options.clients / 1000

                    sizes.append(uvloop.run(run()))
            print(f"  {engine:14} {spread(sizes, 1)}")


@contextlib.contextmanager
def a_certificate() -> Iterator[str]:
    from ice_punch.dtls import Certificate

    with tempfile.NamedTemporaryFile(suffix=".pem") as file:
        file.write(Certificate.generate().to_pem())
        file.flush()
        yield file.name


# -- storm ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def bus(port: int) -> Iterator[str]:
    if shutil.which("redis-server") is None:
        sys.exit("the storm needs redis-server: sessions outlive a server in it")
    with (
        tempfile.TemporaryDirectory() as directory,
        running("redis-server", "--port", str(port), "--save", "", "--dir", directory),
    ):
        time.sleep(0.5)
        yield f"redis://{HOST}:{port}"


class Storm:
    """All clients in pairs; each says one thing while there is no server."""

    def __init__(self, port: int, count: int) -> None:
        self.heard: Counter[tuple[int, str]] = Counter()
        self.partner: dict[int, str] = {}
        self.resumed: set[int] = set()
        self.welcomes: Counter[int] = Counter()
        chance = random.Random(1)
        self.clients = [
            LeanClient((HOST, port), f"room-of-a-pair-{index // 2:08}", chance, self.on_event)
            for index in range(count)
        ]

    def on_event(self, client: LeanClient, event: Event) -> None:
        match event:
            case Welcomed():
                self.welcomes[id(client)] += 1
                if event.peers:
                    self.partner[id(client)] = event.peers[0].id
            case PeerJoined():
                self.partner[id(client)] = event.peer.id
            case Resumed():
                self.resumed.add(id(client))
            case SignalReceived():
                self.heard[id(client), event.data] += 1

    async def come(self) -> None:
        """Not all at once: this is not what is measured."""
        for index, client in enumerate(self.clients):
            client.start()
            while len(self.welcomes) < index - 100:
                await asyncio.sleep(0.005)
        if not await self.until(lambda: len(self.partner) == len(self.clients)):
            sys.exit(f"only {len(self.partner)} clients came")

    async def until(self, done: Callable[[], bool], patience: float = 90.0) -> bool:
        end = time.monotonic() + patience
        while not done() and time.monotonic() < end:
            await asyncio.sleep(0.02)
        return done()


async def storm(options: argparse.Namespace, engine: str, redis: str | None) -> tuple[float, str]:
    """With a bus the server is killed and started again; without, every connection is cut."""
    port, workers = options.port, options.workers if redis is not None else 1
    with contextlib.ExitStack() as stack:

        def start() -> list[subprocess.Popen[bytes]]:
            started = [stack.enter_context(our_server(engine, port, redis)) for _ in range(workers)]
            for process in started:
                port_of(process)
            return started

        servers = start()
        people = Storm(port, options.clients)
        await people.come()
        cpu = sum(cpu_seconds(process.pid) for process in servers)
        for process in servers:
            process.send_signal(signal.SIGUSR1 if redis is None else signal.SIGKILL)
        began = time.monotonic()
        if redis is not None:
            for process in servers:
                process.wait()
        await people.until(lambda: all(client.drops for client in people.clients))
        for client in people.clients:
            client.send(people.partner[id(client)], "during the outage")
        if redis is not None:
            servers, cpu = await asyncio.to_thread(start), 0.0
        await people.until(lambda: len(people.resumed) == options.clients)
        resumed = time.monotonic() - began
        await people.until(lambda: len(people.heard) == options.clients)
        heard = time.monotonic() - began
        cpu = sum(cpu_seconds(process.pid) for process in servers) - cpu
    for client in people.clients:
        client.close()
    fresh = sum(people.welcomes.values()) - options.clients
    lost = options.clients - len(people.heard)
    doubled = sum(count - 1 for count in people.heard.values())
    return resumed, (
        f"{len(people.resumed)} of {options.clients} resumed in {resumed:.1f} s, {fresh} anew, "
        f"{lost} messages lost, {doubled} doubled, the last heard after {heard:.1f} s, "
        f"server CPU {cpu:.1f} s"
    )


def measure_storm(options: argparse.Namespace) -> None:
    what = "kill -9 and a start, sessions in Redis" if options.bus else "every connection was cut"
    print(f"{options.clients} clients come back after {what}", flush=True)
    for engine in options.engine:
        times: list[float] = []
        for run in range(options.runs):
            with bus(options.redis_port) if options.bus else contextlib.nullcontext() as redis:
                resumed, tale = uvloop.run(storm(options, engine, redis))
            times.append(resumed)
            print(f"  {engine:11} run {run + 1}: {tale}", flush=True)
        print(f"  {engine:11} all resumed after {spread(times, 1)} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("idle", "relay", "storm", "serve"))
    parser.add_argument("--engine", nargs="+", default=["websockets", "picows"])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--clients", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--port", type=int, default=18080)
    parser.add_argument("--bus", action="store_true", help="storm: restart a server with Redis")
    parser.add_argument("--workers", type=int, default=1, help="storm --bus: server processes")
    parser.add_argument("--tls", action="store_true", help="idle: over TLS")
    parser.add_argument("--certificate", help=argparse.SUPPRESS)
    parser.add_argument("--redis", help=argparse.SUPPRESS)
    parser.add_argument("--redis-port", type=int, default=16379)
    parser.add_argument("--peerjs", metavar="DIR", help="where `npm install peer` ran")
    parser.add_argument("--peerjs-port", type=int, default=19000)
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if options.what == "serve":
        uvloop.run(serve(options.engine[0], options.port, options.redis, options.certificate))
        return
    print(where(), end="\n\n", flush=True)
    {"idle": measure_idle, "relay": measure_relay, "storm": measure_storm}[options.what](options)


if __name__ == "__main__":
    main()
