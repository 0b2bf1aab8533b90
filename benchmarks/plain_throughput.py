"""Plain datagrams from one process to another over a veth pair: rate, CPU time, latency.

ice-punch's plain channel and aioice after real ICE, pion/ice where Go and Debian's package of it
are installed, and as limits UDP segmentation offload in a bare loop of Python, and plain UDP
through asyncio. In turn, by a window, so that nothing is lost.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cable import IPS, End, cable, latency, median, pion_program, with_best_windows
from harness import HERE, at_least_one, interleaved, need_namespaces, seconds, table, where

from ice_punch.lab.kernel.namespaces import LaboratoryError, command_in, run_tool, tool

WINDOWS = (64, 832)
"""Datagrams under way. Each stack is shown with what suits it: some lose what comes too fast."""
STACKS = (
    "ice-punch asyncio",
    "ice-punch uvloop",
    "ice-punch-single asyncio",
    "ice-punch-no-offload asyncio",
    "ice-punch-no-offload uvloop",
    "aioice asyncio",
    "aioice uvloop",
    "pion/ice",
    "bare asyncio",
)

LINKS = {
    "whole": (),
    "segmented": ("tx-udp-segmentation", "off"),
    "segmented-gro": ("tx-udp-segmentation", "off", "gro", "on", "rx-udp-gro-forwarding", "on"),
}
"""How the link takes packets of many datagrams: as they are, as inside one host; cut before the
wire, as in front of a device without offload; the same, and put together again on arrival."""


def set_link(namespaces: Sequence[str], link: str) -> None:
    if LINKS[link]:
        for namespace in namespaces:
            try:
                run_tool(*command_in(namespace, [tool("ethtool"), "-K", "eth0", *LINKS[link]]))
            except LaboratoryError as error:
                raise SystemExit(f"{Path(sys.argv[0]).name}: {error}") from None


@dataclass
class Ground:
    namespaces: tuple[str, str]
    pion: str | None

    @contextlib.contextmanager
    def link(self, stack: str) -> Iterator[tuple[End, End]]:
        """Two processes that are connected."""
        name, *loop = stack.split()
        command = [sys.executable, str(HERE / "plain_party.py"), name]
        if name == "pion/ice":
            assert self.pion is not None
            command = [self.pion]
        ends = []
        with contextlib.ExitStack() as exits:
            for namespace, address, role in zip(
                self.namespaces, IPS, ("first", "second"), strict=True
            ):
                ends.append(End(namespace, [*command, role, address, *loop]))
                exits.callback(ends[-1].close)
            descriptions = [end.hear()["description"] for end in ends]
            for end, remote in zip(ends, reversed(descriptions), strict=True):
                end.tell(remote=remote)
            for end in ends:
                end.hear()
            yield ends[0], ends[1]


def show_throughput(
    ground: Ground,
    stacks: Sequence[str],
    size: int,
    runs: int,
    seconds: float,
    windows: Sequence[int],
) -> None:
    print(f"\n{size} bytes, {runs} runs of {seconds:g} s each, medians\n")
    best = with_best_windows(ground, dict.fromkeys(stacks, windows), size, runs, seconds)
    rates = {stack: median(found, "rate") for stack, (_, found) in best.items()}
    rows = []
    for stack, (window, found) in best.items():
        spread = sorted(result["rate"] / 1000 for result in found)
        rows.append(
            [
                stack,
                str(window),
                f"{rates[stack] / 1000:.1f}",
                f"{spread[0]:.1f} - {spread[-1]:.1f}",
                f"{median(found, 'sender'):.2f} / {median(found, 'receiver'):.2f}",
                f"{median(found, 'lost') * 100:.2f}",
                f"{rates[stacks[0]] / rates[stack]:.2f}",
            ]
        )
    head = ["", "window", "k/s", "lowest - highest", "CPU s per million", "lost %", "first / this"]
    print(table(head, rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=at_least_one, default=5)
    parser.add_argument("--seconds", type=seconds, default=1.5, help="of each run")
    parser.add_argument("--stacks", nargs="+", choices=STACKS, help="only these")
    parser.add_argument("--sizes", nargs="+", type=at_least_one, default=[1200, 200])
    parser.add_argument("--windows", nargs="+", type=at_least_one, default=WINDOWS)
    parser.add_argument("--link", choices=LINKS, default="whole", help="others need ethtool")
    parser.add_argument("--only", choices=("throughput", "latency"))
    arguments = parser.parse_args()
    need_namespaces(delay=False)
    print(where())
    wanted = arguments.stacks or STACKS
    with cable() as namespaces, pion_program("pion/ice", "plain_pion.go") as program:
        set_link(namespaces, arguments.link)
        absent = {"pion/ice"} if program is None else set()
        if importlib.util.find_spec("uvloop") is None:
            absent.add("uvloop")
        stacks = [stack for stack in wanted if not absent & set(stack.split())]
        if not stacks:
            raise SystemExit("plain_throughput.py: none of these stacks is on this machine")
        ground = Ground(namespaces, program)
        if arguments.only in (None, "throughput"):
            for size in arguments.sizes:
                show_throughput(
                    ground, stacks, size, arguments.runs, arguments.seconds, arguments.windows
                )
        if arguments.only in (None, "latency"):
            print(f"\nthere and back, 1200 bytes, one at a time, µs, {arguments.runs} runs\n")
            cases = ["udp asyncio", *stacks]
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


if __name__ == "__main__":
    main()
