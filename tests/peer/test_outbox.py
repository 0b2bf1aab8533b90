"""The queue in front of the socket: batches by turn of the loop, bounds, freshness, pacing."""

from __future__ import annotations

import array
import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from ice_punch.errors import ChannelClosed, DatagramTooLarge, InvalidConfiguration
from ice_punch.outbox import SAME_TURN, Outbox
from ice_punch.pacing import TokenBucket


class Kernel:
    """What an outbox sends into: takes everything, or so much and no more."""

    def __init__(self) -> None:
        self.calls: list[list[bytes]] = []
        self.room: int | None = None

    def __call__(self, datagrams: Any, sizes: Any) -> int:
        assert list(sizes) == [len(data) for data in datagrams]
        done = len(datagrams) if self.room is None else min(self.room, len(datagrams))
        if self.room is not None:
            self.room -= done
        if done:
            self.calls.append([bytes(data) for data in datagrams[:done]])
        return done

    @property
    def sent(self) -> list[bytes]:
        return [data for call in self.calls for data in call]


def nothing() -> None:
    return None


def outbox_of(kernel: Kernel, **options: Any) -> Outbox:
    outbox = Outbox(kernel, nothing, **options)
    outbox.limit = 1252
    return outbox


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


def numbers(first: int, end: int) -> list[bytes]:
    return [b"%d" % n for n in range(first, end)]


def test_one_datagram_leaves_at_once_and_those_of_the_same_turn_together_at_its_end() -> None:
    async def test() -> None:
        kernel = Kernel()
        outbox = outbox_of(kernel)
        outbox._clock = lambda: 0.0  # however slow the machine is
        for data in numbers(0, 10):
            outbox.put(data)
        assert kernel.calls == [[b"0"]]
        await asyncio.sleep(0)
        assert kernel.calls == [[b"0"], numbers(1, 10)]
        await asyncio.sleep(0)
        outbox.put(b"alone")
        assert kernel.calls[-1] == [b"alone"]

    run(test)


def test_what_is_sent_now_and_then_costs_no_turn_of_the_event_loop() -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        kernel = Kernel()
        outbox = outbox_of(kernel)
        asked: list[object] = []
        soon = loop.call_soon
        loop.call_soon = lambda callback, *rest, **more: (  # type: ignore[method-assign]
            asked.append(callback) if callback == outbox._end_turn else None,
            soon(callback, *rest, **more),
        )[1]
        for number in range(5):
            outbox.put(b"%d" % number)
            assert len(kernel.calls) == number + 1
            await asyncio.sleep(1.5 * SAME_TURN)
        for number in range(5, 10):  # answers, each in the turn of what it answers
            outbox.new_turn = True
            outbox.put(b"%d" % number)
            assert len(kernel.calls) == number + 1
        assert not asked
        assert kernel.sent == numbers(0, 10)

    run(test)


def test_sent_turn_after_turn_only_the_second_may_wait_and_not_beyond_its_turn() -> None:
    async def test() -> None:
        kernel = Kernel()
        outbox = outbox_of(kernel)
        outbox._clock = lambda: 0.0
        for number in range(10):
            outbox.put(b"%d" % number)
            assert number == 1 or len(kernel.sent) == number + 1
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert len(kernel.sent) == number + 1

    run(test)


@pytest.mark.parametrize(("size", "packet"), [(1200, 52), (100, 64), (40000, 1)])
def test_a_long_burst_leaves_as_soon_as_it_fills_a_packet_of_the_kernels(
    size: int, packet: int
) -> None:
    async def test() -> None:
        kernel = Kernel()
        outbox = outbox_of(kernel)
        outbox.limit = 65000
        outbox._clock = lambda: 0.0
        for _ in range(1 + 3 * packet):
            outbox.put(bytes(size))
        assert [len(call) for call in kernel.calls] == [1] + 3 * [packet]

    run(test)


