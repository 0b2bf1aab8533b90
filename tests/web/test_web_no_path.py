"""A page and a program on one cable, with a firewall between them."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from web_support import no_complaints, serving

from ice_punch.lab.kernel import namespaces
from support.certificates import Authority
from support.commands import Command
from support.lan import two_hosts
from support.netns import NETNS
from support.tabs import ChromiumTab, chromium_tabs

pytestmark = NETNS
HERE = "192.0.2.5"
NOTHING_COMES_IN = """
table inet door {
  chain input {
    type filter hook input priority 0; policy accept;
    iifname "lan0" meta l4proto udp drop
  }
}
"""


def _within(namespace: str, command: list[str]) -> list[str]:
    return [namespaces.tool("ip"), "netns", "exec", namespace, *command]


def _start(namespace: str, command: list[str], **options: Any) -> subprocess.Popen[Any]:
    return subprocess.Popen(_within(namespace, command), **options)


def _load(tab: ChromiumTab, link: str) -> None:
    """A browser drops what it loads when an address of its host becomes usable meanwhile."""
    for _ in range(5):
        tab.complaints.clear()
        tab.visit(link)
        with contextlib.suppress(AssertionError):
            tab.until("globalThis.icePunch", 10)
            return
    raise AssertionError(tab.complaints)


@contextlib.contextmanager
def _on_a_lan(rules: str, directory: Path) -> Iterator[tuple[ChromiumTab, Command]]:
    """A page at a program's link, on one cable; ``rules`` are for the program's firewall."""
    authority = Authority(directory)
    cert, key = authority.make("server", x509.IPAddress(ip_address(HERE)))
    tls = ("--tls-cert", str(cert), "--tls-key", str(key), "--no-stun")
    with two_hosts() as (here, there):
        subprocess.run(
            _within(here.namespace, ["nft", "-f", "-"]), input=rules, text=True, check=True
        )
        start = partial(_start, here.namespace)
        with (
            serving(*tls, host=HERE, start=start) as url,
            Command(
                *("listen", "--server", url, "--ca-file", str(authority.cafile)),
                *("--interface", "lan0", "--json"),
                start=start,
            ) as listener,
            chromium_tabs(_within(there.namespace, [])) as open_tab,
        ):
            tab = open_tab()
            _load(tab, str(listener.event("listening")["link"]))
            yield tab, listener
            assert no_complaints(tab.complaints) == []


def test_that_there_is_no_path_is_said_on_both_sides(tmp_path: Path) -> None:
    with _on_a_lan(NOTHING_COMES_IN, tmp_path) as (tab, listener):
        said = tab.title("No path was found", timeout=40)
        assert "the networks let nothing through, and no relay helped." in said
        assert "no path to this side was found" in listener.event("error")["message"]
        assert listener.exit_code() == 1
