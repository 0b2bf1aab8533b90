"""What a link of the laboratory does to packets, in the long run and to the first one."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ice_punch.errors import InvalidConfiguration
from ice_punch.lab.links import (
    IDEAL,
    PRESETS,
    AccessLink,
    GilbertElliott,
    Link,
    LinkDirection,
    LinkProfile,
    preset,
)

PACKETS = 100_000
BURSTY = {
    f"{name} {way}": profile
    for name, link in PRESETS.items()
    for way, profile in (("up", link.up), ("down", link.down))
    if profile.bursts is not None
}


def a_link(profile: LinkProfile, seed: object = 1) -> LinkDirection:
    return LinkDirection(profile, random.Random(f"{seed}"))


def losses(profile: LinkProfile, *, every: float, packets: int = PACKETS) -> list[bool]:
    link = a_link(profile)
    return [not link.carry(100, n * every).arrivals for n in range(packets)]


def mean_run(lost: list[bool]) -> float:
    """How many are lost in a row."""
    begins = sum(now and not before for before, now in pairwise([False, *lost]))
    return sum(lost) / begins


def share(values: list[bool]) -> float:
    return sum(values) / len(values)


def only_bursts(profile: LinkProfile) -> LinkProfile:
    return LinkProfile(bursts=profile.bursts)


# -- loss -------------------------------------------------------------------------------------


@pytest.mark.parametrize("chance", [0.005, 0.1, 0.5])
def test_independent_loss_takes_its_share_and_comes_alone(chance: float) -> None:
    lost = losses(LinkProfile(loss=chance), every=0.001)
    deviation = math.sqrt(chance * (1 - chance) / PACKETS)
    assert share(lost) == pytest.approx(chance, abs=3 * deviation)
    assert mean_run(lost) == pytest.approx(1 / (1 - chance), rel=0.05)


def test_all_and_nothing_are_shares_too() -> None:
    assert not any(losses(LinkProfile(loss=0.0, jitter=0.1), every=0.1, packets=100))
    assert all(losses(LinkProfile(loss=1.0), every=0.1, packets=100))


@pytest.mark.parametrize(("mean", "burst"), [(0.01, 2), (0.12, 4), (0.25, 10), (0.5, 1)])
def test_bursts_have_the_mean_and_the_length_that_were_asked_for(mean: float, burst: float) -> None:
    bursts = GilbertElliott.of(mean, burst)
    assert bursts.mean == pytest.approx(mean)
    lost = losses(LinkProfile(bursts=bursts), every=0.001)
    assert share(lost) == pytest.approx(mean, rel=0.08)
    assert mean_run(lost) == pytest.approx(burst, rel=0.04)


@pytest.mark.parametrize("name", BURSTY)
def test_a_presets_bursts_last_as_long_and_take_as_much_as_it_says(name: str) -> None:
    profile = only_bursts(BURSTY[name])
    bursts = profile.bursts
    assert bursts is not None
    assert bursts.slot is not None
    lost = losses(profile, every=bursts.slot)
    assert share(lost) == pytest.approx(bursts.mean, rel=0.1)
    assert mean_run(lost) == pytest.approx(1 / bursts.to_good, rel=0.06)


@pytest.mark.parametrize("every", [0.3, 1.0, 7.3])
def test_bursts_that_last_for_a_time_take_their_share_of_rare_packets_too(every: float) -> None:
    bursts = GilbertElliott.of(mean=0.25, burst=10, slot=0.02)
    lost = losses(LinkProfile(bursts=bursts), every=every)
    assert share(lost) == pytest.approx(0.25, rel=0.03)
    # 0.3 s are 15 steps, after which something of the burst is left; after 50 there is not.
    rest = (1 - bursts.to_bad - bursts.to_good) ** (every / 0.02)
    assert mean_run(lost) == pytest.approx(1 / (0.75 * (1 - rest)), rel=0.03)


def test_packets_of_one_step_share_its_fate() -> None:
    link = a_link(LinkProfile(bursts=GilbertElliott.of(mean=0.5, burst=3, slot=0.02)))
    fates = [
        {bool(link.carry(100, step * 0.02 + part * 0.003 + 0.001).arrivals) for part in range(6)}
        for step in range(1000)
    ]
    assert all(len(fate) == 1 for fate in fates)
    assert 400 < sum(fate == {True} for fate in fates) < 600


@pytest.mark.parametrize("name", [*BURSTY, "by packet"])
def test_the_first_packet_is_lost_as_often_as_any(name: str) -> None:
    by_packet = LinkProfile(bursts=GilbertElliott.of(mean=0.2, burst=8))
    profile = only_bursts(BURSTY.get(name, by_packet))
    links = 20_000
    lost = [not a_link(profile, seed).carry(100, 5.0).arrivals for seed in range(links)]
    mean = profile.mean_loss
    assert share(lost) == pytest.approx(mean, abs=3 * math.sqrt(mean * (1 - mean) / links))


def test_the_state_many_steps_later_is_that_of_as_many_single_ones() -> None:
    bursts = GilbertElliott(to_bad=0.07, to_good=0.3)
    for begins_bad in (False, True):
        bad = float(begins_bad)
        for steps in range(40):
            assert bursts.after(steps, bad=begins_bad) == pytest.approx(bad, abs=1e-12)
            bad = bad * (1 - bursts.to_good) + (1 - bad) * bursts.to_bad
        assert bursts.after(10**9, bad=begins_bad) == pytest.approx(bursts.share_of_bad)


def test_both_kinds_of_loss_add_up() -> None:
    profile = LinkProfile(loss=0.1, bursts=GilbertElliott(0.1, 0.3, loss_bad=0.8, loss_good=0.02))
    expected = 1 - 0.9 * (1 - (0.25 * 0.8 + 0.75 * 0.02))
    assert profile.mean_loss == pytest.approx(expected)
    assert share(losses(profile, every=0.01)) == pytest.approx(expected, rel=0.02)


# -- time -------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.sampled_from([name for name, link in PRESETS.items() if not link.up.reordering]),
    st.lists(st.sampled_from([0.0, 1e-6, 0.001, 0.02, 1.0]), min_size=2, max_size=200),
    st.integers(0, 2**32),
)
def test_jitter_never_reorders(name: str, pauses: list[float], seed: int) -> None:
    profile = replace(PRESETS[name].up, jitter=0.2)
    link = a_link(profile, seed)
    now, arrivals = 0.0, [0.0]
    for pause in pauses:
        now += pause
        for arrival in link.carry(200, now).arrivals:
            assert arrival >= now + profile.delay
            arrivals.append(arrival)
    assert arrivals == sorted(arrivals)


def test_jitter_is_spread_evenly_where_packets_are_far_apart() -> None:
    link = a_link(LinkProfile(delay=0.1, jitter=0.05))
    extra = [link.carry(100, n).arrivals[0] - n - 0.1 for n in range(20_000)]
    assert min(extra) == pytest.approx(0.0, abs=1e-4)
    assert max(extra) == pytest.approx(0.05, abs=1e-4)
    assert sum(extra) / len(extra) == pytest.approx(0.025, abs=3 * 0.05 / math.sqrt(12 * 20_000))


def test_a_packet_that_comes_early_overtakes_and_no_other_does() -> None:
    link = a_link(LinkProfile(delay=0.05, reordering=0.1, reordering_gap=0.02))
    took = [link.carry(100, n * 0.004).arrivals[0] - n * 0.004 for n in range(20_000)]
    early = [delay < 0.04 for delay in took]
    assert share(early) == pytest.approx(0.1, abs=3 * math.sqrt(0.09 / 20_000))
    assert {round(delay, 9) for delay in took} == {0.05, 0.03}
    arrivals = [n * 0.004 + delay for n, delay in enumerate(took)]
    # 20 ms early at 4 ms apart: ahead of the four before, and level with the fifth.
    overtaken = [n for n in range(5, 20_000) if early[n] and not early[n - 4]]
    assert all(arrivals[n] < arrivals[n - 4] for n in overtaken)
    punctual = [arrival for arrival, is_early in zip(arrivals, early, strict=True) if not is_early]
    assert punctual == sorted(punctual)


def test_nothing_arrives_before_it_left() -> None:
    link = a_link(LinkProfile(delay=0.005, reordering=1.0, reordering_gap=0.02, rate=8000))
    assert link.carry(125, 1.0).arrivals == (1.125,)
    assert link.carry(125, 1.0).arrivals == (1.25,)


def test_duplicates_are_a_share_and_arrive_together() -> None:
    link = a_link(LinkProfile(delay=0.01, duplication=0.2))
    passages = [link.carry(100, n).arrivals for n in range(20_000)]
    twice = [len(arrivals) == 2 for arrivals in passages]
    assert share(twice) == pytest.approx(0.2, abs=3 * math.sqrt(0.16 / 20_000))
    assert all(set(arrivals) == {n + 0.01} for n, arrivals in enumerate(passages))


# -- rate, queue, MTU -------------------------------------------------------------------------


def test_a_rate_spaces_packets_by_their_size_exactly() -> None:
    link = a_link(LinkProfile(delay=0.5, rate=8000))  # 1000 bytes a second
    assert [link.carry(size, 0.0).arrivals for size in (1000, 250, 125)] == [
        (1.5,),
        (1.75,),
        (1.875,),
    ]
    assert link.carry(1000, 1.0).arrivals == (2.875,)  # 0.375 s of the others are left
    assert link.carry(1000, 10.0).arrivals == (11.5,)  # idle since long


def test_a_full_queue_loses_what_comes_and_nothing_that_waits() -> None:
    link = a_link(LinkProfile(rate=8000, queue=1500))
    fates = [link.carry(1000, 0.0) for _ in range(4)]
    # 0, 1000 and 2000 bytes are there before them: the third finds more than may wait.
    assert [fate.arrivals for fate in fates] == [(1.0,), (2.0,), (), ()]
    assert {fate.why for fate in fates[2:]} == {"queue full"}
    assert link.carry(1000, 0.5).arrivals == (3.0,)  # 1500 bytes are left, not more
    assert link.carry(1000, 0.5).why == "queue full"
    assert link.carry(1000, 3.0).arrivals == (4.0,)


def test_without_a_queue_only_an_idle_link_takes_anything() -> None:
    link = a_link(LinkProfile(rate=8000, queue=0))
    assert link.carry(1000, 0.0).arrivals == (1.0,)
    assert link.carry(10, 0.999).why == "queue full"
    assert link.carry(10, 1.0).arrivals == (1.01,)


def test_the_rate_holds_in_the_long_run_for_whoever_sends_too_much() -> None:
    link = a_link(LinkProfile(rate=1e6, queue=20_000))
    arrived = [a for n in range(10_000) for a in link.carry(1250, n * 0.005).arrivals]
    assert len(arrived) * 1250 * 8 / arrived[-1] == pytest.approx(1e6, rel=1e-6)
    assert max(link.carry(1250, 50.0).arrivals, default=50.0) <= 50.0 + 21_250 * 8 / 1e6 + 1e-9


def test_what_is_larger_than_the_mtu_takes_no_time_of_the_link() -> None:
    link = a_link(LinkProfile(rate=8000, mtu=1400))
    assert link.carry(1401, 0.0).why == "too big"
    assert link.carry(1400, 0.0).arrivals == (1.4,)


def test_lost_packets_take_time_of_the_link() -> None:
    link = a_link(LinkProfile(loss=1.0, rate=8000, queue=500))
    assert [link.carry(1000, 0.0).why for _ in range(2)] == ["lost", "queue full"]


@pytest.mark.parametrize("start", [-1000.0, 0.0, 1e6])
def test_it_does_not_matter_when_time_begins(start: float) -> None:
    link = a_link(LinkProfile(delay=0.5, jitter=1e-9, rate=8000))
    assert link.carry(1000, start).arrivals[0] == pytest.approx(start + 1.5, abs=1e-6)


def test_a_link_is_a_pure_function_of_profile_seed_and_packets() -> None:
    def story(seed: int) -> list[object]:
        link = a_link(PRESETS["wifi_lossy"].up, seed)
        return [link.carry(200, n * 0.002) for n in range(500)]

    assert story(1) == story(1) != story(2)


def test_the_two_directions_of_a_link_go_their_own_ways() -> None:
    access = AccessLink(up=LinkProfile(delay=0.2, rate=8000), down=LinkProfile(delay=0.1))
    link = Link(access, random.Random(1), random.Random(2))
    assert link.up.carry(1000, 0.0).arrivals == (1.2,)
    assert link.down.carry(1000, 0.0).arrivals == (0.1,)
    assert link.up.carry(1000, 0.0).arrivals == (2.2,)
    lossy = Link(AccessLink.both(LinkProfile(loss=0.5)), random.Random("up"), random.Random("down"))
    up, down = (
        [bool(way.carry(100, n).arrivals) for n in range(100)] for way in (lossy.up, lossy.down)
    )
    assert up != down


# -- presets and mistakes ---------------------------------------------------------------------

ROUND_TRIPS = {
    # (milliseconds to the internet and back, without jitter; share of packets lost up and down)
    "perfect": (0, 0, 0),
    "lan": (0.4, 0, 0),
    "fibre": (4, 0, 0),
    "wifi_lossy": (10, 0.03, 0.03),
    "cellular": (60, 0.015, 0.01),
    "satellite": (600, 0.005, 0.005),
    "barely_usable": (450, 0.12, 0.12),
    "absurd": (800, 0.25, 0.25),
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_the_numbers_that_are_promised(name: str) -> None:
    link = preset(name)
    round_trip, up, down = ROUND_TRIPS[name]
    assert (link.up.delay + link.down.delay) * 1000 == pytest.approx(round_trip)
    assert link.up.mean_loss == pytest.approx(up)
    assert link.down.mean_loss == pytest.approx(down)
    if name in ("barely_usable", "absurd", "wifi_lossy", "cellular"):
        assert link.up.loss == link.down.loss == 0.0, "all of it comes in bursts"


def test_the_presets_are_asymmetric_where_accesses_are() -> None:
    for name in ("fibre", "cellular", "satellite"):
        link = PRESETS[name]
        assert link.up.rate is not None
        assert link.down.rate is not None
        assert link.down.rate > link.up.rate


def test_an_unknown_preset_is_named_with_those_there_are() -> None:
    with pytest.raises(InvalidConfiguration, match="no link is called dialup; there are perfect,"):
        preset("dialup")


NAN, INF = math.nan, math.inf
WRONG: list[tuple[Callable[[], object], str]] = [
    *[
        (lambda name=name, value=value: LinkProfile(**{name: value}), f"{name} of a link is {what}")
        for name, values, what in (
            ("delay", (-0.001, NAN, INF), "0 or more seconds"),
            ("jitter", (-0.001, NAN, INF), "0 or more seconds"),
            ("reordering_gap", (-0.001, NAN, INF), "0 or more seconds"),
            ("loss", (-0.1, 1.001, NAN, INF), "a share, 0 to 1"),
            ("reordering", (-0.1, 1.001, NAN), "a share, 0 to 1"),
            ("duplication", (-0.1, 1.001, NAN), "a share, 0 to 1"),
            ("rate", (0, -1, NAN, INF, 1e-300), "1 or more bits a second"),
            ("queue", (-1, NAN, INF), "0 or more bytes"),
            ("mtu", (67, 0, -1, NAN, INF), "68 or more bytes"),
        )
        for value in values
    ],
    *[
        (
            lambda name=name, value=value: GilbertElliott(
                **{"to_bad": 0.1, "to_good": 0.1, name: value}
            ),
            f"{name} of a link is a share, 0 to 1",
        )
        for name in ("to_bad", "to_good", "loss_bad", "loss_good")
        for value in (-0.1, 1.1, NAN)
    ],
    (lambda: GilbertElliott(0, 0), "begins or ends"),
    (lambda: GilbertElliott(0.1, 0.1, slot=0.0), "more than 0 seconds"),
    (lambda: GilbertElliott(0.1, 0.1, slot=NAN), "more than 0 seconds"),
    (lambda: GilbertElliott(0.1, 0.1, slot=INF), "more than 0 seconds"),
    (lambda: GilbertElliott.of(0.0, 2), "a mean loss lies between 0 and 1"),
    (lambda: GilbertElliott.of(1.0, 2), "a mean loss lies between 0 and 1"),
    (lambda: GilbertElliott.of(NAN, 2), "a mean loss lies between 0 and 1"),
    (lambda: GilbertElliott.of(0.1, 0.5), "a burst is 1 or more"),
    (lambda: GilbertElliott.of(0.1, INF), "a burst is 1 or more"),
    (lambda: GilbertElliott.of(0.9, 2), "takes bursts of 9 or more"),
]


@pytest.mark.parametrize(("make", "message"), WRONG)
def test_a_link_that_can_not_be_is_refused_by_name(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(InvalidConfiguration, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 80


def test_the_ideal_link_does_nothing_at_all() -> None:
    link = a_link(IDEAL)
    assert all(link.carry(10**9, now).arrivals == (now,) for now in (-5.0, 0.0, 1e9))
