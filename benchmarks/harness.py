"""What the benchmarks share: where they ran, the parties, their servers and the tables."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.metadata
import os
import platform
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from ice_punch.datagram import Address
from ice_punch.lab.kernel import KernelHost, KernelInternet, available, enter, has_cable
from ice_punch.lab.kernel.crew import Member, hire
from ice_punch.lab.kernel.layout import STUN_IPS, TURN_IP
from ice_punch.lab.kernel.run import PATIENCE, STUN_PORT, USER

STUN: Address = (STUN_IPS[0], STUN_PORT)
SECOND_STUN: Address = (STUN_IPS[1], STUN_PORT)
RELAY = (TURN_IP, STUN_PORT, *USER)
"""The TURN server's address, user and password."""
HERE = Path(__file__).resolve().parent
ANSWER_TIMEOUT = 100.0
T = TypeVar("T")


def where() -> str:
    """Machine, kernel, Python, libraries and date, to stand above every table."""
    versions = ", ".join(map(_version, ("aioice", "cryptography")))
    return "\n".join(
        (
            f"machine  {_processor()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}",
            f"kernel   {platform.system()} {platform.release()}",
            f"python   {platform.python_implementation()} {platform.python_version()}, {versions}",
            f"date     {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        )
    )


def _version(name: str) -> str:
    try:
        return f"{name} {importlib.metadata.version(name)}"
    except importlib.metadata.PackageNotFoundError:
        return f"no {name}"


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
    with contextlib.suppress(ValueError):
        if (number := int(text)) >= 1:
            return number
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")


def seconds(text: str) -> float:
    """For argparse: how long to do something."""
    with contextlib.suppress(ValueError):
        if 0 < (number := float(text)) <= 3600:
            return number
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0, 3600 at most")


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


class Party(Member):
    """A process of ``party.py`` on a host: one ICE agent at a time, on command."""

    def __init__(self, host: KernelHost) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            host.popen([sys.executable, str(HERE / "party.py")], stdin=theirs, stdout=theirs)
        super().__init__(f"the party in {host.namespace}", ours)

    def answer(self) -> dict[str, Any]:
        """What it says next. Raises LaboratoryError when it says nothing, or has died."""
        return self.hear(ANSWER_TIMEOUT)

    def ask(self, **command: Any) -> dict[str, Any]:
        self.tell(**command)
        return self.answer()


class Ground:
    """Two parties on a kernel internet, and the laboratory's servers on its public host."""

    def __init__(self, internet: KernelInternet) -> None:
        self.internet = internet
        self._stack = contextlib.ExitStack()
        self.a: Party
        self.b: Party

    def __enter__(self) -> Ground:
        with contextlib.ExitStack() as stack:
            net = stack.enter_context(self.internet)
            servers = hire(
                net.public.namespace,
                "servers",
                stun=[STUN_IPS],
                turn=[TURN_IP],
                port=STUN_PORT,
                tcp_ports=[],
                username=USER[0],
                password=USER[1],
            )
            stack.enter_context(servers).hear(PATIENCE)
            self.a, self.b = Party(net.peer_a), Party(net.peer_b)
            for party in self.parties:
                stack.enter_context(party)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def parties(self) -> tuple[Party, Party]:
        return self.a, self.b

    def be_silent_at(self, address: Address) -> None:
        """Take what comes to a UDP port of the public host, and never answer."""
        with enter(self.internet.public.namespace):
            endpoint = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._stack.enter_context(endpoint).bind(address)


def interleaved(cases: Sequence[str], runs: int, once: Callable[[str], T]) -> dict[str, list[T]]:
    """Every case in turn, ``runs`` times over, so that what disturbs the machine disturbs all."""
    results: dict[str, list[T]] = {case: [] for case in cases}
    for _ in range(runs):
        for case in cases:
            results[case].append(once(case))
    return results
