"""The UDP front end of a Binding server, RFC 8489 section 12 and RFC 5780."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import struct
import sys
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

from ice_punch.datagram import Address
from ice_punch.errors import (
    InterfaceNotFound,
    InvalidConfiguration,
    PortRangeExhausted,
    ServerUnreachable,
)
from ice_punch.net import udp
from ice_punch.net.dns import resolve
from ice_punch.net.interfaces import local_addresses
from ice_punch.stun import BindingServer, ServerCounters

DEFAULT_PORT = 3478
RATE = 500.0
"""Requests a second that one source is answered; a network behind one NAT is one source."""
BURST = 1000.0
MAX_SOURCES = 10_000
"""Sources remembered; the one unheard for longest is forgotten first."""

# in_pktinfo of ip(7): index, the address to answer from, the address in the header.
_IPV4_INFO = struct.Struct("=i4s4s")
_IPV6_INFO = struct.Struct("=16sI")
_IP_PKTINFO = {"linux": 8, "darwin": 26}.get(sys.platform)
_WILDCARDS = ("0.0.0.0", "::")  # noqa: S104


class RateLimit:
    """A token bucket for each source: an IPv4 address, or an IPv6 network of 64 bits."""

    def __init__(
        self, rate: float = RATE, burst: float = BURST, max_sources: int = MAX_SOURCES
    ) -> None:
        """``rate`` in tokens a second."""
        self._rate = rate
        self._burst = burst
        self._max_sources = max_sources
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def admits(self, ip: str, now: float) -> bool:
        """Take a token of the source's; False when it has none left."""
        source = ip
        if ":" in ip:
            source = str(ipaddress.ip_network(f"{ip.partition('%')[0]}/64", strict=False))
        tokens, since = self._buckets.pop(source, (self._burst, now))
        tokens = min(self._burst, tokens + (now - since) * self._rate)
        admitted = tokens >= 1
        self._buckets[source] = (tokens - 1 if admitted else tokens, now)
        if len(self._buckets) > self._max_sources:
            self._buckets.popitem(last=False)
        return admitted


class StunServer:
    """Answers Binding requests, each from the very address that the request came to."""

    def __init__(
        self, sockets: Sequence[socket.socket], server: BindingServer, limit: RateLimit
    ) -> None:
        """Takes over bound sockets; ``StunServer.start`` makes one."""
        self.limited = 0
        """Datagrams that the rate limit dropped."""
        self.send_failures = 0
        self._server = server
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray(udp.MAX_DATAGRAM)
        self._definite: dict[Address, udp.UdpSocket] = {}
        self._wildcard: dict[Address, socket.socket] = {}
        self.addresses: list[Address] = []
        """What it is bound to, wildcards as such."""
        for sock in sockets:
            host, port = sock.getsockname()[:2]
            self.addresses.append((host, port))
            if host in _WILDCARDS:
                self._wildcard[host, port] = sock
                self._loop.add_reader(sock.fileno(), self._on_readable, sock, (host, port))
            else:
                self._definite[host, port] = udp.UdpSocket(sock, self._answer, None, self._loop)

    @classmethod
    async def start(
        cls,
        hosts: str | Iterable[str] = "0.0.0.0",  # noqa: S104
        port: int = DEFAULT_PORT,
        *,
        alternate: Address | None = None,
        software: str | None = "ice-punch",
        limit: RateLimit | None = None,
    ) -> StunServer:
        """Bind to ``port`` of one or several IP addresses or names; ``""`` is every address.

        With ``port`` 0 the first address gets a free port and the others get the same. With
        ``alternate``, another address and port of this host, and one host that is no wildcard,
        clients can discover how their NAT behaves (RFC 5780).

        Raises PortRangeExhausted for a port that is taken, InterfaceNotFound for an address that
        is not of this host, InvalidConfiguration for what fits together no other way.
        """
        if not 0 <= port <= 65535:
            raise InvalidConfiguration(f"port {port} is not in 0 to 65535")
        ips = await _addresses([hosts] if isinstance(hosts, str) else list(hosts))
        sockets: list[socket.socket] = []
        try:
            if alternate is None:
                server = BindingServer(software=software)
                sockets += _open_all(ips, port)
            else:
                server = _open_four(sockets, ips, port, alternate, software)
            return cls(sockets, server, RateLimit() if limit is None else limit)
        except BaseException:
            for sock in sockets:
                sock.close()
            raise

    @property
    def counters(self) -> ServerCounters:
        return self._server.counters

    async def close(self) -> None:
        """Stop answering. May be called twice."""
        for definite in self._definite.values():
            definite.close()
        for wildcard in self._wildcard.values():
            self._loop.remove_reader(wildcard.fileno())
            wildcard.close()
        self._definite.clear()
        self._wildcard.clear()

    async def __aenter__(self) -> StunServer:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _on_readable(self, sock: socket.socket, bound: Address) -> None:
        """A wildcard socket: each datagram comes with the address that it arrived at."""
        view = memoryview(self._buffer)
        for _ in range(udp.DRAIN_LIMIT):
            if not self._wildcard:
                return
            try:
                size, ancillary, _, source = sock.recvmsg_into([self._buffer], 128)
            except BlockingIOError:
                return
            except OSError:
                continue  # an error of something sent earlier
            ip, interface = _arrival(ancillary, bound[0])
            self._answer(bytes(view[:size]), source[:2], (ip, bound[1]), interface)

    def _answer(self, data: bytes, source: Address, local: Address, interface: int = 0) -> None:
        now = self._loop.time()
        if not self._limit.admits(source[0], now):
            self.limited += 1
            return
        # The zone of a link-local address means nothing to the client.
        self._server.receive_datagram(data, (source[0].partition("%")[0], source[1]), local, now)
        for transmit in self._server.datagrams_to_send(now):
            # To where it came from, or another port of it (RFC 5780 section 7.5).
            destination = (source[0], transmit.destination[1])
            if not self._send(transmit.data, transmit.local, destination, interface):
                self.send_failures += 1  # as good as lost on the way: the client asks again

    def _send(self, data: bytes, origin: Address, destination: Address, interface: int) -> bool:
        definite = self._definite.get(origin)
        if definite is not None:
            return definite.send(data, destination)
        wildcard = self._wildcard[_WILDCARDS[":" in origin[0]], origin[1]]
        try:
            wildcard.sendmsg([data], [_departure(origin[0], interface)], 0, destination)
        except OSError:
            return False
        return True


