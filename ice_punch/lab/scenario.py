"""A scenario: one small declarative object that the virtual internet and the kernel both run."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from ice_punch.errors import InvalidConfiguration
from ice_punch.lab.behaviour import NatBehaviour, NatKind
from ice_punch.lab.links import PERFECT, AccessLink

Side = Literal["a", "b"]
MAX_NATS: Final = 8
"""One behind the other."""
MAX_DATAGRAMS: Final = 100_000
"""Of the application, sent by one peer in one run."""

Nats = NatKind | NatBehaviour | str | Iterable[NatBehaviour]


class Habit(StrEnum):
    """How a peer goes about ICE. All but the first are habits of other stacks."""

    FULL = "full"
    """Our agent."""
    NO_TRIGGERED_CHECKS = "no triggered checks"
    """Answers a check on a pair whose own check is out, and waits for its timer (aioice 0.13)."""
    AGGRESSIVE = "aggressive"
    """USE-CANDIDATE in every check, RFC 5245 section 8.1.1.2."""
    LITE = "lite"
    """RFC 8445 section 2.5: answers, and never checks."""
    SILENT = "silent"
    """Never sends anything."""
    SLOW = "slow"
    """Answers and checks 2 s late."""


class Ip(StrEnum):
    """What a peer's access network carries."""

    V4 = "ipv4"
    V6 = "ipv6"
    """Behind a stateful firewall, as homes have it (RFC 6092)."""
    DUAL = "dual stack"
    NAT64 = "nat64"
    """IPv6 only, with NAT64 and DNS64 (RFC 6146, RFC 6147)."""


class Relays(StrEnum):
    """The TURN server that both peers know."""

    NONE = "none"
    UDP = "udp"
    TCP_443 = "tcp 443"
    """UDP and, for whom it does not reach, TCP at port 443."""


class Verdict(StrEnum):
    DIRECT = "direct"
    RELAYED = "relayed"
    FAILED = "failed"


class Event(StrEnum):
    """What happens to one side's network in the middle of a session."""

    NAT_REBOOTS = "nat reboots"
    """Its NAT forgets everything."""
    NAT_REBINDS = "nat rebinds"
    """Every mapping of its NAT moves to a new port."""
    LINK_DOWN = "link down"
    LINK_UP = "link up"
    SECOND_LINK_DOWN = "second link down"
    SECOND_LINK_UP = "second link up"
    INTERFACE_LOST = "interface lost"
    """The operating system takes the first interface away, and says so."""
    INTERFACE_FOUND = "interface found"
    TURN_SERVER_DIES = "turn server dies"


@dataclass(frozen=True, slots=True)
class Happening:
    """``event`` happens to ``side``, ``at`` seconds after the first of the two has started."""

    at: float
    event: Event
    side: Side = "a"


@dataclass(frozen=True, slots=True)
class PeerSetup:
    """One peer, where it is and how it behaves."""

    nats: tuple[NatBehaviour, ...] = (NatBehaviour(),)
    """From the inside out; two of them are a carrier-grade NAT, none is a public host."""
    link: AccessLink = PERFECT
    ip: Ip = Ip.V4
    second_link: AccessLink | None = None
    """A second interface with a NAT of its own, of the same behaviour."""
    habit: Habit = Habit.FULL

    def __post_init__(self) -> None:
        _check_nats(self.nats)


def _check_nats(nats: tuple[NatBehaviour, ...]) -> None:
    wrong = next((nat for nat in nats if not isinstance(nat, NatBehaviour)), None)
    if wrong is not None:
        raise InvalidConfiguration(f"a NAT is described by a NatBehaviour, not by {wrong!r}")
    if len(nats) > MAX_NATS:
        raise InvalidConfiguration(f"a peer is behind {MAX_NATS} NATs at most, not {len(nats)}")


