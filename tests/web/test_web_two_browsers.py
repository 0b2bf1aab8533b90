"""Chromium in one home and Firefox in another: directly between two NATs that can be punched, and
through a relay where nothing else helps."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from web_support import new_link, no_complaints, served, sha256, tabs_in

from ice_punch.lab.kernel import KernelInternet
from support.browser import artifacts
from support.coturn import Coturn
from support.netns import NETNS
from support.tabs import Tab

pytestmark = [*NETNS, pytest.mark.timeout(180)]

TURN_PORT = 5000
SECRET = "north-star-of-the-relay-0123456789"


@contextmanager
def _two_browsers(net: KernelInternet, url: str, first: str) -> Iterator[tuple[Tab, Tab]]:
    """Both open one link, ``first`` before the other one, which therefore offers."""
    other = {"chromium": "firefox", "firefox": "chromium"}[first]
    link = str(new_link(url))
    with tabs_in(first, net.peer_a) as here, tabs_in(other, net.peer_b) as there:
        one = here()
        one.visit(link)
        one.title("Waiting for the other side")
        two = there()
        two.visit(link)
        one.connected(60)
        two.connected(60)
        assert [t.evaluate("icePunch.channel.offers") for t in (one, two)] == [False, True]
        yield one, two
        assert no_complaints(one.complaints) + no_complaints(two.complaints) == []


def _talk(one: Tab, two: Tab, word: str) -> None:
    for sender, receiver in ((one, two), (two, one)):
        sender.say(word)
        receiver.until(
            f"[...document.querySelectorAll('.theirs')].some((e) => e.innerText.includes('{word}'))"
        )


@pytest.mark.parametrize("first", ["chromium", "firefox"])
def test_two_browsers_meet_directly_and_restart_from_either_side(
    first: str, tmp_path: Path
) -> None:
    with (
        KernelInternet() as net,
        served(net, tmp_path) as (url, _),
        _two_browsers(net, url, first) as (one, two),
    ):
        _talk(one, two, "hello")
        for tab in (one, two):
            tab.until("document.querySelector('#path-kind').textContent === 'direct'")
            before = one.evaluate("icePunch.channel.restarts")
            tab.evaluate("void icePunch.channel.restart()")
            one.until(f"icePunch.channel.restarts === {before + 1}")
            one.evaluate("new Promise((resolve) => setTimeout(resolve, 1200))")
        _talk(one, two, "and again")
        file = tmp_path / "a.bin"
        file.write_bytes(os.urandom(5_000_000))
        two.choose("#pick", [file])
        one.until("document.querySelector('.transfer button')")
        one.click(".transfer button.primary")
        one.until("document.querySelector('.transfer').dataset.state === 'done'", 60)
        assert sha256(file) in one.text(".hash")


def test_two_browsers_that_can_not_be_punched_are_relayed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    with KernelInternet(nat_a="symmetric", nat_b="symmetric") as net:
        address = net.public.address
        relay = Coturn(
            address,
            TURN_PORT,
            users={},
            options=["--use-auth-secret", f"--static-auth-secret={SECRET}"],
            command_prefix=net.public.command([]),
        )
        turn = ("--turn", f"turn:{address}:{TURN_PORT}", "--turn-secret-file", str(secret))
        with (
            relay,
            served(net, tmp_path, *turn) as (url, _),
            _two_browsers(net, url, "chromium") as (one, two),
        ):
            _talk(one, two, "over the relay")
            for tab in (one, two):
                said = tab.title("Connected through a relay")
                assert "No direct way was found" in said
                assert tab.text("#path-kind") == "relayed"
                assert "relayed" in tab.text("#candidates")
            one.screenshot(artifacts(tmp_path) / "page-relayed.png")
