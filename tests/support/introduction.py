"""Two functions, each in its own namespace, that exchange session descriptions over a pipe."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any, Protocol

Party = Callable[["Mailbox"], Coroutine[Any, Any, Any]]


class Host(Protocol):
    """A namespace that can run something in a process of its own."""

    def call(self, function: Callable[[], Any], timeout: float = ...) -> Any: ...


class Mailbox:
    """Strings to and from the other party."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def send(self, text: str) -> None:
        self._pipe.send(text)

    async def recv(self) -> str:
        text: str = await asyncio.get_running_loop().run_in_executor(None, self._pipe.recv)
        return text


def introduce(
    host_a: Host, party_a: Party, host_b: Host, party_b: Party, timeout: float = 40.0
) -> tuple[Any, Any]:
    """Run both parties at once, each in its own process and namespace; their results."""
    left, right = multiprocessing.Pipe()

    def run(host: Host, party: Party, pipe: Connection) -> Any:
        return host.call(lambda: asyncio.run(party(Mailbox(pipe))), timeout=timeout)

    try:
        with ThreadPoolExecutor(2) as pool:
            a = pool.submit(run, host_a, party_a, left)
            b = pool.submit(run, host_b, party_b, right)
            return a.result(), b.result()
    finally:
        left.close()
        right.close()
