"""Whatever a peer sends, it costs a bounded amount of memory, and nothing stops that need not.

The peer is stock aiortc's SCTP, made to misbehave, on a wire without sockets in between.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiortc import RTCDataChannel, RTCDataChannelParameters, RTCSctpTransport
from aiortc.rtcsctptransport import (
    AbortChunk,
    DataChunk,
    ForwardTsnChunk,
    SackChunk,
    ShutdownChunk,
    serialize_packet,
)

from ice_punch import ChannelClosed
from ice_punch.dtls import DtlsRole
from ice_punch.errors import IcePunchError
from ice_punch.webrtc import association as bounds
from ice_punch.webrtc import receiving
from ice_punch.webrtc.data_channel import SEND_BUFFER, UNREAD, DataChannel
from ice_punch.webrtc.data_channels import DataChannels
from ice_punch.webrtc.packets import is_well_formed


class Wire:
    """Our data channels, and a stock association that they talk to."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.is_open = asyncio.Event()
        self.ended: list[str] = []
        self.cut = False
        self.ours = DataChannels(
            DtlsRole.SERVER,
            self._to_peer,
            packet_size=lambda: 1200,
            on_open=self.is_open.set,
            on_closed=self._on_closed,
            send_datagrams=lambda: False,
        )
        self.peer = RTCSctpTransport(self)  # type: ignore[arg-type]
        self._receiver: Any = None
        self._arriving: asyncio.Queue[bytes] = asyncio.Queue()
        self._reading = asyncio.ensure_future(self._read())

    # what aiortc asks of its DTLS transport
    state, _role = "connected", "client"

    def _register_data_receiver(self, receiver: Any) -> None:
        self._receiver = receiver

    def _unregister_data_receiver(self, receiver: Any) -> None:
        self._receiver = None

    async def _send_data(self, data: bytes) -> None:
        self.loop.call_soon(self._to_us, data)

    def _to_us(self, data: bytes) -> None:
        if not self.cut:
            self.ours.association.receive([data])

    def _to_peer(self, packets: list[bytes]) -> None:
        if not self.cut:
            for packet in packets:
                self._arriving.put_nowait(packet)

    async def _read(self) -> None:
        while True:
            packet = await self._arriving.get()
            if self._receiver is not None:
                await self._receiver._handle_data(packet)

    def _on_closed(self, reason: str) -> None:
        self.ended.append(reason)
        self.ours.finish(ChannelClosed(reason))

    async def connect(self) -> None:
        self.ours.association.begin(5000, 65536)
        await self.peer.start(None, 5000)
        await asyncio.wait_for(self.is_open.wait(), 5)
        async with asyncio.timeout(5):
            while self.peer.state != "connected":
                await asyncio.sleep(0)

    async def close(self) -> None:
        self.ours.finish(ChannelClosed("over"))
        await self.peer.stop()
        self._reading.cancel()

    # the peer misbehaves
    def chunk(self, tsn: int, data: bytes, *, flags: int = 3, stream: int = 2) -> DataChunk:
        chunk = DataChunk(flags)
        chunk.tsn, chunk.stream_id, chunk.stream_seq = tsn % 2**32, stream, 0
        chunk.protocol, chunk.user_data = 53, data
        return chunk

    def forge(self, *chunks: Any) -> None:
        for chunk in chunks:
            self.raw(bytes(chunk))

    def raw(self, chunk: bytes) -> None:
        class Bare:
            def __bytes__(self) -> bytes:
                return chunk + bytes(-len(chunk) % 4)

        tag = self.ours.association._local_verification_tag
        self._to_us(serialize_packet(5000, 5000, tag, Bare()))  # type: ignore[arg-type]

    @property
    def next_tsn(self) -> int:
        return self.ours.association._last_received_tsn + 1

    def open(self, label: str = "x", **parameters: Any) -> RTCDataChannel:
        return RTCDataChannel(self.peer, RTCDataChannelParameters(label=label, **parameters))


def _story(story: Callable[[Wire], Awaitable[None]]) -> None:
    async def run() -> None:
        wire = Wire()
        await wire.connect()
        try:
            await asyncio.wait_for(story(wire), 20)
        finally:
            await wire.close()

    asyncio.run(run())


async def _opened(wire: Wire, **parameters: Any) -> tuple[DataChannel, RTCDataChannel]:
    theirs = wire.open(**parameters)
    return await asyncio.wait_for(wire.ours.accept_channel(), 5), theirs


# -- a reader that is slow, or is not there ---------------------------------------------------


