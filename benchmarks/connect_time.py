"""Connect time through two port-restricted kernel NATs: ice-punch and aioice, in turn.

Both sides have gathered before. The first to start learns the other's description at 0, the second
s later, as it is when an answer takes s to travel; the time is that from 0 until ``connect()`` has
returned on both sides.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass
from functools import partial

from harness import STUN, Ground, Relay, at_least_one, interleaved, need_namespaces, table, where

from ice_punch.lab.kernel import KernelInternet

ROUND_TRIPS = (20, 100, 300)
RUNS = 5
MARGIN = 0.25
"""Seconds for both parties to read what they shall do."""

CASES = {
    # name: (stack of the first to start, stack of the second)
    "ice-punch": ("ice-punch", "ice-punch"),
    "aioice": ("aioice", "aioice"),
    "aioice first": ("aioice", "ice-punch"),
    "ice-punch first": ("ice-punch", "aioice"),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """Seconds since the first side started, when both sides had got there."""

    connected: float
    nominated: float
    kinds: tuple[str, str]


def skews(r: float) -> tuple[float, ...]:
    """The start skews s to measure, in ms, for a round trip of r ms."""
    return (0.0, 0.5 * r, 1.5 * r, 600.0)


def bound(r: float, s: float) -> float:
    """When checks without pacing would have both sides connected, in the unit of r and s.

    While the first check of the side that starts first still finds the other's NAT open, one round
    trip after the second start; beyond that the second's check has to trigger another one of the
    first's (RFC 8445 section 7.3.1.4). A repetition that happens to be under way at the right
    moment can be sooner.
    """
    return s + r if s < r / 2 else s + 1.5 * r


def meet(
    ground: Ground,
    stacks: tuple[str, str],
    skew: float,
    *,
    controlling_first: bool,
    relay: Relay | None = None,
) -> Outcome:
    """One session, from gathering to its end; the first side is ``ground.a``, ``skew`` in s."""
    parties = (ground.a, ground.b)
    roles = (controlling_first, not controlling_first)
    for party, stack, controlling in zip(parties, stacks, roles, strict=True):
        party.tell(do="gather", stack=stack, controlling=controlling, servers=[STUN], relay=relay)
    descriptions = [party.answer()["description"] for party in parties]
    begin = time.monotonic() + MARGIN
    ground.a.tell(do="connect", remote=descriptions[1], at=begin)
    ground.b.tell(do="connect", remote=descriptions[0], at=begin + skew)
    first, second = (party.answer() for party in parties)
    for party in parties:
        party.ask(do="close")
    zero = first["began"]
    return Outcome(
        connected=max(first["connected"], second["connected"]) - zero,
        nominated=max(first["nominated"], second["nominated"]) - zero,
        kinds=(first["kind"], second["kind"]),
    )


def row(r: float, s: float, outcomes: dict[str, list[Outcome]]) -> list[str]:
    """Medians in ms; the ratio is that of aioice's median to ours."""
    connected = {
        case: statistics.median(o.connected * 1000 for o in several)
        for case, several in outcomes.items()
    }
    ours = outcomes["ice-punch"]
    spread = [round(o.connected * 1000) for o in ours]
    cells = [
        f"{r:g}",
        f"{s:g}",
        f"{bound(r, s):.0f}",
        f"{connected['ice-punch']:.0f}",
        f"{min(spread)}-{max(spread)}",
        f"{statistics.median(o.nominated * 1000 for o in ours):.0f}",
    ]
    for case in list(outcomes)[1:]:
        cells.append(f"{connected[case]:.0f}")
        if case == "aioice":
            theirs = [round(o.connected * 1000) for o in outcomes[case]]
            cells.append(f"{min(theirs)}-{max(theirs)}")
            cells.append(f"{connected['aioice'] / connected['ice-punch']:.1f}")
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rtt", type=float, nargs="+", default=ROUND_TRIPS, metavar="MS")
    parser.add_argument("--runs", type=at_least_one, default=RUNS)
    parser.add_argument("--mixed", action="store_true", help="also one stack against the other")
    parser.add_argument(
        "--first",
        choices=("controlled", "controlling"),
        default="controlled",
        help="who starts first; the answerer, which is controlled, does (default)",
    )
    arguments = parser.parse_args()
    need_namespaces()
    cases = list(CASES) if arguments.mixed else ["ice-punch", "aioice"]
    print(where())
    print(
        f"\nms until both are connected, median of {arguments.runs} (smallest-largest); "
        f"r: round trip, s: start skew, {arguments.first} side first\n"
    )
    rows = []
    for r in arguments.rtt:
        with Ground(KernelInternet(rtt=r / 1000)) as ground:

            def session(case: str, s: float, ground: Ground = ground) -> Outcome:
                controlling_first = arguments.first == "controlling"
                return meet(ground, CASES[case], s / 1000, controlling_first=controlling_first)

            for case in ("ice-punch", "aioice"):  # a party's first session loads modules
                session(case, 0.0)
            for s in skews(r):
                outcomes = interleaved(cases, arguments.runs, partial(session, s=s))
                kinds = {o.kinds for several in outcomes.values() for o in several}
                assert kinds == {("direct", "direct")}, kinds
                rows.append(row(r, s, outcomes))
    head = ["r", "s", "bound", "ice-punch", "range", "nominated", "aioice", "range", "ratio"]
    print(table([*head, *cases[2:]], rows))


if __name__ == "__main__":
    main()
