"""Where the blocks of a page are run: hosts behind kernel NATs, or this host."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from docs_pages import ROOT, Block

from ice_punch.lab import kernel as netns
from ice_punch.net.interfaces import local_addresses

BLOCK_TIMEOUT = 30.0
READY_TIMEOUT = 20.0
END_TIMEOUT = 5.0
_LINK = re.compile(r"https?://[^\s\"']+/j/[\w-]+#[\w-]+")
_CODE = re.compile(r"--code (\d+-[a-z]+-[a-z]+)")
_BLOB = re.compile(r"icepunch1-(?:offer|answer)\.[\w-]+")
_PLACEHOLDER = re.compile(r"https?://[^\s\"']+/j/\.\.\.#\.\.\.")
_READY = {"serve": ("listen --server", '"serving"'), "listen": (), "connect": ("connected",)}
Start = Callable[..., "subprocess.Popen[bytes]"]


class Terminal:
    """A command that runs until the page ends."""

    def __init__(self, script: str, start: Start, directory: Path, until: str | None) -> None:
        self._script = script
        self._start = start
        self._directory = directory
        command = re.findall(r"ice-punch (\w+)", script)
        self._command = command[-1] if command else None
        self._until = until
        self._log = directory / f".terminal{len(list(directory.glob('.terminal*')))}"
        with self._log.open("wb") as log:
            self._process = start(
                ["bash", "-euo", "pipefail", "-c", script],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=directory,
            )

    @property
    def said(self) -> str:
        files = [self._log, *(self._directory / n for n in re.findall(r"2> (\S+)", self._script))]
        return "".join(f.read_text(errors="replace") for f in files if f.exists())

    @property
    def link(self) -> str | None:
        found = _LINK.search(self.said) if self._command == "listen" else None
        return found[0] if found else None

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_TIMEOUT
        while not self._ready():
            assert self._process.poll() is None, f"{self._script} ended: {self.said}"
            assert time.monotonic() < deadline, f"{self._script} said only: {self.said}"
            time.sleep(0.05)

    def _ready(self) -> bool:
        if self._until is not None:
            probe = ["bash", "-c", f"exec 2> /dev/null; : > /dev/tcp/{self._until}"]
            return self._start(probe).wait(READY_TIMEOUT) == 0
        if "--manual" in self._script:
            return _BLOB.search(self.said) is not None
        if "listen --code" in self._script:
            return _CODE.search(self.said) is not None
        if self._command == "listen":
            return self.link is not None
        return any(text in self.said for text in _READY[self._command or ""])

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGINT)
        try:
            self._process.wait(END_TIMEOUT)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()


class World:
    """The hosts of one page."""

    def __init__(self, hosts: dict[str, Start], directory: Path) -> None:
        self._hosts = hosts
        self._directory = directory
        self._terminals: list[Terminal] = []
        self._default_server: Terminal | None = None
        programs = directory.parent / "bin"
        programs.mkdir()
        program = programs / "ice-punch"
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m ice_punch "$@"\n')
        program.chmod(0o755)
        self._environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("ICE_PUNCH_")},
            "PATH": f"{programs}:{os.environ['PATH']}:/usr/sbin:/sbin",
            "PYTHONPATH": str(ROOT),
        }

    def run(self, block: Block) -> None:
        """Raises AssertionError with what was said; leaves out what can not be run here."""
        if block.host not in self._hosts or not self._has_programs(block.text):
            return
        if block.afresh:
            self.close()
        elif block.terminals and "ice-punch serve" in block.text:
            self._close_default_server()
        for name in block.files:
            (self._directory / name).write_bytes(os.urandom(100_000))
        if block.terminals:
            for script in _terminals(block.text):
                self._open_terminal(script, block)
        elif block.language == "python":
            (self._directory / "block.py").write_text(block.text)
            runner = str(Path(__file__).with_name("docs_python.py"))
            self._run_to_end([sys.executable, runner, "block.py"], block)
        else:
            self._run_to_end(["bash", "-euo", "pipefail", "-c", self._filled(block.text)], block)

    def _open_terminal(self, script: str, block: Block) -> None:
        start = self._starter(block.host)
        terminal = Terminal(self._filled(script), start, self._directory, block.until)
        self._terminals.append(terminal)
        terminal.wait_until_ready()
        assert block.shows is None or block.shows in terminal.said, terminal.said

    def serve(self) -> None:
        """Start ``ice-punch serve``; it ends when the page starts its own."""
        start = self._starter("server")
        self._default_server = Terminal("ice-punch serve", start, self._directory, None)
        self._default_server.wait_until_ready()

    def close(self) -> None:
        while self._terminals:
            self._terminals.pop().close()
        self._close_default_server()

    def _close_default_server(self) -> None:
        if self._default_server is not None:
            self._default_server.close()
            self._default_server = None

    def _run_to_end(self, command: list[str], block: Block) -> None:
        output = self._directory / ".output"
        with output.open("wb") as sink:
            process = self._starter(block.host)(
                command,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                cwd=self._directory,
            )
            try:
                exit_code = process.wait(BLOCK_TIMEOUT)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                exit_code = process.wait()
        said = output.read_text(errors="replace")
        assert exit_code == block.exit_code, f"exit code {exit_code}\n{said}{self._all_said()}"
        assert block.shows is None or block.shows in said, said

    def _all_said(self) -> str:
        return "".join(f"\n--- terminal\n{terminal.said}" for terminal in self._terminals)

    def _starter(self, host: str) -> Start:
        start = self._hosts[host]

        def run(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
            return start(command, env=self._environment, **options)

        return run

    def _filled(self, script: str) -> str:
        """With what was said before in place of ``http://.../j/...#...``, codes and offers."""
        said = "".join(terminal.said for terminal in self._terminals)
        if codes := _CODE.findall(said):
            script = _CODE.sub(f"--code {codes[-1]}", script)
        if blobs := _BLOB.findall(said):
            script = script.replace("icepunch1-offer....", blobs[-1])
        links = [terminal.link for terminal in self._terminals if terminal.link]
        assert links or not _PLACEHOLDER.search(script), "no listen command ran before"
        return _PLACEHOLDER.sub(lambda _: links[-1], script)

    def _has_programs(self, script: str) -> bool:
        """Whether what stands at the beginning of the lines is installed."""
        path = self._environment["PATH"]
        names = {line.split()[0] for line in script.splitlines() if line.strip()}
        known = {n for n in names if n in ("curl", "turnserver", "sha256sum", "cmp", "awk")}
        return all(shutil.which(name, path=path) for name in known)


