"""Links of the virtual internet: delay, jitter and loss, each direction on its own."""

from __future__ import annotations

import random
from dataclasses import dataclass

from ice_punch.errors import InvalidConfiguration


@dataclass(frozen=True, slots=True)
class LinkProfile:
    """One direction of a link.

    ``delay`` is one way, in seconds; ``jitter`` adds up to that many seconds more, evenly spread,
    and never reorders; ``loss`` is the probability that a packet is lost.
    """

    delay: float = 0.0
    jitter: float = 0.0
    loss: float = 0.0

    def __post_init__(self) -> None:
        if not (self.delay >= 0 and self.jitter >= 0 and 0 <= self.loss <= 1):
            raise InvalidConfiguration(f"no link can be like this: {self}")


IDEAL = LinkProfile()


class LinkDirection:
    """Decides the fate of each packet that enters one direction of a link."""

    __slots__ = ("_last_arrival", "_random", "profile")

    def __init__(self, profile: LinkProfile, source: random.Random) -> None:
        self.profile = profile
        self._random = source
        self._last_arrival = 0.0

    def arrival(self, now: float) -> float | None:
        """When a packet that enters now leaves the link; ``None`` when it is lost."""
        profile = self.profile
        if profile.loss and self._random.random() < profile.loss:
            return None
        arrival = now + profile.delay
        if profile.jitter:
            arrival += self._random.random() * profile.jitter
        self._last_arrival = max(self._last_arrival, arrival)
        return self._last_arrival


class Link:
    """How a node hangs on its network. ``up`` leads away from the node."""

    __slots__ = ("down", "up")

    def __init__(
        self,
        up: LinkProfile,
        down: LinkProfile,
        up_source: random.Random,
        down_source: random.Random,
    ) -> None:
        self.up = LinkDirection(up, up_source)
        self.down = LinkDirection(down, down_source)
