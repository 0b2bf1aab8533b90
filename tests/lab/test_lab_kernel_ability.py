"""What the kernel backend can run, and the reason in words where it can not. Needs no root."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ice_punch.lab.behaviour import (
    NINE,
    EarlyInbound,
    Filtering,
    Hairpinning,
    Mapping,
    NatBehaviour,
    NatKind,
    PortAllocation,
    Refresh,
)
from ice_punch.lab.kernel import LaboratoryError, namespaces
from ice_punch.lab.kernel.ability import can_run
from ice_punch.lab.kernel.layout import Layout
from ice_punch.lab.kernel.run import run
from ice_punch.lab.links import PRESETS, AccessLink, LinkProfile
from ice_punch.lab.scenario import Event, Habit, Happening, Ip, PeerSetup, Scenario, peer

APD = Mapping.ADDRESS_AND_PORT_DEPENDENT
CLAIM = EarlyInbound.CLAIM


def test_every_pair_of_the_nine_can_run() -> None:
    assert all(can_run(Scenario(a=peer(a), b=peer(b))) is None for a in NINE for b in NINE)


@pytest.mark.parametrize(
    "setup",
    [
        *(peer(kind) for kind in NatKind),
        *(peer(link=link) for link in PRESETS.values()),
        peer((NatBehaviour(), NatBehaviour())),
        peer(ip=Ip.V6),
        peer(ip=Ip.DUAL),
        peer(second_link=PRESETS["cellular"]),
        peer(NatBehaviour(early_inbound=CLAIM)),
        peer(NatBehaviour(early_inbound=CLAIM, lifetime=30.0, refresh=Refresh.BOTH)),
        peer(NatBehaviour(lifetime=2.5, refresh=Refresh.INBOUND)),
        peer(NatBehaviour(external_addresses=16)),
        peer(NatBehaviour(mapping=APD, allocation=PortAllocation.SEQUENTIAL)),
    ],
    ids=str,
)
def test_what_a_kernel_has_can_run(setup: PeerSetup) -> None:
    assert can_run(Scenario(a=setup)) is None
    assert can_run(Scenario(b=setup)) is None


@pytest.mark.parametrize(
    ("setup", "reason"),
    [
        (peer(habit=Habit.LITE), "lite"),
        (peer(ip=Ip.NAT64), "NAT64"),
        (peer(NatBehaviour(mapping=APD)), "one port for all destinations"),
        (
            peer(NatBehaviour(mapping=APD, allocation=PortAllocation.CONTIGUOUS)),
            "all destinations alike",
        ),
        (
            peer(NatBehaviour(allocation=PortAllocation.SEQUENTIAL, external_addresses=2)),
            "several addresses",
        ),
        (peer(NatBehaviour(lifetime=0.5)), "a second or more"),
        (peer(replace(NINE[4], lifetime=9.0, refresh=Refresh.BOTH)), "what goes out only"),
        (peer(NatBehaviour(early_inbound=CLAIM, lifetime=9.0)), "both directions"),
        (
            peer(NatBehaviour(early_inbound=CLAIM, filtering=Filtering.ADDRESS_DEPENDENT)),
            "masquerades",
        ),
        (
            peer(NatBehaviour(early_inbound=CLAIM, hairpinning=Hairpinning.EXTERNAL_SOURCE)),
            "masquerades",
        ),
        (peer(ip=Ip.V6, link=AccessLink.both(LinkProfile(mtu=1000))), "1280"),
    ],
)
def test_what_a_kernel_has_not_is_named_in_one_line(setup: PeerSetup, reason: str) -> None:
    for scenario in (Scenario(a=setup), Scenario(b=setup)):
        told = can_run(scenario)
        assert told is not None
        assert reason in told
        assert "\n" not in told


def test_what_can_not_be_shared_is_named() -> None:
    shared = (NatBehaviour(),)
    assert can_run(Scenario(shared_nats=shared)) is None
    tells = peer(link=AccessLink.both(LinkProfile(mtu=1400)))
    assert "bridge" in str(can_run(Scenario(shared_nats=shared, a=tells)))
    contiguous = (NatBehaviour(allocation=PortAllocation.CONTIGUOUS),)
    assert "all hosts alike" in str(can_run(Scenario(shared_nats=contiguous)))
    assert can_run(Scenario(a=peer(contiguous))) is None


def test_a_nat_that_would_come_back_with_the_same_ports_can_not_rebind() -> None:
    rebinds = (Happening(1.0, Event.NAT_REBINDS),)
    assert can_run(Scenario(happenings=rebinds)) is None
    claims = peer(NatBehaviour(early_inbound=CLAIM))
    assert "same ports" in str(can_run(Scenario(a=claims, happenings=rebinds)))
    assert can_run(Scenario(b=claims, happenings=rebinds)) is None


def test_without_root_the_reason_is_the_laboratorys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespaces, "available", lambda: "network namespaces need root")
    with pytest.raises(LaboratoryError, match="need root"):
        run(Scenario())


def test_only_links_that_do_something_need_a_cable() -> None:
    """The rest is left to the kernel, which is faster and more exact."""

    def cables(scenario: Scenario) -> set[str]:
        return {wire.name for wire in Layout(scenario).wires if wire.needs_cable}

    assert cables(Scenario(rtt=0.0)) == set()
    assert cables(Scenario(rtt=0.1)) == {"nat a", "nat b"}
    tells, hides = (AccessLink.both(LinkProfile(mtu=1400, tells_mtu=t)) for t in (True, False))
    assert cables(Scenario(rtt=0.0, a=peer(link=tells), b=peer(link=hides))) == {"nat b"}
    lossy = PRESETS["wifi_lossy"]
    assert cables(Scenario(rtt=0.0, a=peer(NatKind.NONE, lossy))) == {"a"}
    shared = Scenario(rtt=0.1, shared_nats=(NatBehaviour(),), a=peer(link=lossy))
    assert cables(shared) == {"shared", "nat a"}
    carrier = peer((NatBehaviour(), NatBehaviour()), lossy)
    assert cables(Scenario(rtt=0.0, a=carrier)) == {"nat a carrier 1"}


def test_a_layout_tells_no_address_twice() -> None:
    two = peer((NatBehaviour(external_addresses=16),) * 2, second_link=PRESETS["lan"])
    layout = Layout(Scenario(a=two, b=two))
    given = [
        (line.split()[2], node.role)
        for node in layout.namespaces.values()
        for line in node.setup
        if line.startswith("address add")
    ]
    public = [ip for ip, _ in given if ip.startswith(("198.51.100.", "203.0.113."))]
    assert len(public) == len(set(public)) == 4 * 16 + 4
    assert len(given) == len(set(given))
