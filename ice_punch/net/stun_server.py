"""The UDP front end of a Binding server, RFC 8489 section 12 and RFC 5780."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from ice_punch.datagram import Address, Transmit
from ice_punch.errors import InvalidConfiguration
from ice_punch.net import udp
from ice_punch.net.many import DatagramBatch
from ice_punch.net.stun_sockets import (
    ANCILLARY_SIZE,
    WILDCARDS,
    addresses_to_bind,
    arrival,
    open_all,
    open_beside,
    open_socket,
)
from ice_punch.stun import BindingServer, ServerCounters
from ice_punch.stun.addresses import ipv4_text

DEFAULT_PORT = 3478
RATE = 500.0
"""Requests a second that one source is answered; a network behind one NAT is one source."""
BURST = 1000.0
FEW = 2
"""Datagrams that are taken one by one; where more wait, a call for all the rest is worth it."""
MAX_SOURCES = 10_000
"""Sources remembered; the one unheard for longest is forgotten first."""


class RateLimit:
    """A token bucket for each source: an IPv4 address, or an IPv6 network of 64 bits."""

    def __init__(
        self, rate: float = RATE, burst: float = BURST, max_sources: int = MAX_SOURCES
    ) -> None:
        """``rate`` in tokens a second."""
        self._rate = rate
        self._burst = burst
        self._max_sources = max_sources
        self._buckets: OrderedDict[str, list[float]] = OrderedDict()
        """Tokens, and when they were counted."""

    def __len__(self) -> int:
        return len(self._buckets)

    def admits(self, ip: str, now: float) -> bool:
        """Take a token of the source's; False when it has none left."""
        source = _network(ip) if ":" in ip else ip
        buckets = self._buckets
        bucket = buckets.get(source)
        if bucket is None:
            bucket = buckets[source] = [self._burst, now]
            if len(buckets) > self._max_sources:
                buckets.popitem(last=False)
        else:
            buckets.move_to_end(source)
        tokens = bucket[0] + (now - bucket[1]) * self._rate
        if tokens > self._burst:
            tokens = self._burst
        admitted = tokens >= 1
        bucket[0] = tokens - 1 if admitted else tokens
        bucket[1] = now
        return admitted


@lru_cache(maxsize=MAX_SOURCES)
def _network(ip: str) -> str:
    return str(ipaddress.ip_network(f"{ip.partition('%')[0]}/64", strict=False))


