"""Payloads the server can neither read nor change.

The peers of a link share its secret, which never reaches the server. HKDF-SHA256 (RFC 5869) makes
a key of it for the room; each payload is sealed with AES-256-GCM under a fresh nonce, and bound to
its sender, addressee, link, generation and kind. A replayed payload still opens: the receiver
knows by link and generation what it has seen.
"""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from signaling.errors import SealBroken
from signaling.randomness import RandomSource, base64url, from_base64url

_NONCE_SIZE = 12
_TAG_SIZE = 16
_SALT = b"icepunch.v1 seal"


def sealed_size(plaintext_size: int) -> int:
    """Characters of the sealed form of ``plaintext_size`` bytes."""
    return -(-(plaintext_size + _NONCE_SIZE + _TAG_SIZE) * 4 // 3)


class Sealer:
    """Seals and opens the payloads of one room.

    ``secret`` is the link's, at least 128 bits: bytes, or base64url as in the link's text.
    ``random`` gives the nonces; the operating system does if it is ``None``. Raises ``ValueError``.
    """

    __slots__ = ("_cipher", "_randbytes")

    def __init__(
        self, secret: bytes | str, room: str, *, random: RandomSource | None = None
    ) -> None:
        material = from_base64url(secret) if isinstance(secret, str) else secret
        if len(material) < 16:
            raise ValueError("a secret needs at least 128 bits")
        key = HKDF(algorithm=SHA256(), length=32, salt=_SALT, info=room.encode("utf-8")).derive(
            material
        )
        self._cipher = AESGCM(key)
        self._randbytes = random.randbytes if random is not None else os.urandom

    def __repr__(self) -> str:
        return "Sealer()"

    def seal(
        self, plaintext: str, *, sender: str, to: str, link: str, generation: int, kind: str
    ) -> str:
        """The sealed form of ``plaintext``: base64url of nonce, ciphertext and tag."""
        nonce = self._randbytes(_NONCE_SIZE)
        bound = _bound(sender, to, link, generation, kind)
        return base64url(nonce + self._cipher.encrypt(nonce, plaintext.encode("utf-8"), bound))

    def open(
        self, sealed: str, *, sender: str, to: str, link: str, generation: int, kind: str
    ) -> str:
        """What :meth:`seal` was given. Raises :class:`SealBroken` and nothing else."""
        try:
            data = from_base64url(sealed)
        except ValueError:
            raise SealBroken("the payload is not sealed") from None
        if len(data) < _NONCE_SIZE + _TAG_SIZE:
            raise SealBroken("the payload is not sealed")
        bound = _bound(sender, to, link, generation, kind)
        try:
            plaintext = self._cipher.decrypt(data[:_NONCE_SIZE], data[_NONCE_SIZE:], bound)
            return plaintext.decode("utf-8")
        except (InvalidTag, UnicodeDecodeError):
            text = "the payload does not open: another secret sealed it, or it was altered"
            raise SealBroken(text) from None


def _bound(sender: str, to: str, link: str, generation: int, kind: str) -> bytes:
    # Each field after its length, so that no two different tuples are the same bytes.
    fields = (sender, to, link, str(generation), kind)
    return b"".join(
        len(data).to_bytes(4, "big") + data
        for data in (field.encode("utf-8", "surrogatepass") for field in fields)
    )
