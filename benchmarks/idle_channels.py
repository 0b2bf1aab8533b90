"""What an idle encrypted channel costs: memory, and CPU time for consent and keepalive.

Both ends of every pair are in one process, so a channel's peer is among those that are counted.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import resource
import time
from pathlib import Path

from harness import at_least_one, seconds, table, where
from loopback_pair import pair

WARM_UP = 20
SETTLE = 7.0
"""Seconds until the paths have been searched for their MTU and the pairs are selected."""


def resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def measure(channels: int, duration: float, settle: float) -> dict[str, float]:
    kept = [await pair(encrypt=True) for _ in range(WARM_UP // 2)]
    before = resident()
    kept += [await pair(encrypt=True) for _ in range(channels // 2)]
    await asyncio.sleep(settle)
    kilobytes = (resident() - before) / channels / 1000
    cpu, began = time.process_time(), time.monotonic()
    await asyncio.sleep(duration)
    share = (time.process_time() - cpu) / (time.monotonic() - began)
    return {"kilobytes": kilobytes, "percent": share * 100_000 / (2 * len(kept))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--channels", type=at_least_one, default=1000)
    parser.add_argument("--seconds", type=seconds, default=10.0)
    parser.add_argument("--settle", type=seconds, default=SETTLE, help="seconds before that")
    parser.add_argument("--json", action="store_true", help="nothing but the figures")
    arguments = parser.parse_args()
    if not Path("/proc/self/statm").exists():
        raise SystemExit("idle_channels.py: the memory of a process is read from Linux's /proc")
    wanted = arguments.channels * 2 + 200
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < wanted:
        raise SystemExit(f"idle_channels.py: so many need {wanted} open files, and {hard} may be")
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    found = asyncio.run(measure(max(2, arguments.channels), arguments.seconds, arguments.settle))
    if arguments.json:
        print(json.dumps(found), flush=True)
    else:
        print(where())
        rows = [[str(arguments.channels), f"{found['kilobytes']:.0f}", f"{found['percent']:.1f}"]]
        print("\n" + table(["idle channels", "kB each", "% of a core per 1000"], rows), flush=True)
    os._exit(0)  # closing so many takes longer than it tells


if __name__ == "__main__":
    main()
