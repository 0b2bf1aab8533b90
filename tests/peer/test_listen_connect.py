"""listen() and connect(): two programs, one link."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

import ice_punch
from ice_punch import (
    ChannelClosed,
    DatagramRefused,
    DatagramTooLarge,
    HandshakeFailed,
    IcePunchError,
    InvalidConfiguration,
    InvalidLink,
    PeerSilent,
    SignalingFailed,
    WrongSecret,
)
from ice_punch.channel import Channel
from ice_punch.peer import PeerOptions
from support.loopback import OPTIONS, signaling

PLAIN = replace(OPTIONS, encrypt=False)


async def _echo(channel: Channel) -> None:
    async for datagram in channel:
        await channel.send(b"echo " + datagram)


@pytest.mark.parametrize("options", [OPTIONS, PLAIN], ids=["encrypted", "plain"])
def test_datagrams_flow_both_ways_and_closing_one_side_closes_the_other(
    options: PeerOptions,
) -> None:
    async def run() -> None:
        async with signaling() as url, ice_punch.listen(url, options) as listener:

            async def listen() -> None:
                async with listener.accept() as channel:
                    await _echo(channel)

            listening = asyncio.ensure_future(listen())
            async with ice_punch.connect(listener.link, options) as channel:
                await channel.send(b"hello")
                assert await channel.recv() == b"echo hello"
                assert channel.path is not None
                assert channel.path.kind == "direct"
                assert (channel.encryption is not None) == options.encrypt
                assert channel.stats.datagrams_sent == 1
                assert channel.stats.datagrams_received == 1
            await asyncio.wait_for(listening, 1)

    asyncio.run(run())


def test_the_cipher_is_authenticated_and_the_version_is_known() -> None:
    async def run() -> None:
        async with signaling() as url, ice_punch.listen(url, OPTIONS) as listener:
            accepting = asyncio.ensure_future(_accept(listener))
            async with ice_punch.connect(listener.link, OPTIONS) as channel:
                assert channel.encryption is not None
                assert channel.encryption.version.startswith("DTLSv1.")
                assert channel.timings.dtls is not None
                assert channel.timings.signaling is not None
                assert channel.timings.checks is not None
            await (await accepting).close()

    asyncio.run(run())


async def _accept(listener: ice_punch.peer.Listener) -> Channel:
    return await listener.accept()


def test_several_peers_use_one_link() -> None:
    async def run() -> None:
        async with signaling() as url, ice_punch.listen(url, OPTIONS) as listener:
            channels: list[Channel] = []
            echoing: list[asyncio.Future[None]] = []

            async def serve() -> None:
                for _ in range(3):
                    channels.append(await listener.accept())
                    echoing.append(asyncio.ensure_future(_echo(channels[-1])))

            serving = asyncio.ensure_future(serve())
            for number in range(3):
                async with ice_punch.connect(listener.link, OPTIONS) as channel:
                    await channel.send(b"%d" % number)
                    assert await channel.recv() == b"echo %d" % number
            await serving
            for channel in channels:
                await channel.close()

    asyncio.run(run())


def test_a_wrong_secret_is_refused_on_both_sides_and_the_listener_waits_on() -> None:
    async def run() -> None:
        async with signaling() as url, ice_punch.listen(url, OPTIONS) as listener:
            wrong = listener.link.partition("#")[0] + "#" + "A" * 22
            with pytest.raises(WrongSecret):
                await ice_punch.connect(wrong, OPTIONS)
            assert listener.refused == 1
            accepting = asyncio.ensure_future(_accept(listener))
            async with ice_punch.connect(listener.link, OPTIONS):
                await (await accepting).close()

    asyncio.run(run())


@pytest.mark.parametrize(
    "link", ["", "http://127.0.0.1:1/j/AAAAAAAAAAAAAAAAAAAAAA", "not a link", "http://h/#abc"]
)
def test_a_bad_link_is_an_error_before_anything_is_sent(link: str) -> None:
    with pytest.raises(InvalidLink):
        ice_punch.connect(link)


def test_a_bad_server_url_is_an_error_before_anything_is_sent() -> None:
    with pytest.raises(InvalidConfiguration):
        ice_punch.listen("ftp://example.org")


def test_no_server_is_one_clear_error() -> None:
    async def run() -> None:
        with pytest.raises(SignalingFailed):
            async with ice_punch.listen("http://127.0.0.1:9", OPTIONS):
                pass
        link = "http://127.0.0.1:9/j/" + "A" * 22 + "#" + "A" * 22
        with pytest.raises(SignalingFailed):
            await ice_punch.connect(link, OPTIONS)

    asyncio.run(run())


def test_a_full_room_is_one_clear_error() -> None:
    async def run() -> None:
        async with signaling() as url, ice_punch.listen(url, OPTIONS, max_peers=2) as listener:
            accepting = asyncio.ensure_future(_accept(listener))
            async with ice_punch.connect(listener.link, OPTIONS):
                with pytest.raises(SignalingFailed, match="full"):
                    await ice_punch.connect(listener.link, OPTIONS)
            await (await accepting).close()

    asyncio.run(run())


def test_nobody_listening_is_peer_silent() -> None:
    async def run() -> None:
        async with signaling() as url:
            link = f"{url}/j/" + "B" * 22 + "#" + "A" * 22
            with pytest.raises(PeerSilent):
                await ice_punch.connect(link, replace(OPTIONS, timeout=0.3))

    asyncio.run(run())


@pytest.mark.parametrize(("listener", "connector"), [(OPTIONS, PLAIN), (PLAIN, OPTIONS)])
def test_one_side_alone_without_encryption_is_refused(
    listener: PeerOptions, connector: PeerOptions
) -> None:
    async def run() -> None:
        async with signaling() as url, ice_punch.listen(url, listener) as waiting:
            accepting = asyncio.ensure_future(_accept(waiting))
            with pytest.raises(IcePunchError, match=r"refused|encrypt"):
                await ice_punch.connect(waiting.link, connector)
            with pytest.raises(HandshakeFailed, match="encrypt"):
                await accepting

    asyncio.run(run())


@pytest.mark.parametrize("options", [OPTIONS, PLAIN], ids=["encrypted", "plain"])
def test_the_largest_datagram_passes_and_one_byte_more_does_not(options: PeerOptions) -> None:
    async def run() -> None:
        async with signaling() as url, ice_punch.listen(url, options) as listener:
            accepting = asyncio.ensure_future(_accept(listener))
            async with ice_punch.connect(listener.link, options) as channel:
                other = await accepting
                largest = channel.max_datagram_size  # it grows while the path is probed
                await channel.send(bytes([99]) * largest)
                assert len(await other.recv()) == largest >= 1200
                with pytest.raises(DatagramTooLarge):
                    await channel.send(bytes(channel.max_datagram_size + 1))
                await other.close()

    asyncio.run(run())


def test_after_close_sending_is_a_typed_error() -> None:
    async def run() -> None:
        async with signaling() as url, ice_punch.listen(url, OPTIONS) as listener:
            accepting = asyncio.ensure_future(_accept(listener))
            channel = await ice_punch.connect(listener.link, OPTIONS)
            await (await accepting).close()
            async with asyncio.timeout(2):
                with pytest.raises(ChannelClosed):
                    await channel.recv()
            with pytest.raises(ChannelClosed):
                await channel.send(b"late")
            await channel.close()

    asyncio.run(run())


def test_a_slow_reader_loses_the_oldest_and_memory_stays_bounded() -> None:
    small = replace(OPTIONS, receive_queue=8)

    async def run() -> None:
        async with signaling() as url, ice_punch.listen(url, small) as listener:
            accepting = asyncio.ensure_future(_accept(listener))
            async with ice_punch.connect(listener.link, OPTIONS) as channel:
                slow = await accepting
                for number in range(50):
                    await channel.send(b"%d" % number)
                while slow.stats.datagrams_received < 50:
                    await asyncio.sleep(0.01)
                assert slow.stats.dropped_oldest == 42
                assert await slow.recv() == b"42"
                await slow.close()

    asyncio.run(run())


def test_a_plain_channel_refuses_what_looks_like_stun() -> None:
    async def run() -> None:
        async with signaling() as url, ice_punch.listen(url, PLAIN) as listener:
            accepting = asyncio.ensure_future(_accept(listener))
            async with ice_punch.connect(listener.link, PLAIN) as channel:
                with pytest.raises(DatagramRefused):
                    await channel.send(bytes.fromhex("000100002112a442") + bytes(12))
                await (await accepting).close()

    asyncio.run(run())


def test_a_channel_lives_on_when_the_server_dies() -> None:
    async def run() -> None:
        from signaling.server import SignalingServer

        server = await SignalingServer.start("127.0.0.1", 0)
        async with ice_punch.listen(f"http://127.0.0.1:{server.port}", OPTIONS) as listener:
            accepting = asyncio.ensure_future(_accept(listener))
            async with ice_punch.connect(listener.link, OPTIONS) as channel:
                other = await accepting
                await server.close()
                await asyncio.sleep(0.1)
                await channel.send(b"still here")
                assert await asyncio.wait_for(other.recv(), 5) == b"still here"
                await other.close()

    asyncio.run(run())


def test_a_channel_outlives_the_death_and_the_restart_of_the_server_and_others_come_after() -> None:
    async def run() -> None:
        from signaling.server import SignalingServer

        server = await SignalingServer.start("127.0.0.1", 0)
        port = server.port
        async with ice_punch.listen(f"http://127.0.0.1:{port}", OPTIONS) as listener:
            accepting = asyncio.ensure_future(_accept(listener))
            channel = await ice_punch.connect(listener.link, OPTIONS)
            other = await accepting
            passing = asyncio.ensure_future(_pass(channel, other, 1.5))
            await server.close(jitter=0.2)
            await asyncio.sleep(0.3)
            async with await SignalingServer.start("127.0.0.1", port) as again:
                async with asyncio.timeout(10):
                    while again.sizes["sessions"] < 2:
                        await asyncio.sleep(0.05)
                assert await passing > 20
                accepting = asyncio.ensure_future(_accept(listener))
                newcomer = await ice_punch.connect(listener.link, OPTIONS)
                await newcomer.send(b"after the restart")
                third = await accepting
                assert await asyncio.wait_for(third.recv(), 5) == b"after the restart"
                await newcomer.close()
                await third.close()
                await channel.send(b"still here")
                assert await asyncio.wait_for(other.recv(), 5) == b"still here"
                await channel.close()
                await other.close()

    asyncio.run(run())


async def _pass(channel: Channel, other: Channel, seconds: float) -> int:
    """How many datagrams went across, one after the other."""
    passed = 0
    until = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < until:
        await channel.send(b"%d" % passed)
        assert await asyncio.wait_for(other.recv(), 2) == b"%d" % passed
        passed += 1
        await asyncio.sleep(0.03)
    return passed


def test_the_secret_is_in_no_representation_and_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")

    async def run() -> str:
        async with signaling() as url, ice_punch.listen(url, OPTIONS) as listener:
            accepting = asyncio.ensure_future(_accept(listener))
            connector = ice_punch.connect(listener.link, OPTIONS)
            async with connector as channel:
                secret = listener.link.partition("#")[2]
                assert secret not in repr(listener) + repr(connector) + repr(channel)
                await (await accepting).close()
            return secret

    assert asyncio.run(run()) not in caplog.text


def test_both_sides_say_when_their_candidates_have_ended() -> None:
    # RFC 8838 section 13
    async def run() -> None:
        async with signaling() as url, ice_punch.listen(url, OPTIONS) as listener:
            accepting = asyncio.ensure_future(_accept(listener))
            async with ice_punch.connect(listener.link, OPTIONS) as channel:
                other = await accepting
                async with asyncio.timeout(5):
                    for one in (channel, other):
                        while not one.connection._agent._session.remote_ended:
                            await asyncio.sleep(0.01)
                await other.close()

    asyncio.run(run())
