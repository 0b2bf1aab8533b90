"""What the signaling server answers to plain HTTP: small, static, and without third parties."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files

from signaling.messages import SUBPROTOCOL

_SAFE_HEADERS = (
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
)
_NO_STORE = ("Cache-Control", "no-store")
_NOTHING = ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
_LINK_POLICY = (
    "Content-Security-Policy",
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
)

ASSET_PATH = "/web/"
_WEB = files("signaling") / "web"
_CONTENT_TYPES = {
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}
_ASSET_NAME = re.compile(r"[a-z0-9-]+\.(js|css|svg)", re.ASCII)
_ASSET_HEADERS = (
    _NOTHING,
    ("Cache-Control", "public, max-age=300"),
    # The modules are for pages of other servers too; nothing in them is anybody's secret.
    ("Access-Control-Allow-Origin", "*"),
    ("Cross-Origin-Resource-Policy", "cross-origin"),
)


@dataclass(frozen=True, slots=True)
class Page:
    """An HTTP answer, whichever engine sends it."""

    status: HTTPStatus
    body: bytes
    headers: tuple[tuple[str, str], ...]


def server_name() -> str:
    """The ``Server`` header."""
    try:
        return f"ice-punch/{version('ice-punch')}"
    except PackageNotFoundError:
        return "ice-punch"


@cache
def link_page() -> Page:
    """What a browser shows at a link: a peer."""
    body = (_WEB / "index.html").read_bytes()
    return _answer(HTTPStatus.OK, body, "text/html; charset=utf-8", _NO_STORE, _LINK_POLICY)


@cache
def assets() -> dict[str, Page]:
    """The page's modules, style and icon by their paths."""
    return {
        ASSET_PATH + file.name: _answer(
            HTTPStatus.OK,
            file.read_bytes(),
            _CONTENT_TYPES[file.name.rpartition(".")[2]],
            *_ASSET_HEADERS,
        )
        for file in _WEB.iterdir()
        if _ASSET_NAME.fullmatch(file.name)
    }


def text_page(status: HTTPStatus, text: str, *headers: tuple[str, str]) -> Page:
    return page(status, text + "\n", "text/plain; charset=utf-8", *headers)


def method_not_allowed() -> Page:
    """RFC 9110 section 15.5.6."""
    return text_page(HTTPStatus.METHOD_NOT_ALLOWED, "method not allowed", ("Allow", "GET, HEAD"))


def upgrade_required() -> Page:
    """RFC 9110 section 15.5.22; browsers do not show it to scripts, people with curl see it."""
    return text_page(
        HTTPStatus.UPGRADE_REQUIRED,
        f"This endpoint speaks WebSocket with the subprotocol {SUBPROTOCOL}.",
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Protocol", SUBPROTOCOL),
    )


def too_many_connections() -> bytes:
    """A whole HTTP answer, for a connection that is not worth a parser."""
    body = b"Too many connections from this address.\n"
    return (
        b"HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\nRetry-After: 5\r\n"
        b"Content-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )


def too_many() -> Page:
    """For a client behind a proxy, whose address is known only by its request."""
    return text_page(
        HTTPStatus.TOO_MANY_REQUESTS,
        "Too many connections from this address.",
        ("Retry-After", "5"),
    )


def page(
    status: HTTPStatus, body: str | bytes, content_type: str, *headers: tuple[str, str]
) -> Page:
    """Any answer; nobody may keep it, or show it in a frame with scripts of others."""
    data = body.encode("utf-8") if isinstance(body, str) else body
    return _answer(status, data, content_type, _NO_STORE, _NOTHING, *headers)


def _answer(status: HTTPStatus, data: bytes, content_type: str, *headers: tuple[str, str]) -> Page:
    fields = (
        ("Content-Type", content_type),
        ("Content-Length", str(len(data))),
        ("Connection", "close"),
    )
    return Page(status, data, (*fields, *_SAFE_HEADERS, *headers))
