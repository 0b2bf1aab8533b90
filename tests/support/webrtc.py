"""Two of ours that talk over data channels."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import ice_punch
from ice_punch.peer import PeerOptions
from ice_punch.webrtc import WebRtcChannel
from support.loopback import OPTIONS, signaling

SCTP = replace(OPTIONS, transports=("sctp",))


@contextlib.asynccontextmanager
async def two_pythons(
    connecting: PeerOptions = SCTP, listening: PeerOptions = SCTP
) -> AsyncIterator[tuple[WebRtcChannel, WebRtcChannel]]:
    """The channel of the side that connected, and of the one that listened."""
    async with (
        signaling() as url,
        ice_punch.listen(url, listening) as listener,
        ice_punch.connect(listener.link, connecting) as channel,
    ):
        accepted = await asyncio.wait_for(listener.next_channel(), 10)
        assert isinstance(channel, WebRtcChannel)
        assert isinstance(accepted, WebRtcChannel)
        try:
            yield channel, accepted
        finally:
            await accepted.close()
