"""Candidates: transport addresses that may be reachable, RFC 8445 sections 5.1.1 and 5.1.2."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from ice_punch.datagram import Address, format_address


class CandidateType(StrEnum):
    HOST = "host"
    SRFLX = "srflx"
    PRFLX = "prflx"
    RELAY = "relay"


TYPE_PREFERENCE = {
    CandidateType.HOST: 126,
    CandidateType.PRFLX: 110,
    CandidateType.SRFLX: 100,
    CandidateType.RELAY: 0,
}
"""RFC 8445 section 5.1.2.2, the recommended values."""

MAX_PRIORITY = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Candidate:
    """One candidate, local or remote.

    ``base`` and ``server`` are known for local candidates only and never leave this host:
    ``base`` is the address that datagrams of this candidate are sent from (RFC 8445 section
    5.1.1: itself for host and relay), ``server`` names the STUN or TURN server that told it.
    """

    foundation: str
    component: int
    transport: str
    """Lower case: ``udp`` or ``tcp``."""
    priority: int
    host: str
    """An IP address in canonical form, or a ``.local`` name that is yet to be resolved."""
    port: int
    type: CandidateType
    related_address: Address | None = None
    tcptype: str | None = None
    extensions: tuple[tuple[str, str], ...] = ()
    base: Address | None = None
    server: str | None = None

    @property
    def address(self) -> Address:
        return (self.host, self.port)

    @property
    def is_mdns(self) -> bool:
        return self.host.lower().endswith(".local")

    @property
    def ip_version(self) -> int:
        """4 or 6; 0 for a name."""
        if self.is_mdns:
            return 0
        return 6 if ":" in self.host else 4

    @property
    def is_link_local(self) -> bool:
        return not self.is_mdns and ipaddress.ip_address(self.host).is_link_local

    def __str__(self) -> str:
        return f"{self.type} {format_address(self.address)} priority {self.priority}"

    def with_host(self, host: str) -> Candidate:
        """The same candidate once its mDNS name is resolved."""
        return replace(self, host=host)


def candidate_priority(type_: CandidateType, local_preference: int, component: int) -> int:
    """RFC 8445 section 5.1.2.1."""
    if not 0 <= local_preference <= 65535:
        raise ValueError("a local preference is 0 to 65535")
    if not 1 <= component <= 256:
        raise ValueError("a component is 1 to 256")
    return (TYPE_PREFERENCE[type_] << 24) + (local_preference << 8) + (256 - component)


def peer_reflexive_priority(priority: int) -> int:
    """The PRIORITY in a check from a candidate of ``priority`` (RFC 8445 section 7.1.1)."""
    return (priority & 0x00FFFFFF) | (TYPE_PREFERENCE[CandidateType.PRFLX] << 24)


LocalPreference = Callable[[Iterable[str]], dict[str, int]]
"""Maps the local IP addresses, most preferred first, to unique local preferences."""


def interleaved_local_preferences(addresses: Iterable[str]) -> dict[str, int]:
    """Unique preferences from 65535 down, IPv6 and IPv4 intermingled (RFC 8421 section 4).

    An IPv4 address follows every Hi = (N_4 + N_6) / N_4 IPv6 addresses, so that a host whose IPv6
    is broken does not try all of it first.
    """
    ordered = list(dict.fromkeys(addresses))
    v6 = [a for a in ordered if ":" in a]
    v4 = [a for a in ordered if ":" not in a]
    head_start = (len(v4) + len(v6)) / len(v4) if v4 else 0.0
    merged: list[str] = []
    since_v4 = 0
    while v6 or v4:
        if v4 and (not v6 or since_v4 >= head_start):
            merged.append(v4.pop(0))
            since_v4 = 0
        else:
            merged.append(v6.pop(0))
            since_v4 += 1
    return {address: 65535 - index for index, address in enumerate(merged)}


def is_usable_address(ip: str, *, loopback: bool = False, link_local: bool = False) -> bool:
    """Whether RFC 8445 section 5.1.1.1 allows a host candidate with this address.

    ``loopback`` and ``link_local`` admit what the RFC leaves out, for tests on one host.
    """
    address = ipaddress.ip_address(ip)
    if address.is_unspecified or address.is_multicast:
        return False
    if address.is_loopback:
        return loopback
    if address.is_link_local:
        return link_local
    if isinstance(address, ipaddress.IPv6Address):
        compatible = int(address) >> 32 == 0
        if address.is_site_local or address.ipv4_mapped is not None or compatible:
            return False
    return True


NAT64_PREFIX = ipaddress.IPv6Network("64:ff9b::/96")
"""RFC 6052 section 2.1."""


def untranslated(address: Address) -> Address:
    """An address as its owner knows it: IPv4 where NAT64 has put it behind its well-known prefix.
    Prefixes that a network chose for itself are not known here."""
    ip = ipaddress.ip_address(address[0])
    if ip not in NAT64_PREFIX:
        return address
    return (str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)), address[1])


def is_mapping_of(base: Address, mapped: Address) -> bool:
    """Whether a peer could be told this address; a server may answer anything.

    An IPv6 base is seen at an IPv4 address through NAT64 (RFC 8445 section 5.1.1.2); nothing makes
    an IPv6 address of an IPv4 one.
    """
    possible = ":" in base[0] or ":" not in mapped[0]
    usable = is_usable_address(mapped[0], loopback=True, link_local=True)
    return possible and mapped[1] > 0 and usable


class Foundations:
    """Hands out foundations, RFC 8445 section 5.1.1.3: equal exactly when type, base IP address,
    server and transport are equal."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str, str], str] = {}

    def get(self, type_: CandidateType, base_ip: str, server: str | None, transport: str) -> str:
        key = (type_, base_ip, server or "", transport)
        return self._known.setdefault(key, str(len(self._known) + 1))
