"""Who may enter: by the room's name, by a token, or anybody on this machine.

A session that is claimed again (``hello.resume``) is let in by its key, not by this module; a claim
that fails is nobody's attack, and is never counted as one.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from signaling.addresses import address_key
from signaling.errors import InvalidPolicy, InvalidToken
from signaling.gates import Gates
from signaling.hooks import Capabilities, Denied, Grant
from signaling.limits import ROOM_MAX_LENGTH
from signaling.messages import ErrorCode, Hello
from signaling.tokens import TokenVerifier

_PLAIN_ROOM = re.compile(rf"[A-Za-z0-9._~-]{{1,{ROOM_MAX_LENGTH}}}", re.ASCII)


class AuthMode(StrEnum):
    OPEN = "open"
    """Any room, for whoever reaches the loopback interface."""
    CAPABILITY = "capability"
    """Knowing a room's name, at least 128 bits, is the right to enter it."""
    TOKEN = "token"  # noqa: S105
    """A signed token names the rooms it opens."""


class Door:
    """The :class:`signaling.hooks.Authorizer` of the three modes.

    ``failures`` wrong tokens per ``period`` seconds and address hear so; more are told to wait. A
    good one is let in all the same: many people may share an address with one who guesses.
    ``wall`` tells seconds since 1970, ``clock`` seconds that never jump.
    """

    def __init__(
        self,
        mode: AuthMode = AuthMode.CAPABILITY,
        verifier: TokenVerifier | None = None,
        *,
        origins: Origins | None = None,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        failures: int = 10,
        period: float = 60.0,
        addresses: int = 10_000,
    ) -> None:
        """Raises :class:`InvalidPolicy` if tokens are asked for without a key, or vice versa."""
        if (mode is AuthMode.TOKEN) != (verifier is not None):
            raise InvalidPolicy(
                "tokens need a key to check them with"
                if verifier is None
                else "a key for tokens is of no use without tokens"
            )
        self.mode = mode
        self.origins = origins if origins is not None else Origins()
        if mode is AuthMode.OPEN and "*" in self.origins.allowed:
            raise InvalidPolicy(
                "open rooms and any origin would let every web page in: name the origins"
            )
        self._verifier = verifier
        self._wall = wall
        self._clock = clock
        self._failures = Gates(failures, period / failures, addresses)

    def authorize(self, hello: Hello, address: str, origin: str | None) -> Grant | Denied:
        if not self.origins.allow(origin):
            return Denied(ErrorCode.FORBIDDEN_ORIGIN, "pages of this origin may not connect here")
        if self.mode is AuthMode.CAPABILITY:
            return self._capabilities.authorize(hello, address, origin)
        if _PLAIN_ROOM.fullmatch(hello.room) is None:
            text = f"a room's name is 1 to {ROOM_MAX_LENGTH} letters, digits and . _ ~ -"
            return Denied(ErrorCode.BAD_ROOM, text)
        if self._verifier is None:
            return Grant()
        answer = self._judge(self._verifier, hello)
        # An expired token was a good one once: its bearer is no guesser.
        if not isinstance(answer, Denied) or answer.code is not ErrorCode.UNAUTHORIZED:
            return answer
        key, now = address_key(address), self._clock()
        wait = self._failures.take(key, now)
        if wait > 0:
            text = "too many tokens from this address were wrong"
            return Denied(ErrorCode.BUSY, text, round(wait, 3))
        return answer

    def _judge(self, verifier: TokenVerifier, hello: Hello) -> Grant | Denied:
        if not hello.token:
            return Denied(ErrorCode.UNAUTHORIZED, "this server wants a token")
        try:
            claims = verifier.verify(hello.token, self._wall())
        except InvalidToken as error:
            if error.expired:
                return Denied(ErrorCode.TOKEN_EXPIRED, str(error))
            return Denied(ErrorCode.UNAUTHORIZED, str(error))
        if not claims.opens(hello.room):
            return Denied(ErrorCode.UNAUTHORIZED, "the token does not open this room")
        if "join" not in claims.permissions:
            return Denied(ErrorCode.UNAUTHORIZED, "the token does not permit to join")
        return Grant(
            subject=claims.subject,
            call="call" in claims.permissions,
            relay=claims.relay,
            max_peers=claims.max_peers,
        )

    _capabilities = Capabilities()


