"""How a NAT maps and filters: RFC 4787's kinds, found out as RFC 5780 sections 4.3 and 4.4 do."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from ice_punch.datagram import Address


class MappingBehaviour(StrEnum):
    """RFC 4787 section 4.1, and ``open``: there is no NAT."""

    OPEN = "open"
    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_DEPENDENT = "address-dependent"
    ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"
    UNKNOWN = "unknown"


class FilteringBehaviour(StrEnum):
    """RFC 4787 section 5."""

    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_DEPENDENT = "address-dependent"
    ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"
    UNKNOWN = "unknown"


class Observation(NamedTuple):
    """Where a server saw the requests of one socket come from."""

    server: Address
    mapped: Address


@dataclass(frozen=True, slots=True)
class MappingVerdict:
    behaviour: MappingBehaviour
    exact: bool
    """False for an ``address-dependent`` that may as well depend on the port: only a server that
    is asked at two ports of one IP address tells these apart."""
    reason: str

    @property
    def varies_by_destination(self) -> bool:
        """Whether a peer will meet another mapped address than the servers did."""
        return self.behaviour in (
            MappingBehaviour.ADDRESS_DEPENDENT,
            MappingBehaviour.ADDRESS_AND_PORT_DEPENDENT,
        )


def mapping_verdict(
    observations: Iterable[Observation], local: Address | None = None
) -> MappingVerdict:
    """The mapping behaviour, from what unrelated servers saw of one socket at about one time.

    ``local`` is the socket's own address, if it has a definite one: mapped to itself it is not
    behind a NAT. Raises ValueError for servers of both IP versions: those are two paths.
    """
    seen = list(dict.fromkeys(observations))
    if len({":" in observation.server[0] for observation in seen}) > 1:
        raise ValueError("the mappings of IPv4 and IPv6 are to be judged apart")
    mapped = {observation.mapped for observation in seen}
    by_ip: dict[str, dict[int, Address]] = {}
    for (ip, port), address in seen:
        if by_ip.setdefault(ip, {}).setdefault(port, address) != address:
            return MappingVerdict(
                MappingBehaviour.UNKNOWN, True, "the mapping changed while it was looked at"
            )
    if not seen:
        return MappingVerdict(MappingBehaviour.UNKNOWN, True, "no server answered")
    if mapped == {local}:
        return MappingVerdict(MappingBehaviour.OPEN, True, "servers see the local address")
    if len(mapped) == 1:
        if len(by_ip) > 1:
            return MappingVerdict(
                MappingBehaviour.ENDPOINT_INDEPENDENT,
                True,
                f"{len(by_ip)} servers see the same address",
            )
        return MappingVerdict(MappingBehaviour.UNKNOWN, True, "only one server answered")
    if any(len(set(ports.values())) > 1 for ports in by_ip.values()):
        return MappingVerdict(
            MappingBehaviour.ADDRESS_AND_PORT_DEPENDENT,
            True,
            "two ports of one server see different addresses",
        )
    return MappingVerdict(
        MappingBehaviour.ADDRESS_DEPENDENT,
        any(len(ports) > 1 for ports in by_ip.values()),
        "servers see different addresses",
    )


def is_usable_alternate(server: Address, other: Address | None) -> bool:
    """Whether OTHER-ADDRESS is what RFC 5780 section 6 wants: both IP address and port differ, and
    the address is one that a request can be sent to."""
    if other is None or other[1] in (0, server[1]):
        return False
    ip, server_ip = ipaddress.ip_address(other[0]), ipaddress.ip_address(server[0])
    usable = not (ip.is_unspecified or ip.is_multicast)
    return usable and ip != server_ip and ip.version == server_ip.version
