"""An SCTP association (RFC 9260, RFC 8831): aiortc's, within bounds that no peer can break."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, cast

from aiortc import RTCDataChannel, RTCDtlsTransport, RTCSctpCapabilities, RTCSctpTransport
from aiortc.rtcsctptransport import (
    DATA_CHANNEL_ACK,
    DATA_CHANNEL_OPEN,
    SCTP_DATA_FIRST_FRAG,
    SCTP_DATA_LAST_FRAG,
    SCTP_DATA_UNORDERED,
    SCTP_MAX_PACKET_LENGTH,
    SCTP_TSN_MODULO,
    WEBRTC_BINARY,
    WEBRTC_BINARY_EMPTY,
    WEBRTC_DCEP,
    WEBRTC_STRING,
    WEBRTC_STRING_EMPTY,
    AbortChunk,
    Chunk,
    DataChunk,
    SackChunk,
    ShutdownChunk,
)

from ice_punch.webrtc.carrier import SctpCarrier, run_to_end
from ice_punch.webrtc.packets import acknowledges_alone, is_well_formed
from ice_punch.webrtc.receiving import ReceivingHalf
from ice_punch.webrtc.sending import SendingHalf

MAX_MESSAGE_SIZE = 262144
"""Bytes of the largest message taken, ``a=max-message-size``."""
MESSAGE_COST = 64
"""Bytes that a message costs besides its own."""
MAX_CHANNELS = 64
"""Data channels at once, whoever opened them."""
MOST_CREDIT = 8
"""Acknowledgements that are taken as one when they come together."""
MAX_NAME = 2048
"""Bytes of a channel's label and protocol together."""
FIRST_RTO = 1.0
"""Seconds, RFC 9260 section 16."""
DCEP_HEADER = 12
SCTP_HEADERS = 12 + 16
MAX_PACKET = SCTP_MAX_PACKET_LENGTH
"""Bytes of a packet, on a path that carries as much."""

_TEXT = (WEBRTC_STRING, WEBRTC_STRING_EMPTY)
_EMPTY = (WEBRTC_STRING_EMPTY, WEBRTC_BINARY_EMPTY)
_USER = (WEBRTC_STRING, WEBRTC_STRING_EMPTY, WEBRTC_BINARY, WEBRTC_BINARY_EMPTY)

Message = bytes | str


class Above(Protocol):
    """Whoever uses an association."""

    def association_open(self) -> None: ...

    def association_closed(self, reason: str) -> None: ...

    def channel_opened(self, channel: RTCDataChannel) -> bool:
        """The peer has opened one; whether there is room for it."""

    def channel_closing(self, stream_id: int) -> None:
        """The peer closes it, or this side does."""

    def message_received(self, stream_id: int, message: Message, cost: int) -> None:
        """Bytes of ``cost`` count as read with `Association.release`."""

    def give_next(self) -> bool:
        """Send one more message now, if there is one."""