def _terminals(script: str) -> list[str]:
    """Every ``ice-punch`` command with the lines above it."""
    scripts: list[str] = []
    pending: list[str] = []
    for line in script.replace("\\\n", "").splitlines():
        pending.append(line)
        if line.startswith("ice-punch "):
            scripts.append("\n".join(pending))
            pending = []
    return [*scripts, "\n".join(pending)] if pending else scripts


@contextlib.contextmanager
def world(directory: Path) -> Iterator[World]:
    """The hosts ``server``, ``a`` and ``b`` where namespaces can be made; else ``server`` alone,
    which is this host."""
    here = directory / "here"
    here.mkdir()
    if netns.available() is None:
        with netns.KernelInternet() as net:
            hosts: dict[str, Start] = {
                "server": net.public.popen,
                "a": net.peer_a.popen,
                "b": net.peer_b.popen,
            }
            with contextlib.closing(World(hosts, here)) as made:
                yield made
        return
    if not local_addresses():
        pytest.skip("this host has no address but loopback's")
    for kind, port in ((socket.SOCK_STREAM, 8080), (socket.SOCK_DGRAM, 3478)):
        with socket.socket(socket.AF_INET, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                pytest.skip(f"the page needs port {port}, which is taken")

    def start(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, start_new_session=True, **options)

    with contextlib.closing(World({"server": start}, here)) as made:
        yield made