class StunServer:
    """Answers Binding requests, each from the very address that the request came to."""

    def __init__(
        self, sockets: Sequence[socket.socket], server: BindingServer, limit: RateLimit
    ) -> None:
        """Takes over bound sockets; ``StunServer.start`` makes one."""
        self.limited = 0
        """Datagrams that the rate limit dropped."""
        self.send_failures = 0
        """Answers that the kernel did not take, as good as lost on the way."""
        self._server = server
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._batch: DatagramBatch | None = None
        with contextlib.suppress(NotImplementedError):
            self._batch = DatagramBatch()
        self._sockets: dict[Address, socket.socket] = {}
        self._unwatched: dict[Address, udp.UdpSocket] = {}
        """Where the event loop can not watch a socket, as Windows' proactor."""
        self.addresses: list[Address] = []
        """What it is bound to, wildcards as such."""
        for sock in sockets:
            host, port = sock.getsockname()[:2]
            self.addresses.append((host, port))
            self._watch(sock)
            if host in WILDCARDS:
                for beside in open_beside(sock):
                    self._watch(beside)

    def _watch(self, sock: socket.socket) -> None:
        local: Address = sock.getsockname()[:2]
        on_readable = self._answer_definite
        if local[0] in WILDCARDS:
            on_readable = self._answer_wildcard
        elif ":" not in local[0] and self._batch is not None:
            on_readable = self._answer_many
        try:
            self._loop.add_reader(sock.fileno(), on_readable, sock, local)
        except NotImplementedError:
            self._unwatched[local] = udp.UdpSocket(sock, self._answer_unwatched, None, self._loop)
        else:
            self._sockets[local] = sock

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
        ips = await addresses_to_bind([hosts] if isinstance(hosts, str) else list(hosts))
        sockets: list[socket.socket] = []
        try:
            if alternate is None:
                server = BindingServer(software=software)
                sockets += open_all(ips, port)
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
        for sock in self._sockets.values():
            self._loop.remove_reader(sock.fileno())
            sock.close()
        for unwatched in self._unwatched.values():
            unwatched.close()
        self._sockets.clear()
        self._unwatched.clear()

    async def __aenter__(self) -> StunServer:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # Each of these takes what waits, up to a bound after which others get their turn, and answers
    # plain requests on the spot.

    def _answer_many(self, sock: socket.socket, local: Address) -> None:
        """A definite IPv4 address: many datagrams by one call, and their answers by another."""
        if self._answer_some(sock, local, FEW):
            return
        batch = self._batch
        assert batch is not None
        try:
            count = batch.receive(sock.fileno(), udp.DRAIN_LIMIT - FEW)
        except OSError:
            return
        admits, answer_plain = self._limit.admits, self._server.answer_plain
        now = self._loop.time()
        first = 0
        for index, (data, number, port) in enumerate(batch.datagrams(count)):
            source = ipv4_text(number), port
            if admits(source[0], now):
                answer = answer_plain(data, source, local)
                if answer is not None:
                    batch.answer(index, answer)
                    continue
                self._answer_fully(data, source, source, local, now)
            else:
                self.limited += 1
            if first < index:
                self.send_failures += index - first - batch.send(sock.fileno(), first, index)
            first = index + 1
        self.send_failures += count - first - batch.send(sock.fileno(), first, count)

    def _answer_definite(self, sock: socket.socket, local: Address) -> None:
        """An IPv6 address, or a system that has no such calls."""
        self._answer_some(sock, local, udp.DRAIN_LIMIT)

    def _answer_some(self, sock: socket.socket, local: Address, most: int) -> bool:
        """False if ``most`` datagrams were taken and there may be more."""
        receive, send = sock.recvfrom, sock.sendto
        admits, answer_plain = self._limit.admits, self._server.answer_plain
        has_zone, size = ":" in local[0], udp.MAX_DATAGRAM
        now = self._loop.time()
        for _ in range(most):
            try:
                data, came_from = receive(size)
            except BlockingIOError:
                return True
            except OSError:
                continue  # an error of something sent earlier
            if not admits(came_from[0], now):
                self.limited += 1
                continue
            source = _without_zone(came_from) if has_zone else came_from
            answer = answer_plain(data, source, local)
            try:
                if answer is not None:
                    send(answer, came_from)
                else:
                    self._answer_fully(data, source, came_from, local, now)
            except OSError:
                self.send_failures += 1
        return False

    def _answer_fully(
        self, data: bytes, source: Address, came_from: tuple[Any, ...], local: Address, now: float
    ) -> None:
        for transmit in self._answer(data, source, local, now):
            destination = (came_from[0], transmit.destination[1])
            try:
                self._sockets[transmit.local].sendto(transmit.data, destination)
            except OSError:
                self.send_failures += 1

    def _answer_wildcard(self, sock: socket.socket, local: Address) -> None:
        """Each datagram comes with the address that it arrived at, and says where its answer is to
        leave from."""
        receive, send = sock.recvmsg, sock.sendmsg
        admits, answer_plain = self._limit.admits, self._server.answer_plain
        now = self._loop.time()
        for _ in range(udp.DRAIN_LIMIT):
            try:
                data, ancillary, _, came_from = receive(udp.MAX_DATAGRAM, ANCILLARY_SIZE)
            except BlockingIOError:
                return
            except OSError:
                continue
            if not admits(came_from[0], now):
                self.limited += 1
                continue
            ip, departure = arrival(ancillary[0]) if ancillary else (local[0], ())
            source, reached = _without_zone(came_from), (ip, local[1])
            answer = answer_plain(data, source, reached)
            try:
                if answer is not None:
                    send((answer,), departure, 0, came_from)
                    continue
                for transmit in self._answer(data, source, reached, now):
                    destination = (came_from[0], transmit.destination[1])
                    send((transmit.data,), departure, 0, destination)
            except OSError:
                self.send_failures += 1

    def _answer_unwatched(self, data: bytes, came_from: Address, local: Address) -> None:
        now = self._loop.time()
        if not self._limit.admits(came_from[0], now):
            self.limited += 1
            return
        for transmit in self._answer(data, _without_zone(came_from), local, now):
            destination = (came_from[0], transmit.destination[1])
            if not self._unwatched[transmit.local].send(transmit.data, destination):
                self.send_failures += 1

    def _answer(self, data: bytes, source: Address, local: Address, now: float) -> list[Transmit]:
        """What the answer is, to where it came from or another port of it (RFC 5780 section
        7.5)."""
        self._server.receive_datagram(data, source, local, now)
        return self._server.datagrams_to_send(now)


def _without_zone(source: tuple[Any, ...]) -> Address:
    """The zone of a link-local address means nothing to the client."""
    return source[0].partition("%")[0], source[1]


def _open_four(
    sockets: list[socket.socket],
    ips: list[str],
    port: int,
    alternate: Address,
    software: str | None,
) -> BindingServer:
    """RFC 5780 section 6: both ports on both addresses."""
    if len(ips) != 1 or ips[0] in WILDCARDS or alternate[0] in WILDCARDS:
        raise InvalidConfiguration("NAT behaviour discovery needs two definite IP addresses")
    sockets.append(open_socket(ips[0], port))
    port = sockets[0].getsockname()[1]
    sockets.append(open_socket(alternate[0], alternate[1]))
    other_port = sockets[1].getsockname()[1]
    try:
        server = BindingServer((ips[0], port), (alternate[0], other_port), software=software)
    except ValueError as error:
        raise InvalidConfiguration(str(error)) from None
    sockets += [open_socket(ips[0], other_port), open_socket(alternate[0], port)]
    return server
