"""A program around another ICE stack, and sessions of ours with it.

The program gets its :class:`Setup` as JSON, as its argument, and then one order a line on standard
input: ``{"remote": {"ufrag", "pwd"}}``, ``{"candidate": LINE}``, ``{"end": true}`` (no more
candidates), ``{"send": [TEXT, ...]}``, one datagram each. It says what happens as lines on standard
output: ``credentials``, ``candidate``, ``gathered``, ``state`` (``ready``: data can flow, or
``failed``), ``selected`` with two candidate lines, ``received``. It ends with its standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from ice_punch import IceConnection
from ice_punch.datagram import Address
from ice_punch.ice import IceState
from ice_punch.lab.behaviour import Mapping
from ice_punch.lab.kernel import KernelInternet
from ice_punch.net.ice_server import IceServer
from ice_punch.path import Path
from ice_punch.sdp import Description, format_candidate

DATAGRAMS = 50
SETTLED_WITHIN = 15.0
LAST_NOMINATIONS = 0.3
"""Seconds. An aggressive peer nominates every pair, the best one last or not."""
AT_ONCE = 16
"""Sessions."""


@dataclass(frozen=True, slots=True)
class Setup:
    """How the other stack's agent is made."""

    controlling: bool
    nomination: str = "regular"
    """Or ``aggressive``, RFC 5245 section 8.1.1.2, where the stack can."""
    lite: bool = False
    trickle: bool = True
    stun: Address | None = None
    turn: tuple[str, int, str, str] | None = None
    """Host, port, user name and password."""


@dataclass(frozen=True, slots=True)
class Ours:
    """How our agent is made."""

    controlling: bool
    ice_servers: tuple[IceServer, ...] = ()
    trickle: bool = True
    tie_breaker: int | None = None
    late: float = 0.0
    """Seconds from when the other side has our candidates to when we have theirs."""


