"""A channel as asyncio's datagram transport, for libraries that are written for one."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from typing import Any, Protocol

from ice_punch.datagram import Address, Buffer
from ice_punch.errors import ChannelClosed, DatagramTooLarge, IcePunchError
from ice_punch.outbox import Outbox


class DatagramChannel(Protocol):
    """What a transport needs of a channel."""

    def send_nowait(self, data: Buffer) -> None: ...

    async def close(self) -> None: ...


class ChannelTransport(asyncio.DatagramTransport):
    """``Channel.create_datagram_endpoint`` makes one.

    It behaves like the transport of a connected socket. The peer's address stays what it was at
    the beginning when the path changes below.
    """

    def __init__(
        self,
        channel: DatagramChannel,
        protocol: asyncio.DatagramProtocol,
        local: Address,
        remote: Address,
        outbox: Outbox,
    ) -> None:
        super().__init__({"peername": remote, "sockname": local, "channel": channel})
        self._channel = channel
        self._protocol = protocol
        self._remote = remote
        self._outbox = outbox
        self._paused: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._lost = False
        self._closing: asyncio.Task[None] | None = None

    def sendto(self, data: Buffer, addr: Any = None) -> None:
        """Send one datagram. Raises what asyncio's own transport does: TypeError for what is no
        bytes, ValueError for another address than the peer's. What can not be sent is told to the
        protocol's ``error_received``; past the end it is dropped. Where half of the queue is full
        the protocol is told by ``pause_writing``, and by ``resume_writing`` once it is not."""
        if type(data) is not bytes and not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data is bytes-like, not {type(data).__name__}")
        if addr is not None and addr != self._remote and not self._is_peer(addr):
            raise ValueError(f"the address is None or {self._remote}, not {addr}")
        if self._lost or self._closing is not None:
            return
        try:
            self._channel.send_nowait(data)
        except DatagramTooLarge as error:
            self._loop.call_soon(self._protocol.error_received, OSError(errno.EMSGSIZE, str(error)))
        except ChannelClosed:
            return
        except IcePunchError as error:
            self._loop.call_soon(self._protocol.error_received, error)
        else:
            if self._paused is None and self._outbox.congested:
                self._pause()

    def _is_peer(self, addr: object) -> bool:
        """Whether an address is the peer's, perhaps as IPv6 sockets have it."""
        return isinstance(addr, tuple | list) and tuple(addr[:2]) == self._remote

    def _pause(self) -> None:
        self._paused = self._loop.create_task(self._resume())
        try:
            self._protocol.pause_writing()
        except Exception as error:
            self._tell("a protocol failed to pause", error)

    async def _resume(self) -> None:
        await self._outbox.room(0)
        self._paused = None
        if not self._lost:
            self._protocol.resume_writing()

    def get_write_buffer_size(self) -> int:
        """Bytes that were sent and have yet to leave."""
        return self._outbox.queued_bytes

    def close(self) -> None:
        """Close the channel; what was sent before leaves."""
        if self._closing is None:
            self._closing = self._loop.create_task(self._channel.close())

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self._lost or self._closing is not None

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.DatagramProtocol)
        self._protocol = protocol

    def deliver(self, data: bytes) -> None:
        """A datagram came. What the protocol raises is told to the event loop's handler: the
        datagrams after it are delivered all the same."""
        if self._lost or self._closing is not None:
            return
        try:
            self._protocol.datagram_received(data, self._remote)
        except Exception as error:
            self._tell("a protocol failed to take a datagram", error)

    def _tell(self, what: str, error: Exception) -> None:
        self._loop.call_exception_handler(
            {
                "message": what,
                "exception": error,
                "transport": self,
                "protocol": self._protocol,
            }
        )

    def lose(self, why: IcePunchError | None) -> None:
        """The channel has ended."""
        if not self._lost:
            self._lost = True
            orderly = why is None or isinstance(why, ChannelClosed)
            self._loop.call_soon(self._protocol.connection_lost, None if orderly else why)


ProtocolFactory = Callable[[], asyncio.DatagramProtocol]
