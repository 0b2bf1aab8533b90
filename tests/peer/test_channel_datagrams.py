"""Datagrams through a channel, plain and encrypted: batches, freshness, pacing, sizes, counts."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import hashlib
import random
import resource
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from ice_punch.channel import Channel
from ice_punch.errors import ChannelClosed, ConsentLost, DatagramRefused, DatagramTooLarge
from ice_punch.ice import AgentConfig
from ice_punch.net.udp import offload
from support.channels import channels

try:
    import uvloop
except ImportError:
    uvloop = None

BOTH = pytest.mark.parametrize("encrypt", [False, True], ids=["plain", "encrypted"])
LOOPS = pytest.mark.parametrize(
    "factory",
    [
        pytest.param(asyncio.new_event_loop, id="asyncio"),
        pytest.param(
            uvloop.new_event_loop if uvloop else None,
            id="uvloop",
            marks=pytest.mark.skipif(uvloop is None, reason="uvloop is not installed"),
        ),
    ],
)
JUMBO = 9216


def run(
    test: Callable[[], Coroutine[Any, Any, None]],
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> None:
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(test())


async def until(condition: Callable[[], bool], timeout: float = 10.0) -> None:
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.002)


def numbers(first: int, end: int) -> list[bytes]:
    return [b"datagram %d" % n for n in range(first, end)]


async def collect(channel: Channel, count: int) -> list[bytes]:
    got: list[bytes] = []
    async with asyncio.timeout(10):
        while len(got) < count:
            got += await channel.recv_many()
    return got


@BOTH
@LOOPS
@pytest.mark.parametrize("switch", ["on", "off"])
def test_streams_arrive_whole_and_in_order_both_ways(
    encrypt: bool, factory: Any, switch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(offload.SWITCH, switch)

    async def stream(sender: Channel, receiver: Channel, seed: int) -> None:
        rng = random.Random(seed)
        sent, received = hashlib.sha256(), hashlib.sha256()
        for _ in range(40):
            burst: list[bytes] = []
            while len(burst) < 100:
                size = rng.choice((4, 5, 38, 200, 1100, 1200))
                burst += [b"\x80" + rng.randbytes(size)] * rng.choice((1, 1, 5, 40))
            how = rng.randrange(3)
            if how == 0:
                await sender.send_many(burst)
            for data in burst:
                sent.update(data)
                if how == 1:
                    sender.send_nowait(data)
                elif how == 2:
                    await sender.send(data)
            for data in await collect(receiver, len(burst)):
                received.update(data)
        assert sent.digest() == received.digest()

    async def test() -> None:
        async with channels(encrypt=encrypt) as (a, b):
            await asyncio.gather(stream(a, b, 1), stream(b, a, 2))
            assert a.stats.datagrams_sent == b.stats.datagrams_received > 4000
            assert a.stats.bytes_sent == b.stats.bytes_received
            assert not any(a.stats.dropped.values())

    run(test, factory)


@BOTH
def test_a_single_datagram_leaves_at_once_and_a_burst_in_few_packets(encrypt: bool) -> None:
    async def test() -> None:
        async with channels(encrypt=encrypt) as (a, b):
            socket = a.connection._driver.data._socket
            assert socket is not None
            await asyncio.sleep(0.05)
            a._outbox._clock = lambda: 0.0  # however slow the machine is
            before = socket.stats.sent
            a.send_nowait(b"at once")
            assert socket.stats.sent == before + 1
            for data in numbers(0, 40):
                a.send_nowait(data)
            assert socket.stats.sent == before + 1
            await asyncio.sleep(0)
            assert socket.stats.sent == before + 41
            assert await collect(b, 41) == [b"at once", *numbers(0, 40)]

    run(test)


@LOOPS
@BOTH
def test_an_answer_leaves_in_the_turn_in_which_the_question_came(
    encrypt: bool, factory: Callable[[], asyncio.AbstractEventLoop] | None
) -> None:
    async def test() -> None:
        async with channels(encrypt=encrypt) as (a, b):
            socket = b.connection._driver.data._socket
            assert socket is not None
            answers: list[int] = []

            async def answer() -> None:
                async for data in b:
                    await b.send(data)

            def watched(read: Callable[..., Any]) -> Callable[..., Any]:
                def reads(*arguments: Any) -> Any:
                    before = socket.stats.sent
                    result = read(*arguments)
                    answers.append(socket.stats.sent - before)
                    return result

                return reads

            answering = asyncio.ensure_future(answer())
            await asyncio.sleep(0)
            receiver: Any = socket._receiver
            receiver.lone, receiver.packets = watched(receiver.lone), watched(receiver.packets)
            for data in numbers(0, 50):
                a.send_nowait(data)
                assert await asyncio.wait_for(a.recv(), 5) == data
            assert sum(answers) >= 50
            assert a.stats.datagrams_sent == b.stats.datagrams_received == 50
            answering.cancel()

    run(test, factory)


@BOTH
def test_a_channel_may_be_closed_by_whoever_reads_its_last_datagram(encrypt: bool) -> None:
    async def test() -> None:
        async with channels(encrypt=encrypt) as (a, b):

            async def read() -> None:
                while await b.recv() != b"the last":
                    pass
                await b.close()

            reading = asyncio.ensure_future(read())
            await asyncio.sleep(0.01)
            for data in (*numbers(0, 12), b"the last"):
                a.send_nowait(data)
                await asyncio.sleep(0.002)
            await asyncio.wait_for(reading, 5)
            with pytest.raises(ChannelClosed):
                b.send_nowait(b"closed")

    run(test)


@BOTH
def test_recv_many_gives_what_there_is_and_no_more_than_wanted(encrypt: bool) -> None:
    async def test() -> None:
        async with channels(encrypt=encrypt) as (a, b):
            a.send_many_nowait(numbers(0, 10))
            await until(lambda: b.stats.datagrams_received == 10)
            assert await b.recv_many(3) == numbers(0, 3)
            assert await b.recv() == numbers(3, 4)[0]
            assert await b.recv_many() == numbers(4, 10)
            waiting = asyncio.ensure_future(b.recv_many(5))
            await asyncio.sleep(0)
            a.send_nowait(b"later")
            assert await asyncio.wait_for(waiting, 2) == [b"later"]

    run(test)


@BOTH
def test_what_can_not_be_sent_is_refused_with_the_whole_batch(encrypt: bool) -> None:
    refused = b"" if encrypt else bytes.fromhex("000100002112a442") + bytes(12)

    async def test() -> None:
        async with channels(encrypt=encrypt) as (a, b):
            for attempt in (
                lambda: a.send_nowait(refused),
                lambda: a.send_nowait(refused, expires_in=1),
                lambda: a.send_many_nowait([b"fine", refused]),
                lambda: a.send_many_nowait([bytes(len(refused)), refused, bytes(len(refused))]),
            ):
                with pytest.raises(DatagramRefused):
                    attempt()
            with pytest.raises(DatagramTooLarge):
                a.send_many_nowait([b"fine", bytes(20000)])
            with pytest.raises(DatagramRefused):
                await a.send_many([refused])
            await a.send(memoryview(bytearray(b"and this passes")))
            await a.send_many(data for data in (b"so does", bytearray(b"any iterable")))
            assert await collect(b, 3) == [b"and this passes", b"so does", b"any iterable"]
            assert a.stats.datagrams_sent == 3

    run(test)


@BOTH
def test_a_view_is_its_bytes_whatever_its_items_are(encrypt: bool) -> None:
    like_stun = bytes.fromhex("000100002112a442") + bytes(12)
    views = [
        memoryview(b"every other byte")[::2],
        memoryview(b"characters").cast("c"),
        memoryview(b"six by 2").cast("B", (4, 2)),
        memoryview(b"words of four by").cast("I"),
        memoryview((ctypes.c_char * 6)(*b"ctypes")),
    ]

    async def test() -> None:
        async with channels(encrypt=encrypt) as (a, b):
            for view in views:
                a.send_nowait(view)
            await a.send_many(views)
            assert await collect(b, 10) == 2 * [view.tobytes() for view in views]
            if encrypt:
                return
            for end in (a, a.connection):
                for view in (memoryview(like_stun), memoryview(like_stun).cast("I")):
                    with pytest.raises(DatagramRefused):
                        end.send_nowait(view)
                    with pytest.raises(DatagramRefused):
                        end.send_many_nowait([b"fine", view])

    run(test)


# -- freshness and pacing ---------------------------------------------------------------------


@BOTH
def test_what_expires_in_the_queue_is_counted_and_never_sent(encrypt: bool) -> None:
    async def test() -> None:
        async with channels(encrypt=encrypt) as (a, b):
            a.pacing_rate = 20_000.0
            for data in numbers(0, 100):
                a.send_nowait(data + bytes(1000), expires_in=0.15)
            queued = a.stats.queued
            assert queued > 80
            await asyncio.wait_for(a.drain(), 5)
            stats = a.stats
            assert stats.dropped_expired > 80
            assert stats.datagrams_sent + stats.dropped_expired == 100
            assert stats.queued == 0
            await until(lambda: b.stats.datagrams_received == stats.datagrams_sent)

    run(test)


@BOTH
def test_with_newest_wins_the_queue_holds_the_newest(encrypt: bool) -> None:
    async def test() -> None:
        options = {"send_queue": 4, "receive_queue": 4, "newest_wins": True}
        async with channels(encrypt=encrypt, **options) as (a, b):
            assert a.newest_wins
            a.pacing_rate = 1000.0
            for data in numbers(0, 1000):
                await a.send(data)  # never waits: the oldest makes room
            assert a.stats.queued == 4
            a.pacing_rate = None
            await asyncio.wait_for(a.drain(), 2)
            await until(lambda: b.stats.datagrams_received == a.stats.datagrams_sent)
            assert await b.recv_many() == numbers(996, 1000)
            assert a.stats.dropped_queue_full == 1000 - a.stats.datagrams_sent
            assert b.stats.dropped_oldest == b.stats.datagrams_received - 4

    run(test)


@BOTH
def test_a_pacing_rate_is_kept_and_send_waits_for_it(encrypt: bool) -> None:
    async def test() -> None:
        async with channels(encrypt=encrypt, send_queue=64) as (a, b):
            a.pacing_rate = 1_000_000.0
            reader = asyncio.ensure_future(collect(b, 400))
            began = time.monotonic()
            for _ in range(400):
                await a.send(bytes((99,)) * 1000)
                assert a.stats.queued <= 64
            assert len(await reader) == 400
            took = time.monotonic() - began
            assert took >= 0.35
            assert not any(a.stats.dropped.values())

    run(test)


@BOTH
@LOOPS
def test_a_kernel_that_takes_little_loses_nothing_for_whoever_waits(
    encrypt: bool, factory: Any
) -> None:
    """Encrypted or not, what does not leave waits where there is backpressure."""

    class Narrow:
        """A socket that takes so many packets, and then none."""

        room = 1

        def __init__(self, below: Any) -> None:
            self._below = below

        def __getattr__(self, name: str) -> Any:
            return getattr(self._below, name)

        def _take(self) -> None:
            if self.room <= 0:
                raise BlockingIOError(errno.EAGAIN, "injected")
            self.room -= 1

        def sendto(self, *arguments: Any) -> int:
            self._take()
            return int(self._below.sendto(*arguments))

        def sendmsg(self, *arguments: Any) -> int:
            self._take()
            return int(self._below.sendmsg(*arguments))

    async def test() -> None:
        async with channels(encrypt=encrypt) as (a, b):
            loop = asyncio.get_running_loop()
            socket: Any = a.connection._driver.data._socket
            narrow = Narrow(socket._sender._socket)
            socket._sender._socket, socket._send = narrow, narrow.sendto

            def widen() -> None:
                narrow.room = 2
                timer[0] = loop.call_later(0.001, widen)

            timer = [loop.call_later(0.001, widen)]
            expected = [b"%d" % n + bytes(n // 500 * 100) for n in range(2000)]
            reading = asyncio.ensure_future(collect(b, len(expected)))
            await a.send_many(expected[:700])
            for data in expected[700:1200]:
                await a.send(data)
            await a.send_many(expected[1200:])
            assert await reading == expected
            timer[0].cancel()
            narrow.room = 10**6
            assert not any(a.stats.dropped.values())

    run(test, factory)


# -- a slow reader, a closed peer -------------------------------------------------------------


def resident() -> int:
    """Bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@BOTH
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc to see memory")
def test_a_reader_that_stopped_costs_datagrams_and_no_memory(encrypt: bool) -> None:
    async def test() -> None:
        async with channels(encrypt=encrypt) as (a, b):
            burst = [bytes((99,)) * 1200] * 52

            async def flood(bursts: int) -> None:
                for _ in range(bursts):
                    await a.send_many(burst)
                    await asyncio.sleep(0)

            await flood(200)
            before = resident()
            await flood(600)  # 37 MB
            assert resident() - before < 4_000_000
            await until(lambda: b.stats.datagrams_received > 20_000)
            stats = b.stats
            assert len(b._inbox.held) == 1024
            assert stats.dropped_oldest == stats.datagrams_received - 1024
            assert stats.dropped["oldest"] == stats.dropped_oldest

    run(test)


