"""What a gatherer makes of servers: candidates of every kind, from one question each."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from ice_punch import GatheringOptions, IceConnection, IceServer
from ice_punch.datagram import Address
from ice_punch.ice import Candidate
from ice_punch.net.interfaces import InterfaceAddress
from ice_punch.net.turn_server import TurnServerShell
from ice_punch.stun import (
    ADDITIONAL_ADDRESS_FAMILY,
    ERROR_CODE,
    REQUESTED_ADDRESS_FAMILY,
    ErrorCode,
    MessageClass,
    Method,
    parse_message,
    response_to,
)
from ice_punch.turn import allow_every_peer
from support.coturn import Coturn
from support.leaks import open_sockets
from support.turn_through_nat import OUTSIDE, PASSWORD, USER, TurnThroughNat

LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"
HERE = GatheringOptions(
    interface_filter=lambda address: address.ip in ("127.0.0.1", "::1"), timeout=2.0
)
IPV4 = replace(HERE, ipv6=False)


async def gathered(
    *servers: IceServer,
    options: GatheringOptions = IPV4,
    look: Callable[[IceConnection], Awaitable[None]] | None = None,
) -> list[Candidate]:
    """Everything a connection gathers; ``look`` at it before it is closed."""
    async with IceConnection(options=options, ice_servers=servers) as connection:
        found = [candidate async for candidate in connection.gather()]
        if look is not None:
            await look(connection)
        return found


def kinds(candidates: list[Candidate]) -> list[str]:
    return sorted(f"{c.type} {'IPv6' if ':' in c.host else 'IPv4'}" for c in candidates)


def outcomes(connection: IceConnection) -> set[tuple[str, str, str]]:
    return {(s.uri, s.purpose, s.outcome) for s in connection.report().servers}


def test_rfc8445_5_1_1_2_an_allocate_answer_tells_the_reflexive_address_of_its_base() -> None:
    async def main() -> None:
        async with TurnThroughNat() as nat:

            async def look(connection: IceConnection) -> None:
                assert outcomes(connection) == {
                    (nat.ice_server.uri, "address", "ok"),
                    (nat.ice_server.uri, "relay", "ok"),
                }

            found = await gathered(nat.ice_server, look=look)
            host, reflexive, relay = (
                next(c for c in found if c.type == kind) for kind in ("host", "srflx", "relay")
            )
            assert reflexive.base == host.address
            assert reflexive.address == (OUTSIDE, host.port)
            assert reflexive.related_address == host.address
            assert relay.related_address == reflexive.address
            # Twice, for the first one is not authenticated; and given back.
            assert nat.methods() == [Method.ALLOCATE, Method.ALLOCATE, Method.REFRESH]
            assert {asker for _, asker in nat.asked} == {host.address}
            assert nat.server.allocations == 0

    asyncio.run(main())


def test_rfc8445_5_1_1_2_where_the_server_has_no_relay_left_a_binding_request_tells() -> None:
    async def main() -> None:
        async with TurnThroughNat(relay_ips=["203.0.113.10"], port_range=(50000, 50000)) as nat:
            nat.server._requests.allocate = lambda *_: ErrorCode(508, "Insufficient Capacity")  # type: ignore[method-assign]

            async def look(connection: IceConnection) -> None:
                assert outcomes(connection) == {
                    (nat.ice_server.uri, "address", "ok"),
                    (nat.ice_server.uri, "relay", "denied"),
                }

            assert kinds(await gathered(nat.ice_server, look=look)) == ["host IPv4", "srflx IPv4"]
            assert nat.methods()[-1] == Method.BINDING

    asyncio.run(main())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")
def test_every_other_base_is_told_by_a_binding_request(monkeypatch: pytest.MonkeyPatch) -> None:
    two = [InterfaceAddress("lo", ip, 8) for ip in ("127.0.0.1", "127.0.0.2")]
    monkeypatch.setattr(GatheringOptions, "addresses", lambda self: two)

    async def main() -> None:
        async with TurnThroughNat() as nat:
            found = await gathered(nat.ice_server, options=replace(IPV4, follow_network=False))
            assert kinds(found).count("srflx IPv4") == 2
            assert kinds(found).count("relay IPv4") == 1
            asked = {
                ip: {m for m, asker in nat.asked if asker[0] == ip} for ip in (two[0].ip, two[1].ip)
            }
            assert Method.BINDING not in asked["127.0.0.1"]
            assert asked["127.0.0.2"] == {Method.BINDING}

    asyncio.run(main())


def test_an_alternate_server_is_asked_from_the_same_socket_and_tells_the_address() -> None:
    async def main() -> None:
        async with (
            TurnThroughNat() as second,
            TurnThroughNat(alternate_servers=[second.address]) as first,
        ):
            found = await gathered(first.ice_server)
            assert kinds(found) == ["host IPv4", "relay IPv4", "srflx IPv4"]
            assert Method.REFRESH not in first.methods()
            assert {asker for _, asker in first.asked} == {asker for _, asker in second.asked}
            assert second.server.allocations == 0

    asyncio.run(main())


def test_rfc8656_7_4_an_address_that_has_an_allocation_already_asks_from_another() -> None:
    """The one before us at this address left it behind, and the NAT gave us the same port."""

    async def main() -> None:
        async with TurnThroughNat() as nat:
            original = nat.server._requests.allocate

            def mismatch(*arguments: Any) -> Any:
                nat.server._requests.allocate = original  # type: ignore[method-assign]
                return ErrorCode(437, "Allocation Mismatch")

            nat.server._requests.allocate = mismatch  # type: ignore[method-assign]
            found = await gathered(nat.ice_server)
            assert kinds(found) == ["host IPv4", "relay IPv4", "srflx IPv4"]
            host = next(c for c in found if c.type == "host")
            assert (Method.BINDING, host.address) in nat.asked, "its address was not told"
            assert {asker for method, asker in nat.asked if method == Method.REFRESH} != {
                host.address
            }

    asyncio.run(main())


def test_two_allocations_at_one_server_have_a_socket_each() -> None:
    async def main() -> None:
        async with TurnThroughNat() as nat:
            again = replace(nat.ice_server, host="localhost")
            found = await gathered(nat.ice_server, again)
            assert kinds(found) == ["host IPv4", "relay IPv4", "relay IPv4", "srflx IPv4"]
            assert len({asker for m, asker in nat.asked if m == Method.REFRESH}) == 2

    asyncio.run(main())


def test_a_silent_turn_server_holds_back_neither_candidates_nor_the_end() -> None:
    async def main() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            dead = IceServer("turn", *silent.getsockname(), "udp", USER, PASSWORD)
            async with (
                TurnThroughNat() as nat,
                IceConnection(
                    options=replace(IPV4, timeout=1.0), ice_servers=[dead, nat.ice_server]
                ) as connection,
            ):
                began = time.monotonic()
                at: dict[str, float] = {}
                async for candidate in connection.gather():
                    at[candidate.type] = time.monotonic() - began
                assert set(at) == {"host", "srflx", "relay"}
                assert max(at.values()) < 0.5
                assert time.monotonic() - began < 1.5
                assert (dead.uri, "relay", "silent") in outcomes(connection)

    asyncio.run(main())


def test_a_server_that_is_slow_to_relay_is_asked_for_the_address_meanwhile() -> None:
    class Slow(TurnThroughNat):
        def answer(self, data: bytes, outside: Address) -> None:
            delay = 0.8 if parse_message(data).method == Method.ALLOCATE else 0.0
            asyncio.get_running_loop().call_later(delay, super().answer, data, outside)

    async def main() -> None:
        async with Slow() as nat:
            began = time.monotonic()
            at: dict[str, float] = {}

            async with IceConnection(options=IPV4, ice_servers=[nat.ice_server]) as connection:
                async for candidate in connection.gather():
                    at[candidate.type] = time.monotonic() - began
                assert outcomes(connection) == {
                    (nat.ice_server.uri, "address", "ok"),
                    (nat.ice_server.uri, "relay", "ok"),
                }
                addresses = [s for s in connection.report().servers if s.purpose == "address"]
                assert len(addresses) == 1, "told twice, reported once"
            assert at["srflx"] < 0.7 < 1.5 < at["relay"]

    asyncio.run(main())


def test_relay_only_tells_no_reflexive_address_and_opens_no_host_socket() -> None:
    async def main() -> None:
        async with TurnThroughNat() as nat:
            options = replace(IPV4, relay_only=True)
            (relay,) = await gathered(nat.ice_server, options=options)
            assert relay.type == "relay"
            assert relay.related_address == ("0.0.0.0", 9)

    asyncio.run(main())


def test_what_was_opened_is_closed() -> None:
    async def main() -> None:
        before = open_sockets()
        async with TurnThroughNat() as nat:
            await gathered(nat.ice_server, replace(nat.ice_server, host="localhost"))
        await asyncio.sleep(0)
        assert open_sockets() == before

    asyncio.run(main())


# -- both families, RFC 8656 --------------------------------------------------------------------


def test_one_allocation_gives_a_relayed_candidate_of_each_family() -> None:
    async def main() -> None:
        async with TurnThroughNat() as nat:
            options = replace(HERE, interface_filter=lambda address: address.ip == "127.0.0.1")
            found = await gathered(nat.ice_server, options=options)
            assert kinds(found) == ["host IPv4", "relay IPv4", "relay IPv6", "srflx IPv4"]
            assert len({c.priority for c in found}) == 4
            assert nat.methods().count(Method.ALLOCATE) == 2

    asyncio.run(main())


@pytest.mark.parametrize("only", ["203.0.113.10", "2001:db8::10"])
def test_a_server_with_one_family_gives_that_one(only: str) -> None:
    async def main() -> None:
        async with TurnThroughNat(relay_ips=[only]) as nat:
            found = await gathered(nat.ice_server, options=HERE)
            assert [c.host for c in found if c.type == "relay"] == [only]
            assert nat.methods().count(Method.ALLOCATE) == 2

    asyncio.run(main())


class Stubborn(TurnThroughNat):
    """Says 440 to every request for more than it has, as servers of RFC 6156 may."""

    def __init__(self, family: int) -> None:
        super().__init__(relay_ips=["203.0.113.10" if family == 1 else "2001:db8::10"])
        self.family = family
        self.refused: list[str] = []

    def answer(self, data: bytes, outside: Address) -> None:
        message = parse_message(data)
        if message.method == Method.ALLOCATE and message.message_class is MessageClass.REQUEST:
            asked = (
                "both"
                if message.get(ADDITIONAL_ADDRESS_FAMILY) is not None
                else message.get(REQUESTED_ADDRESS_FAMILY) or 1
            )
            if asked != self.family:
                self.refused.append(str(asked))
                response = response_to(message, MessageClass.ERROR)
                response.add(ERROR_CODE, ErrorCode(440, "Address Family not Supported"))
                assert self._transport is not None
                self._transport.sendto(response.to_bytes(), self._inside[outside])
                return
        super().answer(data, outside)


@pytest.mark.parametrize(
    ("family", "refused", "relayed"),
    [(1, ["both"], "203.0.113.10"), (2, ["both", "1"], "2001:db8::10")],
)
def test_rfc8656_7_4_after_a_440_what_the_server_may_have_is_asked_for(
    family: int, refused: list[str], relayed: str
) -> None:
    async def main() -> None:
        async with Stubborn(family) as nat:
            found = await gathered(nat.ice_server, options=HERE)
            assert [c.host for c in found if c.type == "relay"] == [relayed]
            assert nat.refused == refused

    asyncio.run(main())


def test_a_family_that_the_user_switched_off_is_not_asked_for() -> None:
    async def main() -> None:
        async with TurnThroughNat() as nat:
            assert kinds(await gathered(nat.ice_server, options=IPV4)).count("relay IPv6") == 0

    asyncio.run(main())


async def ipv6_only_peer_meets_the_relays_of(server: IceServer, relays: int) -> None:
    """A peer with nothing but IPv6, told nothing but relayed candidates of one asked over IPv4."""
    only_v6 = replace(HERE, ipv4=False, interface_filter=lambda address: address.ip == "::1")
    async with (
        IceConnection(options=HERE, ice_servers=[server]) as a,
        IceConnection(controlling=False, options=only_v6) as b,
    ):
        found = [c async for c in a.gather()]
        assert sum(c.type == "relay" for c in found) == relays
        assert not any(s.outcome in ("denied", "silent") for s in a.report().servers)
        if relays == 1:
            return
        async for _ in b.gather():
            pass
        for candidate in found:
            if candidate.type == "relay":
                b.add_remote_candidate(candidate)
        a_description, b_description = a.describe(candidates=False), b.describe()
        b.set_remote_description(a_description)
        a.set_remote_description(b_description)
        await asyncio.gather(a.connect(5), b.connect(5))
        await b.send(b"over the relay")
        assert await asyncio.wait_for(a.recv(), 5) == b"over the relay"


@pytest.mark.parametrize("relay_ips", [("127.0.0.1", "::1"), ("127.0.0.1",)])
def test_coturn_gives_both_families_or_the_one_it_has(relay_ips: tuple[str, ...]) -> None:
    options = [f"--relay-ip={ip}" for ip in relay_ips if ip != "127.0.0.1"]
    with Coturn(options=options) as coturn:
        server = IceServer.parse(coturn.uri(), USER, PASSWORD)
        asyncio.run(ipv6_only_peer_meets_the_relays_of(server, len(relay_ips)))


@pytest.mark.parametrize("relay_ips", [("127.0.0.1", "::1"), ("127.0.0.1",)])
def test_our_own_server_gives_both_families_in_one_allocation(relay_ips: tuple[str, ...]) -> None:
    async def main() -> None:
        shell = await TurnServerShell.start(
            "127.0.0.1",
            0,
            users={USER: PASSWORD},
            relay_ips=relay_ips,
            tcp_ports=(),
            peer_filter=allow_every_peer,
        )
        try:
            server = IceServer("turn", *shell.udp_addresses[0], "udp", USER, PASSWORD)
            await ipv6_only_peer_meets_the_relays_of(server, len(relay_ips))
            assert shell.server.counters.requests[Method.ALLOCATE] == 2, "the first is challenged"
            assert shell.server.allocations == 0
        finally:
            await shell.close()

    asyncio.run(main())
