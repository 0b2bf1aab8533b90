"""A real Redis (or Valkey) of a test's own, and server processes that share rooms through it."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

BINARY = shutil.which(os.environ.get("ICE_PUNCH_REDIS_SERVER", "redis-server")) or shutil.which(
    "valkey-server"
)
needs_redis = pytest.mark.skipif(
    BINARY is None, reason="no redis-server and no valkey-server in PATH"
)
START_TIMEOUT = 10.0


class RedisServer:
    """Keeps nothing on disk: what is killed has forgotten everything."""

    def __init__(
        self,
        directory: Path,
        *options: str,
        command_prefix: Sequence[str] = (),
        host: str = "127.0.0.1",
        port: int = 0,
        password: str = "",
    ) -> None:
        self.host = host
        self.port = port or free_port()
        self._password = password
        self._directory = directory
        self._options = options
        self._prefix = command_prefix
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        user = f":{self._password}@" if self._password else ""
        return f"redis://{user}{self.host}:{self.port}/0"

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        assert BINARY is not None
        with (self._directory / "redis.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *self._prefix,
                    BINARY,
                    *("--bind", self.host),
                    *("--port", str(self.port)),
                    *("--save", ""),
                    *("--appendonly", "no"),
                    *("--dir", str(self._directory)),
                    *("--protected-mode", "no"),
                    *(("--requirepass", self._password) if self._password else ()),
                    *self._options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_TIMEOUT
        while b"PONG" not in self.ask("PING"):
            assert self.process.poll() is None, (self._directory / "redis.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def ask(self, *words: str) -> bytes:
        """Run one command; the raw reply, empty if there is none."""
        command = [*self._prefix, *_CLI, self.host, "-p", str(self.port), *words]
        environment = {**os.environ, "REDISCLI_AUTH": self._password}
        done = subprocess.run(command, capture_output=True, check=False, timeout=5, env=environment)
        return done.stdout

    def kill(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()

    def freeze(self) -> None:
        """Let it keep its connections and answer nothing."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


_CLI = [shutil.which("redis-cli") or shutil.which("valkey-cli") or "redis-cli", "-h"]


def free_port() -> int:
    """A port that is free, and 10000 above it another: a cluster listens on both.

    Both are below those that the kernel gives to outgoing connections, so a server that was
    killed finds its own free when it comes back.
    """
    while True:
        port = random.SystemRandom().randrange(10_000, 22_700)
        with socket.socket() as client, socket.socket() as bus, contextlib.suppress(OSError):
            client.bind(("127.0.0.1", port))
            bus.bind(("127.0.0.1", port + 10_000))
            return port
