"""The translation table of a virtual NAT: RFC 4787, and RFC 5382 for TCP."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from math import gcd

from ice_punch.datagram import Address
from ice_punch.lab.behaviour import (
    Blocking,
    EarlyInbound,
    Hairpinning,
    Mapping,
    NatBehaviour,
    Pooling,
    PortAllocation,
    Refresh,
)
from ice_punch.lab.trace import DropReason, Protocol
from ice_punch.lab.virtual.contacts import ContactFilter

FIRST_DYNAMIC_PORT = 1024
LAST_PORT = 65535
SPAN = LAST_PORT - FIRST_DYNAMIC_PORT + 1
FIRST_SEQUENTIAL_PORT = 40000
CLAIM_SECONDS = 30.0
"""How long a Linux router holds on to what it took for its own (nf_conntrack_udp_timeout)."""


class _Claimed(StrEnum):
    """The key of a mapping that had to make way, towards one destination."""

    CLAIMED = "claimed"


MappingKey = str | Address | tuple[_Claimed, Address] | None


@dataclass(slots=True)
class NatMapping:
    protocol: Protocol
    internal: Address
    key: MappingKey
    """What it is for besides: nothing, an IP address, an address."""
    external: Address
    refreshed_at: float = 0.0


class TranslationTable:
    """Mappings and filters of one NAT.

    ``first_port`` is where sequential allocation begins. All randomness is drawn from ``source``.
    """

    def __init__(
        self,
        external_ip: str,
        behaviour: NatBehaviour,
        *,
        first_port: int = FIRST_SEQUENTIAL_PORT,
        source: random.Random | None = None,
    ) -> None:
        first = ipaddress.ip_address(external_ip)
        self.external_ips = tuple(str(first + n) for n in range(behaviour.external_addresses))
        self.behaviour = behaviour
        self._random = source or random.Random(f"nat {external_ip}")  # noqa: S311
        self._next_port = first_port
        self._by_key: dict[tuple[Protocol, Address, MappingKey], NatMapping] = {}
        self._by_external: dict[tuple[Protocol, Address], NatMapping] = {}
        self._filter = ContactFilter(behaviour.filtering, behaviour.lifetime, behaviour.refresh)
        self._paired: dict[str, str] = {}
        self._offsets: dict[tuple[str, MappingKey], int] = {}
        self._blacklist: dict[str, float] = {}
        self._claims: dict[tuple[Protocol, Address, Address], float] = {}
        self._spent: set[tuple[Protocol, Address]] = set()

    @property
    def external_ip(self) -> str:
        return self.external_ips[0]

    @property
    def mappings(self) -> tuple[NatMapping, ...]:
        """All whose port nobody else has, those included that have lapsed."""
        return tuple(self._by_external.values())

    # -- outbound -----------------------------------------------------------------------------

    def outbound(
        self,
        source: Address,
        destination: Address,
        now: float = 0.0,
        protocol: Protocol = Protocol.UDP,
    ) -> Address | DropReason:
        """The external source that a packet from inside leaves with."""
        blocked = blocks(self.behaviour.blocking, protocol, destination)
        if blocked is not None:
            return blocked
        mapping = self._mapping(protocol, source, destination, now)
        if mapping is None:
            return DropReason.NO_PORT
        if self.behaviour.refresh is not Refresh.INBOUND:
            mapping.refreshed_at = now
        self._filter.contact(protocol, source, destination, now)
        return mapping.external

    def hairpin(
        self,
        source: Address,
        destination: Address,
        now: float = 0.0,
        protocol: Protocol = Protocol.UDP,
    ) -> tuple[Address, Address] | DropReason:
        """Source and destination of a packet from inside to an external address of ours, as it
        goes back inside (section 6)."""
        if self.behaviour.hairpinning is Hairpinning.NONE:
            return DropReason.NO_HAIRPIN
        external = self.outbound(source, destination, now, protocol)
        if isinstance(external, DropReason):
            return external
        internal = self.inbound(external, destination, now, protocol)
        if isinstance(internal, DropReason):
            return internal
        inside = self.behaviour.hairpinning is Hairpinning.INTERNAL_SOURCE
        return (source if inside else external), internal

    def _mapping(
        self, protocol: Protocol, source: Address, destination: Address, now: float
    ) -> NatMapping | None:
        moved: MappingKey = (_Claimed.CLAIMED, destination)
        mapping = self._living(protocol, source, moved, now)
        if mapping is not None:
            return mapping
        key = self._mapping_key(destination)
        mapping = self._living(protocol, source, key, now)
        if mapping is None:
            mapping = self._add(protocol, source, key, now)
        if mapping is not None and self._is_claimed(protocol, mapping.external, destination, now):
            mapping = self._add(protocol, source, moved, now, anywhere=True)
        return mapping

    def _living(
        self, protocol: Protocol, internal: Address, key: MappingKey, now: float
    ) -> NatMapping | None:
        mapping = self._by_key.get((protocol, internal, key))
        if mapping is None or self._lives(mapping, now):
            return mapping
        self._remove(mapping)
        return None

    def _mapping_key(self, destination: Address) -> MappingKey:
        match self.behaviour.mapping:
            case Mapping.ENDPOINT_INDEPENDENT:
                return None
            case Mapping.ADDRESS_DEPENDENT:
                return destination[0]
            case Mapping.ADDRESS_AND_PORT_DEPENDENT:
                return destination

    def _add(
        self,
        protocol: Protocol,
        internal: Address,
        key: MappingKey,
        now: float,
        *,
        anywhere: bool = False,
    ) -> NatMapping | None:
        ip = self._external_ip(internal[0])
        allocation = PortAllocation.RANDOM if anywhere else self.behaviour.allocation
        ports = self._ports(allocation, internal, key)
        port = next((port for port in ports if self._is_free(protocol, (ip, port), now)), None)
        if port is None:
            return None
        if allocation is PortAllocation.SEQUENTIAL:
            self._next_port = port + self.behaviour.step
        mapping = NatMapping(protocol, internal, key, (ip, port), now)
        self._by_key[protocol, internal, key] = mapping
        self._by_external[protocol, mapping.external] = mapping
        return mapping

    def _remove(self, mapping: NatMapping) -> None:
        del self._by_key[mapping.protocol, mapping.internal, mapping.key]
        del self._by_external[mapping.protocol, mapping.external]

    def _is_free(self, protocol: Protocol, external: Address, now: float) -> bool:
        """A mapping that has lapsed makes way for another."""
        if (protocol, external) in self._spent:
            return False
        mapping = self._by_external.get((protocol, external))
        if mapping is None:
            return True
        if self._lives(mapping, now):
            return False
        self._remove(mapping)
        return True

    def _lives(self, mapping: NatMapping, now: float) -> bool:
        lifetime = self.behaviour.lifetime
        if lifetime is None or mapping.protocol is not Protocol.UDP:
            return True
        return now < mapping.refreshed_at + lifetime

    def _external_ip(self, internal_ip: str) -> str:
        if len(self.external_ips) == 1:
            return self.external_ips[0]
        if self.behaviour.pooling is Pooling.ARBITRARY:
            return self._choose(self.external_ips)
        if internal_ip not in self._paired:
            self._paired[internal_ip] = self._choose(self.external_ips)
        return self._paired[internal_ip]

    def _choose(self, ips: tuple[str, ...]) -> str:
        return ips[int(self._random.random() * len(ips))]

    def _random_port(self) -> int:
        return FIRST_DYNAMIC_PORT + int(self._random.random() * SPAN)

    def _ports(
        self, allocation: PortAllocation, internal: Address, key: MappingKey
    ) -> Iterator[int]:
        """All of them, in the order in which section 4.2 lets them be tried."""
        match allocation:
            case PortAllocation.PRESERVING:
                yield internal[1]
                yield from _every_port(max(internal[1], FIRST_DYNAMIC_PORT), 1)
            case PortAllocation.PARITY_PRESERVING:
                yield from _every_port(self._random_port() & ~1 | internal[1] & 1, 2)
            case PortAllocation.CONTIGUOUS:
                whose = (internal[0], key)
                if whose not in self._offsets:
                    self._offsets[whose] = self._random_port()
                yield from _every_port(internal[1] + self._offsets[whose], 1)
            case PortAllocation.SEQUENTIAL:
                yield from _every_port(self._next_port, self.behaviour.step)
            case PortAllocation.RANDOM:
                yield from _every_port(self._random_port(), 1)

    # -- inbound ------------------------------------------------------------------------------

    def inbound(
        self,
        source: Address,
        destination: Address,
        now: float = 0.0,
        protocol: Protocol = Protocol.UDP,
    ) -> Address | DropReason:
        """The internal destination of a packet that came from outside."""
        until = self._blacklist.get(source[0])
        if until is not None and now < until:
            return DropReason.BLACKLISTED
        mapping = self._by_external.get((protocol, destination))
        if mapping is None or not self._lives(mapping, now):
            return self._early(protocol, source, destination, now, DropReason.NO_MAPPING)
        # What was taken for the router's own once, is so as long as it comes.
        if self._is_claimed(protocol, destination, source, now) or not self._filter.admits(
            protocol, mapping.internal, source, now
        ):
            return self._early(protocol, source, destination, now, DropReason.FILTERED)
        if self.behaviour.refresh is not Refresh.OUTBOUND:
            mapping.refreshed_at = now
        return mapping.internal

    def internal_of(self, protocol: Protocol, external: Address, now: float) -> Address | None:
        """Whose external address that is, for ICMP errors about what it sent. Errors refresh
        nothing (RFC 5508 section 4.2)."""
        mapping = self._by_external.get((protocol, external))
        return mapping.internal if mapping is not None and self._lives(mapping, now) else None

    def external_of(
        self, protocol: Protocol, internal: Address, remote: Address, now: float
    ) -> Address | None:
        """As whom ``remote`` knows an internal address, for ICMP errors about what it was sent."""
        for key in ((_Claimed.CLAIMED, remote), self._mapping_key(remote)):
            mapping = self._living(protocol, internal, key, now)
            if mapping is not None:
                return mapping.external
        # It came through a mapping made for somebody else.
        return next(
            (
                mapping.external
                for mapping in self._by_external.values()
                if (mapping.protocol, mapping.internal) == (protocol, internal)
                and self._lives(mapping, now)
            ),
            None,
        )

    def _early(
        self,
        protocol: Protocol,
        source: Address,
        destination: Address,
        now: float,
        reason: DropReason,
    ) -> DropReason:
        match self.behaviour.early_inbound:
            case EarlyInbound.BLACKLIST:
                self._blacklist[source[0]] = now + self.behaviour.blacklist_seconds
            case EarlyInbound.CLAIM:
                self._claims[protocol, destination, source] = now + CLAIM_SECONDS
        return reason

    def _is_claimed(
        self, protocol: Protocol, external: Address, remote: Address, now: float
    ) -> bool:
        until = self._claims.get((protocol, external, remote))
        return until is not None and now < until

    # -- what happens to NATs -----------------------------------------------------------------

    def forget(self) -> None:
        """Lose everything, as a NAT does that restarts."""
        self._by_key.clear()
        self._by_external.clear()
        self._filter.forget()
        self._paired.clear()
        self._offsets.clear()
        self._blacklist.clear()
        self._claims.clear()
        self._spent.clear()

    def rebind(self) -> None:
        """Move every mapping to a new port: the old ones are never used again."""
        self._spent |= self._by_external.keys()
        self._by_key.clear()
        self._by_external.clear()


def _every_port(first: int, step: int) -> Iterator[int]:
    """Every dynamic port once, from ``first`` on; where the steps meet only their own ports again,
    they go on beside them."""
    cycle = SPAN // gcd(step, SPAN)
    for number in range(SPAN):
        offset = first - FIRST_DYNAMIC_PORT + number * step + number // cycle
        yield FIRST_DYNAMIC_PORT + offset % SPAN


def blocks(blocking: Blocking, protocol: Protocol, destination: Address) -> DropReason | None:
    """Why a firewall keeps a packet from leaving; ``None`` if it does not."""
    match blocking:
        case Blocking.UDP if protocol is Protocol.UDP:
            return DropReason.UDP_BLOCKED
        case Blocking.ALL_BUT_TCP_443 if (protocol, destination[1]) != (Protocol.TCP, 443):
            return DropReason.UDP_BLOCKED if protocol is Protocol.UDP else DropReason.BLOCKED
    return None
