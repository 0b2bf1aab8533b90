"""One link for both worlds: listen() and connect() take peers that speak WebRTC.

The other side is stock aiortc behind the page's protocol (`support.tab`).
"""

from __future__ import annotations

import asyncio
import importlib.util
import re
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

import ice_punch
from ice_punch import (
    ChannelClosed,
    DatagramTooLarge,
    FingerprintMismatch,
    HandshakeFailed,
    IcePunchError,
    InvalidConfiguration,
    InvalidDescription,
    NoRoute,
)
from ice_punch.channel import Channel
from ice_punch.errors import ExtraMissing
from ice_punch.peer import Listener, PeerOptions, transports
from ice_punch.webrtc import WebRtcChannel, WebRtcPeer
from ice_punch.webrtc.association import MAX_MESSAGE_SIZE
from signaling.link import Link
from support.loopback import GATHERING, OPTIONS, signaling
from support.tab import Tab, aiortc_on_loopback, tab
from support.webrtc import two_pythons


async def _next(listener: Listener) -> Channel:
    return await asyncio.wait_for(listener.next_channel(), 15)


def _session(story: Callable[[WebRtcChannel, Tab], Awaitable[None]], **options: Any) -> None:
    """A listener, a tab that has its link open, and what they do."""

    async def run() -> None:
        given = replace(OPTIONS, **options)
        async with (
            signaling() as url,
            ice_punch.listen(url, given) as listener,
            tab(listener.link) as page,
        ):
            channel = await _next(listener)
            assert isinstance(channel, WebRtcChannel)
            await page.connected()
            try:
                await story(channel, page)
            finally:
                await channel.close()

    asyncio.run(run())


def test_a_browser_is_a_channel_like_any_other() -> None:
    async def story(channel: WebRtcChannel, page: Tab) -> None:
        assert page.answered == [("sctp",)]
        page.datagrams.send(b"ping")
        page.datagrams.send("as text")
        assert [await channel.recv(), await channel.recv()] == [b"ping", b"as text"]
        await channel.send(b"pong")
        channel.send_nowait(b"one more", expires_in=1.0)
        await channel.send_many([b"a", b"b"])
        got = {await page.datagrams.next() for _ in range(4)}
        assert got == {b"pong", b"one more", b"a", b"b"}
        assert channel.stats.datagrams_sent == 4
        assert channel.stats.datagrams_received == 2
        assert channel.stats.bytes_received == 11
        assert channel.path is not None
        assert channel.path.kind == "direct"
        assert channel.encryption is not None
        assert channel.encryption.version.startswith("DTLSv1.")
        assert channel.timings.dtls is not None

    _session(story)


def test_messages_are_reliable_and_of_both_kinds() -> None:
    async def story(channel: WebRtcChannel, page: Tab) -> None:
        page.messages.send("grüß dich")
        page.messages.send(b"\x00\x01")
        assert await channel.messages.recv() == "grüß dich"
        assert await channel.messages.recv() == b"\x00\x01"
        for number in range(200):
            await channel.messages.send(str(number))
        assert [await page.messages.next() for _ in range(200)] == [str(n) for n in range(200)]

    _session(story)


def test_the_largest_datagram_is_one_packet() -> None:
    async def story(channel: WebRtcChannel, page: Tab) -> None:
        size = channel.max_datagram_size
        assert 1100 < size < 1200
        await channel.send(bytes(size))
        assert await page.datagrams.next() == bytes(size)
        with pytest.raises(DatagramTooLarge):
            await channel.send(bytes(size + 1))

    _session(story)


def test_of_datagrams_that_nobody_reads_the_newest_are_kept() -> None:
    async def story(channel: WebRtcChannel, page: Tab) -> None:
        for number in range(100):
            page.datagrams.send(str(number))
        page.messages.send("all sent")
        await channel.messages.recv()
        async with asyncio.timeout(5):
            while channel.stats.datagrams_received < 100:
                await asyncio.sleep(0.01)
        kept = await channel.recv_many()
        assert kept == [str(n).encode() for n in range(92, 100)]
        assert channel.stats.dropped_oldest == 92

    _session(story, receive_queue=8)


def test_a_flood_of_datagrams_leaves_messages_their_turn_and_the_other_way_round() -> None:
    async def run() -> None:
        async with two_pythons() as (here, there):
            bulk, _ = await asyncio.gather(here.open_channel("bulk"), there.accept_channel())

            async def flood() -> None:
                while True:
                    await here.send(bytes(1100))

            async def pour() -> None:
                while True:
                    await bulk.send(bytes(16384))

            floods = [asyncio.ensure_future(flood()), asyncio.ensure_future(pour())]
            await asyncio.sleep(0.3)
            before = there.stats.datagrams_received
            await here.messages.send("through all of it")
            assert await asyncio.wait_for(there.messages.recv(), 3) == "through all of it"
            async with asyncio.timeout(3):
                while there.stats.datagrams_received < before + 100:
                    await asyncio.sleep(0.01)
            for task in floods:
                task.cancel()

    asyncio.run(run())


