"""Names in place of our addresses: who answers for them, where, and what others make of it."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ice_punch.net.interfaces import InterfaceAddress
from ice_punch.net.mdns import MdnsResponder, links, make_name, messages, resolve_mdns
from support.introduction import Mailbox, introduce
from support.lan import Place, two_hosts
from support.netns import NETNS

NAME = "0a1b2c3d-1111-4222-8333-444455556666.local"
V4 = InterfaceAddress("lan0", "192.0.2.5", 24)
V6 = InterfaceAddress("lan0", "2001:db8::5", 64)


# -- messages ----------------------------------------------------------------------------------


def test_mdns_3_1_1_a_name_is_a_version_4_uuid_and_never_the_same() -> None:
    source = random.Random(1)
    names = [make_name(source) for _ in range(100)]
    assert len(set(names)) == 100
    for name in names:
        label, local = name.split(".")
        assert local == "local"
        assert uuid.UUID(label).version == 4
        assert messages.is_candidate_name(name)


@pytest.mark.parametrize("ip", ["192.0.2.5", "2001:db8::5"])
def test_an_answer_is_understood_by_whoever_asks(ip: str) -> None:
    packet = messages.parse(messages.response(NAME, ip))
    assert packet is not None
    assert not packet.is_query
    assert packet.addresses == ((NAME, ip),)
    assert packet.id == 0


def test_a_question_asks_for_addresses_of_both_families() -> None:
    packet = messages.parse(messages.query(NAME))
    assert packet is not None
    assert packet.is_query
    assert packet.questions == (messages.Question(NAME, unicast=False),)
    assert messages.query(NAME).count(b"\x00\x01\x00\x01") == 1  # A, IN
    assert messages.query(NAME).count(b"\x00\x1c\x00\x01") == 1  # AAAA, IN


def test_a_goodbye_stands_for_no_address() -> None:
    packet = messages.parse(messages.response(NAME, "192.0.2.5", ttl=0))
    assert packet is not None
    assert packet.addresses == ()


@pytest.mark.parametrize(
    "name",
    ["example.org", "a.b.local", ".local", "local", "under_score.local", "-a.local", NAME + "."],
)
def test_mdns_3_2_1_other_names_are_none_of_a_candidate(name: str) -> None:
    assert not messages.is_candidate_name(name)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_packet_or_nothing(data: bytes) -> None:
    messages.parse(data)


@given(
    st.sampled_from(
        [messages.query(NAME), messages.response(NAME, "192.0.2.5"), messages.response(NAME, "::5")]
    ),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=8),
)
def test_a_damaged_packet_is_a_packet_or_nothing(
    data: bytes, damage: list[tuple[int, int]]
) -> None:
    damaged = bytearray(data)
    for place, value in damage:
        damaged[place % len(damaged)] = value
    messages.parse(bytes(damaged))


def test_what_a_network_says_of_others_is_not_even_read() -> None:
    assert messages.mentions(messages.query(NAME.upper()), [NAME])
    assert messages.mentions(messages.response(NAME, "192.0.2.5"), ["other.local", NAME])
    assert not messages.mentions(messages.query("printer.local"), [NAME])
    assert not messages.mentions(messages.query(NAME), [])


def test_names_that_point_at_themselves_are_no_endless_work() -> None:
    loop = bytes(4) + b"\0\1" + bytes(6) + b"\xc0\x0c\0\1\0\1"
    assert messages.parse(loop) is None
    assert messages.parse(bytes(messages.MAX_SIZE + 1)) is None


# -- the responder, without a network ------------------------------------------------------------


class Wire:
    """The links of a responder, and what left on them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[tuple[str, Any, bytes]] = []
        self.at = 100.0
        self.opened: list[str] = []
        wire = self

        class FakeLink:
            def __init__(self, interface: str, own: InterfaceAddress, on_packet: Any) -> None:
                self.interface = interface
                self.networks: list[Any] = []
                wire.opened.append(interface)

            def multicast(self, data: bytes) -> None:
                wire.sent.append((self.interface, "all", data))

            def unicast(self, data: bytes, destination: Any) -> None:
                wire.sent.append((self.interface, destination, data))

            def close(self) -> None:
                wire.opened.remove(self.interface)

        monkeypatch.setattr(links, "Link", FakeLink)

    def responder(self) -> MdnsResponder:
        made = MdnsResponder(random.Random(1))
        made._loop = self  # type: ignore[assignment]
        return made

    def time(self) -> float:
        return self.at

    def call_later(self, delay: float, action: Callable[[], None]) -> Any:
        self.later = action

        class Handle:
            def cancel(self) -> None: ...

        return Handle()

    def link(self, made: MdnsResponder, interface: str) -> Any:
        assert made._links is not None
        return made._links.on(interface)[0]

    def take(self) -> list[tuple[str, Any, bytes]]:
        sent, self.sent = self.sent, []
        return sent


def alone(story: Callable[[], None]) -> None:
    async def main() -> None:
        story()

    asyncio.run(main())


def test_mdns_3_1_1_an_address_has_one_name_that_is_announced_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def story() -> None:
        wire = Wire(monkeypatch)
        here = wire.responder()
        name = here.publish(V4)
        assert here.publish(V4) == name
        other = here.publish(V6)
        assert other != name, "each address has its own"
        assert here.name_of(V4.ip) == name
        said = {messages.parse(data).addresses for _, _, data in wire.take()}  # type: ignore[union-attr]
        assert said == {((name, V4.ip),), ((other, V6.ip),)}
        wire.later()
        again = {messages.parse(data).addresses for _, _, data in wire.take()}  # type: ignore[union-attr]
        assert again == {((other, V6.ip),)}
        here.close()
        assert wire.opened == []

    alone(story)