class Association(ReceivingHalf, SendingHalf):
    """``above`` is told what happens; nothing is raised for what a peer sends."""

    def __init__(
        self,
        carrier: SctpCarrier,
        above: Above,
        *,
        packet_size: Callable[[], int],
        port: int = 5000,
    ) -> None:
        """``packet_size`` is how many bytes the path carries."""
        super().__init__(cast(RTCDtlsTransport, carrier), port)
        self._carrier = carrier
        self._above = above
        self._packet_size = packet_size
        self._over = False
        self._busy = False
        self._reason = "the peer does not speak SCTP"
        self._rto = FIRST_RTO

    # -- calls from above -----------------------------------------------------------------------

    def begin(self, remote_port: int, max_message_size: int) -> None:
        """Set up the association; 0 is a peer that takes messages of any size."""
        run_to_end(self.start(RTCSctpCapabilities(max_message_size), remote_port))
        self._carrier.flush()

    @property
    def is_open(self) -> bool:
        return self._association_state is self.State.ESTABLISHED

    @property
    def is_over(self) -> bool:
        return self._over

    @property
    def max_message_size(self) -> int:
        """Bytes of the largest message the peer takes; 0 is without limit."""
        return self._remote_max_message_size

    @property
    def is_clogged(self) -> bool:
        """Whether a message given now would have to wait."""
        return not self.is_open or bool(self._outbound_queue)

    @property
    def is_idle(self) -> bool:
        """Whether the peer has acknowledged all there was to send."""
        return not (self._outbound_queue or self._sent_queue or self._data_channel_queue)

    def receive(self, packets: list[bytes]) -> None:
        """Packets of the peer, whatever they hold."""
        self._busy = True
        last = len(packets) - 1
        try:
            for number, packet in enumerate(packets):
                if self._over:
                    break
                if (
                    number < last
                    and self._credit < MOST_CREDIT
                    and acknowledges_alone(packet)
                    and acknowledges_alone(packets[number + 1])
                ):
                    self._credit += 1  # the next one says all of it
                    self.counters.packets_received += 1
                    continue
                self._receive_packet(packet)
                self._credit = 1
            if self._sack_needed and not self._over:
                run_to_end(self._send_sack())
        finally:
            self._busy = False
        self.pump()
        self._carrier.flush()

    def _receive_packet(self, packet: bytes) -> None:
        self.counters.packets_received += 1
        if not is_well_formed(packet):
            self.counters.malformed += 1
            return
        try:
            run_to_end(self._handle_data(packet))
        except Exception:
            # aiortc asserts what it expects of a peer, and parses what is left of it by trust.
            self.counters.malformed += 1

    def pump(self) -> None:
        """There may be something to send."""
        if self.is_open and not self._busy:
            self._busy = True
            try:
                run_to_end(self._data_channel_flush())
            finally:
                self._busy = False

    def transmit(
        self, channel: RTCDataChannel, message: Message, *, life: float | None = None
    ) -> None:
        """Send a message on an open channel, past all queues. After ``life`` seconds it is given
        up."""
        data = message.encode() if isinstance(message, str) else message
        kind = _TEXT if isinstance(message, str) else (WEBRTC_BINARY, WEBRTC_BINARY_EMPTY)
        assert channel.id is not None
        steps = self._send(
            channel.id,
            kind[0] if data else kind[1],
            data or b"\0",  # RFC 8831 section 6.6
            expiry=None if life is None else time.time() + life,  # aiortc's clock
            max_retransmits=channel.maxRetransmits,
            ordered=channel.ordered,
        )
        run_to_end(steps)

    def end(self, reason: str) -> None:
        """Abort, RFC 9260 section 9.1."""
        if self._over:
            return
        self._reason = reason
        if self.is_open or self._remote_verification_tag:
            run_to_end(self._send_chunk(AbortChunk()))
            self._carrier.flush()
        self._set_state(self.State.CLOSED)

    def refuse(self, stream_id: int) -> None:
        """Close a channel that the peer has opened and that there is no room for: RFC 8832 has no
        other no than a stream that is reset."""
        self.counters.refused_channels += 1
        if len(self._reconfig_queue) < MAX_CHANNELS and stream_id not in self._reconfig_queue:
            self._reconfig_queue.append(stream_id)

    # -- what aiortc asks -----------------------------------------------------------------------

    async def _receive_chunk(self, chunk: Chunk) -> None:
        if isinstance(chunk, AbortChunk | ShutdownChunk):
            self._reason = "the peer closed the channel"
        if not self._over:
            await super()._receive_chunk(chunk)
        if isinstance(chunk, ShutdownChunk):
            self._set_state(self.State.CLOSED)  # data channels have no half that stays open

    async def _receive_sack_chunk(self, chunk: SackChunk) -> None:
        beyond = (self._local_tsn - 1 - chunk.cumulative_tsn) % SCTP_TSN_MODULO
        last = 0
        for first, end in chunk.gaps:
            if not last < first <= end <= beyond:
                self.counters.malformed += 1
                return
            last = end
        if beyond < SCTP_TSN_MODULO // 2:
            await super()._receive_sack_chunk(chunk)
            # What was acknowledged has made room.
            await self._data_channel_flush()

    async def _send(
        self,
        stream_id: int,
        pp_id: int,
        user_data: bytes,
        expiry: float | None = None,
        max_retransmits: int | None = None,
        ordered: bool = True,
    ) -> None:
        """In pieces that fit the path as it is now."""
        packet = min(MAX_PACKET, self._packet_size())
        most = max(packet - SCTP_HEADERS, 64) // 4 * 4
        sequence = self._outbound_stream_seq.get(stream_id, 0) if ordered else 0
        for at in range(0, len(user_data), most):
            chunk = DataChunk(0 if ordered else SCTP_DATA_UNORDERED)
            chunk.flags |= SCTP_DATA_FIRST_FRAG if at == 0 else 0
            chunk.flags |= SCTP_DATA_LAST_FRAG if at + most >= len(user_data) else 0
            chunk.stream_id, chunk.stream_seq, chunk.protocol = stream_id, sequence, pp_id
            chunk.user_data = user_data[at : at + most]
            chunk.tsn = self._local_tsn
            self._local_tsn = (self._local_tsn + 1) % SCTP_TSN_MODULO
            _prepare(chunk, expiry, max_retransmits)
            self._outbound_queue.append(chunk)
        if ordered:
            self._outbound_stream_seq[stream_id] = (sequence + 1) % 65536
        await self._transmit()

    async def _data_channel_flush(self) -> None:
        """Control messages first, then what the queues above have, as long as none has to wait."""
        if not self.is_open:
            return
        while not self._outbound_queue:
            if self._data_channel_queue:
                channel, protocol, data = self._data_channel_queue.popleft()
                await self._send(self._registered(channel), protocol, data)
            elif not self._above.give_next():
                break
        await self._transmit_reconfig()

    def _registered(self, channel: RTCDataChannel) -> int:
        """The stream of a channel, the first that is free if it has none (RFC 8832 section 6)."""
        stream_id = channel.id
        if stream_id is None:
            stream_id = self._data_channel_id
            assert stream_id is not None
            while stream_id in self._data_channels:
                stream_id += 2
            self._data_channels[stream_id] = channel
            channel._setId(stream_id)
        return stream_id

    async def _receive(self, stream_id: int, pp_id: int, data: bytes) -> None:
        if pp_id == WEBRTC_DCEP:
            await self._receive_control(stream_id, data)
        elif pp_id not in _USER or len(data) > MAX_MESSAGE_SIZE:
            self.counters.malformed += 1
        elif stream_id not in self._data_channels:
            self.counters.strangers += 1
        else:
            data = b"" if pp_id in _EMPTY else data
            message: Message = data.decode() if pp_id in _TEXT else data
            self._above.message_received(stream_id, message, len(data) + MESSAGE_COST)

    async def _receive_control(self, stream_id: int, data: bytes) -> None:
        """RFC 8832 section 5."""
        if data[:1] == bytes((DATA_CHANNEL_ACK,)) and stream_id in self._data_channels:
            await self._data_channel_receive(stream_id, WEBRTC_DCEP, data)
            return
        if (
            data[:1] != bytes((DATA_CHANNEL_OPEN,))
            or len(data) < DCEP_HEADER
            or len(data) != DCEP_HEADER + sum(_lengths(data))
            or stream_id in self._data_channels
        ):
            self.counters.malformed += 1
            return
        if len(self._data_channels) >= MAX_CHANNELS or sum(_lengths(data)) > MAX_NAME:
            self.refuse(stream_id)
            return
        await self._data_channel_receive(stream_id, WEBRTC_DCEP, data)
        channel = self._data_channels[stream_id]
        if not self._above.channel_opened(channel):
            self.counters.refused_channels += 1
            self._data_channel_close(channel)

    def _data_channel_close(self, channel: RTCDataChannel) -> None:
        if channel.id is not None:
            self._above.channel_closing(channel.id)
        super()._data_channel_close(channel)

    def _set_state(self, state: RTCSctpTransport.State) -> None:
        was = self._association_state
        if self._over or (state is was and state is not self.State.CLOSED):
            return
        if state is self.State.CLOSED:
            self._over = True
            self._above.association_closed(self._reason)
        super()._set_state(state)
        if state is self.State.ESTABLISHED:
            self._reason = "the peer stopped answering"
            self._above.association_open()


def _lengths(data: bytes) -> tuple[int, int]:
    """Bytes of label and protocol in a DATA_CHANNEL_OPEN (RFC 8832 section 5.1)."""
    return int.from_bytes(data[8:10], "big"), int.from_bytes(data[10:12], "big")


def _prepare(chunk: DataChunk, expiry: float | None, max_retransmits: int | None) -> None:
    """What aiortc's sender keeps with each chunk."""
    chunk._abandoned = chunk._acked = chunk._in_flight = chunk._retransmit = False
    chunk._book_size = len(chunk.user_data)
    chunk._expiry = expiry
    chunk._max_retransmits = max_retransmits
    chunk._misses = chunk._sent_count = 0
    chunk._sent_time = None