def test_python_and_browsers_use_one_link_at_once() -> None:
    async def run() -> None:
        async with (
            signaling() as url,
            ice_punch.listen(url, OPTIONS) as listener,
            ice_punch.connect(listener.link, OPTIONS) as plain,
            tab(listener.link) as page,
        ):
            accepted = [await _next(listener), await _next(listener)]
            await page.connected()
            assert sorted(type(c).__name__ for c in accepted) == ["Channel", "WebRtcChannel"]
            await plain.send(b"plain")
            page.datagrams.send(b"tab")
            assert {await c.recv() for c in accepted} == {b"plain", b"tab"}
            for channel in accepted:
                await channel.close()

    asyncio.run(run())


def test_a_page_that_was_there_first_is_offered_to() -> None:
    """Who came later offers: here that is the listener."""

    async def run() -> None:
        async with signaling() as url:
            late = ice_punch.listen(url, OPTIONS)
            async with tab(late.link) as page, late:
                channel = await _next(late)
                await page.connected()
                assert page.answered == [("datagram", "sctp")]
                assert "a=setup:actpass" in page.sdp[0]
                assert f"a=max-message-size:{MAX_MESSAGE_SIZE}" in page.sdp[0]
                await channel.send(b"to the page")
                assert await page.datagrams.next() == b"to the page"
                await channel.close()

    asyncio.run(run())


def test_two_python_sides_may_want_data_channels_too() -> None:
    async def run() -> None:
        async with two_pythons(OPTIONS) as (channel, accepted):
            await channel.messages.send("hello")
            assert await accepted.messages.recv() == "hello"
            await channel.send(b"datagram")
            assert await accepted.recv() == b"datagram"

    asyncio.run(run())


def test_ice_restarts_under_data_channels() -> None:
    async def run() -> None:
        async with two_pythons() as (channel, accepted):
            for side in (accepted, channel):
                await asyncio.sleep(1.05)  # restarts are a second apart
                await side.restart()
                async with asyncio.timeout(5):
                    while channel.connection.restarting or accepted.connection.restarting:
                        await asyncio.sleep(0.02)
                await channel.messages.send("on")
                assert await asyncio.wait_for(accepted.messages.recv(), 5) == "on"

    asyncio.run(run())


# -- ends -------------------------------------------------------------------------------------


def test_what_was_sent_before_closing_still_arrives() -> None:
    async def story(channel: WebRtcChannel, page: Tab) -> None:
        for number in range(20):
            await channel.messages.send(str(number))
        await channel.close()
        assert [await page.messages.next() for _ in range(20)] == [str(n) for n in range(20)]
        await asyncio.wait_for(page.messages.closed.wait(), 5)
        assert await page.goodbye() == ("bye", _goodbye("closed"))

    _session(story)


def _goodbye(reason: str) -> Any:
    from ice_punch.peer.post import Goodbye

    return Goodbye(reason)


def test_a_tab_that_closes_ends_every_read_with_one_sentence() -> None:
    async def story(channel: WebRtcChannel, page: Tab) -> None:
        opened = await channel.open_channel("mine")
        reads = [channel.recv(), channel.messages.recv(), opened.recv(), channel.accept_channel()]
        reading = asyncio.gather(*reads, return_exceptions=True)
        await asyncio.sleep(0.05)
        await page.close()
        for error in await asyncio.wait_for(reading, 5):
            assert isinstance(error, ChannelClosed)
            assert str(error) == "the peer closed the channel"
        with pytest.raises(ChannelClosed, match="the peer closed the channel"):
            await channel.send(b"into nothing")

    _session(story)


def test_a_page_that_says_goodbye_through_signaling_only_is_believed() -> None:
    async def story(channel: WebRtcChannel, page: Tab) -> None:
        assert page.post is not None
        await page.post.send("bye", _goodbye("closed"))
        with pytest.raises(ChannelClosed):
            await asyncio.wait_for(channel.messages.recv(), 5)

    _session(story)


def test_closing_while_data_channels_are_being_set_up_hangs_nobody() -> None:
    async def run() -> None:
        async with (
            WebRtcPeer(options=GATHERING, trickle=False) as a,
            WebRtcPeer(options=GATHERING, trickle=False) as b,
        ):
            await a.set_answer(await b.create_answer(await a.create_offer()))
            opening = asyncio.ensure_future(a.connect())
            while a._channel is None or a._channel.encryption is None:
                await asyncio.sleep(0)
            await a._channel.close()
            with pytest.raises(ChannelClosed):
                await asyncio.wait_for(opening, 2)
            with pytest.raises((ChannelClosed, HandshakeFailed)):
                await asyncio.wait_for(b.connect(), 2)

    asyncio.run(run())


# -- wrong use --------------------------------------------------------------------------------


async def _refused(
    options: PeerOptions, expected: type[IcePunchError], sentence: str, told: str, **page: Any
) -> None:
    """The listener's error, and what the tab is told."""
    spoil = page.pop("spoil", None)
    async with signaling() as url, ice_punch.listen(url, options) as listener:
        with aiortc_on_loopback():
            opened = Tab(listener.link, **page)
            opened.spoil = spoil
            async with opened:
                with pytest.raises(expected, match=sentence):
                    await _next(listener)
                kind, goodbye = await opened.goodbye()
                assert kind == "reject"
                assert told in goodbye.reason


