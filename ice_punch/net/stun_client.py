"""Asking STUN servers for our reflexive addresses, all of them at once and from one socket."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from ice_punch.datagram import Address
from ice_punch.errors import IcePunchError, ServerUnreachable
from ice_punch.nat import MappingVerdict, Observation, mapping_verdict
from ice_punch.net.ice_server import IceServer
from ice_punch.net.srv import resolve_server
from ice_punch.net.udp import UdpSocket
from ice_punch.stun import (
    ERROR_CODE,
    SOFTWARE,
    ClientTransaction,
    FailureReason,
    Message,
    MessageClass,
    Method,
    TransactionEvent,
    TransactionSucceeded,
    mapped_address,
)

DEFAULT_STUN_SERVERS = (
    "stun:stun.l.google.com:19302",
    "stun:stun.cloudflare.com",
    "stun:global.stun.twilio.com",
    "stun:stun.nextcloud.com:443",
)
"""Public servers of several operators, at several ports."""
DEFAULT_TIMEOUT = 3.0
REQUESTS = 3
"""Sent after 0, 0.5 and 1.5 s."""
NEXT_AFTER = 0.7
"""Seconds of silence after which the server's next address is asked too."""
MOST_ADDRESSES = 4
"""Of one server and one IP version."""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What one address of one server told."""

    server: IceServer
    address: Address | None = None
    """The server's; None when its name has none."""
    local: Address | None = None
    """Ours towards the server."""
    mapped: Address | None = None
    """Ours as the server sees it: the reflexive address."""
    rtt: float | None = None
    """Seconds; None when the request had to be sent again, or was not answered."""
    error: str | None = None
    """In one short sentence; None exactly when there is a ``mapped``."""


