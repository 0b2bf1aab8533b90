"""Relays through a real coturn."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import logging
import socket
import time

import pytest
from cryptography import x509

from ice_punch.connection import IceConnection
from ice_punch.errors import (
    AuthenticationRejected,
    InvalidConfiguration,
    PortRangeExhausted,
    RelayDenied,
    ServerUnreachable,
)
from ice_punch.net import relay as relay_module
from ice_punch.net import turn_session
from ice_punch.net.gatherer import GatheringOptions
from ice_punch.net.ice_server import IceServer
from ice_punch.net.relay import Relay
from ice_punch.net.udp import UdpSocket, bind
from ice_punch.turn import SharedSecret
from ice_punch.turn import client as turn_client
from ice_punch.turn import peers as turn_peers
from support.certificates import Authority
from support.coturn import Coturn

try:
    import uvloop
except ImportError:
    uvloop = None

LOOPS = [
    pytest.param(asyncio.new_event_loop, id="asyncio"),
    pytest.param(
        uvloop.new_event_loop if uvloop else None,
        id="uvloop",
        marks=pytest.mark.skipif(uvloop is None, reason="uvloop is not installed"),
    ),
]
USER, PASSWORD = "robot", "correct horse"


class Inbox(list):
    def __call__(self, data, source, local):
        self.append((data, source, local))


@pytest.fixture(scope="module")
def coturn():
    with Coturn() as server:
        yield server


def turn(coturn, transport="udp", username=USER, password=PASSWORD):
    return IceServer.parse(coturn.uri(transport), username, password)


async def until(condition, timeout=5.0):
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.002)


def run(coroutine, factory=None):
    """Run, and fail on whatever the event loop had to complain about."""
    complaints = []

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        result = await coroutine
        await asyncio.sleep(0)
        gc.collect()
        await asyncio.sleep(0)
        return result

    with asyncio.Runner(loop_factory=factory) as runner:
        result = runner.run(main())
    assert complaints == []
    return result


@pytest.mark.parametrize("factory", LOOPS)
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_data_crosses_a_relay_both_ways(coturn, transport, factory):
    async def main():
        relayed, direct = Inbox(), Inbox()
        peer = UdpSocket.open("127.0.0.1", direct)
        relay = await Relay.open(turn(coturn, transport), on_datagram=relayed)
        for data in (b"1", b"22", b"", bytes(1200)):
            assert relay.send(data, peer.local)
        await until(lambda: len(direct) == 4)
        assert [data for data, *_ in direct] == [b"1", b"22", b"", bytes(1200)]
        assert {source for _, source, _ in direct} == {relay.relayed_address}
        for data in (b"333", bytes(1201)):
            peer.send(data, relay.relayed_address)
        await until(lambda: len(relayed) == 2)
        assert relayed == [
            (b"333", peer.local, relay.relayed_address),
            (bytes(1201), peer.local, relay.relayed_address),
        ]
        assert (relay.stats.sent, relay.stats.received, relay.stats.dropped) == (4, 2, 0)
        await relay.close()
        peer.close()

    run(main(), factory)


def test_two_relays_reach_each_other(coturn):
    async def main():
        inboxes = [Inbox(), Inbox()]
        a, b = await asyncio.gather(
            *(Relay.open(turn(coturn), on_datagram=inbox) for inbox in inboxes)
        )
        # The first of each installs a permission; until both have one, nothing gets through.
        a.send(b"?", b.relayed_address)
        await until(lambda: a.stats.sent)
        b.send(b"from b", a.relayed_address)
        await until(lambda: inboxes[0])
        a.send(b"from a", b.relayed_address)
        await until(lambda: (b"from a", a.relayed_address, b.relayed_address) in inboxes[1])
        await asyncio.gather(a.close(), b.close())

    run(main())


def test_the_mapped_address_is_that_of_the_socket_towards_the_server(coturn):
    async def main():
        with bind("127.0.0.1") as probe:
            port = probe.getsockname()[1]
        relay = await Relay.open(
            turn(coturn), on_datagram=Inbox(), local_ip="127.0.0.1", port_range=(port, port)
        )
        assert relay.mapped_address == ("127.0.0.1", port)
        with pytest.raises(PortRangeExhausted):
            await Relay.open(
                turn(coturn), on_datagram=Inbox(), local_ip="127.0.0.1", port_range=(port, port)
            )
        await relay.close()

    run(main())


def test_a_server_of_another_family_than_the_local_address_is_not_asked(coturn):
    async def main():
        with pytest.raises(ServerUnreachable, match="IPv4 address"):
            await Relay.open(turn(coturn), on_datagram=Inbox(), local_ip="::1")

    run(main())


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_wrong_password_is_told_and_not_shown(coturn, transport):
    async def main():
        for username, password in ((USER, "wr0ng"), ("nobody", "wr0ng")):
            server = turn(coturn, transport, username, password)
            with pytest.raises(AuthenticationRejected, match="rejected the user name") as error:
                await Relay.open(server, on_datagram=Inbox())
            assert server.uri in str(error.value)
            assert "wr0ng" not in str(error.value)
            assert "\n" not in str(error.value)

    run(main())


def test_missing_credentials_are_told(coturn):
    async def main():
        with pytest.raises(AuthenticationRejected, match="wants a user name and a password"):
            await Relay.open(IceServer.parse(coturn.uri()), on_datagram=Inbox())

    run(main())


def test_passwords_leave_no_trace_in_the_log(coturn, caplog):
    async def main():
        relay = await Relay.open(turn(coturn), on_datagram=Inbox())
        await relay.close()

    with caplog.at_level(logging.DEBUG):
        run(main())
    assert PASSWORD not in caplog.text


def test_an_allocation_quota_is_a_denial():
    async def main(server):
        first = await Relay.open(server, on_datagram=Inbox())
        with pytest.raises(RelayDenied, match="refused to relay: 486"):
            await Relay.open(server, on_datagram=Inbox(), timeout=3)
        # Closing gives the allocation back; coturn takes a second to count it.
        await first.close()
        async with asyncio.timeout(10):
            again = None
            while again is None:
                with contextlib.suppress(RelayDenied):
                    again = await Relay.open(server, on_datagram=Inbox())
                await asyncio.sleep(0.1)
        await again.close()

    with Coturn(options=["--user-quota=1"]) as coturn:
        run(main(turn(coturn)))


def test_a_peer_that_the_server_refuses_disturbs_no_other():
    async def main(server):
        errors, inbox = [], Inbox()
        peer = UdpSocket.open("127.0.0.1", inbox)
        relay = await Relay.open(
            server, on_datagram=Inbox(), on_error=lambda *error: errors.append(error)
        )
        denied = ("127.0.0.9", 9)
        assert relay.send(b"x", denied)
        relay.send(b"fine", peer.local)
        await until(lambda: inbox and errors)
        assert [destination for destination, _ in errors] == [denied]
        assert "403" in str(errors[0][1])
        # Not asked for again at once.
        assert relay.send(b"x", denied) is False
        relay.send(b"still fine", peer.local)
        await until(lambda: len(inbox) == 2)
        assert (relay.stats.refused, relay.stats.dropped) == (1, 2)
        assert not relay.closed
        await relay.close()
        peer.close()

    with Coturn(options=["--denied-peer-ip=127.0.0.9"]) as coturn:
        run(main(turn(coturn)))


def test_what_waits_for_a_channel_is_bounded(coturn):
    async def main():
        inbox = Inbox()
        peer = UdpSocket.open("127.0.0.1", inbox)
        relay = await Relay.open(turn(coturn), on_datagram=Inbox())
        count = turn_peers.QUEUE_PER_PEER + 10
        for i in range(count):
            assert relay.send(bytes([i]), peer.local)
        await until(lambda: len(inbox) == turn_peers.QUEUE_PER_PEER)
        assert [data[0] for data, *_ in inbox] == list(range(10, count))
        assert relay.stats.dropped == 10
        await relay.close()
        peer.close()

    run(main())


def test_the_number_of_peers_is_bounded(coturn, monkeypatch):
    async def main():
        relay = await Relay.open(turn(coturn), on_datagram=Inbox())
        monkeypatch.setattr(turn_peers, "MAX_PEERS", 2)
        assert relay.send(b"x", ("127.0.0.1", 1001))
        assert relay.send(b"x", ("127.0.0.1", 1002))
        assert relay.send(b"x", ("127.0.0.1", 1003)) is False
        assert relay.send(b"x", ("127.0.0.1", 1002))
        assert relay.stats.dropped == 1
        await relay.close()

    run(main())


def test_permissions_channels_and_the_allocation_are_renewed_in_time(coturn, monkeypatch):
    """The same shell, only that everything is due sooner than after minutes."""

    async def main():
        inbox, back = Inbox(), Inbox()
        peer = UdpSocket.open("127.0.0.1", inbox)
        monkeypatch.setattr(turn_peers, "PERMISSION_LIFETIME", 1.0)
        monkeypatch.setattr(turn_peers, "CHANNEL_LIFETIME", 1.0)
        monkeypatch.setattr(turn_peers, "REFRESH_AHEAD", 0.8)
        monkeypatch.setattr(turn_client, "LONGEST_LIFETIME", 0.6)
        relay = await Relay.open(turn(coturn), on_datagram=back)
        before = coturn.log.count
        channels, permissions = before("CHANNEL_BIND processed"), before("CREATE_PERMISSION proc")
        refreshes = before("refreshed, realm=<test>")
        relay.send(b"1", peer.local)
        await until(lambda: inbox)
        for number in range(4):
            await asyncio.sleep(0.3)
            assert relay.send(b"more", peer.local)
            peer.send(b"back", relay.relayed_address)
            await until(lambda number=number: len(inbox) > number + 1 and len(back) > number)
        await until(lambda: coturn.log.count("CHANNEL_BIND processed") >= channels + 2)
        await until(lambda: coturn.log.count("CREATE_PERMISSION proc") >= permissions + 3)
        await until(lambda: coturn.log.count("refreshed, realm=<test>") >= refreshes + 3)
        assert relay.stats.dropped == 0
        await relay.close()
        peer.close()

    run(main())


def test_closing_gives_the_allocation_back_and_sends_nothing_more(coturn):
    async def main():
        relay = await Relay.open(turn(coturn), on_datagram=Inbox())
        port = relay.mapped_address[1]
        relay.send(b"x", ("127.0.0.1", 9))
        await relay.close()
        await relay.close()
        assert relay.closed
        assert relay.send(b"x", ("127.0.0.1", 9)) is False
        return port

    port = run(main())
    assert "refreshed, realm=<test>, username=<robot>, lifetime=0" in coturn.log
    with bind("127.0.0.1", port=port):
        pass  # the socket is free again


def test_cancelling_leaves_no_socket_behind(coturn):
    async def main():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            with bind("127.0.0.1") as probe:
                port = probe.getsockname()[1]
            server = IceServer("turn", "127.0.0.1", silent.getsockname()[1], "udp", USER, PASSWORD)
            task = asyncio.create_task(
                Relay.open(
                    server, on_datagram=Inbox(), local_ip="127.0.0.1", port_range=(port, port)
                )
            )
            await asyncio.sleep(0.05)
            with pytest.raises(PortRangeExhausted):
                bind("127.0.0.1", port=port)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.sleep(0)
            bind("127.0.0.1", port=port).close()

    run(main())


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_silent_server_is_given_up_in_time(transport):
    async def main():
        kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
        with socket.socket(socket.AF_INET, kind) as silent:
            silent.bind(("127.0.0.1", 0))
            if transport == "tcp":
                silent.listen()
            server = IceServer(
                "turn", "127.0.0.1", silent.getsockname()[1], transport, USER, PASSWORD
            )
            started = time.monotonic()
            with pytest.raises(ServerUnreachable, match=r"did not answer within 0\.3 s") as error:
                await Relay.open(server, on_datagram=Inbox(), timeout=0.3)
            assert error.value.outcome == "silent"
            assert time.monotonic() - started < 1

    run(main())


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_server_that_is_not_there_is_told_at_once(transport):
    async def main():
        with bind("127.0.0.1") as probe:
            port = probe.getsockname()[1]
        server = IceServer("turn", "127.0.0.1", port, transport, USER, PASSWORD)
        started = time.monotonic()
        with pytest.raises(ServerUnreachable, match="can not be reached: Connection refused"):
            await Relay.open(server, on_datagram=Inbox())
        assert time.monotonic() - started < 1

    run(main())


def test_a_lost_connection_is_told_once():
    async def main():
        with Coturn() as coturn:
            told = []
            relay = await Relay.open(
                turn(coturn, "tcp"), on_datagram=Inbox(), on_closed=told.append
            )
            relay.send(b"x", ("127.0.0.1", 9))
            coturn.stop()
            await until(lambda: told)
        assert len(told) == 1
        assert "was lost" in told[0]
        assert relay.closed
        assert relay.send(b"x", ("127.0.0.1", 9)) is False
        await relay.close()

    run(main())


def test_closing_towards_a_dead_server_takes_a_second_at_most():
    async def main():
        with Coturn() as coturn:
            relay = await Relay.open(turn(coturn), on_datagram=Inbox())
        started = time.monotonic()
        await relay.close()
        assert time.monotonic() - started < 1.5

    run(main())


def test_a_stun_server_is_no_relay():
    with pytest.raises(InvalidConfiguration, match="no TURN server"):
        asyncio.run(Relay.open(IceServer.parse("stun:127.0.0.1"), on_datagram=Inbox()))


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"\x40",
        b"\x40\x00\xff\xff",
        b"\x40\x00\x00\x05abc",
        b"\x7f\xff\x00\x00",
        b"\x00" * 20,
        b"\x01\x03\x00\x04\x21\x12\xa4\x42" + bytes(12) + b"\x00\x20\x00\xff",
        b"\x01\x13\x00\x08\x21\x12\xa4\x42" + bytes(12) + b"\x00\x09\x00\x04\x00\x00\x04\x01",
        b"\xff" * 1500,
    ],
)
def test_junk_from_the_server_is_dropped(coturn, junk):
    async def main():
        inbox, direct = Inbox(), Inbox()
        peer = UdpSocket.open("127.0.0.1", direct)
        relay = await Relay.open(turn(coturn), on_datagram=inbox)
        relay.send(b"x", peer.local)
        await until(lambda: direct)
        relay._session.on_message(junk, coturn.address)
        peer.send(b"alive", relay.relayed_address)
        await until(lambda: inbox)
        assert [data for data, *_ in inbox] == [b"alive"]
        await relay.close()
        peer.close()

    run(main())


def test_what_strangers_send_to_the_sockets_port_is_not_from_the_server(coturn):
    async def main():
        inbox = Inbox()
        relay = await Relay.open(turn(coturn), on_datagram=inbox)
        peer = UdpSocket.open("127.0.0.1", Inbox())
        relay.send(b"x", peer.local)
        await until(lambda: relay.stats.sent)
        peer.send(b"\x40\x00\x00\x04fake", relay.mapped_address)
        await until(lambda: relay.stats.strangers)
        assert inbox == []
        await relay.close()
        peer.close()

    run(main())


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A CA file and a function that makes server certificates: (certificate, key) files."""
    made = Authority(tmp_path_factory.mktemp("tls"))
    return made.cafile, made.make


