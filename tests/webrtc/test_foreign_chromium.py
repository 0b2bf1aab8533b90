"""WebRtcPeer with a real browser, over signaling that knows nothing of either: both directions of
offer, trickle, restarts by both sides, and the end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from ice_punch import ChannelClosed
from ice_punch.ice import IceState
from ice_punch.webrtc import DataChannel, WebRtcChannel, WebRtcPeer
from signaling.server import SignalingServer
from support.loopback import GATHERING
from support.tabs import LOOPBACK, ChromiumTab, chromium_tabs

SCRIPT = """(() => {
  globalThis.pc = new RTCPeerConnection();
  globalThis.found = [];
  globalThis.channels = {};
  globalThis.got = [];
  pc.onicecandidate = (e) => found.push(e.candidate?.toJSON() ?? { candidate: "" });
  globalThis.keep = (channel) => {
    channel.binaryType = "arraybuffer";
    channels[channel.label] = channel;
    channel.onmessage = (e) =>
      got.push(typeof e.data === "string" ? e.data : `${e.data.byteLength} bytes`);
  };
  pc.ondatachannel = (e) => keep(e.channel);
  keep(pc.createDataChannel("page's"));
  globalThis.describe = async (kind) => {
    await pc.setLocalDescription(await (kind === "offer" ? pc.createOffer() : pc.createAnswer()));
    return pc.localDescription.sdp;
  };
})()"""


class Beside:
    """An event loop in a thread: Playwright's own has this one."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, Any], timeout: float = 20) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)
        self.loop.close()


class Session:
    """A page and a peer of ours, whose signaling is this object."""

    def __init__(self, tab: ChromiumTab, beside: Beside, script: str = SCRIPT) -> None:
        self.tab, self.call, self._loop = tab, beside.call, beside.loop
        self.peer: WebRtcPeer = self.call(_make())
        self._ours: list[dict[str, Any]] = []
        self._told = self._taken = 0
        self.call(self._collect())
        tab.evaluate(script)

    async def _collect(self) -> None:
        async def collect() -> None:
            async for candidate in self.peer.candidates():
                self._ours.append(candidate.to_json())

        self._collecting = asyncio.ensure_future(collect())

    def offer_to_page(self, *, restart: bool = False) -> None:
        self._set("offer", self.call(self.peer.create_offer(restart=restart)))
        self.call(self.peer.set_answer(self.tab.evaluate("describe('answer')")))

    def offer_to_us(self) -> None:
        offer = self.tab.evaluate("describe('offer')")
        self._set("answer", self.call(self.peer.create_answer(offer)))

    def _set(self, kind: str, sdp: str) -> None:
        self.tab.page.evaluate("(d) => pc.setRemoteDescription(d)", {"type": kind, "sdp": sdp})

    def until(self, done: Callable[[], Any]) -> None:
        """Trickle both ways until it is so."""
        deadline = time.monotonic() + 20
        while not done():
            assert time.monotonic() < deadline, self.tab.evaluate("pc.iceConnectionState")
            theirs = self.tab.evaluate("found")
            for candidate in theirs[self._taken :]:
                self._loop.call_soon_threadsafe(self.peer.add_candidate, candidate)
            self._taken = len(theirs)
            for candidate in self._ours[self._told :]:
                self.tab.page.evaluate("(c) => pc.addIceCandidate(c)", candidate)
                self._told += 1
            time.sleep(0.02)

    def channel(self) -> WebRtcChannel:
        self.until(lambda: self.tab.evaluate("pc.connectionState === 'connected'"))
        channel: WebRtcChannel = self.call(self.peer.connect(10))
        return channel

    def close(self) -> None:
        self._collecting.cancel()
        self.call(self.peer.close())


async def _make() -> WebRtcPeer:
    return WebRtcPeer(options=GATHERING)


@pytest.fixture(scope="module")
def beside() -> Iterator[Beside]:
    beside = Beside()
    yield beside
    beside.close()


@pytest.fixture(scope="module")
def open_session(beside: Beside) -> Iterator[Callable[[], Session]]:
    server = beside.call(SignalingServer.start("127.0.0.1", 0))
    with chromium_tabs((), LOOPBACK) as open_tab:

        def open_session(script: str = SCRIPT) -> Session:
            tab = open_tab()
            tab.visit(f"http://127.0.0.1:{server.port}/healthz")
            return Session(tab, beside, script)

        yield open_session
    beside.call(server.close())


