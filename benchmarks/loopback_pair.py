"""Two channels to each other in one process, over the loopback interface."""

from __future__ import annotations

import asyncio
import sys

from ice_punch import GatheringOptions, IceConnection
from ice_punch.channel import Channel
from ice_punch.dtls import Certificate, DtlsMachine, DtlsRole
from ice_punch.sdp import Description, Setup

LOOPBACK = GatheringOptions(interface="lo0" if sys.platform == "darwin" else "lo", ipv6=False)


async def pair(*, encrypt: bool) -> tuple[Channel, Channel]:
    """Both ends, open."""
    certificates = [Certificate.generate() for _ in range(2)]
    connections = [IceConnection(controlling=c, options=LOOPBACK) for c in (True, False)]
    descriptions = []
    for connection, certificate, setup in zip(
        connections, certificates, (Setup.ACTIVE, Setup.PASSIVE), strict=True
    ):
        async for _ in connection.gather():
            pass
        prints = certificate.fingerprints() if encrypt else ()
        text = connection.describe(setup=setup if encrypt else None, fingerprints=prints).to_sdp()
        descriptions.append(Description.parse(text))
    channels = []
    for n, connection in enumerate(connections):
        connection.set_remote_description(descriptions[1 - n])
    for n, connection in enumerate(connections):
        await connection.connect(15)
        machine = None
        if encrypt:
            machine = DtlsMachine(
                certificates[n],
                DtlsRole.SERVER if n else DtlsRole.CLIENT,
                descriptions[1 - n].fingerprints,
                mtu=connection.max_datagram_size,
            )
        channels.append(Channel(connection, machine))
    await asyncio.gather(*(channel.open() for channel in channels))
    return channels[0], channels[1]
