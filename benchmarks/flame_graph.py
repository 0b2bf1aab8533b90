"""A flame graph (SVG) of where the CPU time of a workload goes, both ends in one process.

Needs py-spy: pip install '.[benchmarks]'. On Linux it needs root, or kernel.yama.ptrace_scope=0.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from harness import seconds
from loopback_pair import pair

from ice_punch.channel import Channel

BURST = 52


async def batches(a: Channel, b: Channel) -> None:
    """Bursts that fill a packet of the kernel's, each awaited."""
    await a.send_many([bytes(1200)] * BURST)
    left = BURST
    while left > 0:
        left -= len(await b.recv_many())


async def single(a: Channel, b: Channel) -> None:
    """One datagram there and back."""
    a.send_nowait(bytes(1200))
    b.send_nowait(await b.recv())
    await a.recv()


async def control(a: Channel, b: Channel) -> None:
    """A small datagram every 5 ms, and its echo."""
    await asyncio.sleep(0.005)
    a.send_nowait(bytes(38))
    b.send_nowait(await b.recv())
    await a.recv()


async def idle(a: Channel, b: Channel) -> None:
    """Nothing but consent, on a hundred pairs."""
    await asyncio.sleep(0.1)


Step = Callable[[Channel, Channel], Awaitable[None]]
WORKLOADS: dict[str, tuple[Step, bool]] = {
    "dtls-batches": (batches, True),
    "dtls-single": (single, True),
    "dtls-control": (control, True),
    "dtls-idle": (idle, True),
    "plain-batches": (batches, False),
    "plain-single": (single, False),
}


async def work(name: str, duration: float) -> None:
    step, encrypt = WORKLOADS[name]
    kept = [await pair(encrypt=encrypt) for _ in range(100 if step is idle else 1)]
    ends = time.monotonic() + duration
    while time.monotonic() < ends:
        await step(*kept[0])
    sys.stdout.flush()
    os._exit(0)


def recorder() -> str:
    """The path of py-spy."""
    beside = Path(sys.executable).with_name("py-spy")
    found = str(beside) if beside.exists() else shutil.which("py-spy")
    if found is None:
        raise SystemExit("flame_graph.py: py-spy is missing: pip install '.[benchmarks]'")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("--output", type=Path, default=Path("flame.svg"))
    parser.add_argument("--seconds", type=seconds, default=8.0)
    parser.add_argument("--uvloop", action="store_true")
    parser.add_argument("--native", action="store_true", help="calls of C too")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        run = asyncio.run
        if arguments.uvloop:
            import uvloop

            run = uvloop.run
        run(work(arguments.workload, arguments.seconds))
    if arguments.output.is_dir() or not arguments.output.absolute().parent.is_dir():
        raise SystemExit(f"flame_graph.py: {arguments.output} can not be written")
    if arguments.uvloop and importlib.util.find_spec("uvloop") is None:
        raise SystemExit("flame_graph.py: uvloop is missing: pip install '.[uvloop]'")
    command = [recorder(), "record", "--rate", "400", "--output", str(arguments.output)]
    command += ["--native"] * arguments.native
    program = [sys.executable, __file__, arguments.workload, "--work"]
    program += ["--seconds", str(arguments.seconds), *["--uvloop"] * arguments.uvloop]
    done = subprocess.run([*command, "--", *program], capture_output=True, text=True)
    if done.returncode or not arguments.output.exists():
        said = (done.stderr or done.stdout).strip().splitlines() or ["nothing was recorded"]
        raise SystemExit(f"flame_graph.py: {said[0]}")
    print(arguments.output)


if __name__ == "__main__":
    main()
