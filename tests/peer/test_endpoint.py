"""A channel as asyncio's datagram transport: a library written for one runs over a punched path."""

from __future__ import annotations

import asyncio
import datetime
import errno
from pathlib import Path
from typing import Any

import pytest

from ice_punch.channel import Channel
from ice_punch.errors import ChannelClosed, ConsentLost, DatagramRefused
from ice_punch.ice import AgentConfig
from support.channels import channels

BOTH = pytest.mark.parametrize("encrypt", [False, True], ids=["plain", "encrypted"])


class Recorder(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.transport: Any = None
        self.received: list[tuple[bytes, Any]] = []
        self.errors: list[Exception] = []
        self.lost: list[Exception | None] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.received.append((data, addr))
        if data == b"raise":
            raise ValueError("a bug of the protocol's")

    def error_received(self, exc: Exception) -> None:
        self.errors.append(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)


async def until(condition: Any, timeout: float = 5.0) -> None:
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.002)


@BOTH
def test_datagrams_go_to_the_protocol_with_the_address_of_the_peer(encrypt: bool) -> None:
    async def test() -> None:
        async with channels(encrypt=encrypt) as (a, b):
            a.send_nowait(b"before")
            await until(lambda: b.stats.datagrams_received == 1)
            _, here = await a.create_datagram_endpoint(Recorder)
            transport, there = await b.create_datagram_endpoint(Recorder)
            assert isinstance(here, Recorder)
            assert isinstance(there, Recorder)
            assert there.transport is transport
            assert transport.get_protocol() is there
            peer = transport.get_extra_info("peername")
            assert b.path is not None
            assert (peer, transport.get_extra_info("channel")) == (b.path.remote, b)
            assert there.received == [(b"before", peer)]
            for n in range(100):
                here.transport.sendto(b"%d" % n, None if n % 2 else here.transport._remote)
            await until(lambda: len(there.received) == 101)
            assert [data for data, _ in there.received[1:]] == [b"%d" % n for n in range(100)]
            assert b.stats.datagrams_received == 101
            transport.sendto(bytearray(b"back"))
            await until(lambda: here.received)
            assert here.received[0][0] == b"back"

    asyncio.run(test())


def test_wrong_use_and_errors_are_those_of_asyncio() -> None:
    async def test() -> None:
        async with channels(encrypt=False) as (a, _):
            transport, protocol = await a.create_datagram_endpoint(Recorder)
            assert isinstance(protocol, Recorder)
            with pytest.raises(TypeError):
                transport.sendto("text")  # type: ignore[arg-type]
            with pytest.raises(ValueError, match="the address"):
                transport.sendto(b"x", ("192.0.2.1", 1))
            with pytest.raises(ValueError, match="the address"):
                transport.sendto(b"x", 5)
            transport.sendto(bytes(20000))
            transport.sendto(bytes.fromhex("000100002112a442") + bytes(12))
            await until(lambda: len(protocol.errors) == 2)
            too_large, refused = protocol.errors
            assert isinstance(too_large, OSError)
            assert too_large.errno == errno.EMSGSIZE
            assert isinstance(refused, DatagramRefused)

    asyncio.run(test())


def test_a_protocol_that_raises_is_told_to_the_loop_and_loses_no_other_datagram() -> None:
    async def test() -> None:
        told: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        async with channels(encrypt=False) as (a, b):
            _, protocol = await b.create_datagram_endpoint(Recorder)
            assert isinstance(protocol, Recorder)
            a.send_many_nowait([b"one", b"raise", b"three"])
            await until(lambda: len(protocol.received) == 3)
            assert [str(context["exception"]) for context in told] == ["a bug of the protocol's"]

    asyncio.run(test())


@BOTH
def test_closing_the_transport_closes_the_channel_and_is_told_once(encrypt: bool) -> None:
    async def test() -> None:
        async with channels(encrypt=encrypt) as (a, b):
            transport, protocol = await a.create_datagram_endpoint(Recorder)
            assert isinstance(protocol, Recorder)
            transport.sendto(b"last words")
            transport.close()
            transport.close()
            assert transport.is_closing()
            transport.sendto(b"too late")
            assert await asyncio.wait_for(b.recv(), 2) == b"last words"
            await until(lambda: protocol.lost)
            assert a.closed
            await asyncio.sleep(0.05)
            assert protocol.lost == [None]
            with pytest.raises(ChannelClosed):
                await a.create_datagram_endpoint(Recorder)

    asyncio.run(test())


