"""Debian's pion/ice 2.3 on one side, we on the other, in a laboratory of kernel NATs.

pion nominates regularly, and takes a pair only 0.5 s (server-reflexive) to 2 s (relayed) after its
start. It has no answer to a role conflict: it drops what comes from a peer in its own role, and
error responses too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ice_punch.net.ice_server import IceServer
from support.foreign_peer import Setup
from support.foreign_sessions import (
    INTERVAL,
    Meetings,
    Ours,
    Sides,
    assert_good,
    assert_same_pair,
    missing,
)
from support.foreign_stories import they_restart, we_restart
from support.foreign_world import (
    HIGHEST,
    HOST,
    LOWEST,
    OUR_STUN,
    OUR_TURN,
    PEERS,
    STUN,
    TURN,
    behind_nats,
    dual_stack,
    ipv6_behind_firewalls,
    public_peer,
    we_in_public,
)
from support.netns import NETNS, ROOT

LONGEST_OUTAGE = 2.0
"""Seconds."""
GO_PATH = Path("/usr/share/gocode")

pytestmark = [
    *NETNS,
    pytest.mark.skipif(shutil.which("go") is None, reason="Go is not installed"),
    pytest.mark.skipif(
        not (GO_PATH / "src/github.com/pion/ice/v2").is_dir(), reason="pion/ice is not installed"
    ),
]


@pytest.fixture(scope="module")
def pion(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of the program, built from what Debian has."""
    program = tmp_path_factory.mktemp("pion") / "peer"
    cache = ROOT / "build" / "go"
    go = {"GO111MODULE": "off", "GOPATH": str(GO_PATH), "GOCACHE": str(cache), "GOFLAGS": ""}
    subprocess.run(
        ["go", "build", "-o", program, PEERS / "pion_peer.go"], env={**os.environ, **go}, check=True
    )
    return [str(program)]


def both_roles(
    name: str,
    *servers: IceServer,
    trickle: bool = True,
    late: float = 0.0,
    stun: tuple[str, int] | None = None,
    turn: tuple[str, int, str, str] | None = None,
) -> dict[str, Sides]:
    """Ours with ``servers``, theirs with ``stun`` and ``turn``."""
    return {
        f"{name}, {role}": (
            Ours(we_control, servers, trickle, late=late),
            Setup(not we_control, trickle=trickle, stun=stun, turn=turn),
        )
        for role, we_control in (("we control", True), ("pion controls", False))
    }


PUNCHED = {
    **both_roles("trickle", OUR_STUN, stun=STUN),
    **both_roles("all at once", OUR_STUN, stun=STUN, trickle=False),
    **both_roles("we are late", OUR_STUN, stun=STUN, late=0.3),
}
CONFLICTS = {
    "both controlling": (Ours(True, (OUR_STUN,), tie_breaker=LOWEST), Setup(True, stun=STUN)),
    "both controlled": (Ours(False, (OUR_STUN,), tie_breaker=HIGHEST), Setup(False, stun=STUN)),
}
OUR_RELAY = both_roles("ours", OUR_TURN, stun=STUN)
THEIR_RELAY = both_roles("theirs", OUR_STUN, turn=TURN)
BOTH_RELAYS = both_roles("one of two", OUR_TURN, turn=TURN)
DUAL_STACK = both_roles("dual stack")
IPV6 = both_roles("IPv6 behind firewalls")
RESTARTS: dict[str, Sides] = {
    f"{who}, {role}": (Ours(we_control, (OUR_STUN,)), Setup(not we_control, stun=STUN), story)
    for who, story in (("we restart", we_restart), ("pion restarts", they_restart))
    for role, we_control in (("we control", True), ("pion controls", False))
}
LITE = {
    "we control": (Ours(True), Setup(False, lite=True)),
    "nobody controls": (Ours(False), Setup(False, lite=True)),
}
WE_ARE_LITE: dict[str, Sides] = {"we are lite": (Ours(False, lite=True), Setup(True))}


@pytest.fixture(scope="module")
def meetings(pion: list[str]) -> Iterator[Meetings]:
    with (
        behind_nats() as nats,
        behind_nats(nat_a="symmetric") as ours,
        behind_nats(nat_b="symmetric") as theirs,
        behind_nats(nat_a="symmetric", nat_b="symmetric") as both,
        dual_stack() as open_,
        ipv6_behind_firewalls() as firewalls,
        public_peer() as server,
        we_in_public() as service,
    ):
        yield Meetings(
            pion,
            (both, BOTH_RELAYS),
            (ours, OUR_RELAY),
            (theirs, THEIR_RELAY),
            (nats, PUNCHED | CONFLICTS | RESTARTS),
            (open_, DUAL_STACK),
            (firewalls, IPV6),
            (server, LITE),
            (service, WE_ARE_LITE),
        )


@pytest.mark.parametrize("session", PUNCHED)
def test_two_nats_are_punched(meetings: Meetings, session: str) -> None:
    meeting = meetings[session]
    assert_good(meeting)
    assert meeting.path.kind == "direct"


@pytest.mark.parametrize("session", CONFLICTS)
def test_we_take_the_role_that_is_left_where_our_tie_breaker_says_so(
    meetings: Meetings, session: str
) -> None:
    meeting = meetings[session]
    assert_good(meeting)
    assert meeting.we_control is (session == "both controlled")


@pytest.mark.parametrize("session", RESTARTS)
def test_a_restart_leads_to_its_new_sockets(meetings: Meetings, session: str) -> None:
    """pion closes the old ones at once: what is under way is lost, and after that nothing."""
    meeting = meetings[session]
    assert_same_pair(meeting)
    before, after = meeting.selected
    assert before.remote != after.remote
    for got in (meeting.we_got, meeting.they_got):
        lost = missing(got, meeting)
        assert lost == list(range(lost[0], lost[-1] + 1))
        assert len(lost) * INTERVAL < LONGEST_OUTAGE


@pytest.mark.parametrize("session", OUR_RELAY | THEIR_RELAY)
def test_who_has_a_symmetric_nat_is_reached_at_its_relay(meetings: Meetings, session: str) -> None:
    meeting = meetings[session]
    assert_good(meeting)
    relay = meeting.path.local if session in OUR_RELAY else meeting.path.remote
    assert meeting.path.kind == "relayed"
    assert relay[0] == HOST


@pytest.mark.parametrize("session", BOTH_RELAYS)
def test_one_relay_is_enough(meetings: Meetings, session: str) -> None:
    meeting = meetings[session]
    assert_good(meeting)
    assert [meeting.path.local[0], meeting.path.remote[0]].count(HOST) == 1


@pytest.mark.parametrize("session", DUAL_STACK | IPV6)
def test_host_candidates_are_enough_without_a_nat(meetings: Meetings, session: str) -> None:
    meeting = meetings[session]
    assert_good(meeting)
    assert (meeting.path.local_type, meeting.path.remote_type) == ("host", "host")


@pytest.mark.parametrize("session", LITE)
def test_a_lite_pion_is_reached_from_behind_a_nat(meetings: Meetings, session: str) -> None:
    meeting = meetings[session]
    assert_good(meeting)
    assert meeting.path.local_type == "prflx"


@pytest.mark.parametrize("session", WE_ARE_LITE)
def test_pion_reaches_us_when_we_are_lite(meetings: Meetings, session: str) -> None:
    meeting = meetings[session]
    assert_good(meeting)
    assert (meeting.path.local_type, meeting.path.remote_type) == ("host", "prflx")
