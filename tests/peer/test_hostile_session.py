"""A live session under fire, from strangers and from the peer's own address."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

import ice_punch
from ice_punch.carrier import Carrier
from ice_punch.channel import Channel
from ice_punch.connection import IceConnection
from ice_punch.datagram import Address
from ice_punch.dtls import Certificate, DtlsMachine, DtlsRole
from ice_punch.ice.agent import resembles_stun
from ice_punch.peer import PeerOptions
from ice_punch.stun import Message, MessageClass, Method, attributes, short_term_key
from support.loopback import OPTIONS, signaling

ENCRYPTED = OPTIONS
PLAIN = replace(OPTIONS, encrypt=False)
BOTH = pytest.mark.parametrize("options", [ENCRYPTED, PLAIN], ids=["encrypted", "plain"])
COOKIE = bytes.fromhex("2112a442")


@contextlib.asynccontextmanager
async def channels(options: PeerOptions) -> AsyncIterator[tuple[Channel, Channel]]:
    """The accepted one and the connecting one."""
    async with signaling() as url, ice_punch.listen(url, options) as listener:

        async def accept() -> Channel:
            return await listener.accept()

        accepting = asyncio.ensure_future(accept())
        async with ice_punch.connect(listener.link, options) as channel, await accepting as other:
            yield other, channel


class Attacker:
    """Puts datagrams in front of one channel as if they came from an address."""

    def __init__(self, victim: Channel, peer: Channel) -> None:
        assert victim.path is not None
        assert peer.path is not None
        self.connection: IceConnection = victim.connection
        self.peer = peer.connection
        self.local: Address = next(iter(victim.connection._driver.gatherer.paths))
        self.peer_address: Address = victim.path.remote

    def from_peer(self, data: bytes) -> None:
        self.connection._driver._on_datagram(data, self.peer_address, self.local)

    def request(self) -> Message:
        ours = self.connection._agent.credentials
        theirs = self.peer._agent.credentials
        message = Message(Method.BINDING, MessageClass.REQUEST, random.Random(5).randbytes(12))
        message.add(attributes.USERNAME, f"{ours.ufrag}:{theirs.ufrag}")
        message.add(attributes.PRIORITY, 1845494271)
        message.add(attributes.ICE_CONTROLLING, 1)
        return message

    def key(self) -> bytes:
        return short_term_key(self.connection._agent.credentials.pwd)


async def _still_works(a: Channel, b: Channel) -> None:
    """And what the attack left is nothing: the next datagram is the genuine one."""
    for sender, receiver in ((a, b), (b, a)):
        await sender.send(b"genuine")
        async with asyncio.timeout(3):
            assert await receiver.recv() == b"genuine"
    assert not a._inbox.held
    assert not b._inbox.held


def _mutations(seeds: list[bytes], count: int, rng: random.Random) -> Iterator[bytes]:
    """Truncated, lengthened, mutated, spliced and random datagrams."""
    for _ in range(count):
        base = bytearray(rng.choice(seeds))
        match rng.randrange(6):
            case 0:
                yield bytes(base[: rng.randrange(len(base))])
            case 1:
                for _ in range(rng.randrange(1, 6)):
                    base[rng.randrange(len(base))] = rng.randrange(256)
                yield bytes(base)
            case 2:
                yield bytes(base) + rng.randbytes(rng.randrange(1, 60))
            case 3:
                other = rng.choice(seeds)
                yield bytes(base[: rng.randrange(len(base))]) + other[rng.randrange(len(other)) :]
            case 4:
                yield rng.randbytes(rng.randrange(0, 1500))
            case 5:
                yield bytes(base[:1]) + rng.randbytes(rng.randrange(0, 200))


def _record_traffic(connection: IceConnection) -> list[bytes]:
    """Everything ``connection`` receives from now on."""
    seen: list[bytes] = []
    original = connection._driver._on_datagram

    def record(data: bytes, source: Address, local: Address) -> None:
        seen.append(data)
        original(data, source, local)

    for path in connection._driver.gatherer.paths.values():
        path.on_datagram = record  # type: ignore[attr-defined]
    return seen


@BOTH
def test_thousands_of_datagrams_from_strangers_change_nothing(options: PeerOptions) -> None:
    async def run() -> None:
        async with channels(options) as (a, b):
            attacker = Attacker(a, b)
            rng = random.Random(1)
            check = attacker.request().to_bytes(key=b"a key that is not ours")
            seeds = [
                check,
                bytes.fromhex("16feff0000000000000000000404030201"),
                b"hello",
                b"\x80" * 60,
            ]
            sent = 0
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                stranger.bind(("127.0.0.1", 0))
                for data in _mutations(seeds, 3000, rng):
                    sent += stranger.sendto(data, attacker.local) >= 0
                    if sent % 50 == 0:
                        await asyncio.sleep(0)
            await _still_works(a, b)
            counters = a.connection.counters
            assert a.stats.dropped_strangers > 1000
            assert (
                a.stats.dropped_strangers
                + a.stats.dropped_malformed
                + sum(
                    count
                    for name, count in counters.items()
                    if name.startswith(("req", "resp", "ind"))
                )
                > 2900
            )
            assert a.stats.datagrams_received == 1
            # One port of the peer's IP address may be asked whether it is the peer.
            assert len(a.connection._agent.remote_candidates) <= 2

    asyncio.run(run())


def test_thousands_of_datagrams_from_the_peers_address_end_no_encrypted_session() -> None:
    async def run() -> None:
        async with channels(ENCRYPTED) as (a, b):
            seen = _record_traffic(a.connection)
            for number in range(20):
                await b.send(b"text %d" % number)
            for _ in range(20):
                await asyncio.wait_for(a.recv(), 1)
            attacker = Attacker(a, b)
            seeds = [data for data in seen if not resembles_stun(data)]
            seeds.append(attacker.request().to_bytes(key=b"a key that is not ours"))
            received = a.stats.datagrams_received
            for number, data in enumerate(_mutations(seeds, 6000, random.Random(2))):
                attacker.from_peer(data)
                if number % 100 == 0:
                    await asyncio.sleep(0)
            assert a.stats.datagrams_received == received
            assert a.stats.dropped_malformed > 4000
            await _still_works(a, b)

    asyncio.run(run())


def test_a_plain_session_delivers_what_the_peers_address_sends_and_no_stun() -> None:
    """Plain means that: whoever can forge the peer's address can speak for it. But not to ICE."""

    async def run() -> None:
        async with channels(PLAIN) as (a, b):
            attacker = Attacker(a, b)
            rng = random.Random(3)
            seeds = [attacker.request().to_bytes(key=b"a key that is not ours"), b"hello" * 9]
            expected: list[bytes] = []
            for data in _mutations(seeds, 3000, rng):
                if not resembles_stun(data):
                    expected.append(data)
                attacker.from_peer(data)
                while a._inbox.held:
                    assert await a.recv() == expected.pop(0)
            assert not expected
            await _still_works(a, b)

    asyncio.run(run())


