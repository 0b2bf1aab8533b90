"""Two hosts on a cable that tell each other no address: by name to ourselves, and to aioice."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from typing import Any

import aioice
import pytest

from ice_punch import GatheringOptions, IceConnection, PeerOptions, connect, listen
from ice_punch.ice import LocalCandidateFound
from ice_punch.sdp import Description
from signaling.server import SignalingServer
from support.introduction import Mailbox, Party, introduce
from support.lan import two_hosts
from support.netns import NETNS

pytestmark = NETNS

ADDRESS = re.compile(r"192\.0\.2\.|198\.51\.100\.|2001:db8|fe80")


def hiding(*, controlling: bool, ipv4: bool = True, ipv6: bool = True) -> Party:
    options = GatheringOptions(
        hide_addresses=True,
        ipv4=ipv4,
        ipv6=ipv6,
        interface_filter=lambda address: address.interface in ("lan0", "alone0"),
    )

    async def party(mailbox: Mailbox) -> dict[str, Any]:
        async with IceConnection(controlling=controlling, options=options) as connection:
            gathered = [candidate async for candidate in connection.gather()]
            told = connection.local_description
            mailbox.send(told)
            connection.set_remote_description(await mailbox.recv())
            await connection.connect(timeout=10)
            await connection.send(b"hello from behind a name")
            got = await asyncio.wait_for(connection.recv(), 5)
            assert connection.path is not None
            remote = connection.path.remote[0]
            mailbox.send("done")
            await mailbox.recv()
            return {"told": told, "gathered": gathered, "got": got, "remote": remote}

    return party


@pytest.mark.parametrize(
    ("ipv4", "ipv6", "remote"), [(True, False, "192.0.2.6"), (False, True, "2001:db8::6")]
)
def test_two_hosts_that_hide_their_addresses_meet_by_name(
    ipv4: bool, ipv6: bool, remote: str
) -> None:
    with two_hosts() as (one, two):
        a, b = introduce(
            one,
            hiding(controlling=True, ipv4=ipv4, ipv6=ipv6),
            two,
            hiding(controlling=False, ipv4=ipv4, ipv6=ipv6),
        )
    for side in (a, b):
        assert side["got"] == b"hello from behind a name"
        assert not ADDRESS.search(side["told"]), "no line tells an address"
        assert ".local " in side["told"]
        assert all(c.host.endswith(".local") for c in side["gathered"])
        assert len({c.host for c in side["gathered"]}) == len(side["gathered"])
    assert a["remote"] == remote


def test_aioice_resolves_our_names() -> None:
    async def theirs(mailbox: Mailbox) -> bytes:
        connection = aioice.Connection(ice_controlling=False)
        await connection.gather_candidates()
        remote = Description.parse(await mailbox.recv())
        lines = "".join(f"a=candidate:{c.to_sdp()}\r\n" for c in connection.local_candidates)
        mailbox.send(
            Description(
                ufrag=connection.local_username,
                pwd=connection.local_password,
                options=(),
                protocol="UDP",
                formats=("octet-stream",),
            ).to_sdp()
            + lines
            + "a=end-of-candidates\r\n"
        )
        connection.remote_username, connection.remote_password = remote.ufrag, remote.pwd
        named = [c for c in remote.candidates if c.host.endswith(".local")]
        assert named == list(remote.candidates)
        for candidate in named:
            await connection.add_remote_candidate(
                aioice.Candidate(
                    foundation=candidate.foundation,
                    component=1,
                    transport="udp",
                    priority=candidate.priority,
                    host=candidate.host,
                    port=candidate.port,
                    type="host",
                )
            )
        await connection.add_remote_candidate(None)
        await connection.connect()
        got = await asyncio.wait_for(connection.recv(), 10)
        await connection.send(got)
        mailbox.send("done")
        await mailbox.recv()
        await connection.close()
        return got

    with two_hosts() as (one, two):
        us, them = introduce(one, hiding(controlling=True, ipv6=False), two, theirs)
    assert them == us["got"] == b"hello from behind a name"
    assert not ADDRESS.search(us["told"])


def test_a_session_with_hidden_addresses_from_link_to_channel() -> None:
    options = PeerOptions(hide_addresses=True, ipv6=False, timeout=15)

    def noting(told: list[str]) -> PeerOptions:
        def observe(event: object) -> None:
            if isinstance(event, LocalCandidateFound) and event.candidate.type == "host":
                told.append(event.candidate.host)

        return replace(options, observer=observe)

    async def listening(mailbox: Mailbox) -> list[str]:
        told: list[str] = []
        server = await SignalingServer.start("192.0.2.5", 8080)
        async with listen("http://192.0.2.5:8080", noting(told)) as listener:
            mailbox.send(listener.link)
            async with await listener.accept() as channel:
                await channel.send(await channel.recv())
                await mailbox.recv()
        await server.close()
        return told

    async def connecting(mailbox: Mailbox) -> list[str]:
        told: list[str] = []
        async with connect(await mailbox.recv(), noting(told)) as channel:
            await channel.send(b"hello")
            assert await asyncio.wait_for(channel.recv(), 5) == b"hello"
            mailbox.send("done")
        return told

    with two_hosts() as (one, two):
        names = introduce(one, listening, two, connecting)
    for told in names:
        assert told
        assert all(name.endswith(".local") for name in told)
