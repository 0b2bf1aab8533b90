"""The link one peer gives another: where the server is, which room, and a secret for the peers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from hashlib import sha256
from urllib.parse import SplitResult, urlsplit

from signaling.errors import InvalidLink, InvalidServerUrl
from signaling.limits import is_room_name
from signaling.randomness import RandomSource, base64url, from_base64url

SOCKET_PATH = "/v1/ws"
"""Where the server expects WebSockets."""
SECRET_BYTES = 16
_SECRET_MAX_BYTES = 64
_ROOM_PREFIX = b"icepunch.v1 room\0"
_PATH_PREFIX = b"icepunch.v1 path\0"
_PATH_DIGITS = 4
"""Enough to spread rooms over processes; too few to tell a room, even from a list of names."""
_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9.])?", re.ASCII)
_DEFAULT_PORTS = {False: 80, True: 443}


@dataclass(frozen=True, slots=True)
class ServerUrl:
    """Where a signaling server is: ``http(s)://host[:port]``, or the same with ``ws(s)``."""

    secure: bool
    host: str
    """A name or an IP address, without brackets."""
    port: int

    @classmethod
    def parse(cls, text: str) -> ServerUrl:
        """Raises :class:`InvalidServerUrl`."""
        text = text.strip()
        try:
            parts = urlsplit(text)
        except ValueError:
            raise InvalidServerUrl(f"{_shown(text)} is not a URL") from None
        try:
            server = cls.of(parts)
        except ValueError as error:
            raise InvalidServerUrl(f"{_shown(text)} is no signaling server: {error}") from None
        if parts.path not in ("", "/", SOCKET_PATH) or parts.query or parts.fragment:
            raise InvalidServerUrl(
                f"{_shown(text)} is no signaling server: give it as http(s)://host[:port]"
            )
        return server

    @classmethod
    def of(cls, parts: SplitResult) -> ServerUrl:
        """The server in a URL already split. Raises ``ValueError`` with half a sentence."""
        if parts.scheme not in ("http", "https", "ws", "wss"):
            raise ValueError("it must begin with http:// or https://")
        if "@" in parts.netloc:
            raise ValueError("a user name has no place in it")
        host = parts.hostname or ""
        if not host:
            raise ValueError("it names no host")
        if not host.isascii():
            try:
                host = host.encode("idna").decode("ascii")
            except UnicodeError:
                raise ValueError("its host name is not valid") from None
        if ":" not in host and not _HOST_NAME.fullmatch(host):
            raise ValueError("its host name is not valid")
        try:
            port = parts.port
        except ValueError:
            raise ValueError("its port is not a number from 1 to 65535") from None
        if port == 0 or parts.netloc.endswith(":"):
            raise ValueError("its port is not a number from 1 to 65535")
        secure = parts.scheme in ("https", "wss")
        return cls(secure, host, port if port is not None else _DEFAULT_PORTS[secure])

    @property
    def authority(self) -> str:
        """``host[:port]``, the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.secure] else f"{host}:{self.port}"

    @property
    def websocket_url(self) -> str:
        return f"{'wss' if self.secure else 'ws'}://{self.authority}{SOCKET_PATH}"

    def room_url(self, room: str) -> str:
        """Where a client opens its WebSocket for ``room``, as it is called on the wire.

        See :func:`room_path`.
        """
        return f"{self.websocket_url.removesuffix(SOCKET_PATH)}{room_path(room)}"

    def __str__(self) -> str:
        return f"{'https' if self.secure else 'http'}://{self.authority}"


def wire_room(room: str) -> str:
    """What a link's room is called on the wire: a hash, from which nobody can tell the link."""
    return base64url(sha256(_ROOM_PREFIX + room.encode("utf-8")).digest())


