"""A relayed candidate's transport: an allocation on a TURN server, RFC 8656."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import ssl
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from ice_punch.datagram import Address
from ice_punch.errors import (
    AuthenticationRejected,
    IcePunchError,
    InvalidConfiguration,
    RelayDenied,
    ServerUnreachable,
)
from ice_punch.net.dns import resolve
from ice_punch.net.ice_server import IceServer
from ice_punch.net.udp import DatagramHandler, ErrorHandler

if TYPE_CHECKING:
    from ice_punch.net import turn_client

DEFAULT_TIMEOUT = 10.0
CLOSE_TIMEOUT = 1.0
ATTEMPT_DELAY = 0.25
"""Seconds between attempts at a server's several addresses (RFC 8305 section 5)."""
MAX_PEERS = 256
"""Peers of one relay; each takes a channel and a little memory."""
QUEUE_PER_PEER = 32
"""Datagrams held while a peer's channel is bound: about one round trip."""
RETRY_DELAY = 5.0
"""Seconds before a channel that the server refused is asked for again."""

_FIRST_CHANNEL = 0x4000


@dataclass(slots=True)
class RelayStats:
    sent: int = 0
    received: int = 0
    dropped: int = 0
    """Datagrams given up: no channel yet and the queue full, too many peers, a slow connection."""
    refused: int = 0
    """Channels the server did not bind."""
    malformed: int = 0
    """Messages from the server that make no sense."""


@dataclass(slots=True)
class _Channel:
    number: int
    header: bytes
    renew_at: float | None = None
    """When to bind again; None while the channel is not bound."""
    retry_at: float = 0.0
    binding: asyncio.Task[None] | None = None
    waiting: deque[bytes] = field(default_factory=lambda: deque(maxlen=QUEUE_PER_PEER))


