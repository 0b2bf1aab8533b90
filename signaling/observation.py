"""``/metrics``, ``/healthz`` and ``/readyz`` for whoever operates a server."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import Callable
from http import HTTPStatus
from ipaddress import ip_address

from signaling.metrics import CONTENT_TYPE, ServerMetrics

_REQUEST_TIMEOUT = 5.0
_REQUEST_MAX = 8192
_AT_ONCE = 32


def may_observe(peer: str, authorization: str | None, forwarded: bool, token: bytes | None) -> bool:
    """Whether a request for ``/metrics`` is answered.

    With a ``token`` its bearers may ask, from anywhere; without one this machine, and no proxy on
    it that speaks for others (``forwarded``).
    """
    if token is not None:
        scheme, _, given = (authorization or "").partition(" ")
        proven = hmac.compare_digest(given.strip().encode("utf-8", "replace"), token)
        return scheme.lower() == "bearer" and proven
    if forwarded:
        return False
    try:
        address = ip_address(peer.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


class ObservationServer:
    """A port of its own for those three pages, and no other."""

    def __init__(
        self, metrics: ServerMetrics, ready: Callable[[], bool], token: bytes | None
    ) -> None:
        self._metrics = metrics
        self._ready = ready
        self._token = token
        self._writers: set[asyncio.StreamWriter] = set()

    async def listen(self, host: str, port: int) -> int:
        """The port. Raises ``OSError``."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=_REQUEST_MAX)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._writers) >= _AT_ONCE:
            writer.transport.abort()
            return
        self._writers.add(writer)
        try:
            async with asyncio.timeout(_REQUEST_TIMEOUT):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(head, writer.get_extra_info("peername")[0]))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _answer(self, head: bytes, peer: str) -> bytes:
        request, *lines = head.decode("latin-1").split("\r\n")
        method, _, rest = request.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        if method not in ("GET", "HEAD"):
            return _http(HTTPStatus.METHOD_NOT_ALLOWED, b"GET only\n")
        if path == "/healthz":
            return _http(HTTPStatus.OK, b"ok\n")
        if path == "/readyz":
            if self._ready():
                return _http(HTTPStatus.OK, b"ready\n")
            return _http(HTTPStatus.SERVICE_UNAVAILABLE, b"not ready\n")
        if path != "/metrics":
            return _http(HTTPStatus.NOT_FOUND, b"not found\n")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        if not may_observe(peer, headers.get("authorization"), False, self._token):
            return _http(HTTPStatus.UNAUTHORIZED, b"a bearer token is needed\n")
        return _http(HTTPStatus.OK, self._metrics.render(), CONTENT_TYPE)


def _http(
    status: HTTPStatus, body: bytes, content_type: str = "text/plain; charset=utf-8"
) -> bytes:
    return (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    ).encode("ascii") + body
