"""NAT64 and DNS64: IPv4 as IPv6-only hosts see it, RFC 6052, RFC 6146 and RFC 6147."""

from __future__ import annotations

import ipaddress
from typing import Final

from ice_punch.datagram import Address

WELL_KNOWN_PREFIX: Final = "64:ff9b::"
"""RFC 6052 section 2.1; 96 bits long."""


def embed(ipv4: str, prefix: str = WELL_KNOWN_PREFIX) -> str:
    """The IPv6 address that stands for an IPv4 address (RFC 6052 section 2.2)."""
    base = int(ipaddress.IPv6Address(prefix))
    return str(ipaddress.IPv6Address(base | int(ipaddress.IPv4Address(ipv4))))


def extract(ipv6: str, prefix: str = WELL_KNOWN_PREFIX) -> str | None:
    """The IPv4 address in an IPv6 address of the prefix; ``None`` for any other."""
    try:
        number, base = int(ipaddress.IPv6Address(ipv6)), int(ipaddress.IPv6Address(prefix))
    except ValueError:
        return None
    if number >> 32 != base >> 32:
        return None
    return str(ipaddress.IPv4Address(number & 0xFFFFFFFF))


def embedded(address: Address) -> Address:
    return (embed(address[0]), address[1])


class Dns64:
    """Answers for names, with made-up AAAA records where there are only A records (RFC 6147)."""

    def __init__(self, records: dict[str, tuple[str, ...]]) -> None:
        self._records = records

    def resolve(self, name: str) -> tuple[str, ...]:
        """The IPv6 addresses of a name; none for a name that does not exist."""
        known = self._records.get(name, ())
        real = tuple(ip for ip in known if ":" in ip)
        return real or tuple(embed(ip) for ip in known)
