"""The client on real sockets: it comes back, it loses nothing, and it says what is wrong."""

from __future__ import annotations

import asyncio
import datetime
import json
import random
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from signaling_net import SUBPROTOCOL, Wire, eventually, other_service
from signaling_support import ROOM
from websockets.asyncio.server import ServerConnection, serve

from signaling.client import SignalingClient
from signaling.errors import (
    BadRoom,
    ClientClosed,
    InvalidServerUrl,
    ListenFailed,
    MessageTooLarge,
    ProtocolRefused,
    RoomFull,
    ServerRefused,
    ServerUnreachable,
    SessionReplaced,
    SignalingError,
    VersionRefused,
)
from signaling.events import (
    Disconnected,
    Event,
    PeerAway,
    PeerBack,
    PeerJoined,
    PeerLeft,
    Rejected,
    Resumed,
    SignalReceived,
    Unavailable,
    Welcomed,
)
from signaling.limits import Limits
from signaling.server import SignalingServer

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Quiet(random.Random):
    """Always a tenth of the longest wait."""

    def random(self) -> float:
        return 0.1


async def next_of(client: SignalingClient, kind: type[Event]) -> Event:
    """The next event of that kind; others are passed over."""
    async with asyncio.timeout(5):
        async for event in client:
            if isinstance(event, kind):
                return event
    raise AssertionError(f"the events ended without {kind.__name__}")


@pytest.mark.usefixtures("engine")
def test_two_clients_meet_exchange_signals_and_part() -> None:
    async def run() -> None:
        async with await SignalingServer.start(port=0, ice_servers=["stun:h:1"]) as server:
            url = server.urls[0]
            a = SignalingClient(url, ROOM, meta="listener", max_peers=2)
            b = SignalingClient(url, ROOM)
            async with a, b:
                await a.connect()
                await b.connect()
                assert a.connected
                welcomed = await anext(a)
                assert isinstance(welcomed, Welcomed)
                assert (welcomed.self_id, welcomed.order, welcomed.peers) == (a.self_id, 1, ())
                assert welcomed.observed[0] == "127.0.0.1"
                assert welcomed.ice_servers[0].urls == ["stun:h:1"]
                assert welcomed.seats == 2
                joined = await anext(a)
                assert isinstance(joined, PeerJoined)
                assert (joined.peer.id, joined.peer.order) == (b.self_id, 2)
                there = await anext(b)
                assert isinstance(there, Welcomed)
                assert [(peer.id, peer.meta) for peer in there.peers] == [(a.self_id, "listener")]
                assert await b.send(a.self_id, "link", 2, "cand", "data") == 1
                assert await anext(a) == SignalReceived(b.self_id, "link", 2, "cand", "data")
                await b.close()
                assert await anext(a) == PeerLeft(b.self_id, "left")

    asyncio.run(run())


@pytest.mark.usefixtures("engine")
def test_nothing_is_lost_or_doubled_over_many_cut_connections() -> None:
    async def run() -> None:
        limits = Limits(message_rate=1e4, message_burst=10**4)
        source = random.Random(2)
        async with (
            await SignalingServer.start(port=0, limits=limits) as server,
            Wire(server.port) as wire_a,
            Wire(server.port) as wire_b,
            SignalingClient(wire_a.url, ROOM, random=random.Random(3)) as a,
            SignalingClient(wire_b.url, ROOM, random=random.Random(4)) as b,
        ):
            await a.connect()
            await b.connect()
            ends = {id(a): b.self_id, id(b): a.self_id}
            heard: dict[int, list[int]] = {id(a): [], id(b): []}
            resumed = 0

            async def listen(client: SignalingClient) -> None:
                nonlocal resumed
                async for event in client:
                    if isinstance(event, SignalReceived):
                        heard[id(client)].append(int(event.data))
                    resumed += isinstance(event, Resumed)

            async def talk(client: SignalingClient) -> None:
                for number in range(60):
                    await client.send(ends[id(client)], "link", 0, "bye", str(number))
                    await asyncio.sleep(0.02)

            async def cut() -> None:
                for _ in range(5):
                    await asyncio.sleep(source.random() * 0.4)
                    source.choice([wire_a, wire_b]).cut()

            listeners = [asyncio.create_task(listen(client)) for client in (a, b)]
            await asyncio.gather(talk(a), talk(b), cut())
            await eventually(lambda: all(len(numbers) >= 60 for numbers in heard.values()), 10)
            for task in listeners:
                task.cancel()
            assert heard[id(a)] == heard[id(b)] == list(range(60))
            assert resumed >= 1
            assert server.counters["resumes_refused"] == 0
            assert server.counters["sessions_opened"] == 2

    asyncio.run(run())


