"""The server's side of the long-term credential mechanism: RFC 8489 section 9.2.4."""

from __future__ import annotations

import hmac
from typing import Final, NamedTuple

from ice_punch.datagram import Address, RandomSource
from ice_punch.stun import (
    ERROR_CODE,
    NONCE,
    PASSWORD_ALGORITHM,
    PASSWORD_ALGORITHMS,
    REALM,
    USERHASH,
    USERNAME,
    AlgorithmParameters,
    ErrorCode,
    Integrity,
    Message,
    MessageClass,
    PasswordAlgorithm,
    SecurityFeature,
    make_nonce,
    response_to,
)
from ice_punch.turn.users import Directory, Keys

BAD_REQUEST: Final = ErrorCode(400, "Bad Request")
UNAUTHENTICATED: Final = ErrorCode(401, "Unauthenticated")
STALE_NONCE: Final = ErrorCode(438, "Stale Nonce")

NONCE_LIFETIME: Final = 3600.0
"""Seconds; RFC 8656 section 5: at least once every hour."""

_TIME_DIGITS: Final = 12
_MAC_DIGITS: Final = 32
_CLOCK_MASK: Final = (1 << 4 * _TIME_DIGITS) - 1
_ALGORITHMS: Final = (
    AlgorithmParameters(PasswordAlgorithm.SHA256),
    AlgorithmParameters(PasswordAlgorithm.MD5),
)
"""In our order of preference."""


class FiveTuple(NamedTuple):
    """RFC 8656 section 6. For us, the client's address is its server-reflexive one."""

    client: Address
    server: Address
    transport: str
    """``udp``, ``tcp`` or ``tls``."""


class Authenticated(NamedTuple):
    """Whose request it was, and how its response is protected."""

    username: str
    keys: Keys
    key: bytes
    integrity: Integrity

    def __repr__(self) -> str:
        return f"<authenticated {self.username!r}>"


class Nonces:
    """Nonces that need no memory: each carries the time it was made and proves that we made it for
    this client (RFC 8489 section 9.2.4: not the same one for two addresses)."""

    def __init__(self, random: RandomSource, features: SecurityFeature, lifetime: float) -> None:
        self._secret = random.randbytes(32)
        self._features = features
        self._lifetime_ms = round(lifetime * 1000)

    def make(self, five_tuple: FiveTuple, now: float) -> str:
        time = f"{round(now * 1000) & _CLOCK_MASK:0{_TIME_DIGITS}x}"
        return make_nonce(self._features, time + self._mac(time, five_tuple))

    def is_valid(self, nonce: str, five_tuple: FiveTuple, now: float) -> bool:
        prefix, rest = nonce[: -_TIME_DIGITS - _MAC_DIGITS], nonce[-_TIME_DIGITS - _MAC_DIGITS :]
        time, mac = rest[:_TIME_DIGITS], rest[_TIME_DIGITS:]
        expected = self._mac(time, five_tuple).encode()
        if prefix != make_nonce(self._features, "") or not hmac.compare_digest(
            mac.encode(), expected
        ):
            return False
        age = (round(now * 1000) - int(time, 16)) & _CLOCK_MASK
        return age <= self._lifetime_ms

    def _mac(self, time: str, five_tuple: FiveTuple) -> str:
        (host, port), (our_host, our_port), transport = five_tuple
        text = f"{time} {host} {port} {our_host} {our_port} {transport}"
        return hmac.digest(self._secret, text.encode(), "sha256").hex()[:_MAC_DIGITS]


class Authenticator:
    """Tells whose a request is, or what to answer instead."""

    def __init__(
        self, directory: Directory, random: RandomSource, nonce_lifetime: float = NONCE_LIFETIME
    ) -> None:
        features = SecurityFeature.PASSWORD_ALGORITHMS
        if directory.anonymous:
            features |= SecurityFeature.USERNAME_ANONYMITY
        self._directory = directory
        self._nonces = Nonces(random, features, nonce_lifetime)
        # A stranger's request costs as much time as a user's with a wrong password.
        self._nobody = Keys(random.randbytes(16), random.randbytes(32))

    def check(
        self,
        request: Message,
        five_tuple: FiveTuple,
        now: float,
        *,
        holder: tuple[str, Keys] | None = None,
    ) -> Authenticated | Message:
        """The checks of RFC 8489 section 9.2.4 in their order; a Message is the error response.

        ``holder`` is the user of the allocation that the request is for: its time may be over by
        now, but what it was granted stays its own.
        """
        if not request.integrity:
            return self._challenge(request, UNAUTHENTICATED, five_tuple, now)
        nonce = request.get(NONCE)
        username = self._username(request)
        nameless = request.get(USERNAME) is None and request.get(USERHASH) is None
        if nameless or request.get(REALM) is None or nonce is None:
            return error_response(request, BAD_REQUEST)
        algorithm = _password_algorithm(request)
        if algorithm is None:
            return error_response(request, BAD_REQUEST)
        chosen, named = algorithm
        keys = None
        if username is not None:
            is_holder = holder is not None and holder[0] == username
            keys = holder[1] if holder and is_holder else self._directory.keys(username)
        key = (keys or self._nobody).key(chosen)
        strongest = Integrity.SHA256 if Integrity.SHA256 in request.integrity else Integrity.SHA1
        if not request.verify(key, strongest) or keys is None or username is None:
            return self._challenge(request, UNAUTHENTICATED, five_tuple, now)
        if not self._nonces.is_valid(nonce, five_tuple, now):
            return self._challenge(request, STALE_NONCE, five_tuple, now)
        return Authenticated(username, keys, key, Integrity.SHA256 if named else Integrity.SHA1)

    def _username(self, request: Message) -> str | None:
        digest = request.get(USERHASH)
        username = request.get(USERNAME)
        if username is None and digest is not None:
            return self._directory.named(digest)
        return username

    def _challenge(
        self, request: Message, error: ErrorCode, five_tuple: FiveTuple, now: float
    ) -> Message:
        response = error_response(request, error)
        response.add(REALM, self._directory.realm)
        response.add(NONCE, self._nonces.make(five_tuple, now))
        response.add(PASSWORD_ALGORITHMS, _ALGORITHMS)
        return response


def error_response(request: Message, error: ErrorCode) -> Message:
    response = response_to(request, MessageClass.ERROR)
    response.add(ERROR_CODE, error)
    return response


def _password_algorithm(request: Message) -> tuple[PasswordAlgorithm, bool] | None:
    """Which algorithm the key is made with, and whether the request named it; None for a 400: the
    list was tampered with, or the choice is none of it."""
    chosen, offered = request.get(PASSWORD_ALGORITHM), request.get(PASSWORD_ALGORITHMS)
    if chosen is None and offered is None:
        return PasswordAlgorithm.MD5, False
    if chosen is None or offered != _ALGORITHMS or chosen not in _ALGORITHMS:
        return None
    return PasswordAlgorithm(chosen.algorithm), True
