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
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import cable
import dtls_throughput
import plain_throughput
from cable import Figures, median
from harness import HERE, at_least_one, interleaved, need_namespaces, seconds, table, where

from ice_punch.lab.kernel.namespaces import missing

PAGE = HERE.parent / "docs" / "performance.md"
PLOT = HERE.parent / "docs" / "images" / "datagrams.png"
T = TypeVar("T")
BEGIN, END = "<!-- benchmarks/datagrams.py writes from here -->", "<!-- to here -->"
WINDOWS = {"plain": (64, 208, 832), "dtls": (64, 208, 832)}
"""Datagrams under way. Each stack is shown with what suits it: some lose what comes too fast."""
TRIAL, TRIALS = 0.25, 2
"""Seconds of the runs that choose it, and how many they are."""

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

    runs: int = 5
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


def rate(
    ground: Any,
    workload: Workload,
    windows: dict[tuple[str, str], int],
    duration: float,
    stack: str,
) -> Figures:
    window = windows[workload.kind, stack]
    return cable.throughput(ground, stack, workload.size, duration, window)


def choose(ground: Any, kind: str, stack: str) -> int:
    """The window with the highest rate of those that lose nothing, or next to nothing."""
    windows = WINDOWS[kind]
    if len(windows) == 1:
        return windows[0]
    trials = [
        [cable.throughput(ground, stack, 1200, TRIAL, w) for w in windows] for _ in range(TRIALS)
    ]
    best = [
        {"rate": max(run["rate"] for run in tried), "lost": max(run["lost"] for run in tried)}
        for tried in zip(*trials, strict=True)
    ]
    return cable.fastest([(w, [b]) for w, b in zip(windows, best, strict=True)])[0]


def measure_rates(machine: Machine, plan: Plan, results: Results) -> None:
    for link in dict.fromkeys(w.link for w in plan.workloads):
        with machine.link(link) as grounds:
            for workload in (w for w in plan.workloads if w.link == link):
                tell(workload.title)
                ground, kind = grounds[workload.kind], workload.kind
                stacks = [s for s in plan.keep(workload.stacks) if machine.has(s)]
                for stack in stacks:
                    if (kind, stack) not in results.windows:
                        window = attempt(partial(choose, ground, kind), stack)
                        results.windows[kind, stack] = window or WINDOWS[kind][0]
                once = partial(rate, ground, workload, results.windows, plan.seconds)
                results.throughput[workload] = in_turn(stacks, plan.runs, once)


def measure_latency(machine: Machine, plan: Plan, results: Results) -> None:
    with machine.link("whole") as grounds:
        for kind, names in ROUND_TRIPS.items():
            tell(f"{kind}, there and back")
            stacks = [s for s in plan.keep(names) if machine.has(s)]
            ground = grounds[kind]
            found = in_turn(
                stacks,
                plan.runs,
                lambda s: cable.latency(ground, s, 1200, plan.rounds),  # noqa: B023
            )
            results.latency |= {f"{kind}: {stack}": times for stack, times in found.items()}
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


# -- what came of it --------------------------------------------------------------------------


def rates_of(results: Results, workload: Workload) -> str:
    rows = []
    found = results.throughput[workload]
    ours = found.get(OURS)
    for stack, runs in found.items():
        rates = sorted(run["rate"] / 1000 for run in runs)
        cpu = median(runs, "sender"), median(runs, "receiver")
        ratios = ["", ""]
        if ours is not None:
            ours_cpu = max(median(ours, "sender"), median(ours, "receiver"))
            ratios = [
                f"{median(ours, 'rate') / median(runs, 'rate'):.2f}",
                f"{max(cpu) / ours_cpu:.2f}",
            ]
        rows.append(
            [
                stack,
                str(results.windows[workload.kind, stack]),
                f"{statistics.median(rates):.1f}",
                f"{rates[0]:.0f} - {rates[-1]:.0f}",
                f"{cpu[0]:.2f} / {cpu[1]:.2f}",
                f"{median(runs, 'lost') * 100:.2f}",
                *ratios,
            ]
        )
    head = ["", "window", "k/s", "lowest - highest", "CPU s per million", "lost %"]
    return table([*head, "ours / this, k/s", "this / ours, CPU"], rows)


def targets_of(results: Results) -> str:
    rows = []
    for workload, found in results.throughput.items():
        for ours, theirs, target in workload.targets:
            if ours not in found or theirs not in found:
                continue
            rate = median(found[ours], "rate") / median(found[theirs], "rate")
            cpu = max(median(found[theirs], k) for k in ("sender", "receiver")) / max(
                median(found[ours], k) for k in ("sender", "receiver")
            )
            rows.append([workload.title, ours, theirs, f"{target:g}", f"{rate:.2f}", f"{cpu:.2f}"])
    return table(["", "ours", "than", "wanted", "rate", "by CPU time"], rows) if rows else ""


def limits_of(results: Results) -> str:
    """What is held against a figure of its own, in place of another stack's rate."""
    rows = []
    for kind, most in LATENCY_TARGETS.items():
        for loop in ("asyncio", "uvloop"):
            ours = results.latency.get(f"{kind}: ice-punch {loop}")
            raw = results.latency.get(f"plain: udp {loop}")
            if ours and raw:
                ratio = median(ours, "median") / median(raw, "median")
                name = f"{KINDS[kind]}, there and back, {loop}: times raw UDP"
                rows.append([name, f"{most:g}", f"{ratio:.2f}"])
    for stack, runs in results.control.items():
        if stack in (OURS, OURS_UVLOOP):
            share = max(median(runs, "first"), median(runs, "second"))
            rows.append([f"DTLS, 200 a second, {stack}: % of a core", "3", f"{share:.1f}"])
    for kind, found in results.stalled.items():
        grown = found["peak"] - found["before"]
        rows.append([f"{kind}, nobody reads: MB that memory grows by", "0", f"{grown:.1f}"])
    if results.idle:
        rows.append(["An idle channel: kB", "60", f"{results.idle['kilobytes']:.0f}"])
        rows.append(["1000 idle channels: % of a core", "5", f"{results.idle['percent']:.1f}"])
    return table(["", "at most", "measured"], rows) if rows else ""


