"""What a path or a peer loses is sent again once and soon; acknowledgements are few, bursts short.

The peer is stock aiortc's SCTP, on a wire that loses what a test wants it to lose.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable

import pytest

pytest.importorskip("aiortc", reason="needs the extra webrtc")

from aiortc.rtcsctptransport import SackChunk, serialize_packet
from test_bounds import Wire

from ice_punch.webrtc.acknowledging import ACK_EVERY
from ice_punch.webrtc.data_channel import SEND_BUFFER, DataChannel
from ice_punch.webrtc.packets import acknowledges_alone, is_well_formed
from ice_punch.webrtc.sending import BURST, SendingCounters

DATA, SACK, FORWARD_TSN = 0, 3, 192


class LossyWire(Wire):
    """Counts what leaves, by the kind of its first chunk."""

    def __init__(self) -> None:
        super().__init__()
        self.lost: Callable[[int, int], bool] = lambda number, copy: False
        """Whether this copy of a DATA chunk is lost; both are counted from 0."""
        self.left: list[int] = []
        self._copies: dict[int, int] = {}

    def _to_peer(self, packets: list[bytes]) -> None:
        for packet in packets:
            self.left.append(packet[12])
            if packet[12] == DATA:
                tsn = int.from_bytes(packet[16:20], "big")
                copy = self._copies[tsn] = self._copies.get(tsn, -1) + 1
                number = list(self._copies).index(tsn)
                if self.lost(number, copy):
                    continue
            super()._to_peer([packet])

    def forget(self) -> None:
        self.left, self._copies = [], {}

    @property
    def sending(self) -> SendingCounters:
        return self.ours.association.sending


def _story(story: Callable[[LossyWire, DataChannel, list[bytes]], Awaitable[None]], **kind) -> None:
    """``kind`` is what `open_channel` takes; ``story`` gets the channel and what arrives."""

    async def run() -> None:
        wire = LossyWire()
        await wire.connect()
        arrived: list[bytes] = []
        wire.peer.on("datachannel", lambda channel: channel.on("message", arrived.append))
        try:
            async with asyncio.timeout(20):
                channel = await wire.ours.open_channel("x", **kind)
                await wire.ours.flush(1)
                wire.forget()
                await story(wire, channel, arrived)
        finally:
            await wire.close()

    asyncio.run(run())


def _numbers(count: int, size: int = 1000) -> list[bytes]:
    return [struct.pack("!I", number) + bytes(size - 4) for number in range(count)]


async def _all(arrived: list[bytes], count: int, within: float) -> None:
    async with asyncio.timeout(within):
        while len(arrived) < count:
            await asyncio.sleep(0.002)


# -- losses -----------------------------------------------------------------------------------


def test_a_lost_chunk_is_sent_again_once() -> None:
    async def story(wire: LossyWire, channel: DataChannel, arrived: list[bytes]) -> None:
        wire.lost = lambda number, copy: number in (20, 40) and copy == 0
        for message in _numbers(200):
            await channel.send(message)
        await _all(arrived, 200, within=5)
        assert arrived == _numbers(200)
        assert (wire.sending.lost, wire.sending.sent_again) == (2, 2)
        assert wire.sending.timeouts == 0

    _story(story)


def test_a_copy_that_is_lost_too_is_noticed_without_a_timeout() -> None:
    async def story(wire: LossyWire, channel: DataChannel, arrived: list[bytes]) -> None:
        wire.lost = lambda number, copy: number == 20 and copy < 3
        for message in _numbers(400):
            await channel.send(message)
        await _all(arrived, 400, within=5)
        assert arrived == _numbers(400)
        assert wire.sending.sent_again == 3
        assert wire.sending.timeouts == 0

    _story(story)


def test_what_is_lost_at_the_end_is_missed_before_the_timer() -> None:
    async def story(wire: LossyWire, channel: DataChannel, arrived: list[bytes]) -> None:
        wire.lost = lambda number, copy: number >= 97 and copy == 0
        for message in _numbers(100):
            await channel.send(message)
        await _all(arrived, 100, within=5)
        assert arrived == _numbers(100)
        assert wire.sending.probes >= 1
        assert wire.sending.timeouts == 0

    _story(story)


def test_after_silence_all_of_it_arrives() -> None:
    async def story(wire: LossyWire, channel: DataChannel, arrived: list[bytes]) -> None:
        wire.cut = True
        for message in _numbers(50):
            await channel.send(message)
        await asyncio.sleep(0.1)
        wire.cut = False
        await _all(arrived, 50, within=5)
        assert arrived == _numbers(50)
        assert wire.sending.timeouts + wire.sending.probes >= 1

    _story(story)


def test_gaps_that_stay_are_passed_over_with_few_words() -> None:
    """Stock aiortc on both sides answers each other's FORWARD TSN for as long as there are gaps."""

    async def story(wire: LossyWire, channel: DataChannel, arrived: list[bytes]) -> None:
        wire.lost = lambda number, copy: 50 <= number < 350 and number % 3 == 0
        for message in _numbers(500):
            await channel.send(message)
            await channel.drain(8000)
        async with asyncio.timeout(5):
            while not wire.ours.association.is_idle:
                await asyncio.sleep(0.002)
        assert set(_numbers(500)) - set(arrived) == {
            m for n, m in enumerate(_numbers(500)) if 50 <= n < 350 and n % 3 == 0
        }
        assert wire.sending.given_up == 100
        assert wire.sending.sent_again == wire.sending.timeouts == 0
        assert wire.left.count(FORWARD_TSN) <= 110
        assert wire.peer._last_received_tsn == wire.ours.association._local_tsn - 1

    _story(story, ordered=False, max_retransmits=0)


