"""At a terminal a line is a datagram."""

from __future__ import annotations

import os
import pty
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest
from cli_support import HERE, listening

from ice_punch.cli.pipe import _for_terminal
from support.commands import PUNCH, Command


class Terminal:
    """A command with a pseudo-terminal as its standard input and output."""

    def __init__(self, *arguments: str) -> None:
        self.controller, terminal = pty.openpty()
        self.process = subprocess.Popen(
            [*PUNCH, *arguments], stdin=terminal, stdout=terminal, stderr=subprocess.PIPE
        )
        os.close(terminal)
        self.shown = b""
        self.errors = b""
        self._threads = [
            threading.Thread(target=target, daemon=True) for target in (self._show, self._listen)
        ]
        for thread in self._threads:
            thread.start()

    def _show(self) -> None:
        try:
            while data := os.read(self.controller, 4096):
                self.shown += data
        except OSError:
            return

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.errors += line

    def type(self, data: bytes) -> None:
        os.write(self.controller, data)

    def until(self, seen: bytes) -> None:
        deadline = time.monotonic() + 30
        while seen not in self.shown + self.errors:
            assert time.monotonic() < deadline, (seen, self.shown, self.errors)
            time.sleep(0.01)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for thread in self._threads:
            thread.join(2)
        os.close(self.controller)
        assert self.process.stderr is not None
        self.process.stderr.close()


@pytest.fixture
def session(server: str) -> Iterator[tuple[Command, Terminal]]:
    with listening(server) as (listener, link):
        terminal = Terminal("connect", link, *HERE)
        try:
            listener.event("connected")
            terminal.until(b"connected: ")
            yield listener, terminal
        finally:
            terminal.close()


def test_lines_are_datagrams(session: tuple[Command, Terminal]) -> None:
    listener, terminal = session
    terminal.type(b"first\nsecond\n")
    listener.received(b"firstsecond")
    listener.send(b"answer")
    terminal.until(b"answer\r\n")
    terminal.type(b"\x03")  # Ctrl-C, as the terminal turns it into a signal
    terminal.process.send_signal(2)
    assert terminal.process.wait(5) == 0
    assert listener.exit_code() == 0
    assert listener.event("closed")["stats"]["datagrams_received"] == 2


def test_a_line_that_is_too_long_is_told_and_ends_nothing(
    session: tuple[Command, Terminal],
) -> None:
    listener, terminal = session
    terminal.type(b"x" * 2000 + b"\n")
    terminal.until(b"warning: not sent: a datagram of 2000 bytes is too large for this path")
    terminal.type(b"short\n")
    listener.received(b"short")
    assert bytes(listener.output) == b"short"


def test_ctrl_d_closes(session: tuple[Command, Terminal]) -> None:
    listener, terminal = session
    terminal.type(b"\x04")
    assert terminal.process.wait(5) == 0
    assert listener.exit_code() == 0


def test_the_peer_does_not_command_the_terminal() -> None:
    assert _for_terminal(b"plain\n") == b"plain\n"
    assert _for_terminal(b"no line end") == b"no line end\n"
    assert _for_terminal("tab\tand naïve".encode()) == "tab\tand naïve\n".encode()
    assert _for_terminal(b"\x1b]0;title\x07") == "\ufffd]0;title\ufffd\n".encode()
    assert _for_terminal(b"\xff") == "\ufffd\n".encode()
