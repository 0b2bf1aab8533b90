"""What a gatherer does with addresses that come and go, told by hand: sockets, servers, relays."""

from __future__ import annotations

import asyncio
import errno
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest

from ice_punch import GatheringOptions, IceConnection, NetworkChanged
from ice_punch.ice import Candidate, IceState, LocalCandidateFound
from ice_punch.net import host_socket
from ice_punch.net.gatherer import Gatherer
from ice_punch.net.host_socket import HostSocket
from ice_punch.net.ice_server import IceServer
from ice_punch.net.interfaces import InterfaceAddress
from ice_punch.net.monitor import compare
from ice_punch.net.udp import bind
from ice_punch.stun import Method
from support.coturn import Coturn
from support.leaks import open_sockets
from support.turn_through_nat import OUTSIDE, PASSWORD, USER, TurnThroughNat

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8 on loopback"
)

FIRST, SECOND = "127.0.0.1", "127.0.0.2"
HERE = GatheringOptions(
    interface_filter=lambda address: address.ip == FIRST,
    ipv6=False,
    follow_network=False,
    timeout=2.0,
)


def came(*ips: str) -> NetworkChanged:
    return NetworkChanged(tuple(InterfaceAddress("lo", ip, 8) for ip in ips), ())


def went(*ips: str) -> NetworkChanged:
    return NetworkChanged((), ips)


def gatherer_of(connection: IceConnection) -> Gatherer:
    return connection._driver.gatherer


async def gathered(connection: IceConnection) -> list[Candidate]:
    return [candidate async for candidate in connection.gather()]


async def until(condition: Callable[[], object], timeout: float = 3.0) -> None:
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.005)


def told(connection: IceConnection, ip: str) -> set[str]:
    """Types of the candidates whose datagrams leave from ``ip``, or that it was seen at."""
    found = {c.type.value for c in connection.local_candidates if c.base and c.base[0] == ip}
    ports = {c.port for c in connection.local_candidates if c.host == ip}
    for candidate in connection.local_candidates:
        if candidate.type == "relay" and candidate.related_address is not None:
            address, port = candidate.related_address
            if address in (OUTSIDE, ip) and port in ports:
                found.add("relay")
    return found


def test_an_address_that_comes_is_gathered_on_with_the_same_servers_and_told() -> None:
    async def main() -> None:
        async with (
            TurnThroughNat() as nat,
            IceConnection(options=HERE, ice_servers=[nat.ice_server]) as connection,
        ):
            await gathered(connection)
            assert told(connection, FIRST) == {"host", "srflx", "relay"}
            events = connection.events()
            gatherer_of(connection).change(came(SECOND))
            await until(lambda: told(connection, SECOND) == {"host", "srflx", "relay"})
            assert told(connection, FIRST) == {"host", "srflx", "relay"}
            news = [await anext(events) for _ in range(3)]
            kinds = [e.candidate.type.value for e in news if isinstance(e, LocalCandidateFound)]
            assert kinds == ["host", "srflx", "relay"]
            asked = {ip for method, (ip, _) in nat.asked if method == Method.ALLOCATE}
            assert asked == {FIRST, SECOND}

    asyncio.run(main())


def test_a_port_range_holds_for_what_comes_later() -> None:
    async def main() -> None:
        options = replace(HERE, port_range=(41000, 41010))
        async with IceConnection(options=options) as connection:
            await gathered(connection)
            gatherer_of(connection).change(came(SECOND))
            (later,) = [c for c in connection.local_candidates if c.host == SECOND]
            assert 41000 <= later.port <= 41010

    asyncio.run(main())


def test_where_the_range_is_taken_the_session_goes_on_without() -> None:
    async def main() -> None:
        with bind(SECOND, port=41020):
            async with IceConnection(
                options=replace(HERE, port_range=(41020, 41020))
            ) as connection:
                await gathered(connection)
                gatherer_of(connection).change(came(SECOND))
                assert [c.host for c in connection.local_candidates] == [FIRST]

    asyncio.run(main())


