from __future__ import annotations

import asyncio
import os
import socket
import time

import pytest

from ice_punch.datagram import Transmit
from ice_punch.errors import PortRangeExhausted
from ice_punch.nat import MappingBehaviour
from ice_punch.net import dns, stun_client
from ice_punch.net.ice_server import IceServer, parse_server_argument
from ice_punch.net.stun_client import (
    DEFAULT_STUN_SERVERS,
    ProbeResult,
    mapping_verdicts,
    probe,
)
from ice_punch.net.stun_server import StunServer
from ice_punch.net.udp import UdpSocket, bind
from ice_punch.stun import (
    ERROR_CODE,
    SOFTWARE,
    XOR_MAPPED_ADDRESS,
    ErrorCode,
    MessageClass,
    parse_message,
    response_to,
)


def server_at(address):
    return IceServer("stun", *address, "udp")


async def collect(servers, **options):
    started = time.monotonic()
    results = [result async for result in probe(servers, **options)]
    return results, time.monotonic() - started


class Oddity:
    """A server that answers as it is told to."""

    def __init__(self, answer, ip="127.0.0.1"):
        self.requests = []
        self._answer = answer
        self.socket = UdpSocket.open(ip, self._on_datagram)

    @property
    def server(self):
        return server_at(self.socket.local)

    def _on_datagram(self, data, source, local):
        request = parse_message(data)
        self.requests.append(request)
        answer = self._answer(request, source, len(self.requests))
        if isinstance(answer, Transmit):
            self.socket.send(answer.data, answer.destination)
        elif answer is not None:
            self.socket.send(answer.to_bytes(), source)

    def close(self):
        self.socket.close()


def mapped_to(*address):
    def answer(request, source, number):
        response = response_to(request, MessageClass.SUCCESS)
        response.add(XOR_MAPPED_ADDRESS, address)
        return response

    return answer


def test_all_servers_see_the_same_socket():
    async def main():
        async with (
            await StunServer.start("127.0.0.1", 0) as a,
            await StunServer.start("127.0.0.2", 0) as b,
        ):
            servers = [server_at(s.addresses[0]) for s in (a, b)]
            results, took = await collect(servers)
        assert {r.server for r in results} == set(servers)
        assert len({r.mapped for r in results}) == 1
        for result in results:
            assert result.error is None
            assert result.address == (result.server.host, result.server.port)
            assert 0 < result.rtt < 1
            assert result.local == result.mapped
        assert took < 1
        assert mapping_verdicts(results)[4].behaviour is MappingBehaviour.OPEN

    asyncio.run(main())


def test_both_families_of_a_name_are_asked_each_from_its_own_socket(monkeypatch):
    async def both(server, **_):
        return [("::1", server.port), ("127.0.0.1", server.port)]

    monkeypatch.setattr(stun_client, "resolve_server", both)

    async def main():
        async with await StunServer.start("", 0) as server:
            port = server.addresses[0][1]
            results, _ = await collect([parse_server_argument(f"both.example:{port}")])
        return results

    results = asyncio.run(main())
    assert sorted(r.mapped[0] for r in results) == ["127.0.0.1", "::1"]
    verdicts = mapping_verdicts(results)
    assert set(verdicts) == {4, 6}


def test_dead_servers_cost_their_own_row_and_no_more_than_the_timeout(monkeypatch):
    resolve = dns.socket.getaddrinfo

    def getaddrinfo(host, *arguments):
        if host == "silent.example":
            time.sleep(5)
        return resolve(host, *arguments)

    monkeypatch.setattr(dns.socket, "getaddrinfo", getaddrinfo)

    async def main():
        with bind("127.0.0.1") as silent, bind("127.0.0.1") as gone:
            refusing = gone.getsockname()[:2]
            gone.close()
            async with await StunServer.start("127.0.0.1", 0) as alive:
                servers = [
                    parse_server_argument("silent.example"),
                    parse_server_argument("no-such-name.invalid"),
                    server_at(silent.getsockname()[:2]),
                    server_at(refusing),
                    IceServer.parse("stuns:localhost"),
                    server_at(alive.addresses[0]),
                ]
                order, errors = [], {}
                started = time.monotonic()
                async for result in probe(servers, timeout=0.7, ipv6=False):
                    order.append(result.server)
                    errors[result.server] = result.error
                    if result.server == servers[-1]:
                        assert time.monotonic() - started < 0.5
                assert time.monotonic() - started < 1.5
        assert sorted(map(str, order)) == sorted(map(str, servers))
        silent_name, no_name, silent_server, refuser, tls, good = (errors[s] for s in servers)
        assert good is None
        assert "not resolved within 0.7 s" in silent_name
        assert "can not be resolved" in no_name
        assert silent_server == "no answer within 0.7 s"
        assert "ICMP" in refuser
        assert "UDP" in tls

    asyncio.run(main())


def test_a_lost_request_is_sent_again_and_its_round_trip_left_open():
    async def main():
        def answer(request, source, number):
            return mapped_to("192.0.2.1", 1)(request, source, number) if number == 2 else None

        odd = Oddity(answer)
        (result,), took = await collect([odd.server])
        odd.close()
        assert len({r.transaction_id for r in odd.requests}) == 1
        assert result.mapped == ("192.0.2.1", 1)
        assert result.rtt is None
        assert 0.45 < took < 1

    asyncio.run(main())


