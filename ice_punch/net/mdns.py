"""Names ending in ``.local`` that a peer gave in place of its addresses."""

from __future__ import annotations

import asyncio
import contextlib

from ice_punch.ice.candidate import is_usable_address

DEFAULT_TIMEOUT = 3.0
QUERY_INTERVAL = 1.0
"""Seconds. A query is a multicast datagram and may be lost (RFC 6762 section 5.2)."""


async def resolve_mdns(name: str, *, timeout: float = DEFAULT_TIMEOUT) -> str | None:
    """The IP address of one ``<label>.local``, or None: unknown, invalid, or no multicast here.

    Takes no longer than ``timeout`` seconds and raises nothing.
    """
    from aioice import mdns  # slow to import, and rarely needed

    if not mdns.is_mdns_hostname(name):
        return None
    try:
        protocol = await mdns.create_mdns_protocol()
    except OSError:
        return None
    try:
        async with asyncio.timeout(timeout):
            while True:
                started = asyncio.get_running_loop().time()
                ip = await protocol.resolve(name, timeout=min(QUERY_INTERVAL, timeout))
                if ip is not None:
                    return ip if is_usable_address(ip) else None
                if asyncio.get_running_loop().time() - started < QUERY_INTERVAL / 2:
                    return None  # refused at once: there is no multicast here
    except (OSError, TimeoutError):
        return None
    finally:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(1.0):
                await protocol.close()
