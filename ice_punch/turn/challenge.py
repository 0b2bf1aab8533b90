"""The client's side of the long-term credential mechanism: RFC 8489 sections 9.2.3 and 9.2.5."""

from __future__ import annotations

from typing import Final, NamedTuple

from ice_punch.stun import (
    NONCE,
    PASSWORD_ALGORITHM,
    PASSWORD_ALGORITHMS,
    REALM,
    USERHASH,
    USERNAME,
    AlgorithmParameters,
    Integrity,
    Message,
    PasswordAlgorithm,
    SecurityFeature,
    long_term_key,
    opaque_string,
    security_features,
    userhash,
)

MAX_OFFER: Final = 256
"""Bytes of PASSWORD-ALGORITHMS that are given back."""

_PREFERRED: Final = (
    AlgorithmParameters(PasswordAlgorithm.SHA256),
    AlgorithmParameters(PasswordAlgorithm.MD5),
)


class Proof(NamedTuple):
    """What the requests to a server are authenticated with, after it has challenged us."""

    realm: str
    nonce: str
    anonymous: bool
    offered: tuple[AlgorithmParameters, ...] | None
    chosen: AlgorithmParameters | None
    key: bytes

    def __repr__(self) -> str:
        return f"<proof for realm {self.realm!r}>"

    @property
    def integrity(self) -> Integrity:
        """RFC 8489 section 9.2.5: after PASSWORD-ALGORITHMS nothing but
        MESSAGE-INTEGRITY-SHA256."""
        return Integrity.SHA1 if self.offered is None else Integrity.SHA256


class Credentials:
    """A user name and a password, and what a server wants them proven with."""

    def __init__(self, username: str | None, password: str | None) -> None:
        """Raises ValueError for what RFC 8265 forbids, and a user name that is too long."""
        self.proof: Proof | None = None
        """None until the server has challenged us."""
        self._username = None if username is None else opaque_string(username)
        self._password = None if password is None else opaque_string(password)
        if self._username is not None:
            USERNAME.encode(self._username, b"")

    def forget(self) -> None:
        """Another server, another challenge."""
        self.proof = None

    def add_to(self, request: Message) -> None:
        """RFC 8489 section 9.2.3.2; nothing in a first request (section 9.2.3.1)."""
        proof = self.proof
        if proof is None:
            return
        assert self._username is not None
        if proof.anonymous:
            request.add(USERHASH, userhash(self._username, proof.realm))
        else:
            request.add(USERNAME, self._username)
        request.add(REALM, proof.realm)
        request.add(NONCE, proof.nonce)
        if proof.offered is not None and proof.chosen is not None:
            request.add(PASSWORD_ALGORITHMS, proof.offered)
            request.add(PASSWORD_ALGORITHM, proof.chosen)

    def answer(self, challenge: Message, used: Proof | None, *, stale: bool) -> str | None:
        """Take up a 401 or, ``stale``, a 438 in answer to a request that had ``used``.

        None: try again. Otherwise why there is no sense in it (RFC 8489 section 9.2.5).
        """
        nonce = challenge.get(NONCE)
        realm = challenge.get(REALM) or (used.realm if used is not None else None)
        if nonce is None or realm is None:
            return "the server asked for credentials without REALM or NONCE"
        features = security_features(nonce) or SecurityFeature(0)
        offered = challenge.get(PASSWORD_ALGORITHMS)
        if SecurityFeature.PASSWORD_ALGORITHMS in features and offered is None:
            return "someone took PASSWORD-ALGORITHMS out of the server's answer"
        if self._username is None or self._password is None:
            return "the server wants a user name and a password"
        anonymous = SecurityFeature.USERNAME_ANONYMITY in features
        if not stale and used is not None and (used.realm, used.anonymous) == (realm, anonymous):
            return "the server rejected the user name or the password"
        chosen = None
        if offered is not None:
            # RFC 8656 section 6 has SHA-256 taken where both are offered, in any order.
            chosen = next((algorithm for algorithm in _PREFERRED if algorithm in offered), None)
            if chosen is None:
                return "the server knows no password algorithm that we know"
        algorithm = PasswordAlgorithm.MD5 if chosen is None else chosen.algorithm
        try:
            REALM.encode(realm, b"")
            NONCE.encode(nonce, b"")
            key = long_term_key(self._username, realm, self._password, PasswordAlgorithm(algorithm))
        except ValueError:
            return "the server's realm or nonce can not be given back"
        if len(PASSWORD_ALGORITHMS.encode(offered or (), b"")) > MAX_OFFER:
            return "the server offers too many password algorithms"
        self.proof = Proof(realm, nonce, anonymous, offered, chosen, key)
        return None


def is_bid_down(response: Message) -> bool:
    """A response to be ignored (RFC 8489 section 9.2.5): its nonce announces password algorithms
    and it has none."""
    nonce = response.get(NONCE)
    if nonce is None or response.get(PASSWORD_ALGORITHMS) is not None:
        return False
    return SecurityFeature.PASSWORD_ALGORITHMS in (security_features(nonce) or SecurityFeature(0))
