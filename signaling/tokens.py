"""Tokens: who may enter which room, signed by whoever runs the server (JWT, RFC 7519). Sans-IO.

One algorithm, fixed by the kind of key: HS256 for a shared secret, EdDSA (RFC 8037) for a pair of
Ed25519 keys. What a token's header says is compared with it, never believed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Annotated, Any, Literal

import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from signaling.errors import InvalidKey, InvalidToken
from signaling.limits import TOKEN_MAX_LENGTH
from signaling.randomness import base64url

AUDIENCE = "icepunch.v1"
"""The ``aud`` of every token: one made for something else does not open a room."""
SKEW = 30.0
"""Seconds that the clocks of who mints and who checks may differ."""
SECRET_MIN_BYTES = 32
"""RFC 7518 section 3.2: a key as long as the hash."""

Permission = Literal["join", "call"]
PERMISSIONS: tuple[Permission, ...] = ("join", "call")
"""``join``: enter the room and see who is there. ``call``: send signals to its peers."""

Algorithm = Literal["HS256", "EdDSA"]


@dataclass(frozen=True, slots=True)
class TokenKey:
    """A key and the name by which tokens call it (``kid``)."""

    id: str
    algorithm: Algorithm
    verifying: bytes | Ed25519PublicKey = field(repr=False)
    signing: bytes | Ed25519PrivateKey | None = field(repr=False, default=None)
    """``None``: this key checks tokens and can not mint them."""

    @classmethod
    def parse(cls, data: bytes) -> TokenKey:
        """The key in a file: PEM of an Ed25519 key, public or private, or a secret of 32 bytes.

        White space around a secret does not count. Raises :class:`InvalidKey`.
        """
        data = data.strip()
        if data.startswith(b"-----BEGIN"):
            return _from_pem(data)
        if len(data) < SECRET_MIN_BYTES:
            text = f"a token secret has {SECRET_MIN_BYTES} bytes or more, this one {len(data)}"
            raise InvalidKey(text)
        return cls(_key_id(b"HS256" + data), "HS256", data, data)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenClaims:
    """What a token says. Times in seconds since 1970."""

    rooms: tuple[str, ...]
    """Names of rooms; one that ends in ``*`` stands for all that begin so."""
    permissions: frozenset[str]
    relay: bool
    """Whether its bearer gets credentials of the relays."""
    expires_at: float
    subject: str = ""
    max_peers: int | None = None
    """Seats of a room that its bearer is the first in."""

    def opens(self, room: str) -> bool:
        return any(
            room.startswith(name[:-1]) if name.endswith("*") else room == name
            for name in self.rooms
        )


_Time = Annotated[float, msgspec.Meta(ge=0, le=2**53)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]


class _Payload(msgspec.Struct):
    aud: str | list[str]
    exp: _Time
    room: _Name | Annotated[list[_Name], msgspec.Meta(min_length=1, max_length=64)]
    perm: Annotated[tuple[str, ...], msgspec.Meta(max_length=16)] = PERMISSIONS
    relay: bool = False
    sub: Annotated[str, msgspec.Meta(max_length=128)] = ""
    max_peers: Annotated[int, msgspec.Meta(ge=2, le=2**31)] | None = None
    nbf: _Time = 0.0
    iat: _Time = 0.0


_OPTIONS: Any = {
    # Times are checked here, against the time this module is told.
    "verify_signature": True,
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_sub": False,
}


class TokenVerifier:
    """Checks tokens against a current key and, while keys change, previous ones."""

    def __init__(self, current: TokenKey, previous: Sequence[TokenKey] = ()) -> None:
        """Raises :class:`InvalidKey` if the keys are not of one algorithm."""
        self.algorithm = current.algorithm
        if any(key.algorithm != self.algorithm for key in previous):
            raise InvalidKey("the current and the previous key must be of the same kind")
        self._keys = {key.id: key for key in (*previous, current)}

    def verify(self, token: str, now: float) -> TokenClaims:
        """What ``token`` says, at ``now`` seconds since 1970. Raises :class:`InvalidToken`."""
        if len(token) > TOKEN_MAX_LENGTH:
            raise InvalidToken("the token is too long")
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") != self.algorithm:
                raise InvalidToken("the token is not signed in this server's way")
            key = self._keys.get(str(header.get("kid")))
            if key is None:
                raise InvalidToken("the token is signed with a key this server does not know")
            said = jwt.decode(token, key.verifying, algorithms=[self.algorithm], options=_OPTIONS)
            payload = msgspec.convert(said, _Payload)
        except (jwt.PyJWTError, msgspec.ValidationError, UnicodeError, RecursionError):
            raise InvalidToken("the token is not valid") from None
        audiences = [payload.aud] if isinstance(payload.aud, str) else payload.aud
        if AUDIENCE not in audiences:
            raise InvalidToken("the token is for something else")
        if not now < payload.exp + SKEW:  # neither is it before what is no number
            raise InvalidToken("the token has expired", expired=True)
        if now < max(payload.nbf, payload.iat) - SKEW:
            raise InvalidToken("the token is not valid yet")
        rooms = [payload.room] if isinstance(payload.room, str) else payload.room
        return TokenClaims(
            rooms=tuple(rooms),
            permissions=frozenset(payload.perm),
            relay=payload.relay,
            expires_at=payload.exp,
            subject=payload.sub,
            max_peers=payload.max_peers,
        )


def mint_token(
    key: TokenKey,
    rooms: Iterable[str],
    *,
    now: float,
    ttl: float = 600.0,
    permissions: Iterable[str] = PERMISSIONS,
    relay: bool = False,
    subject: str = "",
    max_peers: int | None = None,
) -> str:
    """A token that opens ``rooms`` for ``ttl`` seconds from ``now`` (seconds since 1970).

    It is looked at when somebody enters; who is in stays in. Raises :class:`InvalidKey` if ``key``
    only checks, and ``ValueError`` for what no server would accept.
    """
    if key.signing is None:
        raise InvalidKey("this is a public key: it checks tokens, the private one mints them")
    names = list(rooms)
    permitted = list(dict.fromkeys(permissions))
    if not names or len(names) > 64 or not all(0 < len(name) <= 128 for name in names):
        raise ValueError("a token names 1 to 64 rooms of 1 to 128 characters")
    if unknown := sorted(set(permitted) - set(PERMISSIONS)):
        raise ValueError(f"no such permission: {unknown[0]} (there are {', '.join(PERMISSIONS)})")
    if not 0 < ttl <= 366 * 86400:
        raise ValueError("a token lasts more than 0 and at most 366 days")
    if max_peers is not None and not 2 <= max_peers <= 2**31:
        raise ValueError("a room has 2 seats or more")
    if len(subject) > 128:
        raise ValueError("a subject has at most 128 characters")
    payload: dict[str, Any] = {
        "aud": AUDIENCE,
        "iat": int(now),
        "exp": int(now + ttl),
        "room": names[0] if len(names) == 1 else names,
        "perm": permitted,
        "relay": relay,
    }
    if subject:
        payload["sub"] = subject
    if max_peers is not None:
        payload["max_peers"] = max_peers
    token = jwt.encode(payload, key.signing, algorithm=key.algorithm, headers={"kid": key.id})
    if len(token) > TOKEN_MAX_LENGTH:
        raise ValueError(f"the token would be longer than {TOKEN_MAX_LENGTH} characters")
    return token


def _from_pem(data: bytes) -> TokenKey:
    private = b"PRIVATE KEY" in data.partition(b"\n")[0]
    try:
        if private:
            signing = serialization.load_pem_private_key(data, None)
            if not isinstance(signing, Ed25519PrivateKey):
                raise InvalidKey("tokens are signed with an Ed25519 key, not with another kind")
            verifying: Any = signing.public_key()
        else:
            signing, verifying = None, serialization.load_pem_public_key(data)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        if isinstance(error, InvalidKey):
            raise
        raise InvalidKey("this is not an unencrypted PEM key") from None
    if not isinstance(verifying, Ed25519PublicKey):
        raise InvalidKey("tokens are signed with an Ed25519 key, not with another kind")
    raw = verifying.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return TokenKey(_key_id(b"EdDSA" + raw), "EdDSA", verifying, signing)


def _key_id(material: bytes) -> str:
    # Of a secret of 256 bits, so that it tells nothing; the same on every server that has the key.
    return base64url(sha256(b"icepunch kid" + material).digest()[:9])
