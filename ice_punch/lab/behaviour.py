"""What a NAT does, in the terms of RFC 4787 (UDP) and RFC 5382 (TCP)."""

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
    """Who may send to an internal endpoint, RFC 4787 section 5: anyone once it has a mapping, the
    addresses it has sent to, or the addresses and ports it has sent to."""

    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_DEPENDENT = "address-dependent"
    ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"


class PortAllocation(StrEnum):
    """How a NAT chooses the external port of a new mapping, RFC 4787 section 4.2."""

    PRESERVING = "preserving"
    """The internal port, or the next free one."""
    PARITY_PRESERVING = "parity-preserving"
    """A random port, even for an even internal port and odd for an odd one (section 4.2.2)."""
    CONTIGUOUS = "contiguous"
    """Neighbouring internal ports get neighbouring external ones (section 4.2.3)."""
    SEQUENTIAL = "sequential"
    """The last one plus ``NatBehaviour.step``."""
    RANDOM = "random"


class Hairpinning(StrEnum):
    """What happens to a packet from inside to an external address of the NAT itself, RFC 4787
    section 6."""

    NONE = "none"
    INTERNAL_SOURCE = "internal source"
    """It arrives with the sender's internal address as source."""
    EXTERNAL_SOURCE = "external source"
    """It arrives as if from outside (REQ-9)."""


class Refresh(StrEnum):
    """Which packets keep a mapping alive, RFC 4787 section 4.3."""

    OUTBOUND = "outbound"
    INBOUND = "inbound"
    BOTH = "both"


class Pooling(StrEnum):
    """Which of several external addresses a mapping gets, RFC 4787 section 4.1."""

    PAIRED = "paired"
    """The same one for all mappings of one internal address."""
    ARBITRARY = "arbitrary"


class EarlyInbound(StrEnum):
    """What happens to a packet from outside that no mapping or filter lets in."""

    DROP = "drop"
    REJECT = "reject"
    """ICMP port unreachable, at once. RFC 5382 REQ-4 wants 6 s of silence first for a SYN; NATs
    that do not wait spoil simultaneous opens."""
    RESET = "reset"
    """A TCP segment is answered with RST; a datagram vanishes."""
    BLACKLIST = "blacklist"
    """Its source IP address is let in no more for ``NatBehaviour.blacklist_seconds``, mapping or
    not."""
    CLAIM = "claim"
    """A Linux router that masquerades and accepts input: it takes the packet for its own, answers
    ICMP port unreachable, and gives mappings towards that very source another port."""


class Blocking(StrEnum):
    """What a firewall beside the NAT keeps from leaving."""

    NOTHING = "nothing"
    UDP = "udp"
    ALL_BUT_TCP_443 = "all but tcp 443"


@dataclass(frozen=True, slots=True)
class NatBehaviour:
    """One NAT. Times are seconds.

    The defaults are the most common NAT, not the best: RFC 4787 asks for hairpinning (REQ-9) and
    for a filter that does not look at ports (REQ-8). TCP is mapped and filtered like UDP
    (RFC 5382 REQ-1 and REQ-3), and what hairpins has to pass the filter like all else.
    """

    mapping: Mapping = Mapping.ENDPOINT_INDEPENDENT
    filtering: Filtering = Filtering.ADDRESS_AND_PORT_DEPENDENT
    allocation: PortAllocation = PortAllocation.PRESERVING
    step: int = 1
    """Between the ports of sequential allocation; negative steps go down."""
    hairpinning: Hairpinning = Hairpinning.NONE
    lifetime: float | None = None
    """A UDP mapping that is not refreshed for so long is gone; ``None``: it stays."""
    refresh: Refresh = Refresh.OUTBOUND
    pooling: Pooling = Pooling.PAIRED
    external_addresses: int = 1
    early_inbound: EarlyInbound = EarlyInbound.DROP
    blacklist_seconds: float = 30.0
    blocking: Blocking = Blocking.NOTHING

    def __post_init__(self) -> None:
        if not 1 <= self.external_addresses <= 16:
            raise InvalidConfiguration("a NAT has 1 to 16 external addresses")
        if self.step == 0 or abs(self.step) > 10000:
            raise InvalidConfiguration("a step between ports is 1 to 10000, up or down")
        if self.lifetime is not None and not self.lifetime > 0:
            raise InvalidConfiguration("a mapping lives for more than 0 seconds")
        if not self.blacklist_seconds >= 0:
            raise InvalidConfiguration("a time on a black list is not negative")

    @property
    def short(self) -> str:
        """Mapping and filtering as matrices name them: ``EIM/APDF`` is the port-restricted cone."""
        return f"{_SHORT[self.mapping]}M/{_SHORT[self.filtering]}F"


_SHORT: dict[str, str] = {
    "endpoint-independent": "EI",
    "address-dependent": "AD",
    "address-and-port-dependent": "APD",
}


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
        mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT, allocation=PortAllocation.RANDOM
    ),
    NatKind.UDP_BLOCKED: NatBehaviour(blocking=Blocking.UDP),
}

NINE: tuple[NatBehaviour, ...] = tuple(
    NatBehaviour(
        mapping=mapping,
        filtering=filtering,
        allocation=PortAllocation.PRESERVING
        if mapping is Mapping.ENDPOINT_INDEPENDENT
        else PortAllocation.RANDOM,
    )
    for mapping in Mapping
    for filtering in Filtering
)
"""Three mappings x three filterings: the rows and columns of the matrix. What varies its mapping
does so at random, so that nobody guesses a port."""
