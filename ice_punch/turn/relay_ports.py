"""Relayed transport addresses: RFC 8656 section 7.2, and RFC 6056 for their order."""

from __future__ import annotations

import math
from collections.abc import Callable, Container
from typing import Final

from ice_punch.datagram import Address, RandomSource

FIRST_PORT: Final = 49152
LAST_PORT: Final = 65535
"""The dynamic ports, RFC 8656 section 7.2."""

MAX_ATTEMPTS: Final = 64
"""Free ports that may turn out to be taken by others on this host before we give up."""


class RelayPorts:
    """Ports in an order that nobody can guess."""

    def __init__(
        self, random: RandomSource, first: int = FIRST_PORT, last: int = LAST_PORT
    ) -> None:
        """Raises ValueError for a range that is none."""
        if not 1 <= first <= last <= 65535:
            raise ValueError(f"{first}-{last} is no range of ports")
        self._random = random
        self._first = first
        self._count = last - first + 1

    def take(
        self,
        ip: str,
        in_use: Container[Address],
        claim: Callable[[Address], bool],
        *,
        even: bool = False,
        pair: bool = False,
    ) -> Address | None:
        """A free address at ``ip`` that ``claim`` agrees to; None when there is none.

        ``even`` wants an even port, ``pair`` also the next one to be free, for which ``claim`` is
        not asked.
        """
        count, attempts = self._count, 0
        offset = self._random.getrandbits(32) % count
        step = self._random.getrandbits(32) % count or 1
        while math.gcd(step, count) != 1:
            step += 1
        for _ in range(count):
            offset = (offset + step) % count
            address = (ip, self._first + offset)
            if address in in_use or (even and address[1] & 1):
                continue
            if pair and ((ip, address[1] + 1) in in_use or offset + 1 == count):
                continue
            if claim(address):
                return address
            attempts += 1
            if attempts == MAX_ATTEMPTS:
                break
        return None