def test_a_peer_is_made_to_wait_for_a_slow_reader_and_nothing_is_lost() -> None:
    async def story(wire: Wire) -> None:
        ours, theirs = await _opened(wire)
        theirs.send("first")
        assert await ours.recv() == "first"
        for number in range(150):
            theirs.send(struct.pack("!I", number) + bytes(15996))
        await asyncio.sleep(0.3)
        held = wire.ours.association.held
        assert receiving.WINDOW // 2 < held < receiving.WINDOW + 65536
        assert wire.ours.association._advertised_rwnd < 65536
        for number in range(150):
            message = await asyncio.wait_for(ours.recv(), 10)
            assert struct.unpack("!I", message[:4]) == (number,)
        assert wire.ours.association.held == 0
        assert ours.stats.dropped_oldest == 0

    _story(story)


def test_while_nobody_reads_the_oldest_messages_go_and_other_channels_live() -> None:
    async def story(wire: Wire) -> None:
        unread, theirs = await _opened(wire)
        for number in range(100):
            theirs.send(struct.pack("!I", number) + bytes(29996))
        read, other = await _opened(wire)
        other.send("alive")
        assert await asyncio.wait_for(read.recv(), 10) == "alive"
        assert unread.stats.messages_received == 100
        kept = 100 - unread.stats.dropped_oldest
        assert kept * 30000 <= UNREAD
        first = await unread.recv()
        assert struct.unpack("!I", first[:4]) == (100 - kept,)

    _story(story)


def test_on_an_unreliable_channel_the_newest_wins() -> None:
    async def story(wire: Wire) -> None:
        ours, theirs = await _opened(wire, ordered=False, maxRetransmits=0)
        theirs.send(b"read")
        assert await ours.recv() == b"read"
        for number in range(2000):
            theirs.send(struct.pack("!I", number) + bytes(996))
        async with asyncio.timeout(10):
            while ours.stats.messages_received < 2001:
                await asyncio.sleep(0.01)
        assert ours.stats.dropped_oldest > 500
        newest = None
        for _ in range(2000 - ours.stats.dropped_oldest):
            newest = await ours.recv()
        assert struct.unpack("!I", newest[:4]) == (1999,)

    _story(story)


def test_empty_messages_cost_something_too() -> None:
    async def story(wire: Wire) -> None:
        ours, theirs = await _opened(wire)
        tsn = wire.next_tsn
        for number in range(20_000):
            chunk = wire.chunk(tsn + number, b"\0", stream=theirs.id, flags=7)
            chunk.protocol = 57
            wire.forge(chunk)
        assert len(ours._incoming) * bounds.MESSAGE_COST <= UNREAD
        assert ours.stats.dropped_oldest > 3_000

    _story(story)


# -- a peer that does not follow --------------------------------------------------------------


def test_sending_waits_for_a_peer_that_does_not_follow() -> None:
    async def story(wire: Wire) -> None:
        ours = await _dead_end(wire)
        sent = 0
        while ours.try_send(bytes(16000)):
            sent += 1
        assert sent < 60
        assert ours.buffered <= SEND_BUFFER + 16064
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ours.send(b"no room"), 0.1)

    _story(story)


def test_datagrams_that_can_not_leave_make_room_for_newer_ones() -> None:
    async def story(wire: Wire) -> None:
        ours = await _dead_end(wire, ordered=False, max_retransmits=0)
        for _ in range(1000):
            await asyncio.wait_for(ours.send(bytes(1000)), 1)
        assert ours.buffered <= SEND_BUFFER
        assert ours.stats.dropped_queue_full > 500

    _story(story)


def test_waiting_to_send_ends_when_the_session_does() -> None:
    async def story(wire: Wire) -> None:
        ours = await _dead_end(wire)

        async def send() -> None:
            while True:
                await ours.send(bytes(16000))

        sending = asyncio.ensure_future(send())
        await asyncio.sleep(0.05)
        wire.ours.finish(ChannelClosed("the peer closed the channel"))
        with pytest.raises(ChannelClosed, match="the peer closed the channel"):
            await asyncio.wait_for(sending, 1)

    _story(story)


async def _dead_end(wire: Wire, **parameters: Any) -> DataChannel:
    """A channel of ours whose peer has fallen silent."""
    channel = await wire.ours.open_channel("x", **parameters)
    wire.cut = True
    return channel


# -- a peer that breaks the rules -------------------------------------------------------------


def test_channels_beyond_the_bound_are_refused_and_the_others_live() -> None:
    async def story(wire: Wire) -> None:
        opened = [wire.open(str(number)) for number in range(bounds.MAX_CHANNELS + 8)]
        async with asyncio.timeout(10):
            while [c.readyState for c in opened].count("closed") < 8:
                await asyncio.sleep(0.01)
        assert wire.ours.association.counters.refused_channels == 8
        assert len(wire.ours.association._data_channels) == bounds.MAX_CHANNELS
        opened[0].send("alive")
        assert await asyncio.wait_for((await wire.ours.accept_channel()).recv(), 5) == "alive"

    _story(story)


