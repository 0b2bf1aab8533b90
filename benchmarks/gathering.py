"""How long gathering takes when STUN servers answer, and when one of them is silent.

A host behind a NAT, its servers 40 ms away. ice-punch tells each candidate as soon as
it exists; with aioice all of them are seen when ``gather_candidates()`` ends, and ``connect()`` can
not begin before.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from functools import partial
from typing import Any

from harness import STUN, Ground, at_least_one, interleaved, need_namespaces, table, where

from ice_punch.lab.kernel import KernelInternet

SILENT = (STUN[0], 5349)
PEER_ROUND_TRIP = 0.08
"""Between the peers; half of it is to the servers."""
RUNS = 5

CASES: dict[str, Sequence[tuple[str, int]]] = {
    "one that answers": (STUN,),
    "one that is silent": (SILENT,),
    "one silent, one that answers": (SILENT, STUN),
}
STACKS = ("ice-punch", "aioice")


def first(found: list[tuple[float, str]], type_: str | None = None) -> float | None:
    """When the first candidate (of a type) was seen, in seconds; None if there was none."""
    return min((at for at, kind in found if type_ in (None, kind)), default=None)


def gather(ground: Ground, stack: str, servers: Sequence[tuple[str, int]]) -> dict[str, Any]:
    answer: dict[str, Any] = ground.a.ask(
        do="gather", stack=stack, controlling=True, servers=servers
    )
    ground.a.ask(do="close")
    return answer


def row(stack: str, servers: str, answers: list[dict[str, Any]]) -> list[str]:
    """Medians in ms."""

    def median(seconds: list[float | None]) -> str:
        known = [s for s in seconds if s is not None]
        return f"{statistics.median(known) * 1000:.0f}" if len(known) == len(seconds) else "never"

    return [
        servers,
        stack,
        median([first(a["found"]) for a in answers]),
        median([first(a["found"], "srflx") for a in answers]),
        median([a["ended"] for a in answers]),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=at_least_one, default=RUNS)
    arguments = parser.parse_args()
    need_namespaces()
    print(where())
    print(f"\nms from the start of gathering, median of {arguments.runs}; round trip 40 ms\n")
    rows = []
    with Ground(KernelInternet(rtt=PEER_ROUND_TRIP)) as ground:
        ground.be_silent_at(SILENT)
        for stack in STACKS:  # a party's first session loads modules
            gather(ground, stack, (STUN,))
        for name, servers in CASES.items():
            able = [stack for stack in STACKS if stack == "ice-punch" or len(servers) == 1]
            answers = interleaved(able, arguments.runs, partial(gather, ground, servers=servers))
            rows += [row(stack, name, answers[stack]) for stack in able]
            if "aioice" not in able:
                rows.append([name, "aioice", "-", "-", "takes one server"])
    print(table(["STUN servers", "stack", "first candidate", "first srflx", "end"], rows))


if __name__ == "__main__":
    main()
