"""All data channels of a session: who opens them, who serves them, whose turn it is to send."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from aiortc import RTCDataChannel, RTCDataChannelParameters

from ice_punch.dtls import DtlsRole
from ice_punch.errors import IcePunchError, InvalidConfiguration
from ice_punch.webrtc.association import MAX_CHANNELS, MAX_NAME, Association, Message
from ice_punch.webrtc.carrier import SctpCarrier
from ice_punch.webrtc.data_channel import DataChannel

Handler = Callable[[DataChannel], Awaitable[None]]

DECIDES_WITHIN = 1.0
"""Seconds in which an application says which channels of the peer it serves."""


class DataChannels:
    """The channels above one association.

    ``on_open`` and ``on_closed``, with a reason, tell of the association. ``send_datagrams`` is
    called when there is room for datagrams of whoever has `set_datagrams`; it returns whether it
    has sent any.
    """

    def __init__(
        self,
        role: DtlsRole,
        send_packets: Callable[[list[bytes]], None],
        *,
        packet_size: Callable[[], int],
        on_open: Callable[[], None],
        on_closed: Callable[[str], None],
        send_datagrams: Callable[[], bool],
    ) -> None:
        carrier = SctpCarrier(role, send_packets)
        self.association = Association(carrier, self, packet_size=packet_size)
        self._on_open, self._on_closed = on_open, on_closed
        self._send_datagrams = send_datagrams
        self._on_datagram: Callable[[bytes], None] | None = None
        self._datagrams: RTCDataChannel | None = None
        self._loop = asyncio.get_running_loop()
        self._channels: dict[int, DataChannel] = {}
        self._unnumbered: list[DataChannel] = []
        """Opened by this side, and not yet given a stream."""
        self._turns: deque[DataChannel] = deque()
        self._datagrams_gone = False
        """Whether it was datagrams that had the last turn."""
        self._handlers: dict[str, Handler] = {}
        self._fallbacks: dict[str, Handler] = {}
        self._undecided: list[DataChannel] = []
        """Opened before the application has had the time to say that it serves them."""
        self._decided_at = float("inf")
        self._accepted: deque[DataChannel] = deque()
        self._accepting = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._end: IcePunchError | None = None

    # -- channels -------------------------------------------------------------------------------

    def set_datagrams(
        self, label: str, stream_id: int, on_datagram: Callable[[bytes], None]
    ) -> None:
        """Agree on a channel for datagrams beforehand (RFC 8832 section 4)."""
        self._on_datagram = on_datagram
        self._datagrams = RTCDataChannel(
            self.association,
            RTCDataChannelParameters(
                label=label, ordered=False, maxRetransmits=0, negotiated=True, id=stream_id
            ),
        )
        self._datagrams.on("close", lambda: self.association.end("the peer closed the channel"))

    def transmit_datagram(self, data: bytes) -> bool:
        """Send a datagram if it need not wait, and whether it did not."""
        if self._datagrams is None or self.association.is_clogged:
            return False
        self.association.transmit(self._datagrams, data)
        return True

    def negotiated(self, label: str, stream_id: int) -> DataChannel:
        """A reliable channel that both sides agreed on beforehand (RFC 8832 section 4)."""
        parameters = RTCDataChannelParameters(label=label, negotiated=True, id=stream_id)
        return self._add(RTCDataChannel(self.association, parameters))

    async def open_channel(
        self,
        label: str,
        protocol: str = "",
        *,
        ordered: bool = True,
        max_retransmits: int | None = None,
        max_packet_life_time: int | None = None,
    ) -> DataChannel:
        """Open a channel; the peer is told of it (RFC 8832).

        Raises InvalidConfiguration for contradictory arguments and beyond 64 channels;
        ChannelClosed if the peer will not have it, or the error that ended the session.
        """
        self._raise_end()
        self._forget_closed()
        if max_retransmits is not None and max_packet_life_time is not None:
            raise InvalidConfiguration("retransmissions are bounded by number or by time, not both")
        for bound, most in ((max_retransmits, 2**32 - 1), (max_packet_life_time, 2**32 - 1)):
            if bound is not None and not 0 <= bound <= most:
                raise InvalidConfiguration(f"{bound} bounds no retransmissions")
        if len(label.encode()) + len(protocol.encode()) > MAX_NAME:
            raise InvalidConfiguration(f"label and protocol have at most {MAX_NAME} bytes together")
        if len(self._channels) + len(self._unnumbered) >= MAX_CHANNELS:
            raise InvalidConfiguration(f"there are {MAX_CHANNELS} data channels already")
        channel = DataChannel(
            self.association,
            RTCDataChannel(
                self.association,
                RTCDataChannelParameters(
                    label=label,
                    protocol=protocol,
                    ordered=ordered,
                    maxRetransmits=max_retransmits,
                    maxPacketLifeTime=max_packet_life_time,
                ),
            ),
        )
        self._unnumbered.append(channel)
        self.association.pump()
        try:
            await channel.opened()
        except BaseException:
            channel.close()
            raise
        finally:
            self._number_opened()
            if channel in self._unnumbered:
                self._unnumbered.remove(channel)
        return channel

    def serve(self, protocol: str, handler: Handler) -> None:
        """Have ``handler`` run with every channel of this protocol that the peer opens; the channel
        is closed when it returns."""
        self._handlers[protocol] = handler
        for waiting in (self._undecided, self._accepted):
            for channel in [c for c in waiting if c.protocol == protocol]:
                waiting.remove(channel)
                self._spawn(self._serve(handler, channel))

    def fall_back(self, protocol: str, handler: Handler) -> None:
        """Have ``handler`` run with channels of this protocol that nobody serves within a second of
        the session."""
        self._fallbacks[protocol] = handler

    async def accept_channel(self) -> DataChannel:
        """The next channel that the peer opened, and that no handler has. Raises ChannelClosed, or
        the error that ended the session."""
        while not self._accepted:
            self._raise_end()
            self._accepting.clear()
            await self._accepting.wait()
        return self._accepted.popleft()

    def _add(self, channel: RTCDataChannel) -> DataChannel:
        added = DataChannel(self.association, channel)
        self._number(added)
        return added

    def _number(self, channel: DataChannel) -> None:
        assert channel.id is not None
        self._channels[channel.id] = channel
        self._turns.append(channel)

    def _number_opened(self) -> None:
        numbered = [channel for channel in self._unnumbered if channel.id is not None]
        for channel in numbered:
            self._unnumbered.remove(channel)
            self._number(channel)

    def _forget_closed(self) -> None:
        for stream_id, channel in list(self._channels.items()):
            if channel.gone:
                del self._channels[stream_id]
                self._turns.remove(channel)

    # -- what the association tells -------------------------------------------------------------

    def association_open(self) -> None:
        self._decided_at = self._loop.time() + DECIDES_WITHIN
        if self._undecided:  # what came with the peer's first packet
            self._loop.call_at(self._decided_at, self._serve_undecided)
        self._on_open()

    def association_closed(self, reason: str) -> None:
        self._on_closed(reason)

    def channel_opened(self, channel: RTCDataChannel) -> bool:
        self._forget_closed()
        self._number_opened()
        handler = self._handlers.get(channel.protocol)
        if handler is None and len(self._accepted) >= MAX_CHANNELS:
            return False
        added = self._add(channel)
        if handler is not None:
            self._spawn(self._serve(handler, added))
        elif channel.protocol in self._fallbacks:
            self._undecided.append(added)
            if self.association.is_open:
                self._loop.call_at(self._decided_at, self._serve_undecided)
        else:
            self._accepted.append(added)
            self._accepting.set()
        return True

    def _serve_undecided(self) -> None:
        undecided, self._undecided = self._undecided, []
        for channel in undecided:
            self._spawn(self._serve(self._fallbacks[channel.protocol], channel))

    def channel_closing(self, stream_id: int) -> None:
        self._number_opened()
        channel = self._channels.get(stream_id)
        if channel is not None:
            channel.peer_closing()

    def message_received(self, stream_id: int, message: Message, cost: int) -> None:
        if self._datagrams is not None and stream_id == self._datagrams.id:
            assert self._on_datagram is not None
            self._on_datagram(message.encode() if isinstance(message, str) else message)
            return
        channel = self._channels.get(stream_id)
        if channel is None:
            self._number_opened()
            channel = self._channels.get(stream_id)
        if channel is not None:
            channel.take(message, cost)

    def give_next(self) -> bool:
        """Datagrams and channels by turns, and the channels in turn among themselves."""
        if not self._datagrams_gone and self._send_datagrams():
            self._datagrams_gone = True
            return True
        self._datagrams_gone = False
        if self._unnumbered:
            self._number_opened()
        for channel in self._turns:
            if channel.give_next():
                self._turns.remove(channel)
                self._turns.append(channel)
                return True
        return self._send_datagrams()

    # -- the end --------------------------------------------------------------------------------

    async def flush(self, timeout: float) -> None:
        """Wait until the peer has acknowledged everything, ``timeout`` seconds at most."""
        until = self._loop.time() + timeout
        # aiortc tells nobody when the last chunk is acknowledged.
        while self.association.is_open and self._loop.time() < until and not self._is_idle:  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    @property
    def _is_idle(self) -> bool:
        waiting = (*self._channels.values(), *self._unnumbered)
        return self.association.is_idle and not any(channel.buffered for channel in waiting)

    def finish(self, error: IcePunchError) -> None:
        """The session is over."""
        if self._end is not None:
            return
        self._end = error
        for channel in (*self._channels.values(), *self._unnumbered):
            channel.finish(error)
        self.association.end(str(error))
        self._accepting.set()

    async def stop(self) -> None:
        """Let what serves channels come to its end, within a second."""
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=0.5)
            for task in late:
                task.cancel()

    def _raise_end(self) -> None:
        if self._end is not None:
            raise self._end.with_traceback(None)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, handler: Handler, channel: DataChannel) -> None:
        try:
            await handler(channel)
        except IcePunchError:
            return
        except Exception as error:
            self._loop.call_exception_handler(
                {"message": "what serves a data channel failed", "exception": error}
            )
        finally:
            channel.close()
