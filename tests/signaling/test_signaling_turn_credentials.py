"""Relay credentials: coturn's scheme, its lifetimes, its caps, and several sources as one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from signaling_support import Shell

from signaling.errors import InvalidIceServer
from signaling.hooks import IceRequest, SameIceServers
from signaling.messages import IceInfo, IceServerInfo
from signaling.turn_credentials import (
    AllIceServers,
    TurnCredentials,
    TurnServer,
    turn_credentials,
)

SECRET = b"north-pole-south-pole"
NEAR = TurnServer(("turn:{host}:3478", "turn:{host}:3478?transport=tcp"), SECRET)
FAR = TurnServer(("turns:relay.example.org:443?transport=tcp",), b"another-secret-of-16")


def request(**changed: Any) -> IceRequest:
    fields = {
        "peer": "peer-1",
        "subject": "",
        "relay": True,
        "host": "signal.example.org",
        "address": "198.51.100.1",
    }
    return IceRequest(**(fields | changed))


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def source(self, *servers: TurnServer, **options: Any) -> TurnCredentials:
        return TurnCredentials(
            servers or (NEAR, FAR),
            clock=lambda: self.now,
            wall=lambda: 1_800_000_000.0 + self.now,
            **options,
        )


def test_a_known_pair() -> None:
    # printf 1800000000:robot | openssl dgst -sha1 -hmac north-pole-south-pole -binary | base64
    assert turn_credentials(SECRET, "robot", 1_800_000_000) == (
        "1800000000:robot",
        "iDQzDGmOWYhEDU3OhbyQye5CLI8=",
    )


def test_every_session_has_its_own_for_every_server() -> None:
    source = Clock().source(ttl=600)
    one, two = source.ice_servers(request()), source.ice_servers(request(peer="peer-2"))
    assert one.ttl == two.ttl == 600
    near, far = one.servers
    assert near.urls == [
        "turn:signal.example.org:3478",
        "turn:signal.example.org:3478?transport=tcp",
    ]
    assert near.username == far.username == "1800001600:peer-1"
    assert near.credential != far.credential
    assert {server.credential for server in two.servers}.isdisjoint(
        {server.credential for server in one.servers}
    )
    assert source.minted == 2


def test_who_may_not_relay_gets_nothing() -> None:
    source = Clock().source()
    assert source.ice_servers(request(relay=False)) == IceInfo(servers=[])
    assert source.minted == 0
    assert SECRET.decode() not in repr(NEAR)


def test_a_server_beside_us_needs_a_name_for_us() -> None:
    source = Clock().source()
    assert [s.urls for s in source.ice_servers(request(host="")).servers] == [list(FAR.urls)]


def test_a_subject_is_shown_to_the_relay_in_safe_characters() -> None:
    source = Clock().source(FAR)
    [server] = source.ice_servers(request(subject="r:o\nbot/" + "x" * 200)).servers
    assert server.username is not None
    expires, _, name = server.username.partition(":")
    assert expires.isdigit()
    assert name == "r_o_bot_" + "x" * 56 + ".peer-1"


def test_minting_is_capped_per_session() -> None:
    clock = Clock()
    source = clock.source(FAR)
    lifetimes = [source.ice_servers(request()).ttl for _ in range(5)]
    assert lifetimes == [3600, 3600, 3600, 60, 60]
    assert source.capped == 2
    assert source.ice_servers(request(peer="peer-2")).servers
    clock.now += 10
    assert source.ice_servers(request()).servers


def test_minting_is_capped_per_address() -> None:
    clock = Clock()
    source = clock.source(FAR, address_burst=20)
    given = [
        bool(source.ice_servers(request(peer=f"p{i}", address=f"2001:db8::{i:x}")).servers)
        for i in range(30)
    ]
    assert given == [True] * 20 + [False] * 10
    assert source.ice_servers(request(peer="q", address="2001:db8:0:1::1")).servers
    clock.now += 1
    assert source.ice_servers(request(peer="r", address="2001:db8::1")).servers


def test_a_session_hears_of_new_ones_before_the_old_ones_expire() -> None:
    clock = Clock()
    shell = Shell(ice=clock.source(FAR, ttl=600))
    start = shell.now
    connection, welcome = shell.join()
    [told] = welcome["ice"]["servers"]
    assert welcome["ice"]["ttl"] == 600

    def pass_time(seconds: float) -> None:
        clock.now += seconds
        for _ in range(int(seconds // 20)):
            shell.advance(20)
            shell.say(connection, "ping", n=1)

    pass_time(460)
    assert shell.heard(connection, "ice") == []
    pass_time(40)
    [fresh] = shell.heard(connection, "ice")
    [server] = fresh["servers"]
    assert shell.now < start + 600
    assert int(server["username"].partition(":")[0]) > int(told["username"].partition(":")[0])
    assert server["credential"] != told["credential"]


@pytest.mark.parametrize(
    "url",
    [
        "stun:relay.example.org",
        "turn:",
        "turn:host name",
        "turn:user@relay.example.org",
        "turn:relay.example.org?transport=sctp",
        "turn://relay.example.org",
        "https://relay.example.org",
        "turn:relay.example.org#x",
    ],
)
def test_what_is_no_turn_server(url: str) -> None:
    with pytest.raises(InvalidIceServer):
        TurnServer((url,), SECRET)


def test_what_can_not_be_used() -> None:
    with pytest.raises(InvalidIceServer, match="16 bytes"):
        TurnServer(FAR.urls, b"short")
    with pytest.raises(InvalidIceServer, match="a URL"):
        TurnServer((), SECRET)
    for ttl in (0, 59, 86401):
        with pytest.raises(InvalidIceServer, match="60 to 86400"):
            TurnCredentials((FAR,), ttl=ttl)


def test_several_sources_as_one() -> None:
    class Slow:
        async def ice_servers(self, request: IceRequest) -> IceInfo:
            await asyncio.sleep(0)
            return IceInfo(servers=[IceServerInfo(urls=["turn:slow"])], ttl=120)

    stun = SameIceServers(IceInfo(servers=[IceServerInfo(urls=["stun:{host}:3478"])]))
    both = AllIceServers([stun, Clock().source(FAR)]).ice_servers(request())
    assert isinstance(both, IceInfo)
    assert [s.urls[0] for s in both.servers] == ["stun:signal.example.org:3478", FAR.urls[0]]
    assert both.ttl == 3600
    with_slow = AllIceServers([stun, Slow(), Clock().source(FAR)]).ice_servers(request())
    assert not isinstance(with_slow, IceInfo)

    async def wait() -> IceInfo:
        return await with_slow

    answer = asyncio.run(wait())
    assert [s.urls[0] for s in answer.servers] == [
        "stun:signal.example.org:3478",
        "turn:slow",
        FAR.urls[0],
    ]
    assert answer.ttl == 120
    assert AllIceServers([]).ice_servers(request()) == IceInfo(servers=[])