def test_requests_leave_three_times_in_three_seconds(monkeypatch):
    async def main():
        odd = Oddity(lambda *_: None)
        (result,), took = await collect([odd.server])
        odd.close()
        assert len(odd.requests) == 3
        assert result.error == "no answer within 3 s"
        assert 2.9 < took < 3.5

    asyncio.run(main())


def test_an_error_answer_is_told_in_the_servers_words():
    async def main():
        def answer(request, source, number):
            response = response_to(request, MessageClass.ERROR)
            response.add(ERROR_CODE, ErrorCode(500, "Out of\norder"))
            return response

        odd = Oddity(answer)
        (result,), _ = await collect([odd.server])
        odd.close()
        assert result.error == "it refused: 500 Out oforder"
        assert result.mapped is None

    asyncio.run(main())


def test_answers_from_elsewhere_and_with_another_transaction_do_not_count():
    async def main():
        stranger = UdpSocket.open("127.0.0.1", lambda *_: None)

        def answer(request, source, number):
            right = mapped_to("192.0.2.66", 6)(request, source, number)
            stranger.send(right.to_bytes(), source)
            right.transaction_id = os.urandom(12)
            odd.socket.send(right.to_bytes(), source)
            odd.socket.send(b"junk", source)

        odd = Oddity(answer)
        (result,), _ = await collect([odd.server], timeout=0.3)
        odd.close()
        stranger.close()
        assert result.mapped is None

    asyncio.run(main())


@pytest.mark.parametrize(
    ("addresses", "behaviour"),
    [
        ([("192.0.2.1", 7), ("192.0.2.1", 7)], MappingBehaviour.ENDPOINT_INDEPENDENT),
        ([("192.0.2.1", 7), ("192.0.2.1", 8)], MappingBehaviour.ADDRESS_DEPENDENT),
    ],
)
def test_the_verdict_tells_whether_the_mapping_varies(addresses, behaviour):
    async def main():
        odds = [
            Oddity(mapped_to(*address), f"127.0.0.{i + 1}") for i, address in enumerate(addresses)
        ]
        results, _ = await collect([odd.server for odd in odds])
        for odd in odds:
            odd.close()
        verdict = mapping_verdicts(results)[4]
        assert verdict.behaviour is behaviour
        assert verdict.varies_by_destination is (behaviour is MappingBehaviour.ADDRESS_DEPENDENT)

    asyncio.run(main())


def test_there_is_no_verdict_without_an_answer():
    assert mapping_verdicts([ProbeResult(parse_server_argument("x"), error="dead")]) == {}


def test_the_local_address_and_port_can_be_chosen():
    async def main():
        async with await StunServer.start("0.0.0.0", 0) as server:
            target = server_at(("127.0.0.1", server.addresses[0][1]))
            with bind("127.0.0.5") as free:
                port = free.getsockname()[1]
            options = {"local_ips": ["127.0.0.5"], "port_range": (port, port)}
            (result,), _ = await collect([target], **options)
            assert result.mapped == ("127.0.0.5", port)
            with bind("127.0.0.5", port=port), pytest.raises(PortRangeExhausted):
                await collect([target], **options)

    asyncio.run(main())


def test_a_family_that_is_off_or_has_no_route_is_told_in_the_row():
    async def main():
        (result,), took = await collect([parse_server_argument("127.0.0.1")], ipv4=False)
        assert "switched off" in result.error
        assert took < 0.5

    asyncio.run(main())


def test_stopping_early_leaves_nothing_behind():
    async def main():
        odd = Oddity(lambda *_: None)
        async with await StunServer.start("127.0.0.1", 0) as server:
            results = probe([odd.server, server_at(server.addresses[0])])
            async for result in results:
                port = result.mapped[1]
                break
            await results.aclose()
        odd.close()
        bind("127.0.0.1", port=port).close()

    asyncio.run(main())


def test_no_servers_are_no_results():
    assert asyncio.run(collect([]))[0] == []


def test_the_default_servers_are_valid_and_of_several_operators():
    servers = [IceServer.parse(uri) for uri in DEFAULT_STUN_SERVERS]
    assert len({server.host.split(".")[-2] for server in servers}) >= 3
    assert all(server.scheme == "stun" for server in servers)


@pytest.fixture(autouse=True)
def nothing_leaves_this_host(monkeypatch):
    """Public servers are never asked by a test."""
    send = stun_client.UdpSocket.send

    def checked(self, data, destination):
        assert destination[0].startswith("127.") or destination[0] == "::1"
        return send(self, data, destination)

    monkeypatch.setattr(stun_client.UdpSocket, "send", checked)


def test_a_wildcard_socket_hears_no_other_family():
    async def main():
        inbox = []
        sock = UdpSocket.open("::", lambda *datagram: inbox.append(datagram))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as v4:
            v4.sendto(b"x", ("127.0.0.1", sock.local[1]))
        await asyncio.sleep(0.02)
        assert inbox == []
        sock.close()

    asyncio.run(main())


def test_rfc8489_6_1_3_a_request_names_its_software_and_ends_in_a_fingerprint():
    async def main():
        with bind("127.0.0.1") as server:
            results, _ = await collect([server_at(server.getsockname()[:2])], timeout=0.1)
            request = parse_message(server.recv(2048))
        assert results[0].error == "no answer within 0.1 s"
        assert request.get(SOFTWARE) == "ice-punch"
        assert request.has_fingerprint

    asyncio.run(main())