def test_a_channel_with_an_endless_name_is_refused() -> None:
    async def story(wire: Wire) -> None:
        endless = wire.open("x" * 3000)
        async with asyncio.timeout(5):
            while endless.readyState != "closed":
                await asyncio.sleep(0.01)

    _story(story)


def test_a_message_without_an_end_ends_the_association() -> None:
    async def story(wire: Wire) -> None:
        tsn = wire.next_tsn
        for number in range(4000):
            flags = 2 if number == 0 else 0  # a beginning, and no end
            wire.forge(wire.chunk(tsn + number, bytes(1100), flags=flags))
        assert wire.ended == ["the peer sent a message without an end"]

    _story(story)


@pytest.mark.parametrize("flags", [0, 4], ids=["ordered", "loose"])
def test_pieces_of_a_byte_are_few(flags: int) -> None:
    async def story(wire: Wire) -> None:
        tsn = wire.next_tsn
        for number in range(2 * receiving.MAX_PIECES):
            assert not wire.ended
            wire.forge(wire.chunk(tsn + number, b"x", flags=flags if number else flags | 2))
        assert wire.ended == ["the peer sent a message without an end"]

    _story(story)


@pytest.mark.parametrize("flags", [2, 6], ids=["ordered", "loose"])
def test_a_beginning_that_another_beginning_follows_is_not_kept(flags: int) -> None:
    async def story(wire: Wire) -> None:
        tsn = wire.next_tsn
        for number in range(2 * receiving.MAX_PIECES):
            wire.forge(wire.chunk(tsn + number, bytes(1000), flags=flags))
        assert not wire.ended
        assert wire.ours.association._reassembly.pieces == 1
        assert wire.ours.association._advertised_rwnd == receiving.WINDOW - 1000

    _story(story)


def test_a_message_larger_than_we_take_is_dropped_and_counted() -> None:
    async def story(wire: Wire) -> None:
        ours, theirs = await _opened(wire)
        wire.peer._remote_max_message_size = 0
        theirs.send(bytes(bounds.MAX_MESSAGE_SIZE + 1))
        theirs.send("small")
        assert await asyncio.wait_for(ours.recv(), 10) == "small"
        assert wire.ours.association.counters.malformed == 1

    _story(story)


def test_chunks_far_ahead_of_a_gap_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert receiving.MAX_AHEAD <= 2048
    monkeypatch.setattr(receiving, "MAX_AHEAD", 300)

    async def story(wire: Wire) -> None:
        tsn = wire.next_tsn
        for number in range(1, 2 * receiving.MAX_AHEAD):
            wire.forge(wire.chunk(tsn + number, b"x", flags=0))
        association = wire.ours.association
        assert association._received.ahead == receiving.MAX_AHEAD - 1
        assert association.counters.pushed_back == receiving.MAX_AHEAD

    _story(story)


def test_streams_beyond_those_agreed_on_are_not_kept() -> None:
    async def story(wire: Wire) -> None:
        tsn = wire.next_tsn
        for number in range(3000):
            wire.forge(wire.chunk(tsn + number, b"x", stream=number + 100, flags=2))
        assert len(wire.ours.association._inbound_streams) <= receiving.MAX_STREAMS
        forward = ForwardTsnChunk()
        forward.cumulative_tsn = wire.next_tsn
        forward.streams = [(stream, 1) for stream in range(5000, 5200)]
        wire.forge(forward)
        assert len(wire.ours.association._inbound_streams) <= receiving.MAX_STREAMS

    _story(story)


def test_an_acknowledgement_of_what_was_never_sent_costs_nothing() -> None:
    async def story(wire: Wire) -> None:
        sack = SackChunk()
        sack.cumulative_tsn = wire.ours.association._last_sacked_tsn
        sack.gaps = [(1, 65535)] * 200
        began = asyncio.get_running_loop().time()
        for _ in range(50):
            wire.forge(sack)
        assert asyncio.get_running_loop().time() - began < 1.0
        assert wire.ours.association.counters.malformed == 50

    _story(story)


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        bytes(12),
        bytes(16),
        bytes(12) + bytes((1, 0, 0, 20)) + bytes(16) + bytes((0, 0, 0, 0)),
        bytes(12) + bytes((4, 0, 0, 8)) + bytes((0, 1, 0, 0)),
        bytes(12) + bytes((4, 0, 0, 8)) + bytes((0, 1, 0, 9)),
        bytes(12) + bytes((0, 3, 0, 16)) + bytes(12),
        bytes(12) + bytes((3, 0, 0, 4)),
        bytes(12) + bytes((200, 0, 0, 3)),
        bytes(12) + bytes((200, 0, 255, 255)),
        bytes(12) + bytes((200, 0, 0, 4, 1)),
        bytes(12) + bytes((200, 0, 0, 4)) + bytes((1, 0, 0, 20)) + bytes(16),
    ],
)
def test_packets_whose_lengths_do_not_add_up_are_not_parsed(packet: bytes) -> None:
    assert not is_well_formed(packet)