@pytest.mark.usefixtures("engine")
def test_the_other_side_sees_a_lost_connection_as_away_and_back() -> None:
    async def run() -> None:
        async with (
            await SignalingServer.start(port=0) as server,
            Wire(server.port) as wire,
            SignalingClient(wire.url, ROOM, random=random.Random(1)) as a,
            SignalingClient(server.urls[0], ROOM) as b,
        ):
            await a.connect()
            await b.connect()
            wire.cut()
            assert await next_of(b, PeerAway) == PeerAway(a.self_id)
            await b.send(a.self_id, "link", 0, "offer", "while away")
            lost = await next_of(a, Disconnected)
            assert isinstance(lost, Disconnected)
            assert "was lost" in lost.reason
            assert 0 <= lost.retry_in <= 0.5
            assert isinstance(await anext(a), Resumed)
            assert await next_of(a, SignalReceived) == SignalReceived(
                b.self_id, "link", 0, "offer", "while away"
            )
            assert await next_of(b, PeerBack) == PeerBack(a.self_id)

    asyncio.run(run())


@pytest.mark.usefixtures("engine")
def test_a_restarted_server_is_a_fresh_welcome() -> None:
    async def run() -> None:
        server = await SignalingServer.start(port=0)
        async with SignalingClient(server.urls[0], ROOM) as client:
            await client.connect()
            first_id = client.self_id
            assert isinstance(await anext(client), Welcomed)
            await server.close(jitter=0.2)
            lost = await anext(client)
            assert isinstance(lost, Disconnected)
            assert "going away" in lost.reason
            assert lost.retry_in <= 0.2
            assert await client.send("peer", "link", 0, "offer", "lost with the session") == 1
            async with await SignalingServer.start(port=client.server.port) as again:
                welcomed = await next_of(client, Welcomed)
                assert isinstance(welcomed, Welcomed)
                assert welcomed.self_id == client.self_id != first_id
                assert again.counters["peer_unavailable"] == 0

    asyncio.run(run())


@pytest.mark.usefixtures("engine")
def test_backoff_doubles_and_has_full_jitter() -> None:
    async def run() -> None:
        async with (
            await SignalingServer.start(port=0) as server,
            Wire(server.port) as wire,
            SignalingClient(wire.url, ROOM, random=Quiet()) as client,
        ):
            await client.connect()
            wire.shut = True
            wire.cut()
            waits = []
            for _ in range(4):
                lost = await next_of(client, Disconnected)
                assert isinstance(lost, Disconnected)
                waits.append(lost.retry_in)
            assert waits == pytest.approx([0.05, 0.1, 0.2, 0.4])
            wire.shut = False
            assert isinstance(await next_of(client, Resumed), Resumed)

    asyncio.run(run())


@pytest.mark.usefixtures("engine")
def test_a_signal_to_nobody_comes_back_as_unavailable() -> None:
    async def run() -> None:
        async with (
            await SignalingServer.start(port=0) as server,
            SignalingClient(server.urls[0], ROOM) as client,
        ):
            await client.connect()
            ref = await client.send("nobody", "link", 0, "offer", "data")
            missing = await next_of(client, Unavailable)
            assert isinstance(missing, Unavailable)
            assert (missing.to, missing.ref, missing.code) == ("nobody", ref, "peer_unavailable")

    asyncio.run(run())


async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(30)


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    return


