"""The HMACs that protect messages: RFC 8489 sections 14.5 and 14.6, by RFC 2104."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hashlib import _Hash

KEYS_REMEMBERED: Final = 1024
"""Keys whose hash states are kept; the oldest is forgotten first."""

_BLOCK_SIZE: Final = 64  # of SHA-1 and of SHA-256
_INNER: Final = bytes(octet ^ 0x36 for octet in range(256))
_OUTER: Final = bytes(octet ^ 0x5C for octet in range(256))


class Integrity(Enum):
    """Which HMAC protects a message: MESSAGE-INTEGRITY or MESSAGE-INTEGRITY-SHA256."""

    SHA1 = "sha1"
    SHA256 = "sha256"

    __hash__ = object.__hash__  # Enum's is a Python function, and sets of these are asked often


_States = OrderedDict[bytes, tuple["_Hash", "_Hash"]]
_sha1_states: _States = OrderedDict()
_sha256_states: _States = OrderedDict()


def authentication_code(key: bytes, algorithm: Integrity, data: bytes) -> bytes:
    """The HMAC of ``data``: 20 bytes with SHA-1, 32 with SHA-256. ``key`` may have any size."""
    states = _sha1_states if algorithm is Integrity.SHA1 else _sha256_states
    found = states.get(key)
    begun_inner, begun_outer = found or _begin(key, algorithm, states)
    inner = begun_inner.copy()
    inner.update(data)
    outer = begun_outer.copy()
    outer.update(inner.digest())
    return outer.digest()


def _begin(key: bytes, algorithm: Integrity, states: _States) -> tuple[_Hash, _Hash]:
    """The inner and the outer hash with the key taken in, which is half of an HMAC's work on a
    message of this size. Only ever copied."""
    # SHA-1 is what MESSAGE-INTEGRITY is; the attacks on it do not reach HMAC (RFC 6151)
    make = _sha1 if algorithm is Integrity.SHA1 else hashlib.sha256
    block = (make(key).digest() if len(key) > _BLOCK_SIZE else key).ljust(_BLOCK_SIZE, b"\0")
    if len(states) >= KEYS_REMEMBERED:
        states.popitem(last=False)
    begun = states[key] = make(block.translate(_INNER)), make(block.translate(_OUTER))
    return begun


def _sha1(data: bytes) -> _Hash:
    return hashlib.sha1(data, usedforsecurity=False)
