"""A signaling server as a command, links of rooms on it, and programs at the other end of a tab."""

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
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509

from ice_punch.lab.kernel import KernelHost, KernelInternet, enter
from signaling.link import Link
from support.certificates import Authority
from support.commands import Command, Start, start_here
from support.tabs import Opener, chromium_tabs, firefox_tabs

ROOT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def serving(*options: str, host: str = "127.0.0.1", start: Start = start_here) -> Iterator[str]:
    """The URL of an ``ice-punch serve`` on a port of its own."""
    arguments = ("serve", "--host", host, "--port", "0", *options, "--json")
    with Command(*arguments, start=start) as command:
        yield str(command.event("serving")["url"])


def new_link(server: str) -> Link:
    return Link.create(server, random.SystemRandom())


def no_complaints(complaints: list[str]) -> list[str]:
    """What a console should not have."""
    return [said for said in complaints if not said.startswith(("log:", "info:", "debug:"))]


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


class Robot:
    """``web_robot.py`` as a process, perhaps in a namespace."""

    def __init__(
        self, role: str, url: str, directory: Path, cafile: str = "", start: Start = start_here
    ) -> None:
        program = Path(__file__).with_name("web_robot.py")
        self.process = start(
            [sys.executable, str(program), role, url, str(directory), cafile],
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

    def __enter__(self) -> Robot:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


class Town:
    """A public TLS signaling server with STUN, and two homes behind kernel NATs: in one of them a
    browser, in the other one robots."""

    browser = ""

    def __init__(self, net: KernelInternet, url: str, cafile: Path, opener: Opener) -> None:
        self.net = net
        self.url = url
        self.open_tab = opener
        self._cafile = cafile

    def robot(self, role: str, url: str, directory: Path) -> Robot:
        return Robot(role, url, directory, str(self._cafile), self.net.peer_b.popen)

    @contextlib.contextmanager
    def cable_pulled(self) -> Iterator[None]:
        """The browser's interface is down meanwhile."""
        home = self.net.peer_a
        route = home.run(["ip", "route", "show", "default"]).stdout.strip()
        home.run(["ip", "link", "set", "eth0", "down"])
        yield
        home.run(["ip", "link", "set", "eth0", "up"])
        home.run(["ip", "route", "replace", *route.split()])


@contextlib.contextmanager
def served(net: KernelInternet, directory: Path, *options: str) -> Iterator[tuple[str, Path]]:
    """A signaling server with TLS and STUN on the public host: its URL, and who vouches for it."""
    authority = Authority(directory)
    address = net.public.address
    cert, key = authority.make("server", x509.IPAddress(ip_address(address)))
    tls = ("--tls-cert", str(cert), "--tls-key", str(key), "--stun-port", "0")
    with serving(*tls, *options, host=address, start=net.public.popen) as url:
        yield url, authority.cafile


@contextlib.contextmanager
def town(browser: str, directory: Path, **nats: Any) -> Iterator[Town]:
    """``browser`` is ``chromium`` or ``firefox``."""
    with (
        KernelInternet(**nats) as net,
        served(net, directory) as (url, cafile),
        tabs_in(browser, net.peer_a) as opener,
    ):
        yield Town(net, url, cafile, opener)


@contextlib.contextmanager
def tabs_in(browser: str, host: KernelHost) -> Iterator[Opener]:
    where = host.command([])
    if browser == "chromium":
        with chromium_tabs(where) as opener:
            yield opener
    else:
        with firefox_tabs(where, lambda: enter(host.namespace)) as opener:
            yield opener
