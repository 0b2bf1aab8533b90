"""What sits at the two ends of a link in the tests of browser peers: a signaling server, links of
rooms on it, and programs that are told what to do."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import queue
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509

from ice_punch.lab.kernel import KernelHost, KernelInternet
from signaling.link import Link
from support.certificates import Authority
from support.commands import Command, Start, start_here

ROOT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def serving(*options: str, host: str = "127.0.0.1", start: Start = start_here) -> Iterator[str]:
    """The URL of an ``ice-punch serve`` on a port of its own."""
    arguments = ("serve", "--host", host, "--port", "0", *options, "--json")
    with Command(*arguments, start=start) as command:
        yield str(command.event("serving")["url"])


@contextlib.contextmanager
def served(net: KernelInternet, directory: Path, *options: str) -> Iterator[tuple[str, Path]]:
    """A signaling server with TLS and STUN on the public host: its URL, and who vouches for it."""
    authority = Authority(directory)
    address = net.public.address
    cert, key = authority.make("server", x509.IPAddress(ip_address(address)))
    tls = ("--tls-cert", str(cert), "--tls-key", str(key), "--stun-port", "0")
    with serving(*tls, *options, host=address, start=net.public.popen) as url:
        yield url, authority.cafile


def new_link(server: str) -> Link:
    return Link.create(server, random.SystemRandom())


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@contextlib.contextmanager
def cable_pulled(home: KernelHost) -> Iterator[None]:
    """The host's interface is down meanwhile."""
    route = home.run(["ip", "route", "show", "default"]).stdout.strip()
    home.run(["ip", "link", "set", "eth0", "down"])
    yield
    home.run(["ip", "link", "set", "eth0", "up"])
    home.run(["ip", "route", "replace", *route.split()])


class Program:
    """A process, perhaps in a namespace, that does what it is told on standard input, one JSON
    object a line, and tells what happens on standard output, likewise."""

    def __init__(self, command: Sequence[str], start: Start = start_here) -> None:
        self.process = start(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self.told: list[dict[str, Any]] = []
        self._news: queue.Queue[dict[str, Any]] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self._news.put(json.loads(line))

    def next(self, event: str | set[str], timeout: float = 30.0) -> dict[str, Any]:
        """The next event of that name, or of these; what came before it is kept in ``told``."""
        events = {event} if isinstance(event, str) else event
        deadline = time.monotonic() + timeout
        while True:
            try:
                told = self._news.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no {event}; it told {self.told[-8:]}") from None
            self.told.append(told)
            if told["event"] in events:
                return told

    def do(self, order: str, **fields: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": order, **fields}) + "\n")
        self.process.stdin.flush()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


class Robot(Program):
    """``robot.py``, a Python program that listens or connects."""

    def __init__(
        self, role: str, url: str, directory: Path, cafile: str = "", start: Start = start_here
    ) -> None:
        program = str(Path(__file__).with_name("robot.py"))
        super().__init__([sys.executable, program, role, url, str(directory), cafile], start)
