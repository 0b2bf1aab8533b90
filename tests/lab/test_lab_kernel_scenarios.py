"""Scenarios on the kernel: real agents, real sockets, real NATs, our own servers; and the same
verdict as in the virtual internet."""

from __future__ import annotations

import os
import signal
import subprocess
import textwrap
import time
from pathlib import Path

import pytest

from ice_punch.ice import SelectedPairChanged
from ice_punch.lab.behaviour import (
    NINE,
    Blocking,
    EarlyInbound,
    Hairpinning,
    NatBehaviour,
    NatKind,
)
from ice_punch.lab.kernel import LaboratoryError, namespaces
from ice_punch.lab.kernel import run as kernel_run
from ice_punch.lab.kernel.batch import run_all
from ice_punch.lab.kernel.crew import dismiss, hire
from ice_punch.lab.kernel.namespaces import ours
from ice_punch.lab.kernel.run import run
from ice_punch.lab.links import PERFECT
from ice_punch.lab.outcome import Outcome
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
from ice_punch.lab.virtual.session import run as run_virtual
from ice_punch.recording import Recording, replay
from support.netns import NETNS, ROOT, python

pytestmark = [*NETNS, pytest.mark.alone]

RTT = 0.04
SLACK = 0.25
"""Seconds. What a busy machine adds to a kernel's time."""
SYMMETRIC = NatKind.SYMMETRIC
HAIRPIN = NatBehaviour(hairpinning=Hairpinning.EXTERNAL_SOURCE)
ONLY_443 = NatBehaviour(blocking=Blocking.ALL_BUT_TCP_443)
V6 = peer(ip=Ip.V6)


def scenario(
    name: str,
    a: PeerSetup | NatKind | NatBehaviour = NatKind.PORT_RESTRICTED,
    b: PeerSetup | NatKind | NatBehaviour = NatKind.PORT_RESTRICTED,
    *,
    shared: tuple[NatBehaviour, ...] = (),
    relays: Relays = Relays.NONE,
    skew: float = 0.0,
) -> Scenario:
    setups = [side if isinstance(side, PeerSetup) else peer(side) for side in (a, b)]
    return Scenario(
        name, a=setups[0], b=setups[1], shared_nats=shared, relays=relays, skew=skew, rtt=RTT
    )


SETTLING = [
    (scenario("direct"), Verdict.DIRECT),
    (scenario("late"), Verdict.DIRECT),
    (scenario("public", NatKind.NONE, SYMMETRIC), Verdict.DIRECT),
    (scenario("carrier", peer((NatBehaviour(), NINE[1]))), Verdict.DIRECT),
    (scenario("relayed", SYMMETRIC, SYMMETRIC, relays=Relays.UDP), Verdict.RELAYED),
    (scenario("one lan", *[NatKind.NONE] * 2, shared=(NatBehaviour(),)), Verdict.DIRECT),
    (scenario("hairpin", shared=(HAIRPIN,)), Verdict.DIRECT),
    (scenario("no hairpin", shared=(NatBehaviour(),), relays=Relays.UDP), Verdict.RELAYED),
    (scenario("only 443", ONLY_443, ONLY_443, relays=Relays.TCP_443), Verdict.RELAYED),
    (scenario("v6 firewalls", V6, V6), Verdict.DIRECT),
    (scenario("v4 and v6", V6, relays=Relays.UDP), Verdict.RELAYED),
    (scenario("dual", *[peer(SYMMETRIC, ip=Ip.DUAL)] * 2), Verdict.DIRECT),
    (scenario("second link", peer(second_link=PERFECT)), Verdict.DIRECT),
    (
        scenario("rejects", *[NatBehaviour(early_inbound=EarlyInbound.REJECT)] * 2, skew=-0.3),
        Verdict.DIRECT,
    ),
]


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    return {o.scenario.name: o for o in run_all((s for s, _ in SETTLING), seed=3)}