async def speak_ssh(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
    await writer.drain()
    await reader.read(1)


def answer_http(status: str) -> Behaviour:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nhi".encode())
        await writer.drain()

    return behave


@pytest.mark.parametrize(
    ("behave", "secure", "cause", "says"),
    [
        (say_nothing, False, "timeout", "did not answer within 0.5 s"),
        (say_nothing, True, "timeout", "did not answer within 0.5 s"),
        (hang_up, False, "not-signaling", "is not a signaling server"),
        (hang_up, True, "tls", "TLS with .* failed"),
        (speak_ssh, False, "not-signaling", "what it answers is not HTTP"),
        (speak_ssh, True, "tls", "TLS with .* failed"),
        (answer_http("404 Not Found"), False, "not-signaling", "it answers HTTP 404"),
        (answer_http("502 Bad Gateway"), False, "busy", "does not reach its server"),
        (answer_http("200 OK"), False, "not-signaling", "it answers HTTP 200"),
        (answer_http("503 Unavailable"), False, "busy", "takes no more connections"),
        (answer_http("426 Upgrade Required"), False, None, "does not speak icepunch.v1"),
    ],
)
def test_what_is_no_signaling_server_is_told_in_one_sentence(
    behave: Behaviour, secure: bool, cause: str | None, says: str
) -> None:
    async def run() -> None:
        async with other_service(behave) as url:
            client = SignalingClient(url.replace("http", "https") if secure else url, ROOM)
            began = time.monotonic()
            async with client:
                with pytest.raises(SignalingError, match=says) as caught:
                    await client.connect(timeout=0.5)
            assert time.monotonic() - began < 2
            assert "\n" not in str(caught.value)
            if cause is None:
                assert isinstance(caught.value, VersionRefused)
            else:
                assert isinstance(caught.value, ServerUnreachable)
                assert caught.value.cause == cause

    asyncio.run(run())


@pytest.mark.parametrize(
    ("url", "cause", "says"),
    [
        ("http://127.0.0.1:1", "refused", "no server is listening at http://127.0.0.1:1"),
        ("http://localhost:1", "refused", "no server is listening at http://localhost:1"),
        ("http://[::1]:1", "refused|network", r"http://\[::1\]:1"),
        ("http://no-such-host.invalid", "name", "'no-such-host.invalid' can not be resolved"),
    ],
)
def test_a_server_that_is_not_there_is_told_at_once(url: str, cause: str, says: str) -> None:
    async def run() -> None:
        client = SignalingClient(url, ROOM)
        with pytest.raises(ServerUnreachable, match=says) as caught:
            await client.connect(timeout=5)
        assert caught.value.cause in cause.split("|")
        with pytest.raises(ServerUnreachable):
            await client.send("peer", "link", 0, "offer", "data")
        await client.close()

    asyncio.run(run())


def test_another_websocket_service_is_told() -> None:
    async def chat(connection: ServerConnection) -> None:
        await connection.recv()

    async def run() -> None:
        async with serve(chat, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            with pytest.raises(ServerUnreachable, match="not this protocol"):
                await SignalingClient(url, ROOM).connect(timeout=2)

    asyncio.run(run())


@pytest.mark.usefixtures("engine")
def test_https_to_a_plain_server_is_told() -> None:
    async def run() -> None:
        async with await SignalingServer.start(port=0) as server:
            url = server.urls[0].replace("http", "https")
            with pytest.raises(ServerUnreachable, match=r"TLS with .* failed"):
                await SignalingClient(url, ROOM).connect(timeout=2)

    asyncio.run(run())


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://h", "http://h/path"])
def test_a_url_that_is_none_is_told_before_anything_happens(url: str) -> None:
    with pytest.raises(InvalidServerUrl):
        SignalingClient(url, ROOM)


@pytest.mark.usefixtures("engine")
def test_a_full_room_a_bad_room_and_a_long_note_are_refused_for_good() -> None:
    async def run() -> None:
        async with (
            await SignalingServer.start(port=0) as server,
            SignalingClient(server.urls[0], ROOM, max_peers=2) as a,
            SignalingClient(server.urls[0], ROOM) as b,
        ):
            await a.connect()
            await b.connect()
            cases: list[tuple[SignalingClient, type[ServerRefused], int]] = [
                (SignalingClient(server.urls[0], ROOM), RoomFull, 4504),
                (SignalingClient(server.urls[0], "short"), BadRoom, 4507),
                (SignalingClient(server.urls[0], ROOM, meta="x" * 1025), ProtocolRefused, 4500),
            ]
            for client, kind, code in cases:
                with pytest.raises(kind) as caught:
                    await client.connect(timeout=2)
                assert caught.value.close_code == code
                assert isinstance(await anext(client), Rejected)
                with pytest.raises(kind):
                    await anext(client)
                await client.close()

    asyncio.run(run())


@pytest.mark.usefixtures("engine")
def test_a_client_waits_for_the_seat_of_a_peer_that_vanished() -> None:
    async def run() -> None:
        limits = Limits(seat_grace=0.8)
        async with (
            await SignalingServer.start(port=0, limits=limits) as server,
            Wire(server.port) as wire,
            SignalingClient(server.urls[0], ROOM, max_peers=2) as a,
            SignalingClient(wire.url, ROOM, random=Quiet()) as b,
            SignalingClient(server.urls[0], ROOM) as impatient,
            SignalingClient(server.urls[0], ROOM, random=Quiet()) as c,
        ):
            await a.connect()
            await b.connect()
            wire.shut = True
            wire.cut()
            await next_of(a, PeerAway)
            with pytest.raises(RoomFull, match="a seat is kept"):
                await impatient.connect(timeout=0.2)
            await c.connect(timeout=5)
            assert await next_of(a, PeerLeft) == PeerLeft(b.self_id, "unseated")
            wire.shut = False
            with pytest.raises(RoomFull):
                await next_of(b, PeerLeft)

    asyncio.run(run())


def stub(reply: Callable[[ServerConnection], Awaitable[None]]) -> Callable[..., object]:
    async def handle(connection: ServerConnection) -> None:
        await connection.recv()
        await reply(connection)

    return serve(handle, "127.0.0.1", 0, subprotocols=[SUBPROTOCOL])


WELCOME = json.dumps(
    {
        "type": "welcome",
        "v": 1,
        "self": "me",
        "order": 1,
        "sid": "s" * 22,
        "key": "k" * 22,
        "peers": [],
        "ping": 25,
        "window": 30,
        "limits": {
            "frame": 65536,
            "data": 100,
            "meta": 1024,
            "candidates": 128,
            "peers": 16,
            "rate": 20,
            "burst": 60,
        },
        "ice": {"servers": []},
        "you": {"ip": "192.0.2.1", "port": 1},
        "news": "a field from the future",
    }
)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (4500, ProtocolRefused),
        (4503, SessionReplaced),
        (4505, ProtocolRefused),
        (4506, VersionRefused),
        (4599, ServerRefused),
        (1008, ServerRefused),
    ],
)
def test_a_code_from_4500_stops_the_client_for_good(code: int, kind: type[ServerRefused]) -> None:
    async def run() -> None:
        async def reply(connection: ServerConnection) -> None:
            await connection.send(WELCOME)
            await connection.close(code)

        async with stub(reply) as server:  # type: ignore[attr-defined]
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            async with SignalingClient(url, ROOM) as client:
                await client.connect(timeout=2)
                rejected = await next_of(client, Rejected)
                assert isinstance(rejected, Rejected)
                assert type(rejected.error) is kind
                with pytest.raises(kind):
                    await anext(client)
                with pytest.raises(kind):
                    await client.send("peer", "link", 0, "offer", "data")

    asyncio.run(run())


