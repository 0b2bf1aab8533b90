"""The module `ice-punch.js` in a page of another origin: listen, connect, meet, what goes wrong."""

from __future__ import annotations

import functools
import http.server
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from web_support import ROOT, new_link, no_complaints, serving

from signaling.link import Link
from support.tabs import LOOPBACK, ChromiumTab, chromium_tabs

DOCS = ROOT / "docs" / "reference" / "javascript.md"
WEB = ROOT / "signaling" / "web"
PAGE = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><script type="module">
globalThis.punch = await import("SERVER/web/ice-punch.js");
</script>"""

Open = Callable[[], ChromiumTab]


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A web server that has nothing to do with signaling."""
    directory = tmp_path_factory.mktemp("site")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None: ...

    handler = functools.partial(Quiet, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{site.server_address[1]}", directory
        site.shutdown()


@pytest.fixture(scope="module")
def server(origin: tuple[str, Path]) -> Iterator[str]:
    with serving("--no-stun", "--origin", origin[0]) as url:
        (origin[1] / "index.html").write_text(PAGE.replace("SERVER", url))
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Open]:
    with chromium_tabs((), LOOPBACK) as open_tab:
        yield open_tab


@pytest.fixture
def pages(browser: Open, server: str, origin: tuple[str, Path]) -> Iterator[list[ChromiumTab]]:
    tabs = [browser(), browser()]
    for tab in tabs:
        tab.visit(origin[0])
        tab.until("globalThis.punch")
    yield tabs
    for tab in tabs:
        assert no_complaints(tab.complaints) == []
        tab.leave()


def _listens(page: ChromiumTab, server: str) -> str:
    return str(
        page.evaluate(
            f"""punch.listen("{server}").then((listener) => {{
              globalThis.listener = listener;
              globalThis.accepted = listener.accept().then((c) => {{
                globalThis.heard = [];
                for (const type of ["datagram", "message"]) {{
                  c.addEventListener(type, ({{data}}) => heard.push([type, data]));
                }}
                c.addEventListener("file", async ({{detail}}) => {{
                  globalThis.file = await detail.accept();
                }});
                c.addEventListener("datachannel", ({{detail}}) => {{
                  detail.onmessage = ({{data}}) => detail.send(data + "!");
                }});
                return globalThis.channel = c;
              }});
              return listener.link;
            }})"""
        )
    )


def test_one_page_listens_and_another_connects(pages: list[ChromiumTab], server: str) -> None:
    one, other = pages
    link = _listens(one, server)
    assert Link.parse(link).server.port == int(server.rpartition(":")[2])
    assert (
        other.evaluate(f"punch.connect('{link}').then((c) => (globalThis.channel = c).state)")
        == "connected"
    )
    assert one.evaluate("accepted.then((c) => [c.state, c.offers])") == ["connected", False]
    other.evaluate("void (channel.sendMessage('m'), channel.sendDatagram('d'))")
    one.until("heard.length === 2")
    assert sorted(one.evaluate("heard")) == [["datagram", "d"], ["message", "m"]]
    sent = other.evaluate("channel.sendFile(new Blob(['some text']), {name: '../a.txt'})")
    assert sent["size"] == 9
    one.until("globalThis.file")
    assert one.evaluate("file.blob.text()") == "some text"
    assert one.evaluate("file.sha256") == sent["sha256"]
    assert (
        other.evaluate(
            """new Promise((resolve) => {
          const own = channel.createDataChannel("own", {protocol: "mine"});
          own.onopen = () => own.send("echo");
          own.onmessage = ({data}) => resolve(data);
        })"""
        )
        == "echo!"
    )
    assert other.evaluate("channel.stats().then((s) => s.path.kind)") == "direct"
    other.evaluate("void channel.close()")
    one.until("channel.state === 'closed'", 5)
    assert one.evaluate("channel.error.code") == "closed"
    assert other.evaluate("channel.error") is None


