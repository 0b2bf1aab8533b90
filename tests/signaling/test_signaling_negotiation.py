"""Who offers, which generation counts, when a candidate may be used."""

from __future__ import annotations

import random
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signaling.negotiation import AskForOffer, MakeOffer, Negotiation


def pair() -> tuple[Negotiation[str], Negotiation[str]]:
    """The peer that offers and the one that does not, after their first exchange."""
    larger, smaller = Negotiation[str](offers=True), Negotiation[str](offers=False)
    assert larger.begin(0.0) == MakeOffer(0)
    assert smaller.receive_offer(0)
    smaller.description_set(0, "larger-0", 0.0)
    smaller.answered()
    assert larger.receive_answer(0)
    larger.description_set(0, "smaller-0", 0.0)
    return larger, smaller


def test_the_larger_order_offers_and_the_other_asks() -> None:
    assert Negotiation[str](offers=True).begin(0.0) == MakeOffer(0)
    assert Negotiation[str](offers=False).begin(0.0) == AskForOffer(0)


def test_asked_for_the_first_offer_the_larger_order_makes_it_once() -> None:
    larger = Negotiation[str](offers=True)
    assert larger.receive_restart(0, 0.0) == MakeOffer(0)
    assert larger.receive_restart(0, 0.1) is None


def test_a_restart_is_offered_by_the_same_peer() -> None:
    larger, smaller = pair()
    assert smaller.restart(10.0) == AskForOffer(1)
    assert smaller.generation == 0
    assert larger.receive_restart(1, 10.0) == MakeOffer(1)
    assert smaller.receive_offer(1)
    assert (larger.settled, smaller.settled) == (False, False)


def test_both_restart_at_once_and_there_is_one_offer() -> None:
    larger, smaller = pair()
    assert larger.restart(10.0) == MakeOffer(1)
    assert smaller.restart(10.0) == AskForOffer(1)
    assert larger.receive_restart(1, 10.1) is None
    assert smaller.receive_offer(1)
    smaller.answered()
    assert larger.receive_answer(1)
    assert larger.generation == smaller.generation == 1


def test_restarts_are_a_second_apart_and_wait_for_the_answer() -> None:
    larger, smaller = pair()
    assert larger.restart(4.0) == MakeOffer(1)
    assert larger.restart(23.9) is None  # not answered yet
    assert larger.receive_answer(1)
    assert larger.restart(4.9) is None
    assert larger.restart(5.0) == MakeOffer(2)
    assert smaller.restart(5.0) == AskForOffer(1)
    assert smaller.restart(5.9) is None
    assert smaller.restart(6.0) == AskForOffer(1)


def test_an_offer_whose_answer_was_lost_does_not_end_all_restarts() -> None:
    larger, smaller = pair()
    assert larger.restart(4.0) == MakeOffer(1)
    assert larger.restart(24.0) == MakeOffer(2)
    assert not larger.receive_answer(1)
    assert smaller.receive_offer(2)
    assert larger.receive_answer(2)


def test_an_offer_from_the_peer_whose_turn_it_is_not_is_dropped() -> None:
    larger, smaller = pair()
    assert not larger.receive_offer(1)
    assert smaller.receive_restart(1, 10.0) is None
    assert not smaller.receive_answer(0)
    assert (larger.dropped, smaller.dropped) == (1, 1)


def test_an_old_offer_and_a_second_answer_are_dropped() -> None:
    larger, smaller = pair()
    assert not smaller.receive_offer(0)
    assert not larger.receive_answer(0)
    assert not larger.receive_answer(1)


def test_candidates_wait_for_the_description_with_their_ufrag() -> None:
    smaller = Negotiation[str](offers=False)
    assert smaller.receive_candidates(0, "u", "first", 0.0) is None
    assert smaller.receive_candidates(0, "other", "stray", 0.0) is None
    assert smaller.receive_candidates(1, "v", "early", 0.0) is None
    smaller.receive_offer(0)
    assert smaller.receive_candidates(0, "u", "second", 1.0) is None
    assert smaller.description_set(0, "u", 2.0) == ["first", "second"]
    assert smaller.receive_candidates(0, "u", "third", 3.0) == "third"
    smaller.receive_offer(1)
    assert smaller.description_set(1, "v", 4.0) == ["early"]


def test_candidates_of_an_older_generation_are_dropped() -> None:
    larger, _ = pair()
    assert larger.receive_candidates(0, "smaller-0", "in time", 1.0) == "in time"
    larger.restart(10.0)
    larger.receive_answer(1)
    larger.description_set(1, "smaller-1", 11.0)
    assert larger.receive_candidates(0, "smaller-0", "late", 12.0) is None
    assert larger.receive_candidates(1, "smaller-0", "garbled", 12.0) is None
    assert larger.dropped == 2


def test_what_waits_is_bounded_in_number_and_time() -> None:
    smaller = Negotiation[str](offers=False)
    for number in range(200):
        smaller.receive_candidates(0, "u", str(number), 0.0)
    assert smaller.dropped == 72
    smaller.receive_candidates(0, "u", "fresh", 14.0)
    assert smaller.description_set(0, "u", 15.0) == ["fresh"]


def test_an_attempt_begins_once() -> None:
    larger, _ = pair()
    with pytest.raises(ValueError, match="begun"):
        larger.begin(1.0)


@settings(max_examples=200)
@given(st.integers(), st.lists(st.sampled_from(["larger", "smaller", "deliver"]), max_size=80))
def test_however_restarts_cross_both_end_in_the_same_generation(
    seed: int, actions: list[str]
) -> None:
    chance = random.Random(seed)
    peers = dict(zip(("larger", "smaller"), pair(), strict=True))
    other = {"larger": "smaller", "smaller": "larger"}
    wires: dict[str, deque[tuple[str, int]]] = {"larger": deque(), "smaller": deque()}
    now = 100.0

    def send(who: str, step: MakeOffer | AskForOffer | None) -> None:
        if isinstance(step, MakeOffer):
            wires[other[who]].append(("offer", step.generation))
        elif step is not None:
            wires[other[who]].append(("restart", step.generation))

    def deliver(who: str) -> None:
        kind, generation = wires[who].popleft()
        peer = peers[who]
        if kind == "restart":
            send(who, peer.receive_restart(generation, now))
        elif kind == "offer":
            assert peer.receive_offer(generation), "an offer was dropped"
            peer.answered()
            wires[other[who]].append(("answer", generation))
        else:
            assert peer.receive_answer(generation), "an answer was dropped"

    for action in actions:
        now += chance.random() * 0.24  # less than 20 s in all
        if action == "deliver":
            for who in wires:
                if wires[who]:
                    deliver(who)
        else:
            send(action, peers[action].restart(now))
    while any(wires.values()):
        for who in wires:
            if wires[who]:
                deliver(who)
    assert peers["larger"].generation == peers["smaller"].generation
    assert peers["larger"].settled
    assert peers["smaller"].settled
