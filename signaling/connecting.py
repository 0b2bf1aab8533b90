"""Opening a WebSocket to a signaling server, and saying in one sentence why it did not work."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl as ssl_module
from ipaddress import ip_address
from typing import Any
from urllib.request import getproxies, proxy_bypass

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    InvalidHandshake,
    InvalidMessage,
    InvalidProxy,
    InvalidStatus,
    NegotiationError,
    ProxyError,
)
from websockets.typing import Subprotocol

from signaling.dialing import DELAY, dial
from signaling.errors import ServerUnreachable, SignalingError, VersionRefused
from signaling.limits import SERVER_FRAME
from signaling.link import ServerUrl
from signaling.messages import SUBPROTOCOL

# The library's debug log shows frames, and those carry session keys and payloads.
_silent = logging.getLogger("signaling.client.websockets")
_silent.setLevel(logging.CRITICAL + 1)

_BUSY = (429, 503)
_NOBODY_BEHIND = (502, 504)
_UNROUTABLE = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL}
_BROKEN_OFF = {errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED}
# AssertionError: what the library raises on a service that speaks before it is spoken to.
_FAILURES = (
    OSError,
    EOFError,
    ValueError,
    ImportError,
    AssertionError,
    InvalidHandshake,
    InvalidProxy,
)


async def open_socket(
    server: ServerUrl,
    room: str,
    *,
    ssl: ssl_module.SSLContext | None = None,
    close_timeout: float = 1.0,
) -> ClientConnection:
    """A WebSocket to ``server`` that speaks ``icepunch.v1``, for ``room`` as the wire calls it.

    Raises :class:`ServerUnreachable` or :class:`VersionRefused`. Has no timeout of its own.
    """
    options: dict[str, Any] = {}
    if server.secure and ssl is not None:
        options["ssl"] = ssl
    proxy = _proxy(server)
    opening = connect
    if not isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop):
        opening = _Racing
    elif not _is_ip(server.host):
        # Only names have several addresses to race; asyncio loses a socket when one is cancelled.
        options["happy_eyeballs_delay"] = DELAY
    try:
        connection = await opening(
            server.room_url(room),
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            user_agent_header="ice-punch",
            proxy=proxy,
            open_timeout=None,
            ping_interval=None,
            close_timeout=close_timeout,
            max_size=SERVER_FRAME,
            logger=_silent,
            **options,
        )
    except _FAILURES as error:
        raise _explain(error, server) from error
    if connection.subprotocol != SUBPROTOCOL:
        connection.transport.abort()
        raise _not_signaling(server, "it speaks WebSocket, but not this protocol")
    return connection


class _Racing(connect):
    """For event loops that try the addresses of a name one after the other, such as uvloop.

    That is to wait for minutes where one does not answer. Versions of the library before 17 do not
    know the method, and wait.
    """

    async def open_tcp_connection(self) -> ClientConnection:
        if self.proxy is not None or _is_ip(self.ws_uri.host):
            return await super().open_tcp_connection()
        # For this connection alone: after a redirection another one is made.
        usual = self.create_connection_kwargs
        sock = await dial(self.ws_uri.host, self.ws_uri.port)
        self.create_connection_kwargs = {**usual, "sock": sock}
        try:
            return await super().open_tcp_connection()
        finally:
            self.create_connection_kwargs = usual


def _proxy(server: ServerUrl) -> str | None:
    """The URL of the proxy that the environment or the system wants used, never to this host.

    Which of several counts is the library's rule (RFC 6455 section 4.1), but that it does not know
    ``all_proxy``, nor proxies without a scheme.
    """
    if _is_loopback(server.host) or proxy_bypass(f"{server.host}:{server.port}"):
        return None
    proxies = getproxies()
    schemes = ("wss", "socks", "https") if server.secure else ("ws", "socks", "https", "http")
    scheme = next((scheme for scheme in (*schemes, "all") if proxies.get(scheme)), None)
    if scheme is None:
        return None
    kind, _, where = proxies[scheme].rpartition("://")
    if kind == "socks" or (scheme == "socks" and kind in ("", "http")):
        kind = "socks5h"
    return f"{kind or 'http'}://{where}"


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _not_signaling(server: ServerUrl, why: str) -> ServerUnreachable:
    return ServerUnreachable(f"{server} is not a signaling server: {why}", "not-signaling")


def _explain(error: Exception, server: ServerUrl) -> SignalingError:
    match error:
        case ProxyError() | InvalidProxy() | ImportError():
            return ServerUnreachable(f"the proxy to {server} does not work: {error}", "proxy")
        case InvalidStatus():
            return _explain_status(error.response.status_code, server)
        case NegotiationError():
            return _not_signaling(server, "it speaks WebSocket, but not this protocol")
        case InvalidMessage() | EOFError() | AssertionError():
            return _not_signaling(server, "what it answers is not HTTP")
        case InvalidHandshake():
            return _not_signaling(server, f"its WebSocket handshake is wrong ({error})")
        case socket.gaierror():
            return ServerUnreachable(f"the name {server.host!r} can not be resolved", "name")
        case ssl_module.SSLCertVerificationError():
            why = error.verify_message
            text = f"the TLS certificate of {server} is not trusted: {why}"
            return ServerUnreachable(text, "tls")
        case ssl_module.SSLError():
            why = (error.reason or "no reason given").lower().replace("_", " ")
            return ServerUnreachable(f"TLS with {server} failed: {why}", "tls")
        case TimeoutError():
            return no_answer(server)
        case OSError():
            return _explain_system(error, server)
        case _:
            return ServerUnreachable(f"{server} can not be reached: {error}", "network")


def no_answer(server: ServerUrl, seconds: float | None = None) -> ServerUnreachable:
    within = f" within {seconds:g} s" if seconds is not None else ""
    return ServerUnreachable(f"{server} did not answer{within}", "timeout")


def _explain_status(status: int, server: ServerUrl) -> SignalingError:
    if status == 426:
        text = f"{server} does not speak {SUBPROTOCOL}: client and server versions differ"
        return VersionRefused(text, code="version")
    if status in _BUSY:
        return ServerUnreachable(f"{server} takes no more connections from here now", "busy")
    if status in _NOBODY_BEHIND:
        text = f"the proxy at {server} does not reach its server now (HTTP {status})"
        return ServerUnreachable(text, "busy")
    return _not_signaling(server, f"it answers HTTP {status}")


def _explain_system(error: OSError, server: ServerUrl) -> ServerUnreachable:
    # When several addresses fail, asyncio raises one error that has only the text of each.
    numbers = {error.errno} if error.errno is not None else set()
    numbers |= {number for number in errno.errorcode if f"[Errno {number}]" in str(error)}
    if errno.ECONNREFUSED in numbers:
        return ServerUnreachable(f"no server is listening at {server}", "refused")
    if errno.ETIMEDOUT in numbers:
        return no_answer(server)
    if server.secure and (isinstance(error, ConnectionError) or numbers & _BROKEN_OFF):
        text = f"TLS with {server} failed: it broke off the handshake (does it want http:// ?)"
        return ServerUnreachable(text, "tls")
    if numbers & _BROKEN_OFF or isinstance(error, ConnectionError):
        return ServerUnreachable(f"{server} broke the connection off", "network")
    if numbers & _UNROUTABLE:
        return ServerUnreachable(f"there is no route to {server}", "network")
    return ServerUnreachable(f"{server} can not be reached: {error}", "network")
