"""What the signaling server answers to plain HTTP: small, static, and without third parties."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version

from signaling.messages import SUBPROTOCOL

_LINK_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>ice-punch link</title>
<style>
body { font: 1.1em/1.5 system-ui, sans-serif; max-width: 38em; margin: 3em auto; padding: 0 1em }
pre { background: #8882; padding: .8em; overflow-x: auto }
</style>
<h1>This is an ice-punch link</h1>
<p>Somebody waits at the other end for a direct connection from you.
Copy the whole address of this page, with everything after the <code>#</code>, and run:</p>
<pre>ice-punch connect 'THE-ADDRESS'</pre>
<p>The part after the <code>#</code> is a secret between the two of you.
Your browser does not send it to this server.</p>
"""

_SAFE_HEADERS = (
    ("Cache-Control", "no-store"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'"),
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


def link_page() -> Page:
    return page(HTTPStatus.OK, _LINK_PAGE, "text/html; charset=utf-8")


def text_page(status: HTTPStatus, text: str, *headers: tuple[str, str]) -> Page:
    return page(status, text + "\n", "text/plain; charset=utf-8", *headers)


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
    fields = (
        ("Content-Type", content_type),
        ("Content-Length", str(len(data))),
        ("Connection", "close"),
    )
    return Page(status, data, (*fields, *_SAFE_HEADERS, *headers))