@pytest.mark.parametrize(
    ("given", "verdict"), SETTLING, ids=[s.name.replace(" ", "-") for s, _ in SETTLING]
)
def test_the_kernel_comes_to_the_verdict_that_virtual_time_comes_to(
    given: Scenario, verdict: Verdict, outcomes: dict[str, Outcome]
) -> None:
    real, virtual = outcomes[given.name], run_virtual(given, 3)
    assert real.verdict is virtual.verdict is verdict
    for side, expected in ((real.a, virtual.a), (real.b, virtual.b)):
        assert side.state == expected.state == "completed"
        assert side.started_at == expected.started_at
        assert side.valid_at is not None
        assert side.selected_at is not None
        assert expected.valid_at is not None
        assert side.valid_at >= expected.started_at
        assert side.selected_at < side.valid_at + 6 * RTT + SLACK
        assert side.relayed == (verdict is Verdict.RELAYED)
        assert side.packets_sent >= 2
        if verdict is Verdict.DIRECT:
            assert side.direct_at is not None
    assert real.same_pair
    assert real.a.pair
    assert real.connect_time is not None
    assert virtual.connect_time is not None
    assert real.connect_time >= virtual.connect_time - 0.02


MTU_PACKETS = 10
"""Probes of the path MTU and answers to them, in the first second."""


def test_the_kernel_sends_the_packets_that_virtual_time_sends() -> None:
    given = Scenario(rtt=0.2)
    real, virtual = run(given), run_virtual(given)
    # A connection also looks for the path MTU, of which the agent knows nothing.
    for there, here in ((real.a, virtual.a), (real.b, virtual.b)):
        assert 0 <= there.packets_sent - here.packets_sent <= MTU_PACKETS
    assert real.connect_time == pytest.approx(virtual.connect_time, abs=SLACK / 2)


def test_what_can_not_be_connected_fails_with_the_agents_reason() -> None:
    given = Scenario(a=peer(SYMMETRIC), b=peer(SYMMETRIC), rtt=RTT, seconds=3.0)
    outcome = run(given)
    assert outcome.verdict is Verdict.FAILED
    assert outcome.connect_time is None
    assert outcome.a.state == "checking"
    assert outcome.a.pair == outcome.b.pair == ""
    blocked = scenario("blocked", NatKind.UDP_BLOCKED, NatKind.UDP_BLOCKED, relays=Relays.UDP)
    assert run(Scenario(a=blocked.a, b=blocked.b, seconds=2.0)).verdict is Verdict.FAILED


RATE = 50.0
ENDURING = [
    Scenario(
        "nothing",
        datagrams_per_second=RATE,
        seconds=3.0,
    ),
    Scenario(
        "reboot",
        happenings=(Happening(1.2, Event.NAT_REBOOTS),),
        datagrams_per_second=RATE,
        seconds=4.0,
    ),
    Scenario(
        "rebind",
        happenings=(Happening(1.2, Event.NAT_REBINDS),),
        datagrams_per_second=RATE,
        seconds=4.0,
    ),
    Scenario(
        "outage",
        happenings=(
            Happening(1.2, Event.LINK_DOWN, "b"),
            Happening(2.2, Event.LINK_UP, "b"),
        ),
        datagrams_per_second=RATE,
        seconds=4.2,
    ),
    Scenario(
        "turn dies",
        a=peer(SYMMETRIC),
        b=peer(SYMMETRIC),
        relays=Relays.UDP,
        happenings=(Happening(1.2, Event.TURN_SERVER_DIES),),
        datagrams_per_second=RATE,
        seconds=3.2,
    ),
    Scenario(
        "second link goes",
        a=peer(second_link=PERFECT),
        happenings=(Happening(1.2, Event.SECOND_LINK_DOWN),),
        datagrams_per_second=RATE,
        seconds=3.2,
    ),
]


@pytest.fixture(scope="module")
def enduring() -> dict[str, Outcome]:
    return {o.scenario.name: o for o in run_all(ENDURING)}


@pytest.mark.parametrize("given", ENDURING, ids=[s.name.replace(" ", "-") for s in ENDURING])
def test_what_happens_on_the_way_costs_the_datagrams_that_it_costs_in_virtual_time(
    given: Scenario, enduring: dict[str, Outcome]
) -> None:
    real, virtual = enduring[given.name], run_virtual(given)
    assert real.verdict is virtual.verdict
    # A few more or less: connecting takes its time, and so does whatever happens.
    few = RATE * SLACK
    for side, expected in ((real.a, virtual.a), (real.b, virtual.b)):
        assert side.received == pytest.approx(expected.received, abs=few)
        assert side.lost == pytest.approx(expected.lost, abs=few)


