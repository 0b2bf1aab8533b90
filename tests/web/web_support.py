"""A signaling server as a command, and links of a room on it."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

from signaling.link import Link
from support.commands import Command, Start, start_here


@contextlib.contextmanager
def serving(*options: str, host: str = "127.0.0.1", start: Start = start_here) -> Iterator[str]:
    """The URL of an ``ice-punch serve`` on a port of its own."""
    with Command(
        "serve", "--host", host, "--port", "0", *options, "--json", start=start
    ) as command:
        yield str(command.event("serving")["url"])


def new_link(server: str) -> Link:
    return Link.create(server, random.SystemRandom())


def no_complaints(complaints: list[str]) -> list[str]:
    """What a console should not have."""
    return [said for said in complaints if not said.startswith(("log:", "info:", "debug:"))]