Sides = tuple[Ours, Setup]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the other side is."""

    inside: tuple[str, ...]
    outside: tuple[str, ...]
    keeps_ports: bool

    @classmethod
    def of_peer_b(cls, net: KernelInternet) -> Place:
        keeps = all(nat.mapping is Mapping.ENDPOINT_INDEPENDENT for nat in net.scenario.b.nats)
        return cls(net.peer_b.addresses, net.peer_b.public_addresses, keeps)

    def may_be(self, seen: Address, called: Address) -> bool:
        """Whether an address seen by others is one that this host calls so."""
        if seen == called:
            return True
        port_fits = seen[1] == called[1] or not self.keeps_ports
        return called[0] in self.inside and seen[0] in self.outside and port_fits


@dataclass(slots=True)
class Meeting:
    """What came of a session."""

    path: Path
    their_local: Address
    """Their end of the pair that they have selected, as it is called there."""
    their_remote: Address
    their_place: Place
    we_got: list[str]
    they_got: list[str]
    we_control: bool
    """In the end."""
    counters: Counter[str]


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
        return [one for one in self._said if one["event"] == event]

    async def until(self, found: Callable[[], Any], what: str, timeout: float = 10.0) -> None:
        """Wait for ``found()`` to be true; fail with everything the program has said."""
        try:
            async with asyncio.timeout(timeout), self._more:
                await self._more.wait_for(found)
        except TimeoutError:
            said = "\n".join(map(json.dumps, self._said))
            raise AssertionError(f"no {what} from the other side, which said\n{said}") from None

    async def first(self, event: str) -> dict[str, Any]:
        await self.until(lambda: self.said(event), event)
        return self.said(event)[0]

    async def ready(self) -> None:
        await self.until(
            lambda: any(one["state"] == "ready" for one in self.said("state")),
            "state ready",
            SETTLED_WITHIN,
        )

    async def tell_candidates(self, tell: Callable[[str], None]) -> None:
        """Pass on what it gathers, until it has everything."""
        heard = 0
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


class Meetings:
    """Sessions of ours at ``peer_a`` with the program at ``peer_b``, in their networks, that run
    at once; what came of each, by its name."""

    def __init__(
        self, program: Sequence[str], *networks: tuple[KernelInternet, dict[str, Sides]]
    ) -> None:
        self._met: dict[str, Future[Meeting]] = {}
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for net, sessions in networks:
                for name, sides in sessions.items():
                    self._met[name] = pool.submit(meet, net, program, *sides)

    def __getitem__(self, name: str) -> Meeting:
        """Raises what came in between."""
        return self._met[name].result()


def meet(net: KernelInternet, program: Sequence[str], ours: Ours, theirs: Setup) -> Meeting:
    return net.peer_a.call(lambda: asyncio.run(_meet(net, program, ours, theirs)), timeout=60)


async def _meet(net: KernelInternet, program: Sequence[str], ours: Ours, theirs: Setup) -> Meeting:
    async with (
        ForeignPeer.running(net.peer_b.command(list(program)), theirs) as peer,
        IceConnection(controlling=ours.controlling, ice_servers=ours.ice_servers) as connection,
    ):
        if ours.tie_breaker is not None:
            connection._agent._session.tie_breaker = ours.tie_breaker
        await _introduce(connection, ours, peer, theirs)
        await connection.connect(SETTLED_WITHIN)
        await peer.ready()
        await _until_completed(connection)
        we_got, they_got = await _exchange(connection, peer)
        await asyncio.sleep(LAST_NOMINATIONS)
        path, (their_local, their_remote) = connection.path, peer.selected()
        assert path is not None
        return Meeting(
            path=path,
            their_local=their_local,
            their_remote=their_remote,
            their_place=Place.of_peer_b(net),
            we_got=we_got,
            they_got=they_got,
            we_control=connection._agent.controlling,
            counters=connection.counters,
        )


async def _introduce(
    connection: IceConnection, ours: Ours, peer: ForeignPeer, theirs: Setup
) -> None:
    """Exchange credentials and candidates, as they are found or all at once."""
    credentials = await peer.first("credentials")
    remote = Description(
        ufrag=credentials["ufrag"],
        pwd=credentials["pwd"],
        options=("trickle",) if theirs.trickle else (),
        lite=theirs.lite,
        protocol="UDP",
        formats=("octet-stream",),
    )
    connection.start_gathering()
    if not ours.trickle:
        async for _ in connection.gather():
            pass
    if not theirs.trickle:
        await peer.first("gathered")
    local = connection.describe(candidates=False)
    peer.order(remote={"ufrag": local.ufrag, "pwd": local.pwd})
    telling = asyncio.ensure_future(_tell_ours(connection, peer))
    await asyncio.sleep(ours.late)
    connection.set_remote_description(remote)
    await asyncio.gather(telling, peer.tell_candidates(connection.add_remote_candidate))
    connection.add_remote_candidate(None)


async def _tell_ours(connection: IceConnection, peer: ForeignPeer) -> None:
    async for candidate in connection.gather():
        peer.order(candidate=format_candidate(candidate))
    peer.order(end=True)


async def _until_completed(connection: IceConnection) -> None:
    async with asyncio.timeout(SETTLED_WITHIN):
        while connection.state is not IceState.COMPLETED:
            await asyncio.sleep(0.01)


async def _exchange(connection: IceConnection, peer: ForeignPeer) -> tuple[list[str], list[str]]:
    peer.order(send=[f"theirs {n}" for n in range(DATAGRAMS)])
    for number in range(DATAGRAMS):
        await connection.send(b"ours %d" % number)
    we_got: list[str] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(5):
            while len(we_got) < DATAGRAMS:
                we_got.append((await connection.recv()).decode())
    await peer.until(lambda: len(peer.said("received")) >= DATAGRAMS, f"{DATAGRAMS} datagrams", 5)
    return we_got, [one["text"] for one in peer.said("received")]


def assert_good(meeting: Meeting) -> None:
    """Both sides have selected one pair, whatever each calls its ends, and every datagram came,
    once."""
    assert meeting.their_remote == meeting.path.local
    assert meeting.their_place.may_be(meeting.path.remote, meeting.their_local)
    assert meeting.we_got == [f"theirs {n}" for n in range(DATAGRAMS)]
    assert meeting.they_got == [f"ours {n}" for n in range(DATAGRAMS)]
    assert not meeting.counters["data_from_strangers"]
