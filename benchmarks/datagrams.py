"""Every stack that this machine has on the same datagram workloads, in one run: tables and a plot.

ice-punch's channel, plain and encrypted, after real ICE; aioice, aiortc, pion/ice, pion/dtls and
libdatachannel where they are installed; and as limits UDP segmentation offload in a bare loop of
Python, and OpenSSL's calls in another. Two processes and a veth pair; in turn; by a window, so that
nothing is lost. Needs root on Linux. It writes into docs/performance.md unless told otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import cable
import dtls_throughput
import plain_throughput
from cable import Figures
from datagram_report import PAGE, PLOT, check, draw, report, write
from datagram_workloads import (
    KINDS,
    NAMES,
    OURS,
    ROUND_TRIPS,
    TICKING,
    WORKLOADS,
    Plan,
    Results,
    Workload,
)
from harness import HERE, at_least_one, interleaved, need_namespaces, seconds

from ice_punch.lab.kernel.namespaces import missing

T = TypeVar("T")
WINDOWS = {"plain": (64, 208, 832), "dtls": (64, 208, 832)}
"""Datagrams under way. Each stack is shown with what suits it: some lose what comes too fast."""


def installed(programs: dict[str, str | None]) -> frozenset[str]:
    """The names of stacks and event loops that this machine has."""
    here = {"asyncio", "ice-punch", "ice-punch-no-offload", "ice-punch-protocol", "bare", "sketch"}
    here |= {"udp", *(name for name, program in programs.items() if program is not None)}
    here |= {n for n in ("aioice", "aiortc", "uvloop") if importlib.util.find_spec(n) is not None}
    here |= set(dtls_throughput.installed()) & {"libdatachannel"}
    return frozenset(here)


class Machine:
    """The two namespaces, the programs of other stacks, and what is installed."""

    def __init__(self, programs: dict[str, str | None]) -> None:
        self._programs = programs
        self._here = installed(programs)

    def has(self, stack: str) -> bool:
        return set(stack.split()) <= self._here

    @contextlib.contextmanager
    def link(self, link: str) -> Iterator[dict[str, object]]:
        with cable.cable() as namespaces:
            plain_throughput.set_link(namespaces, link)
            yield {
                "plain": plain_throughput.Ground(namespaces, self._programs["pion/ice"]),
                "dtls": dtls_throughput.Ground(namespaces, self._programs["pion/dtls"]),
            }


def attempt(once: Callable[[str], T], stack: str) -> T | None:
    """What comes of one run; None where it fails three times: another stack's end may die."""
    for _ in range(3):
        try:
            return once(stack)
        except cable.EndDied as error:
            tell(f"{stack}: {error}")
    return None


def in_turn(
    stacks: Sequence[str], runs: int, once: Callable[[str], Figures]
) -> dict[str, list[Figures]]:
    """The runs of every stack that did not fail; without those of which all did."""
    found = interleaved(stacks, runs, lambda stack: attempt(once, stack))
    done = {stack: [run for run in runs if run is not None] for stack, runs in found.items()}
    return {stack: runs for stack, runs in done.items() if runs}


def measure_rates(machine: Machine, plan: Plan, results: Results) -> None:
    for link in dict.fromkeys(w.link for w in plan.workloads):
        with machine.link(link) as grounds:
            for workload in (w for w in plan.workloads if w.link == link):
                tell(workload.title)
                stacks = [s for s in plan.keep(workload.stacks) if machine.has(s)]
                measure_rate(grounds[workload.kind], workload, stacks, plan, results)


def measure_rate(
    ground: Any, workload: Workload, stacks: Sequence[str], plan: Plan, results: Results
) -> None:
    """With each window where none is chosen yet; then the one that suits the stack is."""
    kind, chosen = workload.kind, results.windows
    windows = {s: [chosen[kind, s]] if (kind, s) in chosen else WINDOWS[kind] for s in stacks}
    best = cable.with_best_windows(ground, windows, workload.size, plan.runs, plan.seconds, in_turn)
    results.throughput[workload] = {stack: runs for stack, (_, runs) in best.items()}
    chosen |= {(kind, stack): window for stack, (window, _) in best.items()}


