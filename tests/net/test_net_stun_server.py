from __future__ import annotations

import asyncio
import os
import random
import shutil
import socket
import sys

import pytest

from ice_punch.errors import InterfaceNotFound, InvalidConfiguration, PortRangeExhausted
from ice_punch.net import many, udp
from ice_punch.net.stun_server import RateLimit, StunServer
from ice_punch.net.udp import bind
from ice_punch.stun import (
    CHANGE_REQUEST,
    ERROR_CODE,
    OTHER_ADDRESS,
    PADDING,
    RESPONSE_PORT,
    SOFTWARE,
    XOR_MAPPED_ADDRESS,
    ChangeRequest,
    Message,
    MessageClass,
    Method,
    parse_message,
)

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


def run(coroutine, factory=None):
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(coroutine)


def request(**attributes):
    message = Message(Method.BINDING, MessageClass.REQUEST, os.urandom(12))
    for attribute, value in attributes.items():
        message.add(
            {"change": CHANGE_REQUEST, "padding": PADDING, "response_port": RESPONSE_PORT}[
                attribute
            ],
            value,
        )
    return message


async def ask(client, destination, message=None):
    """The response and where it came from; None after a moment of silence."""
    message = message or request()
    client.setblocking(False)
    client.sendto(message.to_bytes(), destination)
    for _ in range(200):
        try:
            data, source = client.recvfrom(2048)
        except BlockingIOError:
            await asyncio.sleep(0.002)
            continue
        response = parse_message(data)
        if response.transaction_id == message.transaction_id:
            return response, source[:2]
    return None


@pytest.mark.parametrize("factory", LOOPS)
@pytest.mark.parametrize(
    ("host", "reached", "client"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("::1", "::1", "::1"),
        # The kernel would answer 127.0.0.3 from 127.0.0.1 if it were left the choice.
        ("0.0.0.0", "127.0.0.2", "127.0.0.3"),
        ("::", "::1", "::1"),
        ("", "127.0.0.2", "127.0.0.3"),
        ("", "::1", "::1"),
        ("localhost", "127.0.0.1", "127.0.0.1"),
    ],
)
def test_the_answer_leaves_from_the_address_that_was_asked(factory, host, reached, client):
    async def main():
        async with await StunServer.start(host, 0) as server:
            assert len({port for _, port in server.addresses}) == 1
            port = server.addresses[0][1]
            with bind(client) as sock:
                response, source = await ask(sock, (reached, port))
                assert source == (reached, port)
                assert response.message_class is MessageClass.SUCCESS
                assert response.get(XOR_MAPPED_ADDRESS) == sock.getsockname()[:2]
                assert response.get(SOFTWARE) == "ice-punch"
            assert server.counters.answered == 1

    run(main(), factory)


@pytest.mark.parametrize("factory", LOOPS)
@pytest.mark.parametrize("calls", [many._CALLS, None], ids=["many", "one-by-one"])
@pytest.mark.parametrize("reached", ["127.0.0.1", "127.0.0.2"])
def test_a_request_with_more_in_it_is_answered_at_every_address_too(
    reached, calls, factory, monkeypatch
):
    """127.0.0.1 has a socket of its own next to the wildcard, 127.0.0.2 has none."""
    monkeypatch.setattr(many, "_CALLS", calls)

    async def main():
        async with await StunServer.start("", 0) as server:
            port = server.addresses[0][1]
            with bind("127.0.0.1") as sock, bind("127.0.0.1") as other:
                response, source = await ask(sock, (reached, port), request(padding=bytes(20_000)))
                assert source == (reached, port)
                assert len(response.get(PADDING)) == 1500
                response, _ = await ask(
                    sock, (reached, port), request(change=ChangeRequest(True, False))
                )
                assert response.get(ERROR_CODE).code == 420
                message = request(response_port=other.getsockname()[1])
                assert await ask(sock, (reached, port), message) is None
                assert other.recvfrom(2048)[1] == (reached, port)
            assert server.counters.answered == 3

    run(main(), factory)