def peer(
    nats: Nats = NatKind.PORT_RESTRICTED,
    link: AccessLink = PERFECT,
    *,
    ip: Ip = Ip.V4,
    second_link: AccessLink | None = None,
    habit: Habit = Habit.FULL,
) -> PeerSetup:
    """A :class:`PeerSetup`; the NAT may be given by its kind or that kind's name. Raises
    InvalidConfiguration for a kind that is none."""
    behaviours: tuple[NatBehaviour, ...]
    if isinstance(nats, str):
        nats = NatKind(nats)
        behaviours = () if nats.behaviour is None else (nats.behaviour,)
    elif isinstance(nats, NatBehaviour):
        behaviours = (nats,)
    else:
        behaviours = tuple(nats)
    return PeerSetup(behaviours, link, ip, second_link, habit)


@dataclass(frozen=True, slots=True)
class Scenario:
    """Two peers, what lies between them, and when they start. Times are seconds."""

    name: str = ""
    summary: str = ""
    a: PeerSetup = PeerSetup()
    b: PeerSetup = PeerSetup()
    shared_nats: tuple[NatBehaviour, ...] = ()
    """NATs that both are behind, outside of their own. With none of their own both are on one
    local network."""
    rtt: float = 0.1
    """The round trip between the peers across the internet, without their access links. The
    servers are half way."""
    skew: float = 0.0
    """``b`` learns of ``a`` so much later than ``a`` of ``b``; negative: ``a`` is the later."""
    stun: bool = True
    relays: Relays = Relays.NONE
    happenings: tuple[Happening, ...] = ()
    seconds: float = 45.0
    """How long it runs when it does not settle before; the last happening is never the end."""
    datagrams_per_second: float = 0.0
    """What both sides send to each other once they can."""
    expects: Verdict | None = None
    """What has to come of it."""

    def __post_init__(self) -> None:
        if not 0 <= self.rtt < math.inf:
            raise InvalidConfiguration("a round trip time is not negative")
        if not math.isfinite(self.skew):
            raise InvalidConfiguration("a skew is a number of seconds")
        if not 0 < self.seconds <= 3600:
            raise InvalidConfiguration("a scenario runs for more than 0 and at most 3600 seconds")
        if not 0 <= self.datagrams_per_second <= 1000:
            raise InvalidConfiguration("a peer sends 0 to 1000 datagrams a second")
        if self.datagrams_per_second * self.seconds > MAX_DATAGRAMS:
            raise InvalidConfiguration(f"a peer sends {MAX_DATAGRAMS} datagrams in all at most")
        if not abs(self.skew) < self.seconds:
            raise InvalidConfiguration("a skew is shorter than the scenario runs")
        _check_nats(self.shared_nats)
        if self.shared_nats and any(p.ip is not Ip.V4 for p in (self.a, self.b)):
            raise InvalidConfiguration("only IPv4 peers can share a NAT")
        for happening in self.happenings:
            self._check(happening)

    def _check(self, happening: Happening) -> None:
        if not 0 <= happening.at < self.seconds:
            raise InvalidConfiguration(
                f"what happens, happens while the scenario runs: 0 to {self.seconds:g} s"
            )
        if happening.side not in ("a", "b"):
            raise InvalidConfiguration(f"a side is a or b, not {happening.side}")
        setup, event = self.setup(happening.side), happening.event
        if event in (Event.SECOND_LINK_DOWN, Event.SECOND_LINK_UP) and setup.second_link is None:
            raise InvalidConfiguration(f"peer {happening.side} has no second link")
        if event is Event.TURN_SERVER_DIES and self.relays is Relays.NONE:
            raise InvalidConfiguration("there is no TURN server that could die")
        no_nat = not setup.nats and not self.shared_nats
        if event in (Event.NAT_REBOOTS, Event.NAT_REBINDS) and no_nat:
            raise InvalidConfiguration(f"peer {happening.side} is behind no NAT")

    @property
    def path_round_trip(self) -> float:
        """Seconds between the peers and back, with their access links and without jitter."""
        links = (self.a.link, self.b.link)
        return self.rtt + sum(link.up.delay + link.down.delay for link in links)

    @property
    def stun_servers(self) -> int:
        """How many the peers ask, so that two see them: a TURN server is one of them."""
        if not self.stun:
            return 0
        return 2 if self.relays is Relays.NONE else 1

    def setup(self, side: Side) -> PeerSetup:
        return self.a if side == "a" else self.b
