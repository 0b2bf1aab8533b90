"""The translation table of a virtual NAT, RFC 4787."""

from __future__ import annotations

from dataclasses import dataclass, field

from ice_punch.datagram import Address
from ice_punch.lab.behaviour import Blocking, Filtering, Mapping, NatBehaviour, PortAllocation
from ice_punch.lab.trace import DropReason

FIRST_DYNAMIC_PORT = 1024
LAST_PORT = 65535


@dataclass(slots=True)
class NatMapping:
    internal: Address
    external: Address
    contacted: set[Address] = field(default_factory=set)
    contacted_ips: set[str] = field(default_factory=set)


class TranslationTable:
    """Mappings and filters of one NAT with one external IP address.

    ``first_port`` is where sequential allocation begins.
    """

    def __init__(
        self, external_ip: str, behaviour: NatBehaviour, *, first_port: int = 40000
    ) -> None:
        self.external_ip = external_ip
        self.behaviour = behaviour
        self._next_port = first_port
        self._by_key: dict[tuple[Address, str | Address | None], NatMapping] = {}
        self._by_port: dict[int, NatMapping] = {}

    @property
    def mappings(self) -> tuple[NatMapping, ...]:
        return tuple(self._by_port.values())

    def outbound(self, source: Address, destination: Address) -> Address | DropReason:
        """The external source that a packet from inside leaves with."""
        if self.behaviour.blocking is Blocking.UDP:
            return DropReason.UDP_BLOCKED
        if destination[0] == self.external_ip:
            return DropReason.NO_HAIRPIN
        key = (source, self._mapping_key(destination))
        mapping = self._by_key.get(key)
        if mapping is None:
            port = self._allocate(source[1])
            if port is None:
                return DropReason.NO_PORT
            mapping = NatMapping(source, (self.external_ip, port))
            self._by_key[key] = self._by_port[port] = mapping
        mapping.contacted.add(destination)
        mapping.contacted_ips.add(destination[0])
        return mapping.external

    def inbound(self, source: Address, destination: Address) -> Address | DropReason:
        """The internal destination of a packet that came from outside."""
        mapping = self._by_port.get(destination[1])
        if mapping is None:
            return DropReason.NO_MAPPING
        filtering = self.behaviour.filtering
        if filtering is Filtering.ADDRESS_DEPENDENT:
            passes = source[0] in mapping.contacted_ips
        elif filtering is Filtering.ADDRESS_AND_PORT_DEPENDENT:
            passes = source in mapping.contacted
        else:
            passes = True
        return mapping.internal if passes else DropReason.FILTERED

    def forget(self) -> None:
        """Lose every mapping, as a NAT does that restarts."""
        self._by_key.clear()
        self._by_port.clear()

    def _mapping_key(self, destination: Address) -> str | Address | None:
        match self.behaviour.mapping:
            case Mapping.ENDPOINT_INDEPENDENT:
                return None
            case Mapping.ADDRESS_DEPENDENT:
                return destination[0]
            case Mapping.ADDRESS_AND_PORT_DEPENDENT:
                return destination

    def _allocate(self, internal_port: int) -> int | None:
        preserving = self.behaviour.allocation is PortAllocation.PRESERVING
        first = internal_port if preserving else self._next_port
        span = LAST_PORT - FIRST_DYNAMIC_PORT + 1
        for step in range(span):
            port = first + step
            if port > LAST_PORT:
                port -= span
            if port not in self._by_port:
                if not preserving:
                    self._next_port = port + 1 if port < LAST_PORT else FIRST_DYNAMIC_PORT
                return port
        return None
