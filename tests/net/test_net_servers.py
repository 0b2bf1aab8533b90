"""Where servers and the peer are as seen from a host with nothing but IPv6."""

from __future__ import annotations

import asyncio

import pytest

from ice_punch import IceConnection, IceServer, ServerUnreachable
from ice_punch.datagram import Address
from ice_punch.ice import Candidate
from ice_punch.net import dns, servers
from ice_punch.net.gatherer import GatheringOptions
from ice_punch.net.interfaces import InterfaceAddress
from ice_punch.net.servers import ServerAddresses

V4 = InterfaceAddress("eth0", "192.0.2.5", 24)
V6 = InterfaceAddress("eth0", "2001:db8::5", 64)
STUN = IceServer.parse("stun:198.51.100.1")
BEHIND = "64:ff9b::"


class Names:
    """Answers as the name servers of a network do."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, records: dict[str, list[str]]) -> None:
        self.records = records
        self.asked: list[str] = []
        self.delay = 0.0
        self._original = dns.resolve
        monkeypatch.setattr(servers.dns, "resolve", self.resolve)

    async def resolve(self, host: str, port: int, **options: object) -> list[Address]:
        self.asked.append(host)
        if host not in self.records:
            if host[0].isdigit() or ":" in host:
                return await self._original(host, port, **options)  # type: ignore[arg-type]
            raise ServerUnreachable(f"{host} is unknown", outcome="unresolved")
        await asyncio.sleep(self.delay)
        return [(ip, port) for ip in self.records[host]]


DNS64 = {
    "ipv4only.arpa": ["64:ff9b::c000:aa", "64:ff9b::c000:ab"],
    "both.example": ["2001:db8::1", "198.51.100.2"],
    "old.example": ["198.51.100.3"],
}


async def resolved(here: list[InterfaceAddress], server: IceServer) -> list[str]:
    addresses = ServerAddresses(GatheringOptions())
    addresses.here(here)
    try:
        return [ip for ip, _ in await addresses.resolve(server)]
    finally:
        addresses.close()


def test_rfc7050_a_server_named_by_an_ipv4_address_is_reached_through_nat64(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Names(monkeypatch, DNS64)
    assert asyncio.run(resolved([V6], STUN)) == ["64:ff9b::c633:6401"]


def test_a_server_with_an_ipv6_address_is_reached_there(monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch, DNS64)
    assert asyncio.run(resolved([V6], IceServer.parse("stun:both.example"))) == ["2001:db8::1"]
    assert asyncio.run(resolved([V6], IceServer.parse("stun:old.example"))) == [
        "64:ff9b::c633:6403"
    ]


def test_who_has_ipv4_asks_nobody_for_nat64(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(monkeypatch, DNS64)
    assert asyncio.run(resolved([V4, V6], STUN)) == ["198.51.100.1"]
    assert "ipv4only.arpa" not in names.asked


def test_without_nat64_an_ipv4_server_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch, {})
    assert asyncio.run(resolved([V6], STUN)) == ["198.51.100.1"]


def test_name_servers_that_never_answer_cost_two_seconds_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(servers, "DISCOVERY_TIMEOUT", 0.2)
    monkeypatch.setattr(dns, "_lookup", lambda *_: asyncio.get_running_loop().create_future())

    async def main() -> None:
        async with asyncio.timeout(1.0):
            assert await resolved([V6], STUN) == ["198.51.100.1"]

    asyncio.run(main())


def test_another_network_ends_the_wait_for_what_the_last_one_would_have_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = Names(monkeypatch, DNS64)
    names.delay = 5.0

    async def main() -> None:
        addresses = ServerAddresses(GatheringOptions())
        addresses.here([V6])
        waiting = asyncio.ensure_future(addresses.translated("203.0.113.9"))
        await asyncio.sleep(0.05)
        names.delay = 0.0
        addresses.here([InterfaceAddress("wlan0", "2001:db8:2::5", 64)])
        async with asyncio.timeout(1.0):
            assert await waiting is None
            assert await addresses.translated("203.0.113.9") == "64:ff9b::cb00:7109"
        addresses.close()

    asyncio.run(main())


def test_who_waits_for_a_server_can_be_told_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch, DNS64).delay = 5.0

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await resolved([V6], STUN)

    asyncio.run(main())


def candidates_after(
    monkeypatch: pytest.MonkeyPatch, lines: list[str], *, here: list[InterfaceAddress]
) -> tuple[list[Candidate], bool]:
    """What the agent knows of the peer, and whether it knows that there are no more."""

    async def main() -> tuple[list[Candidate], bool]:
        async with IceConnection(options=GatheringOptions(relay_only=True)) as connection:
            connection._driver.gatherer.servers.here(here)
            connection.start_gathering = lambda: None  # type: ignore[method-assign]
            for line in lines:
                connection.add_remote_candidate(line)
            connection.add_remote_candidate(None)
            await asyncio.sleep(0.2)
            return list(
                connection._agent.remote_candidates
            ), connection._agent.report().peer_told_all

    return asyncio.run(main())


PUBLIC = "candidate:1 1 udp 1694498815 203.0.113.9 5000 typ srflx raddr 10.0.0.2 rport 5000"
PRIVATE = "candidate:2 1 udp 2130706431 10.0.0.2 5000 typ host"
IPV6 = "candidate:3 1 udp 2130706430 2001:db8::9 5000 typ host"


def test_the_peers_public_ipv4_candidates_are_reached_through_nat64_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Names(monkeypatch, DNS64).delay = 0.05
    found, ended = candidates_after(monkeypatch, [PRIVATE, PUBLIC, IPV6], here=[V6])
    assert [c.host for c in found] == [
        "10.0.0.2",
        "203.0.113.9",
        "2001:db8::9",
        "64:ff9b::cb00:7109",
    ]
    translated, original = found[-1], found[1]
    assert (translated.type, translated.priority) == (original.type, original.priority)
    assert ended, "the end is told after the last of them"


def test_without_nat64_they_stay_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch, {})
    found, ended = candidates_after(monkeypatch, [PUBLIC], here=[V6])
    assert [c.host for c in found] == ["203.0.113.9"]
    assert ended


def test_with_ipv4_of_our_own_they_stay_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(monkeypatch, DNS64)
    found, _ = candidates_after(monkeypatch, [PUBLIC], here=[V4, V6])
    assert [c.host for c in found] == ["203.0.113.9"]
    assert names.asked == []
