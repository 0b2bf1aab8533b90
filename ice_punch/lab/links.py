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


@dataclass(frozen=True, slots=True)
class GilbertElliott:
    """Loss that comes in bursts: two states, one good and one bad.

    Before each packet the state may change, from good to bad with probability ``to_bad`` and back
    with ``to_good``; it then is lost with ``loss_bad`` or ``loss_good``.
    """

    to_bad: float
    to_good: float
    loss_bad: float = 1.0
    loss_good: float = 0.0

    def __post_init__(self) -> None:
        chances = (self.to_bad, self.to_good, self.loss_bad, self.loss_good)
        if not all(0 <= chance <= 1 for chance in chances) or not self.to_bad + self.to_good > 0:
            raise InvalidConfiguration(f"no loss can be like this: {self}")

    @property
    def mean(self) -> float:
        """The share of packets lost in the long run."""
        bad = self.share_of_bad
        return bad * self.loss_bad + (1 - bad) * self.loss_good

    @property
    def share_of_bad(self) -> float:
        """How much of its time the link is in the bad state; it begins in either, by this chance.
        The states change with packets, not with time."""
        return self.to_bad / (self.to_bad + self.to_good)

    @classmethod
    def of(cls, mean: float, burst: float) -> GilbertElliott:
        """Bursts of ``burst`` packets on average, all lost, ``mean`` of all packets in all."""
        if not 0 < mean < 1 or not burst >= 1:
            raise InvalidConfiguration("a mean loss lies between 0 and 1, a burst is 1 or more")
        to_good = 1 / burst
        return cls(to_bad=to_good * mean / (1 - mean), to_good=to_good)


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
    """Bytes that may wait for the rate; what comes on top is lost."""
    mtu: int | None = None
    """Larger packets do not pass."""
    tells_mtu: bool = True
    """Whether ICMP says so, or the packet just vanishes (a black hole)."""

    def __post_init__(self) -> None:
        shares = (self.loss, self.reordering, self.duplication)
        times = (self.delay, self.jitter, self.reordering_gap)
        fine = (
            all(0 <= share <= 1 for share in shares)
            and all(0 <= time < math.inf for time in times)
            and (self.rate is None or self.rate > 0)
            and self.queue >= 0
            and (self.mtu is None or self.mtu >= MINIMUM_MTU)
        )
        if not fine:
            raise InvalidConfiguration(f"no link can be like this: {self}")

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
            bursts=GilbertElliott.of(mean=0.03, burst=3),
            reordering=0.01,
            rate=_megabits(20),
        )
    ),
    "cellular": AccessLink(
        up=LinkProfile(
            delay=0.035,
            jitter=0.03,
            bursts=GilbertElliott.of(mean=0.015, burst=2),
            rate=_megabits(5),
            queue=128 * 1024,
            mtu=1420,
        ),
        down=LinkProfile(
            delay=0.025,
            jitter=0.03,
            bursts=GilbertElliott.of(mean=0.01, burst=2),
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
            delay=0.225, jitter=0.03, bursts=GilbertElliott.of(mean=0.12, burst=4), rate=500e3
        )
    ),
    "absurd": AccessLink.both(
        LinkProfile(
            delay=0.4, jitter=0.05, bursts=GilbertElliott.of(mean=0.25, burst=4), rate=256e3
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

    __slots__ = ("_bad", "_busy_until", "_last_arrival", "_plain", "_random", "profile")

    def __init__(self, profile: LinkProfile, source: random.Random) -> None:
        self.profile = profile
        self._random = source
        self._last_arrival = 0.0
        self._busy_until = 0.0
        bursts = profile.bursts
        self._bad = bursts is not None and source.random() < bursts.share_of_bad
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
        if self._loses():
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

    def _loses(self) -> bool:
        profile = self.profile
        lost = bool(profile.loss) and self._random.random() < profile.loss
        bursts = profile.bursts
        if bursts is not None:
            change = bursts.to_good if self._bad else bursts.to_bad
            if self._random.random() < change:
                self._bad = not self._bad
            chance = bursts.loss_bad if self._bad else bursts.loss_good
            lost = self._random.random() < chance or lost
        return lost


class Link:
    """How a node hangs on its network. ``up`` leads away from the node."""

    __slots__ = ("down", "up")

    def __init__(self, access: AccessLink, up: random.Random, down: random.Random) -> None:
        self.up = LinkDirection(access.up, up)
        self.down = LinkDirection(access.down, down)
