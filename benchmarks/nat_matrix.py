"""NAT x NAT on the kernel: ice-punch and aioice through the same NATs, in turn.

Peer a is controlling and learns of b at 0, b of a the skew later; both have gathered before. The
time is that from 0 until both sides can send data: until connect() has returned on both.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness import (
    SECOND_STUN,
    STUN,
    Ground,
    at_least_one,
    interleaved,
    need_namespaces,
    table,
    where,
)
from session import meet

from ice_punch.datagram import Address
from ice_punch.errors import InvalidConfiguration
from ice_punch.lab.behaviour import NINE, NatBehaviour
from ice_punch.lab.expectation import expected
from ice_punch.lab.kernel import KernelInternet
from ice_punch.lab.kernel.processes import exit_on_signals
from ice_punch.lab.matrix import Cell
from ice_punch.lab.matrix_run import MatrixOptions
from ice_punch.lab.outcome import Outcome
from ice_punch.lab.picture import LETTERS, NAMES
from ice_punch.lab.scenario import Relays, Scenario, Verdict

STACKS = ("ice-punch", "aioice")
ROUND_TRIP = 100.0
SKEWS = (0.0, 150.0)
REPEAT = 3
JOBS = 3
ALIKE = 0.05
"""The share by which two medians may differ and still count as the same."""
NOTICEABLE = 0.001
"""Seconds."""

Pairing = tuple[NatBehaviour, NatBehaviour]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One cell of the matrix at one skew: both stacks, all repetitions."""

    skew: float
    """ms."""
    ours: Cell
    theirs: Cell

    @property
    def ratio(self) -> float | None:
        """aioice's median time by ours, if both connect."""
        if self.ours.median is None or self.theirs.median is None:
            return None
        return self.theirs.median / self.ours.median

    @property
    def cells(self) -> tuple[Cell, Cell]:
        return self.ours, self.theirs


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. Times are ms, as the options have them."""

    nats: tuple[NatBehaviour, ...] = NINE
    rtt: float = ROUND_TRIP
    skews: tuple[float, ...] = SKEWS
    repeat: int = REPEAT
    relay: bool = True
    second_stun: bool = False
    jobs: int = JOBS

    def __post_init__(self) -> None:
        for skew in self.skews:
            self.scenario(self.nats[0], self.nats[0], skew)

    def scenario(self, row: NatBehaviour, column: NatBehaviour, skew: float) -> Scenario:
        """Raises InvalidConfiguration for times that no laboratory has."""
        relays = Relays.UDP if self.relay else Relays.NONE
        template = Scenario(rtt=self.rtt / 1000, skew=skew / 1000, relays=relays)
        return MatrixOptions(template, self.nats).scenario(row, column)

    @property
    def pairings(self) -> list[Pairing]:
        return [(row, column) for row in self.nats for column in self.nats]

    @property
    def servers(self) -> tuple[Address, ...]:
        return (STUN, SECOND_STUN) if self.second_stun else (STUN,)

    @property
    def conditions(self) -> str:
        stun = "two STUN servers (aioice takes one)" if self.second_stun else "one STUN server"
        relay = "a TURN server at hand" if self.relay else "no relay"
        return f"round trip {self.rtt:g} ms, {stun}, {relay}, median of {self.repeat}"


def compare(plan: Plan, progress: Callable[[int], None]) -> list[Comparison]:
    """Every pairing at every skew, row by row. ``progress`` is told how many pairings are done.

    Some laboratories stand side by side. All of them are built before any is used: building is what
    takes the processor, in a session there is little to do but wait.
    """
    done: list[Comparison] = []
    with exit_on_signals(), ThreadPoolExecutor(plan.jobs) as executor:
        for start in range(0, len(plan.pairings), plan.jobs):
            pairings = plan.pairings[start : start + plan.jobs]
            with contextlib.ExitStack() as stack:
                grounds = [
                    stack.enter_context(Ground(KernelInternet.of(plan.scenario(*pairing, 0.0))))
                    for pairing in pairings
                ]
                measured = executor.map(partial(_measure, plan), grounds, pairings)
                done += [comparison for several in measured for comparison in several]
            progress(start + len(pairings))
    return done


def _measure(plan: Plan, ground: Ground, pairing: Pairing) -> list[Comparison]:
    def session(stack: str, skew: float) -> Outcome:
        scenario = plan.scenario(*pairing, skew)
        return meet(ground, (stack, stack), scenario, plan.servers)

    for stack in STACKS:  # a party's first session loads modules
        session(stack, 0.0)
    comparisons = []
    for skew in plan.skews:
        outcomes = interleaved(STACKS, plan.repeat, partial(session, skew=skew))
        allowed = expected(*pairing)
        cells = (Cell(*pairing, tuple(outcomes[stack]), expected=allowed) for stack in STACKS)
        comparisons.append(Comparison(skew, *cells))
    return comparisons


# -- in words -----------------------------------------------------------------------------------


def row(comparison: Comparison) -> list[str]:
    """One line of the printed table."""
    ours, theirs = comparison.cells
    return [
        f"{ours.row.short} x {ours.column.short}",
        f"{comparison.skew:g}",
        *_columns(ours),
        *_columns(theirs),
        _ratio(comparison),
    ]


HEAD = (
    "a x b",
    "s",
    *("ice-punch", "ms", "range", "pair"),
    *("aioice", "ms", "range", "pair"),
    "ratio",
)


def _columns(cell: Cell) -> list[str]:
    times = [f"{1000 * time:.0f}" for time in sorted(cell.connect_times)]
    spread = "" if not times else times[0] if times[0] == times[-1] else f"{times[0]}-{times[-1]}"
    return [_kinds(cell), _ms(cell.median), spread, _pairs(cell)]


def _kinds(cell: Cell) -> str:
    """``direct``, or how often what."""
    counts = [(verdict, cell.count(verdict)) for verdict in Verdict if cell.count(verdict)]
    if len(counts) == 1:
        return str(counts[0][0])
    return ", ".join(f"{verdict} {count}x" for verdict, count in counts)


def _pairs(cell: Cell) -> str:
    """Whether both sides ended on one pair."""
    connected = len(cell.outcomes) - cell.count(Verdict.FAILED)
    two = sum(map(_on_two_pairs, cell.outcomes))
    if not connected:
        return "-"
    return f"two in {two} of {connected}" if two else "same"


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.0f}"


def _ratio(comparison: Comparison) -> str:
    return "-" if comparison.ratio is None else f"{comparison.ratio:.2f}"


def _letters(cell: Cell) -> str:
    """``D``, ``R`` or ``F``; ``DR`` if it was not always the same; ``≠`` for two pairs."""
    letters = "".join(LETTERS[verdict] for verdict in Verdict if cell.count(verdict))
    return letters + ("≠" if any(map(_on_two_pairs, cell.outcomes)) else "")


def markdown(plan: Plan, comparisons: Sequence[Comparison]) -> str:
    """For each skew a matrix, and what it comes to."""
    names = [nat.short for nat in plan.nats]
    parts = []
    for skew in plan.skews:
        at_skew = [c for c in comparisons if c.skew == skew]
        rows = [
            [f"**{name}**", *map(_markdown_cell, at_skew[n * len(names) : (n + 1) * len(names)])]
            for n, name in enumerate(names)
        ]
        parts += [
            f"Skew {skew:g} ms, {plan.conditions}.",
            _markdown_table(["a \\ b", *names], rows),
            _markdown_table(SUMMARY_HEAD, summary(at_skew)),
            f"{ratios(at_skew)}.",
        ]
    return "\n\n".join((*parts, f"{LEGEND} {NAMES}")) + "\n"


LEGEND = (
    "A cell: aioice's median time by that of ice-punch (above 1, ice-punch is faster), then both "
    "medians in ms, that of ice-punch first. D direct, R relayed, F failed, DR now this, now that; "
    "both stacks, or one for both where they agree. ≠: that stack's two sides ended on different "
    "pairs, in one session at least."
)


def _markdown_cell(comparison: Comparison) -> str:
    letters = [_letters(cell) for cell in comparison.cells]
    kind = letters[0] if letters[0] == letters[1] else "/".join(letters)
    times = "/".join(_ms(cell.median) for cell in comparison.cells)
    return f"**{_ratio(comparison)}** {times} {kind}"


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = (head, ["---"] * len(head), *rows)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


SUMMARY_HEAD = (
    "sessions",
    "direct",
    "relayed",
    "failed",
    "on two pairs",
    "first relayed, then direct",
    "spread of a cell",
)


def summary(comparisons: Sequence[Comparison]) -> list[list[str]]:
    """What a matrix comes to, a line for each stack."""
    return [_total(name, [c.cells[n] for c in comparisons]) for n, name in enumerate(STACKS)]


def _total(stack: str, cells: Sequence[Cell]) -> list[str]:
    outcomes = [outcome for cell in cells for outcome in cell.outcomes]
    count = {verdict: sum(o.verdict is verdict for o in outcomes) for verdict in Verdict}
    possible = sum(len(c.outcomes) for c in cells if c.expected is Verdict.DIRECT)
    waits = [_wait_for_direct(o) for o in outcomes]
    moved = [wait for wait in waits if wait >= NOTICEABLE]
    spreads = sorted(max(c.connect_times) - min(c.connect_times) for c in cells if c.median)
    return [
        stack,
        f"{count[Verdict.DIRECT]} of {possible} that can be",
        f"{count[Verdict.RELAYED]}",
        f"{count[Verdict.FAILED]}",
        f"{sum(_on_two_pairs(o) for o in outcomes)}",
        f"{len(moved)}, {_ms(statistics.median(moved))} ms later" if moved else "0",
        _spread(spreads),
    ]


def _spread(spreads: list[float]) -> str:
    """Between the fastest and the slowest session of a cell; ``spreads`` from small to large."""
    if not spreads:
        return "-"
    half, most = (_ms(spreads[int(share * (len(spreads) - 1))]) for share in (0.5, 0.9))
    return f"{half} ms, nine in ten <= {most}, all <= {_ms(spreads[-1])}"


def _wait_for_direct(outcome: Outcome) -> float:
    """Seconds from the first path, a relayed one, to the direct one that it ended with."""
    if outcome.settled_time is None or outcome.connect_time is None:
        return 0.0
    return outcome.settled_time - outcome.connect_time


def _on_two_pairs(outcome: Outcome) -> bool:
    return outcome.verdict is not Verdict.FAILED and not outcome.same_pair


def ratios(comparisons: Sequence[Comparison]) -> str:
    """In one sentence how the two stacks' times compare."""
    found = [c.ratio for c in comparisons if c.ratio is not None]
    if not found:
        return "In no cell both connect"
    faster = sum(ratio > 1 + ALIKE for ratio in found)
    slower = sum(ratio < 1 - ALIKE for ratio in found)
    return (
        f"Ratios from {min(found):.2f} to {max(found):.2f}, median {statistics.median(found):.2f}: "
        f"ice-punch is faster in {faster} of {len(found)} cells, aioice in {slower}; the others "
        f"differ by {ALIKE:.0%} at most"
    )


