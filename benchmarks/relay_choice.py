"""Which path two port-restricted peers settle on when a relay is at hand too.

Every peer has a STUN server and a TURN server; a direct path exists. Told is what each side ends up
sending on: direct, or through a relay, its own or the other's.
"""

from __future__ import annotations

import argparse
import statistics
from collections import Counter
from functools import partial

from connect_time import CASES, bound, milliseconds
from harness import Ground, at_least_one, interleaved, need_namespaces, table, where
from session import kinds, meet

from ice_punch.lab.kernel import KernelInternet
from ice_punch.lab.outcome import Outcome
from ice_punch.lab.scenario import Relays, Scenario

ROUND_TRIP = 40.0
SKEWS = (0.0, 30.0, 50.0, 100.0, 200.0)
RUNS = 10


def row(case: str, s: float, outcomes: list[Outcome]) -> list[str]:
    paths = Counter(kinds(o) for o in outcomes)
    text = ", ".join(f"{a} / {b} {n}x" for (a, b), n in sorted(paths.items()))
    took = statistics.median(milliseconds(o.connect_time) for o in outcomes)
    return [f"{s:g}", case, f"{bound(ROUND_TRIP, s):.0f}", f"{took:.0f}", text]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=at_least_one, default=RUNS)
    arguments = parser.parse_args()
    need_namespaces()
    print(where())
    print(
        f"\nround trip {ROUND_TRIP:g} ms, median of {arguments.runs}; s: start skew, "
        "the controlled side first\npath: the first side's / the second's\n"
    )
    rows = []
    with Ground(KernelInternet(rtt=ROUND_TRIP / 1000)) as ground:

        def session(case: str, s: float) -> Outcome:
            scenario = Scenario(rtt=ROUND_TRIP / 1000, skew=s / 1000, relays=Relays.UDP)
            return meet(ground, CASES[case], scenario, controlling_first=False)

        for case in ("ice-punch", "aioice"):  # a party's first session loads modules
            session(case, 0.0)
        for s in SKEWS:
            outcomes = interleaved(["ice-punch", "aioice"], arguments.runs, partial(session, s=s))
            rows += [row(case, s, several) for case, several in outcomes.items()]
    print(table(["s", "stack", "bound", "ms", "path"], rows))


if __name__ == "__main__":
    main()
