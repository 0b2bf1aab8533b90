"""NAT64 as a host with nothing but IPv6 sees it: RFC 6052 addresses, RFC 7050 discovery."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

WELL_KNOWN_NAME: Final = "ipv4only.arpa"
"""RFC 7050 section 3: it has IPv4 addresses only, so that an IPv6 address is DNS64's work."""
_WELL_KNOWN_ADDRESSES: Final = tuple(
    ipaddress.IPv4Address(ip).packed for ip in ("192.0.0.170", "192.0.0.171")
)
_LENGTHS: Final = (96, 64, 56, 48, 40, 32)
_RESERVED: Final = 8
"""The byte, bits 64 to 71, that is zero and no part of the IPv4 address (RFC 6052 section 2.2)."""


@dataclass(frozen=True, slots=True)
class Nat64Prefix:
    """What stands before an IPv4 address, RFC 6052 section 2.2."""

    network: ipaddress.IPv6Network
    """/32, /40, /48, /56, /64 or /96."""

    def embed(self, ipv4: str) -> str:
        """The IPv6 address that stands for an IPv4 address."""
        start = self.network.prefixlen // 8
        packed = bytearray(self.network.network_address.packed)
        for place, byte in zip(_places(start), ipaddress.IPv4Address(ipv4).packed, strict=True):
            packed[place] = byte
        return str(ipaddress.IPv6Address(bytes(packed)))

    def extract(self, ipv6: str) -> str | None:
        """The IPv4 address in an IPv6 address of the prefix; None for any other."""
        address = ipaddress.IPv6Address(ipv6)
        if address not in self.network:
            return None
        packed = address.packed
        return str(
            ipaddress.IPv4Address(bytes(packed[i] for i in _places(self.network.prefixlen // 8)))
        )

    def __str__(self) -> str:
        return str(self.network)


def prefixes(addresses: Iterable[str]) -> tuple[Nat64Prefix, ...]:
    """The prefixes by which ``addresses``, the IPv6 ones of ``ipv4only.arpa``, were made up (RFC
    7050 section 3); none of them where there is no DNS64."""
    found: list[Nat64Prefix] = []
    for text in addresses:
        address = ipaddress.ip_address(text)
        if not isinstance(address, ipaddress.IPv6Address):
            continue
        for length in _LENGTHS:
            inside = bytes(address.packed[i] for i in _places(length // 8))
            rest = [i for i in range(16) if i >= length // 8 and i not in _places(length // 8)]
            if inside in _WELL_KNOWN_ADDRESSES and not any(address.packed[i] for i in rest):
                network = ipaddress.IPv6Network((address, length), strict=False)
                prefix = Nat64Prefix(network)
                if prefix not in found:
                    found.append(prefix)
                break
    return tuple(found)


def _places(start: int) -> list[int]:
    """Where the four bytes of the IPv4 address stand after a prefix of ``start`` bytes."""
    if start == 12:
        return [12, 13, 14, 15]
    return [i for i in range(start, start + 5) if i != _RESERVED][:4]
