"""A signaling and STUN server, run by the command that is there for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.commands import Command


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL of a running ``ice-punch serve`` on the loopback interface."""
    with Command(
        "serve", "--host", "127.0.0.1", "--port", "0", "--stun-port", "0", "--json"
    ) as command:
        yield str(command.event("serving")["urls"][0])
