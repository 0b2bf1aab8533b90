"""The signaling server: a thin asyncio shell between rooms and a WebSocket engine."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import random as random_module
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from ssl import SSLContext
from typing import Any
from urllib.parse import urlsplit

from signaling import engines, pages
from signaling.addresses import address_key
from signaling.auth import TrustedProxies, is_same_origin
from signaling.backends import Backend
from signaling.backends.memory import MemoryBackend
from signaling.effects import AwaitIce, Close, Effect, Note, Pause, Send
from signaling.engines import Engine, Peer, Request, Socket, load_engine
from signaling.errors import ListenFailed
from signaling.gates import Gates
from signaling.hooks import Authorizer, IceServerSource, Metrics
from signaling.limits import Limits, is_room_name
from signaling.link import SOCKET_PATH
from signaling.messages import SUBPROTOCOL, CloseCode, IceInfo, IceServerInfo
from signaling.pages import Page
from signaling.randomness import RandomSource
from signaling.telling import tell

_log = logging.getLogger("signaling.server")

_ICE_TIMEOUT = 3.0
_BACKLOG = 4096
"""Connections that the kernel holds: when thousands come back, a lost SYN costs seconds."""
_ASSET_REFUND = 15 / 16
"""The page has thirty files, each on its own connection, and many may share an address."""
_HOST = re.compile(r"([A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?", re.ASCII)
TLS_NEEDS_UVLOOP = (
    "TLS needs uvloop here (pip install 'ice-punch[uvloop]'): on the standard event loop every TLS "
    "connection takes 290 kB of memory; or let a proxy in front end TLS"
)

Route = Callable[[Request, Peer], Page]


@dataclass(slots=True, eq=False)
class _Visitor:
    """What the server remembers of an open WebSocket."""

    number: int
    client: Peer
    counted_as: str | None
    """The address it is counted under beyond its TCP connection's, behind a proxy."""
    allowance: int = 0