@BOTH
def test_a_peer_that_is_gone_is_noticed_and_until_then_nothing_is_raised(encrypt: bool) -> None:
    quick = AgentConfig(consent_interval=0.1, consent_timeout=1.0)

    async def test() -> None:
        async with channels(encrypt=encrypt, agent_config=quick) as (a, b):
            for path in [*b.connection._driver.gatherer.paths.values()]:
                path.close()  # type: ignore[attr-defined]

            async def go_on() -> None:
                while True:
                    await a.send_many(numbers(0, 100))
                    await asyncio.sleep(0.01)

            began = time.monotonic()
            # Whatever ICMP says meanwhile: the session decides by consent (RFC 7675).
            with pytest.raises(ConsentLost):
                await asyncio.wait_for(go_on(), 10)
            assert time.monotonic() - began >= 0.5
            with pytest.raises(ConsentLost):
                await a.recv()

    run(test)


@BOTH
def test_what_was_sent_before_close_leaves_and_later_sends_are_errors(encrypt: bool) -> None:
    async def test() -> None:
        async with channels(encrypt=encrypt) as (a, b):
            a.send_many_nowait(numbers(0, 3))
            for data in numbers(3, 6):
                a.send_nowait(data)
            await a.close()
            assert await collect(b, 6) == numbers(0, 6)
            for attempt in (
                lambda: a.send_nowait(b"x"),
                lambda: a.send_nowait(b"x", expires_in=1),
                lambda: a.send_many_nowait([b"x"]),
            ):
                with pytest.raises(ChannelClosed):
                    attempt()
            with pytest.raises(ChannelClosed):
                await a.send(b"x")
            await asyncio.wait_for(a.drain(), 1)

    run(test)