@pytest.mark.parametrize("factory", LOOPS)
@pytest.mark.parametrize("calls", [many._CALLS, None], ids=["many", "one-by-one"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_many_at_once_are_all_answered_and_others_get_their_turn(host, calls, factory, monkeypatch):
    """A plain request, one with more in it, junk: each gets what it should whatever comes with
    it, and whether or not the system takes many datagrams by one call."""
    monkeypatch.setattr(many, "_CALLS", calls)
    plain, more = request(), request(change=ChangeRequest(False, True))

    async def main():
        async with await StunServer.start(host, 0) as server:
            with bind(host) as sock:
                sock_address = sock.getsockname()[:2]
                for number in range(300):
                    message = (plain.to_bytes(fingerprint=False), more.to_bytes(), b"junk")
                    sock.sendto(message[number % 7 % 3], server.addresses[0])
                turns = received = 0
                while server.counters.received < 300:
                    assert server.counters.received - received <= udp.DRAIN_LIMIT
                    received = server.counters.received
                    turns += 1
                    await asyncio.sleep(0)
                assert turns >= 300 // udp.DRAIN_LIMIT
                expected = [n % 7 % 3 for n in range(300) if n % 7 % 3 != 2]
                answers = []
                for _ in expected:
                    data, source = sock.recvfrom(2048)
                    assert source[:2] == server.addresses[0]
                    answers.append(parse_message(data))
            told = [answer.get(XOR_MAPPED_ADDRESS) for answer in answers]
            assert told.count(sock_address) == expected.count(0)
            codes = [answer.get(ERROR_CODE) for answer in answers]
            assert [code.code for code in codes if code] == [420] * expected.count(1)
            assert server.counters.dropped == {"not-stun": 300 - len(expected)}
            assert server.send_failures == server.limited == 0

    run(main(), factory)


@pytest.mark.skipif(sys.platform != "linux", reason="sockets beside a wildcard are Linux's")
def test_nobody_slips_in_between_the_sockets_of_a_wildcard():
    async def main():
        async with await StunServer.start("", 0) as server:
            port = server.addresses[0][1]
            assert {ip for ip, _ in server.addresses} <= {"0.0.0.0", "::"}
            for ip in ("127.0.0.1", "127.0.0.2", "0.0.0.0"):
                with pytest.raises(PortRangeExhausted):
                    bind(ip, port=port, reuse_port=True)

    run(main())


def test_a_name_for_this_host_and_software_can_be_chosen():
    async def main():
        async with await StunServer.start(["127.0.0.1", "127.0.0.2"], 0, software=None) as server:
            assert [ip for ip, _ in server.addresses] == ["127.0.0.1", "127.0.0.2"]
            with bind("127.0.0.1") as sock:
                for address in server.addresses:
                    response, source = await ask(sock, address)
                    assert source == address
                    assert response.get(SOFTWARE) is None

    run(main())


def test_with_an_alternate_address_it_answers_from_where_it_is_told_to():
    async def main():
        server = await StunServer.start("127.0.0.1", 0, alternate=("127.0.0.2", 0))
        primary, other = server.addresses[:2]
        corners = {(ip, port) for ip in (primary[0], other[0]) for port in (primary[1], other[1])}
        assert set(server.addresses) == corners
        with bind("127.0.0.1") as sock:
            response, _ = await ask(sock, primary)
            assert response.get(OTHER_ADDRESS) == other
            for change_ip in (False, True):
                for change_port in (False, True):
                    message = request(change=ChangeRequest(change_ip, change_port))
                    _, source = await ask(sock, primary, message)
                    assert source == (
                        other[0] if change_ip else primary[0],
                        other[1] if change_port else primary[1],
                    )
        await server.close()

    run(main())


@pytest.mark.skipif(
    shutil.which("turnutils_natdiscovery") is None, reason="coturn's tools are not installed"
)
def test_coturns_behaviour_discovery_understands_it():
    async def main():
        server = await StunServer.start("127.0.0.1", 0, alternate=("127.0.0.2", 0))
        process = await asyncio.create_subprocess_exec(
            *("turnutils_natdiscovery", "-m", "-f", "-p", str(server.addresses[0][1])),
            "127.0.0.1",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(process.communicate(), 30)
        await server.close()
        return output.decode()

    output = run(main())
    assert "No NAT" in output or "Endpoint Independent Mapping" in output
    assert "Endpoint Independent Filtering" in output


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_junk_gets_no_answer_and_disturbs_nothing(host):
    async def main():
        dice = random.Random(7)
        async with await StunServer.start(host, 0) as server:
            destination = ("127.0.0.1", server.addresses[0][1])
            good = request().to_bytes()
            with bind("127.0.0.1") as sock:
                for _ in range(300):
                    junk = bytearray(good)
                    for _ in range(dice.randrange(1, 4)):
                        junk[dice.randrange(len(junk))] = dice.randrange(256)
                    sock.sendto(junk[: dice.randrange(len(junk))], destination)
                sock.sendto(dice.randbytes(1400), destination)
                sock.sendto(b"", destination)
                response, _ = await ask(sock, destination)
                assert response.message_class is MessageClass.SUCCESS
            assert server.counters.received == 303
            assert server.counters.answered == 1

    run(main())


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])
@pytest.mark.parametrize("calls", [many._CALLS, None], ids=["many", "one-by-one"])
def test_a_source_that_asks_too_much_is_dropped_and_counted(calls, host, monkeypatch):
    monkeypatch.setattr(many, "_CALLS", calls)

    async def main():
        limit = RateLimit(rate=0.001, burst=2)
        async with await StunServer.start(host, 0, limit=limit) as server:
            destination = ("127.0.0.1", server.addresses[0][1])
            with bind("127.0.0.1") as one, bind("127.0.0.2") as other:
                assert await ask(one, destination)
                assert await ask(one, destination)
                assert await ask(one, destination) is None
                assert await ask(other, destination)
            assert server.limited == 1

    run(main())


def test_a_token_bucket_fills_again_and_forgets_the_oldest():
    limit = RateLimit(rate=10, burst=5, max_sources=2)
    assert [limit.admits("192.0.2.1", 0.0) for _ in range(6)] == [True] * 5 + [False]
    assert [limit.admits("192.0.2.1", 0.2) for _ in range(3)] == [True, True, False]
    assert [limit.admits("192.0.2.1", 100.0) for _ in range(6)] == [True] * 5 + [False]
    for i in range(100):
        assert limit.admits(f"198.51.100.{i}", 100.0)
    assert len(limit) == 2


def test_an_ipv6_network_is_one_source():
    limit = RateLimit(rate=1, burst=1)
    assert limit.admits("2001:db8::1", 0.0)
    assert not limit.admits("2001:db8::ffff:1", 0.0)
    assert limit.admits("2001:db8:0:1::1", 0.0)
    assert limit.admits("fe80::1%eth0", 0.0)


def test_a_taken_port_is_told():
    async def main():
        async with await StunServer.start("127.0.0.1", 0) as server:
            port = server.addresses[0][1]
            with pytest.raises(PortRangeExhausted, match=f"UDP port {port} of 127.0.0.1 is taken"):
                await StunServer.start("127.0.0.1", port)

    run(main())


def test_after_close_the_port_is_free_again():
    async def main():
        server = await StunServer.start("", 0)
        port = server.addresses[0][1]
        await server.close()
        await server.close()
        again = await StunServer.start("", port)
        await again.close()

    run(main())


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"hosts": "203.0.113.77"}, InterfaceNotFound),
        ({"hosts": "no-such-host.invalid"}, InterfaceNotFound),
        ({"hosts": "127.0.0.1", "port": 70000}, InvalidConfiguration),
        ({"hosts": "0.0.0.0", "alternate": ("127.0.0.2", 0)}, InvalidConfiguration),
        ({"hosts": "127.0.0.1", "alternate": ("0.0.0.0", 0)}, InvalidConfiguration),
        ({"hosts": "127.0.0.1", "alternate": ("::1", 0)}, InvalidConfiguration),
        ({"hosts": "127.0.0.1", "alternate": ("127.0.0.1", 0)}, InvalidConfiguration),
    ],
)
def test_what_can_not_be_served_is_one_clear_error(arguments, error):
    async def main():
        with pytest.raises(error) as caught:
            await StunServer.start(**{"port": 0, **arguments})
        assert "\n" not in str(caught.value)

    run(main())


def test_a_failed_start_leaves_no_socket():
    async def main():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.2", 0))
            port = taken.getsockname()[1]
            with pytest.raises(PortRangeExhausted):
                await StunServer.start(["127.0.0.3", "127.0.0.2"], port)
            bind("127.0.0.3", port=port).close()

    run(main())
