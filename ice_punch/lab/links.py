"""Links: delay, jitter, loss, reordering, duplication, rate and MTU, each direction on its own.

What a link does to the next packet is a pure function of its profile, its past and a seeded source
of randomness, so the virtual internet and the kernel laboratory's cables share it.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Final

from ice_punch.errors import InvalidConfiguration

MINIMUM_MTU: Final = 68
"""RFC 791."""


def _check_share(name: str, share: float) -> None:
    if not 0 <= share <= 1:
        raise InvalidConfiguration(f"{name} of a link is a share, 0 to 1, not {share}")


@dataclass(frozen=True, slots=True)
class GilbertElliott:
    """Loss that comes in bursts: two states, one good and one bad.

    At each step the state may change, from good to bad with probability ``to_bad`` and back with
    ``to_good``; a packet then is lost with ``loss_bad`` or ``loss_good``. There is a step before
    every packet, or one every ``slot`` seconds: a burst that is counted in packets would outlast
    minutes of a conversation that sends one every few seconds.
    """

    to_bad: float
    to_good: float
    loss_bad: float = 1.0
    loss_good: float = 0.0
    slot: float | None = None
    """Seconds a step; ``None``: a step a packet."""

    def __post_init__(self) -> None:
        for name in ("to_bad", "to_good", "loss_bad", "loss_good"):
            _check_share(name, getattr(self, name))
        if not self.to_bad + self.to_good > 0:
            raise InvalidConfiguration("loss that comes in bursts begins or ends now and then")
        if self.slot is not None and not 0 < self.slot < math.inf:
            raise InvalidConfiguration(f"a step takes more than 0 seconds, not {self.slot}")

    @property
    def mean(self) -> float:
        """The share of packets lost in the long run."""
        bad = self.share_of_bad
        return bad * self.loss_bad + (1 - bad) * self.loss_good

    @property
    def share_of_bad(self) -> float:
        """How much of its time the link is in the bad state; by this chance it begins there."""
        return self.to_bad / (self.to_bad + self.to_good)

    def after(self, steps: int, *, bad: bool) -> float:
        """The chance of the bad state so many steps later."""
        # Multiplied out, so that every machine rounds alike; the power of two is the longest.
        keeps, power, left = 1.0, 1 - self.to_bad - self.to_good, steps
        while left:
            if left & 1:
                keeps *= power
            power *= power
            left >>= 1
        share = self.share_of_bad
        return share + ((1 - share) if bad else -share) * keeps

    @classmethod
    def of(cls, mean: float, burst: float, slot: float | None = None) -> GilbertElliott:
        """Bursts of ``burst`` steps on average, in which all is lost, ``mean`` of all in all."""
        if not 0 < mean < 1 or not 1 <= burst < math.inf:
            raise InvalidConfiguration("a mean loss lies between 0 and 1, a burst is 1 or more")
        shortest = mean / (1 - mean)
        if burst < shortest:
            raise InvalidConfiguration(
                f"a mean loss of {mean:g} takes bursts of {shortest:g} or more"
            )
        return cls(to_bad=shortest / burst, to_good=1 / burst, slot=slot)


@dataclass(frozen=True, slots=True)
class LinkProfile:
    """One direction of a link. Times are seconds, sizes bytes of an IP packet."""

    delay: float = 0.0
    """One way."""
    jitter: float = 0.0
    """Up to so much more, evenly spread. It never reorders."""
    loss: float = 0.0
    """Each packet on its own, 0 to 1."""
    bursts: GilbertElliott | None = None
    """Loss on top that comes in bursts."""
    reordering: float = 0.0
    """The share of packets that come early: ``reordering_gap`` seconds, or their whole delay if
    that is less, so that they overtake."""
    reordering_gap: float = 0.01
    duplication: float = 0.0
    """The share of packets that arrive twice."""
    rate: float | None = None
    """Bits per second; ``None``: without end."""
    queue: int = 64 * 1024
    """Bytes that may wait for the rate; a packet that finds more of them is lost."""
    mtu: int | None = None
    """Larger packets do not pass."""
    tells_mtu: bool = True
    """Whether ICMP says so, or the packet just vanishes (a black hole)."""

    def __post_init__(self) -> None:
        for name in ("loss", "reordering", "duplication"):
            _check_share(name, getattr(self, name))
        for name in ("delay", "jitter", "reordering_gap"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InvalidConfiguration(
                    f"{name} of a link is 0 or more seconds, not {getattr(self, name)}"
                )
        if self.rate is not None and not 1 <= self.rate < math.inf:
            raise InvalidConfiguration(
                f"rate of a link is 1 or more bits a second, not {self.rate}"
            )
        if not 0 <= self.queue < math.inf:
            raise InvalidConfiguration(f"queue of a link is 0 or more bytes, not {self.queue}")
        if self.mtu is not None and not MINIMUM_MTU <= self.mtu < math.inf:
            raise InvalidConfiguration(
                f"mtu of a link is {MINIMUM_MTU} or more bytes, not {self.mtu}"
            )

    @property
    def mean_loss(self) -> float:
        burst = 0.0 if self.bursts is None else self.bursts.mean
        return 1 - (1 - self.loss) * (1 - burst)


IDEAL: Final = LinkProfile()


@dataclass(frozen=True, slots=True)
class AccessLink:
    """How somebody hangs on the internet; ``up`` leads away from them."""

    up: LinkProfile = IDEAL
    down: LinkProfile = IDEAL

    @classmethod
    def both(cls, profile: LinkProfile) -> AccessLink:
        return cls(profile, profile)


PERFECT: Final = AccessLink()

BURST_SLOT: Final = 0.02
"""Seconds: the steps of the presets' bursts, which last 40 to 200 ms on average."""


def _megabits(number: float) -> float:
    return number * 1e6