class Origins:
    """From which pages browsers may connect: ``Origin`` headers (RFC 6454), compared exactly.

    Pages of this server itself always may. Programs send no ``Origin``; whoever can leave it out
    can also invent it, so this protects the users of browsers and nobody else.
    """

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        """``scheme://host[:port]`` each, or ``*``. Raises :class:`InvalidPolicy`."""
        self.allowed = frozenset(_origin(text) for text in allowed)

    def allow(self, origin: str | None) -> bool:
        """Whether to let in what comes from a page of ``origin``, ``None`` from no foreign page."""
        if origin is None or "*" in self.allowed:
            return True
        try:
            return _origin(origin) in self.allowed
        except InvalidPolicy:
            return False


def is_same_origin(origin: str, host: str) -> bool:
    """Whether a page of ``origin`` is this server's own, which was asked for as ``Host: host``.

    The scheme does not count: a proxy may have ended TLS.
    """
    scheme = origin.partition(":")[0]
    try:
        return _origin(origin) == _origin(f"{scheme}://{host}")
    except InvalidPolicy:
        return False


def is_local_page(origin: str, host: str) -> bool:
    """The same, where the server is for this machine alone and lets anybody in.

    Then the name must be one of this machine's. A name whose owner lets it point at 127.0.0.1 would
    make any page the server's own (DNS rebinding).
    """
    if not is_same_origin(origin, host):
        return False
    name = urlsplit(origin).hostname or ""
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


_PORTS = {"http": 80, "https": 443}


def _origin(text: str) -> str:
    if text == "*":
        return text
    wrong = InvalidPolicy(f"{text[:80]!r} is no origin: it should read https://host[:port]")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise wrong from None
    if (
        parts.scheme not in _PORTS
        or not parts.hostname
        or parts.path
        or parts.query
        or parts.fragment
        or "@" in parts.netloc
        or not text.isascii()
    ):
        raise wrong
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    if port is None or port == _PORTS[parts.scheme]:
        return f"{parts.scheme}://{host}"
    return f"{parts.scheme}://{host}:{port}"


class TrustedProxies:
    """The addresses whose word on where a client comes from is taken."""

    def __init__(self, networks: Iterable[str] = ()) -> None:
        """Addresses or networks (``10.0.0.0/8``). Raises :class:`InvalidPolicy`."""
        self._networks: list[IPv4Network | IPv6Network] = []
        for text in networks:
            try:
                self._networks.append(ip_network(text, strict=False))
            except ValueError:
                raise InvalidPolicy(f"{text[:80]!r} is no address and no network") from None

    def __bool__(self) -> bool:
        return bool(self._networks)

    def trusts(self, ip: str) -> bool:
        if not self._networks:
            return False
        try:
            address = ip_address(ip.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._networks)

    def client_of(self, ip: str, forwarded_for: Iterable[str]) -> str:
        """Whom a connection from ``ip`` speaks for, given its ``X-Forwarded-For`` headers.

        Read from the right, as each proxy appends whom it saw: the first that is no proxy of ours.
        What is left of it is that client's own invention. Headers from others are not read.
        """
        client = ip
        words = [word.strip() for header in forwarded_for for word in header.split(",")]
        for word in reversed(words):
            if not self.trusts(client):
                return client
            seen = _bare_address(word)
            if seen is None:
                return client
            client = seen
        return client


def _bare_address(word: str) -> str | None:
    """The address in ``192.0.2.1``, ``192.0.2.1:4711``, ``2001:db8::1``, ``[2001:db8::1]:4711``."""
    if word.startswith("["):
        word = word[1:].partition("]")[0]
    elif word.count(":") == 1:
        word = word.partition(":")[0]
    try:
        return str(ip_address(word))
    except ValueError:
        return None
