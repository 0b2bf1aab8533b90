"""The UDP, TCP and TLS front end of a TURN server, RFC 8656, and its relayed sockets."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import random
import ssl
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from ice_punch.datagram import Address
from ice_punch.errors import InvalidConfiguration, PortRangeExhausted
from ice_punch.net import udp
from ice_punch.net.stun_server import RateLimit
from ice_punch.stun import IcmpError
from ice_punch.turn import (
    PasswordSource,
    PeerFilter,
    StreamFraming,
    TurnLimits,
    TurnServer,
    TurnServerCounters,
    default_peer_filter,
)

DEFAULT_PORT = 3478
MAX_CONNECTIONS = 1024
"""Over TCP and TLS together."""
STRANGER_TIMEOUT = 60.0
"""Seconds that a connection is kept without an allocation."""
MAX_WRITE_BUFFER = 256 * 1024
"""Bytes that may wait for a slow connection before what is for it is dropped."""

_WILDCARDS = ("0.0.0.0", "::")  # noqa: S104
_PORT_UNREACHABLE = {False: IcmpError(3, 3), True: IcmpError(1, 4)}
"""For IPv4 and IPv6, RFC 8656 section 11.5; the only ICMP error that a socket tells for sure."""

MAX_TRIES = 16
"""Free ports that are tried."""


class TurnServerShell:
    """A running TURN server; it answers Binding requests as well."""

    def __init__(
        self,
        users: Mapping[str, str],
        relay_ips: Iterable[str],
        *,
        realm: str,
        password_source: PasswordSource | None,
        limits: TurnLimits | None,
        peer_filter: PeerFilter,
        rate: RateLimit,
        software: str | None,
    ) -> None:
        """``TurnServerShell.start`` makes one."""
        self.limited = 0
        """Messages of clients without an allocation that the rate limit dropped."""
        self._loop = asyncio.get_running_loop()
        self._sockets: dict[Address, udp.UdpSocket] = {}
        """Listening ones."""
        self._relayed = _RelayedSockets(self)
        self.server = TurnServer(
            relay_ips,
            users,
            random.SystemRandom(),
            realm=realm,
            password_source=password_source,
            limits=limits,
            peer_filter=peer_filter,
            software=software,
            sockets=self._relayed,
        )
        self._rate = rate
        self._listeners: list[asyncio.Server] = []
        self._connections: dict[tuple[Address, Address], _Connection] = {}
        """By our address and the client's."""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self._closed = False
        self.udp_addresses: list[Address] = []
        self.tcp_addresses: list[Address] = []
        self.tls_addresses: list[Address] = []

    @classmethod
    async def start(
        cls,
        hosts: str | Sequence[str],
        port: int = DEFAULT_PORT,
        *,
        users: Mapping[str, str],
        realm: str = "ice-punch",
        relay_ips: Sequence[str] = (),
        more_udp_ports: Sequence[int] = (),
        tcp_ports: Sequence[int] | None = None,
        tls_ports: Sequence[int] = (),
        ssl_context: ssl.SSLContext | None = None,
        password_source: PasswordSource | None = None,
        limits: TurnLimits | None = None,
        peer_filter: PeerFilter = default_peer_filter,
        rate: RateLimit | None = None,
        software: str | None = "ice-punch",
    ) -> TurnServerShell:
        """Listen at definite IP addresses of this host: over UDP and TCP at ``port``, or over TCP
        at ``tcp_ports``; over TLS at ``tls_ports``. Port 0 is a free one, over TCP the same as over
        UDP. Relayed addresses are at ``relay_ips``, which are ``hosts`` if none are given.

        Raises PortRangeExhausted for a port that is taken, InterfaceNotFound for an address that
        is not of this host, InvalidConfiguration for the rest.
        """
        ips = [hosts] if isinstance(hosts, str) else list(hosts)
        if not ips or any(ip in _WILDCARDS for ip in [*ips, *relay_ips]):
            raise InvalidConfiguration("a TURN server needs definite IP addresses")
        if tls_ports and ssl_context is None:
            raise InvalidConfiguration("TLS needs a certificate")
        for ip in relay_ips:
            udp.bind(ip).close()
        try:
            shell = cls(
                users,
                relay_ips or ips,
                realm=realm,
                password_source=password_source,
                limits=limits,
                peer_filter=peer_filter,
                rate=RateLimit() if rate is None else rate,
                software=software,
            )
        except ValueError as error:
            raise InvalidConfiguration(str(error)) from None
        try:
            for ip in ips:
                if tcp_ports is None:
                    await shell._listen_both(ip, port)
                else:
                    shell._listen_udp(ip, port)
                for more in more_udp_ports:
                    shell._listen_udp(ip, more)
                for tcp_port in tcp_ports or ():
                    shell.tcp_addresses.append(await shell._listen(ip, tcp_port))
                for tls_port in tls_ports:
                    shell.tls_addresses.append(await shell._listen(ip, tls_port, ssl_context))
        except BaseException:
            await shell.close()
            raise
        return shell

    @property
    def counters(self) -> TurnServerCounters:
        return self.server.counters

    async def close(self) -> None:
        """Stop at once; clients find out by themselves. May be called twice."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for listener in self._listeners:
            listener.close()
        for connection in list(self._connections.values()):
            connection.abort()
        for sock in self._sockets.values():
            sock.close()
        self._relayed.close_all()
        for listener in self._listeners:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await listener.wait_closed()
        self._listeners.clear()

    async def __aenter__(self) -> TurnServerShell:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # -- listening ----------------------------------------------------------------------------

    def _listen_udp(self, ip: str, port: int) -> int:
        sock = udp.UdpSocket.open(ip, self._on_client_datagram, port=port, loop=self._loop)
        self._sockets[sock.local] = sock
        self.udp_addresses.append(sock.local)
        return sock.local[1]

    async def _listen_both(self, ip: str, port: int) -> None:
        """Over UDP and TCP at one port; a free one of UDP may be taken over TCP."""
        for tries in range(MAX_TRIES, 0, -1):
            taken = self._listen_udp(ip, port)
            try:
                self.tcp_addresses.append(await self._listen(ip, taken))
                return
            except PortRangeExhausted:
                if port or tries == 1:
                    raise
            self._sockets.pop(self.udp_addresses.pop()).close()

    async def _listen(self, ip: str, port: int, context: ssl.SSLContext | None = None) -> Address:
        transport = "tcp" if context is None else "tls"
        try:
            listener = await self._loop.create_server(
                lambda: _Connection(self, transport), ip, port, ssl=context
            )
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortRangeExhausted(f"TCP port {port} of {ip} is taken") from None
            raise
        self._listeners.append(listener)
        host, bound, *_ = listener.sockets[0].getsockname()
        return host, bound

    # -- what comes in ------------------------------------------------------------------------

    def _on_client_datagram(self, data: bytes, source: Address, local: Address) -> None:
        if self.admits(source, local, "udp"):
            self.server.receive_datagram(data, source, local, self._loop.time())
            self.pump()

    def admits(self, source: Address, local: Address, transport: str) -> bool:
        """Whether a client is answered: one with an allocation always, strangers at a limited
        rate."""
        now = self._loop.time()
        known = self.server.knows(source, local, now, transport=transport)
        admitted = known or self._rate.admits(source[0], now)
        self.limited += not admitted
        return admitted

    def on_peer_datagram(self, data: bytes, source: Address, local: Address) -> None:
        self.server.receive_datagram(data, source, local, self._loop.time())
        self.pump()

    def on_peer_error(self, relayed: Address, peer: Address | None, error: OSError) -> None:
        """RFC 8656 section 11.5."""
        if peer is not None and error.errno == errno.ECONNREFUSED:
            icmp = _PORT_UNREACHABLE[":" in peer[0]]
            self.server.receive_icmp_error(relayed, peer, icmp, self._loop.time())
            self.pump()

    # -- what goes out ------------------------------------------------------------------------

    def pump(self) -> None:
        """Carry out what the server wants; to be called after everything that it was told."""
        now = self._loop.time()
        for data, local, destination in self.server.datagrams_to_send(now):
            sock = self._sockets.get(local) or self._relayed.get(local)
            if sock is not None:
                sock.send(data, destination)
        for data, local, destination in self.server.streams_to_send(now):
            connection = self._connections.get((local, destination))
            if connection is not None:
                connection.send(data)
        while self.server.next_event() is not None:
            pass
        due = None if self._closed else self.server.get_timer()
        if due != self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = None if due is None else self._loop.call_at(due, self._on_timer)
            self._timer_at = due

    def _on_timer(self) -> None:
        self._timer = self._timer_at = None
        self.server.handle_timer(self._loop.time())
        self.pump()

    # -- connections --------------------------------------------------------------------------

    def add(self, connection: _Connection) -> bool:
        """A client connected; False if there are too many."""
        if self._closed or len(self._connections) >= MAX_CONNECTIONS:
            return False
        self._connections[connection.local, connection.client] = connection
        return True

    def remove(self, connection: _Connection) -> None:
        key = (connection.local, connection.client)
        if self._connections.get(key) is connection:
            del self._connections[key]
            self.server.client_gone(
                connection.client,
                connection.local,
                self._loop.time(),
                transport=connection.transport_name,
            )
            self.pump()


class _RelayedSockets:
    """The sockets behind relayed addresses: ``RelaySockets`` of the server."""

    def __init__(self, shell: TurnServerShell) -> None:
        self._shell = shell
        self._sockets: dict[Address, udp.UdpSocket] = {}
        self.get = self._sockets.get

    def open(self, address: Address) -> bool:
        shell = self._shell
        try:
            self._sockets[address] = udp.UdpSocket.open(
                address[0],
                shell.on_peer_datagram,
                on_error=lambda peer, error: shell.on_peer_error(address, peer, error),
                port=address[1],
            )
        except (OSError, InvalidConfiguration):  # taken, or the address went away
            return False
        return True

    def close(self, address: Address) -> None:
        sock = self._sockets.pop(address, None)
        if sock is not None:
            sock.close()

    def close_all(self) -> None:
        for address in list(self._sockets):
            self.close(address)


class _Connection(asyncio.Protocol):
    """One client over TCP or TLS."""

    def __init__(self, shell: TurnServerShell, transport_name: str) -> None:
        self.transport_name = transport_name
        self.client: Address = ("", 0)
        self.local: Address = ("", 0)
        self._shell = shell
        self._framing = StreamFraming()
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.client = transport.get_extra_info("peername")[:2]
        self.local = transport.get_extra_info("sockname")[:2]
        if not self._shell.add(self):
            self.abort()
            return
        self._watch()

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(STRANGER_TIMEOUT, self._close_stranger)

    def _close_stranger(self) -> None:
        shell, now = self._shell, asyncio.get_running_loop().time()
        if shell.server.knows(self.client, self.local, now, transport=self.transport_name):
            self._watch()
        else:
            self.abort()

    def data_received(self, data: bytes) -> None:
        shell, now = self._shell, asyncio.get_running_loop().time()
        for message in self._framing.receive_data(data):
            if shell.admits(self.client, self.local, self.transport_name):
                shell.server.receive_datagram(
                    message, self.client, self.local, now, transport=self.transport_name
                )
        shell.pump()
        if self._framing.broken:
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._shell.remove(self)

    def send(self, message: bytes) -> None:
        transport = self._transport
        if transport is not None and transport.get_write_buffer_size() < MAX_WRITE_BUFFER:
            transport.write(StreamFraming.frame(message))

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
