"""What the datagram stacks are to do, what is wanted of ours, and what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cable import Figures

PLAIN = ("ice-punch asyncio", "ice-punch uvloop", "ice-punch-no-offload asyncio", "aioice asyncio")
PLAIN += ("ice-punch-no-offload uvloop", "aioice uvloop", "pion/ice", "bare asyncio")
DTLS = ("ice-punch asyncio", "ice-punch uvloop", "aiortc asyncio", "aiortc uvloop", "pion/dtls")
DTLS += ("libdatachannel", "sketch asyncio")

KINDS = {"plain": "Plain", "dtls": "DTLS"}


@dataclass(frozen=True)
class Workload:
    """Datagrams of one size in one direction, as fast as a window allows."""

    kind: str
    size: int
    link: str = "whole"
    stacks: tuple[str, ...] = ()
    targets: tuple[tuple[str, str, float], ...] = ()
    """How many times the rate of which other stack which of ours should have."""

    @property
    def title(self) -> str:
        name = KINDS[self.kind]
        return f"{name}, {self.size} bytes" + ("" if self.link == "whole" else f", {self.link}")


OURS, OURS_UVLOOP = "ice-punch asyncio", "ice-punch uvloop"
WITHOUT = "ice-punch-no-offload asyncio"
CUT = {"plain": (OURS, "pion/ice"), "dtls": (OURS, "pion/dtls")}
PLAIN_TARGETS = (
    (OURS_UVLOOP, "aioice uvloop", 10.0),
    (OURS, "pion/ice", 8.0),
    (OURS, "bare asyncio", 0.7),
    (WITHOUT, "aioice asyncio", 1.2),
    ("ice-punch-no-offload uvloop", "aioice uvloop", 1.2),
)
DTLS_TARGETS = (
    (OURS, "aiortc asyncio", 18.0),
    (OURS_UVLOOP, "aiortc uvloop", 7.0),
    (OURS, "pion/dtls", 3.5),
    (OURS, "sketch asyncio", 0.85),
)
WORKLOADS = (
    Workload("plain", 1200, stacks=PLAIN, targets=PLAIN_TARGETS),
    Workload("plain", 200, stacks=PLAIN, targets=PLAIN_TARGETS),
    Workload("dtls", 1200, stacks=DTLS, targets=DTLS_TARGETS),
    Workload(
        *("dtls", 200),
        stacks=DTLS,
        targets=tuple(t if t[1] != "pion/dtls" else (OURS, "pion/dtls", 4.0) for t in DTLS_TARGETS),
    ),
    *(
        Workload(kind, 1200, link, CUT[kind], ((OURS, CUT[kind][1], targets[kind]),))
        for link, targets in (
            ("segmented", {"plain": 1.2, "dtls": 1.4}),
            ("segmented-gro", {"plain": 4.0, "dtls": 3.5}),
        )
        for kind in ("plain", "dtls")
    ),
)
ROUND_TRIPS = {
    "plain": (
        *("udp asyncio", "udp uvloop", OURS, OURS_UVLOOP, "aioice asyncio", "pion/ice"),
        *("bare asyncio", "bare uvloop"),
    ),
    "dtls": (
        *(OURS, OURS_UVLOOP, "ice-punch-protocol asyncio", "ice-punch-protocol uvloop"),
        *("aiortc asyncio", "pion/dtls", "libdatachannel", "sketch asyncio", "sketch uvloop"),
    ),
}
LATENCY_TARGETS = {"plain": 1.15, "dtls": 1.4}
"""At most how many times as long as raw UDP on the same event loop."""
TICKING = (
    *("udp asyncio", "udp uvloop", OURS, OURS_UVLOOP, "ice-punch-protocol uvloop"),
    *("aiortc asyncio", "sketch asyncio", "sketch uvloop"),
)


NAMES = tuple(
    dict.fromkeys((*PLAIN, *DTLS, *(s for names in ROUND_TRIPS.values() for s in names), *TICKING))
)


@dataclass
class Plan:
    """How long to measure what."""

    runs: int = 9
    seconds: float = 0.5
    rounds: int = 1500
    channels: int = 1000
    stalled: float = 60.0
    workloads: Sequence[Workload] = WORKLOADS
    stacks: frozenset[str] | None = None

    def keep(self, stacks: Sequence[str]) -> list[str]:
        return [s for s in stacks if self.stacks is None or s in self.stacks]


@dataclass
class Results:
    throughput: dict[Workload, dict[str, list[Figures]]] = field(default_factory=dict)
    windows: dict[tuple[str, str], int] = field(default_factory=dict)
    latency: dict[str, list[Figures]] = field(default_factory=dict)
    control: dict[str, list[Figures]] = field(default_factory=dict)
    stalled: dict[str, Figures] = field(default_factory=dict)
    idle: dict[str, float] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)
    """Stacks that were asked for, and that this machine does not have."""