@pytest.mark.parametrize(
    "frame",
    ["nonsense", '{"type":"welcome"}', '{"type":"resumed","seq":0,"rx":0,"peers":[]}', b"x"],
)
def test_a_server_that_breaks_the_protocol_is_told(frame: str | bytes) -> None:
    async def run() -> None:
        async def reply(connection: ServerConnection) -> None:
            await connection.send(frame)
            await connection.wait_closed()

        async with stub(reply) as server:  # type: ignore[attr-defined]
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            async with SignalingClient(url, ROOM) as client:
                with pytest.raises(ServerUnreachable, match="broke the protocol"):
                    await client.connect(timeout=2)

    asyncio.run(run())


def test_a_server_of_another_version_is_told() -> None:
    async def run() -> None:
        async def reply(connection: ServerConnection) -> None:
            await connection.send(json.dumps(json.loads(WELCOME) | {"v": 2}))
            await connection.wait_closed()

        async with stub(reply) as server:  # type: ignore[attr-defined]
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            with pytest.raises(ServerUnreachable, match="speaks version 2 of the protocol, not 1"):
                await SignalingClient(url, ROOM).connect(timeout=2)

    asyncio.run(run())


@pytest.mark.parametrize(
    "last",
    [
        {"type": "drain", "in_s": 0, "jitter_s": 0},
        {"type": "drain", "in_s": 0, "jitter_s": -1e9},
        {"type": "error", "code": "busy", "message": "m", "retry_after": -1e9, "fatal": True},
    ],
)
def test_no_word_of_a_server_makes_a_client_hammer_it(last: dict[str, object]) -> None:
    async def run() -> None:
        async def reply(connection: ServerConnection) -> None:
            await connection.send(WELCOME)
            await connection.send(json.dumps(last))
            await connection.close(4000)

        async with stub(reply) as server:  # type: ignore[attr-defined]
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            async with SignalingClient(url, ROOM, random=Quiet()) as client:
                await client.connect(timeout=2)
                waits = []
                for _ in range(4):
                    lost = await next_of(client, Disconnected)
                    assert isinstance(lost, Disconnected)
                    waits.append(lost.retry_in)
                assert waits[0] >= 0
                assert waits[1:] == pytest.approx([0.1, 0.2, 0.4])

    asyncio.run(run())