def measure_latency(machine: Machine, plan: Plan, results: Results) -> None:
    with machine.link("whole") as grounds:
        tell("there and back")
        cases = {
            f"{kind}: {stack}": (grounds[kind], stack)
            for kind, names in ROUND_TRIPS.items()
            for stack in plan.keep(names)
            if machine.has(stack)
        }
        results.latency = in_turn(
            list(cases), plan.runs, lambda case: cable.latency(*cases[case], 1200, plan.rounds)
        )
        tell("200 datagrams a second")
        stacks = [s for s in plan.keep(TICKING) if machine.has(s)]
        ground = grounds["dtls"]
        results.control = in_turn(stacks, plan.runs, lambda s: cable.control(ground, s, 2.5))


def measure_stalled(machine: Machine, plan: Plan, results: Results) -> None:
    if not plan.keep([OURS]):
        return
    with machine.link("whole") as grounds:
        for kind, name in KINDS.items():
            tell(f"{kind}, nobody reads for {plan.stalled:g} s")
            ground: Any = grounds[kind]
            once = partial(cable.stalled, ground, seconds=plan.stalled)
            found = attempt(once, OURS)
            if found is not None:
                results.stalled[name] = found


def measure_idle(plan: Plan, results: Results) -> None:
    tell(f"{plan.channels} idle channels")
    command = [sys.executable, str(HERE / "idle_channels.py"), "--json"]
    command += ["--channels", str(plan.channels)]
    results.idle = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def tell(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def measure(plan: Plan, *, latency: bool = True, idle: bool = True) -> Results:
    results = Results()
    with (
        cable.pion_program("pion/ice", "plain_pion.go") as ice,
        cable.pion_program("pion/dtls", "dtls_pion.go") as dtls,
    ):
        machine = Machine({"pion/ice": ice, "pion/dtls": dtls})
        results.absent = [s for s in plan.keep(NAMES) if not machine.has(s)]
        if len(results.absent) == len(plan.keep(NAMES)):
            raise SystemExit("datagrams.py: none of these stacks is on this machine")
        measure_rates(machine, plan, results)
        if latency:
            measure_stalled(machine, plan, results)
            measure_latency(machine, plan, results)
    if idle:
        measure_idle(plan, results)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=at_least_one, default=9)
    parser.add_argument("--seconds", type=seconds, default=0.5, help="of each run")
    parser.add_argument("--channels", type=at_least_one, default=1000, help="that are idle")
    parser.add_argument("--stalled", type=seconds, default=60.0, help="for which nobody reads")
    parser.add_argument("--stacks", nargs="+", choices=NAMES, metavar="STACK", help="only these")
    parser.add_argument("--page", type=Path, default=PAGE, help="that the tables are written into")
    parser.add_argument("--plot", type=Path, default=PLOT)
    parser.add_argument("--only", choices=("rates",), help="neither latency nor idle channels")
    parser.add_argument("--print", action="store_true", help="write nothing")
    arguments = parser.parse_args()
    need_namespaces(delay=False)
    if importlib.util.find_spec("matplotlib") is None and not arguments.print:
        raise SystemExit("datagrams.py: matplotlib is missing: pip install '.[benchmarks]'")
    if not arguments.print:
        check(arguments.page)
        arguments.plot.parent.mkdir(parents=True, exist_ok=True)
    stacks = None if arguments.stacks is None else frozenset(arguments.stacks)
    plan = Plan(arguments.runs, arguments.seconds, stacks=stacks)
    plan.channels, plan.stalled = arguments.channels, arguments.stalled
    if missing("ethtool"):
        tell("going on without segmented links: ethtool is not installed")
        plan.workloads = [w for w in WORKLOADS if w.link == "whole"]
    everything = arguments.only is None
    results = measure(plan, latency=everything, idle=everything)
    if not any(results.throughput.values()):
        raise SystemExit("datagrams.py: nothing was measured")
    text = report(plan, results)
    print(text)
    if not arguments.print:
        draw(results, arguments.plot)
        write(arguments.page, text)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
