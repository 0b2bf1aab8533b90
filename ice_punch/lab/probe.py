"""What a NAT of the laboratory looks like from inside: RFC 5780's tests, and more of their kind.

The probe sits behind the NAT with some sockets and knows one server with two addresses. It has
nothing but what its datagrams tell it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from ice_punch.datagram import Address, Transmit
from ice_punch.lab.behaviour import NatBehaviour
from ice_punch.lab.links import LinkProfile
from ice_punch.lab.virtual.internet import VirtualInternet
from ice_punch.nat import (
    AllocationBehaviour,
    AllocationDiscovery,
    BehaviourDiscovery,
    FilteringBehaviour,
    HairpinDiscovery,
    HairpinningBehaviour,
    LifetimeDiscovery,
    MappingBehaviour,
    PoolingBehaviour,
    RefreshBehaviour,
    hairpinning_verdict,
    port_order,
)
from ice_punch.stun import BindingServer

PRIMARY: Final[Address] = ("203.0.113.10", 3478)
ALTERNATE: Final[Address] = ("203.0.113.11", 3479)
EXTERNAL_IP: Final = "198.51.100.1"
INTERNAL_IP: Final = "10.0.0.2"
LINK: Final = LinkProfile(delay=0.005)

MAPPING_PORT: Final = 33001
FILTERING_PORT: Final = 34002
ALLOCATION_PORT: Final = 36000
ALLOCATION_SOCKETS: Final = 16
"""A random NAT that looks like one that preserves parity is one in 65,536."""
HAIRPIN_PORT: Final = 38000
HAIRPIN_SENDERS: Final = 6
LIFETIME_PORT: Final = 44000
LIFETIME_HELPERS: Final = 40
"""Of a NAT with several external addresses: until one shares that of the tested socket."""

FIRST_IDLE: Final = 20.0
LONGEST_IDLE: Final = 80.0
"""Seconds. A mapping that outlives it has no lifetime as far as the probe is concerned."""
PRECISION: Final = 1.0
RC: Final = 2
RM: Final = 2
"""Nothing is lost here, so silence is soon understood (RFC 8489 section 6.2.1)."""
LIMIT: Final = 4000.0
"""Seconds of virtual time for one test."""

T = TypeVar("T", covariant=True)


@dataclass(frozen=True, slots=True)
class ProbedBehaviour:
    """As measured. ``UNKNOWN`` is what no probe could tell."""

    mapping: MappingBehaviour
    filtering: FilteringBehaviour
    allocation: AllocationBehaviour
    step: int | None
    """Of sequential allocation."""
    hairpinning: HairpinningBehaviour
    pooling: PoolingBehaviour
    external_ips: tuple[str, ...]
    """All that the server saw."""
    lifetime: tuple[float | None, float | None]
    """A mapping was alive after so many seconds without traffic, and gone after so many."""
    refresh: RefreshBehaviour
    reasons: tuple[tuple[str, str], ...]
    """Why, for people: ``("mapping", "both IP addresses see the same address")``."""
    datagrams: int
    """How many all this took, answers included."""


class _Discovery(Protocol[T]):
    def receive_datagram(
        self, data: bytes, source: Address, local: Address, now: float
    ) -> None: ...

    def datagrams_to_send(self, now: float) -> list[Transmit]: ...

    def next_event(self) -> T | None: ...


class _Probe:
    def __init__(self, behaviour: NatBehaviour, seed: int) -> None:
        self.internet = VirtualInternet(seed)
        nat = self.internet.nat("nat", EXTERNAL_IP, behaviour, link=LINK)
        self.host = self.internet.host("probe", INTERNAL_IP, behind=nat)
        server = BindingServer(PRIMARY, ALTERNATE)
        self.internet.attach(self.internet.host("server", PRIMARY[0], ALTERNATE[0]), server)
        self.random = self.internet.random("probe")

    @property
    def now(self) -> float:
        return self.internet.now

    def run(self, discovery: _Discovery[T], sockets: list[Address]) -> T:
        """Let ``discovery`` have its sockets until it is done."""
        found: list[T] = []
        attachment = self.internet.attach(
            self.host,
            discovery,
            on_event=lambda now, event: found.append(event),  # type: ignore[arg-type]
            ports={port for _, port in sockets},
        )
        self.internet.run(self.now + LIMIT, stop=lambda: bool(found))
        self.host.attachments.remove(attachment)
        return found[0]


def _socket(port: int) -> Address:
    return (INTERNAL_IP, port)


def probe(behaviour: NatBehaviour, seed: int = 0) -> ProbedBehaviour:
    """Put a host behind one virtual NAT of this behaviour, and measure it: a pure function."""
    at = _Probe(behaviour, seed)

    pair = [_socket(MAPPING_PORT), _socket(FILTERING_PORT)]
    discovery = BehaviourDiscovery(PRIMARY, pair[0], pair[1], at.random, at.now, rc=RC, rm=RM)
    basic = at.run(discovery, pair)

    sockets = [_socket(port) for port in port_order(ALLOCATION_PORT, ALLOCATION_SOCKETS)]
    allocation = at.run(
        AllocationDiscovery(PRIMARY, sockets, at.random, at.now, rc=RC, rm=RM), sockets
    )

    target, *senders = (_socket(HAIRPIN_PORT + 10 * n) for n in range(1 + HAIRPIN_SENDERS))
    hairpin = hairpinning_verdict(
        at.run(
            HairpinDiscovery(PRIMARY, target, senders, at.random, at.now, rc=RC, rm=RM),
            [target, *senders],
        ),
        basic.mapping,
        basic.filtering,
    )

    tested, *helpers = (_socket(LIFETIME_PORT + 10 * n) for n in range(1 + LIFETIME_HELPERS))
    lifetime = at.run(
        LifetimeDiscovery(
            PRIMARY,
            tested,
            helpers,
            at.random,
            at.now,
            first=FIRST_IDLE,
            longest=LONGEST_IDLE,
            precision=PRECISION,
            rc=RC,
            rm=RM,
        ),
        [tested, *helpers],
    )

    return ProbedBehaviour(
        mapping=basic.mapping,
        filtering=basic.filtering,
        allocation=allocation.allocation.behaviour,
        step=allocation.allocation.step,
        hairpinning=hairpin.behaviour,
        pooling=allocation.pooling.behaviour,
        external_ips=allocation.pooling.external_ips,
        lifetime=(lifetime.alive_after, lifetime.expired_after),
        refresh=lifetime.refresh,
        reasons=(
            ("mapping", basic.mapping_reason),
            ("filtering", basic.filtering_reason),
            ("allocation", allocation.allocation.reason),
            ("hairpinning", hairpin.reason),
            ("pooling", allocation.pooling.reason),
            ("lifetime", lifetime.reason),
        ),
        datagrams=len(at.internet.trace),
    )
