"""A scenario that can not be is refused in one clear line."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from ice_punch.errors import InvalidConfiguration
from ice_punch.lab.behaviour import NatBehaviour, NatKind, PortAllocation
from ice_punch.lab.links import PERFECT, AccessLink, LinkProfile
from ice_punch.lab.scenario import (
    Event,
    Happening,
    Ip,
    PeerSetup,
    Relays,
    Scenario,
    Verdict,
    peer,
)
from ice_punch.lab.virtual.session import run

NAN, INF = math.nan, math.inf
Make = Callable[[], object]

WRONG: list[tuple[Make, str]] = [
    *[(lambda v=v: Scenario(rtt=v), "a round trip time is not negative") for v in (-0.1, NAN, INF)],
    *[(lambda v=v: Scenario(skew=v), "a skew is a number") for v in (NAN, INF, -INF)],
    *[(lambda v=v: Scenario(skew=v), "shorter than the scenario") for v in (45.0, -45.0, 1e9)],
    *[(lambda v=v: Scenario(seconds=v), "more than 0 and at most 3600") for v in (0, -1, NAN, INF)],
    (lambda: Scenario(seconds=3600.1), "more than 0 and at most 3600 seconds"),
    *[
        (lambda v=v: Scenario(datagrams_per_second=v), "0 to 1000 datagrams a second")
        for v in (-1, 1001, NAN, INF)
    ],
    (lambda: Scenario(datagrams_per_second=1000, seconds=101), "100000 datagrams in all at most"),
    (lambda: Scenario(a=peer(ip=Ip.V6), shared_nats=(NatBehaviour(),)), "only IPv4 peers"),
    (lambda: Scenario(b=peer(ip=Ip.NAT64), shared_nats=(NatBehaviour(),)), "only IPv4 peers"),
    *[
        (lambda v=v: Scenario(happenings=(Happening(v, Event.LINK_DOWN),)), "0 to 45 s")
        for v in (-1.0, 45.0, NAN, INF)
    ],
    (
        lambda: Scenario(happenings=(Happening(1.0, Event.LINK_DOWN, "c"),)),  # type: ignore[arg-type]
        "a side is a or b, not c",
    ),
    *[
        (lambda e=e: Scenario(happenings=(Happening(1.0, e, "b"),)), "peer b has no second link")
        for e in (Event.SECOND_LINK_DOWN, Event.SECOND_LINK_UP)
    ],
    (lambda: Scenario(happenings=(Happening(1.0, Event.TURN_SERVER_DIES),)), "no TURN server"),
    *[
        (
            lambda e=e: Scenario(a=peer(NatKind.NONE), happenings=(Happening(1.0, e),)),
            "peer a is behind no NAT",
        )
        for e in (Event.NAT_REBOOTS, Event.NAT_REBINDS)
    ],
    (lambda: peer("carrier pigeon"), "no NAT kind is called carrier pigeon; there are none, full"),
    (lambda: peer((NatBehaviour(),) * 9), "behind 8 NATs at most, not 9"),
    (lambda: Scenario(shared_nats=(NatBehaviour(),) * 9), "behind 8 NATs at most, not 9"),
    (lambda: peer([NatKind.SYMMETRIC]), "described by a NatBehaviour, not by"),  # type: ignore[list-item]
    (lambda: PeerSetup(("full_cone",)), "described by a NatBehaviour, not by 'full_cone'"),  # type: ignore[arg-type]
    *[(lambda v=v: NatBehaviour(external_addresses=v), "1 to 16 external") for v in (0, 17)],
    *[
        (lambda v=v: NatBehaviour(step=v), "a step between ports is 1 to 10000")
        for v in (0, 10001, -10001)
    ],
    *[
        (lambda v=v: NatBehaviour(lifetime=v), "lives for more than 0 seconds")
        for v in (0, -1, NAN)
    ],
    *[(lambda v=v: NatBehaviour(blacklist_seconds=v), "not negative") for v in (-1, NAN)],
]


@pytest.mark.parametrize(("make", "message"), WRONG)
def test_what_can_not_be_is_refused_in_one_line(make: Make, message: str) -> None:
    with pytest.raises(InvalidConfiguration, match=message) as caught:
        make()
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 140


EXTREMES = {
    "no time at all": Scenario(rtt=0.0, seconds=1e-9),
    "no way between them": Scenario(rtt=0.0),
    "longer on the way than it runs": Scenario(rtt=3000.0, seconds=5.0),
    "eight NATs each": Scenario(a=peer((NatBehaviour(),) * 8), b=peer((NatBehaviour(),) * 8)),
    "eight NATs and eight more": Scenario(
        a=peer((NatBehaviour(),) * 8),
        b=peer((NatBehaviour(),) * 8),
        shared_nats=(NatBehaviour(),) * 8,
    ),
    "no queue and no rate to speak of": Scenario(
        a=peer(link=AccessLink.both(LinkProfile(rate=1.0, queue=0))), seconds=5.0
    ),
    "all is lost": Scenario(a=peer(link=AccessLink.both(LinkProfile(loss=1.0)))),
    "all comes twice": Scenario(
        a=peer(link=AccessLink.both(LinkProfile(duplication=1.0))),
        b=peer(link=AccessLink.both(LinkProfile(duplication=1.0))),
        relays=Relays.TCP_443,
    ),
    "nothing fits": Scenario(a=peer(link=AccessLink.both(LinkProfile(mtu=68)))),
    "a thousand a second": Scenario(datagrams_per_second=1000, seconds=2.0),
    "lives for no time": Scenario(a=peer(NatBehaviour(lifetime=1e-9))),
    "steps of ten thousand": Scenario(
        a=peer(NatBehaviour(allocation=PortAllocation.SEQUENTIAL, step=-10000))
    ),
    "everything at once": Scenario(
        happenings=tuple(
            Happening(1.0, event, side)  # type: ignore[arg-type]
            for event in Event
            for side in "ab"
        ),
        a=peer(second_link=PERFECT),
        b=peer(second_link=PERFECT),
        relays=Relays.TCP_443,
        seconds=10.0,
    ),
    "two thousand happenings": Scenario(
        happenings=tuple(
            Happening(n / 1000, Event.LINK_DOWN if n % 2 else Event.LINK_UP) for n in range(2000)
        ),
        seconds=5.0,
    ),
}


DIRECT = {
    "no way between them",
    "eight NATs each",
    "all comes twice",
    "a thousand a second",
    "steps of ten thousand",
    "everything at once",
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", EXTREMES)
def test_an_extreme_scenario_ends_like_any_other(name: str) -> None:
    scenario = EXTREMES[name]
    outcome = run(scenario)
    assert outcome.verdict is (Verdict.DIRECT if name in DIRECT else Verdict.FAILED)
    assert outcome == run(scenario), "and twice alike"
