"""What the bus adds to a signal: one server process, and two that share rooms through Redis.

Two clients, one signal of 500 bytes at a time, from sending to receiving; the ways in turn, and the
medians of all rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

ROOM = "a-room-of-22-characters"
REDIS_PORT = 6399


@contextlib.contextmanager
def process(*command: str, ready: str | None = None) -> Iterator[dict[str, Any]]:
    """A process until the block ends, and the first JSON event it writes with that name."""
    running = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE if ready else subprocess.DEVNULL
    )
    try:
        event: dict[str, Any] = {}
        while ready is not None and event.get("event") != ready:
            assert running.stderr is not None
            event = json.loads(running.stderr.readline())
        yield event
    finally:
        running.terminate()
        running.wait(10)


def serve(*switches: str) -> contextlib.AbstractContextManager[dict[str, Any]]:
    command = [sys.executable, "-m", "ice_punch", "serve", "--host", "127.0.0.1", "--port", "0"]
    return process(*command, "--no-stun", "--json", *switches, ready="serving")


async def enter(url: str) -> tuple[ClientConnection, dict[str, Any]]:
    connection = await connect(
        url.replace("http", "ws") + "/v1/ws",
        subprotocols=[Subprotocol("icepunch.v1")],
        compression=None,
        proxy=None,
    )
    await connection.send(json.dumps({"type": "hello", "v": 1, "room": ROOM}))
    return connection, json.loads(await connection.recv())


async def measure(left: str, right: str, count: int) -> list[float]:
    """Milliseconds of ``count`` signals."""
    (one, _), (two, welcome) = await enter(left), await enter(right)
    took = []
    for id in range(1, count + 1):
        message = {"type": "signal", "id": id, "to": welcome["self"], "link": "l", "gen": 0}
        text = json.dumps(message | {"kind": "offer", "data": "x" * 400})
        began = time.perf_counter()
        await one.send(text)
        while json.loads(await two.recv())["type"] != "signal":
            pass
        took.append((time.perf_counter() - began) * 1000)
        if id % 16 == 0:
            await two.send(json.dumps({"type": "ack", "seq": id}))
        await asyncio.sleep(0.05)  # the rate a server grants
    await one.close()
    await two.close()
    return took


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--signals", type=int, default=100)
    parser.add_argument("--engine", default="websockets")
    arguments = parser.parse_args()
    binary = shutil.which("redis-server") or shutil.which("valkey-server")
    if binary is None:
        print("needs redis-server or valkey-server", file=sys.stderr)
        return 1
    took: dict[str, list[float]] = {"one process": [], "two processes, one bus": []}
    with tempfile.TemporaryDirectory() as directory:
        command = [binary, "--port", str(REDIS_PORT), "--save", "", "--dir", directory]
        with process(*command):
            time.sleep(0.5)
            bus = ("--redis", f"redis://127.0.0.1:{REDIS_PORT}/0")
            engine = ("--engine", arguments.engine)
            with serve(*engine) as alone, serve(*engine, *bus) as a, serve(*engine, *bus) as b:
                for _ in range(arguments.runs):
                    for name, urls in (
                        ("one process", (alone["url"], alone["url"])),
                        ("two processes, one bus", (a["url"], b["url"])),
                    ):
                        took[name] += asyncio.run(measure(*urls, arguments.signals))
    print(f"{platform.platform()}, Python {platform.python_version()}, {arguments.engine}")
    print(f"redis {version('redis')}, {datetime.now(UTC):%Y-%m-%d}, 400 bytes of data\n")
    print("| | median ms | 90 % ms | signals |\n|---|---|---|---|")
    for name, values in took.items():
        ninety = statistics.quantiles(values, n=10)[8]
        print(f"| {name} | {statistics.median(values):.2f} | {ninety:.2f} | {len(values)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
