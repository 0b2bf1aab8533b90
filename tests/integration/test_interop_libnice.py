"""Debian's libnice on one side, we on the other, in a laboratory of kernel NATs.

The sessions of a fixture run at once: libnice is ready when it has no check left, which takes 2 to
6 s.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ice_punch.net.ice_server import IceServer
from support.foreign_peer import Setup
from support.foreign_sessions import Meetings, Ours, Sides, assert_good
from support.foreign_world import (
    HIGHEST,
    HOST,
    LIBNICE,
    LOWEST,
    NEEDS_LIBNICE,
    OUR_STUN,
    OUR_TURN,
    STUN,
    TURN,
    behind_nats,
    dual_stack,
    ipv6_behind_firewalls,
    public_peer,
    we_in_public,
)

pytestmark = NEEDS_LIBNICE


def every_role(
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
            Setup(not we_control, nomination, trickle=trickle, stun=stun, turn=turn),
        )
        for role, we_control, nomination in (
            ("we control", True, "regular"),
            ("libnice nominates regularly", False, "regular"),
            ("libnice nominates aggressively", False, "aggressive"),
        )
    }


# -- two NATs ---------------------------------------------------------------------------------

PUNCHED = {
    **every_role("trickle", OUR_STUN, stun=STUN),
    **every_role("all at once", OUR_STUN, stun=STUN, trickle=False),
    **every_role("we are late", OUR_STUN, stun=STUN, late=0.3),
}
CONFLICTS = {
    f"both {'controlling' if controlling else 'controlled'}, our tie-breaker {which}": (
        Ours(controlling, (OUR_STUN,), tie_breaker=HIGHEST if which == "higher" else LOWEST),
        Setup(controlling, stun=STUN),
    )
    for controlling in (True, False)
    for which in ("higher", "lower")
}


@pytest.fixture(scope="module")
def between_nats() -> Iterator[Meetings]:
    with behind_nats() as net:
        yield Meetings(LIBNICE, (net, PUNCHED | CONFLICTS))


@pytest.mark.parametrize("session", PUNCHED)
def test_two_nats_are_punched(between_nats: Meetings, session: str) -> None:
    meeting = between_nats[session]
    assert_good(meeting)
    assert meeting.path.kind == "direct"


@pytest.mark.parametrize("session", CONFLICTS)
def test_whose_tie_breaker_is_higher_controls(between_nats: Meetings, session: str) -> None:
    """RFC 8445 sections 7.2.5.1 and 7.3.1.1."""
    meeting = between_nats[session]
    assert_good(meeting)
    assert meeting.we_control is ("higher" in session)


# -- relays -----------------------------------------------------------------------------------

OUR_RELAY = every_role("ours", OUR_TURN, stun=STUN)
THEIR_RELAY = every_role("theirs", OUR_STUN, turn=TURN)
BOTH_RELAYS = every_role("one of two", OUR_TURN, turn=TURN)


@pytest.fixture(scope="module")
def through_relays() -> Iterator[Meetings]:
    """Symmetric NATs where a relay is at hand."""
    with (
        behind_nats(nat_a="symmetric") as ours,
        behind_nats(nat_b="symmetric") as theirs,
        behind_nats(nat_a="symmetric", nat_b="symmetric") as both,
    ):
        yield Meetings(LIBNICE, (ours, OUR_RELAY), (theirs, THEIR_RELAY), (both, BOTH_RELAYS))


@pytest.mark.parametrize("session", OUR_RELAY | THEIR_RELAY)
def test_who_has_a_symmetric_nat_is_reached_at_its_relay(
    through_relays: Meetings, session: str
) -> None:
    meeting = through_relays[session]
    assert_good(meeting)
    path = meeting.path
    relay = path.local if session in OUR_RELAY else path.remote
    assert path.kind == "relayed"
    assert relay[0] == HOST


@pytest.mark.parametrize("session", BOTH_RELAYS)
def test_one_relay_is_enough(through_relays: Meetings, session: str) -> None:
    meeting = through_relays[session]
    assert_good(meeting)
    assert [meeting.path.local[0], meeting.path.remote[0]].count(HOST) == 1


# -- no NAT, IPv6, lite -----------------------------------------------------------------------

DUAL_STACK = every_role("dual stack")
IPV6 = every_role("IPv6 behind firewalls")
LITE = {
    "we control": (Ours(True), Setup(False, lite=True)),
    "nobody controls": (Ours(False), Setup(False, lite=True)),
    "libnice insists on controlling": (
        Ours(False, tie_breaker=LOWEST),
        Setup(True, lite=True),
    ),
}
WE_ARE_LITE: dict[str, Sides] = {
    "libnice nominates regularly": (Ours(False, lite=True), Setup(True, "regular")),
    "libnice nominates aggressively": (Ours(False, lite=True), Setup(True, "aggressive")),
}


@pytest.fixture(scope="module")
def without_nat() -> Iterator[Meetings]:
    with (
        dual_stack() as open_,
        ipv6_behind_firewalls() as firewalls,
        public_peer() as server,
        we_in_public() as service,
    ):
        yield Meetings(
            LIBNICE, (open_, DUAL_STACK), (firewalls, IPV6), (server, LITE), (service, WE_ARE_LITE)
        )


@pytest.mark.parametrize("session", DUAL_STACK | IPV6)
def test_host_candidates_are_enough_without_a_nat(without_nat: Meetings, session: str) -> None:
    meeting = without_nat[session]
    assert_good(meeting)
    assert (meeting.path.local_type, meeting.path.remote_type) == ("host", "host")


@pytest.mark.parametrize("session", LITE)
def test_a_lite_libnice_is_reached_from_behind_a_nat(without_nat: Meetings, session: str) -> None:
    meeting = without_nat[session]
    assert_good(meeting)
    assert meeting.path.local_type == "prflx"


@pytest.mark.parametrize("session", WE_ARE_LITE)
def test_libnice_reaches_us_when_we_are_lite(without_nat: Meetings, session: str) -> None:
    meeting = without_nat[session]
    assert_good(meeting)
    assert not meeting.we_control
    assert (meeting.path.local_type, meeting.path.remote_type) == ("host", "prflx")
