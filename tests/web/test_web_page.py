"""The page at a link: two tabs that meet, and what it says when something is amiss."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from web_support import new_link, no_complaints, serving, sha256

from support.browser import artifacts
from support.commands import PUNCH, Command
from support.tabs import LOOPBACK, ChromiumTab, chromium_tabs

Open = Callable[..., ChromiumTab]
FAR = "--host-resolver-rules=MAP page.test 127.0.0.1"
"""A name that is no loopback name: what it serves over http is no secure context."""

NAMELESS = """[...document.querySelectorAll('button, input, a, textarea, progress, svg, summary')]
  .filter((e) => e.checkVisibility() && !e.innerText?.trim() && !e.getAttribute('aria-label')
    && !e.getAttribute('aria-labelledby') && !(e.labels?.length))
  .map((e) => e.outerHTML)"""
CONTRAST = """(() => {
  const parse = (c) => c.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
  };
  const faint = [];
  for (const e of document.querySelectorAll('h1, h2, p, dt, dd, button, td, th, .status, code')) {
    if (!e.checkVisibility() || !e.innerText.trim() || e.matches(':disabled, .off')) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(ground(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) faint.push([e.innerText, ratio]);
  }
  return faint;
})()"""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serving("--no-stun") as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Open]:
    with chromium_tabs((), LOOPBACK, FAR) as open_tab:
        yield open_tab


@pytest.fixture
def tab(browser: Open) -> Iterator[Open]:
    """Opens tabs that are closed at the end, and held against what their consoles said."""
    tabs: list[ChromiumTab] = []

    def open_tab(url: str, **how: object) -> ChromiumTab:
        tabs.append(browser(**how))
        tabs[-1].visit(url)
        return tabs[-1]

    yield open_tab
    for one in tabs:
        assert no_complaints(one.complaints) == []
        one.leave()


def _two(tab: Open, server: str, **how: object) -> tuple[ChromiumTab, ChromiumTab]:
    link = str(new_link(server))
    first = tab(link, **how)
    first.title("Waiting for the other side")
    second = tab(link)
    first.connected()
    second.connected()
    return first, second


def test_two_tabs_meet_and_talk(tab: Open, server: str, tmp_path: Path) -> None:
    first, second = _two(tab, server)
    assert first.evaluate("icePunch.channel.offers") is False
    assert second.evaluate("icePunch.channel.offers") is True
    first.say("good morning <b>&amp;</b>")
    second.say("and to you")
    for one, word in ((second, "good morning <b>&amp;</b>"), (first, "and to you")):
        one.until(f"document.querySelector('#log').innerText.includes({json.dumps(word)})")
        one.until("document.querySelector('tr.selected')")
        assert one.text("#path-kind") == "direct"
        assert one.text("tr.selected td") == "in use"
        assert int(one.text("#candidates-count")) >= 2
    first.screenshot(artifacts(tmp_path) / "page-desktop.png")


def test_every_request_goes_to_the_server_of_the_link(tab: Open, server: str) -> None:
    one = tab(str(new_link(server)))
    one.title("Waiting for the other side")
    assert len(one.requests) > 5
    assert all(url.startswith(server) for url in one.requests)
    assert all("#" not in url.partition(server)[2] or "/j/" in url for url in one.requests)


def test_files_go_both_ways_once_somebody_says_yes(tab: Open, server: str, tmp_path: Path) -> None:
    first, second = _two(tab, server)
    for sender, receiver, name in ((first, second, "a.bin"), (second, first, "b.bin")):
        file = tmp_path / name
        file.write_bytes(name.encode() * 400_000)
        sender.choose("#pick", [file])
        receiver.until(f"document.querySelector('.name')?.innerText === '{name}'")
        assert "wants to send this, 2.0 MB" in receiver.text(".transfer")
        receiver.click(".transfer:first-child button.primary")
        receiver.until("document.querySelector('.transfer').dataset.state === 'done'")
        with receiver.page.expect_download() as download:
            receiver.click(".transfer a[download]")
        assert sha256(Path(download.value.path())) == sha256(file)
        assert download.value.suggested_filename == name
        sender.until("document.querySelector('.transfer').dataset.state === 'done'")
        assert sha256(file) in sender.text(".transfer .hash")


def test_a_file_can_be_declined_and_cancelled(tab: Open, server: str, tmp_path: Path) -> None:
    first, second = _two(tab, server)
    file = tmp_path / "no.bin"
    file.write_bytes(bytes(1000))
    first.choose("#pick", [file])
    second.until("document.querySelector('.transfer button')")
    second.click(".transfer button:last-child")
    first.until("document.querySelector('.transfer').dataset.state === 'failed'")
    assert "does not take the file: it was declined." in first.text(".transfer")
    first.choose("#pick", [file])
    second.until("document.querySelectorAll('.transfer').length === 2")
    first.click(".transfer:first-child button")
    second.until("document.querySelector('.transfer').dataset.state === 'failed'")
    assert "withdrawn" in second.text(".transfer")


def test_a_dropped_file_is_sent(tab: Open, server: str) -> None:
    first, second = _two(tab, server)
    first.evaluate(
        """void (() => {
          const dataTransfer = new DataTransfer();
          dataTransfer.items.add(new File(["dropped"], "dropped.txt", {type: "text/plain"}));
          for (const type of ["dragenter", "dragover", "drop"]) {
            document.body.dispatchEvent(new DragEvent(type, {dataTransfer, bubbles: true}));
          }
        })()"""
    )
    second.until("document.querySelector('.name')?.innerText === 'dropped.txt'")


def test_a_tab_that_closes_in_the_middle_of_a_file_is_told(
    tab: Open, browser: Open, server: str, tmp_path: Path
) -> None:
    link = str(new_link(server))
    one = tab(link)
    one.title("Waiting for the other side")
    other = browser()
    other.visit(link)
    other.connected()
    file = tmp_path / "large.bin"
    file.write_bytes(bytes(200_000_000))
    other.choose("#pick", [file])
    one.until("document.querySelector('.transfer button')")
    one.click(".transfer button.primary")
    one.until("document.querySelector('.transfer progress')?.value > 0")
    other.close()
    # A browser may close a tab before its goodbye has left: then silence tells, after a minute.
    said = one.title("The connection has ended", "The connection was lost", timeout=90)
    one.until("document.querySelector('.transfer').dataset.state === 'failed'")
    if "was lost" not in said:
        assert "The other side ended the connection." in said
        assert "broke the file off" in one.text(".transfer")


def test_the_graphs_are_drawn_while_a_test_runs(tab: Open, server: str, tmp_path: Path) -> None:
    first, _ = _two(tab, server)
    first.click("#test")
    for graph in ("#throughput", "#latency"):
        first.until(
            f"document.querySelector('{graph} polyline')?.getAttribute('points').includes(' ')"
        )
    assert first.text("#test") == "Stop the test"
    first.screenshot(artifacts(tmp_path) / "page-test.png")
    first.click("#test")
    first.until("document.querySelector('#test-result').textContent")
    assert "Mbit/s to the other side; round trip" in first.text("#test-result")


def test_diagnostics_are_copied_without_the_link(tab: Open, server: str) -> None:
    first, _ = _two(tab, server)
    first.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    first.until("document.querySelector('tr.selected')")
    first.click("#copy-diagnostics")
    first.until("document.querySelector('#copy-diagnostics').textContent === 'Copied'")
    copied = first.evaluate("navigator.clipboard.readText()")
    for part in ("state    Connected directly", "path     direct", "in use", "connecting"):
        assert part in copied
    room, _, secret = first.evaluate("location.href").partition("/j/")[2].partition("#")
    assert room not in copied
    assert secret not in copied


def test_it_works_by_keyboard(tab: Open, server: str) -> None:
    first, second = _two(tab, server)
    reached = []
    for _ in range(20):
        first.page.keyboard.press("Tab")
        focused = first.evaluate("document.activeElement.id || document.activeElement.tagName")
        reached.append(focused)
        if focused == "line":
            first.page.keyboard.type("by hand")
            first.page.keyboard.press("Enter")
    assert {"copy-diagnostics", "hang-up", "line", "send", "pick", "test"} <= set(reached)
    second.until("document.querySelector('#log').innerText.includes('by hand')")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_fits_a_phone_and_can_be_read(
    tab: Open, server: str, dark: bool, tmp_path: Path
) -> None:
    phone, other = _two(tab, server, width=360, dark=dark)
    other.say("a line " + "without-a-space" * 20)
    phone.say("short")
    phone.until("document.querySelector('#log .theirs')")
    phone.until("document.querySelector('tr.selected')")
    assert phone.evaluate("document.documentElement.scrollWidth") == 360
    small = "[...document.querySelectorAll('button')].filter((b) => b.checkVisibility())"
    assert phone.evaluate(f"Math.min(...{small}.map((b) => b.offsetHeight))") >= 40
    assert phone.evaluate(NAMELESS) == []
    assert phone.evaluate(CONTRAST) == []
    ground = phone.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(ground.split("(")[1].split(",")[0]) < 100) is dark
    phone.screenshot(artifacts(tmp_path) / f"page-phone-{'dark' if dark else 'light'}.png")


def test_a_third_tab_hears_that_two_are_talking(tab: Open, server: str) -> None:
    first, _ = _two(tab, server)
    third = tab(first.evaluate("location.href"))
    assert "it is talking to somebody else." in third.title("The other side said no")
    first.say("still here")


def test_a_reloaded_tab_takes_its_place_again(tab: Open, server: str) -> None:
    first, second = _two(tab, server)
    second.page.reload()
    second.connected()
    first.connected()
    second.say("back again")
    first.until("document.querySelector('#log').innerText.includes('back again')")


def run_here(*arguments: str) -> str:
    done = subprocess.run([*PUNCH, *arguments], capture_output=True, check=True, text=True)
    return done.stdout.strip()


# -- wrong use -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fragment", "words"),
    [
        ("", "The link has no secret: the part after # is missing."),
        ("#AAAA", "The link's secret (after #) is cut off: copy the whole link."),
        ("#" + "B" * 22, "The link's secret (after #) is garbled: copy the whole link."),
        ("#2.abc", "The link is of format 2, which this page does not know."),
    ],
)
def test_a_link_that_does_not_work_is_said(
    tab: Open, server: str, fragment: str, words: str
) -> None:
    one = tab(new_link(server).without_secret + fragment)
    assert words in one.title("This link does not work", timeout=5)


def test_a_wrong_secret_is_said_on_both_sides(tab: Open, server: str) -> None:
    link = new_link(server)
    good = tab(str(link))
    good.title("Waiting for the other side")
    bad = tab(link.without_secret + "#" + "A" * 22)
    assert "is not the other side's" in bad.title("Wrong secret", timeout=10)
    good.until("document.querySelector('#log').innerText.includes('wrong secret')")
    good.title("Waiting for the other side")


def test_a_browser_without_webrtc_is_told(tab: Open, browser: Open, server: str) -> None:
    one = browser()
    one.page.add_init_script("delete window.RTCPeerConnection")
    one.visit(str(new_link(server)))
    assert "This browser has no WebRTC" in one.title("This browser cannot connect", timeout=5)
    assert no_complaints(one.complaints) == []
    one.leave()


def test_a_page_over_plain_http_from_elsewhere_says_what_to_do(tab: Open, server: str) -> None:
    port = server.rpartition(":")[2]
    one = tab(str(new_link(f"http://page.test:{port}")))
    said = one.title("This page cannot encrypt", timeout=5)
    assert "open it over https:// or on localhost." in said


def test_a_link_that_is_used_up_is_said_on_both_sides(
    tab: Open, browser: Open, server: str
) -> None:
    with Command("listen", "--server", server, "--json", "--timeout", "30") as listener:
        link = str(listener.event("listening")["link"])
        once = browser()
        once.visit(link)
        once.connected()
        listener.event("connected")
        listener.interrupt()
        assert listener.exit_code() == 0
        once.title("The connection has ended")
    again = tab(link)
    said = again.title("This link is used up", timeout=5)
    assert "it works only once: ask for a new one." in said
    assert not again.evaluate("document.querySelector('#again').checkVisibility()")
    once.click("#again")
    once.title("This link is used up", timeout=5)
    began = time.monotonic()
    with Command("connect", link, "--json") as connector:
        assert connector.exit_code() == 1
        assert "this link is used up: whoever made it has ended" in str(connector)
    assert time.monotonic() - began < 5
    once.leave()


def test_a_page_waits_for_half_an_hour_and_then_gives_its_seat_back(
    browser: Open, server: str
) -> None:
    one = browser()
    one.page.clock.install()
    one.visit(str(new_link(server)))
    one.title("Waiting for the other side")
    one.page.clock.fast_forward(25_000)
    one.until("document.querySelector('#detail').textContent.includes('may be used up')", 5)
    one.page.clock.fast_forward(30 * 60_000)
    assert "Nobody came within 30 minutes." in one.title("Nobody answered", timeout=5)
    one.click("#again")
    one.title("Waiting for the other side")
    one.leave()


def test_a_server_that_wants_a_token_is_shown_one(browser: Open, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(os.urandom(32))
    with serving("--no-stun", "--auth", "token", "--token-key", str(key)) as url:
        link = str(new_link(url))
        one, two = browser(), browser()
        for each in (one, two):
            each.visit(link)
            said = each.title("This server wants a token", timeout=10)
            assert "enter the one that you were given." in said
        one.page.fill("#token", "of.my.own")
        one.click("#token-form button")
        one.until("document.querySelector('#detail').textContent.includes('refused the token')", 10)
        token = run_here("token", "--key", str(key), "--link", link)
        for each in (one, two):
            each.page.fill("#token", token)
            each.page.press("#token", "Enter")
        one.connected()
        two.connected()
        assert "token" not in one.evaluate("location.href")
        assert not any(token in request for request in one.requests)
        two.page.reload()  # the tab remembers it
        two.connected()
        for each in (one, two):
            assert no_complaints(each.complaints) == []
            each.leave()


def test_a_tab_with_a_wrong_secret_gives_its_seat_back(
    tab: Open, browser: Open, server: str
) -> None:
    with Command("listen", "--server", server, "--json", "--timeout", "30") as listener:
        link = str(listener.event("listening")["link"])
        wrong = browser()
        wrong.visit(link.partition("#")[0] + "#" + "A" * 22)
        wrong.title("Wrong secret", timeout=10)
        right = tab(link)
        right.until("icePunch.stage === 'connected'", 15)


def test_who_hangs_up_is_not_called_again(tab: Open, server: str) -> None:
    first, second = _two(tab, server)
    first.click("#hang-up")
    second.until("icePunch.stage === 'ended'", 10)
    second.click("#again")
    second.title("Waiting for the other side", timeout=10)
    assert first.evaluate("icePunch.stage") == "ended"


def test_a_link_with_all_its_seats_taken_is_said(tab: Open, browser: Open, server: str) -> None:
    with Command("listen", "--server", server, "--json", "--timeout", "20") as listener:
        link = str(listener.event("listening")["link"])
        first = browser()
        first.visit(link)
        first.until("!['entering', 'waiting'].includes(icePunch.stage)")
        second = tab(link)
        said = second.title("Somebody else uses this link", timeout=10)
        assert "in use by as many as it allows" in said
        first.leave()


def test_a_server_that_goes_away_does_not_end_the_session(tab: Open, tmp_path: Path) -> None:
    with serving("--no-stun") as url:
        first, second = _two(tab, url)
    first.until("!document.querySelector('#server-note').hidden")
    assert "The connection itself does not need it." in first.text("#server-note")
    with serving("--no-stun", "--port", url.rpartition(":")[2]):  # it knows nobody
        first.until("document.querySelector('#server-note').hidden", 40)
        first.evaluate("new Promise((resolve) => setTimeout(resolve, 500))")
        assert first.evaluate("icePunch.stage") == "connected"
    first.until("!document.querySelector('#server-note').hidden")
    first.say("without a server")
    second.until("document.querySelector('#log').innerText.includes('without a server')")
    first.click("#hang-up")
    assert "You ended the connection." in first.title("Not connected")
    second.title("The connection has ended", timeout=10)
    # That the server can not be reached is what the console is for.
    for one in (first, second):
        one.complaints[:] = [c for c in one.complaints if "WebSocket connection" not in c]


# -- the other side misbehaves -------------------------------------------------------------------

LIE = """(() => {
  const own = Object.getOwnPropertyDescriptor(RTCPeerConnection.prototype, "localDescription").get;
  Object.defineProperty(RTCPeerConnection.prototype, "localDescription", {
    get() { const {type, sdp} = own.call(this); return {type, sdp: (LIE)(sdp)}; },
  });
})()"""


@pytest.mark.parametrize(
    ("lie", "title", "words", "there"),
    [
        (
            "(sdp) => sdp.replace(/(a=fingerprint:sha-256 )..:../, '$100:00')",
            "The connection was lost",
            "a certificate is not the one that was described.",
            "a certificate is not the one that was described.",
        ),
        (
            "(sdp) => sdp.replace('m=application', 'm=text')",
            "The other side said no",
            "The other side described no data channel.",
            "could not use what this side described.",
        ),
        (
            "(sdp) => 'v=0\\r\\nm=application nonsense\\r\\n'",
            "The other side said no",
            "This browser could not use what the other side described",
            "could not use what this side described.",
        ),
    ],
    ids=["another certificate", "no data channel", "no description"],
)
def test_a_lie_in_the_description_ends_in_a_sentence_on_both_sides(
    tab: Open, browser: Open, server: str, lie: str, title: str, words: str, there: str
) -> None:
    link = str(new_link(server))
    honest = tab(link)
    honest.title("Waiting for the other side")
    liar = browser()
    liar.page.add_init_script(LIE.replace("LIE)", lie + ")"))
    liar.visit(link)
    assert words in honest.title(title, timeout=20)
    liar.until("icePunch.stage === 'ended'", 20)
    assert there in liar.text("#detail")
    liar.leave()


def test_a_message_too_large_for_the_other_side_is_refused_here(tab: Open, server: str) -> None:
    first, _ = _two(tab, server)
    told = first.evaluate(
        "(() => { try { icePunch.channel.sendMessage('x'.repeat(5e8 / 100)); return null; }"
        " catch (error) { return [error.code, error.message]; } })()"
    )
    assert told[0] == "too-large"
    assert "The message has 5000000 bytes; the other side takes at most" in told[1]
    first.say("small")


def test_a_program_that_does_not_speak_webrtc_is_said_on_both_sides(tab: Open, server: str) -> None:
    # Without encryption there is no WebRTC: the page's offer is refused, its answer never made.
    with Command("listen", "--server", server, "--no-encrypt", "--json") as listener:
        one = tab(str(listener.event("listening")["link"]))
        said = one.title("The other side said no", timeout=20)
        assert "The other side refused: " in said
    link = str(new_link(server))
    two = tab(link)
    two.title("Waiting for the other side")
    with Command("connect", link, "--no-encrypt", "--json") as connector:
        said = two.title("The other side said no", timeout=20)
        assert "The other side does not speak WebRTC data channels" in said
        assert connector.exit_code() != 0
        assert "a browser needs WebRTC data channels" in str(connector)
