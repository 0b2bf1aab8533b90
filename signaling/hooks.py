"""What the server asks of others: who may enter, which ICE servers, where to count. Sans-IO.

The rooms call these objects; a clock, a secret or a network that one of them needs is its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from msgspec.structs import replace

from signaling.limits import ROOM_MAX_LENGTH, ROOM_MIN_LENGTH, is_room_name
from signaling.messages import ErrorCode, Hello, IceInfo, Outcome


@dataclass(frozen=True, slots=True)
class Grant:
    """What a peer that is let in may do."""

    subject: str = ""
    """Who it is, for logs and for the user names of relay credentials. No secret."""
    call: bool = True
    """Whether it may send signals; without it, it only sees who is there."""
    relay: bool = True
    """Whether it may be given relay credentials."""
    max_peers: int | None = None
    """Seats of the room if this peer is its first; the server's own limit holds all the same."""


class Denied(NamedTuple):
    """Why a peer is not let in. ``text`` is one sentence for a person."""

    code: ErrorCode
    """``unauthorized``, ``token_expired``, ``forbidden_origin``, ``bad_room`` or ``busy``."""
    text: str
    retry_after: float | None = None
    """Seconds, for ``busy`` only."""


class Authorizer(Protocol):
    def authorize(self, hello: Hello, address: str, origin: str | None) -> Grant | Denied:
        """Judge a ``hello`` that is well-formed, before anything is done about it.

        ``address`` is the client's IP address as the server knows it (behind a trusted proxy, what
        the proxy says); ``origin`` the ``Origin`` header, ``None`` from a program that is no
        browser. Must return at once. Not asked when a session is resumed: its key is the proof.
        """


class IceRequest(NamedTuple):
    """For whom ICE servers are wanted."""

    peer: str
    """The id of the session in its room."""
    subject: str
    """As in its :class:`Grant`."""
    relay: bool
    host: str
    """The host name by which the client reached this server; ``""`` if it is not known."""
    address: str


class IceServerSource(Protocol):
    def ice_servers(self, request: IceRequest) -> IceInfo | Awaitable[IceInfo]:
        """The ICE servers for a session, at its beginning and again at 80 % of their ``ttl``.

        Whoever has to ask over a network returns an awaitable. It has 3 s; past that, or if it
        raises, the session gets the servers that need no credentials: none.
        """


class Metrics(Protocol):
    """Where everything is counted. ``counters`` is added to directly: names in snake_case."""

    @property
    def counters(self) -> Counter[str]: ...

    def outcome(self, outcome: Outcome, seconds: float | None) -> None:
        """A peer reported how an attempt ended, and how long a path took."""


@dataclass(slots=True)
class Tally:
    """The plain :class:`Metrics`: it counts and keeps no times."""

    counters: Counter[str] = field(default_factory=Counter)

    def outcome(self, outcome: Outcome, seconds: float | None) -> None:
        self.counters[f"outcome_{outcome}"] += 1


class Capabilities:
    """The default :class:`Authorizer`: who knows a name of at least 128 bits may enter."""

    def authorize(self, hello: Hello, address: str, origin: str | None) -> Grant | Denied:
        if is_room_name(hello.room):
            return Grant()
        text = (
            f"a room's name is {ROOM_MIN_LENGTH} to {ROOM_MAX_LENGTH} characters of base64url, "
            "128 random bits or more"
        )
        return Denied(ErrorCode.BAD_ROOM, text)


class SameIceServers:
    """The default :class:`IceServerSource`: the same for everybody.

    ``{host}`` in a URL becomes the host name by which the client reached the server; without one
    such a server is left out. Servers with credentials are only for those with ``relay``.
    """

    def __init__(self, ice: IceInfo) -> None:
        self._ice = ice

    def ice_servers(self, request: IceRequest) -> IceInfo:
        return replace(
            self._ice,
            servers=[
                replace(server, urls=[url.replace("{host}", request.host) for url in server.urls])
                for server in self._ice.servers
                if (request.host or not any("{host}" in url for url in server.urls))
                and (request.relay or server.credential is None)
            ],
        )
