"""RFC 8899: the largest packet of a path is found, and noticed when it shrinks, in virtual time."""

from __future__ import annotations

import random

import pytest

from ice_punch.path_mtu import (
    CONFIRMATION_TIMER,
    MAX_PROBES,
    PMTU_RAISE_TIMER,
    PROBE_TIMER,
    SMALL,
    PathMtuSearch,
    SearchState,
)


class Network:
    """A path that drops what is larger than ``mtu``, without a word."""

    def __init__(self, mtu: int, ceiling: int = 1500, *, ip_version: int = 4, loss: float = 0.0):
        self.mtu = mtu
        self.loss = loss
        self.now = 0.0
        self.probes: list[int] = []
        self.random = random.Random(mtu)
        self.search = PathMtuSearch(ip_version, ceiling, self.now)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := self.search.get_timer()) is not None and due <= end:
            self.now = max(self.now, due)
            for size in self.search.handle_timer(self.now):
                self.probes.append(size)
                if size <= self.mtu and self.random.random() >= self.loss:
                    self.search.answered(size, self.now)
        self.now = end

    @property
    def large_probes(self) -> list[int]:
        return [size for size in self.probes if size != SMALL]


@pytest.mark.parametrize("mtu", [576, 1024, 1280, 1300, 1350, 1400, 1420, 1492, 1499, 1500])
def test_the_largest_packet_is_found_to_four_bytes(mtu: int) -> None:
    network = Network(mtu)
    assert network.search.mtu == 1280
    network.run(60)
    assert network.search.mtu == mtu - mtu % 4
    assert network.search.state is SearchState.SEARCH_COMPLETE


def test_a_path_without_surprises_costs_two_probes() -> None:
    network = Network(1500)
    network.run(60)
    assert network.large_probes == [1280, 1500]


def test_no_probe_of_a_size_follows_another_faster_than_the_timer() -> None:
    network = Network(1280)
    network.run(0.9)
    assert network.large_probes == [1280, 1500]
    network.run(MAX_PROBES * PROBE_TIMER - 0.9 - 0.01)
    assert network.large_probes == [1280, *[1500] * MAX_PROBES]


def test_a_path_that_shrinks_silently_is_noticed_while_it_is_used() -> None:
    network = Network(1500)
    network.run(10)
    network.mtu = 1400
    network.search.used(1500, network.now)
    network.run(CONFIRMATION_TIMER + MAX_PROBES * PROBE_TIMER + 0.1)
    assert network.search.mtu == 1280
    network.run(60)
    assert network.search.mtu == 1400


def test_a_path_that_carries_less_than_the_base_is_an_error_that_heals() -> None:
    network = Network(1500)
    network.run(10)
    network.mtu = 1000
    network.search.used(1280, network.now)
    network.run(CONFIRMATION_TIMER + 2 * MAX_PROBES * PROBE_TIMER + 0.1)
    assert network.search.mtu < 1000
    network.run(60)
    assert network.search.mtu == 1000


def test_what_is_not_used_is_not_asked_for() -> None:
    network = Network(1500)
    network.run(10)
    network.probes.clear()
    network.run(PMTU_RAISE_TIMER - 20)
    assert network.probes == []


def test_a_path_that_grows_is_found_by_the_raise_timer() -> None:
    network = Network(1400)
    network.run(60)
    network.mtu = 1500
    network.run(PMTU_RAISE_TIMER)
    assert network.search.mtu == 1500


def test_a_first_link_that_grows_is_found_by_the_raise_timer() -> None:
    network = Network(9000, ceiling=1400)
    network.run(60)
    assert network.search.mtu == 1400
    assert not network.search.wants_ceiling(network.now)
    network.probes.clear()
    network.run(PMTU_RAISE_TIMER)
    assert network.probes == []  # the same ceiling: there is nothing to try
    due = network.search.get_timer()
    assert due is not None
    assert network.search.wants_ceiling(due)
    network.search.set_ceiling(9000)
    network.run(PMTU_RAISE_TIMER)
    assert network.search.mtu == 9000


def test_an_outage_says_nothing_about_sizes() -> None:
    network = Network(1500)
    network.run(10)
    network.mtu = -1
    network.search.used(1500, network.now)
    network.run(25)
    assert network.search.mtu == 1500
    network.mtu = 1500
    network.run(5)
    assert (network.search.mtu, network.search.state) == (1500, SearchState.SEARCH_COMPLETE)


@pytest.mark.parametrize("seed", range(20))
def test_heavy_loss_is_rarely_taken_for_a_small_path(seed: int) -> None:
    found = []
    for number in range(20):
        network = Network(1500, loss=0.3)
        network.random = random.Random(20 * seed + number)
        network.run(120)
        found.append(network.search.mtu)
    assert found.count(1500) >= 15
    assert min(found) >= 576


def test_what_the_host_knows_counts_at_once() -> None:
    network = Network(1350)
    network.run(0)
    network.search.packet_too_big(1350, network.now)
    network.run(0.1)
    assert network.search.mtu == 1348
    assert network.search.state is SearchState.SEARCH_COMPLETE
    network.mtu = 1300
    network.search.packet_too_big(1300, network.now)
    assert network.search.mtu == 1300
    network.search.packet_too_big(10, network.now)  # nobody can be below what IPv4 demands
    assert network.search.mtu == 576


def test_a_forged_message_of_icmp_narrows_nothing_for_long() -> None:
    network = Network(1500)
    network.run(10)
    network.search.packet_too_big(68, network.now, is_local=False)  # less than any link carries
    assert network.search.mtu == 1500
    network.search.packet_too_big(1000, network.now, is_local=False)
    assert network.search.mtu == 1000
    network.run(1)
    assert network.search.mtu == 1500


def test_a_router_that_answers_a_probe_is_believed() -> None:
    network = Network(1400)
    network.run(0)
    network.search.packet_too_big(1400, network.now, is_local=False)
    network.run(1)
    assert (network.search.mtu, network.search.state) == (1400, SearchState.SEARCH_COMPLETE)
    assert network.large_probes == [1280, 1500, 1380, 1400]


def test_a_late_answer_still_counts() -> None:
    network = Network(1280)
    network.run(60)
    assert network.search.mtu == 1280
    network.search.answered(1400, network.now)
    assert network.search.mtu == 1400


def test_ipv6_never_goes_below_what_every_link_must_carry() -> None:
    network = Network(1000, ip_version=6)
    network.run(60)
    assert network.search.mtu == 1280


def test_jumbo_frames_are_found_and_no_more() -> None:
    network = Network(65535, ceiling=65535)
    network.run(60)
    assert network.search.mtu == 9216
