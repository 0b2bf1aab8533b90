"""What both laboratories, the virtual and the kernel's, are told to build."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NoReturn

from ice_punch.errors import InvalidConfiguration


class Mapping(StrEnum):
    """How a NAT reuses an external port, RFC 4787 section 4.1."""

    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_DEPENDENT = "address-dependent"
    ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"


class Filtering(StrEnum):
    """Which outside endpoints may answer through a mapping, RFC 4787 section 5."""

    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_DEPENDENT = "address-dependent"
    ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"


class PortAllocation(StrEnum):
    """How a NAT chooses the external port of a new mapping, RFC 4787 section 4.2.1."""

    PRESERVING = "preserving"
    SEQUENTIAL = "sequential"


@dataclass(frozen=True, slots=True)
class NatBehaviour:
    """One NAT, in the terms of RFC 4787."""

    mapping: Mapping = Mapping.ENDPOINT_INDEPENDENT
    filtering: Filtering = Filtering.ADDRESS_AND_PORT_DEPENDENT
    allocation: PortAllocation = PortAllocation.PRESERVING
    blocks_udp: bool = False


class NatKind(StrEnum):
    """The NATs people name, and the two extremes: no NAT, and no UDP."""

    NONE = "none"
    FULL_CONE = "full_cone"
    ADDRESS_RESTRICTED = "address_restricted"
    PORT_RESTRICTED = "port_restricted"
    SYMMETRIC = "symmetric"
    UDP_BLOCKED = "udp_blocked"

    @classmethod
    def _missing_(cls, value: object) -> NoReturn:
        known = ", ".join(cls)
        raise InvalidConfiguration(f"no NAT kind is called {value}; there are {known}")

    @property
    def behaviour(self) -> NatBehaviour | None:
        """``None`` for a host that sits on the public internet."""
        return _BEHAVIOURS[self]


_BEHAVIOURS: dict[NatKind, NatBehaviour | None] = {
    NatKind.NONE: None,
    NatKind.FULL_CONE: NatBehaviour(filtering=Filtering.ENDPOINT_INDEPENDENT),
    NatKind.ADDRESS_RESTRICTED: NatBehaviour(filtering=Filtering.ADDRESS_DEPENDENT),
    NatKind.PORT_RESTRICTED: NatBehaviour(),
    NatKind.SYMMETRIC: NatBehaviour(
        mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT, allocation=PortAllocation.SEQUENTIAL
    ),
    NatKind.UDP_BLOCKED: NatBehaviour(blocks_udp=True),
}


@dataclass(frozen=True, slots=True)
class Scenario:
    """Two peers, each behind its own NAT, and a public host between them.

    ``rtt`` is the round trip between the peers in seconds, half of it on either side of the
    public internet; ``loss`` is the share of packets lost on each peer's access link, each way.
    """

    nat_a: NatKind = NatKind.PORT_RESTRICTED
    nat_b: NatKind = NatKind.PORT_RESTRICTED
    rtt: float = 0.0
    loss: float = 0.0

    def __post_init__(self) -> None:
        if not self.rtt >= 0:
            raise InvalidConfiguration("a round trip time is not negative")
        if not 0 <= self.loss < 1:
            raise InvalidConfiguration("a loss is at least 0 and below 1")
