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
from support.lan import ip, two_hosts
from support.netns import NETNS
from support.tabs import ChromiumTab, chromium_tabs

pytestmark = NETNS
HERE, THERE = "192.0.2.5", "192.0.2.6"
ONLY_ANSWERS = """
table inet door {
  chain input {
    type filter hook input priority 0; policy accept;
    iifname "lan0" meta l4proto udp udp dport != 5353 udp sport != 5353 ct state new drop
  }
}
"""
"""A check of the browser's reaches us only from where we have sent one. Only mDNS says where."""


def _within(namespace: str, command: list[str]) -> list[str]:
    return [namespaces.tool("ip"), "netns", "exec", namespace, *command]


def _start(namespace: str, command: list[str], **options: Any) -> subprocess.Popen[Any]:
    return subprocess.Popen(_within(namespace, command), **options)


def _load(tab: ChromiumTab, link: str) -> None:
    """A browser drops what it loads when an address of its host becomes usable meanwhile."""
    for _ in range(5):
        tab.complaints.clear()
        tab.visit("about:blank")  # the same address again, with a fragment, loads nothing
        tab.visit(link)
        with contextlib.suppress(AssertionError):
            tab.until("globalThis.icePunch", 5)
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
        # Without a default route Chromium names its wildcard address, which is of no use.
        ip(f"-n {there.namespace} -6 route add default dev lan0")
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


def test_a_name_that_a_browser_gives_for_its_address_is_resolved_and_used(tmp_path: Path) -> None:
    with _on_a_lan(ONLY_ANSWERS, tmp_path) as (tab, listener):
        tab.connected()
        named = [e["address"] for e in listener.events if e.get("side") == "remote"]
        assert named
        assert all(".local:" in name for name in named)
        path = listener.event("connected")["path"]
        assert path["remote"].startswith(f"{THERE}:")
        assert path["remote_type"] == "host"


def test_that_there_is_no_path_is_said_on_both_sides(tmp_path: Path) -> None:
    nothing = ONLY_ANSWERS.replace("udp dport != 5353 udp sport != 5353 ct state new ", "")
    with _on_a_lan(nothing, tmp_path) as (tab, listener):
        said = tab.title("No path was found", timeout=40)
        assert "the networks let nothing through, and no relay helped." in said
        assert "no path to this side was found" in listener.event("error")["message"]
        assert listener.exit_code() == 1
