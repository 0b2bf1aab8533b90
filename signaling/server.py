"""The signaling server: a thin asyncio shell around rooms, on the ``websockets`` library."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import random as random_module
import re
import socket
from collections import Counter
from collections.abc import Awaitable, Sequence
from functools import partial
from http import HTTPStatus
from ssl import SSLContext
from typing import Any, cast
from urllib.parse import urlsplit

from websockets.asyncio.server import Server, ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from signaling import pages
from signaling.addresses import address_key
from signaling.backends import Backend
from signaling.backends.memory import MemoryBackend
from signaling.effects import AwaitIce, Close, Effect, Note, Pause, Send
from signaling.errors import ListenFailed
from signaling.hooks import Authorizer, IceServerSource, Metrics
from signaling.limits import Limits, is_room_name
from signaling.link import SOCKET_PATH
from signaling.messages import SUBPROTOCOL, CloseCode, IceInfo, IceServerInfo
from signaling.randomness import RandomSource

_log = logging.getLogger("signaling.server")
# The library's debug log shows frames, and those carry session keys and payloads.
_silent = logging.getLogger("signaling.server.websockets")
_silent.setLevel(logging.CRITICAL + 1)

_CLOSE_TIMEOUT = 1.0
_ICE_TIMEOUT = 3.0
_READ_AHEAD = 4
_SEND_BUFFER = 64 * 1024
_HOST = re.compile(r"([A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?", re.ASCII)


class SignalingServer:
    """A running server; made by :meth:`start`.

    ``GET /healthz`` answers ``ok``; ``GET /j/<room>`` says how to use a link. Everything else is
    the protocol ``icepunch.v1`` at ``/v1/ws``.
    """

    def __init__(self, backend: Backend, limits: Limits) -> None:
        self.limits = limits
        self._backend = backend
        self._own_counters: Counter[str] = Counter()
        self._open: set[_Socket] = set()
        self._per_address: Counter[str] = Counter()
        self._sockets: dict[int, _Socket] = {}
        self._last_number = 0
        self._timer: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._fetching: set[asyncio.Task[None]] = set()
        self._closed = False
        self._secure = False
        self._names: list[tuple[str, int]] = []

    @classmethod
    async def start(
        cls,
        host: str | Sequence[str] | None = "127.0.0.1",
        port: int = 8080,
        *,
        limits: Limits | None = None,
        ssl: SSLContext | None = None,
        ice_servers: Sequence[IceServerInfo | str] = (),
        ice: IceServerSource | None = None,
        authorizer: Authorizer | None = None,
        metrics: Metrics | None = None,
        backend: Backend | None = None,
        random: RandomSource | None = None,
    ) -> SignalingServer:
        """Listen on ``host`` (``None``: every interface) and ``port`` (0: any that is free).

        ``ice_servers`` are announced to every client; ``{host}`` in a URL becomes the host name by
        which the client reached this server. ``ice`` takes their place where every session has
        credentials of its own; ``authorizer`` says who may enter. A ``backend`` that is given has
        its own of these. Raises :class:`signaling.errors.ListenFailed`.
        """
        limits = limits if limits is not None else Limits()
        if backend is None:
            servers = [
                IceServerInfo(urls=[server]) if isinstance(server, str) else server
                for server in ice_servers
            ]
            source = random if random is not None else random_module.SystemRandom()
            backend = MemoryBackend(
                source,
                limits,
                ice=ice if ice is not None else IceInfo(servers=servers),
                authorizer=authorizer,
                metrics=metrics,
            )
        server = cls(backend, limits)
        await server._listen(host, port, ssl)
        return server

    async def _listen(
        self, host: str | Sequence[str] | None, port: int, ssl: SSLContext | None
    ) -> None:
        where = host if isinstance(host, str) else ", ".join(host or ()) or "*"
        if not 0 <= port <= 65535:
            text = f"can not listen on {where} port {port}: ports are numbers from 0 to 65535"
            raise ListenFailed(text)
        self._loop = asyncio.get_running_loop()
        self._secure = ssl is not None
        if ssl is not None and isinstance(self._loop, asyncio.BaseEventLoop):
            _log.warning("TLS without uvloop takes about 290 kB of memory per connection")
        await self._backend.start(self._apply)
        try:
            self._server: Server = await serve(
                self._handle,
                # asyncio takes several hosts, only the library's annotation does not.
                cast("str | None", host or None),
                port,
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                compression=None,
                process_request=self._answer_request,
                server_header=pages.server_name(),
                open_timeout=self.limits.handshake_timeout,
                ping_interval=None,
                close_timeout=_CLOSE_TIMEOUT,
                max_size=self.limits.frame,
                max_queue=_READ_AHEAD,
                logger=_silent,
                create_connection=cast("type[ServerConnection]", partial(_Socket, self)),
                ssl=ssl,
            )
        except OSError as error:
            await self._backend.close()
            why = _words(error)
            raise ListenFailed(f"can not listen on {where} port {port}: {why}") from None
        self._names = [listening.getsockname()[:2] for listening in self._server.sockets]
        for url in self.urls:
            _log.info("listening url=%s", url)

    @property
    def urls(self) -> list[str]:
        """``http(s)://address:port`` of every socket; a wildcard address stays one."""
        scheme = "https" if self._secure else "http"
        return [
            f"{scheme}://[{address}]:{port}" if ":" in address else f"{scheme}://{address}:{port}"
            for address, port in self._names
        ]

    @property
    def port(self) -> int:
        return self._names[0][1]

    @property
    def counters(self) -> Counter[str]:
        """What was done and what was refused, by name, since the start."""
        return self._backend.counters + self._own_counters

    @property
    def sizes(self) -> dict[str, int]:
        """``rooms``, ``sessions`` (present or away) and ``connections`` at this moment."""
        return self._backend.sizes

    async def close(self, *, jitter: float = 2.0) -> None:
        """Send everybody a ``drain`` and close code 4000, and stop within about a second.

        Clients come back after a random part of ``jitter`` seconds.
        """
        if self._closed:
            return
        self._closed = True
        self._server.close(close_connections=False)
        self._backend.drain(0.0, jitter)
        for number in list(self._sockets):
            self._backend.dismiss(number)
        if self._timer is not None:
            self._timer.cancel()
        if self._closing:
            await asyncio.wait(set(self._closing), timeout=_CLOSE_TIMEOUT)
        for connection in list(self._open):
            connection.transport.abort()
        await self._server.wait_closed()
        await self._backend.close()
        _log.info("closed")

    async def __aenter__(self) -> SignalingServer:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    # HTTP

    def _answer_request(self, connection: ServerConnection, request: Request) -> Response | None:
        path = urlsplit(request.path).path
        if path == "/healthz":
            return pages.text_page(HTTPStatus.OK, "ok")
        if path == "/":
            return pages.text_page(HTTPStatus.OK, "ice-punch signaling server")
        if path.startswith("/j/") and is_room_name(path.removeprefix("/j/")):
            return pages.link_page()
        if path != SOCKET_PATH and not path.startswith(SOCKET_PATH + "/"):
            return pages.text_page(HTTPStatus.NOT_FOUND, "not found")
        offered = {
            name.strip()
            for header in request.headers.get_all("Sec-WebSocket-Protocol")
            for name in header.split(",")
        }
        if SUBPROTOCOL not in offered:
            self._own_counters["wrong_subprotocol"] += 1
            return pages.upgrade_required()
        return None

    # Connections

    def _admit(self, connection: _Socket) -> bool:
        """Count a TCP connection; ``False`` if there are too many."""
        key = connection.address_key
        if (
            len(self._open) >= self.limits.connections
            or self._per_address[key] >= self.limits.connections_per_address
        ):
            self._own_counters["too_many_connections"] += 1
            _log.info("refused code=too_many_connections address=%s", key)
            return False
        self._open.add(connection)
        self._per_address[key] += 1
        return True

    def _release(self, connection: _Socket) -> None:
        self._open.discard(connection)
        key = connection.address_key
        self._per_address[key] -= 1
        if not self._per_address[key]:
            del self._per_address[key]

    async def _handle(self, connection: ServerConnection) -> None:
        assert isinstance(connection, _Socket)
        self._last_number += 1
        number = connection.number = self._last_number
        self._sockets[number] = connection
        host = _host_of(connection.request)
        origin = _one_header(connection.request, "Origin")
        self._backend.on_open(number, connection.peer, self._loop.time(), host=host, origin=origin)
        try:
            while True:
                wait = connection.paused_until - self._loop.time()
                if wait > 0:
                    await asyncio.sleep(wait)
                message = await connection.recv()
                self._backend.on_message(number, message, self._loop.time())
        except ConnectionClosed as closed:
            # The library itself closes on frames over max_size.
            if closed.sent is not None and closed.sent.code == CloseCode.TOO_BIG:
                self._own_counters["too_large"] += 1
                _log.info("refused code=too_large address=%s", connection.peer[0])
        except Exception:
            _log.exception("connection handler failed")
        finally:
            self._sockets.pop(number, None)
            self._backend.on_close(number, self._loop.time())

    def _apply(self, effects: list[Effect]) -> None:
        slow: list[_Socket] = []
        for effect in effects:
            match effect:
                case Send(connection=number, text=text, replay=replay):
                    connection = self._sockets.get(number)
                    if connection is None:
                        continue
                    if replay:
                        connection.allowance += len(text)
                    broadcast((connection,), text)
                    waiting = connection.transport.get_write_buffer_size()
                    if waiting > self.limits.out_queue + connection.allowance:
                        slow.append(connection)
                        del self._sockets[number]
                case Close(connection=number, code=code, reason=reason):
                    connection = self._sockets.pop(number, None)
                    if connection is not None:
                        self._close(connection, code, reason)
                case Pause(connection=number, seconds=seconds):
                    connection = self._sockets.get(number)
                    if connection is not None:
                        connection.paused_until = self._loop.time() + seconds
                case AwaitIce(connection=number, servers=servers):
                    task = self._loop.create_task(self._await_ice(number, servers))
                    self._fetching.add(task)
                    task.add_done_callback(self._fetching.discard)
                case Note(event=event, fields=fields):
                    words = " ".join(f"{name}={value}" for name, value in fields.items())
                    _log.info("%s %s", event, words, extra={"signaling": fields})
        # Only now: what a lost connection makes the rooms say comes after what they just said.
        for connection in slow:
            self._own_counters["slow"] += 1
            _log.info("refused code=slow address=%s", connection.peer[0])
            self._close(connection, CloseCode.SLOW, "slow reader")
            self._backend.on_close(connection.number, self._loop.time())
        self._set_timer()

    async def _await_ice(self, number: int, servers: Awaitable[IceInfo]) -> None:
        ice: IceInfo | None = None
        try:
            async with asyncio.timeout(_ICE_TIMEOUT):
                ice = await servers
        except Exception as error:
            _log.warning("no ICE servers: %s", type(error).__name__)
        self._backend.on_ice_servers(number, ice, self._loop.time())

    def _close(self, connection: _Socket, code: int, reason: str) -> None:
        task = self._loop.create_task(connection.finish(code, reason))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _set_timer(self) -> None:
        at = self._backend.get_timer()
        if at is None or self._closed:
            return
        if self._timer is not None:
            if self._timer.when() <= at:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._backend.on_timer(self._loop.time())
        self._set_timer()