def stalled_of(results: Results) -> str:
    rows = [
        [
            name,
            *(f"{found[key]:.1f}" for key in ("before", "peak", "after")),
            f"{found['dropped'] / 1e6:.2f}",
        ]
        for name, found in results.stalled.items()
    ]
    head = ["", "MB once the queue is full", "at most after", "at the end"]
    return table([*head, "million datagrams dropped and counted"], rows)


def latency_of(results: Results) -> str:
    rows = []
    for name, runs in results.latency.items():
        loop = name.split()[-1]
        raw = results.latency.get(f"plain: udp {loop}")
        ratio = "" if raw is None else f"{median(runs, 'median') / median(raw, 'median'):.2f}"
        rows.append([name, f"{median(runs, 'median'):.0f}", f"{median(runs, 'p99'):.0f}", ratio])
    return table(["", "median", "99 %", "this / raw UDP, same loop"], rows)


def report(plan: Plan, results: Results) -> str:
    """Markdown."""
    parts = [
        f"```text\n{where()}\n```",
        f"![Rates and CPU time of all stacks](images/{PLOT.name})",
    ]
    if targets := targets_of(results):
        parts += [
            "Against what is wanted: how many times the rate of another stack, and how many times "
            "less CPU time of the busier side for a datagram.",
            f"```text\n{targets}\n```",
        ]
    if limits := limits_of(results):
        parts.append(f"```text\n{limits}\n```")
    if results.absent:
        parts.append(f"Not on this machine, and not measured: {', '.join(results.absent)}.")
    for workload, found in results.throughput.items():
        if not found:
            continue
        title = f"{workload.title}, {plan.runs} runs of {plan.seconds:g} s, medians"
        parts.append(f"```text\n{title}\n\n{rates_of(results, workload)}\n```")
    if results.latency:
        title = f"There and back, 1200 bytes, one at a time, µs, medians of {plan.runs}"
        parts.append(f"```text\n{title}\n\n{latency_of(results)}\n```")
    if results.control:
        rows = [
            [s, f"{median(found, 'first'):.1f}", f"{median(found, 'second'):.1f}"]
            for s, found in results.control.items()
        ]
        body = table(["", "one side", "the other"], rows)
        title = "DTLS, 200 datagrams of 38 bytes a second and their echoes, % of a core"
        parts.append(f"```text\n{title}\n\n{body}\n```")
    if results.stalled:
        title = f"The receiver's memory, nobody reads, sent at full rate for {plan.stalled:g} s"
        parts.append(f"```text\n{title}\n\n{stalled_of(results)}\n```")
    if results.idle:
        parts.append(
            f"{plan.channels} idle encrypted channels in one process keep "
            f"{results.idle['kilobytes']:.0f} kB each, and take "
            f"{results.idle['percent']:.1f} % of a core per 1,000 for consent and keepalive."
        )
    parts.append("`sudo make benchmarks`, which is `python benchmarks/datagrams.py`, as root.")
    return "\n\n".join(parts)


def check(page: Path) -> tuple[str, str]:
    """What stands before and behind the tables. Raises SystemExit where they do not belong."""
    try:
        before, _, rest = page.read_text().partition(BEGIN)
    except OSError as error:
        raise SystemExit(f"datagrams.py: {page}: {error.strerror}") from None
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"datagrams.py: {page} does not say where the tables belong: {BEGIN}")
    return before, after


def write(page: Path, text: str) -> None:
    before, after = check(page)
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def draw(results: Results, file: Path) -> None:
    """Rates beside CPU time, for the workloads on a whole link."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [w for w, found in results.throughput.items() if w.link == "whole" and found]
    if not shown:
        return
    figure, axes = pyplot.subplots(
        len(shown), 2, figsize=(11, 1 + 0.42 * sum(2 + len(results.throughput[w]) for w in shown)),
        squeeze=False, layout="constrained",
        height_ratios=[2 + len(results.throughput[w]) for w in shown],
    )  # fmt: skip
    for workload, (rate, cpu) in zip(shown, axes, strict=True):
        found = results.throughput[workload]
        names = list(found)
        ours = ["#1b6e5a" if n.startswith("ice-punch") else "#9aa5ab" for n in names]
        rates = [median(found[n], "rate") / 1000 for n in names]
        costs = [median(found[n], "sender") + median(found[n], "receiver") for n in names]
        for ax, values, form in ((rate, rates, "{:.0f}"), (cpu, costs, "{:.1f}")):
            bars = ax.barh(names, values, color=ours)
            ax.bar_label(bars, [form.format(v) for v in values], padding=3, fontsize=8)
            ax.invert_yaxis()
            ax.margins(x=0.15)
            ax.tick_params(labelsize=8)
            ax.spines[["top", "right"]].set_visible(False)
        cpu.set_yticklabels([])
        rate.set_title(f"{workload.title}: thousand datagrams a second", fontsize=9, loc="left")
        cpu.set_title("CPU seconds per million, both ends", fontsize=9, loc="left")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


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
    parser.add_argument("--runs", type=at_least_one, default=5)
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
