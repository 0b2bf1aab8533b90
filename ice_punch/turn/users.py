"""Whom a TURN server knows, and the keys it checks their requests with."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ice_punch.stun import PasswordAlgorithm, long_term_key, opaque_string, userhash


@dataclass(frozen=True, slots=True)
class Keys:
    """One user's keys (RFC 8489 section 9.2.2); the password itself is not kept (RFC 8656 section
    6)."""

    md5: bytes = field(repr=False)
    sha256: bytes = field(repr=False)

    @classmethod
    def of(cls, username: str, realm: str, password: str) -> Keys:
        """Raises ValueError where ``opaque_string`` does."""
        return cls(
            long_term_key(username, realm, password, PasswordAlgorithm.MD5),
            long_term_key(username, realm, password, PasswordAlgorithm.SHA256),
        )

    def key(self, algorithm: PasswordAlgorithm) -> bytes:
        return self.sha256 if algorithm is PasswordAlgorithm.SHA256 else self.md5


class PasswordSource(Protocol):
    """Where the passwords of users come from that are not listed beforehand."""

    def password(self, username: str) -> str | None:
        """None for a user that is unknown, or whose time is over."""

    def owner(self, username: str) -> str:
        """Whose allocations these are, where several user names are one user's."""


class SharedSecret:
    """The time-limited credentials of coturn's ``use-auth-secret``, minted elsewhere with the same
    secret: the user name is ``expiry:name`` with the expiry in Unix time, the password is the
    base64 of HMAC-SHA1 over it."""

    def __init__(self, secret: str, clock: Callable[[], float]) -> None:
        """``clock`` tells Unix time in seconds."""
        self._secret = secret.encode()
        self._clock = clock

    def password(self, username: str) -> str | None:
        expiry, _, _ = username.partition(":")
        if not (expiry.isascii() and expiry.isdigit() and len(expiry) <= 12):
            return None
        return self._password(username) if int(expiry) > self._clock() else None

    def owner(self, username: str) -> str:
        return username.partition(":")[2]

    def mint(self, name: str, lifetime: float) -> tuple[str, str]:
        """A user name and password for ``name``, good for ``lifetime`` seconds."""
        username = f"{int(self._clock() + lifetime)}:{name}"
        return username, self._password(username)

    def _password(self, username: str) -> str:
        digest = hmac.digest(self._secret, username.encode(), "sha1")
        return base64.b64encode(digest).decode()


class Directory:
    """The users of one realm."""

    def __init__(
        self, users: Mapping[str, str], realm: str, source: PasswordSource | None = None
    ) -> None:
        """``users`` maps names to passwords. Raises ValueError for a name, password or realm that
        RFC 8265 forbids."""
        self.realm = opaque_string(realm)
        self._keys: dict[str, Keys] = {}
        self._names: dict[bytes, str] = {}
        self._source = source
        for name, password in users.items():
            prepared = opaque_string(name)
            self._keys[prepared] = Keys.of(prepared, self.realm, password)
            self._names[userhash(prepared, self.realm)] = prepared

    @property
    def anonymous(self) -> bool:
        """Whether a USERHASH can be looked up: only where all names are known beforehand."""
        return self._source is None

    def named(self, digest: bytes) -> str | None:
        """Whose USERHASH this is."""
        return self._names.get(digest)

    def keys(self, username: str) -> Keys | None:
        """None for a stranger."""
        known = self._keys.get(username)
        if known is not None or self._source is None:
            return known
        password = self._source.password(username)
        if password is None:
            return None
        try:
            return Keys.of(username, self.realm, password)
        except ValueError:  # a user name off the wire may hold anything
            return None

    def owner(self, username: str) -> str:
        """Whose quota an allocation of this user counts against."""
        if self._source is None or username in self._keys:
            return username
        return self._source.owner(username)