class _Socket(ServerConnection):
    """A connection that is counted from its first byte and bounded in what it buffers."""

    def __init__(self, owner: SignalingServer, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._owner = owner
        self.number = 0
        self.paused_until = 0.0
        self.allowance = 0
        self.peer: tuple[str, int] = ("", 0)
        self.address_key = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass of it
        peer = transport.get_extra_info("peername")
        if peer:
            self.peer = (peer[0], peer[1])
        self.address_key = address_key(self.peer[0])
        if not self._owner._admit(self):
            transport.set_protocol(_TurnedAway(transport))
            return
        raw = transport.get_extra_info("socket")
        if raw is not None:
            # A slow reader is to be noticed here, not after megabytes in the kernel.
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner._release(self)
        super().connection_lost(exc)

    async def finish(self, code: int, reason: str) -> None:
        """Close, and do not wait for ever for a peer that does not read."""
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await self.close(code, reason)
        except TimeoutError:
            self.transport.abort()


class _TurnedAway(asyncio.Protocol):
    """Says why to the first bytes that come, and lets the other side close.

    An answer before the request confuses clients; a close with unread bytes resets the connection,
    and the answer with it.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._answered = False
        asyncio.get_running_loop().call_later(_CLOSE_TIMEOUT, transport.abort)

    def data_received(self, data: bytes) -> None:
        if self._answered:
            return
        self._answered = True
        self._transport.write(pages.too_many_connections())
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def eof_received(self) -> None:
        self._transport.close()


def _host_of(request: Request | None) -> str:
    """The host name a request asked for, without its port; ``""`` if it is not one."""
    match = _HOST.fullmatch(_one_header(request, "Host") or "")
    return match.group(1) if match is not None else ""


def _one_header(request: Request | None, name: str) -> str | None:
    headers = request.headers.get_all(name) if request is not None else []
    return headers[0] if len(headers) == 1 else None


def _words(error: OSError) -> str:
    # asyncio wraps the system's words in its own; a resolver's error numbers are negative.
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    if "could not bind on any address" in str(error):  # Python 3.13 and later
        return os.strerror(errno.EADDRNOTAVAIL).lower()
    return error.strerror or str(error)
