"""Where randomness comes from, so that a run of a state machine can be repeated."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Protocol


class RandomSource(Protocol):
    """``random.SystemRandom()`` in life, ``random.Random(seed)`` in tests."""

    def randbytes(self, n: int, /) -> bytes: ...

    def random(self) -> float: ...


def base64url(data: bytes) -> str:
    """``data`` in RFC 4648 section 5 base64url, without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def from_base64url(text: str) -> bytes:
    """The bytes of ``text``, which is base64url in its one canonical form, else ``ValueError``."""
    data = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    if base64url(data) != text:
        raise ValueError("not canonical base64url")
    return data
