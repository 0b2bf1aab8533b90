"""Spoken codes: what people may type, and a link handed over once, to whoever knows the words."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signaling.codes import SpokenCode, code_room, words
from signaling.errors import CodeNotFound, CodeSpent, InvalidCode, SignalingError, WrongCode
from signaling.hall import Hall
from signaling.handover import Guest, Host, LinkPart, Names, Reply
from signaling.limits import is_room_name
from signaling.link import Link
from signaling.messages import SendSignal
from signaling.server import SignalingServer
from signaling.spoken import CodeOffer, fetch_link

CODE = SpokenCode(7, ("orbit", "guitar"))
PART = LinkPart(room="R" * 22, secret="S" * 22)


def chance() -> random.Random:
    return random.Random(1)


@pytest.mark.parametrize(
    "typed",
    [
        "7-orbit-guitar",
        " 7 orbit  guitar ",
        "07-ORBIT-Guitar",
        "7-orbi-guit",
        "7 - orbit - guitar",
    ],
)
def test_a_code_is_understood_as_people_type_it(typed: str) -> None:
    assert SpokenCode.parse(typed) == CODE
    assert str(CODE) == "7-orbit-guitar"


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("", "a number and two words"),
        ("orbit-guitar", "a number and two words"),
        ("7-orbit", "a number and two words"),
        ("0-orbit-guitar", "a number and two words"),
        ("1000-orbit-guitar", "a number and two words"),
        ("7-orbit-guitar-again", "a number and two words"),
        ("7-xyzzy-guitar", "the first word"),
        ("7-orbit-xyzzy", "the second word"),
        ("7-orb-guitar", "the first word"),
        ("7-orbital-guitar", "the first word"),
        ("http://h/j/room#secret", "a number and two words"),
    ],
)
def test_what_is_no_code_is_told_without_showing_it(typed: str, says: str) -> None:
    with pytest.raises(InvalidCode, match=says) as caught:
        SpokenCode.parse(typed)
    assert "guitar" not in str(caught.value).replace("7-orbit-guitar", "")


@given(st.text())
def test_any_text_is_a_code_or_the_one_error(text: str) -> None:
    with contextlib.suppress(InvalidCode):
        SpokenCode.parse(text)


def test_every_code_that_is_drawn_can_be_typed_by_its_four_letters() -> None:
    assert len(set(words())) == len({word[:4] for word in words()}) == 2048
    source = chance()
    for _ in range(200):
        code = SpokenCode.create(3, source)
        assert SpokenCode.parse(str(code)) == code
        assert SpokenCode.parse(f"3 {code.words[0][:4]} {code.words[1][:4]}") == code
    assert is_room_name(code_room(3))


def exchange(host: Host, typed: SpokenCode, name: str = "guest", link: str = "l") -> Guest:
    """Everything two sides say to each other."""
    guest = Guest(typed, Names(name, "host", link), chance())
    to_host = [guest.begin()]
    while to_host:
        replies: list[Reply] = []
        for said in to_host:
            replies += host.receive(Names("host", name, link), *said)
        to_host = [more for reply in replies for more in guest.receive(*reply)]
    return guest


def test_who_knows_the_words_gets_the_link_once() -> None:
    host = Host(CODE, PART, chance())
    assert exchange(host, CODE).link == PART
    assert host.state == "taken"
    late = exchange(host, CODE, "late")
    assert (late.link, late.refusal) == (None, "spent")


def test_three_wrong_tries_make_the_code_void_for_the_right_one_too() -> None:
    host = Host(CODE, PART, chance())
    for number in range(3):
        assert host.state == "open"
        guest = exchange(host, SpokenCode(7, ("orbit", words()[number])), f"guest {number}")
        assert guest.link is None
        assert guest.refusal == ("wrong" if number < 2 else "spent")
    assert host.state == "spent"
    assert exchange(host, CODE, "honest").refusal == "spent"


def test_two_wrong_tries_leave_one() -> None:
    host = Host(CODE, PART, chance())
    for number in range(2):
        exchange(host, SpokenCode(7, ("orbit", words()[number])), f"guest {number}")
    assert exchange(host, CODE).link == PART


def test_a_try_is_not_to_be_had_for_a_second_proof_or_without_one() -> None:
    host = Host(CODE, PART, chance())
    names = Names("host", "guest", "l")
    assert host.receive(names, "offer", 1, "x" * 60) == []  # no exchange has begun
    guest = Guest(SpokenCode(7, ("orbit", "wrong")), Names("guest", "host", "l"), chance())
    (answer,) = host.receive(names, *guest.begin())
    (proof,) = guest.receive(*answer)
    assert host.receive(names, *proof) == [Reply("reject", 1, "wrong")]
    assert host.receive(names, *proof) == []
    assert host.tries_left == 2


def test_exchanges_that_are_begun_and_never_proved_are_bounded() -> None:
    host = Host(CODE, PART, chance())
    for number in range(12):
        guest = Guest(CODE, Names(f"{number}", "host", "l"), chance())
        assert host.receive(Names("host", f"{number}", "l"), *guest.begin())[0].kind == "answer"
    guest = Guest(CODE, Names("last", "host", "l"), chance())
    (refusal,) = host.receive(Names("host", "last", "l"), *guest.begin())
    assert refusal.data == "spent"
    assert host.state == "spent"


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=80), st.sampled_from(["offer", "answer", "reject", "cand"]))
def test_garbage_from_either_side_gets_nothing_and_raises_nothing(data: str, kind: str) -> None:
    host = Host(CODE, PART, chance())
    for generation in (0, 1, 2):
        replies = host.receive(Names("host", "g", "l"), kind, generation, data)
        assert all(reply.kind == "reject" for reply in replies)
    guest = Guest(CODE, Names("guest", "host", "l"), chance())
    for generation in (0, 1):
        guest.receive(kind, generation, data)
    assert guest.link is None


def test_a_server_in_between_needs_the_words_too() -> None:
    """It runs SPAKE2 with each side, and has one guess for each."""
    host = Host(CODE, PART, chance())
    guest = Guest(CODE, Names("guest", "host", "l"), chance())
    guessed = SpokenCode(7, ("orbit", "wrong"))
    towards_guest = Host(guessed, PART, random.Random(2))
    towards_host = Guest(guessed, Names("guest", "host", "l"), random.Random(3))
    (answer,) = towards_guest.receive(Names("host", "guest", "l"), *guest.begin())
    (proof,) = guest.receive(*answer)
    assert towards_guest.receive(Names("host", "guest", "l"), *proof)[0].data == "wrong"
    (answer,) = host.receive(Names("host", "guest", "l"), *towards_host.begin())
    (proof,) = towards_host.receive(*answer)
    assert host.receive(Names("host", "guest", "l"), *proof)[0].data == "wrong"
    assert guest.link is None
    assert towards_host.link is None


@pytest.mark.usefixtures("engine")
def test_a_link_is_handed_over_through_a_server_that_never_sees_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[SendSignal] = []
    relay = Hall.relay
    monkeypatch.setattr(
        Hall,
        "relay",
        lambda hall, member, signal: (seen.append(signal), relay(hall, member, signal))[1],
    )

    async def run() -> None:
        async with await SignalingServer.start(port=0) as server:
            link = Link.create(server.urls[0], random.SystemRandom())
            async with CodeOffer(link) as offer:
                assert await fetch_link(server.urls[0], offer.code) == link
                await asyncio.wait_for(offer.taken(), 2)
                with pytest.raises(CodeNotFound, match="nobody waits"):
                    await fetch_link(server.urls[0], offer.code)
            for signal in seen:
                for secret in (link.room, *SpokenCode.parse(offer.code).words):
                    assert secret not in signal.data

    asyncio.run(run())
    assert [(signal.kind, signal.gen) for signal in seen] == [
        ("offer", 0),
        ("answer", 0),
        ("offer", 1),
        ("answer", 1),
    ]


def test_wrong_words_are_told_and_after_the_third_the_host_hears_of_it() -> None:
    async def run() -> None:
        async with await SignalingServer.start(port=0) as server:
            link = Link.create(server.urls[0], random.SystemRandom())
            async with CodeOffer(link) as offer:
                right = SpokenCode.parse(offer.code)
                wrong = SpokenCode(right.number, (right.words[1], "zoo"))
                for error in (WrongCode, WrongCode, CodeSpent):
                    with pytest.raises(error) as caught:
                        await fetch_link(server.urls[0], wrong)
                    assert right.words[0] not in str(caught.value)
                with pytest.raises(CodeSpent, match="void"):
                    await asyncio.wait_for(offer.taken(), 2)

    asyncio.run(run())


def test_two_hosts_never_share_a_number() -> None:
    class Stubborn(random.Random):
        """Draws the same number first, every time."""

        def __init__(self) -> None:
            super().__init__()
            self.drawn = 0

        def random(self) -> float:
            self.drawn += 1
            return 0.5 if self.drawn == 1 else super().random()

    async def run() -> None:
        async with await SignalingServer.start(port=0) as server:
            link = Link.create(server.urls[0], random.SystemRandom())
            async with (
                CodeOffer(link, random=Stubborn()) as first,
                CodeOffer(link, random=Stubborn()) as second,
            ):
                assert first.code.startswith("50-")
                assert not second.code.startswith("50-")

    asyncio.run(run())


def test_nobody_there_and_no_server_are_told_at_once() -> None:
    async def run() -> None:
        async with await SignalingServer.start(port=0) as server:
            with pytest.raises(CodeNotFound, match="nobody waits under number 7"):
                await fetch_link(server.urls[0], "7-orbit-guitar", timeout=5)
        with pytest.raises(SignalingError, match="no server is listening"):
            await fetch_link(server.urls[0], "7-orbit-guitar", timeout=5)
        with pytest.raises(InvalidCode):
            await fetch_link(server.urls[0], "orbit")

    asyncio.run(run())
