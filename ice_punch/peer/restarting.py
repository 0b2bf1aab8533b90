"""ICE restarts over signaling, RFC 8445 section 9 and RFC 8839 section 4.4: one peer makes every
offer, the other asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from ice_punch.connection import IceConnection
from ice_punch.errors import RestartRefused
from ice_punch.ice import RestartAdvised
from ice_punch.ice.advice import addresses_within
from ice_punch.sdp import Description
from signaling.negotiation import AskForOffer, MakeOffer, Negotiation

LONGEST_WAY = 2.0
"""Seconds that a letter may take for checks to wait for it."""


def way_of_a_letter(ours: float | None, theirs: float | None) -> float:
    """Seconds from one peer over the server to the other, by the round trips of both to the server;
    0 if nobody knows."""
    if theirs is None or ours is None or not 0 <= theirs <= LONGEST_WAY:
        return 0.0
    return min((theirs + ours) / 2, LONGEST_WAY)


class Restarts:
    """Makes and answers the restarts of one attempt. Errors of signaling end a restart and nothing
    else: the next advice comes."""

    def __init__(
        self,
        connection: IceConnection,
        negotiation: Negotiation[Any],
        *,
        describe: Callable[[bool], Awaitable[None]],
        ask: Callable[[int, str], Awaitable[None]],
        take: Callable[[Description, int, float | None], None],
        way: Callable[[], float],
    ) -> None:
        """``describe(offer)`` sends our description as an offer or an answer, ``ask`` the wish for
        an offer of a generation, with the reason; ``take`` sets the peer's description of a
        generation, with the instant of the start; ``way`` is how long a message takes, seconds."""
        self._connection = connection
        self._negotiation = negotiation
        self._describe = describe
        self._ask = ask
        self._take = take
        self._way = way
        self._loop = asyncio.get_running_loop()
        self._fresh_sockets = False

    async def advised(self, advice: RestartAdvised) -> None:
        """The agent has found that only a restart helps. Raises RestartRefused while another one is
        under way, and less than a second after one."""
        step = self._negotiation.restart(self._loop.time())
        if isinstance(step, MakeOffer):
            await self._offer(fresh_sockets=advice.fresh_sockets)
        elif isinstance(step, AskForOffer):
            self._fresh_sockets = advice.fresh_sockets
            await self._ask(step.generation, advice.reason)
        else:
            raise RestartRefused("an ICE restart is under way, or was a moment ago")

    async def asked(self, generation: int) -> None:
        """The peer wants an offer."""
        if self._negotiation.receive_restart(generation, self._loop.time()) is not None:
            await self._offer(fresh_sockets=False)

    async def offered(self, remote: Description, generation: int) -> None:
        """The peer restarts, by itself or because we asked."""
        if not self._connection.restarting:  # of an offer that this one replaces
            await self._begin(fresh_sockets=self._fresh_sockets)
        self._fresh_sockets = False
        if generation != self._negotiation.generation:
            return
        await self._describe(False)
        # Both sides begin when the peer has our answer.
        self._take(remote, generation, self._loop.time() + self._way())

    def answered(self, remote: Description, generation: int) -> None:
        """The peer has answered our restart."""
        self._take(remote, generation, self._loop.time())

    async def _offer(self, *, fresh_sockets: bool) -> None:
        await self._begin(fresh_sockets=fresh_sockets)
        await self._describe(True)

    async def _begin(self, *, fresh_sockets: bool) -> None:
        connection = self._connection
        if connection.restarting:
            raise RestartRefused("an ICE restart is under way")
        connection.restart(fresh_sockets=fresh_sockets, asked=True)
        await connection.addresses_known(addresses_within(fresh_sockets=fresh_sockets))
