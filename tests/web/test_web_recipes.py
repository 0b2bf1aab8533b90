"""The recipes of ``docs/howto`` for browsers, as they stand there, on one host of its own."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from web_support import ROOT, no_complaints, sha256

from ice_punch.lab.kernel import KernelHost, KernelInternet
from support.netns import NETNS
from support.tabs import LOOPBACK, ChromiumTab, chromium_tabs

pytestmark = NETNS

HOWTO = ROOT / "docs" / "howto"
LINK = re.compile(r"http://\S+/j/[\w-]+#[\w-]+")


def _block(page: str, language: str, having: str = "") -> str:
    text = (HOWTO / page).read_text("utf-8")
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return next(block for block in blocks if having in block)


class Terminal:
    """Shell commands that run beside the test."""

    def __init__(self, host: KernelHost, script: str, directory: Path) -> None:
        self._log = directory / f".terminal-{time.monotonic_ns()}"
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        }
        with self._log.open("wb") as log:
            self.process = host.popen(
                ["bash", "-euc", script],
                stdout=log,
                stderr=log,
                cwd=directory,
                env=environment,
            )

    @property
    def said(self) -> str:
        return self._log.read_text(errors="replace")

    def until(self, found: Callable[[str], object], timeout: float = 20.0) -> str:
        deadline = time.monotonic() + timeout
        while not found(self.said):
            assert time.monotonic() < deadline, self.said
            time.sleep(0.05)
        return self.said

    def link(self) -> str:
        match = LINK.search(self.until(LINK.search))
        assert match is not None
        return match[0]


@pytest.fixture(scope="module")
def host() -> Iterator[KernelHost]:
    with KernelInternet() as net:
        yield net.public


@pytest.fixture(scope="module")
def open_tab(host: KernelHost) -> Iterator[Callable[[], ChromiumTab]]:
    with chromium_tabs(host.command([]), LOOPBACK) as opener:
        yield opener


@pytest.fixture
def run(host: KernelHost, tmp_path: Path) -> Iterator[Callable[[str], Terminal]]:
    terminals: list[Terminal] = []

    def start(script: str) -> Terminal:
        terminals.append(Terminal(host, script, tmp_path))
        return terminals[-1]

    yield start
    for terminal in terminals:
        terminal.process.kill()
        terminal.process.wait()


def _pages(run: Callable[[str], Terminal], page: str, directory: Path, file: str) -> None:
    (directory / file).write_text(_block(page, "html"))
    serving = run("exec " + _block(page, "sh", "ice-punch serve"))
    serving.until(lambda said: "http://127.0.0.1:8080" in said)
    run("exec " + _block(page, "sh", "http.server"))


def _visit(tab: ChromiumTab, url: str) -> None:
    for attempt in range(50):
        try:
            tab.visit(url)
            return
        except Exception:
            if attempt == 49:
                raise
            time.sleep(0.1)


def test_two_tabs(
    run: Callable[[str], Terminal], open_tab: Callable[[], ChromiumTab], tmp_path: Path
) -> None:
    _pages(run, "two-tabs.md", tmp_path, "two-tabs.html")
    first, second = open_tab(), open_tab()
    _visit(first, "http://localhost:8000/two-tabs.html")
    first.until("location.hash.length > 20")
    second.visit(first.evaluate("location.href"))
    for tab in (first, second):
        tab.until("document.querySelector('#state').textContent === 'Connected.'")
    for tab, other, line in ((first, second, "are you there?"), (second, first, "yes")):
        tab.page.fill("input", line)
        tab.page.click("button")
        other.until(f"document.querySelector('#said').innerText.includes('They: {line}')")
        assert f"You: {line}" in tab.text("#said")
    second.close()
    first.until("document.querySelector('#state').textContent.includes('ended the connection')")
    assert no_complaints(first.complaints) == []
    first.leave()


def test_browser_to_robot(
    run: Callable[[str], Terminal], open_tab: Callable[[], ChromiumTab], tmp_path: Path
) -> None:
    _pages(run, "browser-to-robot.md", tmp_path, "robot.html")
    (tmp_path / "robot.py").write_text(_block("browser-to-robot.md", "python"))
    robot = run("exec python robot.py")
    link = robot.link()
    tab = open_tab()
    _visit(tab, "http://localhost:8000/robot.html")
    tab.page.fill("input[name=link]", link)
    tab.page.click("button")
    tab.until("document.querySelector('#state').textContent === 'Connected.'")
    tab.evaluate("void (document.querySelector('#left').value = '0.5')")
    # The newest wins: any number may be missing.
    robot.until(lambda said: re.search(r"command \d{4}: \+0\.50 \+0\.00", said), 15)
    rates: list[int] = []
    while len(rates) < 20 and max(rates, default=0) < 180:
        time.sleep(1)
        rates.append(int(tab.text("#rate").split()[0]))
    assert max(rates) in range(180, 300), rates
    assert float(tab.text("#position").split(",")[0]) > 0.5
    assert no_complaints(tab.complaints) == []
    tab.close()


def test_a_file_from_a_tab_and_one_to_it(
    run: Callable[[str], Terminal], open_tab: Callable[[], ChromiumTab], tmp_path: Path
) -> None:
    page = "file-from-a-tab.md"
    run("exec " + _block(page, "sh", "ice-punch serve")).until(lambda said: "http://" in said)
    receiving = run(_block(page, "sh", "--files"))
    tab = open_tab()
    tab.visit(receiving.link().replace("127.0.0.1", "localhost"))
    tab.connected()
    file = tmp_path / "photo.jpg"
    for stored in ("photo.jpg", "photo (1).jpg"):
        file.write_bytes(os.urandom(300_000))
        tab.choose("#pick", [file])
        tab.until("document.querySelector('.transfer')?.dataset.state === 'done'")
        tab.evaluate("void document.querySelector('.transfer').remove()")
        receiving.until(re.compile(re.escape(f"received: incoming/{stored}")).search)
        assert sha256(tmp_path / "incoming" / stored) == sha256(file)
    names = sorted(f.name for f in (tmp_path / "incoming").iterdir())
    assert names == ["photo (1).jpg", "photo.jpg"]
    tab.close()

    (tmp_path / "report.pdf").write_bytes(os.urandom(200_000))
    sending = run("exec " + _block(page, "sh", "--send"))
    tab = open_tab()
    tab.visit(sending.link().replace("127.0.0.1", "localhost"))
    tab.until("document.querySelector('.transfer button')")
    tab.click(".transfer button.primary")
    tab.until("document.querySelector('.transfer')?.dataset.state === 'done'")
    assert sha256(tmp_path / "report.pdf") in tab.text(".hash")
    assert sending.process.wait(20) == 0
    assert no_complaints(tab.complaints) == []
    tab.close()