def test_both_sides_can_be_recorded_and_replayed(tmp_path: Path) -> None:
    outcome = run(scenario("recorded"), record=tmp_path)
    for side in "ab":
        with (tmp_path / f"{side}.jsonl").open(encoding="utf-8", newline="") as file:
            recording = Recording.load(file)
        again = replay(recording)
        assert again.complete
        pairs = [event for _, event in again.events if isinstance(event, SelectedPairChanged)]
        assert len(pairs) == 1
        side_outcome = outcome.a if side == "a" else outcome.b
        assert [str(state.state) for _, state in again.states][-2] == side_outcome.state


# -- nothing stays ----------------------------------------------------------------------------


def test_what_the_kernel_can_not_do_is_refused_before_anything_is_built() -> None:
    with pytest.raises(LaboratoryError, match="NAT64"):
        run(Scenario(a=peer(ip=Ip.NAT64)))
    with pytest.raises(LaboratoryError, match="NAT64"):
        next(run_all([Scenario(), Scenario(a=peer(ip=Ip.NAT64))]))
    assert ours(pid=os.getpid()) == []


def test_a_missing_tool_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespaces, "missing", lambda name: name == "conntrack")
    with pytest.raises(LaboratoryError, match="conntrack is not installed"):
        run(Scenario(happenings=(Happening(1.0, Event.NAT_REBOOTS),)))


def test_a_run_that_breaks_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(*_: object) -> None:
        raise LaboratoryError("the tool broke")

    monkeypatch.setattr(kernel_run, "happen", break_down)
    with pytest.raises(LaboratoryError, match="the tool broke"):
        run(Scenario(happenings=(Happening(0.2, Event.LINK_DOWN),)))
    assert ours(pid=os.getpid()) == []


def test_whoever_loses_interest_ends_all_that_still_run() -> None:
    began = time.monotonic()
    endless = [Scenario(datagrams_per_second=1.0, seconds=40.0) for _ in range(3)]
    results = run_all([scenario("quick"), *endless])
    assert next(results).scenario.name == "quick"
    assert len(ours(pid=os.getpid())) > 5
    results.close()
    assert ours(pid=os.getpid()) == []
    assert time.monotonic() - began < 20


def test_a_process_that_can_not_be_had_says_why() -> None:
    with (
        hire("icep-0-0-nowhere", "servers") as member,
        pytest.raises(LaboratoryError, match="no namespace"),
    ):
        member.hear(10.0)


def test_processes_end_with_the_channel_to_them() -> None:
    from ice_punch.lab.kernel import KernelInternet

    with KernelInternet() as net:
        where = net.public.namespace
        with hire(where, "servers", stun=[], turn=[]) as member:
            assert member.hear(10.0) == {"serving": True}
            assert len(namespaces.pids_in(where)) == 1
        deadline = time.monotonic() + 5
        while namespaces.pids_in(where):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    dismiss()


RUNNER = """
    from ice_punch.lab.kernel.run import run
    from ice_punch.lab.scenario import Scenario
    print("begins", flush=True)
    run(Scenario(datagrams_per_second=1.0, seconds=60.0))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_of_a_run_leaves_nothing(number: signal.Signals) -> None:
    runner = subprocess.Popen(
        python("-c", textwrap.dedent(RUNNER)),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        start_new_session=True,
    )
    assert runner.stdout is not None
    with runner.stdout as told:
        assert told.readline() == b"begins\n"
    deadline = time.monotonic() + 20
    while not any("peer-a" in n and namespaces.pids_in(n) for n in ours(pid=runner.pid)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(runner.pid, number)
    assert runner.wait(timeout=20) != 0
    assert ours(pid=runner.pid) == []
    while party_of(runner.pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def party_of(pid: int) -> list[str]:
    """The processes that run for the process ``pid`` in namespaces, or make such."""
    listed = subprocess.run(
        ["ps", "-eo", "pid,sid,args"], capture_output=True, text=True, check=True
    ).stdout
    return [line for line in listed.splitlines() if f"ice_punch.lab.kernel.party {pid}" in line]