def test_a_relay_over_tls_checks_the_servers_certificate(authority):
    cafile, make = authority
    names = (x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")))

    async def main(coturn):
        inbox, direct = Inbox(), Inbox()
        peer = UdpSocket.open("127.0.0.1", direct)
        for host in ("localhost", "127.0.0.1"):
            server = IceServer.parse(f"turns:{host}:{coturn.tls_port}", USER, PASSWORD)
            relay = await Relay.open(server, on_datagram=inbox, cafile=str(cafile), ipv6=False)
            relay.send(b"through tls", peer.local)
            await until(lambda: direct)
            peer.send(b"and back", relay.relayed_address)
            await until(lambda: inbox)
            await relay.close()
        with pytest.raises(ServerUnreachable, match=r"certificate of turns:127\.0\.0\.1"):
            await Relay.open(turn(coturn, "tls"), on_datagram=inbox)
        with pytest.raises(AuthenticationRejected):
            await Relay.open(
                turn(coturn, "tls", USER, "wrong"), on_datagram=inbox, cafile=str(cafile)
            )
        peer.close()

    with Coturn(certificate=make("right", *names)) as coturn:
        run(main(coturn))


def test_a_certificate_for_another_name_is_not_accepted(authority):
    cafile, make = authority

    async def main(coturn):
        with pytest.raises(ServerUnreachable, match="is not accepted"):
            await Relay.open(turn(coturn, "tls"), on_datagram=Inbox(), cafile=str(cafile))

    with Coturn(certificate=make("other", x509.DNSName("turn.example.org"))) as coturn:
        run(main(coturn))


def test_a_missing_file_of_authorities_is_a_configuration_error(tmp_path):
    server = IceServer.parse("turns:127.0.0.1", USER, PASSWORD)
    with pytest.raises(InvalidConfiguration, match="can not be read"):
        asyncio.run(Relay.open(server, on_datagram=Inbox(), cafile=str(tmp_path / "no-such.pem")))


def test_tls_towards_a_port_that_speaks_none_is_told(coturn):
    async def main():
        server = IceServer("turns", "127.0.0.1", coturn.port, "tcp", USER, PASSWORD)
        with pytest.raises(ServerUnreachable):
            await Relay.open(server, on_datagram=Inbox(), timeout=0.5)

    run(main())


def test_a_dead_address_of_a_server_costs_little(coturn, monkeypatch):
    async def both(server, **_):
        return [silent.getsockname()[:2], coturn.address]

    async def main():
        started = time.monotonic()
        relay = await Relay.open(turn(coturn), on_datagram=Inbox())
        assert time.monotonic() - started < 1
        await relay.close()

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        monkeypatch.setattr(relay_module, "resolve_server", both)
        run(main())


def test_names_minted_with_a_shared_secret_open_coturn():
    async def main(coturn):
        username, password = SharedSecret("north", time.time).mint("alice", 60)
        relay = await Relay.open(turn(coturn, "udp", username, password), on_datagram=Inbox())
        await relay.close()
        username, password = SharedSecret("south", time.time).mint("alice", 60)
        with pytest.raises(AuthenticationRejected):
            await Relay.open(turn(coturn, "udp", username, password), on_datagram=Inbox())

    options = ["--use-auth-secret", "--static-auth-secret=north"]
    with Coturn(users={}, options=options) as coturn:
        run(main(coturn))


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_redirection_by_coturn_is_followed(coturn, transport):
    async def main(first):
        inbox = Inbox()
        peer = UdpSocket.open("127.0.0.1", inbox)
        relay = await Relay.open(turn(first, transport), on_datagram=Inbox())
        relay.send(b"through the other one", peer.local)
        await until(lambda: inbox)
        await relay.close()
        peer.close()

    before = coturn.log.count("CREATE_PERMISSION processed, success")
    options = [f"--alternate-server=127.0.0.1:{coturn.port}"]
    with Coturn(options=options) as first:
        run(main(first))
        assert "CREATE_PERMISSION processed, success" not in first.log
    assert coturn.log.count("CREATE_PERMISSION processed, success") > before


@pytest.mark.parametrize(("mismatches", "opens"), [(2, True), (3, False)])
def test_where_an_address_is_taken_others_are_tried(coturn, monkeypatch, mismatches, opens):
    """RFC 8656 section 7.4: a client's address may have been another's, whose allocation lives on;
    three addresses are tried."""
    locals_: list = []
    original = turn_client.TurnClient

    def mismatched(server, local, *arguments, **options):
        client = original(server, local, *arguments, **options)
        locals_.append(local)
        if len(locals_) <= mismatches:
            client._fail(437, "Allocation Mismatch")
        return client

    monkeypatch.setattr(turn_session, "TurnClient", mismatched)

    async def main():
        if not opens:
            with pytest.raises(RelayDenied, match="437 Allocation Mismatch"):
                await Relay.open(turn(coturn), on_datagram=Inbox())
            return
        relay = await Relay.open(turn(coturn), on_datagram=Inbox())
        await relay.close()

    run(main())
    assert len(set(locals_)) == 3


def test_the_peers_candidates_are_permitted_as_they_become_known(coturn):
    """Before anything is sent to them: what they send first then gets through."""

    async def main():
        options = GatheringOptions(ice_servers=(turn(coturn),), relay_only=True)
        before = coturn.log.count("CREATE_PERMISSION processed, success")
        async with IceConnection(options=options) as connection:
            early = "candidate:1 1 udp 1 127.0.0.1 5001 typ host"
            connection.add_remote_candidate(early)
            async for _ in connection.gather():
                pass

            def permitted():
                return coturn.log.count("CREATE_PERMISSION processed, success") - before

            await until(lambda: permitted() == 1)
            for port in (5002, 5003):
                connection.add_remote_candidate(
                    f"candidate:{port} 1 udp 1 127.0.0.{port - 5000} {port} typ host"
                )
            connection.add_remote_candidate("candidate:9 1 udp 1 ::1 5009 typ host")
            await until(lambda: permitted() == 2)
            await asyncio.sleep(0.02)
            assert permitted() == 2
            assert "peer 127.0.0.2 lifetime updated" in coturn.log
            assert "peer 127.0.0.3 lifetime updated" in coturn.log

    run(main())


def test_many_candidates_of_a_description_take_one_request(coturn):
    async def main():
        relay = await Relay.open(turn(coturn), on_datagram=Inbox())
        for number in range(1, 11):
            relay.permit((f"127.0.0.{number}", 5000))
        sent = []
        original = relay._session._path.send
        relay._session._path.send = lambda *args: (sent.append(args[0]), original(*args))
        await asyncio.sleep(0.05)
        assert len(sent) == 1
        await relay.close()

    run(main())