# -- windows and bursts -----------------------------------------------------------------------


def test_no_more_is_under_way_than_the_peer_has_room_for() -> None:
    async def story(wire: LossyWire, channel: DataChannel, arrived: list[bytes]) -> None:
        wire.peer._advertised_rwnd = 5000
        association, most = wire.ours.association, 0
        for message in _numbers(100):
            await channel.send(message)
        while len(arrived) < 100:
            await asyncio.sleep(0)
            if association._peer_window == 5000:
                most = max(most, association._flight_size)
        assert 0 < most < 5000 + 1200

    _story(story)


def test_after_a_pause_the_window_is_not_sent_at_once() -> None:
    async def story(wire: LossyWire, channel: DataChannel, arrived: list[bytes]) -> None:
        wire.ours.association._cwnd = 10**6
        for message in _numbers(200):
            channel.try_send(message)
        wire.ours.association._carrier.flush()
        assert wire.left.count(DATA) * 1000 <= BURST + 1000
        await _all(arrived, 200, within=5)

    _story(story)


def test_datagrams_are_sent_as_fast_as_they_leave_and_none_is_dropped_here() -> None:
    async def story(wire: LossyWire, channel: DataChannel, arrived: list[bytes]) -> None:
        for message in _numbers(1500):
            await channel.send(message)
            assert channel.buffered <= SEND_BUFFER
            await channel.drain(SEND_BUFFER // 2)
            assert channel.buffered <= SEND_BUFFER // 2
        await channel.drain()
        await _all(arrived, 1500, within=10)
        assert channel.stats.dropped_queue_full == 0

    _story(story, ordered=False, max_retransmits=0)


def test_whoever_sends_datagrams_without_waiting_lets_others_run() -> None:
    async def story(wire: LossyWire, channel: DataChannel, arrived: list[bytes]) -> None:
        wire.cut = True
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.ensure_future(count())
        for message in _numbers(1000):
            await channel.send(message)
        counting.cancel()
        assert turns > 500
        assert channel.buffered <= SEND_BUFFER

    _story(story, ordered=False, max_retransmits=0)


# -- acknowledgements -------------------------------------------------------------------------


def _data(wire: LossyWire, *tsns: int) -> list[bytes]:
    tag = wire.ours.association._local_verification_tag
    return [
        serialize_packet(5000, 5000, tag, wire.chunk(wire.next_tsn + tsn, b"x", stream=9))
        for tsn in tsns
    ]


@pytest.mark.parametrize(
    ("tsns", "acknowledged"),
    [
        (range(10), 10 // ACK_EVERY),
        (range(1), 1),
        (range(3), 2),
        ((0, 2, 3, 4), 3),
        ((0, 0, 1), 2),
        ((0, 1, 2, 4, 3, 5, 6), 4),
    ],
    ids=["together", "alone", "odd", "a gap", "twice", "out of order"],
)
def test_every_second_packet_is_acknowledged_and_gaps_at_once(
    tsns: tuple[int, ...], acknowledged: int
) -> None:
    async def story(wire: LossyWire, channel: DataChannel, arrived: list[bytes]) -> None:
        wire.ours.association.receive(_data(wire, *tsns))
        assert wire.left == [SACK] * acknowledged

    _story(story)


def test_acknowledgements_that_come_together_count_as_each_would() -> None:
    async def story(wire: LossyWire, channel: DataChannel, arrived: list[bytes]) -> None:
        association = wire.ours.association
        wire.cut = True
        for message in _numbers(300):
            channel.try_send(message)
        sent, window = association.sending.sent, association._cwnd
        first = association._sent_queue[0].tsn
        acknowledgements = []
        for tsn in range(first, first + 3):
            sack = SackChunk()
            sack.cumulative_tsn, sack.advertised_rwnd = tsn % 2**32, 10**6
            tag = association._local_verification_tag
            acknowledgements.append(serialize_packet(5000, 5000, tag, sack))
        assert all(acknowledges_alone(p) and is_well_formed(p) for p in acknowledgements)
        association.receive(acknowledgements)
        assert association._last_sacked_tsn == (first + 2) % 2**32
        assert association._cwnd == window + 3000
        assert association.sending.sent > sent + 3

    _story(story)


def test_an_acknowledgement_with_gaps_is_written_as_aiortc_writes_it() -> None:
    async def story(wire: LossyWire, channel: DataChannel, arrived: list[bytes]) -> None:
        packets: list[bytes] = []
        wire.ours.association._carrier._send = packets.extend
        wire.ours.association.receive(_data(wire, 0, 2, 3, 5, 5, 9))
        sack = SackChunk(0, packets[-1][16:])
        first = wire.ours.association._last_received_tsn
        assert (sack.cumulative_tsn, sack.gaps) == (first, [(2, 3), (5, 5), (9, 9)])
        duplicates = [SackChunk(0, packet[16:]).duplicates for packet in packets]
        assert [first + 5] in duplicates
        for packet in packets:
            assert is_well_formed(packet)
            assert bytes(SackChunk(0, packet[16:])) == packet[12:]

    _story(story)
