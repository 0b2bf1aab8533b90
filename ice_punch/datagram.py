"""What every state machine of this package exchanges with the shell around it."""

from __future__ import annotations

from typing import NamedTuple, Protocol

Address = tuple[str, int]
"""A transport address: the IP address in its canonical text form, and the port."""


Buffer = bytes | bytearray | memoryview
"""What can be sent."""


def format_address(address: Address) -> str:
    """``host:port``, with brackets around an IPv6 address."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Transmit(NamedTuple):
    """A datagram that must leave, from one of our transport addresses to another's."""

    data: bytes
    local: Address
    destination: Address


class RandomSource(Protocol):
    """Where randomness comes from: a ``random.SystemRandom``, or a seeded ``random.Random``."""

    def randbytes(self, n: int, /) -> bytes: ...

    def getrandbits(self, k: int, /) -> int: ...

    def random(self) -> float: ...
