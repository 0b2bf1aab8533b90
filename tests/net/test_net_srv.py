"""A server named without a port is looked for in DNS (RFC 8489 section 8.1): at a server here."""

from __future__ import annotations

import asyncio
import socket
import time

import dns.asyncresolver
import dns.flags
import dns.message
import dns.rcode
import dns.resolver
import dns.rrset
import pytest

from ice_punch.errors import ServerUnreachable
from ice_punch.net import dns as names
from ice_punch.net import srv, stun_client
from ice_punch.net.ice_server import IceServer, parse_server_argument
from ice_punch.net.servers import ServerAddresses
from ice_punch.net.srv import find_targets, resolve_server
from ice_punch.net.stun_client import probe
from ice_punch.net.stun_server import StunServer
from ice_punch.net.udp import bind
from ice_punch.stun import Method, parse_message

FIND_TARGETS = find_targets  # what tests/conftest.py takes away from all other tests
ADDRESSES = {
    "example.org": ["192.0.2.1"],
    "one.example.org": ["192.0.2.11", "2001:db8::11"],
    "two.example.org": ["192.0.2.12"],
    "here.example.org": ["127.0.0.1"],
}


class NameServer(asyncio.DatagramProtocol):
    """Answers by ``records``: the text of SRV records by name; silent where they are None."""

    def __init__(self, records: dict[str, list[str] | None]) -> None:
        self.records = records
        self.asked: list[str] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True)
        self.asked.append(name)
        records = self.records.get(name, [])
        if records is None:
            return
        response = dns.message.make_response(query)
        if records:
            response.answer.append(dns.rrset.from_text(question.name, 60, "IN", "SRV", *records))
        else:
            response.set_rcode(dns.rcode.NXDOMAIN)
        self.transport.sendto(response.to_wire(), addr)


@pytest.fixture(autouse=True)
def addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the system's resolver says."""

    def getaddrinfo(host, port, family=0, kind=0, *rest):
        ips = [ip for ip in ADDRESSES.get(host, []) if (":" in ip) == (family == socket.AF_INET6)]
        if not ips:
            raise socket.gaierror(-2, "Name or service not known")
        return [(family, kind, 17, "", (ip, 0)) for ip in ips]

    monkeypatch.setattr(names.socket, "getaddrinfo", getaddrinfo)


def run(records, ask, monkeypatch):
    """What ``ask`` returns, and what the name server was asked."""
    monkeypatch.setattr(srv, "find_targets", FIND_TARGETS)

    async def main():
        loop = asyncio.get_running_loop()
        transport, server = await loop.create_datagram_endpoint(
            lambda: NameServer(records), local_addr=("127.0.0.1", 0)
        )
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers = ["127.0.0.1"]
        resolver.port = transport.get_extra_info("sockname")[1]
        monkeypatch.setattr(srv, "make_resolver", lambda: resolver)
        try:
            return await ask(), server.asked
        finally:
            transport.close()

    return asyncio.run(main())


def resolved(uri, **options):
    return lambda: resolve_server(IceServer.parse(uri), **options)


@pytest.mark.parametrize(
    ("uri", "question"),
    [
        ("stun:example.org", "_stun._udp.example.org"),
        ("stun:example.org.", "_stun._udp.example.org"),
        ("stuns:example.org", "_stuns._tcp.example.org"),
        ("turn:example.org", "_turn._udp.example.org"),
        ("turn:example.org?transport=tcp", "_turn._tcp.example.org"),
        ("turns:example.org", "_turns._tcp.example.org"),
    ],
)
def test_rfc8489_8_1_6_the_service_is_the_scheme_and_the_protocol_the_transport(
    uri, question, monkeypatch
):
    found, asked = run(
        {question: ["0 0 3479 two.example.org."]}, resolved(uri, ipv6=False), monkeypatch
    )
    assert asked == [question]
    assert found == [("192.0.2.12", 3479)]


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("stun:example.org:3478", [("192.0.2.1", 3478)]),
        ("turn:example.org:80", [("192.0.2.1", 80)]),
        ("stun:192.0.2.7", [("192.0.2.7", 3478)]),
        ("turns:[2001:db8::7]", [("2001:db8::7", 5349)]),
    ],
)
def test_rfc8489_8_1_6_a_port_or_an_ip_address_leaves_nothing_to_ask(uri, expected, monkeypatch):
    assert run({}, resolved(uri), monkeypatch) == (expected, [])


def test_rfc8489_8_1_6_without_records_the_name_s_addresses_are_taken_at_the_default_port(
    monkeypatch,
):
    assert run({}, resolved("stun:example.org"), monkeypatch) == (
        [("192.0.2.1", 3478)],
        ["_stun._udp.example.org"],
    )
    assert run({}, resolved("turns:example.org"), monkeypatch)[0] == [("192.0.2.1", 5349)]


def test_rfc2782_targets_come_by_priority_and_each_with_all_of_its_addresses(monkeypatch):
    """And one without an address, or without a port, takes no other with it."""
    records = [
        "20 0 3480 two.example.org.",
        "10 0 3479 one.example.org.",
        "5 0 3478 nowhere.example.org.",
        "1 0 0 two.example.org.",
    ]
    found, _ = run({"_stun._udp.example.org": records}, resolved("stun:example.org"), monkeypatch)
    assert found == [("2001:db8::11", 3479), ("192.0.2.11", 3479), ("192.0.2.12", 3480)]