def test_an_address_that_goes_takes_its_candidates_its_relay_and_its_socket_along() -> None:
    async def main() -> None:
        before = open_sockets()
        async with (
            TurnThroughNat() as nat,
            IceConnection(options=HERE, ice_servers=[nat.ice_server]) as connection,
        ):
            await gathered(connection)
            gatherer_of(connection).change(came(SECOND))
            await until(lambda: "relay" in told(connection, SECOND))
            there = open_sockets()
            gatherer_of(connection).change(went(FIRST))
            assert told(connection, FIRST) == set()
            assert told(connection, SECOND) == {"host", "srflx", "relay"}
            assert open_sockets() == there - 1
            bases = set(gatherer_of(connection).paths)
            assert bases == {c.base for c in connection.local_candidates}
            assert connection.counters["addresses_gone"] == 1
            assert set(gatherer_of(connection).addresses_in_use()) == {SECOND}
        await asyncio.sleep(0)
        assert open_sockets() == before

    asyncio.run(main())


def test_an_address_that_is_exchanged_for_another_gets_everything_anew() -> None:
    async def main() -> None:
        async with (
            TurnThroughNat() as nat,
            IceConnection(options=HERE, ice_servers=[nat.ice_server]) as connection,
        ):
            await gathered(connection)
            change = NetworkChanged(came(SECOND).added, (FIRST,))
            gatherer_of(connection).change(change)
            await until(lambda: told(connection, SECOND) == {"host", "srflx", "relay"})
            assert told(connection, FIRST) == set()

    asyncio.run(main())


def test_a_relay_that_went_with_its_address_is_opened_again_from_another() -> None:
    async def main() -> None:
        async with (
            TurnThroughNat() as nat,
            IceConnection(
                options=replace(HERE, relay_only=True), ice_servers=[nat.ice_server]
            ) as connection,
        ):
            (first,) = await gathered(connection)
            gatherer_of(connection).change(went(FIRST))
            await until(lambda: len(connection.local_candidates) == 1)
            (second,) = connection.local_candidates
            assert second.type == "relay"
            assert second.address != first.address
            assert nat.methods().count(Method.ALLOCATE) == 4

    asyncio.run(main())


def test_where_another_relay_of_the_server_is_left_it_is_not_asked_again() -> None:
    async def main() -> None:
        async with (
            TurnThroughNat() as nat,
            IceConnection(options=HERE, ice_servers=[nat.ice_server]) as connection,
        ):
            await gathered(connection)
            gatherer_of(connection).change(came(SECOND))
            await until(lambda: "relay" in told(connection, SECOND))
            await until(lambda: not gatherer_of(connection)._later)
            asked = nat.methods().count(Method.ALLOCATE)
            gatherer_of(connection).change(went(FIRST))
            assert not gatherer_of(connection)._later
            assert nat.methods().count(Method.ALLOCATE) == asked

    asyncio.run(main())


def test_with_relays_alone_a_network_is_not_taken_for_a_new_one() -> None:
    """While the first relay is on its way, and where it does not use every address there is."""

    async def main() -> None:
        options = replace(
            HERE, relay_only=True, interface_filter=lambda address: address.ip in (FIRST, "::1"),
            ipv6=True,
        )  # fmt: skip
        async with TurnThroughNat() as nat:
            connection = IceConnection(options=options, ice_servers=[nat.ice_server])
            gathering = asyncio.ensure_future(gathered(connection))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            usable = options.snapshot()
            assert not compare(gatherer_of(connection).addresses_in_use(), usable)
            await gathering
            assert not compare(gatherer_of(connection).addresses_in_use(), usable)
            await connection.close()

    asyncio.run(main())


