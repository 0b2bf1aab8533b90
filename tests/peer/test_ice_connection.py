"""IceConnection over real sockets: for people who bring their own signaling."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace

import pytest

from ice_punch import (
    ChannelClosed,
    ConsentLost,
    DatagramRefused,
    DatagramTooLarge,
    GatheringFailed,
    GatheringOptions,
    IceConnection,
    IceServer,
    InterfaceNotFound,
    InvalidConfiguration,
    InvalidDescription,
    PeerSilent,
    PortRangeExhausted,
)
from ice_punch.ice import AgentConfig, IceState, StateChanged
from support.coturn import Coturn
from support.loopback import GATHERING, LOOPBACK, connected_pair

STUN_HEADER = bytes.fromhex("000100002112a442") + bytes(12)


def test_carries_datagrams_both_ways() -> None:
    async def run() -> None:
        async with connected_pair() as (a, b):
            await a.send(b"ping")
            assert await b.recv() == b"ping"
            await b.send(b"")
            assert await a.recv() == b""
            assert a.path is not None
            assert a.path.kind == "direct"
            assert a.path.rtt is not None

    asyncio.run(run())


def test_candidates_trickle_after_the_descriptions() -> None:
    async def run() -> None:
        async with (
            IceConnection(controlling=True, options=GATHERING) as a,
            IceConnection(controlling=False, options=GATHERING) as b,
        ):
            a.set_remote_description(b.local_description)
            b.set_remote_description(a.local_description)
            for ours, theirs in ((a, b), (b, a)):
                async for candidate in ours.gather():
                    theirs.add_remote_candidate(candidate)
                theirs.add_remote_candidate(None)
            await asyncio.gather(a.connect(5), b.connect(5))

    asyncio.run(run())


def test_candidate_lines_are_taken_as_text() -> None:
    async def run() -> None:
        async with IceConnection(options=GATHERING) as connection:
            connection.add_remote_candidate(
                "candidate:1 1 tcp 1 192.0.2.1 9 typ host tcptype active"
            )
            with pytest.raises(InvalidDescription):
                connection.add_remote_candidate("candidate:1 1 udp")

    asyncio.run(run())


def test_every_state_change_gives_its_reason() -> None:
    async def run() -> None:
        reasons: dict[IceState, str] = {}

        async def watch(connection: IceConnection) -> None:
            async for event in connection.events():
                if isinstance(event, StateChanged):
                    reasons[event.state] = event.reason

        async with (
            IceConnection(options=GATHERING) as a,
            IceConnection(controlling=False, options=GATHERING) as b,
        ):
            watcher = asyncio.ensure_future(watch(a))
            for connection in (a, b):
                async for _ in connection.gather():
                    pass
            a.set_remote_description(b.local_description)
            b.set_remote_description(a.local_description)
            await asyncio.gather(a.connect(5), b.connect(5))
            while a.state is not IceState.COMPLETED:
                await asyncio.sleep(0.01)
        await asyncio.wait_for(watcher, 5)
        assert {IceState.CHECKING, IceState.CONNECTED, IceState.COMPLETED} <= set(reasons)
        assert all(reasons.values())

    asyncio.run(run())


def test_what_looks_like_stun_is_refused_and_what_only_resembles_it_passes() -> None:
    async def run() -> None:
        async with connected_pair() as (a, b):
            for refused in (STUN_HEADER, STUN_HEADER[:8], STUN_HEADER + b"more"):
                with pytest.raises(DatagramRefused):
                    a.send_nowait(refused)
            for allowed in (b"\x00\x01\x00\x00", b"\x00\x01\x00\x00" + b"text" * 5):
                a.send_nowait(allowed)
                assert await b.recv() == allowed

    asyncio.run(run())


def test_a_datagram_too_large_for_the_path_is_a_typed_error() -> None:
    async def run() -> None:
        async with connected_pair() as (a, b):
            a.send_nowait(bytes([77]) * a.max_datagram_size)
            assert len(await b.recv()) == a.max_datagram_size
            with pytest.raises(DatagramTooLarge) as caught:
                a.send_nowait(bytes(a.max_datagram_size + 1))
            assert caught.value.limit == a.max_datagram_size

    asyncio.run(run())


def test_a_slow_reader_loses_the_oldest_datagrams_and_sees_the_count() -> None:
    async def run() -> None:
        async with connected_pair(receive_queue=4) as (a, b):
            for number in range(10):
                a.send_nowait(b"%d" % number)
            while b.counters["data_received"] < 10:
                await asyncio.sleep(0.01)
            assert b.dropped_oldest == 6
            assert [await b.recv() for _ in range(4)] == [b"6", b"7", b"8", b"9"]

    asyncio.run(run())


def test_a_stranger_is_counted_and_not_heard() -> None:
    async def run() -> None:
        async with connected_pair() as (a, b):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                stranger.sendto(b"trust me", a.local_candidates[0].address)
            while not a.counters["data_from_strangers"]:
                await asyncio.sleep(0.01)
            b.send_nowait(b"the peer")
            assert await a.recv() == b"the peer"

    asyncio.run(run())


def test_after_close_sending_and_receiving_are_typed_errors() -> None:
    async def run() -> None:
        async with connected_pair() as (a, _):
            await a.close()
            with pytest.raises(ChannelClosed):
                await a.send(b"late")
            with pytest.raises(ChannelClosed):
                await a.recv()
            await a.close()

    asyncio.run(run())


def test_close_wakes_whoever_waits_to_receive() -> None:
    async def run() -> None:
        async with connected_pair() as (a, _):
            reading = asyncio.ensure_future(a.recv())
            await asyncio.sleep(0)
            await a.close()
            with pytest.raises(ChannelClosed):
                await reading

    asyncio.run(run())


def test_a_vanished_peer_is_first_disconnected_then_lost() -> None:
    quick = AgentConfig(consent_interval=0.1, consent_timeout=1.0, unanswered_for=0.4)

    async def run() -> None:
        async with connected_pair(agent_config=quick) as (a, b):
            await b.close()
            seen = []

            async def watch() -> None:
                async for event in a.events():
                    if isinstance(event, StateChanged):
                        seen.append(event.state)

            watching = asyncio.ensure_future(watch())
            async with asyncio.timeout(5):
                with pytest.raises(ConsentLost):
                    await a.recv()
            await asyncio.sleep(0)
            watching.cancel()
            assert seen[-2:] == [IceState.DISCONNECTED, IceState.FAILED]
            with pytest.raises(ConsentLost):
                a.send_nowait(b"anyone?")

    asyncio.run(run())


def test_a_peer_that_never_speaks_ends_as_peer_silent_with_a_report() -> None:
    impatient = AgentConfig(patience=0.3, rc=2, rto=0.5, rm=1)

    async def run() -> None:
        async with (
            IceConnection(options=GATHERING, agent_config=impatient) as a,
            IceConnection(options=GATHERING) as b,
        ):
            for connection in (a, b):
                async for _ in connection.gather():
                    pass
            silent = b.describe(candidates=False)
            line = f"candidate:1 1 udp 2130706431 127.0.0.1 {_dead_port()} typ host"
            a.set_remote_description(silent)
            a.add_remote_candidate(line)
            with pytest.raises(PeerSilent) as caught:
                await a.connect(10)
            assert caught.value.report is not None
            assert caught.value.report.pairs[0].requests_sent >= 1

    asyncio.run(run())


def test_an_interface_that_does_not_exist_is_named() -> None:
    async def run() -> None:
        async with IceConnection(options=GatheringOptions(interface="nope0")) as connection:
            with pytest.raises(InterfaceNotFound, match="nope0"):
                await connection.connect(5)

    asyncio.run(run())


def test_a_port_range_is_kept_and_a_taken_one_is_an_error() -> None:
    async def run() -> None:
        low = _dead_port()
        options = GatheringOptions(interface=LOOPBACK, ipv6=False, port_range=(low, low))
        async with IceConnection(options=options) as first:
            async for candidate in first.gather():
                assert candidate.port == low
            async with IceConnection(options=options) as second:
                with pytest.raises(PortRangeExhausted, match=str(low)):
                    await second.connect(5)

    asyncio.run(run())


def test_relay_only_without_a_relay_fails_in_gathering() -> None:
    async def run() -> None:
        options = GatheringOptions(interface=LOOPBACK, relay_only=True)
        async with IceConnection(options=options) as connection:
            with pytest.raises(GatheringFailed, match="no TURN server"):
                await connection.connect(5)

    asyncio.run(run())


def test_a_silent_server_delays_nothing() -> None:
    async def run() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            server = f"stun:127.0.0.1:{silent.getsockname()[1]}"
            loop = asyncio.get_running_loop()
            async with IceConnection(options=GATHERING, ice_servers=[server]) as connection:
                began = loop.time()
                await anext(connection.gather())
                assert loop.time() - began < 0.2

    asyncio.run(run())


@pytest.mark.parametrize(
    "wrong",
    [
        {"direct_only": True, "relay_only": True},
        {"ipv4": False, "ipv6": False},
    ],
)
def test_contradictory_options_are_refused(wrong: dict[str, bool]) -> None:
    async def run() -> None:
        with pytest.raises(InvalidConfiguration):
            IceConnection(options=GatheringOptions(**wrong))  # type: ignore[arg-type]

    asyncio.run(run())


def test_a_lite_connection_says_so_and_takes_data_from_a_full_one() -> None:
    async def run() -> None:
        lite_config = AgentConfig(lite=True)
        async with (
            IceConnection(options=GATHERING) as full,
            IceConnection(options=GATHERING, agent_config=lite_config) as lite,
        ):
            for connection in (full, lite):
                async for _ in connection.gather():
                    pass
            assert "a=ice-lite" in lite.local_description
            assert "a=ice-pacing" not in lite.local_description
            full.set_remote_description(lite.local_description)
            lite.set_remote_description(full.local_description)
            await asyncio.gather(full.connect(5), lite.connect(5))
            await lite.send(b"from the lite one")
            assert await full.recv() == b"from the lite one"
            await full.send(b"from the full one")
            assert await lite.recv() == b"from the full one"

    asyncio.run(run())


def test_a_lite_connection_with_servers_is_a_contradiction() -> None:
    async def run() -> None:
        with pytest.raises(InvalidConfiguration, match="host candidates only"):
            IceConnection(agent_config=AgentConfig(lite=True), ice_servers=["stun:127.0.0.1"])

    asyncio.run(run())


def test_another_description_is_not_taken_for_the_same_session() -> None:
    async def run() -> None:
        async with (
            IceConnection(options=GATHERING) as a,
            IceConnection(options=GATHERING) as b,
            IceConnection(options=GATHERING) as c,
        ):
            a.set_remote_description(b.local_description)
            a.set_remote_description(b.local_description)
            with pytest.raises(InvalidDescription):
                a.set_remote_description(c.local_description)

    asyncio.run(run())


def _dead_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_a_server_that_does_not_answer_is_reported_as_silent() -> None:
    async def run() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            server = f"stun:127.0.0.1:{silent.getsockname()[1]}"
            options = replace(GATHERING, timeout=1.7)
            async with IceConnection(options=options, ice_servers=[server]) as connection:
                async for _ in connection.gather():
                    pass
                (report,) = connection.report().servers
                assert (report.uri, report.outcome) == (server, "silent")

    asyncio.run(run())


def test_all_connections_of_a_loop_share_one_pacer() -> None:
    # RFC 8445 section 14.2: the 5 ms hold over all agents of an implementation.
    async def run() -> None:
        async with IceConnection(options=GATHERING) as a, IceConnection(options=GATHERING) as b:
            now = asyncio.get_running_loop().time()
            slot = a._agent.pacer.reserve(now)
            assert b._agent.pacer.next_at >= slot + 0.005

    asyncio.run(run())


def test_relay_only_asks_for_no_name_of_the_local_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    async def resolve(name: str) -> None:
        asked.append(name)

    monkeypatch.setattr("ice_punch.net.remote_candidates.resolve_mdns", resolve)
    line = "candidate:1 1 udp 2130706431 8c1d5b0e-1111-4222-8333-444455556666.local 5000 typ host"

    async def run(options: GatheringOptions) -> None:
        async with IceConnection(options=options) as connection:
            connection.add_remote_candidate(line)
            await asyncio.sleep(0)

    asyncio.run(run(replace(GATHERING, relay_only=True)))
    assert asked == []
    asyncio.run(run(GATHERING))
    assert asked == ["8c1d5b0e-1111-4222-8333-444455556666.local"]


def test_a_turn_server_that_denies_a_relay_is_still_asked_for_an_address() -> None:
    # RFC 8445 section 5.1.1.2
    async def run() -> list[str]:
        with Coturn(options=["--user-quota=1"]) as coturn:
            server = IceServer.parse(coturn.uri(), "robot", "correct horse")
            options = replace(GATHERING, ice_servers=(server,))
            async with IceConnection(options=options) as first:
                async for _ in first.gather():
                    pass
                async with IceConnection(options=options) as second:
                    async for _ in second.gather():
                        pass
                    return [report.outcome for report in second.report().servers]

    assert sorted(asyncio.run(run())) == ["denied", "ok"]


def test_a_stun_server_over_tls_is_reported_as_of_no_use() -> None:
    async def run() -> None:
        async with IceConnection(
            options=GATHERING, ice_servers=["stuns:stun.example.org"]
        ) as connection:
            async for _ in connection.gather():
                pass
            (report,) = connection.report().servers
            assert report.outcome != "ok"
            assert "TLS" in report.detail

    asyncio.run(run())
