"""Names to addresses, without ever holding up the event loop or the end of the program."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading

from ice_punch.datagram import Address
from ice_punch.errors import ServerUnreachable

RESOLUTION_DELAY = 0.3
"""Seconds that the slower address family is waited for once the other has answered."""
DEFAULT_TIMEOUT = 5.0


async def resolve(
    host: str,
    port: int,
    *,
    ipv4: bool = True,
    ipv6: bool = True,
    timeout: float = DEFAULT_TIMEOUT,
) -> list[Address]:
    """The transport addresses of ``host``, IPv6 and IPv4 asked for at the same time.

    An IP address is its own answer. Where one family answers, the other gets another 0.3 s: its
    queries may be going nowhere. Raises ServerUnreachable, outcome ``unresolved``, when there is no
    address of a family that is wanted, or no answer within ``timeout`` seconds.
    """
    with contextlib.suppress(ValueError):
        literal = ipaddress.ip_address(host)
        if not (ipv4 if literal.version == 4 else ipv6):
            raise ServerUnreachable(
                f"{host} is an IPv{literal.version} address, which is switched off",
                outcome="unresolved",
            )
        return [(str(literal), port)]
    families = [f for f, wanted in ((socket.AF_INET6, ipv6), (socket.AF_INET, ipv4)) if wanted]
    lookups = {family: _lookup(host, family) for family in families}
    pending = set(lookups.values())
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    try:
        while pending:
            done, pending = await asyncio.wait(
                pending,
                timeout=max(0.0, deadline - loop.time()),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not done:
                break
            if any(_answer(lookup) for lookup in done):
                deadline = min(deadline, loop.time() + RESOLUTION_DELAY)
    finally:
        for lookup in pending:
            lookup.cancel()
    ips = [ip for lookup in lookups.values() for ip in _answer(lookup)]
    if ips:
        return [(ip, port) for ip in dict.fromkeys(ips)]
    if pending:
        raise ServerUnreachable(
            f"the name {host} was not resolved within {timeout:g} s", outcome="unresolved"
        )
    reasons = {str(e) for e in (lookup.exception() for lookup in lookups.values()) if e}
    why = min(reasons, default="it has no address of the wanted kind")
    raise ServerUnreachable(f"the name {host} can not be resolved: {why}", outcome="unresolved")


def _answer(lookup: asyncio.Future[list[str]]) -> list[str]:
    if not lookup.done() or lookup.cancelled() or lookup.exception() is not None:
        return []
    return lookup.result()


def _lookup(host: str, family: int) -> asyncio.Future[list[str]]:
    """Ask the system in a daemon thread: the loop's executor would be waited for at the end of
    the program, and a name server that never answers would hold that up."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[list[str]] = loop.create_future()

    def deliver(ips: list[str], error: str | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(ips)
        else:
            future.set_exception(OSError(error))

    def ask() -> None:
        ips: list[str] = []
        error = None
        try:
            for *_, address in socket.getaddrinfo(host, None, family, socket.SOCK_DGRAM):
                text = str(address[0])
                if "%" not in text:  # link-local: of use on one link only
                    ips.append(str(ipaddress.ip_address(text)))
        except OSError as caught:
            error = caught.strerror or str(caught)
        except (UnicodeError, ValueError):
            error = "it is no name that DNS can have"
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(deliver, ips, error)

    threading.Thread(target=ask, name=f"resolve {host}", daemon=True).start()
    return future