async def probe(
    servers: Iterable[IceServer],
    *,
    ipv4: bool = True,
    ipv6: bool = True,
    local_ips: Iterable[str] = (),
    port_range: tuple[int, int] | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> AsyncIterator[ProbeResult]:
    """Ask every server at once; results come in the order of the answers.

    A server with an IPv4 and an IPv6 address gives a result for each that this host has a way to.
    All requests of one IP version leave from one socket, so different mapped addresses are the
    NAT's doing: ``mapping_verdicts``. The socket is bound to the first of ``local_ips`` of its
    version, otherwise to all addresses. Every server has ``timeout`` seconds, name included.

    Raises PortRangeExhausted, InterfaceNotFound or InvalidConfiguration before the first result.
    """
    local = list(local_ips)
    prober = _Prober(local, ipv4, ipv6, port_range, timeout)
    tasks: set[asyncio.Task[None]] = set()
    results: asyncio.Queue[ProbeResult | None] = asyncio.Queue()
    try:
        prober.open()
        tasks = {asyncio.create_task(prober.ask(server, results)) for server in servers}
        running = len(tasks)
        while running:
            result = await results.get()
            if result is None:
                running -= 1
            else:
                yield result
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        prober.close()


def mapping_verdicts(results: Iterable[ProbeResult]) -> dict[int, MappingVerdict]:
    """How the NAT maps, by IP version (4 or 6), for the versions that an answer came over."""
    answered = [r for r in results if r.mapped is not None and r.address is not None]
    verdicts = {}
    for version in (4, 6):
        here = [r for r in answered if r.address and (":" in r.address[0]) == (version == 6)]
        locals_ = {r.local for r in here}
        observations = [Observation(r.address, r.mapped) for r in here if r.address and r.mapped]
        if observations:
            definite = locals_.pop() if len(locals_) == 1 else None
            verdicts[version] = mapping_verdict(observations, definite)
    return verdicts


class _Prober:
    def __init__(
        self,
        local_ips: list[str],
        ipv4: bool,
        ipv6: bool,
        port_range: tuple[int, int] | None,
        timeout: float,
    ) -> None:
        self._local_ips = local_ips
        self._versions = [v for v, wanted in ((4, ipv4), (6, ipv6)) if wanted]
        self._port_range = port_range
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._sockets: dict[int, UdpSocket] = {}
        self._running: dict[bytes, tuple[ClientTransaction, asyncio.Future[None]]] = {}

    def open(self) -> None:
        failure: OSError | None = None
        for version in self._versions:
            wildcard = {4: "0.0.0.0", 6: "::"}[version]  # noqa: S104
            of_version = [ip for ip in self._local_ips if (":" in ip) == (version == 6)]
            if self._local_ips and not of_version:
                continue
            try:
                self._sockets[version] = UdpSocket.open(
                    of_version[0] if of_version else wildcard,
                    self._on_datagram,
                    on_error=self._on_error,
                    port_range=self._port_range,
                )
            except IcePunchError:
                raise
            except OSError as error:  # a host without this IP version
                failure = error
        if not self._sockets and failure is not None:
            raise failure

    def close(self) -> None:
        for sock in self._sockets.values():
            sock.close()

    async def ask(self, server: IceServer, results: asyncio.Queue[ProbeResult | None]) -> None:
        try:
            for result in await self._ask(server, results):
                results.put_nowait(result)
        finally:
            results.put_nowait(None)

    async def _ask(
        self, server: IceServer, results: asyncio.Queue[ProbeResult | None]
    ) -> list[ProbeResult]:
        """Puts what is certain into ``results`` and returns what is left to say."""
        if server.transport != "udp":
            return [ProbeResult(server, error="only servers reached over UDP can be asked")]
        deadline = self._loop.time() + self._timeout
        try:
            addresses = await resolve_server(
                server,
                ipv4=4 in self._sockets,
                ipv6=6 in self._sockets,
                timeout=self._timeout,
            )
        except ServerUnreachable as error:
            return [ProbeResult(server, error=str(error))]
        routed = [
            [a for a in addresses if (":" in a[0]) == is_ipv6 and _source_ip(a) is not None]
            for is_ipv6 in (False, True)
        ]
        if not any(routed):
            return [ProbeResult(server, addresses[0], error="there is no route to it")]

        async def one(of_version: list[Address]) -> None:
            results.put_nowait(await self._race(server, of_version, deadline))

        await asyncio.gather(*(one(of_version) for of_version in routed if of_version))
        return []

    async def _race(
        self, server: IceServer, addresses: list[Address], deadline: float
    ) -> ProbeResult:
        """The first answer of a server's addresses, best first, of one IP version: the next one is
        asked too when those before have failed, or kept silent for a while (RFC 8489 section
        8.1). Without an answer, what came of the first."""
        waiting = addresses[:MOST_ADDRESSES]
        asked: list[asyncio.Task[ProbeResult]] = []
        running: set[asyncio.Task[ProbeResult]] = set()
        try:
            while waiting or running:
                if waiting:
                    asked.append(
                        asyncio.create_task(self._transact(server, waiting.pop(0), deadline))
                    )
                    running.add(asked[-1])
                done, running = await asyncio.wait(
                    running,
                    timeout=NEXT_AFTER if waiting else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in done:
                    if task.result().error is None:
                        return task.result()
            return asked[0].result()
        finally:
            for task in running:
                task.cancel()

    async def _transact(self, server: IceServer, address: Address, deadline: float) -> ProbeResult:
        sock = self._sockets[6 if ":" in address[0] else 4]
        request = Message(Method.BINDING, MessageClass.REQUEST, os.urandom(12))
        request.add(SOFTWARE, "ice-punch")
        transaction = ClientTransaction(
            request, sock.local, address, self._loop.time(), rc=REQUESTS, fingerprint=True
        )
        ended: asyncio.Future[None] = self._loop.create_future()
        self._running[request.transaction_id] = (transaction, ended)
        try:
            while not transaction.done:
                now = self._loop.time()
                for transmit in transaction.datagrams_to_send(now):
                    sock.send(transmit.data, transmit.destination)
                due = transaction.get_timer()
                until = deadline if due is None else min(deadline, due)
                await asyncio.wait({ended}, timeout=max(0.0, until - now))
                if self._loop.time() >= deadline:
                    break
                if not transaction.done:
                    transaction.handle_timer(self._loop.time())
        finally:
            del self._running[request.transaction_id]
        source = _source_ip(address) if sock.local[0] in ("0.0.0.0", "::") else sock.local[0]  # noqa: S104
        local = None if source is None else (source, sock.local[1])
        return self._result(server, address, local, transaction.next_event())

    def _result(
        self,
        server: IceServer,
        address: Address,
        local: Address | None,
        event: TransactionEvent | None,
    ) -> ProbeResult:
        if isinstance(event, TransactionSucceeded):
            mapped = mapped_address(event.response)
            return ProbeResult(server, address, local, mapped, event.rtt)
        error = f"no answer within {self._timeout:g} s"
        if event is not None:
            code = event.response.get(ERROR_CODE) if event.response is not None else None
            if event.reason is FailureReason.UNREACHABLE:
                error = "nothing listens there (ICMP error)"
            elif code is not None:
                readable = "".join(c for c in code.reason if c.isprintable())[:100]
                error = f"it refused: {code.code} {readable}".rstrip()
            elif event.response is not None:
                error = "its answer can not be used"
        return ProbeResult(server, address, local, error=error)

    def _on_datagram(self, data: bytes, source: Address, local: Address) -> None:
        found = self._running.get(data[8:20])
        if found is not None:
            transaction, ended = found
            if transaction.receive_datagram(data, source, local, self._loop.time()):
                _end(ended)

    def _on_error(self, destination: Address | None, error: OSError) -> None:
        for transaction, ended in list(self._running.values()):
            if transaction.destination == destination:
                transaction.handle_icmp_error(self._loop.time())
                _end(ended)


def _end(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _source_ip(destination: Address) -> str | None:
    """The address this host would send from; None without a route. Nothing is sent."""
    family = socket.AF_INET6 if ":" in destination[0] else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(destination)
            return str(probe.getsockname()[0]).partition("%")[0]
    except OSError:
        return None
