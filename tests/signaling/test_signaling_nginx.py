"""The nginx of docs/ and deploy/, run as it stands there, in front of real servers."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import ssl
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from redis_support import free_port
from signaling_net import hear, join, say
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from signaling import Limits
from signaling.auth import TrustedProxies
from signaling.client import SignalingClient
from signaling.errors import ServerUnreachable
from signaling.events import Disconnected, PeerJoined, SignalReceived, Welcomed
from signaling.link import Link, wire_room
from signaling.randomness import base64url
from signaling.server import SignalingServer
from signaling.spoken import CodeOffer, fetch_link
from support.certificates import Authority
from support.commands import Command
from support.nginx import needs_nginx, nginx

pytestmark = needs_nginx
ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy" / "nginx"
PROXY = TrustedProxies(["127.0.0.1"])
ROOM = "a-room-behind-a-proxy-of-its-own"


def shown(page: str) -> str:
    text = (ROOT / "docs" / "howto" / page).read_text()
    [block] = re.findall(r"```nginx\n(.*?)```", text, re.DOTALL)
    return str(block)


def one_server() -> dict[str, str]:
    return {
        "run-your-own-server.md": shown("run-your-own-server.md"),
        "ice-punch.conf": (DEPLOY / "ice-punch.conf").read_text(),
    }


def several() -> dict[str, str]:
    upstream = shown("several-processes.md")
    page = shown("run-your-own-server.md")
    page = page.replace("http://127.0.0.1:8080;", "http://signaling;\n proxy_next_upstream off;")
    return {
        "several-processes.md": upstream + page,
        "without-bus.conf": (DEPLOY / "without-bus.conf").read_text(),
    }


@dataclass(frozen=True)
class Front:
    """What clients see of nginx."""

    port: int
    cafile: Path
    access_log: Path

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.cafile))


@contextlib.contextmanager
def in_front(tmp_path: Path, text: str, *upstreams: int) -> Iterator[Front]:
    """nginx by ``text``, but for the addresses and certificates of this machine."""
    authority = Authority(tmp_path)
    cert, key = authority.make("proxy", x509.IPAddress(ip_address("127.0.0.1")))
    port = free_port()
    for old, new in (
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("/etc/letsencrypt/live/signal.example.org/fullchain.pem", str(cert)),
        ("/etc/letsencrypt/live/signal.example.org/privkey.pem", str(key)),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    for number, upstream in enumerate(upstreams, 1):
        old = "127.0.0.1:8080" if len(upstreams) == 1 else f"10.0.0.{number}:8080"
        assert text.count(old) == 1, old
        text = text.replace(old, f"127.0.0.1:{upstream}")
    with nginx(tmp_path / "nginx", port, example=text):
        yield Front(port, authority.cafile, tmp_path / "nginx" / "access.log")


@contextlib.asynccontextmanager
async def socket_to(
    front: Front,
    *,
    origin: str | None = None,
    path: str = "/v1/ws",
    ip: str = "127.0.0.5",
    **headers: str,
) -> AsyncIterator[ClientConnection]:
    async with connect(
        f"wss://127.0.0.1:{front.port}{path}",
        ssl=front.tls,
        subprotocols=[Subprotocol("icepunch.v1")],
        compression=None,
        proxy=None,
        origin=origin,  # type: ignore[arg-type]
        local_addr=(ip, 0),
        additional_headers={name.replace("_", "-"): value for name, value in headers.items()},
    ) as connection:
        yield connection


async def get(front: Front, path: str) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", front.port, ssl=front.tls)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
    async with asyncio.timeout(5):
        head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    return int(head.split()[1]), body


async def meet(front: Front, room: str) -> None:
    """Two clients of this package enter ``room``, and one says something to the other."""
    async with (
        SignalingClient(front.url, room, ssl=front.tls) as early,
        SignalingClient(front.url, room, ssl=front.tls) as late,
    ):
        await early.connect()
        await late.connect()
        async with asyncio.timeout(5):
            async for event in early:
                if isinstance(event, PeerJoined):
                    assert event.peer.id == late.self_id
                    await early.send(event.peer.id, "a-link-of-two", 0, "restart", "sealed")
                    break
            async for event in late:
                if isinstance(event, SignalReceived):
                    assert (event.sender, event.data) == (early.self_id, "sealed")
                    return


# -- One server -------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["websockets", "picows"])
@pytest.mark.parametrize("name", ["run-your-own-server.md", "ice-punch.conf"])
def test_a_session_through_tls_of_nginx(tmp_path: Path, name: str, engine: str) -> None:
    if engine == "picows":
        pytest.importorskip("picows", reason="picows is not installed")

    async def run() -> None:
        server = await SignalingServer.start(port=0, engine=engine, proxies=PROXY)
        async with server:
            with in_front(tmp_path, one_server()[name], server.port) as front:
                await meet(front, ROOM)
                assert await get(front, "/healthz") == (200, "ok\n")
                status, page = await get(front, f"/j/{ROOM}")
                assert (status, "<html" in page) == (200, True)
                if name == "ice-punch.conf":
                    assert (await get(front, "/readyz"))[0] == 404
                    assert (await get(front, "/metrics"))[0] == 404

    asyncio.run(run())


@pytest.mark.parametrize("name", ["run-your-own-server.md", "ice-punch.conf"])
def test_clients_behind_nginx_are_told_apart_and_can_not_pretend(tmp_path: Path, name: str) -> None:
    async def run() -> None:
        limits = Limits(connections_per_address=2)
        async with await SignalingServer.start(port=0, limits=limits, proxies=PROXY) as server:
            with in_front(tmp_path, one_server()[name], server.port) as front:
                async with contextlib.AsyncExitStack() as stack:
                    for number in range(2):
                        connection = await stack.enter_async_context(
                            socket_to(front, X_Forwarded_For=f"203.0.113.{number}")
                        )
                        assert (await join(connection))["you"]["ip"] == "127.0.0.5"
                    # The third of that address, whoever it says it speaks for.
                    with pytest.raises(Exception, match=r"HTTP (429|503)"):
                        await stack.enter_async_context(
                            socket_to(front, X_Forwarded_For="203.0.113.9")
                        )
                    async with socket_to(front, ip="127.0.0.6") as other:
                        assert (await join(other))["you"]["ip"] == "127.0.0.6"

    asyncio.run(run())


@pytest.mark.parametrize("name", ["run-your-own-server.md", "ice-punch.conf"])
def test_a_page_of_the_server_is_its_own_behind_nginx_on_any_port(
    tmp_path: Path, name: str
) -> None:
    judged: list[str | None] = []

    class Listening:
        def authorize(self, hello: object, address: str, origin: str | None) -> object:
            from signaling.hooks import Grant

            judged.append(origin)
            return Grant()

    async def run() -> None:
        authorizer = Listening()
        async with await SignalingServer.start(
            port=0,
            proxies=PROXY,
            authorizer=authorizer,  # type: ignore[arg-type]
        ) as server:
            with in_front(tmp_path, one_server()[name], server.port) as front:
                for origin in (front.url, "https://elsewhere.example"):
                    async with socket_to(front, origin=origin) as connection:
                        await join(connection)
        assert judged == [None, "https://elsewhere.example"]

    asyncio.run(run())


@pytest.mark.parametrize("name", ["run-your-own-server.md", "ice-punch.conf"])
def test_an_idle_session_outlives_nginxs_patience_by_its_pings(tmp_path: Path, name: str) -> None:
    """At 100 times the speed of life: a ping every 0.25 s, and nginx waits 1.2 s."""
    text = one_server()[name]
    [seconds] = map(float, re.findall(r"proxy_read_timeout (\d+)s;", text))
    limits = Limits()
    assert seconds > limits.idle_timeout > limits.ping
    text = text.replace(f"timeout {seconds:.0f}s;", f"timeout {seconds * 10:.0f}ms;")

    async def run() -> None:
        fast = Limits(ping=limits.ping / 100, idle_timeout=60.0)
        async with await SignalingServer.start(port=0, limits=fast, proxies=PROXY) as server:
            with in_front(tmp_path, text, server.port) as front:
                async with (
                    SignalingClient(front.url, ROOM, ssl=front.tls) as client,
                    socket_to(front) as silent,
                ):
                    await client.connect()
                    await join(silent, "another-room-where-nobody-pings")
                    began = asyncio.get_running_loop().time()
                    with pytest.raises(ConnectionClosed):
                        await hear(silent)
                    assert asyncio.get_running_loop().time() - began > 1.0
                    await asyncio.sleep(seconds / 100 * 1.2)
                    assert client.connected
                    events = [await anext(client)]
                    assert isinstance(events[0], Welcomed)
                    assert server.counters["connections"] == 2
                    assert not any(isinstance(event, Disconnected) for event in events)

    asyncio.run(run())


# -- Several, without a bus -------------------------------------------------------------------


@contextlib.asynccontextmanager
async def two_servers() -> AsyncIterator[tuple[SignalingServer, SignalingServer]]:
    async with (
        await SignalingServer.start(port=0, proxies=PROXY) as one,
        await SignalingServer.start(port=0, proxies=PROXY) as two,
    ):
        yield one, two


@pytest.mark.parametrize("name", ["several-processes.md", "without-bus.conf"])
def test_every_room_is_on_one_process_and_rooms_are_on_both(tmp_path: Path, name: str) -> None:
    source = random.Random(6)
    links = [Link.create("http://h", source) for _ in range(24)]

    async def run() -> None:
        async with two_servers() as servers, contextlib.AsyncExitStack() as stack:
            ports = [server.port for server in servers]
            front = stack.enter_context(in_front(tmp_path, several()[name], *ports))
            sides: list[SignalingClient] = []
            for link in (*links, *links):
                client = SignalingClient(front.url, link.wire_room, ssl=front.tls)
                sides.append(await stack.enter_async_context(client))
            await asyncio.gather(*(client.connect() for client in sides))
            assert all(server.sizes["sessions"] % 2 == 0 for server in servers)
            rooms = [server.sizes["rooms"] for server in servers]
            assert sum(rooms) == len(links)  # no room is in both
            assert min(rooms) >= 4
            await meet(front, ROOM)
            # Nobody can enter a room with what is in the log.
            log = front.access_log.read_text()
            assert not any(link.room in log or link.wire_room in log for link in links)

    asyncio.run(run())


def test_spoken_codes_and_their_links_meet_too(tmp_path: Path) -> None:
    source = random.Random(7)

    async def run() -> None:
        async with two_servers() as servers:
            ports = [server.port for server in servers]
            with in_front(tmp_path, several()["without-bus.conf"], *ports) as front:
                where: Counter[int] = Counter()
                for _ in range(40):  # the ports of the two decide which has how many
                    if len(where) == 2:
                        break
                    link = Link.create(front.url, source)
                    async with CodeOffer(link, ssl=front.tls, random=source) as offer:
                        where[[server.sizes["rooms"] for server in servers].index(1)] += 1
                        assert await fetch_link(front.url, offer.code, ssl=front.tls) == link
                        await offer.taken()
                assert len(where) == 2

    asyncio.run(run())


def test_a_wrong_path_is_another_room_and_none_at_all_is_taken(tmp_path: Path) -> None:
    async def run() -> None:
        async with two_servers() as servers:
            ports = [server.port for server in servers]
            with in_front(tmp_path, several()["without-bus.conf"], *ports) as front:
                async with contextlib.AsyncExitStack() as stack:
                    met = set()
                    for path in ("/v1/ws", *(f"/v1/ws/{number:04x}" for number in range(12))):
                        connection = await stack.enter_async_context(socket_to(front, path=path))
                        await say(connection, "hello", v=1, room=ROOM)
                        welcome = await hear(connection)
                        met.add(welcome["order"])
                    orders = [server.sizes["sessions"] for server in servers]
                    assert sum(orders) == 13
                    assert met == set(range(1, max(orders) + 1))

    asyncio.run(run())


def test_a_process_that_is_down_is_waited_for_and_its_rooms_stay(tmp_path: Path) -> None:
    """Who came before and who comes after meet, at the process that is back."""
    source = random.Random(8)

    async def run() -> None:
        async with contextlib.AsyncExitStack() as stack:
            port = free_port()
            other = await stack.enter_async_context(
                await SignalingServer.start(port=0, proxies=PROXY)
            )
            text = several()["without-bus.conf"]
            front = stack.enter_context(in_front(tmp_path, text, port, other.port))
            # Nothing listens at the first: its rooms are those that can not be entered.
            for _ in range(40):
                room = wire_room(base64url(source.randbytes(16)))
                async with SignalingClient(front.url, room, ssl=front.tls) as client:
                    with contextlib.suppress(ServerUnreachable):
                        await client.connect(timeout=0.3)
                        continue
                break
            with pytest.raises(ServerUnreachable, match=r"does not reach its server now .HTTP 502"):
                await SignalingClient(front.url, room, ssl=front.tls).connect(timeout=0.3)
            waiting = await stack.enter_async_context(
                SignalingClient(front.url, room, ssl=front.tls)
            )
            entering = asyncio.create_task(waiting.connect())
            await asyncio.sleep(0.3)
            back = await stack.enter_async_context(
                await SignalingServer.start(port=port, proxies=PROXY)
            )
            await entering
            late = await stack.enter_async_context(SignalingClient(front.url, room, ssl=front.tls))
            await late.connect()
            assert (back.sizes["sessions"], other.sizes["sessions"]) == (2, 0)

    asyncio.run(run())


def rooms_of(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        [number] = re.findall(r"^icepunch_rooms ([0-9.]+)$", answer.read().decode(), re.MULTILINE)
    return int(float(number))


def test_listen_and_connect_meet_whichever_process_has_the_room(tmp_path: Path) -> None:
    """Two ``ice-punch serve`` that know nothing of each other, and the commands."""
    serve = ("serve", "--host", "127.0.0.1", "--port", "0", "--no-stun", "--json")
    with contextlib.ExitStack() as stack:
        watched = [free_port(), free_port()]
        servers = [
            stack.enter_context(
                Command(*serve, "--trusted-proxy", "127.0.0.1", "--metrics-port", str(port))
            )
            for port in watched
        ]
        ports = [int(server.event("serving")["url"].rpartition(":")[2]) for server in servers]
        front = stack.enter_context(in_front(tmp_path, several()["without-bus.conf"], *ports))
        trust = ("--ca-file", str(front.cafile), "--json")
        ways = [(), ("--code",)]
        listeners = [
            stack.enter_context(Command("listen", "--server", front.url, *way, *trust))
            for way in ways
        ]
        said = [
            listener.event("code")["code"] if way else listener.event("listening")["link"]
            for way, listener in zip(ways, listeners, strict=True)
        ]
        # A code has a room of its own beside the link's.
        assert sum(map(rooms_of, watched)) == 3
        for number, words in enumerate(said):
            peer = stack.enter_context(
                Command("connect", "--code", words, "--server", front.url, *trust)
                if number == 1
                else Command("connect", words, *trust)
            )
            peer.event("connected")
            peer.send(b"hello %d" % number)
            listeners[number].received(b"hello %d" % number)
            peer.interrupt()
