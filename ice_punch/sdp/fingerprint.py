"""Certificate fingerprints, RFC 8122 section 5."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from ice_punch.errors import InvalidDescription
from ice_punch.sdp.lines import quoted

DIGEST_SIZES = {"sha-256": 32, "sha-384": 48, "sha-512": 64, "sha-224": 28, "sha-1": 20}
"""Octets of each hash function whose fingerprints are made and verified."""

_FORBIDDEN = frozenset({"md2", "md5"})
_FINGERPRINT = re.compile(
    r"([!#$%&'*+\-.^_`{|}~A-Za-z0-9]+) ([0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2})*)", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The hash of a certificate in DER form.

    Raises:
        InvalidDescription: The hash function is MD2, MD5 or unknown, or the value is not of its
            length.
    """

    algorithm: str
    """The textual name in lower case: ``sha-256``."""
    value: bytes

    def __post_init__(self) -> None:
        if self.algorithm in _FORBIDDEN:
            # RFC 8122 section 5: neither made nor verified.
            raise InvalidDescription(f"{self.algorithm} fingerprints are refused")
        size = DIGEST_SIZES.get(self.algorithm)
        if size is None:
            raise InvalidDescription(f"unknown hash function {quoted(self.algorithm)}")
        if len(self.value) != size:
            raise InvalidDescription(
                f"a {self.algorithm} fingerprint has {size} bytes, not {len(self.value)}"
            )

    @classmethod
    def of(cls, certificate_der: bytes, algorithm: str = "sha-256") -> Fingerprint:
        """The fingerprint of a certificate given in DER form.

        Raises:
            InvalidDescription: The hash function is MD2, MD5 or unknown.
        """
        algorithm = algorithm.lower()
        if algorithm not in DIGEST_SIZES:
            return cls(algorithm, b"")
        name = algorithm.replace("-", "")
        return cls(algorithm, hashlib.new(name, certificate_der, usedforsecurity=True).digest())

    @classmethod
    def parse(cls, text: str) -> Fingerprint | None:
        """Read the value of a ``fingerprint`` attribute: ``sha-256 12:DF:...``.

        The name of the hash function is case-insensitive, and so are the hexadecimal digits:
        some senders write them in lower case.

        Returns:
            None when the hash function is unknown, or is MD2 or MD5, which RFC 8122 section 5
            names so that they can be recognised and left unused.

        Raises:
            InvalidDescription: The text breaks the grammar, or the value has the wrong length.
        """
        match = _FINGERPRINT.fullmatch(text)
        if match is None:
            raise InvalidDescription(f"{quoted(text)} is not a fingerprint")
        algorithm = match[1].lower()
        if algorithm not in DIGEST_SIZES:
            return None
        return cls(algorithm, bytes.fromhex(match[2].replace(":", "")))

    def to_sdp(self) -> str:
        """The value of a ``fingerprint`` attribute, in upper case (RFC 8122 section 5)."""
        return f"{self.algorithm} {self.value.hex(':').upper()}"

    def __str__(self) -> str:
        return self.to_sdp()
