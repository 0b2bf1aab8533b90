"""The scenarios that have a name: each ends as it should, costs what it costs, and is the same
everywhere."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys

import pytest

from ice_punch.errors import InvalidConfiguration
from ice_punch.lab.behaviour import PortAllocation
from ice_punch.lab.catalogue import SCENARIOS, find
from ice_punch.lab.links import PRESETS
from ice_punch.lab.scenario import Event, Habit, Ip, Relays, Scenario, Verdict
from ice_punch.lab.virtual.session import VirtualSession, run
from support.netns import ROOT

PACKETS = {
    # (sent by a, sent by b), until one second after both have settled; every seed alike
    "public-hosts": (5, 5),
    "port-restricted": (6, 6),
    "port-restricted-late": (7, 4),
    "symmetric-and-address-restricted": (29, 15),
    "symmetric": (38, 36),
    "relay-not-needed": (21, 21),
    "carrier-grade": (6, 6),
    "one-carrier-hairpins": (19, 18),
    "ipv6": (5, 5),
    "only-tcp-443": (14, 13),
    "rejecting": (6, 4),
    "peer-lite": (2, 2),
}

SAME_EVERYWHERE = (
    "port-restricted",
    "symmetric",
    "only-tcp-443",
    "dual-stack",
    "link-wifi-lossy",
    "link-absurd",
    "peer-no-triggered-checks",
)
DIGEST = "7f7ad4925f2eafb6ee8f592e4396126d4b080d8d750345f5380641aac536c0a4"
"""SHA-256 of every packet of these, as sent, translated and ended."""

PROGRAM = """
import hashlib, sys
sys.path[:0] = sys.argv[1:2]
from ice_punch.lab.catalogue import SCENARIOS
from ice_punch.lab.virtual.session import VirtualSession
digest = hashlib.sha256()
for name in sys.argv[2:]:
    session = VirtualSession(SCENARIOS[name], 3)
    session.run()
    for packet in session.internet.trace:
        digest.update(str(packet).encode() + packet.data)
print(digest.hexdigest())
"""


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_ends_as_it_should_in_every_seed(name: str) -> None:
    scenario = SCENARIOS[name]
    for seed in range(5):
        outcome = run(scenario, seed)
        assert outcome.verdict is scenario.expects, seed
        assert outcome.same_pair, seed
        if outcome.verdict is not Verdict.FAILED:
            assert outcome.connect_time is not None


@pytest.mark.parametrize("name", PACKETS)
def test_a_canonical_scenario_sends_exactly_these_packets(name: str) -> None:
    outcomes = [run(SCENARIOS[name], seed) for seed in range(5)]
    assert {(o.a.packets_sent, o.b.packets_sent) for o in outcomes} == {PACKETS[name]}


def test_the_catalogue_has_something_of_every_kind() -> None:
    scenarios = SCENARIOS.values()
    assert {s.a.ip for s in scenarios} == set(Ip)
    assert {s.b.habit for s in scenarios} == set(Habit)
    assert {s.relays for s in scenarios} == set(Relays)
    assert {s.a.link for s in scenarios} == set(PRESETS.values())
    assert {n.allocation for s in scenarios for n in s.a.nats} == set(PortAllocation)
    happened = {h.event for s in scenarios for h in s.happenings}
    assert happened >= {Event.NAT_REBOOTS, Event.NAT_REBINDS, Event.TURN_SERVER_DIES}
    assert {s.expects for s in scenarios} == set(Verdict)
    assert all(s.summary for s in scenarios)


def test_every_datagram_of_the_application_is_delivered_or_counted_as_lost() -> None:
    for name in ("nat-reboots", "outage", "relay-dies-unused"):
        session = VirtualSession(SCENARIOS[name], 1)
        outcome = session.run()
        a, b = session.peers["a"], session.peers["b"]
        assert a.sent == outcome.b.received + outcome.a.lost
        assert b.sent == outcome.a.received + outcome.b.lost
        assert a.sent > 100


def test_a_cell_of_the_matrix_is_a_scenario_too() -> None:
    scenario = find("eim/apdf x apdm/adf")
    assert scenario.name == "EIM/APDF x APDM/ADF"
    assert run(scenario).verdict is Verdict.RELAYED


@pytest.mark.parametrize("name", ["", "nope", "EIM/APDF", "EIM/APDF x nope", "a x b x c"])
def test_a_scenario_that_is_none_is_named(name: str) -> None:
    with pytest.raises(InvalidConfiguration, match=r"no scenario is called .*ice-punch lab list"):
        find(name)


def bytes_of(scenario: Scenario, seed: int) -> str:
    session = VirtualSession(scenario, seed)
    session.run()
    digest = hashlib.sha256()
    for packet in session.internet.trace:
        digest.update(str(packet).encode() + packet.data)
    return digest.hexdigest()


def test_another_seed_gives_other_bytes() -> None:
    scenario = SCENARIOS["symmetric"]
    assert bytes_of(scenario, 1) == bytes_of(scenario, 1)
    assert bytes_of(scenario, 1) != bytes_of(scenario, 2)


def interpreters() -> list[str]:
    """This one, and whichever other there are by their usual names."""
    names = (f"python3.{minor}" for minor in range(11, 20))
    found = [path for path in map(shutil.which, names) if path is not None]
    return [sys.executable, *(path for path in found if _runs(path))]


def _runs(python: str) -> bool:
    """A name may stand for an interpreter that is not there, or lack what we depend on."""
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import ice_punch.lab.virtual.session"
    return subprocess.run([python, "-c", program], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("hash_seed", ["0", "1", "4242"])
def test_the_same_seed_gives_the_same_bytes_in_any_process(hash_seed: str) -> None:
    """This digest was made with Python 3.11, 3.12 and 3.13."""
    for python in interpreters():
        done = subprocess.run(
            [python, "-c", PROGRAM, str(ROOT), *SAME_EVERYWHERE],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == DIGEST, python
