"""What the signaling server answers to plain HTTP: small, static, and without third parties."""

from __future__ import annotations

from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version

from websockets.datastructures import Headers
from websockets.http11 import Response

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


def server_name() -> str:
    """The ``Server`` header."""
    try:
        return f"ice-punch/{version('ice-punch')}"
    except PackageNotFoundError:
        return "ice-punch"


def link_page() -> Response:
    return _response(HTTPStatus.OK, _LINK_PAGE, "text/html; charset=utf-8")


def text_page(status: HTTPStatus, text: str, *headers: tuple[str, str]) -> Response:
    return _response(status, text + "\n", "text/plain; charset=utf-8", *headers)


def upgrade_required() -> Response:
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


def _response(
    status: HTTPStatus, body: str, content_type: str, *headers: tuple[str, str]
) -> Response:
    data = body.encode("utf-8")
    fields = Headers()
    fields["Content-Type"] = content_type
    fields["Content-Length"] = str(len(data))
    fields["Connection"] = "close"
    for name, value in (*_SAFE_HEADERS, *headers):
        fields[name] = value
    return Response(status.value, status.phrase, fields, data)
