"""A page whose browser names its addresses by mDNS only: the program finds them out by itself."""

from __future__ import annotations

import contextlib
import subprocess
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
        tab.visit(link)
        with contextlib.suppress(AssertionError):
            tab.until("globalThis.icePunch", 2)
            return
    raise AssertionError(tab.complaints)


def test_a_name_of_mdns_is_resolved_and_its_address_used(tmp_path: Path) -> None:
    cert, key = (authority := Authority(tmp_path)).make("server", x509.IPAddress(ip_address(HERE)))
    tls = ("--tls-cert", str(cert), "--tls-key", str(key), "--no-stun")
    with two_hosts() as (here, there):
        subprocess.run(
            _within(here.namespace, ["nft", "-f", "-"]), input=ONLY_ANSWERS, text=True, check=True
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
            tab.connected()
            named = [e["address"] for e in listener.events if e.get("side") == "remote"]
            assert named
            assert all(".local:" in name for name in named)
            path = listener.event("connected")["path"]
            assert path["remote"].startswith(f"{THERE}:")
            assert path["remote_type"] == "host"
            assert no_complaints(tab.complaints) == []
