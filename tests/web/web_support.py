"""Browsers and robots in networks of their own; what a console may say."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ice_punch.lab.kernel import KernelHost, KernelInternet, enter
from support.commands import Command
from support.programs import ROOT, Robot, cable_pulled, new_link, served, serving, sha256
from support.tabs import Opener, chromium_tabs, firefox_tabs

__all__ = [
    "ROOT",
    "Robot",
    "Town",
    "cable_pulled",
    "new_link",
    "no_complaints",
    "served",
    "serving",
    "sha256",
    "tabs_in",
    "town",
]


def no_complaints(complaints: list[str]) -> list[str]:
    """What a console should not have. That addresses came and went is the tests' own doing."""
    fine = ("log:", "info:", "debug:")
    moved = (
        "net::ERR_NETWORK_CHANGED",
        "net::ERR_TOO_MANY_RETRIES",
        "net::ERR_ADDRESS_UNREACHABLE",
    )
    return [c for c in complaints if not c.startswith(fine) and not c.endswith(moved)]


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

    def command(self, *arguments: str) -> Command:
        """``ice-punch`` where the robots are."""
        trust = ("--ca-file", str(self._cafile), "--json")
        return Command(*arguments, *trust, start=self.net.peer_b.popen)

    def cable_pulled(self) -> contextlib.AbstractContextManager[None]:
        """The browser's interface is down meanwhile."""
        return cable_pulled(self.net.peer_a)


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