PRESETS: Final[dict[str, AccessLink]] = {
    "perfect": PERFECT,
    "lan": AccessLink.both(LinkProfile(delay=0.0002, rate=_megabits(1000), queue=256 * 1024)),
    "fibre": AccessLink(
        up=LinkProfile(delay=0.002, jitter=0.0005, rate=_megabits(100), queue=128 * 1024),
        down=LinkProfile(delay=0.002, jitter=0.0005, rate=_megabits(500), queue=256 * 1024),
    ),
    "wifi_lossy": AccessLink.both(
        LinkProfile(
            delay=0.005,
            jitter=0.015,
            bursts=GilbertElliott.of(mean=0.03, burst=3, slot=BURST_SLOT),
            reordering=0.01,
            rate=_megabits(20),
        )
    ),
    "cellular": AccessLink(
        up=LinkProfile(
            delay=0.035,
            jitter=0.03,
            bursts=GilbertElliott.of(mean=0.015, burst=2, slot=BURST_SLOT),
            rate=_megabits(5),
            queue=128 * 1024,
            mtu=1420,
        ),
        down=LinkProfile(
            delay=0.025,
            jitter=0.03,
            bursts=GilbertElliott.of(mean=0.01, burst=2, slot=BURST_SLOT),
            rate=_megabits(20),
            queue=256 * 1024,
            mtu=1420,
        ),
    ),
    "satellite": AccessLink(
        up=LinkProfile(delay=0.3, jitter=0.02, loss=0.005, rate=_megabits(3), queue=256 * 1024),
        down=LinkProfile(delay=0.3, jitter=0.02, loss=0.005, rate=_megabits(20), queue=512 * 1024),
    ),
    "barely_usable": AccessLink.both(
        LinkProfile(
            delay=0.225,
            jitter=0.03,
            bursts=GilbertElliott.of(mean=0.12, burst=10, slot=BURST_SLOT),
            rate=500e3,
        )
    ),
    "absurd": AccessLink.both(
        LinkProfile(
            delay=0.4,
            jitter=0.05,
            bursts=GilbertElliott.of(mean=0.25, burst=10, slot=BURST_SLOT),
            rate=256e3,
        )
    ),
}
"""By name. The numbers are of one access link: ``barely_usable`` is a round trip of 450 ms to the
internet with 12 % bursty loss each way, ``absurd`` one of 800 ms with 25 %, ``satellite`` one by a
geostationary satellite."""


def preset(name: str) -> AccessLink:
    """Raises InvalidConfiguration for a name that is none."""
    try:
        return PRESETS[name]
    except KeyError:
        known = ", ".join(PRESETS)
        raise InvalidConfiguration(f"no link is called {name}; there are {known}") from None


@dataclass(frozen=True, slots=True)
class Passage:
    """What becomes of a packet on a link: when each copy of it arrives. Without any it is lost."""

    arrivals: tuple[float, ...] = ()
    why: str = ""
    """``lost``, ``queue full`` or ``too big``, where nothing arrives."""


_LOST: Final = Passage(why="lost")
_QUEUE_FULL: Final = Passage(why="queue full")
_TOO_BIG: Final = Passage(why="too big")


class LinkDirection:
    """Decides the fate of each packet that enters one direction of a link."""

    __slots__ = ("_bad", "_busy_until", "_last_arrival", "_plain", "_random", "_slot", "profile")

    def __init__(self, profile: LinkProfile, source: random.Random) -> None:
        self.profile = profile
        self._random = source
        self._last_arrival = self._busy_until = -math.inf
        bursts = profile.bursts
        self._bad = bursts is not None and source.random() < bursts.share_of_bad
        self._slot: int | None = None
        self._plain = profile == LinkProfile(delay=profile.delay)

    def carry(self, size: int, now: float) -> Passage:
        """What becomes of an IP packet of ``size`` bytes that enters now."""
        profile = self.profile
        if self._plain:
            return Passage((now + profile.delay,))
        if profile.mtu is not None and size > profile.mtu:
            return _TOO_BIG
        leaves = now
        if profile.rate is not None:
            begins = max(now, self._busy_until)
            if (begins - now) * profile.rate / 8 > profile.queue:
                return _QUEUE_FULL
            leaves = self._busy_until = begins + size * 8 / profile.rate
        if self._loses(now):
            return _LOST
        arrival = leaves + profile.delay
        if profile.jitter:
            arrival += self._random.random() * profile.jitter
        if profile.reordering and self._random.random() < profile.reordering:
            arrival = max(leaves, arrival - profile.reordering_gap)
        else:
            arrival = self._last_arrival = max(self._last_arrival, arrival)
        if profile.duplication and self._random.random() < profile.duplication:
            return Passage((arrival, arrival))
        return Passage((arrival,))

    def _loses(self, now: float) -> bool:
        profile = self.profile
        lost = bool(profile.loss) and self._random.random() < profile.loss
        bursts = profile.bursts
        if bursts is not None:
            steps = self._steps(bursts, now)
            if steps:
                self._bad = self._random.random() < bursts.after(steps, bad=self._bad)
            chance = bursts.loss_bad if self._bad else bursts.loss_good
            lost = self._random.random() < chance or lost
        return lost

    def _steps(self, bursts: GilbertElliott, now: float) -> int:
        if bursts.slot is None:
            return 1
        slot = int(now / bursts.slot)
        before, self._slot = self._slot, slot
        return max(0, slot - before) if before is not None else 0


class Link:
    """How a node hangs on its network. ``up`` leads away from the node."""

    __slots__ = ("down", "up")

    def __init__(self, access: AccessLink, up: random.Random, down: random.Random) -> None:
        self.up = LinkDirection(access.up, up)
        self.down = LinkDirection(access.down, down)
