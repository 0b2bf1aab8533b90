"""Two processes in two network namespaces with a veth pair between them, and what they do there."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from harness import HERE, interleaved

from ice_punch.lab.kernel.namespaces import LaboratoryError, command_in, make, new_names, remove
from ice_punch.lab.kernel.namespaces import run_tool as tool
from ice_punch.lab.kernel.processes import exit_on_signals, signals_held

LOSSLESS = 0.001
"""The share that may be lost by what counts as losing nothing."""
PATIENCE = 30.0
"""Seconds for which an end of the link may say nothing."""
IPS = ("10.77.0.1", "10.77.0.2")
GO_PATH = Path("/usr/share/gocode")
Figures = dict[str, float]


class EndDied(Exception):
    """One of the two processes ended, or says nothing any more."""


@contextlib.contextmanager
def cable() -> Iterator[tuple[str, str]]:
    """Two network namespaces with a veth pair between them, gone at the end and by signals."""
    first, second = names = new_names("first", "second")
    with exit_on_signals():
        try:
            with signals_held():
                make(*names)
            ends = ("peer", "name", "eth0", "netns")
            tool("ip", "link", "add", "name", "eth0", "netns", first, "type", "veth", *ends, second)
            for name, address in zip(names, IPS, strict=True):
                tool("ip", "-n", name, "address", "add", f"{address}/24", "dev", "eth0")
                tool("ip", "-n", name, "link", "set", "eth0", "up")
            yield first, second
        except (EndDied, LaboratoryError) as error:
            raise SystemExit(f"{Path(sys.argv[0]).name}: {error}") from None
        finally:
            with signals_held():
                remove(*names)


def has_pion(name: str) -> bool:
    """Whether Go and Debian's package of pion/dtls or pion/ice are here."""
    there = (GO_PATH / f"src/github.com/{name}/v2").exists()
    return there and shutil.which("go") is not None


@contextlib.contextmanager
def pion_program(name: str, source: str) -> Iterator[str | None]:
    """The program around one of pion's libraries, if it can be built here."""
    if not has_pion(name):
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        program = f"{folder}/pion"
        go = {"GO111MODULE": "off", "GOPATH": str(GO_PATH), "GOCACHE": folder, "GOFLAGS": ""}
        built = subprocess.run(
            ["go", "build", "-o", program, str(HERE / source)],
            capture_output=True,
            text=True,
            env={**os.environ, **go},
        )
        if built.returncode:
            print(f"going on without {name}: {built.stderr.strip()}", file=sys.stderr)
        yield None if built.returncode else program


class End:
    """One of the two processes."""

    def __init__(self, namespace: str, command: list[str]) -> None:
        self.process = subprocess.Popen(
            command_in(namespace, command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is ours
        )
        self._heard = b""

    def tell(self, **what: Any) -> None:
        assert self.process.stdin is not None
        try:
            print(json.dumps(what), file=self.process.stdin, flush=True)
        except BrokenPipeError:
            raise EndDied("an end of the link died") from None

    def hear(self, patience: float = PATIENCE) -> dict[str, Any]:
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        while b"\n" not in self._heard:
            if not select.select([descriptor], [], [], patience)[0]:
                raise EndDied(f"an end of the link has said nothing for {patience:g} s")
            more = os.read(descriptor, 1 << 16)
            if not more:
                raise EndDied("an end of the link died")
            self._heard += more
        line, _, self._heard = self._heard.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):
                stream.close()


class Ground(Protocol):
    """Where two processes are connected by one of the stacks."""

    def link(self, stack: str) -> contextlib.AbstractContextManager[tuple[End, End]]: ...


def throughput(ground: Ground, stack: str, size: int, seconds: float, window: int) -> Figures:
    """Datagrams a second, CPU s per million of either end, and the share that was lost."""
    with ground.link(stack) as (first, second):
        second.tell(do="count", window=window)
        second.hear()
        first.tell(do="send", size=size, seconds=seconds, window=window)
        sender = first.hear(PATIENCE + seconds)
        time.sleep(0.1)  # for what is still under way
        second.tell(do="stop")
        receiver = second.hear()
    received = max(1, receiver["received"])
    return {
        "rate": received / sender["seconds"],
        "sender": sender["cpu"] / received * 1e6,
        "receiver": receiver["cpu"] / received * 1e6,
        "lost": max(0.0, 1 - received / max(1, sender["sent"])),
    }


def latency(ground: Ground, stack: str, size: int, rounds: int) -> Figures:
    """µs there and back, after 200 rounds that do not count."""
    with ground.link(stack) as (first, second):
        second.tell(do="echo")
        second.hear()
        for count in (200, rounds):
            first.tell(do="ping", size=size, rounds=count)
            times = first.hear()
    return {"median": times["median"] * 1e6, "p99": times["p99"] * 1e6}


def control(ground: Ground, stack: str, seconds: float) -> Figures:
    """% of a core of either end, with 200 datagrams of 38 bytes a second and their echoes."""
    with ground.link(stack) as (first, second):
        second.tell(do="echo")
        second.hear()
        first.tell(do="tick", size=38, hertz=200, seconds=seconds)
        here = first.hear(PATIENCE + seconds)
        second.tell(do="stop")
        return {"first": here["cpu"] * 100, "second": second.hear()["cpu"] * 100}


def stalled(ground: Ground, stack: str, seconds: float) -> Figures:
    """The receiver's memory (MB) while nobody reads and the sender sends all it can, and what it
    dropped."""
    with ground.link(stack) as (first, second):
        second.tell(do="stall")
        second.hear()
        first.tell(do="flood", size=1200, seconds=seconds)
        first.hear(PATIENCE + seconds)
        second.tell(do="stop")
        found: Figures = second.hear()
        return found


def median(results: Sequence[Figures], key: str) -> float:
    return statistics.median(result[key] for result in results)


def fastest(by_window: list[tuple[int, list[Figures]]]) -> tuple[int, list[Figures]]:
    """The window with the highest rate of those that lost nothing, or next to nothing."""
    lossless = [entry for entry in by_window if median(entry[1], "lost") <= LOSSLESS]
    return max(lossless or by_window, key=lambda entry: median(entry[1], "rate"))


def with_best_windows(
    ground: Ground,
    windows: Mapping[str, Sequence[int]],
    size: int,
    runs: int,
    seconds: float,
    in_turn: Callable[..., dict[str, list[Figures]]] = interleaved,
) -> dict[str, tuple[int, list[Figures]]]:
    """Every stack with each of its windows; by stack the window that suits it, and the runs with
    that."""
    cases = {f"{stack} {w}": (stack, w) for stack, tried in windows.items() for w in tried}
    found = in_turn(
        list(cases),
        runs,
        lambda case: throughput(ground, cases[case][0], size, seconds, cases[case][1]),
    )
    by_stack: dict[str, list[tuple[int, list[Figures]]]] = {}
    for case, results in found.items():
        stack, window = cases[case]
        by_stack.setdefault(stack, []).append((window, results))
    return {stack: fastest(by_window) for stack, by_window in by_stack.items()}