def test_sending_waits_when_the_server_confirms_nothing_and_close_ends_the_wait() -> None:
    async def run() -> None:
        async def reply(connection: ServerConnection) -> None:
            await connection.send(WELCOME)
            await connection.send('{"type":"news","from":"the future"}')
            async for _ in connection:
                pass

        async with stub(reply) as server:  # type: ignore[attr-defined]
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            client = SignalingClient(url, ROOM)
            await client.connect(timeout=2)
            with pytest.raises(MessageTooLarge, match="101 bytes is over the limit of 100"):
                await client.send("peer", "link", 0, "offer", "x" * 101)
            for _ in range(64):
                await client.send("peer", "link", 0, "offer", "x")
            waiting = asyncio.create_task(client.send("peer", "link", 0, "offer", "x"))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            began = time.monotonic()
            await client.close()
            assert time.monotonic() - began < 1.0
            with pytest.raises(ClientClosed):
                await waiting

    asyncio.run(run())


def test_a_client_that_is_not_connected_says_so() -> None:
    async def run() -> None:
        client = SignalingClient("http://127.0.0.1:1", ROOM)
        with pytest.raises(ClientClosed):
            await client.send("peer", "link", 0, "offer", "data")
        await client.close()
        with pytest.raises(ClientClosed):
            await client.connect()
        with pytest.raises(StopAsyncIteration):
            await anext(client)

    asyncio.run(run())


@pytest.mark.usefixtures("engine")
def test_what_was_sent_before_close_goes_out_before_the_leaving() -> None:
    async def run() -> None:
        async with (
            await SignalingServer.start(port=0) as server,
            SignalingClient(server.urls[0], ROOM) as a,
        ):
            await a.connect()
            b = SignalingClient(server.urls[0], ROOM)
            await b.connect()
            for number in range(20):
                await b.send(a.self_id, "link", 0, "bye", str(number))
            await b.close()
            heard = []
            async for event in a:
                if isinstance(event, SignalReceived):
                    heard.append(event.data)
                if isinstance(event, PeerLeft):
                    break
            assert heard == [str(number) for number in range(20)]

    asyncio.run(run())


def test_connecting_can_be_cancelled() -> None:
    async def run() -> None:
        async with other_service(say_nothing) as url:
            client = SignalingClient(url, ROOM)
            task = asyncio.create_task(client.connect(timeout=30))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await client.close()
            assert len(asyncio.all_tasks()) <= 2

    asyncio.run(run())


@pytest.mark.usefixtures("engine")
def test_tls_with_a_certificate_of_ones_own_and_uvloop(tmp_path: Path) -> None:
    uvloop = pytest.importorskip("uvloop")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "both.pem"
    pem.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(pem)
    trusting = ssl.create_default_context(cafile=str(pem))

    async def run() -> None:
        async with await SignalingServer.start(port=0, ssl=serving) as server:
            assert server.urls == [f"https://127.0.0.1:{server.port}"]
            url = f"https://localhost:{server.port}"
            async with SignalingClient(url, ROOM, ssl=trusting) as client:
                await client.connect(timeout=5)
            with pytest.raises(ServerUnreachable, match="is not trusted") as caught:
                await SignalingClient(url, ROOM).connect(timeout=5)
            assert caught.value.cause == "tls"
            plain = url.replace("https", "http")
            with pytest.raises(ServerUnreachable, match=r"is not a signaling server|broke"):
                await SignalingClient(plain, ROOM).connect(timeout=5)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())

    async def on_the_standard_loop() -> None:
        with pytest.raises(ListenFailed, match="TLS needs uvloop") as caught:
            await SignalingServer.start(port=0, ssl=serving)
        assert "\n" not in str(caught.value)

    asyncio.run(on_the_standard_loop())