@pytest.fixture(params=["we offer", "the page offers"])
def session(request: Any, open_session: Callable[[], Session]) -> Iterator[Session]:
    session = open_session()
    session.offer_to_page() if request.param == "we offer" else session.offer_to_us()
    yield session
    session.close()


async def _recv(channel: DataChannel) -> Any:
    return await asyncio.wait_for(channel.recv(), 10)


def test_data_channels_restarts_and_the_end(session: Session) -> None:
    tab, call = session.tab, session.call
    channel = session.channel()
    theirs: DataChannel = call(channel.accept_channel())
    assert (theirs.label, theirs.reliable) == ("page's", True)
    tab.until("channels[\"page's\"].readyState === 'open'")

    def say(message: str) -> None:
        tab.evaluate(f'channels["page\'s"].send({message})')

    for message, expected in (
        ("'grüße'", "grüße"),
        ("''", ""),
        ("new Uint8Array(3)", bytes(3)),
        ("'x'.repeat(200000)", "x" * 200_000),
    ):
        say(message)
        assert call(_recv(theirs)) == expected
    for message in ("größer", "", bytes(5), "y" * 200_000):
        call(theirs.send(message))
    tab.until("got.length === 4")
    assert tab.evaluate("got") == ["größer", "", "5 bytes", "y" * 200_000]

    ours = call(channel.open_channel("ours", "chat", ordered=False, max_retransmits=0))
    tab.until("channels.ours?.readyState === 'open'")
    opened = tab.evaluate("(c => [c.protocol, c.ordered, c.maxRetransmits])(channels.ours)")
    assert opened == ["chat", False, 0]
    call(ours.send(b"datagram"))
    tab.until("got.at(-1) === '8 bytes'")
    tab.evaluate("channels.ours.close()")
    call(asyncio.wait_for(ours.wait_closed(), 5))

    for restarts in ("the page", "we"):
        before = session.peer.connection.remote_description
        if restarts == "the page":
            tab.evaluate("pc.restartIce()")
            session.offer_to_us()
        else:
            session.offer_to_page(restart=True)
        assert session.peer.connection.remote_description.is_ice_restart(before)
        say("'meanwhile'")
        assert call(_recv(theirs)) == "meanwhile"
        session.until(lambda: session.peer.connection.state is IceState.COMPLETED)
        say(f"'after {restarts}'")
        assert call(_recv(theirs)) == f"after {restarts}"
    tab.evaluate("pc.close()")
    with pytest.raises(ChannelClosed, match="the peer closed the channel"):
        call(_recv(theirs))
    assert not tab.complaints


def test_a_page_hears_of_our_end_at_once(open_session: Callable[[], Session]) -> None:
    session = open_session()
    session.offer_to_page()
    channel = session.channel()
    theirs: DataChannel = session.call(channel.accept_channel())
    session.call(theirs.send("last words"))
    session.call(channel.close())
    session.tab.until("channels[\"page's\"].readyState === 'closed'", timeout=5)
    assert session.tab.evaluate("got") == ["last words"]
    session.close()


@pytest.mark.parametrize("policy", ["balanced", "max-compat"])
def test_a_data_channel_behind_audio_is_taken_and_the_audio_rejected(
    open_session: Callable[..., Session], policy: str
) -> None:
    made = f"""new RTCPeerConnection({{ bundlePolicy: "{policy}" }});
      pc.addTransceiver("audio")"""
    session = open_session(SCRIPT.replace("new RTCPeerConnection()", made))
    session.offer_to_us()
    assert session.tab.evaluate("pc.getTransceivers().length") == 0  # it was stopped
    channel = session.channel()
    theirs: DataChannel = session.call(channel.accept_channel())
    session.tab.until("channels[\"page's\"].readyState === 'open'")
    session.tab.evaluate("channels[\"page's\"].send('beside music')")
    assert session.call(_recv(theirs)) == "beside music"
    session.tab.evaluate("pc.restartIce()")
    session.offer_to_us()
    session.offer_to_page()
    session.call(theirs.send("still"))
    session.tab.until("got.at(-1) === 'still'")
    session.close()
