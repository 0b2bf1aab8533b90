"""Our TURN server over real sockets: with our own relays, and with coturn's client."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import shutil
import socket
import ssl
import time
from types import SimpleNamespace

import pytest
from cryptography import x509

from ice_punch.errors import (
    AuthenticationRejected,
    InterfaceNotFound,
    InvalidConfiguration,
    PortRangeExhausted,
    RelayDenied,
    ServerUnreachable,
)
from ice_punch.net import turn_server
from ice_punch.net.ice_server import IceServer
from ice_punch.net.relay import Relay
from ice_punch.net.stun_server import RateLimit
from ice_punch.net.turn_server import TurnServerShell
from ice_punch.net.udp import SEND_QUEUE, UdpSocket, bind
from ice_punch.stun import Message, MessageClass, Method, parse_message
from ice_punch.turn import SharedSecret, TurnLimits, allow_every_peer
from support.certificates import Authority

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
HERE = "127.0.0.1"
USER, PASSWORD = "robot", "correct horse"


class Inbox(list):
    def __call__(self, data, source, local):
        self.append((data, source, local))


def run(coroutine, factory=None):
    """Run, and fail on whatever the event loop had to complain about."""
    complaints = []

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        async with asyncio.timeout(30):
            return await coroutine

    with asyncio.Runner(loop_factory=factory) as runner:
        result = runner.run(main())
    assert complaints == []
    return result


async def until(condition, timeout=5.0):
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.002)


def serve(**options):
    options.setdefault("users", {USER: PASSWORD})
    options.setdefault("peer_filter", allow_every_peer)
    return TurnServerShell.start(options.pop("hosts", HERE), 0, **options)


def uri_of(shell, transport="udp"):
    addresses = {
        "udp": shell.udp_addresses,
        "tcp": shell.tcp_addresses,
        "tls": shell.tls_addresses,
    }
    host, port = addresses[transport][0]
    host = f"[{host}]" if ":" in host else host
    if transport == "tls":
        return f"turns:{host}:{port}"
    return f"turn:{host}:{port}?transport={transport}"


def turn(shell, transport="udp", username=USER, password=PASSWORD):
    return IceServer.parse(uri_of(shell, transport), username, password)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def server_tls(authority):
    certificate, key = authority.make("server", x509.IPAddress(ipaddress.ip_address(HERE)))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


@pytest.mark.parametrize("factory", LOOPS)
@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
def test_data_crosses_both_ways_over_every_transport(transport, factory, authority, server_tls):
    async def main():
        async with await serve(tls_ports=[0], ssl_context=server_tls) as shell:
            relayed, direct = Inbox(), Inbox()
            peer = UdpSocket.open(HERE, direct)
            relay = await Relay.open(
                turn(shell, transport), on_datagram=relayed, cafile=str(authority.cafile)
            )
            for data in (b"1", b"22", b"", bytes(1200)):
                assert relay.send(data, peer.local)
            await until(lambda: len(direct) == 4)
            assert [data for data, *_ in direct] == [b"1", b"22", b"", bytes(1200)]
            assert {source for _, source, _ in direct} == {relay.relayed_address}
            for data in (b"333", bytes(1201)):
                peer.send(data, relay.relayed_address)
            await until(lambda: len(relayed) == 2)
            assert [data for data, *_ in relayed] == [b"333", bytes(1201)]
            assert relay.stats.dropped == 0
            await relay.close()
            assert shell.server.allocations == 0
            peer.close()

    run(main(), factory)


def test_relayed_ports_are_bound_while_they_are_allocated():
    async def main():
        async with await serve() as shell:
            relay = await Relay.open(turn(shell), on_datagram=Inbox())
            address = relay.relayed_address
            assert 49152 <= address[1] <= 65535
            with pytest.raises(PortRangeExhausted):
                bind(HERE, port=address[1])
            await relay.close()
            bind(HERE, port=address[1]).close()

    run(main())


def test_a_port_of_the_range_that_others_have_is_passed_over():
    async def main():
        async with await serve() as shell:
            calls = []
            original = shell._relayed.open

            def taken_twice(address):
                calls.append(address)
                return len(calls) > 2 and original(address)

            shell._relayed.open = taken_twice
            relay = await Relay.open(turn(shell), on_datagram=Inbox())
            assert relay.relayed_address == calls[2]
            await relay.close()

    run(main())


def test_credentials_and_quota_are_what_the_server_was_told():
    async def main():
        async with await serve(limits=TurnLimits(allocations_per_user=1)) as shell:
            with pytest.raises(AuthenticationRejected):
                await Relay.open(turn(shell, password="wrong"), on_datagram=Inbox())
            with pytest.raises(AuthenticationRejected):
                await Relay.open(turn(shell, "tcp", "nobody"), on_datagram=Inbox())
            relay = await Relay.open(turn(shell), on_datagram=Inbox())
            with pytest.raises(RelayDenied, match="486 Allocation Quota Reached"):
                await Relay.open(turn(shell), on_datagram=Inbox())
            await relay.close()

    run(main())


def test_minted_names_are_welcome():
    async def main():
        secret = SharedSecret("north", time.time)
        async with await serve(users={}, password_source=secret) as shell:
            relay = await Relay.open(
                turn(shell, "udp", *secret.mint("alice", 60)), on_datagram=Inbox()
            )
            await relay.close()
            with pytest.raises(AuthenticationRejected):
                await Relay.open(turn(shell, "udp", *secret.mint("bob", -1)), on_datagram=Inbox())

    run(main())


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_clients_and_peers_over_ipv6():
    async def main():
        async with await serve(hosts=["::1"]) as shell:
            direct = Inbox()
            peer = UdpSocket.open("::1", direct)
            # IPv4 is what is relayed unasked, and this server has none (RFC 8656 section 7.2).
            with pytest.raises(RelayDenied, match="440"):
                await Relay.open(turn(shell), on_datagram=Inbox())
            peer.close()
        async with await serve(hosts=["::1"], relay_ips=[HERE]) as shell:
            peer = UdpSocket.open(HERE, direct)
            relay = await Relay.open(turn(shell), on_datagram=Inbox())
            relay.send(b"from v6 to v4", peer.local)
            await until(lambda: direct)
            assert relay.mapped_address[0] == "::1"
            await relay.close()
            peer.close()

    run(main())


def test_loopback_peers_are_refused_unless_they_are_wanted():
    async def main():
        async with await TurnServerShell.start(HERE, 0, users={USER: PASSWORD}) as shell:
            errors = []
            relay = await Relay.open(
                turn(shell), on_datagram=Inbox(), on_error=lambda *e: errors.append(e)
            )
            relay.send(b"x", (HERE, 9))
            await until(lambda: errors)
            assert "403" in str(errors[0][1])
            await relay.close()

    run(main())


def test_an_icmp_error_reaches_the_client():
    async def main():
        async with await serve() as shell:
            errors = []
            relay = await Relay.open(
                turn(shell), on_datagram=Inbox(), on_error=lambda *e: errors.append(e)
            )
            with bind(HERE) as closed:
                nobody = closed.getsockname()
            relay.send(b"x", nobody)
            await until(lambda: errors)
            assert errors[0][0] == nobody
            assert isinstance(errors[0][1], ConnectionRefusedError)
            await relay.close()

    run(main())


def test_a_permitted_peer_may_speak_first():
    async def main():
        async with await serve() as shell:
            inbox = Inbox()
            relay = await Relay.open(turn(shell), on_datagram=inbox)
            peer = UdpSocket.open(HERE, Inbox())
            peer.send(b"too early", relay.relayed_address)
            await until(lambda: shell.counters.dropped["no-permission"] == 1)
            relay.permit(peer.local)
            relay.permit(("::1", 9))  # of the other family: left out
            await until(lambda: shell.counters.requests[Method.CREATE_PERMISSION] == 1)
            peer.send(b"hello", relay.relayed_address)
            await until(lambda: inbox)
            assert inbox == [(b"hello", peer.local, relay.relayed_address)]
            await asyncio.sleep(0.01)
            assert shell.counters.requests[Method.CREATE_PERMISSION] == 1
            assert shell.counters.errors.keys() <= {401}
            await relay.close()
            peer.close()

    run(main())


def test_a_client_whose_connection_breaks_loses_its_allocation():
    async def main():
        async with await serve() as shell:
            relay = await Relay.open(turn(shell, "tcp"), on_datagram=Inbox())
            assert shell.server.allocations == 1
            relay._session.disconnect()
            await until(lambda: shell.server.allocations == 0)

    run(main())


def test_clients_learn_that_a_server_over_tcp_is_gone():
    async def main():
        shell = await serve()
        told = []
        relay = await Relay.open(turn(shell, "tcp"), on_datagram=Inbox(), on_closed=told.append)
        await shell.close()
        await shell.close()
        await until(lambda: told)
        assert "was lost" in told[0]
        await relay.close()

    run(main())


def test_connections_that_speak_something_else_are_closed():
    async def main():
        async with await serve() as shell:
            reader, writer = await asyncio.open_connection(*shell.tcp_addresses[0])
            writer.write(b"SSH-2.0-OpenSSH\r\n")
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.close()
            await until(lambda: not shell._connections)

    run(main())


def test_connections_without_an_allocation_are_closed_after_a_while(monkeypatch):
    monkeypatch.setattr(turn_server, "STRANGER_TIMEOUT", 0.1)

    async def main():
        async with await serve() as shell:
            relay = await Relay.open(turn(shell, "tcp"), on_datagram=Inbox())
            reader, writer = await asyncio.open_connection(*shell.tcp_addresses[0])
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.close()
            await asyncio.sleep(0.15)
            assert not relay.closed
            assert shell.server.allocations == 1
            await relay.close()

    run(main())


def test_the_number_of_connections_is_bounded(monkeypatch):
    monkeypatch.setattr(turn_server, "MAX_CONNECTIONS", 1)

    async def main():
        async with await serve() as shell:
            relay = await Relay.open(turn(shell, "tcp"), on_datagram=Inbox())
            with pytest.raises(ServerUnreachable):
                await Relay.open(turn(shell, "tcp"), on_datagram=Inbox(), timeout=1)
            await relay.close()

    run(main())


def test_strangers_are_answered_at_a_limited_rate_and_clients_are_not_limited():
    async def main():
        async with await serve(rate=RateLimit(rate=0.001, burst=5)) as shell:
            direct = Inbox()
            peer = UdpSocket.open(HERE, direct)
            relay = await Relay.open(turn(shell), on_datagram=Inbox())  # takes two
            answers = Inbox()
            stranger = UdpSocket.open(HERE, answers)
            request = Message(Method.BINDING, MessageClass.REQUEST, bytes(12)).to_bytes()
            for _ in range(10):
                stranger.send(request, shell.udp_addresses[0])
            await until(lambda: shell.limited == 7)
            assert len(answers) == 3
            assert parse_message(answers[0][0]).message_class is MessageClass.SUCCESS
            for number in range(20):
                relay.send(bytes([number]), peer.local)
            await until(lambda: len(direct) == 20)
            await relay.close()
            peer.close()
            stranger.close()

    run(main())


@pytest.mark.parametrize("hosts", ["0.0.0.0", "::", [HERE, "0.0.0.0"], []])
def test_addresses_have_to_be_definite(hosts):
    with pytest.raises(InvalidConfiguration, match="definite"):
        run(serve(hosts=hosts))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"hosts": "192.0.2.1"}, InterfaceNotFound),
        ({"relay_ips": ["192.0.2.1"]}, InterfaceNotFound),
        ({"tls_ports": [0]}, InvalidConfiguration),
        ({"realm": ""}, InvalidConfiguration),
        ({"users": {"a\x00": "b"}}, InvalidConfiguration),
    ],
)
def test_what_can_not_be_is_told(options, error):
    with pytest.raises(error):
        run(serve(**options))


def test_a_port_that_is_taken_is_told():
    async def main():
        async with await serve() as shell:
            _, port = shell.udp_addresses[0]
            with pytest.raises(PortRangeExhausted, match=f"UDP port {port}"):
                await TurnServerShell.start(HERE, port, users={})
            with pytest.raises(PortRangeExhausted, match=f"TCP port {port}"):
                await TurnServerShell.start(HERE, 0, users={}, tcp_ports=[port])

    run(main())


def test_what_this_host_does_not_send_to_the_server_is_told():
    async def main():
        async with await TurnServerShell.start(
            HERE, 0, users={USER: PASSWORD}, peer_filter=allow_every_peer
        ) as shell:
            peer = UdpSocket.open(HERE, Inbox())
            relay = await Relay.open(turn(shell), on_datagram=Inbox())
            assert relay.send(b"asks for a permission", peer.local)
            await until(lambda: peer.stats.received == 1)
            sock = relay._session._path._socket

            def full(*_):
                raise BlockingIOError(errno.EAGAIN, "injected")

            sock._send, sock._sender._socket = full, SimpleNamespace(sendto=full, sendmsg=full)
            sent = [relay.send(b"%d" % n, peer.local) for n in range(SEND_QUEUE + 10)]
            assert sent == [True] * SEND_QUEUE + [False] * 10
            assert sock.stats.dropped == 10
            sock.close()
            assert relay.send(b"closed", peer.local) is False
            await relay.close()
            peer.close()

    run(main())


# -- coturn's client ----------------------------------------------------------------------------

UCLIENT = pytest.mark.skipif(
    not (shutil.which("turnutils_uclient") and shutil.which("turnutils_peer")),
    reason="coturn's utilities are not installed",
)


@UCLIENT
@pytest.mark.parametrize(
    "switches",
    [
        pytest.param("", id="udp, even ports and reservations"),
        pytest.param("-t -c -y -g -G", id="tcp, client to client, extra requests"),
    ],
)
def test_coturns_client_loses_nothing(switches):
    """With Send indications (``-s``): its channel numbers go up to 0x7FFF, as in RFC 5766, and RFC
    8656 section 12 ends at 0x4FFF."""

    async def main():
        with bind(HERE) as probe:
            peer_port = probe.getsockname()[1]
        async with await serve(realm="test", relay_ips=[HERE]) as shell:
            peer = await asyncio.create_subprocess_exec(
                *f"turnutils_peer -L {HERE} -p {peer_port}".split(),
                stdout=asyncio.subprocess.DEVNULL,
            )
            try:
                port = shell.udp_addresses[0][1]
                client = await asyncio.create_subprocess_exec(
                    *f"turnutils_uclient -s {switches} -n 5 -m 2 -u {USER} -w".split(),
                    PASSWORD,
                    *f"-e {HERE} -r {peer_port} -p {port} {HERE}".split(),
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.STDOUT,
                )
                output, _ = await client.communicate()
            finally:
                peer.terminate()
                await peer.wait()
            text = output.decode(errors="replace")
            assert client.returncode == 0, text
            assert "Total lost packets 0 (0.000000%)" in text, text
            assert shell.counters.relayed_to_clients >= 10
            # The extra requests are for peers of both families.
            assert shell.counters.errors.keys() <= {401, 443}, shell.counters

    run(main())