@BOTH
def test_what_could_not_leave_before_close_is_counted(encrypt: bool) -> None:
    async def test() -> None:
        async with channels(encrypt=encrypt) as (a, _):
            a.pacing_rate = 1000.0
            a.send_many_nowait([bytes((99,)) * 1000] * 50)
            sent = a.stats.datagrams_sent
            await a.close()
            assert a.stats.datagrams_sent + a.stats.dropped_unroutable == 50
            assert a.stats.dropped_unroutable <= 50 - sent

    run(test)


# -- sizes and figures ------------------------------------------------------------------------


@BOTH
def test_the_largest_datagram_grows_with_what_the_path_carries(encrypt: bool) -> None:
    async def test() -> None:
        async with channels(encrypt=encrypt) as (a, b):
            added = 0
            if encrypt:
                added = a.connection.max_datagram_size - a.max_datagram_size
                assert 20 < added < 60
            await until(lambda: a.stats.path_mtu == JUMBO)
            assert a.max_datagram_size == JUMBO - 28 - added
            largest = bytes((99,)) * a.max_datagram_size
            await a.send_many([largest] * 20)
            assert await collect(b, 20) == [largest] * 20
            with pytest.raises(DatagramTooLarge) as caught:
                a.send_nowait(largest + b"1")
            assert (caught.value.size, caught.value.limit) == (len(largest) + 1, len(largest))

    run(test)


def test_the_kernel_knows_of_a_smaller_link_at_once() -> None:
    async def test() -> None:
        async with channels(encrypt=False) as (a, _):
            await until(lambda: a.stats.path_mtu == JUMBO)
            data = a.connection._driver.data
            assert data._socket is not None
            assert data._socket.on_path_mtu is not None
            data._socket.on_path_mtu(data._destination, 1400, True)
            assert (a.stats.path_mtu, a.max_datagram_size) == (1400, 1372)
            with pytest.raises(DatagramTooLarge):
                a.send_nowait(bytes(1373))

    run(test)


@BOTH
def test_round_trips_are_told(encrypt: bool) -> None:
    async def test() -> None:
        async with channels(encrypt=encrypt) as (a, _):
            await until(lambda: a.stats.rtt_smoothed is not None)
            stats = a.stats
            assert stats.rtt is not None
            assert stats.rtt_min is not None
            assert stats.rtt_smoothed is not None
            assert 0 < stats.rtt_min <= stats.rtt_smoothed < 1
            assert stats.loss == 0

    run(test)