class SignalingServer:
    """A running server; made by :meth:`start`.

    ``GET /healthz`` answers ``ok``, ``GET /readyz`` whether new clients are welcome;
    ``GET /j/<room>`` is a peer for browsers, with its parts under ``/web/``. Everything else is the
    protocol ``icepunch.v1`` at ``/v1/ws``.
    """

    def __init__(
        self,
        backend: Backend,
        limits: Limits,
        engine: Engine,
        *,
        proxies: TrustedProxies | None = None,
        routes: Mapping[str, Route] | None = None,
        random: RandomSource | None = None,
        own_page: Callable[[str, str], bool] = is_same_origin,
    ) -> None:
        self.limits = limits
        self.draining = False
        self._backend = backend
        self._engine = engine
        self._proxies = proxies if proxies is not None else TrustedProxies()
        self._routes = dict(routes or {})
        self._own_page = own_page
        self._random = random if random is not None else random_module.SystemRandom()
        self.own_counters: Counter[str] = Counter()
        """What was refused before it reached the backend; part of :attr:`counters`."""
        self._connections = 0
        self._per_address: Counter[str] = Counter()
        self._accepts = Gates(limits.accept_burst, 1.0 / limits.accept_rate)
        self._sockets: dict[int, Socket] = {}
        self._last_number = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._fetching: set[asyncio.Task[None]] = set()
        self._closed = False
        self._secure = False
        self._names: list[Peer] = []

    @classmethod
    async def start(
        cls,
        host: str | Sequence[str] | None = "127.0.0.1",
        port: int = 8080,
        *,
        limits: Limits | None = None,
        engine: str | None = None,
        ssl: SSLContext | None = None,
        ice_servers: Sequence[IceServerInfo | str] = (),
        ice: IceServerSource | None = None,
        authorizer: Authorizer | None = None,
        metrics: Metrics | None = None,
        proxies: TrustedProxies | None = None,
        routes: Mapping[str, Route] | None = None,
        backend: Backend | None = None,
        random: RandomSource | None = None,
        own_page: Callable[[str, str], bool] = is_same_origin,
        **listen_options: Any,
    ) -> SignalingServer:
        """Listen on ``host`` (``None``: every interface) and ``port`` (0: any that is free).

        ``engine`` is ``websockets``, the default, or ``picows``. ``ice_servers`` are announced to
        every client; ``{host}`` in a URL becomes the host name by which the client reached this
        server. ``ice`` takes their place where every session has credentials of its own;
        ``authorizer`` says who may enter. A ``backend`` that is given has
        its own of these. ``proxies`` are believed when they say whom they speak for. ``routes`` are
        further HTTP pages by their path. ``own_page`` says whether a page of an ``Origin`` is this
        server's own, given the ``Host``. ``listen_options`` go to ``loop.create_server``. Raises
        :class:`signaling.errors.ListenFailed`, and :class:`signaling.errors.EngineMissing`.
        """
        limits = limits if limits is not None else Limits()
        if backend is None:
            servers = [
                IceServerInfo(urls=[server]) if isinstance(server, str) else server
                for server in ice_servers
            ]
            backend = MemoryBackend(
                random if random is not None else random_module.SystemRandom(),
                limits,
                ice=ice if ice is not None else IceInfo(servers=servers),
                authorizer=authorizer,
                metrics=metrics,
            )
        server = cls(
            backend,
            limits,
            load_engine(engine or engines.DEFAULT_ENGINE),
            proxies=proxies,
            routes=routes,
            random=random,
            own_page=own_page,
        )
        await server._listen(host, port, ssl, listen_options)
        return server

    async def _listen(
        self,
        host: str | Sequence[str] | None,
        port: int,
        ssl: SSLContext | None,
        options: dict[str, Any],
    ) -> None:
        where = host if isinstance(host, str) else ", ".join(host or ()) or "*"
        if not 0 <= port <= 65535:
            text = f"can not listen on {where} port {port}: ports are numbers from 0 to 65535"
            raise ListenFailed(text)
        self._loop = asyncio.get_running_loop()
        self._secure = ssl is not None
        if ssl is not None and isinstance(self._loop, asyncio.BaseEventLoop):
            raise ListenFailed(TLS_NEEDS_UVLOOP)
        options.setdefault("backlog", _BACKLOG)
        await self._backend.start(self._apply)
        try:
            self._names = list(await self._engine.listen(self, host, port, ssl, options))
        except OSError as error:
            await self._backend.close()
            why = _words(error)
            raise ListenFailed(f"can not listen on {where} port {port}: {why}") from None
        for url in self.urls:
            tell(_log, "listening", {"url": url})

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
    def ready(self) -> bool:
        """Whether new clients are welcome: ``/readyz``."""
        return not self.draining and not self._closed and self._backend.ready

    @property
    def counters(self) -> Counter[str]:
        """What was done and what was refused, by name, since the start."""
        return self._backend.counters + self.own_counters

    @property
    def sizes(self) -> dict[str, int]:
        """``rooms``, ``sessions`` (present or away), ``connections`` and more at this moment.

        ``queue_bytes`` wait to be sent, ``kept_bytes`` are there to be replayed.
        """
        waiting = sum(socket.waiting for socket in self._sockets.values())
        return {**self._backend.sizes, "queue_bytes": waiting}

    async def drain(self, window: float = 10.0) -> None:
        """Send everybody away without a stampede, then stop.

        Nobody is let in any more. Everybody hears ``drain`` and is closed with 4000, one after the
        other in random order over ``window`` seconds.
        """
        if not self.draining:
            self.draining = True
            self._engine.stop_listening()
            self._backend.drain(window, window)
            began = self._loop.time()
            numbers = sorted(self._sockets, key=lambda _: self._random.random())
            for index, number in enumerate(numbers):
                wait = began + window * index / len(numbers) - self._loop.time()
                if wait > 0:
                    await asyncio.sleep(wait)
                self._backend.dismiss(number)
        await self.close()

    async def close(self, *, jitter: float = 2.0) -> None:
        """Send everybody a ``drain`` and close code 4000, and stop within about a second.

        Clients come back after a random part of ``jitter`` seconds.
        """
        if self._closed:
            return
        self._closed = True
        if not self.draining:
            self._engine.stop_listening()
            self._backend.drain(0.0, jitter)
        for number in list(self._sockets):
            self._backend.dismiss(number)
        if self._timer is not None:
            self._timer.cancel()
        await self._engine.close()
        for task in self._fetching:
            task.cancel()
        await self._backend.close()
        _log.info("closed")

    async def __aenter__(self) -> SignalingServer:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    # HTTP

    def answer(self, request: Request, peer: Peer) -> Page | None:
        path = urlsplit(request.path).path
        if path in self._routes:
            return self._routes[path](request, peer)
        if path == "/healthz":
            return pages.text_page(HTTPStatus.OK, "ok")
        if path == "/readyz":
            if self.ready:
                return pages.text_page(HTTPStatus.OK, "ready")
            return pages.text_page(HTTPStatus.SERVICE_UNAVAILABLE, "not ready")
        if path == "/":
            return pages.text_page(HTTPStatus.OK, "ice-punch signaling server")
        if path.startswith("/j/") and is_room_name(path.removeprefix("/j/")):
            return pages.link_page()
        if path in pages.assets():
            if not self._proxies.trusts(peer[0]):
                self._accepts.refund(address_key(peer[0]), _ASSET_REFUND, self._loop.time())
            return pages.assets()[path]
        if path != SOCKET_PATH and not path.startswith(SOCKET_PATH + "/"):
            return pages.text_page(HTTPStatus.NOT_FOUND, "not found")
        offered = {
            name.strip()
            for header in request.headers("Sec-WebSocket-Protocol")
            for name in header.split(",")
        }
        if SUBPROTOCOL not in offered:
            self.own_counters["wrong_subprotocol"] += 1
            return pages.upgrade_required()
        if self._proxies.trusts(peer[0]) and not self._has_room_for(self._key(request, peer)):
            return pages.too_many()
        return None

    # Connections

    def admit(self, ip: str) -> bool:
        key = address_key(ip)
        if self._connections >= self.limits.connections:
            self._turn_away("too_many_connections", key)
            return False
        # Those a trusted proxy speaks for are counted once their request says who they are.
        if not self._proxies.trusts(ip) and not self._has_room_for(key):
            return False
        self._connections += 1
        self._per_address[key] += 1
        return True

    def release(self, ip: str) -> None:
        self._connections -= 1
        self._uncount(address_key(ip))

    def _has_room_for(self, key: str) -> bool:
        if self._per_address[key] >= self.limits.connections_per_address:
            self._turn_away("too_many_connections", key)
            return False
        if self._accepts.take(key, self._loop.time()) > 0:
            self._turn_away("too_many_accepts", key)
            return False
        return True

    def _turn_away(self, code: str, key: str) -> None:
        self.own_counters[code] += 1
        tell(_log, "refused", {"code": code, "address": key})
        if not self._per_address[key]:
            del self._per_address[key]

    def _uncount(self, key: str) -> None:
        self._per_address[key] -= 1
        if self._per_address[key] <= 0:
            del self._per_address[key]

    def _client(self, request: Request, peer: Peer) -> Peer:
        """Whom the connection speaks for; a proxy does not say which port."""
        ip = self._proxies.client_of(peer[0], request.headers("X-Forwarded-For"))
        return peer if ip == peer[0] else (ip, 0)

    def _key(self, request: Request, peer: Peer) -> str:
        return address_key(self._client(request, peer)[0])

    def on_open(self, socket: Socket, request: Request) -> None:
        client = self._client(request, socket.peer)
        counted_as = None
        if client is not socket.peer:
            counted_as = address_key(client[0])
            self._per_address[counted_as] += 1
        self._last_number += 1
        number = self._last_number
        socket.owner_data = _Visitor(number, client, counted_as)
        self._sockets[number] = socket
        host = request.one("Host") or ""
        origins = request.headers("Origin")
        # Two of them are one that nobody allowed.
        origin = ", ".join(origins) if origins else None
        if origin is not None and self._own_page(origin, host):
            origin = None
        match = _HOST.fullmatch(host)
        name = match.group(1) if match is not None else ""
        self._backend.on_open(number, client, self._loop.time(), host=name, origin=origin)

    def on_message(self, socket: Socket, data: str | bytes) -> None:
        self._backend.on_message(socket.owner_data.number, data, self._loop.time())

    def on_close(self, socket: Socket, code: int | None) -> None:
        visitor: _Visitor = socket.owner_data
        if visitor.counted_as is not None:
            self._uncount(visitor.counted_as)
        # The engine itself closes on frames over the limit.
        if code == CloseCode.TOO_BIG and self._sockets.pop(visitor.number, None) is not None:
            self.own_counters["too_large"] += 1
            tell(_log, "refused", {"code": "too_large", "address": visitor.client[0]})
        self._sockets.pop(visitor.number, None)
        self._backend.on_close(visitor.number, self._loop.time())

    # Effects

    def _apply(self, effects: list[Effect]) -> None:
        slow: list[Socket] = []
        sockets, bound = self._sockets, self.limits.out_queue
        for effect in effects:
            if effect.__class__ is Send:  # most of them by far, and a match is slow
                socket = sockets.get(effect.connection)
                if socket is None:
                    continue
                if effect.replay:
                    socket.owner_data.allowance += len(effect.text)
                waiting = socket.send_text(effect.text)
                if waiting > bound and waiting > bound + socket.owner_data.allowance:
                    slow.append(socket)
                    del sockets[effect.connection]
            else:
                self._apply_other(effect)
        # Only now: what a lost connection makes the rooms say comes after what they just said.
        for socket in slow:
            visitor = socket.owner_data
            self.own_counters["slow"] += 1
            tell(_log, "refused", {"code": "slow", "address": visitor.client[0]})
            socket.finish(CloseCode.SLOW, "slow reader")
            self._backend.on_close(visitor.number, self._loop.time())
        self._set_timer()

    def _apply_other(self, effect: Effect) -> None:
        match effect:
            case Close(connection=number, code=code, reason=reason):
                socket = self._sockets.pop(number, None)
                if socket is not None:
                    socket.finish(code, reason)
            case Pause(connection=number, seconds=seconds):
                socket = self._sockets.get(number)
                if socket is not None:
                    socket.pause(seconds)
            case AwaitIce(connection=number, servers=servers):
                task = self._loop.create_task(self._await_ice(number, servers))
                self._fetching.add(task)
                task.add_done_callback(self._fetching.discard)
            case Note(event=event, fields=fields):
                tell(_log, event, fields)

    async def _await_ice(self, number: int, servers: Awaitable[IceInfo]) -> None:
        ice: IceInfo | None = None
        try:
            async with asyncio.timeout(_ICE_TIMEOUT):
                ice = await servers
        except Exception as error:
            why = type(error).__name__
            tell(_log, "no ICE servers", {"reason": why}, logging.WARNING)
        self._backend.on_ice_servers(number, ice, self._loop.time())

    def _set_timer(self) -> None:
        at = self._backend.get_timer()
        if at is None or self._closed:
            return
        if self._timer is not None:
            # uvloop's handle of what is due already does not know when it is.
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._backend.on_timer(self._loop.time())
        self._set_timer()


def _words(error: OSError) -> str:
    # asyncio wraps the system's words in its own; a resolver's error numbers are negative.
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    if "could not bind on any address" in str(error):  # Python 3.13 and later
        return os.strerror(errno.EADDRNOTAVAIL).lower()
    return error.strerror or str(error)
