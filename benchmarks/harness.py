"""What the benchmarks share: where they ran, the STUN server, the parties and the tables."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import select
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from ice_punch.lab.kernel import KernelHost, KernelInternet, available, has_cable

STUN = ("203.0.113.10", 3478)
RELAY_IP = "203.0.113.11"
HERE = Path(__file__).resolve().parent
ANSWER_TIMEOUT = 100.0
Relay = tuple[str, int, str, str]
"""A TURN server's address, user and password."""
T = TypeVar("T")


def where() -> str:
    """Machine, kernel, Python, libraries and date, to stand above every table."""
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("aioice", "cryptography")
    )
    return "\n".join(
        (
            f"machine  {_processor()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}",
            f"kernel   {platform.system()} {platform.release()}",
            f"python   {platform.python_implementation()} {platform.python_version()}, {versions}",
            f"date     {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        )
    )


def _processor() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def need_namespaces(*, delay: bool = True) -> None:
    """Leave with one line where the kernel laboratory can not be built."""
    reason = available()
    if reason is None and delay and not has_cable():
        reason = "packets can not be delayed here: /dev/net/tun is missing"
    if reason is not None:
        raise SystemExit(f"{Path(sys.argv[0]).name}: {reason}")


def at_least_one(text: str) -> int:
    """For argparse: how often to repeat something."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns, the first to the left and the others to the right."""
    lines = [head, *rows]
    widths = [max(len(line[n]) for line in lines) for n in range(len(head))]

    def text(line: Sequence[str]) -> str:
        first, *others = (
            cell.ljust(width) if n == 0 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        return "  ".join((first, *others)).rstrip()

    return "\n".join((text(head), "  ".join("-" * width for width in widths), *map(text, rows)))


class Party:
    """A process of ``party.py`` on a host: one ICE agent at a time, on command."""

    def __init__(self, host: KernelHost) -> None:
        self._process = host.popen(
            [sys.executable, str(HERE / "party.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self._rest = b""

    def tell(self, **command: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")

    def answer(self, timeout: float = ANSWER_TIMEOUT) -> dict[str, Any]:
        """What it says next. Raises TimeoutError, or RuntimeError when it has died."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout
        while b"\n" not in self._rest:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._process.stdout], [], [], left)[0]:
                raise TimeoutError(f"a party said nothing for {timeout:g} s")
            part = os.read(self._process.stdout.fileno(), 1 << 16)
            if not part:
                raise RuntimeError("a party died, see above")
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        said: dict[str, Any] = json.loads(line)
        return said

    def ask(self, **command: Any) -> dict[str, Any]:
        self.tell(**command)
        return self.answer()


class Ground:
    """Two parties on a kernel internet, and servers on its public host."""

    def __init__(self, internet: KernelInternet) -> None:
        self._internet = internet
        self._stack = contextlib.ExitStack()
        self.a: Party
        self.b: Party

    def __enter__(self) -> Ground:
        net = self._stack.enter_context(self._internet)
        self.serve("stun-server", *STUN)
        self.a, self.b = Party(net.peer_a), Party(net.peer_b)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def serve(self, kind: str, ip: str, port: int) -> None:
        """Start a ``stun-server`` or a ``silent-server`` on the public host."""
        process = self._internet.public.popen(
            [sys.executable, str(HERE / "party.py"), kind, ip, str(port)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        if not process.stdout.readline():
            raise RuntimeError(f"the {kind} did not start")

    def serve_relay(self) -> Relay:
        """Start coturn on the public host and wait until it answers Binding requests."""
        ip, port, user, password = relay = (RELAY_IP, 3478, "robot", "correct horse")
        self._internet.public.popen(
            [
                *("turnserver", "-n", "--no-cli", "--no-tls", "--no-dtls", "--log-file=stdout"),
                *("--lt-cred-mech", "--realm=lab", f"--user={user}:{password}"),
                *(f"--{name}-ip={ip}" for name in ("listening", "relay")),
                f"--listening-port={port}",
                "--pidfile=/dev/null",
                "--userdb=/dev/null/none",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            found = self.a.ask(
                do="gather", stack="aioice", controlling=True, servers=[(ip, port)], relay=relay
            )["found"]
            self.a.ask(do="close")
            if any(kind == "relay" for _, kind in found):
                return relay
        raise RuntimeError("coturn did not start")


def interleaved(cases: Sequence[str], runs: int, once: Callable[[str], T]) -> dict[str, list[T]]:
    """Every case in turn, ``runs`` times over, so that what disturbs the machine disturbs all."""
    results: dict[str, list[T]] = {case: [] for case in cases}
    for _ in range(runs):
        for case in cases:
            results[case].append(once(case))
    return results