def test_of_two_addresses_that_come_the_other_one_is_gathered_on_if_one_goes_at_once() -> None:
    async def main() -> None:
        options = replace(HERE, ipv6=True)
        async with (
            TurnThroughNat() as nat,
            IceConnection(options=options, ice_servers=[nat.ice_server]) as connection,
        ):
            await gathered(connection)
            both = NetworkChanged((*came(SECOND).added, InterfaceAddress("lo", "::1", 128)), ())
            gatherer_of(connection).change(both)
            gatherer_of(connection).change(went("::1"))
            await until(lambda: told(connection, SECOND) == {"host", "srflx", "relay"})
            assert told(connection, "::1") == set()

    asyncio.run(main())


def test_networks_that_come_and_go_all_day_leave_nothing_behind() -> None:
    async def main() -> None:
        async with (
            TurnThroughNat() as nat,
            IceConnection(options=HERE, ice_servers=[nat.ice_server]) as connection,
        ):
            await gathered(connection)
            gatherer = gatherer_of(connection)
            sockets = open_sockets()
            for number in range(100):
                ip = f"127.0.1.{number + 1}"
                gatherer.change(came(ip))
                await asyncio.sleep(0)
                gatherer.change(went(ip))
            await until(lambda: not gatherer._later)
            assert open_sockets() == sockets
            assert told(connection, FIRST) == {"host", "srflx", "relay"}
            assert len(connection._agent._queries.all) <= 2
            assert len(gatherer.reports) <= 256
            gatherer.change(came(SECOND))
            await until(lambda: "relay" in told(connection, SECOND))

    asyncio.run(main())


def test_a_relay_whose_server_goes_away_is_no_candidate_any_more() -> None:
    async def main() -> None:
        with Coturn() as coturn:
            server = IceServer.parse(coturn.uri("tcp"), USER, PASSWORD)
            async with IceConnection(options=HERE, ice_servers=[server]) as connection:
                found = await gathered(connection)
                assert [c.type.value for c in found] == ["host", "relay"]
                coturn.stop()
                await until(lambda: len(connection.local_candidates) == 1)
                assert connection.state is IceState.NEW
                last = connection.report().servers[-1]
                assert (last.uri, last.outcome) == (server.uri, "unreachable")
                assert "was lost" in last.detail

    asyncio.run(main())


# -- sends from an address that is gone ----------------------------------------------------------


class Socket(HostSocket):
    def __init__(self, **options: bool) -> None:
        self.told: list[object] = []
        self.vanished = 0
        super().__init__(
            InterfaceAddress("lo", FIRST, 8),
            on_datagram=lambda *_: None,
            on_icmp_error=lambda base, peer: self.told.append(peer),
            on_vanished=self.count,
            **options,  # type: ignore[arg-type]
        )

    def count(self) -> None:
        self.vanished += 1


PEER = ("192.0.2.1", 9)


@pytest.mark.parametrize("number", [errno.EADDRNOTAVAIL, errno.EINVAL, errno.ENETDOWN])
def test_a_send_from_an_address_that_is_gone_says_nothing_about_the_peer(number: int) -> None:
    async def main() -> None:
        socket = Socket()
        socket._on_error(PEER, OSError(number, "gone"))
        assert (socket.told, socket.vanished) == ([], 1)
        socket._on_error(PEER, OSError(errno.ECONNREFUSED, "nobody there"))
        assert (socket.told, socket.vanished) == ([PEER], 1)
        socket.close()

    asyncio.run(main())


def test_a_new_address_may_have_no_route_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        old, new = Socket(), Socket(new=True)
        for socket in (old, new):
            socket._on_error(PEER, OSError(errno.ENETUNREACH, "no route"))
        assert (old.told, new.told) == ([PEER], [])
        monkeypatch.setattr(new, "_settled_at", 0.0)
        new._on_error(PEER, OSError(errno.ENETUNREACH, "no route"))
        assert new.told == [PEER]
        old.close()
        new.close()

    asyncio.run(main())


