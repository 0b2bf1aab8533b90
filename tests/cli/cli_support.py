"""Two commands at the ends of one channel over the loopback interface."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any

from support.commands import PUNCH, Command
from support.loopback import LOOPBACK

HERE = ("--interface", LOOPBACK, "-4")


@contextlib.contextmanager
def listening(
    server: str, *options: str, stdin: int = subprocess.PIPE
) -> Iterator[tuple[Command, str]]:
    """``ice-punch listen --json``, and its link."""
    with Command("listen", "--server", server, *HERE, "--json", *options, stdin=stdin) as command:
        yield command, command.event("listening")["link"]


@contextlib.contextmanager
def connected(
    server: str,
    *,
    listen: Sequence[str] = (),
    connect: Sequence[str] = (),
    both: Sequence[str] = (),
    stdin: Any = subprocess.PIPE,
) -> Iterator[tuple[Command, Command]]:
    """The listening and the connecting command; ``stdin`` is the latter's."""
    with (
        listening(server, *listen, *both) as (listener, link),
        Command("connect", link, *HERE, "--json", *connect, *both, stdin=stdin) as connector,
    ):
        listener.event("connected")
        connector.event("connected")
        yield listener, connector


def run(
    *arguments: str,
    environment: dict[str, str] | None = None,
    data: bytes = b"",
    timeout: float = 20.0,
) -> subprocess.CompletedProcess[str]:
    """A command that ends by itself."""
    done = subprocess.run(
        [*PUNCH, *arguments],
        input=data,
        capture_output=True,
        timeout=timeout,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def only_line(text: str) -> str:
    """The one line that standard error may have."""
    lines = text.splitlines()
    assert len(lines) == 1, text
    return lines[0]
