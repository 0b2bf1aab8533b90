"""What holds whatever the network does: any skew, loss, delay, reordering and duplication."""

from __future__ import annotations

import itertools

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ice_punch.datagram import Address
from ice_punch.ice import IceState
from ice_punch.stun import MessageClass, parse_message
from support.wire import End, Weather, Wire

SETTINGS = settings(
    max_examples=250,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
seeds = st.integers(0, 2**32)
weathers = st.builds(
    Weather,
    delay=st.sampled_from([0.0, 0.001, 0.02, 0.15, 0.4, 1.5]),
    jitter=st.sampled_from([0.0, 0.01, 0.3]),
    loss=st.sampled_from([0.0, 0.03, 0.1]),
    duplication=st.sampled_from([0.0, 0.3]),
)
DONE = {IceState.COMPLETED, IceState.DISCONNECTED}  # some weather swallows two answers in a row
skews = st.sampled_from([0.0, 0.01, 0.1, 0.6, 5.0])
bases = st.tuples(st.integers(1, 3), st.integers(1, 3))
roles = st.tuples(st.booleans(), st.booleans())


def begin(wire: Wire, skew: float, *, a_first: bool) -> None:
    first, second = (wire.a, wire.b) if a_first else (wire.b, wire.a)
    wire.meet(first)
    wire.run(skew)
    wire.meet(second)


def paths(wire: Wire) -> list[tuple[Address, Address]]:
    """The selected pairs, both as ``a`` sees them."""
    found = []
    for end in wire.ends:
        pair = end.agent.selected_pair()
        assert pair is not None
        path = (pair.base, pair.remote.address)
        found.append(path if end is wire.a else path[::-1])
    return found


def requests_begun(end: End) -> list[float]:
    begun: dict[bytes, float] = {}
    for at, transmit in end.sent:
        message = parse_message(transmit.data)
        if message.message_class is MessageClass.REQUEST:
            begun.setdefault(message.transaction_id, at)
    return list(begun.values())


@SETTINGS
@given(seeds, weathers, skews, bases, roles, st.booleans())
def test_both_select_the_same_pair_after_at_most_one_nomination(
    seed: int,
    weather: Weather,
    skew: float,
    counts: tuple[int, int],
    controlling: tuple[bool, bool],
    a_first: bool,
) -> None:
    wire = Wire(seed, weather, bases=counts, roles=controlling)
    begin(wire, skew, a_first=a_first)
    wire.run(60.0)
    assert {end.agent.state for end in wire.ends} <= DONE
    assert wire.a.agent.controlling is not wire.b.agent.controlling
    assert len(set(paths(wire))) == 1
    assert len(wire.a.nominations) + len(wire.b.nominations) == 1
    assert wire.a.selections == wire.b.selections == 1


@SETTINGS
@given(seeds, weathers, skews, bases, st.sampled_from([0.01, 0.2, 1.0, 10.0]))
def test_after_the_path_dies_nothing_goes_to_an_address_without_consent(
    seed: int, weather: Weather, skew: float, counts: tuple[int, int], lived: float
) -> None:
    wire = Wire(seed, weather, bases=counts)
    wire.dead_from = skew + lived
    begin(wire, skew, a_first=True)
    wire.run(200.0)
    # whatever was in flight when it died, both are done, and silent ever since
    for end in wire.ends:
        assert end.agent.state is IceState.FAILED
        assert end.agent.get_timer() is None
        assert end.agent.data_pair() is None
        ended = end.when(IceState.FAILED)
        assert ended is not None
        assert all(at < ended for at, _ in end.sent)
        connected = end.when(IceState.CONNECTED)
        if connected is not None:
            flight = weather.delay + weather.jitter
            assert ended <= wire.dead_from + flight + 40.0


@SETTINGS
@given(seeds, weathers, skews, bases, roles)
def test_nobody_begins_more_than_one_check_per_ta(
    seed: int,
    weather: Weather,
    skew: float,
    counts: tuple[int, int],
    controlling: tuple[bool, bool],
) -> None:
    wire = Wire(seed, weather, bases=counts, roles=controlling)
    begin(wire, skew, a_first=True)
    wire.run(skew + 3.9)  # no consent check so far
    for end in wire.ends:
        gaps = [b - a for a, b in itertools.pairwise(requests_begun(end))]
        hasty = sum(gap < 0.02 - 1e-9 for gap in gaps)
        # a consent check, which is not paced, asks at once when a pair in use has no round trip
        # yet: the gaps before and after it may be short
        unmeasured = sum(p.valid_since is not None for p in end.agent.check_list)
        assert hasty <= 2 * unmeasured
        if skew + 2 * (weather.delay + weather.jitter) < 0.4 and not weather.loss:
            assert hasty == 0


@SETTINGS
@given(
    seeds, weathers, st.permutations(range(3)), st.lists(st.floats(0, 3), min_size=3, max_size=3)
)
def test_candidates_may_trickle_at_any_time_in_any_order(
    seed: int, weather: Weather, order: list[int], delays: list[float]
) -> None:
    wire = Wire(seed, weather, bases=(1, 3))
    wire.meet(wire.b)
    wire.meet(wire.a, trickle=True)
    for index, at in zip(order, sorted(delays), strict=True):
        wire.run(max(at, wire.now))
        wire.signal(wire.a, wire.b.candidates[index])
    wire.run(60.0)
    assert {end.agent.state for end in wire.ends} <= DONE
    assert len(set(paths(wire))) == 1


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seeds, st.lists(st.floats(0, 80), min_size=1, max_size=30))
def test_a_driver_that_comes_late_or_too_often_harms_nothing(
    seed: int, wakeups: list[float]
) -> None:
    """``handle_timer`` at arbitrary moments, never when asked for: no exception, one end."""
    wire = Wire(seed, Weather())
    wire.meet(wire.a)
    agent = wire.a.agent
    for now in sorted(wakeups):
        agent.handle_timer(now)
        agent.datagrams_to_send(now)
        timer = agent.get_timer()
        assert timer is None or timer > now or agent.state is not IceState.FAILED
    agent.handle_timer(1000.0)
    agent.datagrams_to_send(1000.0)
    assert agent.state in (IceState.CHECKING, IceState.FAILED)
    for step in range(10):
        agent.handle_timer(1000.0 + 100.0 * step)
    assert agent.state is IceState.FAILED
