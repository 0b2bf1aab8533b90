"""The page against Python programs, in real Chromium and Firefox: each in a home behind a kernel
NAT, the signaling server in public with TLS and STUN."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from web_support import Robot, Town, new_link, no_complaints, sha256, town

from support.browser import artifacts
from support.netns import NETNS
from support.tabs import Tab

pytestmark = [*NETNS, pytest.mark.timeout(240)]

FILE_SIZE = 50_000_000
RATE, SECONDS = 200, 10
WRONG = "#" + "A" * 22
SEND_DATAGRAMS = """(async (rate, count) => {
  const {channel} = globalThis.icePunch;
  const began = performance.now();
  for (let sent = 0; sent < count; ) {
    const due = Math.min(count, Math.floor((performance.now() - began) * rate / 1000));
    for (; sent < due; sent++) {
      const view = new DataView(new ArrayBuffer(8));
      view.setBigUint64(0, BigInt(sent));
      channel.sendDatagram(view.buffer);
    }
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
})"""

KEEP_BLOBS = """void (() => {
  const make = URL.createObjectURL;
  URL.createObjectURL = (blob) => make.call(URL, globalThis.saved = blob);
})()"""
DIGEST = """(async (blob) => {
  const digest = await crypto.subtle.digest("SHA-256", await blob.arrayBuffer());
  return [...new Uint8Array(digest)].map((b) => b.toString(16).padStart(2, "0")).join("");
})"""


@pytest.fixture(params=["chromium", "firefox"], scope="module")
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Town]:
    with town(request.param, tmp_path_factory.mktemp("tls")) as made:
        made.browser = request.param
        yield made


def _chat(tab: Tab, robot: Robot, word: str) -> None:
    tab.say(f"{word} from the tab")
    assert robot.next("message")["text"] == f"{word} from the tab"
    robot.do("say", text=f"{word} from the robot")
    tab.until(f"document.querySelector('#log').innerText.includes('{word} from the robot')")


def _files(tab: Tab, robot: Robot, directory: Path, size: int = FILE_SIZE) -> None:
    there, here = directory / "to-robot.bin", directory / "to-tab.bin"
    (directory / "received").mkdir(exist_ok=True)
    for file in (there, here):
        file.write_bytes(os.urandom(size))
    tab.choose("#pick", [there])
    arrived = robot.next("file", 100)
    assert arrived["sha256"] == sha256(there) == sha256(Path(arrived["path"]))
    tab.evaluate(KEEP_BLOBS)
    robot.do("send", path=str(here))
    tab.until("[...document.querySelectorAll('.name')].some((e) => e.innerText === 'to-tab.bin')")
    tab.click(".transfer:first-child button.primary")
    tab.until("document.querySelector('.transfer:first-child progress')?.value > 0")
    assert robot.next("sent", 100)["sha256"] == sha256(here)
    tab.until("document.querySelector('.transfer:first-child').dataset.state === 'done'")
    assert sha256(here) in tab.text(".transfer:first-child .hash")
    # What a user would save is what was sent, as WebCrypto sees it.
    assert tab.evaluate(f"{DIGEST}(saved)") == sha256(here)


def _stream(tab: Tab, robot: Robot) -> None:
    count = RATE * SECONDS
    tab.evaluate(
        "void (globalThis.got = new Set(), icePunch.channel.addEventListener('datagram',"
        " ({data}) => got.add(new DataView(data).getBigUint64(0))))"
    )
    robot.do("stream", rate=RATE, seconds=SECONDS)
    tab.evaluate(f"{SEND_DATAGRAMS}({RATE}, {count})")
    assert robot.next("streamed")["count"] == count
    time.sleep(0.5)
    robot.do("count")
    assert robot.next("count")["received"] >= 0.98 * count
    assert tab.evaluate("got.size") >= 0.98 * count


def _pull_the_cable(town: Town, tab: Tab, robot: Robot) -> None:
    before = tab.evaluate("icePunch.channel.restarts")
    with town.cable_pulled():
        time.sleep(4)
    tab.until(f"icePunch.channel.restarts > {before}", 60)
    tab.connected(30)
    _chat(tab, robot, "after the cable")


def _listening(place: Town, directory: Path) -> tuple[Robot, str]:
    robot = place.robot("listen", place.url, directory)
    return robot, str(robot.next("link")["link"])


def test_a_whole_session_of_a_page_that_opens_a_programs_link(place: Town, tmp_path: Path) -> None:
    robot, link = _listening(place, tmp_path)
    with robot:
        tab = place.open_tab()
        tab.visit(link)
        assert tab.title("Connected directly")
        assert tab.evaluate("icePunch.channel.offers") is True
        assert robot.next("connected")["path"] == "direct"
        _chat(tab, robot, "hello")
        _files(tab, robot, tmp_path)
        _stream(tab, robot)
        _pull_the_cable(place, tab, robot)
        tab.until("document.querySelector('tr.selected')")
        assert place.net.peer_b.public_address in tab.text("#path-addresses")
        assert tab.text("#path-kind") == "direct"
        shot = artifacts(tmp_path) / f"page-{place.browser}.png"
        tab.screenshot(shot)
        assert shot.stat().st_size > 20_000
        assert no_complaints(tab.complaints) == []
        tab.close()
        robot.next("ended", 10)


def test_a_page_that_is_there_first_answers_the_program(place: Town, tmp_path: Path) -> None:
    link = str(new_link(place.url))
    tab = place.open_tab()
    tab.visit(link)
    tab.title("Waiting for the other side")
    with place.robot("connect", link, tmp_path) as robot:
        tab.connected()
        assert tab.evaluate("icePunch.channel.offers") is False
        robot.next("connected")
        _chat(tab, robot, "good morning")
        # One browser is enough for the whole size: it is the same code on either side.
        _files(tab, robot, tmp_path, FILE_SIZE if place.browser == "chromium" else FILE_SIZE // 5)
        _stream(tab, robot)
        _pull_the_cable(place, tab, robot)
        robot.do("close")
        assert "The other side ended the connection." in tab.title("The connection has ended")
    assert no_complaints(tab.complaints) == []
    tab.close()


def test_a_wrong_secret_is_refused_and_said_on_both_sides(place: Town) -> None:
    """The link of ``ice-punch listen`` has two seats: whoever is refused must give one back."""
    with place.command("listen", "--server", place.url) as listener:
        link = str(listener.event("listening")["link"])
        bad = place.open_tab()
        bad.visit(link.partition("#")[0] + WRONG)
        said = bad.title("Wrong secret")
        assert "is not the other side's: copy the whole link again." in said
        listener.until(lambda: "a peer with a wrong secret" in str(listener), 10, "refusal")
        good = place.open_tab()
        good.visit(link)
        good.connected()
        listener.event("connected")
        for tab in (bad, good):
            assert no_complaints(tab.complaints) == []
            tab.close()


def test_a_program_with_a_wrong_secret_is_refused_by_a_page_and_told(place: Town) -> None:
    link = str(new_link(place.url))
    tab = place.open_tab()
    tab.visit(link)
    tab.title("Waiting for the other side")
    with place.command("connect", link.partition("#")[0] + WRONG) as wrong:
        assert wrong.exit_code() == 1
        assert wrong.event("error")["error"] == "WrongSecret"
        assert "does not have this link's secret" in str(wrong)
    tab.until("document.querySelector('#log').innerText.includes('wrong secret')")
    tab.title("Waiting for the other side")
    with place.command("connect", link) as right:
        right.event("connected")
        tab.connected()
    assert no_complaints(tab.complaints) == []
    tab.close()


def test_a_tab_that_closes_in_the_middle_of_a_file_leaves_nothing(
    place: Town, tmp_path: Path
) -> None:
    received = tmp_path / "received"
    received.mkdir()
    robot, link = _listening(place, received)
    with robot:
        tab = place.open_tab()
        tab.visit(link)
        tab.connected()
        file = tmp_path / "large.bin"
        file.write_bytes(bytes(FILE_SIZE))
        tab.choose("#pick", [file])
        tab.until("document.querySelector('.transfer progress')?.value > 0")
        tab.close()
        # A tab may die without a word: then lost consent tells, after 30 s (RFC 7675).
        either = {"file-failed", "ended"}
        told = {event["event"]: event for event in (robot.next(either, 45), robot.next(either, 45))}
        assert told.keys() == either
        assert told["file-failed"]["name"] == "large.bin"
        assert told["file-failed"]["why"]
        assert list(received.iterdir()) == []