class Relay:
    """An open allocation. ``send`` binds a channel for each peer as it comes.

    ``on_closed`` is told, once and in one sentence, when the allocation is lost: the connection
    broke or the server would not renew it. A ``close`` of ours is not told.
    """

    def __init__(
        self,
        server: IceServer,
        client: turn_client.UdpClient | turn_client.TcpClient,
        inbox: _Inbox,
        relayed: Address,
        mapped: Address | None,
    ) -> None:
        """``Relay.open`` makes one."""
        self.server = server
        self.relayed_address = relayed
        self.mapped_address = mapped
        """Our address as the server sees it, from the Allocate response (RFC 8656 section 7.3);
        a server-reflexive candidate if the server was reached over UDP."""
        self.on_closed: Callable[[str], None] | None = None
        self.on_error: ErrorHandler | None = None
        """Told of peers that the server refuses to relay to."""
        self.stats = RelayStats()
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._channels: dict[Address, _Channel] = {}
        self._closed = False
        inbox.attach(self)

    @classmethod
    async def open(
        cls,
        server: IceServer,
        *,
        on_datagram: DatagramHandler,
        on_error: ErrorHandler | None = None,
        on_closed: Callable[[str], None] | None = None,
        local_ip: str | None = None,
        port_range: tuple[int, int] | None = None,
        ipv4: bool = True,
        ipv6: bool = True,
        timeout: float = DEFAULT_TIMEOUT,
        ssl_context: ssl.SSLContext | None = None,
        cafile: str | None = None,
    ) -> Relay:
        """Ask a ``turn`` or ``turns`` server for an allocation, within ``timeout`` seconds.

        ``on_datagram`` gets what peers send: data, the peer, the relayed address. ``local_ip`` and
        ``port_range`` bind the socket towards the server; ``ipv4`` and ``ipv6`` tell which of its
        addresses to use. A ``turns`` server's certificate has to be valid for its name: by the
        system's authorities, those of ``cafile`` (PEM), or ``ssl_context``.

        Raises AuthenticationRejected, RelayDenied, ServerUnreachable, and InvalidConfiguration for
        a ``stun`` server or a bad range; PortRangeExhausted, InterfaceNotFound.
        """
        if not server.is_relay:
            raise InvalidConfiguration(f"{server.uri} is no TURN server")
        tls = None
        if server.is_tls:
            tls = ssl_context or _tls_context(cafile)
        try:
            async with asyncio.timeout(timeout):
                addresses = await resolve(
                    server.host,
                    server.port,
                    ipv4=ipv4 and (local_ip is None or ":" not in local_ip),
                    ipv6=ipv6 and (local_ip is None or ":" in local_ip),
                    timeout=timeout,
                )
                attempts = [
                    partial(cls._open_at, server, address, on_datagram, local_ip, port_range, tls)
                    for address in addresses
                ]
                relay = await _first(attempts)
        except TimeoutError:
            raise ServerUnreachable(
                f"{server.uri} did not answer within {timeout:g} s", outcome="silent"
            ) from None
        relay.on_error = on_error
        relay.on_closed = on_closed
        return relay

    @classmethod
    async def _open_at(
        cls,
        server: IceServer,
        address: Address,
        on_datagram: DatagramHandler,
        local_ip: str | None,
        port_range: tuple[int, int] | None,
        tls: ssl.SSLContext | None,
    ) -> Relay:
        from ice_punch.net import turn_client

        inbox = _Inbox(on_datagram)
        try:
            client = await turn_client.connect(
                server, address, inbox, local_ip=local_ip, port_range=port_range, tls=tls
            )
            try:
                relayed, mapped = await turn_client.allocate(client)
            except BaseException:
                client.transport.abort()
                raise
        except turn_client.TransactionError as error:
            raise _refused(server, turn_client.refusal(error)) from None
        except IcePunchError:
            raise
        except ssl.SSLCertVerificationError as error:
            raise ServerUnreachable(
                f"the certificate of {server.uri} is not accepted: {error.verify_message}"
            ) from None
        except OSError as error:
            number = error.errno or 0
            why = os.strerror(number) if number > 0 else error.strerror or error
            raise ServerUnreachable(f"{server.uri} can not be reached: {why}") from None
        return cls(server, client, inbox, relayed, mapped)

    def send(self, data: bytes, destination: Address) -> bool:
        """Have the server send a datagram to a peer. Never raises and never blocks.

        False: it was dropped. While the peer's channel is bound, the newest datagrams are kept.
        """
        if self._closed:
            return False
        channel = self._channels.get(destination)
        if channel is None:
            if len(self._channels) >= MAX_PEERS:
                self.stats.dropped += 1
                return False
            number = _FIRST_CHANNEL + len(self._channels)
            channel = _Channel(number, number.to_bytes(2, "big"))
            self._channels[destination] = channel
        now = self._loop.time()
        due = channel.retry_at if channel.renew_at is None else channel.renew_at
        if now >= due and channel.binding is None:
            channel.binding = self._loop.create_task(self._bind(channel, destination))
        if channel.renew_at is not None:
            return self._send(channel, data)
        if channel.binding is None:
            self.stats.dropped += 1
            return False
        if len(channel.waiting) == QUEUE_PER_PEER:
            self.stats.dropped += 1
        channel.waiting.append(data)
        return True

    async def close(self) -> None:
        """Give the allocation back (RFC 8656 section 8: a Refresh of lifetime 0) and disconnect,
        within a second. May be called twice."""
        if self._closed:
            return
        self._closed = True
        for channel in self._channels.values():
            if channel.binding is not None:
                channel.binding.cancel()
            channel.waiting.clear()
        with contextlib.suppress(Exception):  # the allocation ends by itself after its lifetime
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._client.delete()
        self._client.transport.abort()

    @property
    def closed(self) -> bool:
        return self._closed

    def _send(self, channel: _Channel, data: bytes) -> bool:
        header = channel.header + len(data).to_bytes(2, "big")
        if len(data) <= 0xFFFF and self._client.send_channel_data(header, data):
            self.stats.sent += 1
            return True
        self.stats.dropped += 1
        return False

    async def _bind(self, channel: _Channel, peer: Address) -> None:
        from ice_punch.net import turn_client

        asked_at = self._loop.time()
        try:
            await self._client.bind(channel.number, peer)
        except (turn_client.TransactionError, ConnectionError) as error:
            refusal = (
                turn_client.refusal(error)
                if isinstance(error, turn_client.TransactionError)
                else None
            )
            self._not_bound(channel, peer, refusal)
        else:
            channel.renew_at = asked_at + turn_client.CHANNEL_REFRESH
            while channel.waiting:
                self._send(channel, channel.waiting.popleft())
        finally:
            channel.binding = None

    def _not_bound(self, channel: _Channel, peer: Address, refusal: tuple[int, str] | None) -> None:
        """One peer's trouble: the others and the allocation are not touched by it."""
        self.stats.refused += 1
        self.stats.dropped += len(channel.waiting)
        channel.waiting.clear()
        channel.renew_at = None
        channel.retry_at = self._loop.time() + (RETRY_DELAY if refusal else 0.0)
        if refusal is not None and self.on_error is not None and not self._closed:
            code, reason = refusal
            self.on_error(peer, OSError(errno.EACCES, f"{self.server.uri}: {code} {reason}"))

    def _lost(self, error: Exception | None) -> None:
        if self._closed:
            return
        self._closed = True
        for channel in self._channels.values():
            if channel.binding is not None:
                channel.binding.cancel()
            channel.waiting.clear()
        if self._client.refresh_task is not None:
            self._client.refresh_task.cancel()
        if self.on_closed is not None:
            why = f": {error}" if error else ""
            self.on_closed(f"the relay of {self.server.uri} was lost{why}")


