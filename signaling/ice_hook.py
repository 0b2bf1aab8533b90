"""ICE servers from somebody else's HTTP interface: a provider of relays, or a program of yours."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import logging
import socket
import ssl as ssl_module
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec

from signaling.addresses import address_key
from signaling.errors import HookFailed, InvalidIceServer
from signaling.gates import Gates
from signaling.hooks import IceRequest
from signaling.messages import IceInfo, IceServerInfo
from signaling.telling import tell
from signaling.turn_credentials import TTL, TTL_MAX, TTL_MIN, user_name

_log = logging.getLogger("signaling.ice_hook")

TIMEOUT = 2.5
"""Seconds from the question to the whole answer; the rooms wait no longer than 3."""
ANSWER_MAX = 64 * 1024
SERVERS_MAX = 16
AT_ONCE = 16
"""Questions on their way; with more, a session has to do without."""
PAUSE = 5.0
"""Seconds without a question after one failed: sessions do not wait for what is down."""
RETRY_TTL = TTL_MIN
"""The lifetime a session is told when there was no answer: it asks again before that."""

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
_Urls = Annotated[list[_Text], msgspec.Meta(min_length=1, max_length=16)]


class _Server(msgspec.Struct):
    urls: _Text | _Urls
    username: _Text | None = None
    credential: _Text | None = None


_Servers = Annotated[list[_Server], msgspec.Meta(max_length=SERVERS_MAX)]


class _Answer(msgspec.Struct):
    """A W3C-like list (Cloudflare, Metered), Twilio's spelling of it, or Matrix's flat form."""

    iceServers: _Servers | None = None  # noqa: N815
    ice_servers: _Servers | None = None
    uris: _Urls | None = None
    username: _Text | None = None
    password: _Text | None = None
    ttl: int | float | str | None = None


@dataclass(frozen=True, slots=True)
class HookRequest:
    """Where and how to ask. ``headers`` hold the key to the interface and are never logged."""

    url: str
    headers: Mapping[str, str] = field(repr=False, default_factory=dict)
    method: Literal["POST", "GET"] = "POST"
    ttl: int = TTL

    def __post_init__(self) -> None:
        """Raises :class:`InvalidIceServer`."""
        try:
            parts = urlsplit(self.url)
            usable = (
                parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc
            )
            usable = usable and parts.port != 0 and self.url.isascii() and self.url.isprintable()
        except ValueError:
            usable = False
        if not usable or " " in self.url:
            raise InvalidIceServer("the hook for ICE servers needs a URL, http(s)://...")
        local = parts.hostname in ("localhost", "127.0.0.1", "::1")
        if parts.scheme == "http" and not local:
            raise InvalidIceServer("the hook for ICE servers hands out passwords: it needs https")
        if not TTL_MIN <= self.ttl <= TTL_MAX:
            raise InvalidIceServer(f"relay credentials last {TTL_MIN} to {TTL_MAX} seconds")


def parse_headers(text: str) -> dict[str, str]:
    """``Name: value`` lines of a file. Raises :class:`InvalidIceServer`."""
    headers: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip():
            continue
        name, colon, value = line.partition(":")
        name, value = name.strip(), value.strip()
        if not colon or not name.replace("-", "").isalnum() or not value.isprintable():
            raise InvalidIceServer("the headers of the hook should read NAME: VALUE, one a line")
        headers[name] = value
    return headers


class IceHook:
    """An :class:`signaling.hooks.IceServerSource` that asks ``request`` for every session anew.

    It is sent ``{"ttl", "user", "customIdentifier"}`` and answers with one of the forms providers
    have. Redirections are not followed. A failure is logged and counted, and the session goes on
    without these servers.
    """

    def __init__(
        self,
        request: HookRequest,
        *,
        ssl: ssl_module.SSLContext | None = None,
        timeout: float = TIMEOUT,
        clock: Callable[[], float] = time.monotonic,
        session_burst: int = 3,
        session_interval: float = 10.0,
        address_burst: int = 200,
        address_interval: float = 1.0,
    ) -> None:
        self.asked = 0
        self.failed = 0
        self.capped = 0
        self._request = request
        self._ssl = ssl
        self._timeout = timeout
        self._clock = clock
        self._sessions = Gates(session_burst, session_interval)
        self._addresses = Gates(address_burst, address_interval)
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="ice-hook")
        self._under_way = 0
        self._paused_until = 0.0

    def ice_servers(self, request: IceRequest) -> IceInfo | Awaitable[IceInfo]:
        if not request.relay:
            return IceInfo(servers=[])
        now, address = self._clock(), address_key(request.address)
        without = IceInfo(servers=[], ttl=RETRY_TTL)
        if now < self._paused_until or self._under_way >= AT_ONCE:
            return without
        if self._sessions.wait(request.peer, now) or self._addresses.wait(address, now):
            self.capped += 1
            return without
        self._sessions.count(request.peer, now)
        self._addresses.count(address, now)
        self.asked += 1
        self._under_way += 1
        return self._answer(user_name(request), without)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _answer(self, user: str, without: IceInfo) -> IceInfo:
        connection = self._connection()
        try:
            async with asyncio.timeout(self._timeout):
                text = await asyncio.get_running_loop().run_in_executor(
                    self._threads, self._ask, connection, user
                )
            return _read_answer(text, self._request.ttl)
        except (HookFailed, OSError, http.client.HTTPException) as error:
            self.failed += 1
            self._paused_until = self._clock() + PAUSE
            why = "no answer in time" if isinstance(error, TimeoutError) else str(error)
            host = connection.host
            tell(_log, "ice hook failed", {"host": host, "reason": why}, logging.WARNING)
            return without
        finally:
            self._under_way -= 1
            # The thread may still wait for the other side: take its socket away.
            sock = connection.sock
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def _connection(self) -> http.client.HTTPConnection:
        parts = urlsplit(self._request.url)
        assert parts.hostname is not None
        if parts.scheme == "http":
            return http.client.HTTPConnection(parts.hostname, parts.port, timeout=self._timeout)
        context = self._ssl or ssl_module.create_default_context()
        return http.client.HTTPSConnection(
            parts.hostname, parts.port, timeout=self._timeout, context=context
        )

    def _ask(self, connection: http.client.HTTPConnection, user: str) -> bytes:
        """In a thread: put the question, read the whole answer."""
        request = self._request
        parts = urlsplit(request.url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        headers = {"Accept": "application/json", "User-Agent": "ice-punch", **request.headers}
        body = None
        if request.method == "POST":
            headers.setdefault("Content-Type", "application/json")
            body = json.dumps({"ttl": request.ttl, "user": user, "customIdentifier": user})
        try:
            connection.request(request.method, target, body=body, headers=headers)
            response = connection.getresponse()
            if response.status not in (200, 201):
                raise HookFailed(f"HTTP status {response.status}")
            text = response.read(ANSWER_MAX + 1)
        finally:
            connection.close()
        if len(text) > ANSWER_MAX:
            raise HookFailed(f"an answer of more than {ANSWER_MAX} bytes")
        return text


def _read_answer(text: bytes, ttl: int) -> IceInfo:
    try:
        answer = msgspec.json.decode(text, type=_Answer)
        lifetime = ttl if answer.ttl is None else int(float(answer.ttl))
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
        raise HookFailed("an answer that is no list of ICE servers") from None
    listed: Sequence[Any] | None = answer.iceServers
    if listed is None:
        listed = answer.ice_servers
    if listed is None and answer.uris is not None:
        listed = [_Server(answer.uris, answer.username, answer.password)]
    if listed is None:
        raise HookFailed("an answer that is no list of ICE servers")
    servers = [
        IceServerInfo(
            urls=[server.urls] if isinstance(server.urls, str) else server.urls,
            username=server.username,
            credential=server.credential,
        )
        for server in listed
    ]
    return IceInfo(servers=servers, ttl=max(TTL_MIN, min(lifetime, TTL_MAX)))
