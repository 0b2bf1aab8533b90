"""One data channel: messages, or datagrams where it is unreliable (RFC 8831 section 6.4)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiortc import RTCDataChannel

from ice_punch.errors import ChannelClosed, IcePunchError, MessageTooLarge
from ice_punch.webrtc.association import MESSAGE_COST, Message

if TYPE_CHECKING:
    from ice_punch.webrtc.association import Association

SEND_BUFFER = 256 * 1024
"""Bytes that wait to be sent before ``send`` waits; an unreliable channel drops the oldest."""
UNREAD = 1024 * 1024
"""Bytes held for a reader that is late, or has not come yet."""
CLOSED = "the data channel is closed"
CLOSED_BY_PEER = "the peer closed the data channel"


@dataclass(slots=True)
class DataChannelStats:
    """Messages and bytes since the channel was opened."""

    messages_sent: int = 0
    messages_received: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    dropped_oldest: int = 0
    """Received, and dropped because nobody read in time."""
    dropped_queue_full: int = 0
    """To be sent on an unreliable channel, and overtaken by newer ones."""


class DataChannel:
    """Text (str) and binary (bytes) messages, both ways. Iterate over it to receive.

    A reliable channel loses nothing: ``send`` waits while the peer can not follow, and the peer is
    made to wait while nobody reads here. Only before the first ``recv`` is the oldest dropped for
    the newest, past 1 MiB. An unreliable channel, with a bound to retransmissions or lifetime,
    carries datagrams: the newest wins on both ends, and ``send`` waits for no peer; `drain` does.
    """

    def __init__(self, association: Association, channel: RTCDataChannel) -> None:
        self.stats = DataChannelStats()
        self._association = association
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._incoming: deque[tuple[Message, int]] = deque()
        self._unread = 0
        self._outgoing: deque[tuple[Message, float | None]] = deque()
        self._buffered = 0
        self._end: IcePunchError | None = None
        self._charged = False
        """Whether what is unread counts against the window."""
        self._has_reader = self._is_gone = False
        self._waiting: list[asyncio.Future[None]] = []
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._gone = asyncio.Event()
        channel.on("open", self._on_open)
        channel.on("close", self._on_close)
        if channel.readyState == "open":
            self._on_open()

    # -- what it is -----------------------------------------------------------------------------

    @property
    def label(self) -> str:
        """Any text: who opened the channel chose it."""
        return self._channel.label

    @property
    def protocol(self) -> str:
        """The subprotocol, as whoever opened the channel calls it."""
        return self._channel.protocol

    @property
    def id(self) -> int | None:
        """The SCTP stream; None before the channel has one."""
        return self._channel.id

    @property
    def ordered(self) -> bool:
        return self._channel.ordered

    @property
    def reliable(self) -> bool:
        """Whether every message arrives; otherwise it carries datagrams."""
        return self._channel.maxRetransmits is None and self._channel.maxPacketLifeTime is None

    @property
    def closed(self) -> bool:
        return self._end is not None

    @property
    def buffered(self) -> int:
        """Bytes that wait to be sent, with a few more for each message."""
        return self._buffered

    @property
    def max_message_size(self) -> int:
        """Bytes of the largest message the peer takes; 0 is without limit."""
        return self._association.max_message_size

    # -- out ------------------------------------------------------------------------------------

    async def send(self, message: Message | bytearray | memoryview) -> None:
        """Send text or bytes, once there is room.

        Raises MessageTooLarge; ChannelClosed, or the error that ended the session.
        """
        message = self._checked(message)
        while self.reliable and self._buffered >= SEND_BUFFER:
            await self._change()
        if not self.reliable and self._buffered + _cost(message) > SEND_BUFFER:
            await asyncio.sleep(0)  # what waits may leave before the oldest of it is dropped
            self.raise_end()
        self._put(message)

    def try_send(self, message: Message | bytearray | memoryview) -> bool:
        """``send`` if there is room now, and whether there was. Raises the same."""
        message = self._checked(message)
        if self.reliable and self._buffered >= SEND_BUFFER:
            return False
        self._put(message)
        return True

    async def drain(self, most: int = 0) -> None:
        """Wait until no more than ``most`` bytes wait to be sent: whoever has more to send on an
        unreliable channel than it carries, and wants nothing of it dropped here, waits for that.
        Raises as ``send``."""
        while self._outgoing and self._buffered > most:
            await self._change()
        self.raise_end()

    def _checked(self, message: Message | bytearray | memoryview) -> Message:
        self.raise_end()
        if not isinstance(message, str | bytes):
            message = bytes(message)
        size, limit = _size(message), self.max_message_size
        if limit and size > limit:
            raise MessageTooLarge(size, limit)
        return message

    def _put(self, message: Message) -> None:
        life = self._channel.maxPacketLifeTime
        expiry = None if life is None else self._loop.time() + life / 1000
        self._outgoing.append((message, expiry))
        self._buffered += _cost(message)
        while self._buffered > SEND_BUFFER and len(self._outgoing) > 1 and not self.reliable:
            self._buffered -= _cost(self._outgoing.popleft()[0])
            self.stats.dropped_queue_full += 1
        self._association.pump()

    def give_next(self) -> bool:
        """Hand the oldest message that waits to the association, if there is one."""
        if self._channel.readyState != "open":
            return False
        now = self._loop.time()
        while self._outgoing:
            message, expiry = self._outgoing.popleft()
            self._buffered -= _cost(message)
            if expiry is not None and expiry < now:
                self.stats.dropped_queue_full += 1
                continue
            self.stats.messages_sent += 1
            self.stats.bytes_sent += _size(message)
            left = None if expiry is None else expiry - now
            self._association.transmit(self._channel, message, life=left)
            if self._waiting and self._buffered <= SEND_BUFFER // 2:
                self._wake()
            self._close_if_done()
            return True
        return False

    # -- in -------------------------------------------------------------------------------------

    async def recv(self) -> Message:
        """The next message. Raises ChannelClosed once the channel is closed, by whichever side, or
        the error that ended the session; each only after everything received before is read."""
        if not self._has_reader:
            self._has_reader = True
            if self.reliable and not self._is_gone:
                # From now on nothing is lost: what waits counts against the window.
                self._charged = True
                self._association.hold(self._unread)
        while not self._incoming:
            self.raise_end()
            await self._change()
        message, cost = self._incoming.popleft()
        self._unread -= cost
        if self._charged:
            self._association.release(cost)
        return message

    async def __aiter__(self) -> AsyncIterator[Message]:
        """Messages until the channel is closed. Raises ConsentLost when the peer vanished."""
        while True:
            try:
                yield await self.recv()
            except ChannelClosed:
                return

    def take(self, message: Message, cost: int) -> None:
        """The peer has sent a message."""
        self.stats.messages_received += 1
        self.stats.bytes_received += cost - MESSAGE_COST
        self._incoming.append((message, cost))
        self._unread += cost
        if self._charged:
            self._association.hold(cost)
        else:
            while self._unread > UNREAD and len(self._incoming) > 1:
                self._unread -= self._incoming.popleft()[1]
                self.stats.dropped_oldest += 1
        if self._waiting:
            self._wake()

    # -- the end --------------------------------------------------------------------------------

    async def opened(self) -> None:
        """Wait until the peer knows of the channel. Raises what ended it before."""
        await asyncio.shield(self._opened)

    def close(self) -> None:
        """Close, once what waits has been sent. May be called again."""
        if self._end is None:
            self._end = ChannelClosed(CLOSED)
            self._settle()
            self._close_if_done()

    async def wait_closed(self) -> None:
        """Wait until both sides have closed, or the session is over."""
        await self._gone.wait()

    def finish(self, error: IcePunchError) -> None:
        """The session is over, or the peer closes the channel. The first end counts."""
        if self._end is None:
            self._end = error
        self._outgoing.clear()
        self._buffered = 0
        self._settle()

    def peer_closing(self) -> None:
        """The peer has begun to close the channel."""
        self.finish(ChannelClosed(CLOSED_BY_PEER))

    @property
    def gone(self) -> bool:
        """Whether both sides have closed it: its stream may be another channel's."""
        return self._is_gone

    def raise_end(self) -> None:
        if self._end is not None:
            # The same object may be raised any number of times: it must not collect the tracebacks.
            raise self._end.with_traceback(None)

    def _close_if_done(self) -> None:
        if self._end is not None and not self._outgoing and self._channel.readyState == "open":
            self._channel.close()

    def _settle(self) -> None:
        if not self._opened.done():
            assert self._end is not None
            self._opened.set_exception(self._end)
            self._opened.exception()  # whoever waits gets it; nobody waiting is no fault
        self._wake()

    def _on_open(self) -> None:
        if not self._opened.done():
            self._opened.set_result(None)
        self._close_if_done()

    def _on_close(self) -> None:
        self.finish(ChannelClosed(CLOSED_BY_PEER))
        self._is_gone = True
        if self._charged:  # nothing more comes that could be too much
            self._charged = False
            self._association.release(self._unread)
        self._gone.set()

    async def _change(self) -> None:
        """Wait for a message, room, or the end."""
        waiting = self._loop.create_future()
        self._waiting.append(waiting)
        try:
            await waiting
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)


def _size(message: Message) -> int:
    if isinstance(message, bytes) or message.isascii():
        return len(message)
    return len(message.encode())


def _cost(message: Message) -> int:
    return _size(message) + MESSAGE_COST
