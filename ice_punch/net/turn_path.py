"""The way between us and a TURN server: a UDP socket, of its own or a host candidate's, or a
connection over TCP or TLS."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable
from typing import Protocol, cast

from ice_punch.datagram import Address
from ice_punch.net import udp
from ice_punch.net.host_socket import HostSocket
from ice_punch.net.interfaces import source_towards
from ice_punch.turn import StreamFraming

WRITE_BUFFER = 64 * 1024
"""Bytes that may wait for a slow connection before data had better wait itself."""
MAX_WRITE_BUFFER = 256 * 1024
"""And before datagrams are dropped. What lies between is for checks and the server."""

MessageHandler = Callable[[bytes, Address], None]
"""A whole message, and where it came from."""
LossHandler = Callable[[str], None]
"""Why the server is out of reach."""


class TurnPath(Protocol):
    local: Address

    @property
    def congested(self) -> bool:
        """Whether data had better wait."""

    def set_writable_handler(self, handler: Callable[[], None] | None) -> None:
        """Have ``handler`` called when what was `congested` is so no more."""

    def send(self, message: bytes, server: Address) -> bool:
        """False: dropped."""

    def abort(self) -> None:
        """Close at once, without a word to anyone. May be called twice."""


class UdpPath:
    def __init__(
        self,
        server: Address,
        local_ip: str,
        port_range: tuple[int, int] | None,
        on_message: MessageHandler,
        on_loss: LossHandler,
    ) -> None:
        """Raises what ``UdpSocket.open`` does."""
        self._on_message = on_message
        self._on_loss = on_loss
        self._socket = udp.UdpSocket.open(
            local_ip, self._on_datagram, on_error=self._on_error, port_range=port_range
        )
        self.local = self._socket.local
        self.server = server

    @property
    def congested(self) -> bool:
        return self._socket.congested

    def set_writable_handler(self, handler: Callable[[], None] | None) -> None:
        self._socket.set_writable_handler(handler)

    def send(self, message: bytes, server: Address) -> bool:
        self.server = server
        return self._socket.send(message, server)

    def abort(self) -> None:
        self._socket.close()

    def _on_datagram(self, data: bytes, source: Address, local: Address) -> None:
        self._on_message(data, source)

    def _on_error(self, destination: Address | None, error: OSError) -> None:
        if destination in (None, self.server):
            self._on_loss(why(error))


class SharedPath:
    """The socket of a host candidate: what the server says of our address then holds for the
    candidate (RFC 8445 section 5.1.1.2)."""

    def __init__(
        self,
        server: Address,
        host: HostSocket,
        on_message: MessageHandler,
        on_loss: LossHandler,
    ) -> None:
        """``host`` must not have the server attached yet."""
        self.local = host.local
        self._host = host
        self._on_message = on_message
        self._on_loss = on_loss
        self._servers: list[Address] = []
        self._closed = False
        self._attach(server)

    @property
    def congested(self) -> bool:
        return self._host.socket.congested

    def set_writable_handler(self, handler: Callable[[], None] | None) -> None:
        self._host.socket.set_writable_handler(handler)

    def send(self, message: bytes, server: Address) -> bool:
        if self._closed:
            return False
        if server not in self._servers and not self._attach(server):
            why = "it sends us to a server that is asked already"
            asyncio.get_running_loop().call_soon(self._lost, why)
            return False
        return self._host.send(message, server)

    def abort(self) -> None:
        self._closed = True
        for server in self._servers:
            self._host.detach(server)
        self._servers.clear()

    def _attach(self, server: Address) -> bool:
        """Also where the server sends us on to (RFC 8489 section 10)."""
        taken = self._host.attach(server, self._on_message, lambda error: self._lost(why(error)))
        if taken:
            self._servers.append(server)
        return taken

    def _lost(self, reason: str) -> None:
        if not self._closed:
            self._on_loss(reason)


class StreamPath(asyncio.Protocol):
    """``connect`` makes one."""

    def __init__(self, server: Address, on_message: MessageHandler, on_loss: LossHandler) -> None:
        self.local: Address = ("", 0)
        self._server = server
        self._on_message = on_message
        self._on_loss = on_loss
        self._framing = StreamFraming()
        self._transport: asyncio.Transport | None = None
        self._on_writable: Callable[[], None] | None = None
        self._closed = False
        self.congested = True

    def set_writable_handler(self, handler: Callable[[], None] | None) -> None:
        self._on_writable = handler

    def send(self, message: bytes, server: Address) -> bool:
        transport = self._transport
        if transport is None or self._closed:
            return False
        if transport.get_write_buffer_size() > MAX_WRITE_BUFFER:
            return False
        transport.write(StreamFraming.frame(message))
        return True

    def abort(self) -> None:
        self._closed = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(WRITE_BUFFER)
        self.congested = False
        self.local = transport.get_extra_info("sockname")[:2]

    def pause_writing(self) -> None:
        self.congested = True

    def resume_writing(self) -> None:
        self.congested = False
        if self._on_writable is not None:
            self._on_writable()

    def data_received(self, data: bytes) -> None:
        for message in self._framing.receive_data(data):
            if self._closed:
                return
            self._on_message(message, self._server)
        if self._framing.broken and not self._closed:
            self.abort()
            self._on_loss("the server sends what is not TURN")

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closed:
            self._closed = True
            self._on_loss(why(exc) if isinstance(exc, OSError) else "the connection was closed")


async def connect(
    server: Address,
    *,
    transport: str,
    local_ip: str | None,
    port_range: tuple[int, int] | None,
    tls: ssl.SSLContext | None,
    server_name: str,
    on_message: MessageHandler,
    on_loss: LossHandler,
    host: HostSocket | None = None,
) -> TurnPath:
    """A way to ``server``. ``server_name`` is whose certificate it has to have over TLS. Over UDP
    the socket of ``host`` is used, unless another allocation of this server has it.

    Raises OSError (``ssl.SSLError`` is one), PortRangeExhausted or InterfaceNotFound.
    """
    if transport == "udp" and host is not None and not host.asks(server):
        return SharedPath(server, host, on_message, on_loss)
    # A socket of one address, so that we know when it is gone.
    anywhere = "::" if ":" in server[0] else "0.0.0.0"  # noqa: S104
    here = local_ip or source_towards(server) or anywhere
    if transport == "udp":
        return UdpPath(server, here, port_range, on_message, on_loss)
    loop = asyncio.get_running_loop()
    sock = udp.bind(here, port_range, kind=socket.SOCK_STREAM)
    try:
        await loop.sock_connect(sock, server)
        _, path = await loop.create_connection(
            lambda: StreamPath(server, on_message, on_loss),
            sock=sock,
            ssl=tls,
            server_hostname=server_name if tls else None,
        )
    except BaseException:
        sock.close()
        raise
    return path


def why(error: OSError) -> str:
    """An error's sentence without its number."""
    number = error.errno or 0
    return os.strerror(number) if number > 0 else str(error.strerror or error)
