"""An encrypted channel over real sockets: batches out, batches in, and what may change below."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from collections.abc import AsyncIterator

import pytest

from ice_punch import ChannelClosed, DatagramRefused, DatagramTooLarge
from ice_punch.channel import Channel
from ice_punch.dtls import Certificate, DtlsMachine, DtlsRole, codec
from support.loopback import connected_pair


@contextlib.asynccontextmanager
async def encrypted_pair(receive_queue: int = 1024) -> AsyncIterator[tuple[Channel, Channel]]:
    certificates = Certificate.generate(), Certificate.generate()
    async with connected_pair() as connections:
        roles = DtlsRole.CLIENT, DtlsRole.SERVER
        channels = [
            Channel(
                connection,
                DtlsMachine(
                    ours, role, theirs.fingerprints(), mtu=connection.max_datagram_size, rtt=0.01
                ),
                receive_queue=receive_queue,
            )
            for connection, role, ours, theirs in zip(
                connections, roles, certificates, certificates[::-1], strict=True
            )
        ]
        await asyncio.gather(*(channel.open() for channel in channels))
        try:
            yield channels[0], channels[1]
        finally:
            for channel in channels:
                await channel.close()


async def receive(channel: Channel, count: int) -> list[bytes]:
    received: list[bytes] = []
    while len(received) < count:
        received += await asyncio.wait_for(channel.recv_many(), 10)
    return received


@pytest.mark.parametrize("chosen", [codec.BindingsCodec, codec.PublicCodec])
def test_a_stream_of_any_sizes_arrives_whole_and_in_order(
    chosen: type[codec.Codec], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Record boundaries under batching, both ways at once."""
    monkeypatch.setattr(codec, "CODEC", chosen)
    rng = random.Random(5)

    async def stream(sender: Channel, receiver: Channel) -> None:
        sent, got = hashlib.sha256(), hashlib.sha256()
        for _ in range(30):
            size = rng.randint(1, sender.max_datagram_size)
            equal = rng.random() < 0.5
            burst = [
                rng.randbytes(size if equal else rng.randint(1, size))
                for _ in range(rng.randint(1, 120))
            ]
            if rng.random() < 0.5:
                await sender.send_many(burst)
            else:
                for datagram in burst:
                    sender.send_nowait(datagram)
            for datagram in burst:
                sent.update(len(datagram).to_bytes(4) + datagram)
            for datagram in await receive(receiver, len(burst)):
                got.update(len(datagram).to_bytes(4) + datagram)
        assert got.digest() == sent.digest()

    async def run() -> None:
        async with encrypted_pair() as (a, b):
            await asyncio.gather(stream(a, b), stream(b, a))
            dropped = [channel.stats.dropped_malformed for channel in (a, b)]
            await asyncio.gather(stream(a, b), stream(b, a))
            # A busy machine may have seen flights of the handshake twice, at the beginning.
            assert [channel.stats.dropped_malformed for channel in (a, b)] == dropped

    asyncio.run(run())


def test_what_can_not_be_sent_is_refused_and_the_rest_of_its_batch_with_it() -> None:
    async def run() -> None:
        async with encrypted_pair() as (a, b):
            limit = a.max_datagram_size
            with pytest.raises(DatagramTooLarge):
                await a.send_many([b"x", bytes(limit + 1)])
            with pytest.raises(DatagramRefused):
                await a.send_many([b"x", b""])
            with pytest.raises(DatagramRefused):
                a.send_nowait(b"")
            await a.send_many([b"first", bytes(limit)])
            assert await receive(b, 2) == [b"first", bytes(limit)]

    asyncio.run(run())


def test_what_looks_like_stun_is_carried_encrypted() -> None:
    stun = b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes(12)

    async def run() -> None:
        async with encrypted_pair() as (a, b):
            await a.send_many([stun] * 3)
            assert await receive(b, 3) == [stun] * 3

    asyncio.run(run())


def test_datagrams_for_a_path_that_has_become_too_narrow_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They were taken while they fitted; nothing breaks over them."""

    async def run() -> None:
        async with encrypted_pair() as (a, b):
            wide = a.max_datagram_size
            # The first leaves at once, the others at the end of this turn.
            a.send_nowait(b"first")
            a.send_nowait(bytes(wide))
            a.send_nowait(b"third")
            carrier = a.connection.carrier
            narrow = carrier.max_datagram_size - 200
            monkeypatch.setattr(type(carrier), "max_datagram_size", narrow)
            a._on_path()
            assert a.max_datagram_size == wide - 200
            assert await receive(b, 2) == [b"first", b"third"]
            assert a.stats.dropped_too_large == 1
            assert a.stats.datagrams_sent == 2
            with pytest.raises(DatagramTooLarge):
                a.send_nowait(bytes(wide - 199))
            await a.send_many([bytes(wide - 200)] * 2)
            assert await receive(b, 2) == [bytes(wide - 200)] * 2

    asyncio.run(run())


def test_what_was_sent_before_the_close_arrives_before_it() -> None:
    async def run() -> None:
        async with encrypted_pair() as (a, b):
            for n in range(100):
                a.send_nowait(bytes((n,)))
            await a.close()
            assert await receive(b, 100) == [bytes((n,)) for n in range(100)]
            with pytest.raises(ChannelClosed):
                await asyncio.wait_for(b.recv(), 5)
            with pytest.raises(ChannelClosed):
                a.send_nowait(b"late")

    asyncio.run(run())


def test_a_reader_that_stops_loses_the_oldest_and_costs_no_memory() -> None:
    async def run() -> None:
        async with encrypted_pair(receive_queue=50) as (a, b):
            for round_ in range(40):
                await a.send_many([bytes((round_, n)) for n in range(52)])
                await asyncio.sleep(0.002)
            await asyncio.sleep(0.1)
            stats = b.stats
            assert stats.datagrams_received == 40 * 52
            assert stats.dropped_oldest == 40 * 52 - 50
            assert await b.recv_many() == [bytes((39, n)) for n in range(2, 52)]

    asyncio.run(run())