class _Inbox:
    """Takes what a client receives from the moment it is connected, before there is a relay."""

    def __init__(self, on_datagram: DatagramHandler) -> None:
        self._on_datagram = on_datagram
        self._relay: Relay | None = None

    def attach(self, relay: Relay) -> None:
        self._relay = relay

    def relayed(self, data: bytes, peer: Address) -> None:
        relay = self._relay
        if relay is not None and not relay.closed:
            relay.stats.received += 1
            self._on_datagram(data, peer, relay.relayed_address)

    def lost(self, error: Exception | None) -> None:
        if self._relay is not None:
            self._relay._lost(error)

    def malformed(self) -> None:
        if self._relay is not None:
            self._relay.stats.malformed += 1


def _refused(server: IceServer, refusal: tuple[int, str] | None) -> IcePunchError:
    if refusal is None:
        return ServerUnreachable(f"{server.uri} did not answer", outcome="silent")
    code, reason = refusal
    if code == 401:
        if server.username is None or server.password is None:
            return AuthenticationRejected(f"{server.uri} wants a user name and a password")
        return AuthenticationRejected(f"{server.uri} rejected the user name or the password")
    return RelayDenied(f"{server.uri} refused to relay: {code} {reason}".rstrip())


def _tls_context(cafile: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=cafile)
    except OSError as error:
        raise InvalidConfiguration(
            f"the certificate authorities in {cafile} can not be read: {error.strerror}"
        ) from None


async def _first(attempts: Iterable[Callable[[], Coroutine[object, object, Relay]]]) -> Relay:
    """The first relay that can be had, each attempt begun a little after the one before.

    A server's refusal is final: its other addresses would say the same.
    """
    running: set[asyncio.Future[Relay]] = set()
    errors: list[Exception] = []
    queue = list(attempts)
    try:
        while queue or running:
            if queue:
                running.add(asyncio.ensure_future(queue.pop(0)()))
            done, running = await asyncio.wait(
                running,
                timeout=ATTEMPT_DELAY if queue else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for attempt in done:
                error = attempt.exception()
                if error is None:
                    return attempt.result()
                if not isinstance(error, ServerUnreachable):
                    raise error
                errors.append(error)
        raise errors[0]
    finally:
        for attempt in running:
            attempt.add_done_callback(_give_back)
            attempt.cancel()


def _give_back(attempt: asyncio.Future[Relay]) -> None:
    """An allocation that came second."""
    if not attempt.cancelled() and attempt.exception() is None:
        relay = attempt.result()
        _closing.add(task := asyncio.ensure_future(relay.close()))
        task.add_done_callback(_closing.discard)


_closing: set[asyncio.Future[None]] = set()