def room_path(room: str) -> str:
    """``/v1/ws/<hash>``, by which a proxy brings all peers of ``room`` to the same process.

    ``room`` is its name on the wire. Whoever knows that may enter, and access logs show paths:
    16 bits of a hash of it tell nothing.
    """
    digest = sha256(_PATH_PREFIX + room.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{SOCKET_PATH}/{digest[:_PATH_DIGITS]}"


@dataclass(frozen=True, slots=True)
class Link:
    """``http(s)://host[:port]/j/<room>#<secret>``.

    The part after ``#`` is never sent to the server, by browsers or by this package.
    """

    server: ServerUrl
    room: str
    secret: bytes = field(repr=False)
    """Shared by the peers of the link, unknown to the server; at least 128 bits."""

    @classmethod
    def create(cls, server_url: str, random: RandomSource) -> Link:
        """A new room on the server, with a new secret. Raises :class:`InvalidServerUrl`."""
        server = ServerUrl.parse(server_url)
        return cls(server, base64url(random.randbytes(16)), random.randbytes(SECRET_BYTES))

    @classmethod
    def parse(cls, text: str) -> Link:
        """The link in ``text``. Raises :class:`InvalidLink`, whose text never shows the secret."""
        text = text.strip()
        if not text:
            raise InvalidLink("the link is empty")
        if any(character.isspace() or not character.isprintable() for character in text):
            raise InvalidLink("the link is broken: it has blanks or line breaks inside")
        address, _, fragment = text.partition("#")
        try:
            parts = urlsplit(address)
        except ValueError:
            raise InvalidLink("the link is not a URL") from None
        try:
            server = ServerUrl.of(parts)
        except ValueError as error:
            raise InvalidLink(f"this is not an ice-punch link: {error}") from None
        return cls(server, _room(parts), _secret(fragment))

    @property
    def websocket_url(self) -> str:
        """Where the server expects WebSockets; has no room and no secret in it."""
        return self.server.websocket_url

    @property
    def wire_room(self) -> str:
        """The name of the room as the server hears it; see :func:`wire_room`."""
        return wire_room(self.room)

    @property
    def without_secret(self) -> str:
        """The link up to ``#``: good for logs of those who may enter the room, useless to join."""
        return f"{self.server}/j/{self.room}"

    def __str__(self) -> str:
        return f"{self.without_secret}#{base64url(self.secret)}"


def _shown(text: str) -> str:
    # Somebody may give a whole link, or a URL with a password.
    return "the URL" if "#" in text or "@" in text else repr(text)


def _room(parts: SplitResult) -> str:
    prefix, _, room = parts.path.rpartition("/")
    if prefix != "/j" and parts.path not in ("", "/", "/j"):
        raise InvalidLink(
            "this is not an ice-punch link this version knows: it should read "
            "http(s)://host/j/<room>#<secret>"
        )
    if prefix != "/j" or not room:
        raise InvalidLink("the link names no room: it should read http(s)://host/j/<room>#<secret>")
    if parts.query:
        raise InvalidLink("the link has a query (?...), which a link never has")
    if not is_room_name(room):
        raise InvalidLink("the link's room is cut off or garbled: copy the whole link")
    return room


def _secret(fragment: str) -> bytes:
    if not fragment:
        raise InvalidLink(
            "the link has no secret: the part after # is missing (put the link in quotes)"
        )
    # Format 1 is bare base64url. A later one is to be "<number>.<...>".
    version, dot, _ = fragment.partition(".")
    if dot and version.isdigit():
        raise InvalidLink(
            f"the link is of format {version[:8]}, which this version of ice-punch does not know"
        )
    try:
        secret = from_base64url(fragment)
    except ValueError:
        secret = bytes(_SECRET_MAX_BYTES + 1)
    if len(secret) > _SECRET_MAX_BYTES:
        raise InvalidLink("the link's secret (after #) is garbled: copy the whole link")
    if len(secret) < SECRET_BYTES:
        raise InvalidLink("the link's secret (after #) is cut off: copy the whole link")
    return secret