@BOTH
def test_replayed_records_and_checks_are_not_delivered_twice(options: PeerOptions) -> None:
    async def run() -> None:
        async with channels(options) as (a, b):
            seen = _record_traffic(a.connection)
            await b.send(b"once")
            assert await a.recv() == b"once"
            await asyncio.sleep(0.05)
            attacker = Attacker(a, b)
            replayed = [d for d in seen if options.encrypt or resembles_stun(d)]
            for _ in range(200):
                for data in replayed:
                    attacker.from_peer(data)
            assert not a._inbox.held
            await _still_works(a, b)

    asyncio.run(run())


def test_forged_endings_end_nothing() -> None:
    """close_notify and fatal alerts, unprotected or under a guessed key (RFC 6347 4.1.2.7)."""

    async def run() -> None:
        async with channels(ENCRYPTED) as (a, b):
            for victim, peer in ((a, b), (b, a)):
                attacker = Attacker(victim, peer)
                for epoch in range(3):
                    for body in (b"\x01\x00", b"\x02\x00", b"\x02\x28", b"\x02\x28" + bytes(24)):
                        for version in (b"\xfe\xff", b"\xfe\xfd", b"\xfe\xfc"):
                            header = b"\x15" + version + epoch.to_bytes(2, "big")
                            header += (2**40).to_bytes(6, "big")
                            attacker.from_peer(header + len(body).to_bytes(2, "big") + body)
                attacker.from_peer(b"\x2f" + bytes(40))  # a DTLS 1.3 unified header
                assert not victim.closed
            await _still_works(a, b)

    asyncio.run(run())


