"""Requests per second of CPU that STUN servers answer: ice-punch and coturn, in turn.

The load is a process of its own and asks over the loopback interface (``stun_load.py``); the CPU
time is what the kernel charges to the server's process, all its threads. Needs Linux and coturn.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness import HERE, at_least_one, interleaved, table, where

from ice_punch.net.stun_server import RateLimit, StunServer

ROUNDS = 5
SECONDS = 2.0
COTURN = "coturn"
OURS = {
    "ice-punch": ("127.0.0.1", "asyncio"),
    "ice-punch, uvloop": ("127.0.0.1", "uvloop"),
    "ice-punch, any address": ("0.0.0.0", "asyncio"),
    "ice-punch, any address, uvloop": ("0.0.0.0", "uvloop"),
}
"""Where each listens, and on which event loop."""
LOADS = {"64 sources, 4 requests each": (64, 4), "1 source, 1 request": (1, 1)}
NEVER_DROPS = RateLimit(rate=1e9, burst=1e9)
PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Measured:
    rate: float
    """Right answers a second."""
    per_cpu_second: float


def cpu_seconds(process: int) -> float:
    """What all threads of a process have used, in user and in kernel mode."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def command(name: str, port: int) -> list[str]:
    if name != COTURN:
        return [sys.executable, str(HERE / "stun_server.py"), "--serve", *OURS[name], str(port)]
    options = "--stun-only --no-tls --no-dtls --no-cli --log-file=/dev/null --pidfile=/dev/null"
    return [
        *("turnserver", "-n", "--listening-ip=127.0.0.1", f"--listening-port={port}"),
        *options.split(),
    ]


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextlib.contextmanager
def running(name: str) -> Iterator[tuple[int, int]]:
    """The process and the port of a server that answers."""
    port = free_port()
    with subprocess.Popen(
        command(name, port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            until = time.monotonic() + PATIENCE
            while load(port, 1, 1, 0.05)["right"] == 0:
                if process.poll() is not None or time.monotonic() > until:
                    raise SystemExit(f"stun_server.py: {name} does not answer")
            yield process.pid, port
        finally:
            process.terminate()


def load(port: int, sources: int, out: int, seconds: float) -> dict[str, float]:
    """What the load's process says. Raises CalledProcessError."""
    options = f"--sources={sources} --out={out} --seconds={seconds}".split()
    said = subprocess.run(
        [sys.executable, str(HERE / "stun_load.py"), str(port), *options],
        check=True,
        capture_output=True,
    ).stdout
    answer: dict[str, float] = json.loads(said)
    if answer["wrong"]:
        raise SystemExit(f"stun_server.py: {answer['wrong']} wrong answers from port {port}")
    return answer


def measure(process: int, port: int, kind: str, seconds: float) -> Measured:
    before = cpu_seconds(process)
    answer = load(port, *LOADS[kind], seconds)
    used = max(cpu_seconds(process) - before, 1 / os.sysconf("SC_CLK_TCK"))
    return Measured(answer["right"] / answer["seconds"], answer["right"] / used)


def rows(results: dict[str, list[Measured]]) -> list[list[str]]:
    """Medians, the spread, and the ratio to coturn's median."""
    medians = {
        name: statistics.median(m.per_cpu_second for m in measured)
        for name, measured in results.items()
    }
    found = []
    for name, measured in results.items():
        each = [m.per_cpu_second / 1000 for m in measured]
        found.append(
            [
                name,
                f"{statistics.median(m.rate for m in measured) / 1000:.0f}",
                f"{medians[name] / 1000:.0f}",
                f"{min(each):.0f}-{max(each):.0f}",
                f"{medians[name] / medians[COTURN]:.2f}" if COTURN in medians else "",
            ]
        )
    return found


async def serve(host: str, port: int) -> None:
    async with await StunServer.start(host, port, limit=NEVER_DROPS):
        await asyncio.get_running_loop().create_future()


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    if name == "asyncio":
        return asyncio.new_event_loop
    import uvloop

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def servers() -> list[str]:
    """Those that can run here."""
    if not Path("/proc/self/stat").exists():
        raise SystemExit("stun_server.py: CPU times of other processes are read from Linux's /proc")
    if shutil.which("turnserver") is None:
        raise SystemExit("stun_server.py: coturn is not installed (turnserver)")
    has_uvloop = importlib.util.find_spec("uvloop") is not None
    return [COTURN, *(name for name, (_, on) in OURS.items() if has_uvloop or on == "asyncio")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=at_least_one, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of load, every time")
    parser.add_argument("--serve", nargs=3, metavar=("IP", "LOOP", "PORT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        host, on, port = arguments.serve
        with asyncio.Runner(loop_factory=loop_factory(on)) as runner:
            runner.run(serve(host, int(port)))
        return
    names = servers()
    print(where())
    print(f"\nmedians of {arguments.rounds} rounds of {arguments.seconds:g} s, in turn")
    with contextlib.ExitStack() as stack:
        started = {name: stack.enter_context(running(name)) for name in names}
        for kind in LOADS:
            results = interleaved(
                names,
                arguments.rounds,
                lambda name, kind=kind: measure(*started[name], kind, arguments.seconds),
            )
            head = [kind, "k answers/s", "k per CPU-s", "of", "x coturn"]
            print(f"\n{table(head, rows(results))}")


if __name__ == "__main__":
    main()