def test_a_failing_send_has_the_monitor_look_and_is_counted() -> None:
    async def main() -> None:
        async with IceConnection(options=HERE) as connection:
            await gathered(connection)
            looks: list[int] = []
            gatherer = gatherer_of(connection)
            gatherer.on_vanished = lambda: looks.append(1)
            gatherer._sockets[FIRST]._on_error(PEER, OSError(errno.EADDRNOTAVAIL, "gone"))
            assert looks == [1]
            assert connection.counters["sends_from_gone_address"] == 1

    asyncio.run(main())


# -- one socket for the agent and TURN servers ---------------------------------------------------


@pytest.mark.parametrize(
    ("data", "is_turn"),
    [
        (bytes.fromhex("400000040a0b0c0d"), True),  # ChannelData
        (bytes.fromhex("4fff0000"), True),
        (bytes.fromhex("50000000"), False),
        (bytes.fromhex("010300002112a442") + bytes(12), True),  # Allocate success
        (bytes.fromhex("001700002112a442") + bytes(12), True),  # Data indication
        (bytes.fromhex("010100002112a442") + bytes(12), False),  # Binding success
        (bytes.fromhex("000100002112a442") + bytes(12), False),  # a check
        (bytes.fromhex("0103000000000000") + bytes(12), False),  # no cookie
        (bytes.fromhex("010300002112a442"), False),  # cut short
        (b"", False),
        (b"\x16\xfe\xfd", False),  # DTLS
    ],
)
def test_what_a_turn_server_says_as_such_is_told_from_the_rest(data: bytes, is_turn: bool) -> None:
    assert host_socket.is_turn(data) is is_turn


def test_of_all_that_comes_only_what_the_server_says_goes_to_its_client() -> None:
    async def main() -> None:
        agent: list[bytes] = []
        client: list[bytes] = []
        socket = HostSocket(
            InterfaceAddress("lo", FIRST, 8),
            on_datagram=lambda data, source, local: agent.append(data),
            on_icmp_error=lambda *_: None,
            on_vanished=lambda: None,
        )
        server = ("127.0.0.1", 3478)
        assert socket.attach(server, lambda data, source: client.append(data), lambda _: None)
        assert not socket.attach(server, lambda *_: None, lambda _: None), "one 5-tuple, one owner"
        channel, check = (
            bytes.fromhex("4000000161000000"),
            bytes.fromhex("000100002112a442") + bytes(12),
        )
        for data, source in ((channel, server), (channel, PEER), (check, server)):
            socket.socket.on_datagram(data, source, socket.local)
        assert client == [channel]
        assert agent == [channel, check]
        socket.detach(server)
        socket.socket.on_datagram(channel, server, socket.local)
        assert agent[-1] == channel
        socket.close()

    asyncio.run(main())


def test_packets_that_hold_many_datagrams_are_sorted_one_by_one() -> None:
    async def main() -> None:
        agent: list[bytes] = []
        client: list[bytes] = []
        socket = HostSocket(
            InterfaceAddress("lo", FIRST, 8),
            on_datagram=lambda *_: None,
            on_icmp_error=lambda *_: None,
            on_vanished=lambda: None,
            on_segments=lambda buffer, size, segment, *_: agent.append(bytes(buffer[:size])),
        )
        server = ("127.0.0.1", 3478)
        socket.attach(server, lambda data, source: client.append(data), lambda _: None)
        channel, other = bytes.fromhex("4000000461616161"), bytes.fromhex("8000000462626262")
        packet = bytearray(channel + other + channel[:6])
        socket._sort_segments(packet, len(packet), 8, server, socket.local)
        assert client == [channel, channel[:6]]
        assert agent == [other]
        socket._sort_segments(packet, len(packet), 8, PEER, socket.local)
        assert agent[-1] == bytes(packet), "whole, as it came"
        socket.close()

    asyncio.run(main())