def test_a_new_client_hello_ends_no_session() -> None:
    async def run() -> None:
        async with channels(ENCRYPTED) as (a, b):
            for victim, peer in ((a, b), (b, a)):
                stranger = DtlsMachine(Certificate.generate(), DtlsRole.CLIENT, [])
                stranger.start(0.0)
                for hello in stranger.datagrams_to_send(0.0) * 20:
                    Attacker(victim, peer).from_peer(hello)
            await _still_works(a, b)

    asyncio.run(run())


def _with_short_priority(request: bytes) -> bytes:
    """The same request with a PRIORITY of two bytes."""
    at = request.index(b"\x00\x24\x00\x04")
    return request[:at] + b"\x00\x24\x00\x02" + request[at + 4 :]


@BOTH
def test_wrong_checks_from_the_peers_address_are_counted_and_have_no_effect(
    options: PeerOptions,
) -> None:
    async def run() -> None:
        async with channels(options) as (a, b):
            attacker = Attacker(a, b)
            selected = a.connection.selected_pair
            path = a.path
            good = attacker.request().to_bytes(key=attacker.key())
            nominating = attacker.request()
            nominating.add(attributes.USE_CANDIDATE, True)
            forged = nominating.to_bytes(key=short_term_key("not the password"))
            for datagram in (
                _with_short_priority(good),
                good[:4] + b"\x21\x12\xa4\x43" + good[8:],
                good[:2] + b"\x00\x00" + good[4:],
                good[:-8],
                good[:20],
                forged,
                nominating.to_bytes(fingerprint=False),
                Message(Method.BINDING, MessageClass.SUCCESS, bytes(12)).to_bytes(key=b"k"),
                Message(Method.BINDING, MessageClass.ERROR, bytes(12)).to_bytes(key=b"k"),
                Message(Method.ALLOCATE, MessageClass.REQUEST, bytes(12)).to_bytes(),
            ):
                before = a.connection.counters.total()
                attacker.from_peer(datagram)
                if resembles_stun(datagram):
                    assert a.connection.counters.total() > before, datagram
            if not options.encrypt:
                while a._inbox.held:  # a wrong cookie is no STUN
                    assert (await a.recv())[4:8] != COOKIE
            assert a.connection.selected_pair is selected
            assert a.path is not None
            assert path is not None
            assert a.path.remote == path.remote
            await _still_works(a, b)

    asyncio.run(run())


def test_a_peer_that_floods_costs_the_oldest_datagrams_and_no_memory() -> None:
    async def run() -> None:
        async with channels(replace(PLAIN, receive_queue=16)) as (a, b):
            attacker = Attacker(a, b)
            for number in range(5000):
                attacker.from_peer(b"%d" % number)
            assert len(a._inbox.held) == 16
            assert a.stats.dropped_oldest == 4984
            assert await a.recv() == b"4984"

    asyncio.run(run())


def test_a_smaller_path_takes_smaller_datagrams(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with channels(ENCRYPTED) as (a, _b):
            before = a.max_datagram_size
            below = a.connection.max_datagram_size
            monkeypatch.setattr(Carrier, "max_datagram_size", below - 24)
            assert a.max_datagram_size == before - 24

    asyncio.run(run())


def test_ipv6_carries_an_encrypted_channel() -> None:
    async def run() -> None:
        options = replace(ENCRYPTED, ipv4=False, ipv6=True)
        async with channels(options) as (a, b):
            assert a.path is not None
            assert ":" in a.path.remote[0]
            assert str(a.path).startswith("direct [::1]:")
            largest = bytes([9]) * a.max_datagram_size
            await a.send(largest)
            assert await asyncio.wait_for(b.recv(), 1) == largest

    if not _has_ipv6():
        pytest.skip("no ::1 on this host")
    asyncio.run(run())


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
