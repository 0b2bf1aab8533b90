"""Where servers are as seen from here: names, and IPv4 addresses behind NAT64."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterable
from typing import Protocol

from ice_punch.datagram import Address
from ice_punch.errors import IcePunchError, ServerUnreachable
from ice_punch.net import dns
from ice_punch.net.ice_server import IceServer
from ice_punch.net.interfaces import InterfaceAddress
from ice_punch.net.nat64 import WELL_KNOWN_NAME, Nat64Prefix, prefixes
from ice_punch.net.srv import resolve_server

DISCOVERY_TIMEOUT = 2.0
"""Seconds. Where there is NAT64 its DNS64 is a hop away."""


class Families(Protocol):
    @property
    def ipv4(self) -> bool: ...

    @property
    def ipv6(self) -> bool: ...


class ServerAddresses:
    """Resolves servers; on a host that has nothing but IPv6, through NAT64 if there is one."""

    def __init__(self, families: Families) -> None:
        """``families`` are those that the user allows."""
        self._families = families
        self._ipv6_only = False
        self._discovery: asyncio.Task[Nat64Prefix | None] | None = None

    def here(self, addresses: Iterable[InterfaceAddress]) -> None:
        """This host's addresses. Another network may have another NAT64, or none."""
        own = {":" in address.ip for address in addresses}
        if not own:
            return
        self.close()
        self._ipv6_only = own == {True} and self._families.ipv6
        if self._ipv6_only:
            self._discovery = asyncio.ensure_future(_discover())

    @property
    def may_translate(self) -> bool:
        """Whether this host has nothing but IPv6, and it is not known that there is no NAT64."""
        discovery = self._discovery
        if not self._ipv6_only or discovery is None:
            return False
        return not discovery.done() or (not discovery.cancelled() and bool(discovery.result()))

    async def translated(self, ipv4: str) -> str | None:
        """The IPv6 address by which NAT64 lets us reach an IPv4 address; None without NAT64."""
        discovery = self._discovery
        if not self.may_translate or discovery is None:
            return None
        await asyncio.wait([discovery])
        if discovery.cancelled():  # there is another network
            return None
        prefix = discovery.result()
        return None if prefix is None else prefix.embed(ipv4)

    async def resolve(self, server: IceServer) -> list[Address]:
        """The addresses of a server, of families that are allowed. Raises ServerUnreachable."""
        families = self._families
        if not self.may_translate:
            return await resolve_server(server, ipv4=families.ipv4, ipv6=families.ipv6)
        # With DNS64 a name has an IPv6 address. An IPv4 address in its place has none.
        found = await resolve_server(server)
        reachable = [address for address in found if ":" in address[0]]
        if not reachable:
            made = [(await self.translated(ip), port) for ip, port in found]
            reachable = [(ip, port) for ip, port in made if ip is not None]
        if not reachable:
            if families.ipv4:
                return found
            raise ServerUnreachable(
                f"{server.host} has no IPv6 address, and there is no NAT64",
                outcome="unresolved",
            )
        return reachable

    def close(self) -> None:
        if self._discovery is not None:
            self._discovery.cancel()
            self._discovery = None


async def _discover() -> Nat64Prefix | None:
    """RFC 7050 section 3."""
    try:
        answers = await dns.resolve(
            WELL_KNOWN_NAME, 0, ipv4=False, ipv6=True, timeout=DISCOVERY_TIMEOUT
        )
    except IcePunchError:
        return None
    found = prefixes(ip for ip, _ in answers)
    return found[0] if found else None


def is_ipv4(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 4
    except ValueError:
        return False
