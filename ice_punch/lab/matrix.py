"""NAT x NAT: every pairing of the nine behaviours, over several seeds."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from ice_punch.lab.behaviour import NatBehaviour
from ice_punch.lab.outcome import Outcome
from ice_punch.lab.scenario import Verdict
from ice_punch.lab.timeline import Timeline


@dataclass(frozen=True, slots=True)
class Cell:
    """What came of one NAT meeting another, one outcome per seed."""

    row: NatBehaviour
    """Peer a's NAT."""
    column: NatBehaviour
    """Peer b's."""
    outcomes: tuple[Outcome, ...]
    timeline: Timeline | None = None
    """Of the seed that took longest."""
    expected: Verdict | None = None
    """What two NATs of these kinds allow."""
    budget: float | None = None
    """Seconds that connecting may take when nothing is lost."""

    def count(self, verdict: Verdict) -> int:
        return sum(outcome.verdict is verdict for outcome in self.outcomes)

    @property
    def verdict(self) -> Verdict:
        """The worst of all."""
        return next(
            verdict
            for verdict in (Verdict.FAILED, Verdict.RELAYED, Verdict.DIRECT)
            if self.count(verdict) or verdict is Verdict.DIRECT
        )

    @property
    def connect_times(self) -> list[float]:
        """Seconds, of those that connected."""
        return [o.connect_time for o in self.outcomes if o.connect_time is not None]

    @property
    def median(self) -> float | None:
        return statistics.median(self.connect_times) if self.connect_times else None

    @property
    def worst(self) -> float | None:
        return max(self.connect_times, default=None)

    @property
    def packets(self) -> float:
        """The median of what both sides sent."""
        return statistics.median(outcome.packets_sent for outcome in self.outcomes)


@dataclass(frozen=True, slots=True)
class Matrix:
    """Rows are peer a's NAT, columns peer b's."""

    behaviours: tuple[NatBehaviour, ...]
    cells: tuple[Cell, ...]
    """Row by row."""
    conditions: tuple[tuple[str, str], ...]
    """What held for all cells, for people: ``("round trip", "100 ms")``."""
    backend: str = "virtual"

    def cell(self, row: int, column: int) -> Cell:
        return self.cells[row * len(self.behaviours) + column]
