"""Relay credentials, a fresh pair for every session, by the secret a TURN server shares with us.

The scheme is coturn's ``use-auth-secret`` (draft-uberti-behave-turn-rest-00): the user name is the
time it expires, a colon and a name; the password is the base64 of an HMAC-SHA1 of the user name.
The TURN server needs no list of users and no word with this one.
"""

from __future__ import annotations

import re
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hmac import digest

from signaling.addresses import address_key
from signaling.errors import InvalidIceServer
from signaling.gates import Gates
from signaling.hooks import IceRequest, IceServerSource
from signaling.messages import IceInfo, IceServerInfo

TTL = 3600
"""Seconds; the server looks at it when an allocation is made, not while it lives."""
TTL_MIN = 60
TTL_MAX = 24 * 3600
SECRET_MIN_LENGTH = 16

_TURN_URL = re.compile(
    r"turns?:(\{host\}|[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?"
    r"(\?transport=(udp|tcp))?",
    re.ASCII,
)
_NOT_A_NAME = re.compile(r"[^A-Za-z0-9._@-]", re.ASCII)


@dataclass(frozen=True, slots=True)
class TurnServer:
    """A TURN server and the secret shared with it; ``{host}`` in a URL as for STUN servers."""

    urls: tuple[str, ...]
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Raises :class:`InvalidIceServer`."""
        if not self.urls:
            raise InvalidIceServer("a TURN server needs a URL")
        for url in self.urls:
            if _TURN_URL.fullmatch(url) is None:
                text = f"{url[:80]!r} is no TURN server: turn:HOST[:PORT][?transport=tcp]"
                raise InvalidIceServer(text)
        if len(self.secret) < SECRET_MIN_LENGTH:
            text = f"the secret of a TURN server has {SECRET_MIN_LENGTH} bytes or more"
            raise InvalidIceServer(text)


def turn_credentials(secret: bytes, name: str, expires: int) -> tuple[str, str]:
    """User name and password that are good until ``expires``, in seconds since 1970."""
    username = f"{expires}:{name}"
    return username, b64encode(digest(secret, username.encode("utf-8"), "sha1")).decode("ascii")


class TurnCredentials:
    """An :class:`signaling.hooks.IceServerSource` that mints for every session anew.

    A session gets ``session_burst`` at once and one more every ``session_interval`` seconds, all
    sessions of an address (IPv4, or IPv6 /64) together ``address_burst`` and one more every
    ``address_interval`` seconds. Past that it gets no relay, and a lifetime after which to ask
    again.
    """

    def __init__(
        self,
        servers: Sequence[TurnServer],
        *,
        ttl: int = TTL,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        session_burst: int = 3,
        session_interval: float = 10.0,
        address_burst: int = 200,
        address_interval: float = 1.0,
    ) -> None:
        """``ttl`` in seconds. Raises :class:`InvalidIceServer`."""
        if not TTL_MIN <= ttl <= TTL_MAX:
            text = f"relay credentials last {TTL_MIN} to {TTL_MAX} seconds, not {ttl}"
            raise InvalidIceServer(text)
        self.minted = 0
        self.capped = 0
        self._servers = tuple(servers)
        self._ttl = ttl
        self._wall = wall
        self._clock = clock
        self._sessions = Gates(session_burst, session_interval)
        self._addresses = Gates(address_burst, address_interval)

    def ice_servers(self, request: IceRequest) -> IceInfo:
        if not request.relay or not self._servers:
            return IceInfo(servers=[])
        now, address = self._clock(), address_key(request.address)
        wait = max(self._sessions.wait(request.peer, now), self._addresses.wait(address, now))
        if wait > 0:
            self.capped += 1
            return IceInfo(servers=[], ttl=max(TTL_MIN, int(wait) + 1))
        self._sessions.count(request.peer, now)
        self._addresses.count(address, now)
        self.minted += 1
        expires = int(self._wall()) + self._ttl
        name = user_name(request)
        servers = []
        for server in self._servers:
            urls = for_host(server.urls, request.host)
            if urls:
                username, password = turn_credentials(server.secret, name, expires)
                servers.append(IceServerInfo(urls=urls, username=username, credential=password))
        return IceInfo(servers=servers, ttl=self._ttl)


class AllIceServers:
    """Several sources as one. What needs a network is asked at once, and all of it awaited."""

    def __init__(self, sources: Iterable[IceServerSource]) -> None:
        self._sources = tuple(sources)

    def ice_servers(self, request: IceRequest) -> IceInfo | Awaitable[IceInfo]:
        answers = [source.ice_servers(request) for source in self._sources]
        known = [answer for answer in answers if isinstance(answer, IceInfo)]
        if len(known) == len(answers):
            return _joined(known)
        return _awaited(answers)


async def _awaited(answers: list[IceInfo | Awaitable[IceInfo]]) -> IceInfo:
    return _joined([answer if isinstance(answer, IceInfo) else await answer for answer in answers])


def _joined(answers: list[IceInfo]) -> IceInfo:
    lifetimes = [answer.ttl for answer in answers if answer.ttl is not None]
    return IceInfo(
        servers=[server for answer in answers for server in answer.servers],
        ttl=min(lifetimes, default=None),
    )


def for_host(urls: Iterable[str], host: str) -> list[str]:
    """``urls`` with ``{host}`` filled in; those that need it are left out without a host."""
    return [url.replace("{host}", host) for url in urls if host or "{host}" not in url]


def user_name(request: IceRequest) -> str:
    """What a relay's log calls a session: its subject, if it has one, and its id in the room."""
    subject = _NOT_A_NAME.sub("_", request.subject)[:64]
    return f"{subject}.{request.peer}" if subject else request.peer
