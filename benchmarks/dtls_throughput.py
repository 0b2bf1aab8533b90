"""Encrypted datagrams from one process to another over a veth pair: rate, CPU time, latency.

ice-punch's channel after real ICE, aiortc's DTLS transport after its own, pion/dtls where Go and
Debian's package of it are installed, a data channel of libdatachannel's where npm's
node-datachannel is, and as limits OpenSSL's calls in a bare loop over UDP segmentation offload, and
plain UDP through asyncio. In turn, by a window, so that nothing is lost.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from cable import (
    IPS,
    End,
    cable,
    control,
    has_pion,
    latency,
    median,
    pion_program,
    with_best_windows,
)
from harness import HERE, at_least_one, interleaved, need_namespaces, seconds, table, where

WINDOWS = (64, 208, 832)
"""Datagrams under way. Each stack is shown with what suits it: some lose what comes too fast."""

STACKS = (
    "ice-punch asyncio",
    "ice-punch uvloop",
    "ice-punch-single asyncio",
    "ice-punch-protocol asyncio",
    "ice-punch-protocol uvloop",
    "aiortc asyncio",
    "aiortc uvloop",
    "pion/dtls",
    "libdatachannel",
    "sketch asyncio",
)
NODE_MODULE = HERE / "node_modules" / "node-datachannel"


def installed() -> list[str]:
    """The stacks that this machine has."""
    absent = set()
    if importlib.util.find_spec("aiortc") is None:
        absent.add("aiortc")
    if not has_pion("pion/dtls"):
        absent.add("pion/dtls")
    if shutil.which("node") is None or not NODE_MODULE.exists():
        absent.add("libdatachannel")
    if importlib.util.find_spec("uvloop") is None:
        absent.add("uvloop")
    return [stack for stack in STACKS if not absent & set(stack.split())]


@dataclass
class Ground:
    namespaces: tuple[str, str]
    pion: str | None

    @contextlib.contextmanager
    def link(self, stack: str) -> Iterator[tuple[End, End]]:
        """Two processes that have shaken hands."""
        name, *loop = stack.split()
        ends = []
        with contextlib.ExitStack() as exits:
            for namespace, address, role in zip(
                self.namespaces, IPS, ("first", "second"), strict=True
            ):
                command = [sys.executable, str(HERE / "dtls_party.py"), name]
                if name == "pion/dtls":
                    assert self.pion is not None
                    command = [self.pion]
                elif name == "libdatachannel":
                    command = ["node", str(HERE / "datachannel_party.cjs")]
                ends.append(End(namespace, [*command, role, address, *loop]))
                exits.callback(ends[-1].close)
            first, second = ends
            offer = first.hear()["description"]
            if name == "libdatachannel":
                second.tell(remote=offer)
                answer = second.hear()["description"]
            else:
                answer = second.hear()["description"]
                second.tell(remote=offer)
                if name == "pion/dtls":
                    time.sleep(0.3)  # it gives up where the other's socket is not there yet
            first.tell(remote=answer)
            first.hear()
            second.hear()
            yield first, second


def show_throughput(
    ground: Ground, stacks: list[str], size: int, runs: int, seconds: float
) -> None:
    print(f"\n{size} bytes, {runs} runs of {seconds:g} s each, medians (rate: lowest - highest)\n")
    best = with_best_windows(ground, dict.fromkeys(stacks, WINDOWS), size, runs, seconds)
    ours = median(best[stacks[0]][1], "rate")
    rows = []
    for stack, (window, found) in best.items():
        rates = sorted(result["rate"] / 1000 for result in found)
        rows.append(
            [
                stack,
                str(window),
                f"{median(found, 'rate') / 1000:.1f}",
                f"{rates[0]:.1f} - {rates[-1]:.1f}",
                f"{median(found, 'sender'):.1f} / {median(found, 'receiver'):.1f}",
                f"{median(found, 'lost') * 100:.1f}",
                f"{ours / median(found, 'rate'):.2f}",
            ]
        )
    head = [
        "",
        "window",
        "k/s",
        "of all runs",
        "CPU s per million, both ends",
        "lost %",
        "first / this",
    ]
    print(table(head, rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=at_least_one, default=5)
    parser.add_argument("--seconds", type=seconds, default=2.0, help="of each run")
    parser.add_argument("--stacks", nargs="+", choices=STACKS, help="only these")
    parser.add_argument("--only", choices=("throughput", "latency", "control"))
    arguments = parser.parse_args()
    need_namespaces(delay=False)
    stacks = [stack for stack in installed() if stack in (arguments.stacks or STACKS)]
    if not stacks:
        raise SystemExit("dtls_throughput.py: none of these stacks is on this machine")
    print(where())
    with cable() as namespaces, pion_program("pion/dtls", "dtls_pion.go") as program:
        ground = Ground(namespaces, program)
        if arguments.only in (None, "throughput"):
            for size in (1200, 200):
                show_throughput(ground, stacks, size, arguments.runs, arguments.seconds)
        if arguments.only in (None, "latency"):
            print(f"\nthere and back, 1200 bytes, one at a time, µs, {arguments.runs} runs\n")
            cases = ["udp asyncio", "udp uvloop", *stacks]
            found = interleaved(cases, arguments.runs, lambda s: latency(ground, s, 1200, 2000))
            base = median(found[cases[0]], "median")
            rows = [
                [
                    stack,
                    f"{median(found[stack], 'median'):.0f}",
                    f"{median(found[stack], 'p99'):.0f}",
                    f"{median(found[stack], 'median') / base:.2f}",
                ]
                for stack in cases
            ]
            print(table(["", "median", "99 %", "this / first"], rows))
        if arguments.only in (None, "control"):
            print("\n200 datagrams of 38 bytes a second and their echoes, % of a core\n")
            cases = [stack for stack in stacks if stack.startswith(("ice-punch", "aiortc"))]
            cases += ["udp asyncio", "udp uvloop"]
            ticks = interleaved(cases, arguments.runs, lambda s: control(ground, s, 3.0))
            rows = [
                [s, f"{median(ticks[s], 'first'):.1f}", f"{median(ticks[s], 'second'):.1f}"]
                for s in cases
            ]
            print(table(["", "one side", "the other"], rows))


if __name__ == "__main__":
    main()
