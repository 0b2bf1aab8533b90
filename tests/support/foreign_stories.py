"""What happens to sessions with other ICE stacks once they are connected, while data flows."""

from __future__ import annotations

import asyncio

from ice_punch.lab.kernel.internet import load_rules
from ice_punch.sdp import format_candidate
from support.foreign_peer import description
from support.foreign_sessions import Session, until_completed


async def we_restart(session: Session) -> None:
    async with session.traffic():
        await asyncio.sleep(0.1)
        session.connection.restart()
        await _answer_and_settle(session)


async def they_restart(session: Session) -> None:
    async with session.traffic():
        await asyncio.sleep(0.1)
        await _answer_and_settle(session)


async def _answer_and_settle(session: Session) -> None:
    """Their restart, which is their answer where we have begun, and ours where they have."""
    connection, peer = session.connection, session.peer
    before, selected = peer.lines, len(session.selected)
    peer.order(restart=True)
    credentials = await peer.first("credentials", after=before)
    connection.set_remote_description(description(credentials, session.theirs))
    local = connection.describe()
    peer.order(remote={"ufrag": local.ufrag, "pwd": local.pwd})
    for candidate in local.candidates:
        peer.order(candidate=format_candidate(candidate))
    peer.order(end=True)
    await peer.tell_candidates(connection.add_remote_candidate, after=before)
    connection.add_remote_candidate(None)
    async with asyncio.timeout(10):
        while len(session.selected) == selected:
            await asyncio.sleep(0.01)
    await peer.ready(after=before)
    await until_completed(connection)


BLOCKED = """
table inet blocked {
 chain forward {
  type filter hook forward priority 0
  ip saddr { 198.51.100.16, 198.51.100.32 } ip daddr { 198.51.100.16, 198.51.100.32 } drop
 }
}
"""
"""Rules of the internet by which nothing passes from one NAT to the other."""
NOTHING_PASSES = """
table {} closed {{
 chain forward {{
  type filter hook forward priority 0; policy drop
 }}
}}
"""
"""Of one family."""


async def the_direct_way_opens(session: Session) -> None:
    async with session.traffic():
        session.net.public.run(["nft", "delete", "table", "inet", "blocked"])
        async with asyncio.timeout(20):
            while session.selected[-1].kind != "direct":
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)


async def the_selected_family_fails(session: Session) -> None:
    """The other one stands by."""
    async with session.traffic():
        await asyncio.sleep(1.0)
        family = "ip6" if ":" in session.selected[-1].remote[0] else "ip"
        load_rules(session.net.public.namespace, NOTHING_PASSES.format(family))
        selected = len(session.selected)
        async with asyncio.timeout(20):
            while len(session.selected) == selected:
                await asyncio.sleep(0.01)
        await asyncio.sleep(1.0)
