"""The relay credentials we mint, at a real coturn, with the configuration we hand out."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from signaling_support import ROOM

from ice_punch.errors import AuthenticationRejected
from ice_punch.net.ice_server import IceServer
from ice_punch.net.relay import Relay
from signaling.client import SignalingClient
from signaling.events import Welcomed
from signaling.hooks import IceRequest
from signaling.messages import IceInfo, IceServerInfo
from signaling.server import SignalingServer
from signaling.turn_credentials import TurnCredentials, TurnServer
from support.coturn import Coturn

CONFIGURATION = Path(__file__).resolve().parents[2] / "deploy" / "coturn" / "turnserver.conf"
SECRET = b"replace-me-with-a-long-random-secret"
REQUEST = IceRequest("peer-1", "robot", True, "127.0.0.1", "127.0.0.1")
# What the page says to change, and what keeps 127.0.0.1 from being a relay's address.
CHANGED = re.compile(r"^(listening-ip|relay-ip|listening-port|log-file)=.*$", re.MULTILINE)


@pytest.fixture(scope="module")
def coturn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coturn]:
    """coturn with our configuration file, its addresses given on the command line."""
    configuration = tmp_path_factory.mktemp("coturn") / "turnserver.conf"
    configuration.write_text(CHANGED.sub("", CONFIGURATION.read_text()))
    with Coturn(users={}, realm="signal.example.org", configuration=configuration) as server:
        yield server


def server(coturn: Coturn) -> TurnServer:
    return TurnServer((coturn.uri(), coturn.uri("tcp")), SECRET)


def minted(coturn: Coturn, *, secret: bytes = SECRET, ago: float = 0.0) -> IceServerInfo:
    source = TurnCredentials(
        [TurnServer((coturn.uri(),), secret)], ttl=60, wall=lambda: time.time() - ago
    )
    [info] = source.ice_servers(REQUEST).servers
    return info


def allocate(info: IceServerInfo, transport: int = 0) -> None:
    """Make an allocation and give it back. Raises what the relay's client raises."""

    async def run() -> None:
        uri = IceServer.parse(info.urls[transport], info.username, info.credential)
        relay = await Relay.open(uri, on_datagram=lambda *_: None, local_ip="127.0.0.1")
        await relay.close()

    asyncio.run(run())


def test_coturn_understands_every_line_of_our_configuration(coturn: Coturn) -> None:
    for complaint in ("unrecognized", "unknown", "bad configuration", "wrong", "error"):
        found = [line for line in coturn.log.splitlines() if complaint in line.lower()]
        assert [line for line in found if "/dev/" not in line and "DB" not in line] == []
    assert "Relay ports initialization done" in coturn.log


def test_minted_credentials_open_a_relay(coturn: Coturn) -> None:
    allocate(minted(coturn))


def test_expired_ones_do_not(coturn: Coturn) -> None:
    allocate(minted(coturn, ago=58))
    with pytest.raises(AuthenticationRejected):
        allocate(minted(coturn, ago=62))


def test_those_of_another_secret_and_invented_ones_do_not(coturn: Coturn) -> None:
    with pytest.raises(AuthenticationRejected):
        allocate(minted(coturn, secret=b"another-secret-of-sixteen-bytes"))
    good = minted(coturn)
    assert good.username is not None
    later = f"{int(time.time()) + 86400}:{good.username.partition(':')[2]}"
    for username in (later, "robot", ""):
        with pytest.raises(AuthenticationRejected):
            allocate(IceServerInfo(good.urls, username or "x", good.credential))


def test_a_client_is_told_ones_that_work(coturn: Coturn) -> None:
    async def infos() -> list[IceInfo]:
        source = TurnCredentials([server(coturn)], ttl=60)
        async with await SignalingServer.start(port=0, ice=source) as signaling:
            client = SignalingClient(signaling.urls[0], ROOM)
            async with client:
                await client.connect(5)
                event = await anext(client)
                assert isinstance(event, Welcomed)
                return [IceInfo(list(event.ice_servers))]

    [info] = asyncio.run(infos())
    for transport in (0, 1):
        allocate(info.servers[0], transport)


def test_a_relay_is_no_way_into_the_networks_around_it(coturn: Coturn) -> None:
    refused: list[tuple[object, ...]] = []

    async def run() -> None:
        info = minted(coturn)
        uri = IceServer.parse(info.urls[0], info.username, info.credential)
        relay = await Relay.open(
            uri,
            on_datagram=lambda *_: None,
            on_error=lambda *what: refused.append(what),
            local_ip="127.0.0.1",
        )
        for peer in ("10.0.0.1", "192.168.1.1", "169.254.169.254", "172.17.0.1", "100.64.0.1"):
            relay.permit((peer, 9))
        for _ in range(200):
            if len(refused) >= 5:
                break
            await asyncio.sleep(0.02)
        await relay.close()

    asyncio.run(run())
    assert len(refused) == 5
    assert all("403" in str(what) or "orbidden" in str(what) for what in refused), refused