@BOTH
def test_after_closing_nothing_more_is_received(encrypt: bool) -> None:
    class OneIsEnough(Recorder):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            super().datagram_received(data, addr)
            self.transport.close()

    async def test() -> None:
        async with channels(encrypt=encrypt) as (a, b):
            _, protocol = await b.create_datagram_endpoint(OneIsEnough)
            assert isinstance(protocol, Recorder)
            a.send_many_nowait([b"one", b"two", b"three"])
            await until(lambda: protocol.lost)
            assert [data for data, _ in protocol.received] == [b"one"]

    asyncio.run(test())


@BOTH
def test_a_full_queue_pauses_the_protocol_until_there_is_room(encrypt: bool) -> None:
    class Writer(Recorder):
        def __init__(self) -> None:
            super().__init__()
            self.told: list[str] = []

        def pause_writing(self) -> None:
            self.told.append("pause")

        def resume_writing(self) -> None:
            self.told.append("resume")

    async def test() -> None:
        async with channels(encrypt=encrypt, send_queue=8) as (a, _):
            transport, protocol = await a.create_datagram_endpoint(Writer)
            assert isinstance(protocol, Writer)
            assert transport.get_write_buffer_size() == 0
            a.pacing_rate = 100_000
            while not a._outbox.congested:
                transport.sendto(bytes(1000))
            assert protocol.told == ["pause"]
            assert transport.get_write_buffer_size() >= 4000
            await until(lambda: protocol.told == ["pause", "resume"])
            assert not a._outbox.congested

    asyncio.run(test())


def test_a_protocol_that_can_not_begin_is_told_nothing_and_leaves_the_channel_as_it_was() -> None:
    class Broken(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            raise ValueError("no")

    async def test() -> None:
        broken = Broken()
        async with channels(encrypt=False) as (a, b):
            with pytest.raises(ValueError, match="no"):
                await b.create_datagram_endpoint(lambda: broken)
            a.send_nowait(b"goes on")
            assert await asyncio.wait_for(b.recv(), 5) == b"goes on"
        await asyncio.sleep(0)
        assert not broken.lost

    asyncio.run(test())


def test_a_lost_path_is_the_reason_of_connection_lost() -> None:
    quick = AgentConfig(consent_interval=0.1, consent_timeout=0.6)

    async def test() -> None:
        async with channels(encrypt=False, agent_config=quick) as (a, b):
            _, protocol = await a.create_datagram_endpoint(Recorder)
            assert isinstance(protocol, Recorder)
            await b.connection.close()
            await until(lambda: protocol.lost)
            assert isinstance(protocol.lost[0], ConsentLost)

    asyncio.run(test())


# -- QUIC -------------------------------------------------------------------------------------


def certificate(folder: Path) -> tuple[Path, Path]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "peer")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("peer")]), False)
        .sign(key, hashes.SHA256())
    )
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files


@BOTH
def test_quic_runs_over_it_unchanged(encrypt: bool, tmp_path: Path) -> None:
    pytest.importorskip("aioquic")
    from aioquic.asyncio.protocol import QuicConnectionProtocol
    from aioquic.asyncio.server import QuicServer
    from aioquic.quic.configuration import QuicConfiguration
    from aioquic.quic.connection import QuicConnection

    chain, key = certificate(tmp_path)
    document = bytes(range(256)) * 2000

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read())[::-1])
        writer.write_eof()

    async def serve(channel: Channel) -> None:
        configuration = QuicConfiguration(is_client=False, alpn_protocols=["test"])
        configuration.load_cert_chain(str(chain), str(key))
        tasks: set[asyncio.Task[None]] = set()

        def on_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(echo(reader, writer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        await channel.create_datagram_endpoint(
            lambda: QuicServer(configuration=configuration, stream_handler=on_stream)
        )

    async def ask(channel: Channel) -> bytes:
        configuration = QuicConfiguration(
            is_client=True, alpn_protocols=["test"], server_name="peer"
        )
        configuration.load_verify_locations(cafile=str(chain))
        connection = QuicConnection(configuration=configuration)
        transport, protocol = await channel.create_datagram_endpoint(
            lambda: QuicConnectionProtocol(connection)
        )
        assert isinstance(protocol, QuicConnectionProtocol)
        protocol.connect(transport.get_extra_info("peername"))
        await protocol.wait_connected()
        reader, writer = await protocol.create_stream()
        writer.write(document)
        writer.write_eof()
        answer = await reader.read()
        protocol.close()
        await protocol.wait_closed()
        return answer

    async def test() -> None:
        async with channels(encrypt=encrypt) as (a, b):
            # QUIC's first packets have 1200 bytes, RFC 9000 section 14.1.
            assert a.max_datagram_size >= 1200
            await serve(b)
            assert await asyncio.wait_for(ask(a), 20) == document[::-1]

    asyncio.run(test())
