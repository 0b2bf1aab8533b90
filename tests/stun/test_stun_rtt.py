"""The retransmission timeout of each server: RFC 8489 section 6.2.1, RFC 6298."""

from __future__ import annotations

import pytest

from ice_punch.stun import RttEstimator

SERVER = "192.0.2.1"


def test_rfc8489_6_2_1_2_an_unknown_server_gets_500_ms() -> None:
    estimator = RttEstimator()
    assert estimator.rto(SERVER, 0.0) == 0.5
    assert estimator.smoothed_rtt(SERVER, 0.0) is None
    assert RttEstimator(initial_rto=1.0).rto(SERVER, 0.0) == 1.0


def test_rfc8489_6_2_1_7_rto_follows_rfc_6298() -> None:
    estimator = RttEstimator(minimum_rto=0.0)
    estimator.record(SERVER, 0.2, 1, 0.0)
    assert estimator.smoothed_rtt(SERVER, 0.0) == 0.2
    assert estimator.rto(SERVER, 0.0) == pytest.approx(0.2 + 4 * 0.1)
    estimator.record(SERVER, 0.4, 1, 1.0)
    rttvar = 0.75 * 0.1 + 0.25 * 0.2
    srtt = 0.875 * 0.2 + 0.125 * 0.4
    assert estimator.smoothed_rtt(SERVER, 1.0) == pytest.approx(srtt)
    assert estimator.rto(SERVER, 1.0) == pytest.approx(srtt + 4 * rttvar)


def test_rfc8489_6_2_1_5_rto_is_not_rounded_and_exact_to_1_ms() -> None:
    estimator = RttEstimator(minimum_rto=0.0)
    for count in range(200):
        estimator.record(SERVER, 0.1234, 1, float(count))
    assert estimator.rto(SERVER, 200.0) == pytest.approx(0.1234 + 0.001, abs=1e-6)


def test_rfc8489_6_2_1_8_a_resent_request_gives_no_sample_but_backs_off() -> None:
    """Karn's algorithm and RFC 6298 section 5.5."""
    estimator = RttEstimator(minimum_rto=0.0)
    estimator.record(SERVER, 0.1, 1, 0.0)
    rto = estimator.rto(SERVER, 0.0)
    estimator.record(SERVER, 9.9, 3, 1.0)
    assert estimator.smoothed_rtt(SERVER, 1.0) == 0.1
    assert estimator.rto(SERVER, 1.0) == pytest.approx(4 * rto)
    estimator.record(SERVER, 0.1, 1, 2.0)
    assert estimator.rto(SERVER, 2.0) < 2 * rto
    for now in range(3, 40):
        estimator.record(SERVER, None, 7, float(now))
    assert estimator.rto(SERVER, 40.0) == 60.0


def test_rfc8489_6_2_1_9_and_10_rto_is_kept_per_ip_address_and_stale_after_10_minutes() -> None:
    estimator = RttEstimator()
    estimator.record(SERVER, 0.8, 1, 0.0)
    estimator.record("192.0.2.2", 0.05, 1, 0.0)
    known = estimator.rto(SERVER, 600.0)
    assert known == pytest.approx(0.8 + 4 * 0.4)
    assert estimator.rto("192.0.2.2", 600.0) == pytest.approx(0.15)
    assert estimator.rto(SERVER, 600.5) == 0.5
    assert estimator.smoothed_rtt(SERVER, 600.5) is None
    estimator.record(SERVER, 0.1, 1, 601.0)
    assert estimator.smoothed_rtt(SERVER, 601.0) == 0.1, "the stale samples are gone"


def test_a_near_server_does_not_lose_its_transaction_to_a_short_stall() -> None:
    estimator = RttEstimator()
    for count in range(100):
        estimator.record(SERVER, 0.001, 1, float(count))
    assert estimator.rto(SERVER, 100.0) == 0.1


def test_the_servers_kept_are_bounded() -> None:
    estimator = RttEstimator()
    for number in range(5000):
        estimator.record(f"10.0.{number >> 8}.{number & 255}", 0.2, 1, 0.0)
    assert len(estimator._servers) == 1024
    assert estimator.rto("10.0.0.0", 0.0) == 0.5
    assert estimator.rto(f"10.0.{4999 >> 8}.{4999 & 255}", 0.0) != 0.5