# -- the command --------------------------------------------------------------------------------


def _nat(name: str) -> NatBehaviour:
    for nat in NINE:
        if nat.short == name.upper():
            return nat
    raise argparse.ArgumentTypeError(
        f"no NAT of the matrix is called {name}; there are {', '.join(n.short for n in NINE)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--nat", type=_nat, nargs="+", default=NINE, metavar="NAME", help="such as EIM/APDF; all 9"
    )
    parser.add_argument("--rtt", type=float, default=ROUND_TRIP, metavar="MS")
    parser.add_argument("--skew", type=float, nargs="+", default=SKEWS, metavar="MS")
    parser.add_argument("--repeat", type=at_least_one, default=REPEAT)
    parser.add_argument("--no-relay", action="store_true", help="without the TURN server")
    parser.add_argument(
        "--second-stun",
        action="store_true",
        help="a second STUN server; ice-punch asks both, aioice takes one",
    )
    parser.add_argument("--jobs", type=at_least_one, default=JOBS, help="laboratories side by side")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    try:
        plan = Plan(
            tuple(arguments.nat),
            arguments.rtt,
            tuple(arguments.skew),
            arguments.repeat,
            not arguments.no_relay,
            arguments.second_stun,
            arguments.jobs,
        )
    except InvalidConfiguration as error:
        raise SystemExit(f"nat_matrix.py: {error}") from None
    need_namespaces()
    print(where())
    print(f"\n{plan.conditions}; s: start skew\n")
    comparisons = compare(plan, partial(_report, len(plan.pairings)))
    print(table(HEAD, [row(comparison) for comparison in comparisons]))
    for skew in plan.skews:
        at_skew = [c for c in comparisons if c.skew == skew]
        print(f"\nskew {skew:g} ms\n\n{table(SUMMARY_HEAD, summary(at_skew))}\n{ratios(at_skew)}")
    if arguments.markdown is not None:
        arguments.markdown.write_text(markdown(plan, comparisons), encoding="utf-8")


def _report(total: int, done: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done} of {total} pairings", end="" if done < total else "\n", file=sys.stderr)


if __name__ == "__main__":
    main()
