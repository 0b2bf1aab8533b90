"""The queue between the socket and a reader: bounded, newest wins, safe to cancel."""

from __future__ import annotations

import asyncio

import pytest

from ice_punch.inbox import Inbox


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
