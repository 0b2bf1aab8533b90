"""The queue between the socket and a reader: bounded, newest wins, safe to cancel."""

from __future__ import annotations

import asyncio

import pytest

from ice_punch.inbox import Inbox
from ice_punch.net.udp import MANY


def no_end() -> None:
    return None


def test_the_oldest_go_and_are_counted() -> None:
    async def run() -> None:
        inbox = Inbox(3, no_end)
        for number in range(10):
            inbox.put(b"%d" % number)
        assert inbox.dropped == 7
        assert [await inbox.get() for _ in range(3)] == [b"7", b"8", b"9"]

    asyncio.run(run())


def test_several_readers_get_one_datagram_each() -> None:
    async def run() -> None:
        inbox = Inbox(10, no_end)
        readers = [asyncio.ensure_future(inbox.get()) for _ in range(3)]
        await asyncio.sleep(0)
        for data in (b"a", b"b", b"c"):
            inbox.put(data)
        assert sorted(await asyncio.gather(*readers)) == [b"a", b"b", b"c"]

    asyncio.run(run())


def test_a_reader_cancelled_when_its_datagram_has_come_leaves_it_to_the_next() -> None:
    async def run() -> None:
        inbox = Inbox(10, no_end)
        first, second = (asyncio.ensure_future(inbox.get()) for _ in range(2))
        await asyncio.sleep(0)
        inbox.put(b"only one")
        first.cancel()
        assert await asyncio.wait_for(second, 1) == b"only one"
        with pytest.raises(asyncio.CancelledError):
            await first

    asyncio.run(run())


def test_what_came_before_the_end_is_read_before_it() -> None:
    ended = False

    def end() -> None:
        if ended:
            raise EOFError

    async def run() -> None:
        nonlocal ended
        inbox = Inbox(10, end)
        inbox.put(b"last words")
        ended = True
        inbox.wake()
        assert await inbox.get() == b"last words"
        with pytest.raises(EOFError):
            await inbox.get()

    asyncio.run(run())


def test_the_end_wakes_every_reader() -> None:
    ended = False

    def end() -> None:
        if ended:
            raise EOFError

    async def run() -> None:
        nonlocal ended
        inbox = Inbox(10, end)
        readers = [asyncio.ensure_future(inbox.get()) for _ in range(2)]
        await asyncio.sleep(0)
        ended = True
        inbox.wake()
        assert all(
            isinstance(error, EOFError)
            for error in await asyncio.gather(*readers, return_exceptions=True)
        )

    asyncio.run(run())


def test_who_waits_has_a_lone_datagram_within_the_call_of_the_event_loop() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        inbox = Inbox(10, no_end)
        got: list[bytes] = []
        seen: list[int] = []

        async def read() -> None:
            while True:
                got.append(await inbox.get())

        def arrive() -> None:
            inbox.put_alone(b"first")
            seen.append(len(got))
            inbox.put_alone(b"second")
            seen.append(len(got))

        reader = asyncio.ensure_future(read())
        await asyncio.sleep(0)
        loop.call_soon(arrive)
        await asyncio.sleep(0)
        assert (seen, got) == ([1, 2], [b"first", b"second"])
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        inbox.put_alone(b"for the next")
        assert await inbox.get() == b"for the next"

    asyncio.run(run())


def test_who_waits_has_a_full_packet_within_the_call_of_the_event_loop() -> None:
    """Of few datagrams others may follow in the same turn: those are left to the next."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        inbox = Inbox(200, no_end)
        got: list[list[bytes]] = []
        seen: list[int] = []
        many = [b"%d" % n for n in range(MANY)]

        async def read() -> None:
            while True:
                got.append(await inbox.get_many())

        def arrive() -> None:
            for datagrams in (many[:-1], many, many):
                inbox.extend(datagrams, sum(map(len, datagrams)))
                seen.append(len(got))

        reader = asyncio.ensure_future(read())
        await asyncio.sleep(0)
        loop.call_soon(arrive)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (seen, got) == ([0, 0, 0], [many[:-1] + 2 * many])
        got.clear()
        seen.clear()
        loop.call_soon(lambda: (inbox.extend(many, 1), seen.append(len(got))))
        await asyncio.sleep(0)
        assert (seen, got) == ([1], [many])
        reader.cancel()

    asyncio.run(run())


def test_all_who_wait_get_their_share_of_a_full_packet() -> None:
    async def run() -> None:
        inbox = Inbox(200, no_end)
        many = [b"%d" % n for n in range(MANY)]
        readers = [asyncio.ensure_future(inbox.get()) for _ in range(3)]
        rest = asyncio.ensure_future(inbox.get_many())
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(inbox.extend, many, 1)
        assert await asyncio.gather(*readers, rest) == [*many[:3], many[3:]]

    asyncio.run(run())


def test_a_task_that_brings_a_datagram_does_not_run_the_one_that_waits_for_it() -> None:
    async def run() -> None:
        inbox = Inbox(10, no_end)
        readers = [asyncio.ensure_future(inbox.get()) for _ in range(2)]
        await asyncio.sleep(0)
        inbox.put_alone(b"one")  # from a task: asyncio lets no other run inside it
        readers[1].cancel()
        assert await asyncio.wait_for(readers[0], 1) == b"one"
        assert readers[1].cancelled()

    asyncio.run(run())


def test_a_reader_whose_time_is_up_gets_nothing_and_the_next_one_does() -> None:
    async def run() -> None:
        inbox = Inbox(10, no_end)
        late = asyncio.ensure_future(asyncio.wait_for(inbox.get(), 0.01))
        with pytest.raises(TimeoutError):
            await late
        in_time = asyncio.ensure_future(asyncio.wait_for(inbox.get(), 5))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(inbox.put_alone, b"here")
        assert await in_time == b"here"
        assert not inbox.held

    asyncio.run(run())


def test_what_a_reader_raises_is_its_own_and_nobody_elses() -> None:
    async def run() -> None:
        inbox = Inbox(10, no_end)

        async def read() -> None:
            raise ValueError(await inbox.get())

        readers = [asyncio.ensure_future(read()) for _ in range(2)]
        await asyncio.sleep(0)
        for data in (b"a", b"b"):
            asyncio.get_running_loop().call_soon(inbox.put_alone, data)
        errors = await asyncio.gather(*readers, return_exceptions=True)
        assert [error.args for error in errors if isinstance(error, ValueError)] == [
            (b"a",),
            (b"b",),
        ]

    asyncio.run(run())


def test_readers_that_gave_up_are_forgotten() -> None:
    async def run() -> None:
        inbox = Inbox(10, no_end)
        for _ in range(50):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(inbox.get(), 0.0001)
        assert not inbox._readers

    asyncio.run(run())
