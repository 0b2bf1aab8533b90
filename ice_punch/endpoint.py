"""A channel as asyncio's datagram transport, for libraries that are written for one."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from typing import Any, Protocol

from ice_punch.datagram import Address, Buffer
from ice_punch.errors import ChannelClosed, DatagramTooLarge, IcePunchError


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
    ) -> None:
        super().__init__({"peername": remote, "sockname": local, "channel": channel})
        self._channel = channel
        self._protocol = protocol
        self._remote = remote
        self._loop = asyncio.get_running_loop()
        self._lost = False
        self._closing: asyncio.Task[None] | None = None

    def sendto(self, data: Buffer, addr: Any = None) -> None:
        """Send one datagram. Raises what asyncio's own transport does: TypeError for what is no
        bytes, ValueError for another address than the peer's. What can not be sent is told to the
        protocol's ``error_received``; past the end it is dropped."""
        if type(data) is not bytes and not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data is bytes-like, not {type(data).__name__}")
        if addr is not None and tuple(addr[:2]) != self._remote:
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
        if self._lost:
            return
        try:
            self._protocol.datagram_received(data, self._remote)
        except Exception as error:
            self._loop.call_exception_handler(
                {
                    "message": "a protocol failed to take a datagram",
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
