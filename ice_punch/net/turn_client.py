"""aioice's TURN client on sockets of ours. Imported when the first relay is opened: it is slow."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any, Protocol, cast

from aioice import stun, turn

from ice_punch.datagram import Address
from ice_punch.net import udp
from ice_punch.net.ice_server import IceServer
from ice_punch.stun import opaque_string

TransactionError = stun.TransactionError

LIFETIME = 600
"""Seconds asked for, RFC 8656 section 3.2; aioice renews after 5/6 of what is granted."""
CHANNEL_REFRESH = 200.0
"""Seconds. A ChannelBind also renews the permission, which ends after 300 s (RFC 8656 sections 9
and 12); aioice's own 500 s would let it lapse."""
MAX_WRITE_BUFFER = 256 * 1024
"""Bytes that may wait for a slow TCP connection before datagrams are dropped."""


class Receiver(Protocol):
    """Where a client delivers to."""

    def relayed(self, data: bytes, peer: Address) -> None: ...

    def lost(self, error: Exception | None) -> None: ...

    def malformed(self) -> None: ...


class _Indications(asyncio.DatagramProtocol):
    """Takes what aioice reads from Data indications (RFC 8656 section 11.4): datagrams of a peer
    that has a permission and no channel, as one behind a symmetric NAT has at first."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self._receiver.relayed(data, addr)


class _Client(turn.TurnClientMixin):
    """What UDP and TCP have in common: no bad message raises, no loss goes unnoticed."""

    def setup(self, receiver: Receiver) -> None:
        self._to = receiver
        self.receiver = _Indications(receiver)
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Gets an exception when the connection ends, for those who wait for an answer."""

    def datagram_received(self, data: bytes | str, addr: Address) -> None:
        message = cast(bytes, data)
        if len(message) >= 4 and message[0] & 0xC0 == 0x40:
            self._channel_data(message)
            return
        try:
            super().datagram_received(message, addr)
        except Exception:  # a parser's surprise must not end the reception of others
            self._to.malformed()

    def _channel_data(self, message: bytes) -> None:
        """RFC 8656 section 12.6."""
        peer = self.channel_to_peer.get(int.from_bytes(message[:2], "big"))
        end = 4 + int.from_bytes(message[2:4], "big")
        if peer is None or end > len(message):
            self._to.malformed()
        else:
            self._to.relayed(message[4:end], peer)

    def connection_lost(self, exc: Exception | None) -> None:
        self.fail(exc or ConnectionResetError("the connection was closed"))
        self._to.lost(exc)

    def fail(self, error: Exception) -> None:
        if not self.broken.done():
            self.broken.set_exception(error)
            self.broken.exception()  # nobody has to wait for it

    def send_channel_data(self, header: bytes, data: bytes) -> bool:
        """False when the connection can take no more."""
        raise NotImplementedError

    async def bind(self, channel: int, peer: Address) -> None:
        """Raises aioice's TransactionError or ConnectionError."""
        await self.channel_bind(channel, peer)
        self.channel_to_peer[channel] = peer
        self.peer_to_channel[peer] = channel  # Data indications need it


class UdpClient(_Client, turn.TurnClientUdpProtocol):
    transport: _DatagramTransport  # type: ignore[assignment]

    def send_channel_data(self, header: bytes, data: bytes) -> bool:
        return self.transport.socket.send(header + data, self.server)


class TcpClient(_Client, turn.TurnClientTcpProtocol):
    def send_channel_data(self, header: bytes, data: bytes) -> bool:
        if self.transport.get_write_buffer_size() > MAX_WRITE_BUFFER:
            return False
        self._send(header + data)
        return True


class _DatagramTransport(asyncio.BaseTransport):
    """A ``UdpSocket`` that hears one server only, in the shape that aioice wants."""

    def __init__(
        self, client: UdpClient, server: Address, local_ip: str, ports: tuple[int, int] | None
    ) -> None:
        super().__init__()
        self._client = client
        self._server = server
        self.socket = udp.UdpSocket.open(
            local_ip, self._on_datagram, on_error=self._on_error, port_range=ports
        )
        client.connection_made(self)

    def _on_datagram(self, data: bytes, source: Address, local: Address) -> None:
        if source == self._server:
            self._client.datagram_received(data, source)

    def _on_error(self, destination: Address | None, error: OSError) -> None:
        self._client.fail(error)

    def sendto(self, data: bytes, addr: Any = None) -> None:
        self.socket.send(data, self._server)

    def is_closing(self) -> bool:
        return self.socket.closed

    def close(self) -> None:
        if not self.socket.closed:
            self.socket.close()
            asyncio.get_running_loop().call_soon(self._client.connection_lost, None)

    abort = close

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


async def connect(
    server: IceServer,
    address: Address,
    receiver: Receiver,
    *,
    local_ip: str | None,
    port_range: tuple[int, int] | None,
    tls: ssl.SSLContext | None,
) -> UdpClient | TcpClient:
    """A client connected to ``address``, without an allocation yet.

    Raises OSError (``ssl.SSLError`` is one), PortRangeExhausted or InterfaceNotFound.
    """
    username = None if server.username is None else opaque_string(server.username)
    password = None if server.password is None else opaque_string(server.password)
    here = local_ip or ("::" if ":" in address[0] else "0.0.0.0")  # noqa: S104
    if server.transport == "udp":
        client = UdpClient(address, username, password, LIFETIME, int(CHANNEL_REFRESH))
        client.setup(receiver)
        _DatagramTransport(client, address, here, port_range)
        return client

    def make() -> TcpClient:
        client = TcpClient(address, username, password, LIFETIME, int(CHANNEL_REFRESH))
        client.setup(receiver)
        return client

    loop = asyncio.get_running_loop()
    sock = udp.bind(here, port_range, kind=socket.SOCK_STREAM)
    try:
        await loop.sock_connect(sock, address)
        _, stream = await loop.create_connection(
            make, sock=sock, ssl=tls, server_hostname=server.host if tls else None
        )
    except BaseException:
        sock.close()
        raise
    return stream


async def allocate(client: UdpClient | TcpClient) -> tuple[Address, Address | None]:
    """The relayed and the mapped address of a new allocation (RFC 8656 section 7).

    Raises TransactionError when the server refuses, OSError when the connection breaks first.
    """
    connecting = asyncio.ensure_future(client.connect())
    try:
        futures: set[asyncio.Future[Any]] = {connecting, client.broken}
        await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        if not connecting.done():
            await client.broken
        relayed = await connecting
    finally:
        connecting.cancel()
    return relayed, client.mapped_address


def refusal(error: stun.TransactionError) -> tuple[int, str] | None:
    """Code and reason of the server's error response; None when there was no response."""
    if error.response is None:
        return None
    code, reason = error.response.attributes.get("ERROR-CODE", (0, ""))
    readable = "".join(c for c in reason if c.isprintable())[:100]
    return code, readable
