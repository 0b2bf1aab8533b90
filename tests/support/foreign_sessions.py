"""Sessions of ours with a program around another ICE stack, in kernel networks."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from ice_punch import IceConnection
from ice_punch.datagram import Address
from ice_punch.ice import AgentConfig, IceState, SelectedPairChanged
from ice_punch.lab.behaviour import Mapping
from ice_punch.lab.kernel import KernelInternet
from ice_punch.net.ice_server import IceServer
from ice_punch.path import Path
from ice_punch.sdp import format_candidate
from support.foreign_peer import ForeignPeer, Setup, description

DATAGRAMS = 50
"""Each way, as soon as both sides are ready; before a story, as soon as both have selected."""
INTERVAL = 0.01
"""Seconds between those that are sent while something happens."""
SETTLED_WITHIN = 15.0
QUIET = 1.0
"""Seconds without a datagram, after which the rest is lost."""
LAST_NOMINATIONS = 0.3
"""Seconds. An aggressive peer nominates every pair, the best one last or not."""
AT_ONCE = 16
"""Sessions."""


@dataclass(frozen=True, slots=True)
class Ours:
    """How our agent is made."""

    controlling: bool
    ice_servers: tuple[IceServer, ...] = ()
    trickle: bool = True
    lite: bool = False
    tie_breaker: int | None = None
    late: float = 0.0
    """Seconds from when the other side has our candidates to when we have theirs."""


Story = Callable[["Session"], Awaitable[None]]
"""What happens between two sides that are connected."""
Sides = tuple[Ours, Setup] | tuple[Ours, Setup, Story]


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
        if not self.keeps_ports:
            return called[0] in self.inside + self.outside and seen[0] in self.outside
        return called[0] in self.inside and seen[0] in self.outside and seen[1] == called[1]


@dataclass(slots=True)
class Meeting:
    """What came of a session."""

    path: Path
    selected: list[Path]
    """What we have selected, one after the other."""
    their_local: Address
    """Their end of the pair that they have selected, as it is called there."""
    their_remote: Address
    their_place: Place
    sent: int
    """Datagrams, by each side."""
    we_got: list[str]
    they_got: list[str]
    we_control: bool
    """In the end."""
    counters: Counter[str]


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
                    ours, theirs, *story = sides
                    self._met[name] = pool.submit(
                        meet, net, program, ours, theirs, story[0] if story else None
                    )

    def __getitem__(self, name: str) -> Meeting:
        """Raises what came in between."""
        return self._met[name].result()


def meet(
    net: KernelInternet, program: Sequence[str], ours: Ours, theirs: Setup, story: Story | None
) -> Meeting:
    return net.peer_a.call(
        lambda: asyncio.run(_meet(net, program, ours, theirs, story)), timeout=60
    )


@dataclass(slots=True)
class Session:
    """Both sides, once they are connected, and the datagrams between them."""

    net: KernelInternet
    connection: IceConnection
    peer: ForeignPeer
    theirs: Setup
    sent: int = 0
    """Datagrams, by each side."""
    we_got: list[str] = field(default_factory=list)
    selected: list[Path] = field(default_factory=list)

    def send(self, count: int) -> None:
        """Both sides, so many datagrams."""
        numbers = range(self.sent, self.sent + count)
        self.sent += count
        self.peer.order(send=[f"theirs {n}" for n in numbers])
        for number in numbers:
            self.connection.send_nowait(b"ours %d" % number)

    @contextlib.asynccontextmanager
    async def traffic(self) -> AsyncIterator[None]:
        """A datagram each way every ``INTERVAL``."""
        sending = asyncio.ensure_future(self._keep_sending())
        try:
            yield
        finally:
            sending.cancel()

    async def _keep_sending(self) -> None:
        while True:
            self.send(1)
            await asyncio.sleep(INTERVAL)

    async def receive(self) -> None:
        while True:
            self.we_got.append((await self.connection.recv()).decode())

    async def watch(self) -> None:
        async for event in self.connection.events():
            if isinstance(event, SelectedPairChanged):
                self.selected.append(Path.of(event.pair))

    async def all_received(self) -> None:
        """Or nothing more for a while."""
        missing, quiet = self._missing(), 0.0
        while missing and quiet < QUIET:
            await asyncio.sleep(INTERVAL)
            quiet = quiet + INTERVAL if missing == self._missing() else 0.0
            missing = self._missing()

    def _missing(self) -> int:
        return 2 * self.sent - len(self.we_got) - len(self.peer.said("received"))


async def _meet(
    net: KernelInternet, program: Sequence[str], ours: Ours, theirs: Setup, story: Story | None
) -> Meeting:
    async with (
        ForeignPeer.running(net.peer_b.command(list(program)), theirs) as peer,
        IceConnection(
            controlling=ours.controlling,
            ice_servers=ours.ice_servers,
            agent_config=AgentConfig(lite=ours.lite),
        ) as connection,
    ):
        if ours.tie_breaker is not None:
            connection._agent._session.tie_breaker = ours.tie_breaker
        session = Session(net, connection, peer, theirs)
        background = [asyncio.ensure_future(one) for one in (session.receive(), session.watch())]
        await _introduce(connection, ours, peer, theirs)
        await connection.connect(SETTLED_WITHIN)
        await (peer.ready() if story is None else peer.first("selected"))
        await until_completed(connection)
        session.send(DATAGRAMS)
        if story is not None:
            await story(session)
        await session.all_received()
        await asyncio.sleep(LAST_NOMINATIONS)
        path, (their_local, their_remote) = connection.path, peer.selected()
        assert path is not None
        for task in background:
            task.cancel()
        return Meeting(
            path=path,
            selected=session.selected,
            their_local=their_local,
            their_remote=their_remote,
            their_place=Place.of_peer_b(net),
            sent=session.sent,
            we_got=session.we_got,
            they_got=[one["text"] for one in peer.said("received")],
            we_control=connection._agent.controlling,
            counters=connection.counters,
        )


async def _introduce(
    connection: IceConnection, ours: Ours, peer: ForeignPeer, theirs: Setup
) -> None:
    """Exchange credentials and candidates, as they are found or all at once."""
    remote = description(await peer.first("credentials"), theirs)
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


async def until_completed(connection: IceConnection) -> None:
    async with asyncio.timeout(SETTLED_WITHIN):
        while connection.state is not IceState.COMPLETED:
            await asyncio.sleep(0.01)


def assert_good(meeting: Meeting) -> None:
    """Both sides have selected one pair, and every datagram came, once."""
    assert_same_pair(meeting)
    assert (missing(meeting.we_got, meeting), missing(meeting.they_got, meeting)) == ([], [])


def assert_same_pair(meeting: Meeting) -> None:
    """Both sides have selected one pair, whatever each calls its ends, and nothing came twice or
    from anywhere else."""
    assert meeting.their_remote == meeting.path.local
    assert meeting.their_place.may_be(meeting.path.remote, meeting.their_local)
    for got, who in ((meeting.we_got, "theirs"), (meeting.they_got, "ours")):
        assert len(set(got)) == len(got)
        assert all(text.split()[0] == who for text in got)
    assert not meeting.counters["data_from_strangers"]


def missing(got: list[str], meeting: Meeting) -> list[int]:
    """The numbers of those that did not come."""
    return sorted(set(range(meeting.sent)) - {int(text.split()[1]) for text in got})
