"""Which cables are to be laid, as the program that lays them (:mod:`cable`) is told."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from ice_punch.lab.links import GilbertElliott, LinkProfile


@dataclasses.dataclass(frozen=True, slots=True)
class Cable:
    """``up`` leads from the device in ``inner`` to the one in ``outer``, each a namespace and the
    name of a device to make there; ``seeds`` are those of the two directions' lotteries."""

    inner: tuple[str, str]
    outer: tuple[str, str]
    up: LinkProfile
    down: LinkProfile
    seeds: tuple[str, str]


def to_line(cables: list[Cable]) -> str:
    """What the program reads."""
    return json.dumps([dataclasses.asdict(cable) for cable in cables]) + "\n"


def from_line(line: str) -> list[Cable]:
    return [
        Cable(
            (given["inner"][0], given["inner"][1]),
            (given["outer"][0], given["outer"][1]),
            _profile(given["up"]),
            _profile(given["down"]),
            (given["seeds"][0], given["seeds"][1]),
        )
        for given in json.loads(line)
    ]


def _profile(given: dict[str, Any]) -> LinkProfile:
    bursts = given.pop("bursts")
    return LinkProfile(bursts=None if bursts is None else GilbertElliott(**bursts), **given)
