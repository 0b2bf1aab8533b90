"""What came of a scenario, from either backend."""

from __future__ import annotations

from dataclasses import dataclass

from ice_punch.datagram import format_address
from ice_punch.ice import CandidatePair
from ice_punch.ice.candidate import untranslated
from ice_punch.lab.scenario import Scenario, Verdict


@dataclass(frozen=True, slots=True)
class SideOutcome:
    """One peer. Times are seconds after the first of the two has started."""

    started_at: float
    valid_at: float | None = None
    """When it had its first valid pair, of any kind."""
    direct_at: float | None = None
    """When it had its first valid pair without a relay."""
    selected_at: float | None = None
    """When it had its nominated pair."""
    relayed: bool = False
    """Whether the pair it ended with has a relayed candidate on either side."""
    pair: str = ""
    """The pair it ended with, ``local > remote``."""
    ends: tuple[str, str] = ("", "")
    """That pair's addresses, as the peer sees ours, and the peer's."""
    state: str = "new"
    reason: str = ""
    """Of the last change of state."""
    packets_sent: int = 0
    received: int = 0
    """Application datagrams."""
    lost: int = 0
    """Application datagrams that this side sent and the other did not get."""
    longest_gap: float | None = None
    """The longest time between two application datagrams that came, seconds."""


@dataclass(frozen=True, slots=True)
class Outcome:
    scenario: Scenario
    seed: int
    verdict: Verdict
    a: SideOutcome
    b: SideOutcome

    @property
    def connect_time(self) -> float | None:
        """Until both sides had a valid pair; ``None`` if they never had."""
        if self.a.valid_at is None or self.b.valid_at is None:
            return None
        return max(self.a.valid_at, self.b.valid_at)

    @property
    def settled_time(self) -> float | None:
        """Until both sides had a valid pair of the kind they ended with."""
        if self.verdict is not Verdict.DIRECT:
            return self.connect_time
        if self.a.direct_at is None or self.b.direct_at is None:
            return None
        return max(self.a.direct_at, self.b.direct_at)

    @property
    def same_pair(self) -> bool:
        """Whether both sides ended with one pair; each names it from its own end."""
        return self.a.ends == self.b.ends[::-1]

    @property
    def packets_sent(self) -> int:
        return self.a.packets_sent + self.b.packets_sent


def ends_of(pair: CandidatePair | None) -> tuple[str, str]:
    """Our address as the peer sees it, and the peer's."""
    if pair is None:
        return "", ""
    local = pair.mapped or pair.local
    ends = (untranslated(candidate.address) for candidate in (local, pair.remote))
    here, there = map(format_address, ends)
    return here, there


def name_of(pair: CandidatePair | None) -> str:
    """``srflx 198.51.100.16:50000 > relay 203.0.113.20:50006``"""
    if pair is None:
        return ""
    local, remote = ends_of(pair)
    return f"{(pair.mapped or pair.local).type} {local} > {pair.remote.type} {remote}"