def test_a_parameter_of_no_length_does_not_run_in_circles() -> None:
    """aiortc 1.16 would never come back from it."""

    async def story(wire: Wire) -> None:
        wire.raw(bytes((4, 0, 0, 12)) + bytes((0, 1, 0, 0)) + bytes(4))
        assert wire.ours.association.counters.malformed == 1

    _story(story)


@pytest.mark.parametrize(
    "data",
    [
        b"\0",
        b"\x03",
        b"\x02",
        b"\x07" * 20,
        struct.pack("!BBHLHH", 3, 0, 0, 0, 4, 0) + b"abc",
        struct.pack("!BBHLHH", 3, 0, 0, 0, 2, 0) + b"\xff\xfe",
    ],
)
def test_control_messages_that_make_no_sense_are_counted(data: bytes) -> None:
    async def story(wire: Wire) -> None:
        await wire.peer._send(8, 50, data)
        await asyncio.sleep(0.01)
        assert wire.ours.association.counters.malformed == 1
        assert not wire.ended
        ours, theirs = await _opened(wire)
        theirs.send("alive")
        assert await asyncio.wait_for(ours.recv(), 5) == "alive"

    _story(story)


def test_text_that_is_none_is_counted_and_the_channel_lives() -> None:
    async def story(wire: Wire) -> None:
        ours, theirs = await _opened(wire)
        await wire.peer._send(theirs.id, 51, b"\xff\xfe")
        theirs.send("alive")
        assert await asyncio.wait_for(ours.recv(), 5) == "alive"
        assert wire.ours.association.counters.malformed == 1

    _story(story)


def test_random_packets_raise_nothing_and_end_nothing() -> None:
    async def story(wire: Wire) -> None:
        import random

        source = random.Random(7)
        for _ in range(3000):
            size = source.randrange(0, 80)
            body = source.randbytes(size)
            kind = source.choice((0, 2, 3, 4, 9, 130, 192, source.randrange(256)))
            if kind in (1, 6, 7, 8, 10, 14):
                continue  # a new association, or the end of this one, is the peer's to say
            wire.raw(bytes((kind, source.randrange(8))) + struct.pack("!H", size + 4) + body)
        assert not wire.ended
        with pytest.raises((IcePunchError, TimeoutError)):  # what it was told of TSNs is a lie
            async with asyncio.timeout(0.1):
                await wire.ours.accept_channel()

    _story(story)


def test_a_peer_that_speaks_no_sctp_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "FIRST_RTO", 0.01)

    async def run() -> None:
        wire = Wire()
        wire.cut = True
        wire.ours.association.begin(5000, 65536)
        async with asyncio.timeout(5):
            while not wire.ended:
                await asyncio.sleep(0.01)
        assert wire.ended == ["the peer does not speak SCTP"]
        await wire.close()

    asyncio.run(run())


@pytest.mark.parametrize("chunk", [AbortChunk(), ShutdownChunk()])
def test_an_association_that_is_ended_by_the_peer_is_over_at_once(chunk: Any) -> None:
    """Some stacks abort, others shut down (RFC 9260 section 9)."""

    async def story(wire: Wire) -> None:
        ours, _ = await _opened(wire)
        if isinstance(chunk, ShutdownChunk):
            chunk.cumulative_tsn = 0
        wire.forge(chunk)
        assert wire.ended == ["the peer closed the channel"]
        with pytest.raises(ChannelClosed, match="the peer closed the channel"):
            await ours.recv()

    _story(story)


def test_the_echo_of_a_test_is_bounded_by_who_reads_it() -> None:
    async def story(wire: Wire) -> None:
        from ice_punch.webrtc import echo

        wire.ours.serve(echo.PROTOCOL, echo.serve_echo)
        theirs = wire.open("test", protocol=echo.PROTOCOL)
        got: asyncio.Queue = asyncio.Queue()
        theirs.on("message", got.put_nowait)
        opened = asyncio.Event()
        theirs.on("open", opened.set)
        await asyncio.wait_for(opened.wait(), 5)
        theirs.send("back, please")
        assert await asyncio.wait_for(got.get(), 5) == "back, please"
        theirs.send(bytes(100))
        theirs.send(bytes(50))
        assert json.loads(await asyncio.wait_for(got.get(), 5)) == {"received": 2, "bytes": 150}

    _story(story)
