"""A TCP connection to a name that may have several addresses, some of which do not answer."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from typing import Any, NamedTuple

DELAY = 0.25
"""Seconds that an address has before the next is tried as well (RFC 8305 section 8)."""


class Address(NamedTuple):
    family: int
    where: Any


async def dial(host: str, port: int) -> socket.socket:
    """Connected to the first address of ``host`` that answers (RFC 8305, "happy eyeballs").

    For event loops that have nothing of the kind. Raises ``OSError`` with the system's words for
    every address, and ``socket.gaierror``. Has no timeout of its own.
    """
    waiting = deque(_alternating(await _resolve(host, port)))
    attempts: set[asyncio.Task[socket.socket]] = set()
    errors: list[BaseException] = []
    try:
        while waiting or attempts:
            if waiting:
                attempts.add(asyncio.create_task(_connect(waiting.popleft())))
            done, _ = await asyncio.wait(
                attempts,
                timeout=DELAY if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for attempt in done:
                attempts.discard(attempt)
                error = attempt.exception()
                if error is None:
                    return attempt.result()
                errors.append(error)
    finally:
        await _give_up(attempts)
    if len(errors) == 1:
        raise errors[0]
    raise OSError("no address answers: " + ", ".join(map(str, errors)))


async def _resolve(host: str, port: int) -> list[Address]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(Address(family, where) for family, *_, where in found))


def _alternating(addresses: list[Address]) -> list[Address]:
    """The resolver's order, but the families by turns (RFC 8305 section 4)."""
    if not addresses:
        return []
    first = [address for address in addresses if address.family == addresses[0].family]
    others = [address for address in addresses if address.family != addresses[0].family]
    mixed = [address for pair in zip(first, others, strict=False) for address in pair]
    both = min(len(first), len(others))
    return mixed + first[both:] + others[both:]


async def _connect(address: Address) -> socket.socket:
    made = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, address.where)
    except BaseException:
        made.close()
        raise
    return made


async def _give_up(attempts: set[asyncio.Task[socket.socket]]) -> None:
    for attempt in attempts:
        attempt.cancel()
    for result in await asyncio.gather(*attempts, return_exceptions=True):
        if isinstance(result, socket.socket):
            result.close()  # it came second