def test_a_name_is_answered_on_the_link_of_its_address_and_on_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def story() -> None:
        wire = Wire(monkeypatch)
        here = wire.responder()
        name = here.publish(V4)
        elsewhere = here.publish(InterfaceAddress("vpn0", "10.8.0.2", 24))
        wire.take()
        asker = ("192.0.2.9", 5353)
        here._on_packet(wire.link(here, "vpn0"), messages.query(name), asker)
        assert wire.take() == []
        here._on_packet(wire.link(here, "lan0"), messages.query(elsewhere), asker)
        assert wire.take() == []
        here._on_packet(wire.link(here, "lan0"), messages.query(name.upper()), asker)
        assert wire.take() == [("lan0", "all", messages.response(name, V4.ip))]
        here.close()

    alone(story)


def test_who_asks_like_any_resolver_is_answered_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 6762 section 6.7."""

    def story() -> None:
        wire = Wire(monkeypatch)
        here = wire.responder()
        name = here.publish(V4)
        wire.take()
        question = bytearray(messages.query(name))
        question[0:2] = b"\x12\x34"
        asker = ("192.0.2.9", 40000)
        here._on_packet(wire.link(here, "lan0"), bytes(question), asker)
        ((_, destination, data),) = wire.take()
        assert destination == asker
        packet = messages.parse(data)
        assert packet is not None
        assert (packet.id, packet.addresses) == (0x1234, ((name, V4.ip),))
        here.close()

    alone(story)


def test_a_flood_of_questions_is_answered_four_times_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def story() -> None:
        wire = Wire(monkeypatch)
        here = wire.responder()
        name = here.publish(V4)
        wire.take()
        for _ in range(1000):
            here._on_packet(wire.link(here, "lan0"), messages.query(name), ("192.0.2.9", 5353))
            wire.at += 0.001
        assert len(wire.take()) == 4
        assert here.stats.answered == 4
        assert here.stats.ignored == 996
        here.close()

    alone(story)


def test_an_address_that_goes_says_goodbye_and_is_answered_for_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def story() -> None:
        wire = Wire(monkeypatch)
        here = wire.responder()
        name = here.publish(V4)
        wire.take()
        link = wire.link(here, "lan0")
        here.withdraw(V4.ip)
        here.withdraw(V4.ip)
        assert wire.take() == [("lan0", "all", messages.response(name, V4.ip, ttl=0))]
        here._on_packet(link, messages.query(name), ("192.0.2.9", 5353))
        wire.later()
        assert wire.take() == []
        assert here.publish(V4) == name, "and keeps its name if it comes back"
        here.close()
        here.close()

    alone(story)


def test_where_there_is_no_multicast_there_are_names_all_the_same() -> None:
    def story() -> None:
        here = MdnsResponder(random.Random(1))
        name = here.publish(InterfaceAddress("nope0", "192.0.2.5", 24))
        assert messages.is_candidate_name(name)
        here.close()

    alone(story)


# -- in a network --------------------------------------------------------------------------------


@pytest.fixture
def lan() -> Iterator[tuple[Place, Place]]:
    with two_hosts() as hosts:
        yield hosts


def publishing(*addresses: InterfaceAddress) -> Callable[[Mailbox], Coroutine[Any, Any, int]]:
    async def party(mailbox: Mailbox) -> int:
        here = MdnsResponder(random.Random(1))
        for address in addresses:
            mailbox.send(here.publish(address))
        await asyncio.sleep(0.3)
        mailbox.send("ready")
        await mailbox.recv()
        here.close()
        return here.stats.answered

    return party


def resolving(resolve: Callable[[str], Coroutine[Any, Any, Any]], count: int = 1) -> Any:
    async def party(mailbox: Mailbox) -> list[Any]:
        names = [await mailbox.recv() for _ in range(count)]
        assert await mailbox.recv() == "ready"
        found = [await resolve(name) for name in names]
        mailbox.send("done")
        return found

    return party


async def by_aioice(name: str) -> Any:
    from aioice.mdns import create_mdns_protocol

    protocol = await create_mdns_protocol()
    try:
        return await protocol.resolve(name, timeout=2.0)
    finally:
        await protocol.close()


@pytest.mark.parametrize("resolve", [resolve_mdns, by_aioice])
@pytest.mark.parametrize("address", [V4, V6])
@NETNS[0]
@NETNS[1]
def test_another_host_on_the_link_resolves_our_name(
    lan: tuple[Place, Place], address: InterfaceAddress, resolve: Any
) -> None:
    answered, found = introduce(lan[0], publishing(address), lan[1], resolving(resolve))
    assert found == [address.ip]
    assert answered >= 1


@NETNS[0]
@NETNS[1]
def test_a_name_of_another_interface_is_not_answered_on_this_link(
    lan: tuple[Place, Place],
) -> None:
    elsewhere = InterfaceAddress("alone0", "198.51.100.5", 24)
    answered, found = introduce(
        lan[0],
        publishing(V4, elsewhere),
        lan[1],
        resolving(resolve_mdns, 2),
    )
    assert found == [V4.ip, None]
    assert answered >= 1


@NETNS[0]
@NETNS[1]
def test_two_programs_of_one_host_answer_side_by_side(lan: tuple[Place, Place]) -> None:
    def one_host() -> list[str | None]:
        async def main() -> list[str | None]:
            first, second = MdnsResponder(random.Random(1)), MdnsResponder(random.Random(2))
            names = [first.publish(V4), second.publish(V6)]
            await asyncio.sleep(0.3)
            found = [await resolve_mdns(name) for name in names]
            first.close()
            second.close()
            return found

        return asyncio.run(main())

    assert lan[0].call(one_host) == [V4.ip, V6.ip]
