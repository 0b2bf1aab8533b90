"""Connect time through two port-restricted kernel NATs: ice-punch and aioice, in turn.

Both sides have gathered before. The first to start learns the other's description at 0, the second
s later, as it is when an answer takes s to travel; the time is that from 0 until ``connect()`` has
returned on both sides.
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial

from harness import Ground, at_least_one, interleaved, need_namespaces, table, where
from session import Stacks, kinds, meet, selected_time

from ice_punch.lab.kernel import KernelInternet
from ice_punch.lab.outcome import Outcome
from ice_punch.lab.scenario import Scenario

ROUND_TRIPS = (20, 100, 300)
RUNS = 5

CASES: dict[str, Stacks] = {
    "ice-punch": ("ice-punch", "ice-punch"),
    "aioice": ("aioice", "aioice"),
    "aioice first": ("aioice", "ice-punch"),
    "ice-punch first": ("ice-punch", "aioice"),
}


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


def milliseconds(seconds: float | None) -> float:
    """Of a session that has got there."""
    assert seconds is not None
    return seconds * 1000


def row(r: float, s: float, outcomes: dict[str, list[Outcome]]) -> list[str]:
    """Medians in ms; the ratio is that of aioice's median to ours."""
    times = {
        case: [milliseconds(o.connect_time) for o in several] for case, several in outcomes.items()
    }
    connected = {case: statistics.median(several) for case, several in times.items()}
    nominated = [milliseconds(selected_time(o)) for o in outcomes["ice-punch"]]
    cells = [
        f"{r:g}",
        f"{s:g}",
        f"{bound(r, s):.0f}",
        f"{connected['ice-punch']:.0f}",
        spread(times["ice-punch"]),
        f"{statistics.median(nominated):.0f}",
    ]
    for case in list(outcomes)[1:]:
        cells.append(f"{connected[case]:.0f}")
        if case == "aioice":
            cells.append(spread(times[case]))
            cells.append(f"{connected['aioice'] / connected['ice-punch']:.1f}")
    return cells


def spread(times: list[float]) -> str:
    return f"{min(times):.0f}-{max(times):.0f}"


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
                scenario = Scenario(rtt=ground.internet.scenario.rtt, skew=s / 1000)
                controlling_first = arguments.first == "controlling"
                return meet(ground, CASES[case], scenario, controlling_first=controlling_first)

            for case in ("ice-punch", "aioice"):  # a party's first session loads modules
                session(case, 0.0)
            for s in skews(r):
                outcomes = interleaved(cases, arguments.runs, partial(session, s=s))
                found = {kinds(o) for several in outcomes.values() for o in several}
                assert found == {("direct", "direct")}, found
                rows.append(row(r, s, outcomes))
    head = ["r", "s", "bound", "ice-punch", "range", "nominated", "aioice", "range", "ratio"]
    print(table([*head, *cases[2:]], rows))


if __name__ == "__main__":
    main()