def test_rfc2782_a_target_that_is_a_dot_says_that_there_is_no_such_service(monkeypatch):
    with pytest.raises(ServerUnreachable, match=r"^example.org offers no stun over udp"):
        run({"_stun._udp.example.org": ["0 0 0 ."]}, resolved("stun:example.org"), monkeypatch)


def test_targets_without_any_address_are_one_clear_error(monkeypatch):
    records = {"_stun._udp.example.org": ["0 0 3478 nowhere.example.org."]}
    with pytest.raises(ServerUnreachable, match="none of them has an address"):
        run(records, resolved("stun:example.org"), monkeypatch)


def test_a_domain_that_has_records_alone_needs_no_address_of_its_own(monkeypatch):
    records = {"_stun._udp.bare.example.org": ["0 0 3478 two.example.org."]}
    found, _ = run(records, resolved("stun:bare.example.org"), monkeypatch)
    assert found == [("192.0.2.12", 3478)]
    with pytest.raises(ServerUnreachable, match="can not be resolved"):
        run({}, resolved("stun:bare.example.org"), monkeypatch)


def test_a_name_server_that_is_silent_about_records_holds_nothing_up(monkeypatch):
    started = time.monotonic()
    found, _ = run({"_stun._udp.example.org": None}, resolved("stun:example.org"), monkeypatch)
    assert found == [("192.0.2.1", 3478)]
    assert time.monotonic() - started < 1


def test_no_more_than_eight_targets_are_followed(monkeypatch):
    many = [f"{n} 0 {3000 + n} two.example.org." for n in range(1, 40)]
    found, _ = run({"_stun._udp.example.org": many}, resolved("stun:example.org"), monkeypatch)
    assert found == [("192.0.2.12", 3001 + n) for n in range(8)]


def test_without_name_servers_there_are_no_records(monkeypatch):
    monkeypatch.setattr(srv, "find_targets", FIND_TARGETS)

    def none():
        raise dns.resolver.NoResolverConfiguration

    monkeypatch.setattr(srv, "make_resolver", none)
    assert asyncio.run(resolved("stun:example.org")()) == [("192.0.2.1", 3478)]


@pytest.mark.parametrize("host", ["localhost", "printer.local", "a.localhost"])
def test_names_that_are_not_of_the_dns_are_not_asked_for(host, monkeypatch):
    server = parse_server_argument(host)
    assert server.leaves_port_to_dns
    assert run({}, lambda: FIND_TARGETS(server, 1.0), monkeypatch) == ([], [])


def test_a_session_gathers_at_the_servers_that_dns_names(monkeypatch):
    class Families:
        ipv4 = True
        ipv6 = False

    records = {"_stun._udp.example.org": ["0 0 3479 one.example.org."]}
    found, _ = run(
        records,
        lambda: ServerAddresses(Families()).resolve(IceServer.parse("stun:example.org")),
        monkeypatch,
    )
    assert found == [("192.0.2.11", 3479)]


def test_rfc8489_8_1_2_the_next_target_is_asked_where_the_first_is_silent(monkeypatch):
    monkeypatch.setattr(stun_client, "NEXT_AFTER", 0.1)

    async def ask():
        with bind("127.0.0.1") as silent:
            async with await StunServer.start("127.0.0.1", 0) as server:
                records["_stun._udp.example.org"] = [
                    f"1 0 {silent.getsockname()[1]} here.example.org.",
                    f"2 0 {server.addresses[0][1]} here.example.org.",
                ]
                results = [
                    result
                    async for result in probe(
                        [parse_server_argument("example.org")], ipv6=False, timeout=2
                    )
                ]
                assert parse_message(silent.recv(2048)).method == Method.BINDING
                return results, server.addresses[0]

    records: dict[str, list[str] | None] = {}
    started = time.monotonic()
    ((result,), address), _ = run(records, ask, monkeypatch)
    assert result.error is None
    assert result.address == address
    assert 0.1 < time.monotonic() - started < 1.5


def test_rfc8489_8_1_2_where_every_target_is_silent_the_first_is_told(monkeypatch):
    monkeypatch.setattr(stun_client, "NEXT_AFTER", 0.05)

    async def ask():
        with bind("127.0.0.1") as one, bind("127.0.0.1") as other:
            ports = [one.getsockname()[1], other.getsockname()[1]]
            records["_stun._udp.example.org"] = [
                f"{n} 0 {port} here.example.org." for n, port in enumerate(ports)
            ]
            servers = [parse_server_argument("example.org")]
            results = [r async for r in probe(servers, ipv6=False, timeout=0.4)]
            assert one.recv(2048)
            assert other.recv(2048)
            return results, ports

    records: dict[str, list[str] | None] = {}
    ((result,), ports), _ = run(records, ask, monkeypatch)
    assert result.error == "no answer within 0.4 s"
    assert result.address == ("127.0.0.1", ports[0])
