"""Tabs of real browsers, Chromium by Playwright and Firefox by WebDriver BiDi, in one shape.

A browser may run inside a network namespace: ``where`` is what its command line begins with.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shlex
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from base64 import b64decode
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.browser import BINARY, FLAGS

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

FIREFOX = "/usr/bin/firefox-esr"
LOOPBACK = "--allow-loopback-in-peer-connection"
"""With the microphone permitted, Chromium then gathers 127.0.0.1: tabs on one machine."""


class Navigated(AssertionError):
    """The page went elsewhere, or was loaded again, while it was asked."""


class Tab(ABC):
    """A page that is open. ``complaints`` are of its console and of its scripts."""

    complaints: list[str]

    @abstractmethod
    def visit(self, url: str) -> None: ...

    @abstractmethod
    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; of a promise, what it resolves to.

        Raises Navigated."""

    @abstractmethod
    def choose(self, selector: str, files: Sequence[Path]) -> None:
        """Files for an ``<input type=file>``."""

    @abstractmethod
    def screenshot(self, file: Path) -> None: ...

    @abstractmethod
    def close(self) -> None:
        """As a user closes a tab: the page hears of it."""

    def click(self, selector: str) -> None:
        self.until(f"!document.querySelector({json.dumps(selector)})?.matches(':disabled')")
        self.evaluate(f"void document.querySelector({json.dumps(selector)}).click()")

    def say(self, text: str) -> None:
        """A chat line, as a user sends it."""
        script = f"""(() => {{
          document.querySelector('#line').value = {json.dumps(text)};
          document.querySelector('#send').click();
        }})()"""
        self.until("!document.querySelector('#send').disabled")
        self.evaluate(script)

    def text(self, selector: str) -> str:
        return str(
            self.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")
        )

    def until(self, condition: str, timeout: float = 30.0) -> None:
        """Wait for an expression to be true; fail with what the page shows."""
        deadline = time.monotonic() + timeout
        while not self._holds(condition):
            if time.monotonic() > deadline:
                shown = self.text("body")
                raise AssertionError(f"never: {condition}\n{shown}\n{self.complaints}")
            time.sleep(0.05)

    def _holds(self, condition: str) -> bool:
        try:
            return bool(self.evaluate(f"Boolean({condition})"))
        except Navigated:
            return False

    def title(self, *titles: str, timeout: float = 30.0) -> str:
        """Wait until the page's state is one of ``titles``; the state with its detail."""
        wanted = json.dumps(titles)
        self.until(f"{wanted}.includes(document.querySelector('#title')?.textContent)", timeout)
        return self.text("#state-card [role=status]")

    def connected(self, timeout: float = 30.0) -> None:
        self.until("globalThis.icePunch?.stage === 'connected'", timeout)


Opener = Callable[[], Tab]


