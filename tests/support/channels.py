"""Two channels to each other, without signaling: plain ones and encrypted ones."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from ice_punch import GatheringOptions, IceConnection
from ice_punch.channel import Channel
from ice_punch.dtls import Certificate, DtlsMachine, DtlsRole
from ice_punch.ice import AgentConfig
from ice_punch.sdp import Description, Setup
from support.loopback import GATHERING


class End:
    """One side: a connection, and the channel on it once the other side's description is known."""

    def __init__(
        self,
        first: bool,
        *,
        encrypt: bool,
        gathering: GatheringOptions = GATHERING,
        agent_config: AgentConfig | None = None,
        **queues: Any,
    ) -> None:
        self._first = first
        self._queues = queues
        self._certificate = Certificate.generate() if encrypt else None
        self.connection = IceConnection(
            controlling=first, options=gathering, agent_config=agent_config, **queues
        )

    async def describe(self) -> str:
        async for _ in self.connection.gather():
            pass
        if self._certificate is None:
            return self.connection.local_description
        return self.connection.describe(
            setup=Setup.ACTIVE if self._first else Setup.PASSIVE,
            fingerprints=self._certificate.fingerprints(),
        ).to_sdp()

    async def connect(self, remote: str) -> Channel:
        description = Description.parse(remote)
        self.connection.set_remote_description(description)
        await self.connection.connect(15)
        machine = None
        if self._certificate is not None:
            machine = DtlsMachine(
                self._certificate,
                DtlsRole.CLIENT if self._first else DtlsRole.SERVER,
                description.fingerprints,
                mtu=self.connection.max_datagram_size,
            )
        channel = Channel(self.connection, machine, **self._queues)
        await channel.open()
        return channel


@contextlib.asynccontextmanager
async def channels(*, encrypt: bool, **options: Any) -> AsyncIterator[tuple[Channel, Channel]]:
    """Both ends in this process, over the loopback interface."""
    ends = [End(first, encrypt=encrypt, **options) for first in (True, False)]
    descriptions = [await end.describe() for end in ends]
    a, b = await asyncio.gather(
        *(end.connect(remote) for end, remote in zip(ends, reversed(descriptions), strict=True))
    )
    async with a, b:
        yield a, b
