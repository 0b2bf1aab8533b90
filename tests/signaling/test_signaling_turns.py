"""What is sent to a connection in one turn of the event loop goes out at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from websockets.frames import Frame, Opcode

from signaling.engines import Collected, Turn, text_frame


class Wire:
    """A transport that remembers each write."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closing = False

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def is_closing(self) -> bool:
        return self.closing

    def get_write_buffer_size(self) -> int:
        return 7


def box(wire: Wire, turn: Turn) -> Collected:
    transport: Any = wire
    return Collected(transport, turn)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
def test_a_frame_is_what_the_library_would_have_made_of_it(size: int) -> None:
    text = "é" * (size // 2) + "x" * (size % 2)
    assert text_frame(text) == Frame(Opcode.TEXT, text.encode()).serialize(mask=False)


def test_frames_of_one_turn_are_one_write_in_their_order() -> None:
    async def run() -> None:
        turn, here, there = Turn(), Wire(), Wire()
        one, other = box(here, turn), box(there, turn)
        for number in range(3):
            assert one.add(b"%d" % number) == number + 1 + 7
            other.add(b"x")
        assert (here.writes, one.waiting) == ([], 3 + 7)
        await asyncio.sleep(0)
        assert (here.writes, there.writes) == ([b"012"], [b"xxx"])
        assert one.waiting == 7
        one.add(b"3")
        await asyncio.sleep(0)
        assert here.writes == [b"012", b"3"]

    asyncio.run(run())


def test_much_is_not_held_back() -> None:
    async def run() -> None:
        wire = Wire()
        collected = box(wire, Turn())
        collected.add(bytes(40_000))
        assert wire.writes == []
        assert collected.add(bytes(40_000)) == 7
        assert [len(data) for data in wire.writes] == [80_000]
        await asyncio.sleep(0)
        assert len(wire.writes) == 1

    asyncio.run(run())


@pytest.mark.parametrize("end", ["dropped", "closing"])
def test_nothing_is_written_after_the_end(end: str) -> None:
    async def run() -> None:
        wire = Wire()
        collected = box(wire, Turn())
        collected.add(b"late")
        if end == "dropped":
            collected.drop()
            assert collected.waiting == 7
        wire.closing = end == "closing"
        await asyncio.sleep(0)
        assert wire.writes == []

    asyncio.run(run())