class ChromiumTab(Tab):
    def __init__(self, context: BrowserContext) -> None:
        self._context = context
        self.page: Page = context.new_page()
        self.complaints = []
        self.requests: list[str] = []
        self.page.on("console", lambda said: self.complaints.append(f"{said.type}: {said.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def visit(self, url: str) -> None:
        self.page.goto(url)

    def evaluate(self, expression: str) -> Any:
        from playwright.sync_api import Error

        try:
            return self.page.evaluate(expression)
        except Error as error:
            if "Execution context was destroyed" in error.message:
                raise Navigated(error.message) from None
            raise

    def choose(self, selector: str, files: Sequence[Path]) -> None:
        self.page.set_input_files(selector, [str(file) for file in files])

    def screenshot(self, file: Path) -> None:
        self.page.screenshot(path=file, full_page=True)

    def close(self) -> None:
        self.page.close(run_before_unload=True)

    def leave(self) -> None:
        """Without a word to the page."""
        self._context.close()


@contextlib.contextmanager
def chromium_tabs(where: Sequence[str] = (), *flags: str) -> Iterator[Callable[..., ChromiumTab]]:
    """Opens tabs of one Chromium. Skips the test where it or Playwright is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    if not Path(BINARY).exists():
        pytest.skip(f"no browser at {BINARY}: apt-get install chromium")
    with tempfile.TemporaryDirectory() as directory, playwright.sync_playwright() as driver:
        script = Path(directory) / "chromium"
        script.write_text(f'#!/bin/sh\nexec {shlex.join(where)} {BINARY} "$@"\n')
        script.chmod(0o755)
        browser = driver.chromium.launch(executable_path=str(script), args=[*FLAGS, *flags])

        def open_tab(*, dark: bool = False, width: int = 1280) -> ChromiumTab:
            context = browser.new_context(
                ignore_https_errors=True,
                color_scheme="dark" if dark else "light",
                viewport={"width": width, "height": 900},
                permissions=["microphone"] if LOOPBACK in flags else [],
            )
            context.set_default_timeout(20_000)
            return ChromiumTab(context)

        yield open_tab
        browser.close()


class FirefoxTab(Tab):
    def __init__(self, bidi: Bidi, context: str) -> None:
        self._bidi = bidi
        self._context = context
        self._complained = len(bidi.complaints)

    @property
    def complaints(self) -> list[str]:  # type: ignore[override]
        return self._bidi.complaints[self._complained :]

    def visit(self, url: str) -> None:
        self._call("browsingContext.navigate", url=url, wait="complete")

    def evaluate(self, expression: str) -> Any:
        # JSON carries any value in one string.
        wrapped = f"(async () => JSON.stringify((await ({expression})) ?? null))()"
        answer = self._bidi.call(
            "script.evaluate",
            expression=wrapped,
            target={"context": self._context},
            awaitPromise=True,
        )
        if answer["type"] != "success":
            raise AssertionError(f"{expression}: {answer['exceptionDetails']['text']}")
        return json.loads(answer["result"]["value"])

    def choose(self, selector: str, files: Sequence[Path]) -> None:
        nodes = self._call(
            "browsingContext.locateNodes", locator={"type": "css", "value": selector}
        )["nodes"]
        element = {"sharedId": nodes[0]["sharedId"]}
        self._call("input.setFiles", element=element, files=[str(file) for file in files])

    def screenshot(self, file: Path) -> None:
        taken = self._call("browsingContext.captureScreenshot", origin="document")
        file.write_bytes(b64decode(taken["data"]))

    def close(self) -> None:
        self._call("browsingContext.close")

    def _call(self, method: str, **parameters: Any) -> Any:
        return self._bidi.call(method, context=self._context, **parameters)


class Bidi:
    """A WebDriver BiDi session over a WebSocket."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._last = 0
        self.complaints: list[str] = []

    def call(self, method: str, **parameters: Any) -> Any:
        self._last += 1
        self._connection.send(
            json.dumps({"id": self._last, "method": method, "params": parameters})
        )
        while True:
            message = json.loads(self._connection.recv(timeout=60))
            if message.get("method") == "log.entryAdded":
                entry = message["params"]
                self.complaints.append(f"{entry['level']}: {entry['text']}")
            elif message.get("id") == self._last:
                if message["type"] == "error":
                    raise AssertionError(f"{method}: {message['error']}: {message['message']}")
                return message["result"]


PREFERENCES = {
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "toolkit.telemetry.enabled": False,
    "app.update.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "network.dns.disablePrefetch": True,
    "browser.safebrowsing.malware.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "extensions.update.enabled": False,
    "services.settings.server": "data:,",
    "media.gmp-manager.url": "data:,",
}


@contextlib.contextmanager
def firefox_tabs(
    where: Sequence[str] = (),
    into: Callable[[], contextlib.AbstractContextManager[Any]] | None = None,
) -> Iterator[Callable[[], FirefoxTab]]:
    """Opens tabs of one Firefox; ``into()`` enters the namespace that it runs in.

    It finds no address without a default route that leaves by another interface than ``lo``.
    """
    if not Path(FIREFOX).exists():
        pytest.skip(f"no browser at {FIREFOX}: apt-get install firefox-esr")
    from websockets.sync.client import connect

    with tempfile.TemporaryDirectory() as profile:
        lines = [f'user_pref("{k}", {json.dumps(v)});' for k, v in PREFERENCES.items()]
        (Path(profile) / "user.js").write_text("\n".join(lines))
        command = [*where, FIREFOX, "--headless", "--no-remote", "--profile", profile]
        process = subprocess.Popen(
            [*command, "--remote-debugging-port", "0"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "HOME": profile, "MOZ_DISABLE_CONTENT_SANDBOX": "1"},
            start_new_session=True,
        )
        try:
            host, port = _debugging_address(process)
            with into() if into is not None else contextlib.nullcontext():
                sock = socket.create_connection((host, port))
            url = f"ws://{host}:{port}/session"
            with connect(url, sock=sock, max_size=None, proxy=None) as connection:
                bidi = Bidi(connection)
                bidi.call(
                    "session.new", capabilities={"alwaysMatch": {"acceptInsecureCerts": True}}
                )
                bidi.call("session.subscribe", events=["log.entryAdded"])

                def open_tab() -> FirefoxTab:
                    made = bidi.call("browsingContext.create", type="tab")
                    return FirefoxTab(bidi, made["context"])

                yield open_tab
                with contextlib.suppress(Exception):
                    bidi.call("browser.close")
        finally:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            assert process.stderr is not None
            process.stderr.close()


def _debugging_address(process: subprocess.Popen[bytes]) -> tuple[str, int]:
    assert process.stderr is not None
    said = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if not select.select([process.stderr], [], [], 1)[0]:
            continue
        said += os.read(process.stderr.fileno(), 65536)
        if found := re.search(rb"listening on ws://([\d.]+):(\d+)", said):
            return found[1].decode(), int(found[2])
    raise AssertionError(f"Firefox does not listen: {said[-2000:]!r}")