def test_without_the_extra_both_sides_are_told_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "aiortc" else found(name, *a)
    )
    how = "pip install 'ice-punch[webrtc]'"
    asyncio.run(_refused(OPTIONS, ExtraMissing, how.replace("[", r"\["), how))
    with pytest.raises(ExtraMissing, match="pip install"):
        ice_punch.listen("http://127.0.0.1:1", replace(OPTIONS, transports=("sctp",)))


def test_importing_it_without_the_extra_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [n for n in sys.modules if n.split(".")[0] == "aiortc" or "ice_punch.webrtc" in n]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "aiortc", None)
    with pytest.raises(ImportError, match=r"pip install 'ice-punch\[webrtc\]'") as raised:
        importlib.import_module("ice_punch.webrtc")
    assert isinstance(raised.value, ExtraMissing)


def test_a_side_that_takes_datagrams_only_refuses_a_browser() -> None:
    options = replace(OPTIONS, transports=("datagram",))
    asyncio.run(_refused(options, HandshakeFailed, "takes datagrams only", "takes datagrams only"))


def test_a_side_that_does_not_encrypt_refuses_a_browser() -> None:
    asyncio.run(
        _refused(
            replace(OPTIONS, encrypt=False), HandshakeFailed, "told not to", "told not to encrypt"
        )
    )


def test_data_channels_without_encryption_are_no_option() -> None:
    for wrong in ({"transports": ("sctp",), "encrypt": False}, {"transports": ("quic",)}):
        with pytest.raises(InvalidConfiguration):
            ice_punch.listen("http://127.0.0.1:1", replace(OPTIONS, **wrong))


def test_an_unknown_transport_is_ignored() -> None:
    async def run() -> None:
        async with (
            signaling() as url,
            ice_punch.listen(url, OPTIONS) as listener,
            tab(listener.link, transports=("quic", "sctp", "datagram")) as page,
        ):
            channel = await _next(listener)
            assert page.answered == [("sctp",)]
            await channel.close()

    asyncio.run(run())


def test_an_offer_of_nothing_that_we_know_is_refused() -> None:
    asyncio.run(
        _refused(OPTIONS, HandshakeFailed, "data channels", "data channels", transports=("quic",))
    )


def test_an_offer_without_a_data_channel_is_refused_on_both_sides() -> None:
    def audio(sdp: str) -> str:
        return re.sub("m=application ([0-9]+) .*", r"m=audio \1 UDP 0", sdp)

    asyncio.run(
        _refused(
            OPTIONS,
            InvalidDescription,
            "the peer's description has no data channel",
            "what it was offered has no data channel",
            spoil=audio,
        )
    )


def test_a_fingerprint_of_somebody_else_is_found_out() -> None:
    def forged(sdp: str) -> str:
        lines = [line for line in sdp.split("\r\n") if not line.startswith("a=fingerprint")]
        at = next(n for n, line in enumerate(lines) if line.startswith("a=setup"))
        lines.insert(at, "a=fingerprint:sha-256 " + ":".join(["AB"] * 32))
        return "\r\n".join(lines)

    asyncio.run(
        _refused(
            OPTIONS, FingerprintMismatch, "not the one", "not the one its description", spoil=forged
        )
    )


@pytest.mark.parametrize("asked", ["to offer", "to answer"])
def test_a_page_that_refuses_ends_the_attempt_with_its_reason(asked: str) -> None:
    async def run() -> None:
        async with signaling() as url:
            listener = ice_punch.listen(url, OPTIONS)
            with aiortc_on_loopback():
                page = Tab(listener.link)

                async def refuse(*_: Any) -> None:
                    assert page.post is not None
                    await page.post.send("reject", _goodbye("this browser has no WebRTC"))

                page.pc.setRemoteDescription = refuse
                page._describe = page._describe if asked == "to offer" else refuse  # type: ignore
                first, second = (listener, page) if asked == "to offer" else (page, listener)
                async with first, second:
                    with pytest.raises(
                        (NoRoute, HandshakeFailed), match=": this browser has no WebRTC"
                    ):
                        await _next(listener)

    asyncio.run(run())


def test_a_wrong_secret_is_refused_and_the_page_told() -> None:
    async def run() -> None:
        async with signaling() as url, ice_punch.listen(url, OPTIONS) as listener:
            other = Link.parse(listener.link)
            wrong = replace(other, secret=bytes(len(other.secret)))
            with aiortc_on_loopback():
                page = Tab(str(wrong))
                got: asyncio.Queue = asyncio.Queue()

                async def take(event: Any) -> None:
                    got.put_nowait((event.kind, event.data))

                page._take = take  # type: ignore[method-assign]
                async with page:
                    assert await asyncio.wait_for(got.get(), 5) == ("reject", "")
                    assert listener.refused == 1

    asyncio.run(run())


def test_the_peer_floor_announces_what_webrtc_takes() -> None:
    assert transports.MAX_MESSAGE_SIZE == MAX_MESSAGE_SIZE