def test_a_batch_leaves_whole_and_behind_what_was_sent_before() -> None:
    async def test() -> None:
        kernel = Kernel()
        outbox = outbox_of(kernel)
        for data in numbers(0, 3):
            outbox.put(data)
        outbox.put_many([bytearray(b"3"), memoryview(b"4"), b"5"])
        assert kernel.sent == numbers(0, 6)
        outbox.put_many([])
        assert outbox.sent == 6

    run(test)


def test_datagrams_of_one_size_go_another_way_and_keep_their_order() -> None:
    """By the sink for those, for as long as it takes them, and by the queue from then on."""

    async def test() -> None:
        kernel, alike = Kernel(), []

        def sink_alike(datagrams: Any, size: int, joined: bytes | None) -> int:
            assert {len(data) for data in datagrams} == {size}
            assert joined is None
            done = kernel(datagrams, [size] * len(datagrams))
            alike.append(done)
            return done

        outbox = outbox_of(kernel, sink_alike=sink_alike)
        outbox.put_many(numbers(10, 30))
        assert alike == [20]
        kernel.room = 5
        outbox.put_many(numbers(30, 40))
        outbox.put_many(numbers(40, 50))
        assert alike == [20, 5]
        assert (kernel.sent, outbox.queued) == (numbers(10, 35), 15)
        kernel.room = None
        outbox.resume()
        outbox.put_many([b"mixed", b"sizes!"])
        assert kernel.sent == [*numbers(10, 50), b"mixed", b"sizes!"]
        assert (outbox.sent, outbox.sent_bytes) == (42, 91)
        with pytest.raises(DatagramTooLarge):
            outbox.put_many([bytes(1253)] * 2)
        assert outbox.queued == 0

    run(test)


def test_datagrams_of_one_size_keep_to_the_pacing_rate() -> None:
    async def test() -> None:
        kernel, alike = Kernel(), Kernel()
        outbox = outbox_of(
            kernel, sink_alike=lambda datagrams, size, _: alike(datagrams, [size] * len(datagrams))
        )
        outbox.pacing_rate = 1e6
        outbox.put_many([bytes(1000)] * 20)
        assert (len(kernel.sent), alike.sent, outbox.queued) == (4, [], 16)

    run(test)


def test_a_batch_counts_as_a_quarter_when_others_are_to_run() -> None:
    async def test() -> None:
        kernel = Kernel()
        outbox = outbox_of(kernel, capacity=4)
        assert [outbox.welcome(52) for _ in range(20)] == [True] * 19 + [False]
        await outbox.room(0)
        assert outbox.welcome(52)
        kernel.room = 0
        outbox.put_many(numbers(0, 3))
        assert not outbox.welcome(1), "half of the queue is taken"

    run(test)


def test_what_is_sent_may_be_changed_afterwards() -> None:
    async def test() -> None:
        kernel = Kernel()
        outbox = outbox_of(kernel)
        buffer = bytearray(b"first")
        outbox.put(buffer)
        for text in (b"other", b"third"):
            buffer[:] = text
            outbox.put(buffer)
        kernel.room = 0
        outbox.flush()
        buffer[:] = b"spoil"
        kernel.room = None
        outbox.resume()
        assert kernel.sent == [b"first", b"other", b"third"]

    run(test)


def test_the_size_of_a_view_is_counted_in_bytes() -> None:
    async def test() -> None:
        kernel = Kernel()
        outbox = outbox_of(kernel)
        words = memoryview(array.array("I", range(400)))  # 400 items, 1600 bytes
        for refused in (
            lambda: outbox.put(words),
            lambda: outbox.put_until(words, 1),
            lambda: outbox.put_many([b"x", words]),
        ):
            with pytest.raises(DatagramTooLarge):
                refused()
        outbox.put_many([words[:10]])
        assert kernel.sent == [words[:10].tobytes()]

    run(test)


def test_a_datagram_too_large_is_refused_and_with_it_the_whole_batch() -> None:
    async def test() -> None:
        kernel = Kernel()
        outbox = outbox_of(kernel)
        for refused in (
            lambda: outbox.put(bytes(1253)),
            lambda: outbox.put_until(bytes(1253), 1.0),
            lambda: outbox.put_many([b"fits", bytes(1253)]),
        ):
            with pytest.raises(DatagramTooLarge) as caught:
                refused()
            assert (caught.value.size, caught.value.limit) == (1253, 1252)
        assert kernel.calls == []

    run(test)


