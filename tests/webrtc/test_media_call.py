"""Audio and video of aiortc's over our ICE, with stock aiortc on the other side."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

pytest.importorskip("aiortc", reason="needs the extra webrtc")

from aiortc import RTCPeerConnection
from aiortc.mediastreams import AudioStreamTrack, MediaStreamTrack, VideoStreamTrack

from ice_punch.webrtc import peer_connection
from support.loopback import GATHERING
from support.tab import Messages, aiortc_on_loopback, stock_connection


class Party:
    """Sends audio, video and messages, and counts what comes."""

    def __init__(self, pc: RTCPeerConnection) -> None:
        self.pc = pc
        self.frames: Counter[str] = Counter()
        self.size: tuple[int, int] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        pc.addTrack(AudioStreamTrack())
        pc.addTrack(VideoStreamTrack())
        pc.on("track", lambda track: self._tasks.append(asyncio.ensure_future(self._take(track))))

    async def _take(self, track: MediaStreamTrack) -> None:
        while True:
            frame = await track.recv()
            self.frames[track.kind] += 1
            if track.kind == "video":
                self.size = (frame.width, frame.height)

    async def has_seen(self, each: int) -> None:
        while min(self.frames["audio"], self.frames["video"]) < each:
            await asyncio.sleep(0.02)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await self.pc.close()


@pytest.mark.parametrize("we_call", [True, False], ids=["ours calls stock", "stock calls ours"])
def test_a_call_has_audio_video_and_data_both_ways(we_call: bool) -> None:
    async def story() -> None:
        ours = Party(peer_connection(options=GATHERING))
        stock = Party(stock_connection())
        caller, callee = (ours, stock) if we_call else (stock, ours)
        arrived: asyncio.Queue = asyncio.Queue()
        callee.pc.on("datachannel", arrived.put_nowait)
        here = Messages(caller.pc.createDataChannel("captions"))
        try:
            await caller.pc.setLocalDescription()
            await callee.pc.setRemoteDescription(caller.pc.localDescription)
            await callee.pc.setLocalDescription()
            await caller.pc.setRemoteDescription(callee.pc.localDescription)
            async with asyncio.timeout(20):
                await asyncio.gather(ours.has_seen(5), stock.has_seen(5), here.opened.wait())
            there = Messages(await asyncio.wait_for(arrived.get(), 5))
            here.send("hello")
            assert await there.next() == "hello"
            assert ours.size == stock.size == (640, 480)
            assert len(ours.pc.ice_connections) == 1, "media and data are bundled"
            kinds = Counter(s.type for s in (await ours.pc.getStats()).values())
            assert kinds["inbound-rtp"] == 2
            assert kinds["candidate-pair"] == 1
        finally:
            await ours.close()
            await stock.close()

    with aiortc_on_loopback():
        asyncio.run(story())
