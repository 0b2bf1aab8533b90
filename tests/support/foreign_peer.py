"""A program around another ICE stack.

The program gets its :class:`Setup` as JSON, as its argument, and then one order a line on standard
input: ``{"remote": {"ufrag", "pwd"}}``, ``{"candidate": LINE}``, ``{"end": true}`` (no more
candidates), ``{"send": [TEXT, ...]}``, one datagram each, and ``{"restart": true}``, after which
credentials and candidates are told anew. It says what happens as lines on standard output:
``credentials``, ``candidate``, ``gathered``, ``state`` (``ready``: data can flow, or ``failed``),
``selected`` with two candidate lines, ``received``. It ends with its standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from ice_punch.datagram import Address
from ice_punch.sdp import Description
from ice_punch.sdp.description import RENOMINATION

READY_WITHIN = 15.0


@dataclass(frozen=True, slots=True)
class Setup:
    """How the other stack's agent is made."""

    controlling: bool
    nomination: str = "regular"
    """Or ``aggressive``, RFC 5245 section 8.1.1.2, where the stack can."""
    lite: bool = False
    renomination: bool = False
    """That it can follow one, which we are told too."""
    trickle: bool = True
    stun: Address | None = None
    turn: tuple[str, int, str, str] | None = None
    """Host, port, user name and password."""


class ForeignPeer:
    """The running program, and what it has said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._said: list[dict[str, Any]] = []
        self._more = asyncio.Condition()

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls, command: Sequence[str], setup: Setup) -> AsyncIterator[ForeignPeer]:
        process = await asyncio.create_subprocess_exec(
            *command, json.dumps(asdict(setup)), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        peer = cls(process)
        listening = asyncio.ensure_future(peer._listen())
        try:
            yield peer
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await listening
            await process.wait()

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            async with self._more:
                self._said.append(json.loads(line))
                self._more.notify_all()

    def order(self, **order: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")

    def said(self, event: str) -> list[dict[str, Any]]:
        return self._since(0, event)

    async def until(self, found: Callable[[], Any], what: str, timeout: float = 10.0) -> None:
        """Wait for ``found()`` to be true; fail with everything the program has said."""
        try:
            async with asyncio.timeout(timeout), self._more:
                await self._more.wait_for(found)
        except TimeoutError:
            said = "\n".join(map(json.dumps, self._said))
            raise AssertionError(f"no {what} from the other side, which said\n{said}") from None

    async def first(self, event: str, *, after: int = 0) -> dict[str, Any]:
        """Of what it said after so many lines."""
        await self.until(lambda: self._since(after, event), event)
        return self._since(after, event)[0]

    def _since(self, count: int, event: str) -> list[dict[str, Any]]:
        return [one for one in self._said[count:] if one["event"] == event]

    @property
    def lines(self) -> int:
        """How many it has said."""
        return len(self._said)

    async def ready(self, *, after: int = 0) -> None:
        await self.until(
            lambda: any(one["state"] == "ready" for one in self._since(after, "state")),
            "state ready",
            READY_WITHIN,
        )

    async def tell_candidates(self, tell: Callable[[str], None], *, after: int = 0) -> None:
        """Pass on what it gathers, until it has everything."""
        heard = after
        while True:
            if heard == len(self._said):
                await self.until(partial(self._has_said_more_than, heard), "end of gathering")
            one = self._said[heard]
            heard += 1
            if one["event"] == "candidate":
                tell(one["line"])
            elif one["event"] == "gathered":
                return

    def _has_said_more_than(self, count: int) -> bool:
        return len(self._said) > count

    def selected(self) -> tuple[Address, Address]:
        """Local and remote address of the pair it has selected last."""
        pair = self.said("selected")[-1]
        local, remote = (pair[which].split(" ") for which in ("local", "remote"))
        return (local[4], int(local[5])), (remote[4], int(remote[5]))


def description(credentials: dict[str, Any], theirs: Setup) -> Description:
    """Theirs, without candidates."""
    options = (["trickle"] if theirs.trickle else []) + (
        [RENOMINATION] if theirs.renomination else []
    )
    return Description(
        ufrag=credentials["ufrag"],
        pwd=credentials["pwd"],
        options=tuple(options),
        lite=theirs.lite,
        protocol="UDP",
        formats=("octet-stream",),
    )