async def _addresses(hosts: list[str]) -> list[str]:
    """The IP addresses to bind to."""
    found: list[str] = []
    for host in hosts:
        if host == "":
            found += ["0.0.0.0"] + (["::"] if _has_ipv6() else [])  # noqa: S104
            continue
        try:
            found += [ip for ip, _ in await resolve(host, 0)]
        except ServerUnreachable as error:
            raise InterfaceNotFound(str(error)) from None
    if _IP_PKTINFO is None:
        # Without the arrival address, answers from a wildcard socket may leave from another one.
        everything = [a.ip for a in local_addresses(lambda _: True)]
        found = [
            ip
            for name in found
            for ip in (
                [ip for ip in everything if (":" in ip) == (":" in name)]
                if name in _WILDCARDS
                else [name]
            )
        ]
    return list(dict.fromkeys(found))


def _has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.bind(("::1", 0))
        return True
    return False


def _open(ip: str, port: int) -> socket.socket:
    sock = udp.bind(ip, port=port)
    if ip in _WILDCARDS:
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        elif _IP_PKTINFO is not None:
            sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    return sock


def _open_all(ips: list[str], port: int) -> list[socket.socket]:
    """The same port on every address; for port 0 one that all of them have free."""
    if port == 0:
        for _ in range(7):
            with contextlib.suppress(PortRangeExhausted):
                return _open_each(ips, 0)
    return _open_each(ips, port)


def _open_each(ips: list[str], port: int) -> list[socket.socket]:
    with contextlib.ExitStack() as stack:
        sockets = []
        for ip in ips:
            sockets.append(stack.enter_context(_open(ip, port)))
            port = port or sockets[0].getsockname()[1]
        stack.pop_all()
    return sockets


def _open_four(
    sockets: list[socket.socket],
    ips: list[str],
    port: int,
    alternate: Address,
    software: str | None,
) -> BindingServer:
    """RFC 5780 section 6: both ports on both addresses."""
    if len(ips) != 1 or ips[0] in _WILDCARDS or alternate[0] in _WILDCARDS:
        raise InvalidConfiguration("NAT behaviour discovery needs two definite IP addresses")
    sockets.append(_open(ips[0], port))
    port = sockets[0].getsockname()[1]
    sockets.append(_open(alternate[0], alternate[1]))
    other_port = sockets[1].getsockname()[1]
    try:
        server = BindingServer((ips[0], port), (alternate[0], other_port), software=software)
    except ValueError as error:
        raise InvalidConfiguration(str(error)) from None
    sockets += [_open(ips[0], other_port), _open(alternate[0], port)]
    return server


def _arrival(ancillary: Sequence[tuple[int, int, bytes]], default: str) -> tuple[str, int]:
    """The local IP address of a datagram, and the interface index where its zone matters."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
            _, local, _ = _IPV4_INFO.unpack_from(data)
            return socket.inet_ntop(socket.AF_INET, local), 0
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            local, index = _IPV6_INFO.unpack_from(data)
            ip = ipaddress.IPv6Address(local)
            return str(ip), index if ip.is_link_local else 0
    return default, 0


def _departure(ip: str, interface: int) -> tuple[int, int, Any]:
    packed = ipaddress.ip_address(ip).packed
    if len(packed) == 4:
        assert _IP_PKTINFO is not None
        return socket.IPPROTO_IP, _IP_PKTINFO, _IPV4_INFO.pack(0, packed, bytes(4))
    return socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, _IPV6_INFO.pack(packed, interface)
