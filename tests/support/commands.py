"""``ice-punch`` commands as real processes, watched through their ``--json`` events."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

PUNCH = [sys.executable, "-m", "ice_punch"]
Start = Callable[..., "subprocess.Popen[Any]"]


def start_here(command: list[str], **options: Any) -> subprocess.Popen[Any]:
    return subprocess.Popen(command, **options)


def runs(pid: int) -> bool:
    """Whether a process is there; one that has ended and is not waited for is not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


class Command:
    """One running command: its events, its output, its end."""

    def __init__(
        self,
        *arguments: str,
        start: Start = start_here,
        environment: dict[str, str] | None = None,
        stdin: int = subprocess.PIPE,
    ) -> None:
        self.arguments = arguments
        self.process = start(
            [*PUNCH, *arguments],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **(environment or {})},
        )
        self.events: list[dict[str, Any]] = []
        self.errors: list[str] = []
        self.output = bytearray()
        self._news: queue.Queue[None] = queue.Queue()
        self._readers = [
            threading.Thread(target=target, daemon=True)
            for target in (self._read_stderr, self._read_stdout)
        ]
        for reader in self._readers:
            reader.start()

    def _read_stderr(self) -> None:
        for raw in _lines(self.process.stderr):
            line = raw.decode(errors="replace").rstrip("\n")
            try:
                self.events.append(json.loads(line))
            except json.JSONDecodeError:
                self.errors.append(line)
            self._news.put(None)
        self._news.put(None)

    def _read_stdout(self) -> None:
        stdout = self.process.stdout
        assert stdout is not None
        while chunk := os.read(stdout.fileno(), 65536):
            self.output += chunk
            self._news.put(None)
        self._news.put(None)

    def until(self, found: Callable[[], Any], timeout: float, what: str) -> Any:
        """Wait for ``found()`` to be true; fail with everything the command said."""
        deadline = time.monotonic() + timeout
        while not (result := found()):
            remaining = deadline - time.monotonic()
            alive = self.process.poll() is None or any(r.is_alive() for r in self._readers)
            if remaining <= 0 or not alive:
                if result := found():
                    return result
                raise AssertionError(f"no {what} from {self}")
            try:
                self._news.get(timeout=min(remaining, 0.2))
            except queue.Empty:
                continue
        return result

    def event(self, name: str, timeout: float = 20.0) -> dict[str, Any]:
        """The first event of that name."""
        found = self.until(
            lambda: [e for e in self.events if e.get("event") == name], timeout, f"event {name}"
        )
        return dict(found[0])

    def send(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def received(self, data: bytes, timeout: float = 10.0) -> None:
        self.until(lambda: data in self.output, timeout, f"output {data!r}")

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def exit_code(self, timeout: float = 20.0) -> int:
        self.until(lambda: self.process.poll() is not None, timeout, "end")
        for reader in self._readers:
            reader.join(2)
        return int(self.process.returncode)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __str__(self) -> str:
        said = "\n".join([*map(json.dumps, self.events), *self.errors])
        return (
            f"ice-punch {' '.join(self.arguments)} (exit {self.process.poll()})\n{said}\n"
            f"stdout: {bytes(self.output[-500:])!r}"
        )


def _lines(stream: IO[bytes] | None) -> Sequence[bytes] | IO[bytes]:
    assert stream is not None
    return stream