def test_where_nothing_can_be_sent_that_is_the_error() -> None:
    async def test() -> None:
        def ended() -> None:
            raise ChannelClosed("over")

        outbox = Outbox(Kernel(), ended)
        for refused in (lambda: outbox.put(b"x"), lambda: outbox.put_many([b"x"])):
            with pytest.raises(ChannelClosed, match="over"):
                refused()

    run(test)


def test_what_the_kernel_does_not_take_waits_in_order() -> None:
    async def test() -> None:
        kernel = Kernel()
        outbox = outbox_of(kernel)
        kernel.room = 4
        outbox.put_many(numbers(0, 10))
        for data in numbers(10, 15):
            outbox.put(data)
        await asyncio.sleep(0)
        assert kernel.sent == numbers(0, 4)
        assert (outbox.queued, outbox.sent) == (11, 4)
        kernel.room = 3
        outbox.resume()
        assert kernel.sent == numbers(0, 7)
        kernel.room = None
        outbox.resume()
        assert kernel.sent == numbers(0, 15)
        assert (outbox.queued, outbox.sent, outbox.sent_bytes) == (0, 15, 20)

    run(test)


@pytest.mark.parametrize(("newest_wins", "kept"), [(False, numbers(0, 8)), (True, numbers(12, 20))])
def test_a_full_queue_drops_the_newest_or_the_oldest(newest_wins: bool, kept: list[bytes]) -> None:
    async def test() -> None:
        kernel = Kernel()
        outbox = outbox_of(kernel, capacity=8, newest_wins=newest_wins)
        kernel.room = 0
        for data in numbers(0, 20):
            outbox.put(data)
            assert outbox.queued <= 8
        await asyncio.sleep(0)
        assert outbox.dropped_full == 12
        kernel.room = None
        outbox.resume()
        assert kernel.sent == kept

    run(test)


def test_a_batch_larger_than_the_queue_keeps_to_its_bound() -> None:
    async def test() -> None:
        kernel = Kernel()
        outbox = outbox_of(kernel, capacity=8)
        kernel.room = 5
        outbox.put_many(numbers(0, 100))
        assert (outbox.sent, outbox.queued, outbox.dropped_full) == (5, 8, 87)

    run(test)


def test_what_has_expired_is_dropped_where_it_would_have_left() -> None:
    async def test() -> None:
        kernel = Kernel()
        outbox = outbox_of(kernel)
        kernel.room = 0
        outbox.put_until(b"stale", 0.01)
        outbox.put(b"plain")
        outbox.put_until(b"fresh", 10.0)
        outbox.put_until(b"late already", -1.0)
        await asyncio.sleep(0.03)
        kernel.room = 1
        outbox.resume()
        assert kernel.sent == [b"plain"]
        kernel.room = None
        outbox.resume()
        assert kernel.sent == [b"plain", b"fresh"]
        assert (outbox.expired, outbox.sent, outbox.queued) == (2, 2, 0)

    run(test)


def test_now_or_never_is_now_where_there_is_room() -> None:
    async def test() -> None:
        kernel = Kernel()
        outbox = outbox_of(kernel)
        for data in numbers(0, 3):
            outbox.put_until(data, 0)
        await asyncio.sleep(0)
        assert kernel.sent == numbers(0, 3)
        assert outbox.expired == 0

    run(test)


def test_expired_datagrams_make_room_before_others_are_dropped() -> None:
    async def test() -> None:
        kernel = Kernel()
        outbox = outbox_of(kernel, capacity=4)
        kernel.room = 0
        for data in numbers(0, 4):
            outbox.put_until(data, 0.001)
        await asyncio.sleep(0.02)
        for data in numbers(4, 8):
            outbox.put(data)
        assert (outbox.expired, outbox.dropped_full) == (4, 0)
        kernel.room = None
        outbox.resume()
        assert kernel.sent == numbers(4, 8)

    run(test)


