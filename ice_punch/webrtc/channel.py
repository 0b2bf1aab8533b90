"""A Channel whose peer speaks WebRTC: datagrams, messages and files beside each other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from ice_punch.channel import Channel
from ice_punch.channel_stats import ChannelStats
from ice_punch.connection import IceConnection
from ice_punch.datagram import Buffer
from ice_punch.dtls import DtlsMachine, HandshakeCompleted
from ice_punch.dtls_driver import DtlsDriver
from ice_punch.dtls_driver import Event as DtlsEvent
from ice_punch.errors import ChannelClosed, HandshakeFailed, IcePunchError, InvalidConfiguration
from ice_punch.inbox import RECEIVE_QUEUE
from ice_punch.outbox import SEND_QUEUE
from ice_punch.webrtc import echo, files
from ice_punch.webrtc.association import MAX_PACKET, SCTP_HEADERS
from ice_punch.webrtc.data_channel import DataChannel
from ice_punch.webrtc.data_channels import DataChannels, Handler
from ice_punch.webrtc.parameters import SctpParameters

DATAGRAMS, MESSAGES = ("datagrams", 0), ("messages", 2)
"""Labels and streams of the channels that both sides agree on beforehand."""
EARLY_PACKETS = 16
"""Held while the handshake is about to end here, and has there."""
LAST_WORDS = 0.5
"""Seconds that what was sent has to arrive once this side closes."""
MAX_DATAGRAM = 65535
"""Bytes of a datagram that is received."""
NARROW_PACKETS = 8
"""Packets too large for the path in a row that end the session: none after them gets through."""


class WebRtcChannel(Channel):
    """As every Channel it sends and receives datagrams, here on a data channel without order and
    without retransmission. Beside them are ``messages``, and data channels that either side opens.
    """

    def __init__(
        self,
        connection: IceConnection,
        dtls: DtlsMachine,
        sctp: SctpParameters,
        *,
        negotiated: bool = True,
        receive_queue: int = RECEIVE_QUEUE,
        send_queue: int = SEND_QUEUE,
        newest_wins: bool = False,
    ) -> None:
        """``sctp`` is what the peer's description says. Without ``negotiated`` there are neither
        datagrams nor ``messages``, only what is opened."""
        self._sctp = sctp
        self._negotiated = negotiated
        self._early: list[bytes] = []
        self._begun = self._is_leaving = False
        self._too_large = 0
        self._leaving: asyncio.Task[None] | None = None
        self._established: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.data = DataChannels(
            dtls.role,
            self._send_packets,
            packet_size=self._packet_size,
            on_open=self._on_association,
            on_closed=self._on_association_closed,
            send_datagrams=self._send_datagrams,
        )
        self._messages: DataChannel | None = None
        if negotiated:
            self.data.set_datagrams(*DATAGRAMS, self._on_datagram)
            self._messages = self.data.negotiated(*MESSAGES)
            self.data.serve(echo.PROTOCOL, echo.serve_echo)
            self.data.fall_back(files.PROTOCOL, files.refuse_files)
        super().__init__(
            connection,
            dtls,
            receive_queue=receive_queue,
            send_queue=send_queue,
            newest_wins=newest_wins,
        )

    # -- data channels --------------------------------------------------------------------------

    @property
    def messages(self) -> DataChannel:
        """Reliable and in order, text and binary: chat lines, commands, whatever is not a stream of
        datagrams. Raises InvalidConfiguration for a session that was made without it."""
        if self._messages is None:
            raise InvalidConfiguration("this session has no messages channel, only those it opens")
        return self._messages

    async def open_channel(
        self,
        label: str,
        protocol: str = "",
        *,
        ordered: bool = True,
        max_retransmits: int | None = None,
        max_packet_life_time: int | None = None,
    ) -> DataChannel:
        """Open another data channel, and wait until the peer has it (RFC 8832).

        ``max_retransmits``, or ``max_packet_life_time`` in milliseconds, makes it unreliable.
        Raises InvalidConfiguration for contradictory arguments and beyond 64 channels;
        ChannelClosed if the peer will not have it, or the error that ended the session.
        """
        return await self.data.open_channel(
            label,
            protocol,
            ordered=ordered,
            max_retransmits=max_retransmits,
            max_packet_life_time=max_packet_life_time,
        )

    async def accept_channel(self) -> DataChannel:
        """The next data channel that the peer opened and that nobody serves. Raises ChannelClosed,
        or the error that ended the session."""
        return await self.data.accept_channel()

    def serve(self, protocol: str, handler: Handler) -> None:
        """Run ``handler`` with each channel of this protocol that the peer opens, and with those
        that wait to be accepted; the channel is closed when it returns."""
        self.data.serve(protocol, handler)

    # -- as a Channel ---------------------------------------------------------------------------

    async def open(self, signaling_time: float | None = None) -> None:
        """Encrypt, and set up data channels; the connection below must be connected.

        Raises HandshakeFailed or FingerprintMismatch, or the error that ended the session.
        """
        await super().open(signaling_time)
        await asyncio.shield(self._established)

    @property
    def max_datagram_size(self) -> int:
        """Bytes: the largest datagram ``send`` takes, so that it is one packet."""
        room = (self._packet_size() - SCTP_HEADERS) // 4 * 4
        limit = self._sctp.max_message_size
        return min(room, limit) if limit else room

    @property
    def stats(self) -> ChannelStats:
        """Of datagrams; each data channel has statistics of its own."""
        association = self.data.association.counters
        below = super().stats
        return replace(
            below,
            datagrams_sent=self._outbox.sent,
            dropped_malformed=below.dropped_malformed + association.malformed,
        )

    async def close(self) -> None:
        """Tell the peer, once what was sent has arrived or half a second is over, and free
        everything. May be called again."""
        if self._leaving is None:
            self._leaving = asyncio.ensure_future(self._leave())
        await asyncio.shield(self._leaving)

    async def _leave(self) -> None:
        if self._end is None:
            self._outbox.flush()
            await self.data.flush(LAST_WORDS)
            self._is_leaving = True
            end = ChannelClosed("the channel is closed")
            self._fail_opening(end)
            self.data.finish(end)
        await super().close()

    # -- below ----------------------------------------------------------------------------------

    def _packet_size(self) -> int:
        return min(MAX_PACKET, super().max_datagram_size)

    def _send_packets(self, packets: list[bytes]) -> None:
        if self._dtls is None or self._end is not None:
            return
        fits = max(map(len, packets)) <= super().max_datagram_size
        self._too_large = 0 if fits else self._too_large + 1
        if self._too_large > NARROW_PACKETS:
            self._finish(ChannelClosed("the path became too narrow for what was on its way"))
        else:
            self._dtls.send_many(packets)

    def _takers(self) -> tuple[Callable[[list[bytes], int], None], Callable[[bytes], None]]:
        return lambda packets, _: self._on_packets(packets), lambda one: self._on_packets([one])

    def _on_packets(self, datagrams: list[bytes]) -> None:
        if self._begun:
            self.data.association.receive(datagrams)
        elif len(self._early) < EARLY_PACKETS:
            self._early += datagrams

    def _on_dtls_event(self, event: DtlsEvent) -> None:
        super()._on_dtls_event(event)
        if isinstance(event, HandshakeCompleted):
            self._begun = True
            self.data.association.begin(self._sctp.port, self._sctp.max_message_size)
            early, self._early = self._early, []
            self.data.association.receive(early)

    def _on_association(self) -> None:
        if not self._established.done():
            self._established.set_result(None)
        self._on_path()

    def _on_association_closed(self, reason: str) -> None:
        if self._is_leaving:
            return
        if self._established.done():
            self._finish(ChannelClosed(reason))
        else:
            self._finish(HandshakeFailed(f"data channels could not be set up: {reason}"))

    def _on_path(self) -> None:
        over = self._end is not None or not self._established.done() or not self._negotiated
        self._outbox.limit = -1 if over else self.max_datagram_size

    # -- datagrams ------------------------------------------------------------------------------

    def _encrypt(self, datagrams: Sequence[Buffer], sizes: Sequence[int]) -> int:
        for number, data in enumerate(datagrams):
            if not self.data.transmit_datagram(bytes(data)):
                return number
        return len(datagrams)

    def _encrypt_alike(self, datagrams: Sequence[Buffer], size: int, _: bytes | None) -> int:
        return self._encrypt(datagrams, ())

    def _sink_one(self, dtls: DtlsDriver) -> Callable[[Buffer], bool]:
        return lambda data: self.data.transmit_datagram(bytes(data))

    def _send_datagrams(self) -> bool:
        before = self._outbox.sent
        self._outbox.resume()
        return self._outbox.sent > before

    def _on_datagram(self, data: bytes) -> None:
        if len(data) > MAX_DATAGRAM:
            self.data.association.counters.malformed += 1
        else:
            self._deliver((data,), len(data))

    # -- the end --------------------------------------------------------------------------------

    def _raise_end(self) -> None:
        super()._raise_end()
        if not self._negotiated:
            raise InvalidConfiguration("this session has no datagrams, only channels it opens")

    def _fail_opening(self, error: IcePunchError) -> None:
        if not self._established.done():
            self._established.set_exception(error)
            self._established.exception()  # whoever waits gets it; nobody waiting is no fault

    def _finish(self, error: IcePunchError) -> None:
        if self._end is None:
            self._fail_opening(error)
        super()._finish(error)
        self.data.finish(error)

    async def _close_below(self) -> None:
        await super()._close_below()
        await self.data.stop()
