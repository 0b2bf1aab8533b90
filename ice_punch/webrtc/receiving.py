"""The receiving half of an SCTP association: bounds that no peer can break, and a cost of a packet
that no order of its pieces can raise."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from struct import pack

from aiortc import RTCDtlsTransport
from aiortc.rtcsctptransport import DataChunk, ForwardTsnChunk, SackChunk

from ice_punch.webrtc.acknowledging import AcknowledgingHalf
from ice_punch.webrtc.carrier import run_to_end
from ice_punch.webrtc.reassembly import InboundStream, Reassembly, Whole
from ice_punch.webrtc.received_tsns import ReceivedTsns

WINDOW = 1024 * 1024
"""Bytes received and not yet read that are welcome (a_rwnd, RFC 9260 section 3.3.2)."""
MOST_IN_PIECES = 2 * WINDOW
"""Bytes of messages of which parts are missing, past which no well-behaved peer gets."""
MAX_PIECES = 2048
"""DATA chunks of such messages, past which only the next in turn is taken."""
MAX_STREAMS = 1024
MAX_AHEAD = 2048
"""DATA chunks after one that is missing; those beyond are dropped, and sent again by the peer."""
MAX_GAPS = 192
"""In one acknowledgement: a packet has room for no more."""
MAX_DUPLICATES = 16


@dataclass(slots=True)
class AssociationCounters:
    packets_received: int = 0
    malformed: int = 0
    """Packets and messages that made no sense."""
    strangers: int = 0
    """Messages of channels that there are not."""
    pushed_back: int = 0
    """DATA chunks that had to be sent again, for there was no room for them."""
    refused_channels: int = 0


class _Sack(SackChunk):
    """aiortc's, written in one step where there are many gaps."""

    def __bytes__(self) -> bytes:
        gaps = list(chain.from_iterable(self.gaps))
        return pack(
            f"!BBHLLHH{len(gaps)}H{len(self.duplicates)}L",
            *(self.type, self.flags, 16 + 2 * len(gaps) + 4 * len(self.duplicates)),
            *(self.cumulative_tsn, self.advertised_rwnd, len(self.gaps), len(self.duplicates)),
            *gaps,
            *self.duplicates,
        )


class ReceivingHalf(AcknowledgingHalf):
    """aiortc's association with other books of what has come."""

    def __init__(self, transport: RTCDtlsTransport, port: int = 5000) -> None:
        self.counters = AssociationCounters()
        self.held = 0
        """Bytes that wait for readers."""
        self._received = ReceivedTsns(0)
        self._reassembly = Reassembly()
        self._ack_now = False
        super().__init__(transport, port)
        self._inbound_streams_max = MAX_STREAMS

    def end(self, reason: str) -> None:
        """Abort the association."""
        raise NotImplementedError

    # -- readers --------------------------------------------------------------------------------

    def hold(self, cost: int) -> None:
        """A message waits for a reader that will come: the window is so much smaller."""
        self.held += cost

    def release(self, cost: int) -> None:
        """A reader has taken what was held for it: the peer may send as much again."""
        before = self._advertised_rwnd
        self.held -= cost
        if (
            before < WINDOW // 2 <= self._advertised_rwnd
            and self._association_state is self.State.ESTABLISHED
        ):
            run_to_end(self._send_sack())  # RFC 9260 section 6.2: a window that opens is told

    # -- what aiortc asks -----------------------------------------------------------------------

    async def _receive_data_chunk(self, chunk: DataChunk) -> None:
        self._sack_needed = True
        received = self._received
        position = received.place(chunk.tsn)
        if received.has(position):
            self._sack_duplicates.append(chunk.tsn)
            return
        if chunk.stream_id >= MAX_STREAMS:
            self.counters.strangers += 1
            received.add(position)
            self._reassembly.passed(received.position)
            return
        if not self._has_room(len(chunk.user_data), position - received.position):
            # RFC 9260 section 6.2: dropped and not acknowledged, so it comes again
            self.counters.pushed_back += 1
            self._ack_now = True
            return
        self._ack_now |= received.has_gaps  # which this one may fill
        received.add(position)
        await self._hand_on(self._reassembly.add(position, chunk))
        self._reassembly.passed(received.position)
        if self._reassembly.size > MOST_IN_PIECES or self._reassembly.pieces >= 2 * MAX_PIECES:
            self.end("the peer sent a message without an end")
        await self._reset_deferred_streams()

    async def _hand_on(self, messages: list[Whole]) -> None:
        for message in messages:
            await self._receive(*message)

    def _has_room(self, size: int, ahead: int) -> bool:
        if ahead > MAX_AHEAD or self.held >= WINDOW:
            return False
        # What is next in turn completes messages, and makes room.
        return ahead == 1 or (
            self._advertised_rwnd >= size and self._reassembly.pieces < MAX_PIECES
        )

    async def _receive_forward_tsn_chunk(self, chunk: ForwardTsnChunk) -> None:
        """RFC 3758 section 3.6."""
        self._sack_needed = self._ack_now = True
        position = self._received.place(chunk.cumulative_tsn)
        if position <= self._received.position:
            return
        self._received.skip(position)
        for stream_id, sequence in chunk.streams:
            if stream_id in self._data_channels:
                await self._hand_on(self._reassembly.skip(stream_id, sequence))
        self._reassembly.passed(self._received.position)
        await self._reset_deferred_streams()

    async def _reset_deferred_streams(self) -> None:
        if self._reconfig_deferred is not None:
            await super()._reset_deferred_streams()

    def _acknowledge_soon(self) -> None:
        """`receive` does."""

    def _must_acknowledge(self) -> bool:
        return self._ack_now or self._received.has_gaps or bool(self._sack_duplicates)

    async def _send_sack(self) -> None:
        received = self._received
        sack = _Sack()
        sack.cumulative_tsn = received.cumulative
        sack.advertised_rwnd = max(0, self._advertised_rwnd)
        sack.duplicates = self._sack_duplicates[:MAX_DUPLICATES]
        sack.gaps = received.gaps(MAX_GAPS)
        self._sack_duplicates.clear()
        self._sack_needed = self._ack_now = False
        self._unacknowledged = 0
        await self._send_chunk(sack)

    # What aiortc keeps of its own accord, where it looks at it.

    @property
    def _last_received_tsn(self) -> int:
        return self._received.cumulative

    @_last_received_tsn.setter
    def _last_received_tsn(self, tsn: int | None) -> None:
        if (
            tsn is not None and self._association_state is not self.State.ESTABLISHED
        ):  # an INIT that comes late changes nothing
            self._received = ReceivedTsns(tsn)
            self._reassembly = Reassembly()

    @property
    def _advertised_rwnd(self) -> int:
        return WINDOW - self.held - self._reassembly.size

    @_advertised_rwnd.setter
    def _advertised_rwnd(self, size: int) -> None:
        """It is what it is."""

    @property  # type: ignore[override]
    def _inbound_streams(self) -> dict[int, InboundStream]:
        return self._reassembly.streams

    @_inbound_streams.setter
    def _inbound_streams(self, streams: dict[int, InboundStream]) -> None:
        """Those of `Reassembly`."""
