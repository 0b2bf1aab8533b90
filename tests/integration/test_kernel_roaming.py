"""A session whose host moves from one network to another, in kernel namespaces: a laptop with Wi-Fi
and a cellular modem, and a peer that both lead to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from ice_punch import (
    ChannelClosed,
    GatheringOptions,
    IceConnection,
    PeerOptions,
    connect,
    listen,
)
from ice_punch.ice import IceState, LocalCandidateFound
from ice_punch.lab.kernel import namespaces
from ice_punch.net.monitor import NetworkChanged
from signaling.server import SignalingServer
from support.flow import Sender
from support.introduction import Mailbox, Party, introduce
from support.lan import Place, ip
from support.netns import NETNS

pytestmark = NETNS

WIFI, CELLULAR = "192.0.2.10", "198.51.100.10"
PEER = "203.0.113.1"
HERE = GatheringOptions(
    interface_filter=lambda address: address.interface in ("wifi0", "cell0", "home0"), ipv6=False
)


@pytest.fixture
def places() -> Iterator[tuple[Place, Place]]:
    laptop, peer = namespaces.new_names("laptop", "peer")
    namespaces.make(laptop, peer)
    try:
        ip(
            f"-n {peer} link add home0 type veth peer name spare0",
            f"-n {peer} addr add {PEER}/32 dev home0",
            f"-n {peer} link set home0 up",
            f"-n {peer} link set spare0 up",
            f"-n {peer} link set lo up",
        )
        for name, network in (("wifi0", "192.0.2"), ("cell0", "198.51.100")):
            ip(
                f"-n {laptop} link add {name} type veth peer name {name} netns {peer}",
                f"-n {peer} addr add {network}.1/24 dev {name}",
                f"-n {peer} link set {name} up",
            )
        yield Place(laptop), Place(peer)
    finally:
        namespaces.remove(laptop, peer)


def plug_in(name: str, address: str, gateway: str, metric: int) -> None:
    ip(
        f"addr add {address}/24 dev {name}",
        f"link set {name} up",
        f"route add default via {gateway} dev {name} metric {metric}",
    )


def wifi_on() -> None:
    plug_in("wifi0", WIFI, "192.0.2.1", 10)


def cellular_on() -> None:
    plug_in("cell0", CELLULAR, "198.51.100.1", 20)


async def meet(connection: IceConnection, mailbox: Mailbox) -> None:
    async for _ in connection.gather():
        pass
    mailbox.send(connection.local_description)
    connection.set_remote_description(await mailbox.recv())
    await connection.connect(timeout=15)


async def counting(connection: IceConnection, mailbox: Mailbox) -> list[int]:
    """Every number that comes, until the other side says that it is done."""
    got: list[int] = []

    async def collect() -> None:
        while True:
            got.append(int(await connection.recv()))
            await connection.send(b"%d" % got[-1])

    collecting = asyncio.ensure_future(collect())
    await mailbox.recv()
    collecting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await collecting
    return got


def roaming(
    story: Callable[[IceConnection, Sender], Any],
    *,
    controlling: bool,
    options: GatheringOptions = HERE,
) -> Party:
    async def party(mailbox: Mailbox) -> Any:
        async with IceConnection(controlling=controlling, options=options) as connection:
            await meet(connection, mailbox)
            sender = Sender(connection)
            await sender.flows()
            while connection.state is not IceState.COMPLETED:
                await asyncio.sleep(0.01)
            try:
                return await story(connection, sender)
            finally:
                sender.stop()
                mailbox.send("done")

    return party


def staying(*, controlling: bool) -> Party:
    async def party(mailbox: Mailbox) -> list[int]:
        async with IceConnection(controlling=controlling, options=HERE) as connection:
            await meet(connection, mailbox)
            return await counting(connection, mailbox)

    return party


def laptop_in(place: Place, *setup: Callable[[], None]) -> None:
    place.call(lambda: [step() for step in setup])


@pytest.mark.parametrize("we_control", [True, False])
def test_from_wifi_to_cellular_the_same_channel_goes_on(
    places: tuple[Place, Place], we_control: bool
) -> None:
    laptop, peer = places
    laptop_in(laptop, wifi_on)

    async def story(connection: IceConnection, sender: Sender) -> dict[str, Any]:
        events: list[Any] = []

        async def watch() -> None:
            async for event in connection.events():
                events.append(event)

        watching = asyncio.ensure_future(watch())
        assert connection.path is not None
        before = connection.path.local[0]
        cellular_on()
        async with asyncio.timeout(3):
            while not any(isinstance(event, NetworkChanged) for event in events):
                await asyncio.sleep(0.01)
        await asyncio.sleep(1.0)  # both are there for a while
        ip("link del wifi0")
        gap = await sender.flows()
        watching.cancel()
        return {
            "before": before,
            "after": connection.path.local[0],
            "gap": gap,
            "told": [e.candidate.host for e in events if isinstance(e, LocalCandidateFound)],
            "changes": [e for e in events if isinstance(e, NetworkChanged)],
            "counters": connection.counters,
        }

    us, _ = introduce(
        laptop, roaming(story, controlling=we_control), peer, staying(controlling=not we_control)
    )
    assert us["before"] == WIFI
    assert us["after"] == CELLULAR
    assert CELLULAR in us["told"]
    assert [c.removed for c in us["changes"] if c.removed] == [(WIFI,)]
    assert us["gap"] < 3.0
    assert us["counters"]["addresses_gone"] == 1


@pytest.mark.parametrize("we_control", [True, False])
def test_with_another_address_on_the_only_interface_the_same_channel_goes_on(
    places: tuple[Place, Place], we_control: bool
) -> None:
    """A DHCP server that changes its mind: for a second there is no address at all."""
    laptop, peer = places
    laptop_in(laptop, wifi_on)

    async def story(connection: IceConnection, sender: Sender) -> dict[str, Any]:
        ip(f"addr del {WIFI}/24 dev wifi0")
        await asyncio.sleep(1.0)
        ip("addr add 192.0.2.77/24 dev wifi0", "route add default via 192.0.2.1 dev wifi0")
        gap = await sender.flows()
        assert connection.path is not None
        return {"gap": gap, "after": connection.path.local[0], "state": connection.state}

    us, _ = introduce(
        laptop, roaming(story, controlling=we_control), peer, staying(controlling=not we_control)
    )
    assert us["after"] == "192.0.2.77"
    assert us["gap"] < 3.0


@pytest.mark.alone
def test_a_cable_that_is_pulled_out_and_put_back_ends_nothing(places: tuple[Place, Place]) -> None:
    """The address stays, and so does everything else: there is no other way."""
    laptop, peer = places
    laptop_in(laptop, wifi_on)

    async def story(connection: IceConnection, sender: Sender) -> dict[str, Any]:
        before = connection.local_candidates
        ip("link set wifi0 down")
        await asyncio.sleep(2.0)
        ip("link set wifi0 up", "route replace default via 192.0.2.1 dev wifi0")
        gap = await sender.flows()
        assert connection.local_candidates == before
        return {"gap": gap, "gone": connection.counters["addresses_gone"]}

    us, _ = introduce(laptop, roaming(story, controlling=True), peer, staying(controlling=False))
    assert us["gone"] == 0
    assert us["gap"] < 1.0


def test_who_does_not_follow_the_network_stays_where_it_was(places: tuple[Place, Place]) -> None:
    laptop, peer = places
    laptop_in(laptop, wifi_on)
    options = replace(HERE, follow_network=False)

    async def story(connection: IceConnection, sender: Sender) -> list[str]:
        cellular_on()
        await asyncio.sleep(0.5)
        return [c.host for c in connection.local_candidates]

    us, _ = introduce(
        laptop,
        roaming(story, controlling=True, options=options),
        peer,
        staying(controlling=False),
    )
    assert us == [WIFI]


def test_an_encrypted_channel_moves_from_wifi_to_cellular(places: tuple[Place, Place]) -> None:
    """The whole way: signaling, DTLS, a restart where one is needed; and back again."""
    laptop, peer = places
    laptop_in(laptop, wifi_on)
    options = PeerOptions(ipv6=False, timeout=15)

    async def listening(mailbox: Mailbox) -> int:
        server = await SignalingServer.start(PEER, 8080)
        async with listen(f"http://{PEER}:8080", options) as listener:
            mailbox.send(listener.link)
            async with await listener.accept() as channel:
                echoed = 0
                with contextlib.suppress(ChannelClosed):
                    while True:
                        await channel.send(await channel.recv())
                        echoed += 1
        await server.close()
        return echoed

    async def moving(mailbox: Mailbox) -> dict[str, Any]:
        events: list[Any] = []
        async with connect(
            await mailbox.recv(), replace(options, observer=events.append)
        ) as channel:
            sender = Sender(channel)
            await sender.flows()
            await asyncio.sleep(1.0)
            cellular_on()
            await asyncio.sleep(1.0)
            ip("link set wifi0 down", "addr flush dev wifi0")
            first = await sender.flows()
            assert channel.path is not None
            there = channel.path.local[0]
            wifi_on()
            await asyncio.sleep(1.0)
            ip("link del cell0")
            second = await sender.flows()
            back = channel.path.local[0]
            sender.stop()
        changes = [e for e in events if isinstance(e, NetworkChanged)]
        return {"gaps": (first, second), "there": there, "back": back, "changes": changes}

    us, echoed = introduce(laptop, moving, peer, listening, timeout=60)
    assert us["there"] == CELLULAR
    assert us["back"] == WIFI
    assert max(us["gaps"]) < 3.0
    assert len(us["changes"]) >= 4
    assert echoed > 100
