"""What ``datagrams.py`` found, as tables on a page and as a plot."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from cable import Figures, median
from datagram_workloads import (
    KINDS,
    LATENCY_TARGETS,
    OURS,
    OURS_UVLOOP,
    Plan,
    Results,
    Workload,
)
from harness import HERE, table, where

PAGE = HERE.parent / "docs" / "performance.md"
PLOT = HERE.parent / "docs" / "images" / "datagrams.png"
BEGIN, END = "<!-- benchmarks/datagrams.py writes from here -->", "<!-- to here -->"


def ratio(
    these: Sequence[Figures], those: Sequence[Figures], figure: Callable[[Figures], float]
) -> float:
    """The median of the ratios of runs that were measured one after the other, for a machine may
    be twice as fast at one time as at another."""
    return statistics.median(figure(a) / figure(b) for a, b in zip(these, those, strict=False))


def rate(run: Figures) -> float:
    return run["rate"]


def cpu_time(run: Figures) -> float:
    """Of the busier side."""
    return max(run["sender"], run["receiver"])


def round_trip(run: Figures) -> float:
    return run["median"]


def rates_of(results: Results, workload: Workload) -> str:
    rows = []
    found = results.throughput[workload]
    ours = found.get(OURS)
    for stack, runs in found.items():
        rates = sorted(run["rate"] / 1000 for run in runs)
        cpu = median(runs, "sender"), median(runs, "receiver")
        ratios = ["", ""]
        if ours is not None:
            ratios = [f"{ratio(ours, runs, rate):.2f}", f"{ratio(runs, ours, cpu_time):.2f}"]
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
            times = ratio(found[ours], found[theirs], rate)
            less = ratio(found[theirs], found[ours], cpu_time)
            rows.append(
                [workload.title, ours, theirs, f"{target:g}", f"{times:.2f}", f"{less:.2f}"]
            )
    return table(["", "ours", "than", "wanted", "rate", "by CPU time"], rows) if rows else ""


def limits_of(results: Results) -> str:
    """What is held against a figure of its own, in place of another stack's rate."""
    rows = []
    for kind, most in LATENCY_TARGETS.items():
        for loop in ("asyncio", "uvloop"):
            ours = results.latency.get(f"{kind}: ice-punch {loop}")
            raw = results.latency.get(f"plain: udp {loop}")
            if ours and raw:
                times = ratio(ours, raw, round_trip)
                name = f"{KINDS[kind]}, there and back, {loop}: times raw UDP"
                rows.append([name, f"{most:g}", f"{times:.2f}"])
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
        times = "" if raw is None else f"{ratio(runs, raw, round_trip):.2f}"
        rows.append([name, f"{median(runs, 'median'):.0f}", f"{median(runs, 'p99'):.0f}", times])
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
            "less CPU time of the busier side for a datagram. Each is the median of the ratios of "
            "runs that came one after the other.",
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
    for workload, (left, right) in zip(shown, axes, strict=True):
        found = results.throughput[workload]
        names = list(found)
        ours = ["#1b6e5a" if n.startswith("ice-punch") else "#9aa5ab" for n in names]
        rates = [median(found[n], "rate") / 1000 for n in names]
        costs = [median(found[n], "sender") + median(found[n], "receiver") for n in names]
        for ax, values, form in ((left, rates, "{:.0f}"), (right, costs, "{:.1f}")):
            bars = ax.barh(names, values, color=ours)
            ax.bar_label(bars, [form.format(v) for v in values], padding=3, fontsize=8)
            ax.invert_yaxis()
            ax.margins(x=0.15)
            ax.tick_params(labelsize=8)
            ax.spines[["top", "right"]].set_visible(False)
        right.set_yticklabels([])
        left.set_title(f"{workload.title}: thousand datagrams a second", fontsize=9, loc="left")
        right.set_title("CPU seconds per million, both ends", fontsize=9, loc="left")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110, metadata={"Software": None})
    pyplot.close(figure)
