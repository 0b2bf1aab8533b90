"""aioice 0.13 on one side, we on the other, each behind a kernel NAT, in both roles."""

from __future__ import annotations

import asyncio
import time

import aioice
import pytest

from ice_punch import IceConnection
from ice_punch.ice.candidate import Candidate, CandidateType
from ice_punch.lab.kernel import KernelInternet
from ice_punch.sdp import Description
from ice_punch.webrtc.aioice_connection import to_aioice
from support.coturn import Coturn
from support.introduction import Mailbox, Party, introduce
from support.netns import NETNS

pytestmark = NETNS

STUN = ("203.0.113.10", 3478)
MESSAGES = 20


def ours(*, controlling: bool) -> Party:
    async def party(mailbox: Mailbox) -> dict[str, object]:
        async with IceConnection(
            controlling=controlling, ice_servers=[f"stun:{STUN[0]}:{STUN[1]}"]
        ) as connection:
            async for _ in connection.gather():
                pass
            mailbox.send(connection.local_description)
            connection.set_remote_description(await mailbox.recv())
            began = time.monotonic()
            await connection.connect(timeout=15)
            took = time.monotonic() - began
            got = []
            for number in range(MESSAGES):
                await connection.send(b"ours %d" % number)
                got.append(await asyncio.wait_for(connection.recv(), 5))
            path = connection.path
            assert path is not None
            mailbox.send("done")
            await mailbox.recv()
            return {"got": got, "kind": path.kind, "controlling": controlling, "took": took}

    return party


def theirs(*, controlling: bool) -> Party:
    async def party(mailbox: Mailbox) -> list[bytes]:
        connection = aioice.Connection(ice_controlling=controlling, stun_server=STUN)
        await connection.gather_candidates()
        mailbox.send(
            Description(
                ufrag=connection.local_username,
                pwd=connection.local_password,
                options=(),
                protocol="UDP",
                formats=("octet-stream",),
                candidates=tuple(map(_our_form, connection.local_candidates)),
                end_of_candidates=True,
            ).to_sdp()
        )
        remote = Description.parse(await mailbox.recv())
        connection.remote_username, connection.remote_password = remote.ufrag, remote.pwd
        for candidate in remote.candidates:
            await connection.add_remote_candidate(to_aioice(candidate))
        await connection.add_remote_candidate(None)
        await connection.connect()
        got = []
        for number in range(MESSAGES):
            got.append(await asyncio.wait_for(connection.recv(), 10))
            await connection.send(b"theirs %d" % number)
        mailbox.send("done")
        await mailbox.recv()
        await connection.close()
        return got

    return party


def _our_form(candidate: aioice.Candidate) -> Candidate:
    related = None
    if candidate.related_address is not None and candidate.related_port is not None:
        related = (candidate.related_address, candidate.related_port)
    return Candidate(
        foundation=candidate.foundation,
        component=candidate.component,
        transport=candidate.transport,
        priority=candidate.priority,
        host=candidate.host,
        port=candidate.port,
        type=CandidateType(candidate.type),
        related_address=related,
    )


@pytest.mark.parametrize("we_control", [True, False])
def test_connects_directly_and_carries_data_both_ways(we_control: bool) -> None:
    with (
        KernelInternet() as net,
        Coturn(STUN[0], STUN[1], command_prefix=net.public.command([])),
    ):
        us, them = introduce(
            net.peer_a,
            ours(controlling=we_control),
            net.peer_b,
            theirs(controlling=not we_control),
        )
    assert us["kind"] == "direct"
    assert us["got"] == [b"theirs %d" % n for n in range(MESSAGES)]
    assert them == [b"ours %d" % n for n in range(MESSAGES)]


def test_a_role_conflict_with_aioice_is_resolved() -> None:
    with (
        KernelInternet() as net,
        Coturn(STUN[0], STUN[1], command_prefix=net.public.command([])),
    ):
        us, _ = introduce(net.peer_a, ours(controlling=True), net.peer_b, theirs(controlling=True))
    assert us["kind"] == "direct"