def test_whoever_waits_for_room_gets_it_and_loses_nothing() -> None:
    async def test() -> None:
        kernel = Kernel()
        outbox = outbox_of(kernel, capacity=16)
        kernel.room = 0

        async def send() -> None:
            for data in numbers(0, 100):
                await outbox.room()
                outbox.put(data)

        sending = asyncio.ensure_future(send())
        for _ in range(100):
            await asyncio.sleep(0)
            assert outbox.queued <= 8
            kernel.room = 3
            outbox.resume()
        await asyncio.wait_for(sending, 1)
        kernel.room = None
        outbox.resume()
        await asyncio.wait_for(outbox.drain(), 1)
        assert kernel.sent == numbers(0, 100)
        assert outbox.dropped_full == 0

    run(test)


def test_with_newest_wins_nobody_waits() -> None:
    async def test() -> None:
        kernel = Kernel()
        outbox = outbox_of(kernel, capacity=4, newest_wins=True)
        kernel.room = 0
        for data in numbers(0, 100):
            await asyncio.wait_for(outbox.room(), 1)
            outbox.put(data)
        assert (outbox.queued, outbox.dropped_full) == (4, 96)

    run(test)


def test_sending_without_end_lets_others_run() -> None:
    async def test() -> None:
        kernel = Kernel()
        outbox = outbox_of(kernel)
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        other = asyncio.ensure_future(others())
        for _ in range(2000):
            await outbox.room()
            outbox.put(b"x")
        assert turns >= 7
        other.cancel()

    run(test)


def test_a_short_queue_makes_senders_wait_and_drops_nothing() -> None:
    """However many datagrams fit one packet: a turn never holds more than there is room for."""

    async def test() -> None:
        for capacity in (1, 2, 3, 5, 8, 70):
            kernel = Kernel()
            outbox = outbox_of(kernel, capacity=capacity)
            kernel.room = 1

            async def send(outbox: Outbox = outbox) -> None:
                for data in numbers(0, 300):
                    if outbox.must_wait():
                        await outbox.room(0)
                    outbox.put(data)
                for start in range(300, 900, outbox.part):
                    if not outbox.welcome(outbox.part):
                        await outbox.room(0)
                    outbox.put_many(numbers(start, min(start + outbox.part, 900)))

            sending = asyncio.ensure_future(send())
            for _ in range(3000):
                await asyncio.sleep(0)
                assert outbox.queued <= capacity
                kernel.room = 1
                outbox.resume()
            await asyncio.wait_for(sending, 5)
            kernel.room = None
            outbox.resume()
            assert outbox.dropped_full == 0
            assert kernel.sent == numbers(0, 900)

    run(test)


def test_who_stops_waiting_for_room_is_forgotten() -> None:
    async def test() -> None:
        kernel = Kernel()
        outbox = outbox_of(kernel, capacity=2)
        kernel.room = 0
        outbox.put_many(numbers(0, 2))
        for wait in (outbox.room, outbox.drain):
            waiting = [asyncio.ensure_future(wait()) for _ in range(10)]
            await asyncio.sleep(0)
            assert len(outbox._waiting) == 10
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)
            assert outbox._waiting == []

    run(test)


def test_a_rate_that_is_set_again_and_again_is_kept() -> None:
    """As a congestion control does, which has a new one every few milliseconds."""
    bucket = TokenBucket(100_000.0, 0.0)
    left, now = 0.0, 0.0
    while now < 1.0:
        bucket.change(100_000.0 + left % 2, now)
        while bucket.available(now) > 0:
            bucket.spend(1000)
            left += 1000
        now += 0.002
    assert 100_000 <= left <= 105_000

    async def test() -> None:
        kernel = Kernel()
        outbox = outbox_of(kernel)
        outbox._loop = Clock()  # type: ignore[assignment]
        outbox.pacing_rate = 1e6
        outbox.put_many([bytes(1000)] * 20)
        for _ in range(10):
            outbox.pacing_rate = 2e6
            outbox.pacing_rate = 1e6
        assert (len(kernel.sent), outbox.queued) == (4, 16)
        outbox.pacing_rate = None
        assert outbox.queued == 0
        with pytest.raises(InvalidConfiguration):
            outbox.pacing_rate = 10**400

    class Timer:
        def cancel(self) -> None:
            return None

    class Clock:
        """A loop whose time stands still."""

        def time(self) -> float:
            return 0.0

        def call_at(self, *_: Any) -> Timer:
            return Timer()

        def call_soon(self, *_: Any) -> None:
            return None

    run(test)