def test_a_restart_that_is_asked_for_leaves_the_session_whole(
    pages: list[ChromiumTab], server: str
) -> None:
    one, other = pages
    link = _listens(one, server)
    other.evaluate(f"punch.connect('{link}').then((c) => void (globalThis.channel = c))")
    one.until("globalThis.channel")
    for page in (one, other):  # who answers asks for the offer
        before = page.evaluate("channel.restarts")
        page.evaluate("void channel.restart()")
        page.until(f"channel.restarts === {before + 1}")
        page.until("channel.pc.signalingState === 'stable'")
        other.evaluate("new Promise((resolve) => setTimeout(resolve, 1100))")
    other.evaluate("void channel.sendMessage('whole')")
    one.until("heard.length === 1")


def test_a_measurement_has_readings_of_both_kinds(pages: list[ChromiumTab], server: str) -> None:
    one, other = pages
    link = str(new_link(server))
    for page in pages:
        page.evaluate(f"void (globalThis.met = punch.meet('{link}'))")
    summary = other.evaluate(
        "met.then((c) => punch.measure(c, {seconds: 2.5})).then((r) => ({...r.summary,"
        " rates: r.rates.length, latencies: r.latencies.length}))"
    )
    assert summary["megabits"] > 1
    assert 0 < summary["received"] <= summary["sent"]
    assert summary["rates"] >= 2
    assert summary["latencies"] >= 5
    assert summary["median"] <= summary["worst"]
    one.evaluate("met.then((c) => c.close())")


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ("punch.connect('nonsense')", "invalid-link"),
        ("punch.connect('LINK', {timeout: 0.5})", "nobody-there"),
        ("punch.meet('LINK', {timeout: 0.5})", "nobody-there"),
        ("punch.listen('http://127.0.0.1:1')", "unreachable"),
    ],
)
def test_what_goes_wrong_has_a_code_and_a_sentence(
    pages: list[ChromiumTab], server: str, call: str, code: str
) -> None:
    call = call.replace("LINK", str(new_link(server)))
    told = pages[0].evaluate(
        f"{call}.then(() => null, (e) => [e instanceof punch.IcePunchError, e.code, e.message])"
    )
    assert told[:2] == [True, code]
    assert re.fullmatch(r"[A-Z][^\n]*\.|http\S+ [^\n]*\.", told[2]), told[2]
    if code == "unreachable":
        pages[0].complaints.clear()  # the browser itself says so


def test_an_abort_signal_ends_the_waiting(pages: list[ChromiumTab], server: str) -> None:
    link = str(new_link(server))
    told = pages[0].evaluate(
        f"punch.meet('{link}', {{signal: AbortSignal.timeout(200)}}).catch((e) => e.name)"
    )
    assert told == "TimeoutError"


def test_a_page_of_an_origin_that_is_not_allowed_is_told(
    browser: Open, origin: tuple[str, Path]
) -> None:
    with serving("--no-stun") as closed:
        (origin[1] / "other.html").write_text(PAGE.replace("SERVER", closed))
        tab = browser()
        tab.visit(f"{origin[0]}/other.html")
        tab.until("globalThis.punch")
        told = tab.evaluate(f"punch.listen('{closed}').catch((e) => [e.code, e.message])")
        assert told[0] == "refused"
        assert "pages of this origin may not connect here" in told[1]
        tab.leave()


def test_the_reference_names_what_the_module_has(pages: list[ChromiumTab]) -> None:
    text = DOCS.read_text("utf-8")
    for name in pages[0].evaluate("Object.keys(punch)"):
        assert f"`{name}" in text or f"{name}(" in text, name
    source = "".join(
        (WEB / name).read_text("utf-8")
        for name in (
            "channel.js",
            "sentences.js",
            "arrivals.js",
            "files.js",
            "link.js",
            "room.js",
            "signaling.js",
            "ice-punch.js",
        )
    )
    codes = set(re.findall(r'IcePunchError\(\s*"([a-z-]+)"', source)) | {"invalid-link"}
    documented = set(re.findall(r"^\| `([a-z-]+)` \|", text.partition("## Errors")[2], re.M))
    assert codes == documented - {"code"}
    events = set(re.findall(r'(?:#pass|Event)\(\s*"([a-z]+)"', source))
    for event in events:
        assert f"`{event}`" in text, event
    members = pages[0].evaluate(
        "Object.getOwnPropertyNames(punch.Channel.prototype).filter((n) => n !== 'constructor')"
    )
    internal = {"begin", "receive", "peerLeft", "signalingFailed"}
    for member in set(members) - internal:
        assert f"`{member}" in text, member