def test_the_end_wakes_whoever_waits() -> None:
    async def test() -> None:
        kernel = Kernel()
        outbox = outbox_of(kernel, capacity=2)
        kernel.room = 0
        outbox.put_many(numbers(0, 2))
        waiting = [asyncio.ensure_future(wait()) for wait in (outbox.room, outbox.drain)]
        await asyncio.sleep(0)
        outbox.close()
        await asyncio.wait_for(asyncio.gather(*waiting), 1)
        assert (outbox.queued, outbox.abandoned) == (0, 2)

    run(test)


def test_a_sink_that_calls_back_sends_nothing_twice() -> None:
    """A path that changes while something is sent on it resumes the outbox from within."""

    async def test() -> None:
        sent: list[bytes] = []

        def sink(datagrams: Any, _: Any) -> int:
            outbox.resume()
            outbox.flush()
            sent.extend(datagrams)
            return len(datagrams)

        outbox = Outbox(sink, nothing)
        outbox.limit = 100
        for data in numbers(0, 10):
            outbox.put(data)
        outbox.put_many(numbers(10, 20))
        await asyncio.sleep(0)
        assert sent == numbers(0, 20)

    run(test)


# -- pacing -----------------------------------------------------------------------------------


def test_a_rate_spreads_a_burst() -> None:
    async def test() -> None:
        kernel = Kernel()
        outbox = outbox_of(kernel)
        outbox.pacing_rate = 500_000.0
        assert outbox.pacing_rate == 500_000.0
        loop = asyncio.get_running_loop()
        began = loop.time()
        outbox.put_many([bytes(1000)] * 100)
        assert sum(map(len, kernel.sent)) <= 5000
        await asyncio.wait_for(outbox.drain(), 5)
        assert len(kernel.sent) == 100
        assert loop.time() - began >= 0.15
        assert max(map(len, kernel.calls)) <= 20

    run(test)


def test_a_rate_that_is_lifted_lets_everything_go() -> None:
    async def test() -> None:
        kernel = Kernel()
        outbox = outbox_of(kernel)
        outbox.pacing_rate = 1000.0
        outbox.put_many([bytes(1000)] * 10)
        assert outbox.queued
        outbox.pacing_rate = None
        assert (outbox.queued, len(kernel.sent)) == (0, 10)

    run(test)


def test_single_datagrams_below_the_rate_are_not_delayed() -> None:
    async def test() -> None:
        kernel = Kernel()
        outbox = outbox_of(kernel)
        outbox.pacing_rate = 100_000.0
        for number in range(5):
            outbox.put(bytes(38))
            assert len(kernel.sent) == number + 1
            await asyncio.sleep(0.002)

    run(test)


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    async def test() -> None:
        outbox = outbox_of(Kernel())
        with pytest.raises(InvalidConfiguration):
            outbox.pacing_rate = rate

    run(test)


def test_a_queue_of_nothing_is_refused() -> None:
    async def test() -> None:
        with pytest.raises(InvalidConfiguration):
            Outbox(Kernel(), nothing, capacity=0)

    run(test)


@pytest.mark.parametrize("rate", [1e4, 1e6, 1e9])
def test_a_bucket_gives_its_rate_whenever_it_is_asked(rate: float) -> None:
    bucket, now, sent = TokenBucket(rate, 0.0), 0.0, 0
    while now < 2.0:
        while bucket.available(now) > 0:
            bucket.spend(1200)
            sent += 1200
        due = bucket.next_at(now)
        assert due >= now + 0.001
        now = due + 0.001  # an event loop is late
    assert sent == pytest.approx(2.0 * rate, rel=0.05, abs=5000)
