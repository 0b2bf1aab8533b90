"""Why there is no path, or none without a relay: from reports, and from sessions in virtual time,
to the cause, the sentence and the advice."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ice_punch import NoRoute
from ice_punch.diagnosis import Cause, Diagnosis, Side, diagnose, why_relayed
from ice_punch.ice import Agent, IceState
from ice_punch.lab.behaviour import Filtering, NatBehaviour, NatKind
from ice_punch.lab.catalogue import find
from ice_punch.lab.scenario import Habit, Ip, Relays, Scenario, peer
from ice_punch.lab.virtual.session import VirtualSession
from ice_punch.report import PairReport, Report, ServerReport, SideReport, Told

HERE, THERE, BOTH = Side.HERE, Side.THERE, Side.BOTH
TURN_TCP = "--ice-server 'turn:HOST?transport=tcp'"

BEHIND_NAT = SideReport(ip_versions=(4,), public_ip_versions=(4,))
VARYING = replace(BEHIND_NAT, mapping_varies=True)
KEEPING = replace(BEHIND_NAT, mapping_varies=False)
PRIVATE = SideReport(ip_versions=(4,))
V6 = SideReport(ip_versions=(6,), public_ip_versions=(6,))
RELAY_ALONE = SideReport(relay_ip_versions=(4,))


def pair(
    local: str = "host", remote: str = "srflx", state: str = "in-progress", **counts: int
) -> PairReport:
    known: dict[str, Any] = {"requests_sent": 7, "responses_received": 0, "requests_received": 0}
    addresses = {"local": "10.1.0.2:50000", "remote": "198.51.100.32:50000"}
    return PairReport(
        **addresses, local_type=local, remote_type=remote, state=state, rtt=None, **known | counts
    )


def stun(uri: str = "stun:a.example", outcome: str = "silent", detail: str = "") -> ServerReport:
    return ServerReport(uri, outcome, detail, "address", "10.1.0.2:50000")


def turn(uri: str = "turn:r.example", outcome: str = "silent", detail: str = "") -> ServerReport:
    return ServerReport(uri, outcome, detail, "relay")


def report(local: SideReport = BEHIND_NAT, remote: SideReport = BEHIND_NAT, **known: Any) -> Report:
    defaults: dict[str, Any] = {
        "pairs": (pair(), pair(remote="host")),
        "servers": (stun(outcome="ok"),),
        "udp_works": True,
        "peer_told_all": True,
    }
    return Report(local=local, remote=remote, **defaults | known)


def no_udp(*servers: ServerReport, **known: Any) -> Report:
    return report(PRIVATE, servers=servers, udp_works=False, **known)


# -- reports ----------------------------------------------------------------------------------

NO_PATH = [
    (
        report(VARYING, VARYING),
        (Cause.MAPPING_VARIES, BOTH),
        "the NATs of both sides give a new port for every destination",
        "add a TURN server: --ice-server turn:HOST",
    ),
    (
        report(VARYING, VARYING, direct_only=True),
        (Cause.MAPPING_VARIES, BOTH),
        "the NATs of both sides give a new port for every destination",
        "leave out --direct-only and add a TURN server: --ice-server turn:HOST",
    ),
    (
        report(VARYING, KEEPING),
        (Cause.MAPPING_VARIES, HERE),
        "this side's NAT gives a new port for every destination, and the peer's side lets nothing "
        "in from a port that it does not know",
        "add a TURN server: --ice-server turn:HOST",
    ),
    (
        report(BEHIND_NAT, VARYING),
        (Cause.MAPPING_VARIES, THERE),
        "the peer's NAT gives a new port for every destination, and this side lets nothing in from "
        "a port that it does not know",
        "add a TURN server: --ice-server turn:HOST",
    ),
    (
        no_udp(stun("stun:a.example"), stun("stun:b.example:3479")),
        (Cause.UDP_BLOCKED, HERE),
        "UDP does not get out of this network: stun:a.example and stun:b.example:3479 did not "
        "answer",
        f"let UDP out, or add a TURN server over TCP or TLS: {TURN_TCP}",
    ),
    (
        no_udp(stun("stun:[2001:db8::1]:7"), tcp_hosts=("2001:db8::1",)),
        (Cause.UDP_BLOCKED, HERE),
        "UDP is blocked: stun:[2001:db8::1]:7 did not answer, although that host does over TCP",
        f"let UDP out, or add a TURN server over TCP or TLS: {TURN_TCP}",
    ),
    (
        no_udp(stun(), tcp_hosts=("a.example",), direct_only=True),
        (Cause.UDP_BLOCKED, HERE),
        "UDP is blocked: stun:a.example did not answer, although that host does over TCP",
        f"let UDP out, or leave out --direct-only and add a TURN server over TCP or TLS: "
        f"{TURN_TCP}",
    ),
    (
        no_udp(stun(), turn("turn:b.example?transport=tcp", "unreachable", "refused")),
        (Cause.SERVER_UNREACHABLE, HERE),
        "stun:a.example did not answer, so this side knows no public address of its own, and "
        "refused",
        "see that it runs there and that no firewall is between, or add another TURN server: "
        "--ice-server turn:HOST",
    ),
    (
        no_udp(
            stun("turn:a.example"),
            turn("turn:a.example", "silent", "turn:a.example did not answer within 5 s"),
        ),
        (Cause.SERVER_UNREACHABLE, HERE),
        "turn:a.example did not answer, so this side knows no public address of its own, and has "
        "no relay",
        f"see that it runs there, or reach it over TCP: {TURN_TCP}",
    ),
    (
        no_udp(stun()),
        (Cause.SERVER_UNREACHABLE, HERE),
        "stun:a.example did not answer, so this side knows no public address of its own",
        "check the address and that UDP may go there, or name another STUN server: "
        "--ice-server stun:HOST",
    ),
    (
        no_udp(stun(outcome="unreachable"), tcp_hosts=("a.example",)),  # it says so itself
        (Cause.SERVER_UNREACHABLE, HERE),
        "stun:a.example can not be reached, so this side knows no public address of its own",
        "check the address and that UDP may go there, or name another STUN server: "
        "--ice-server stun:HOST",
    ),
    (
        no_udp(stun(outcome="unresolved", detail="the name a.example can not be resolved: gone")),
        (Cause.SERVER_NAME_UNKNOWN, HERE),
        "the name a.example can not be resolved: gone, so this side knows no public address of its "
        "own",
        "check the name, or name another STUN server: --ice-server stun:HOST",
    ),
    (
        no_udp(),
        (Cause.NO_PUBLIC_ADDRESS, HERE),
        "this side has private addresses only, and no STUN server was asked for another",
        "name a STUN server: --ice-server stun:HOST",
    ),
    (
        report(PRIVATE, servers=(stun("stun:10.0.0.1", "ok"),)),
        (Cause.NO_PUBLIC_ADDRESS, HERE),
        "stun:10.0.0.1 sees this side at a private address only",
        "name a STUN server on the internet: --ice-server stun:HOST",
    ),
    (
        report(BEHIND_NAT, PRIVATE),
        (Cause.NO_PUBLIC_ADDRESS, THERE),
        "the peer told private addresses only: no STUN server told it another",
        "give it a STUN server that it reaches or, where UDP is blocked there, a TURN server over "
        f"TCP or TLS: {TURN_TCP}",
    ),
    (
        report(BEHIND_NAT, V6, pairs=()),
        (Cause.NO_COMMON_FAMILY, BOTH),
        "this side has IPv4 only, and the peer IPv6 only",
        "give both sides IPv4 or both IPv6, or add a TURN server that has both: "
        "--ice-server turn:HOST",
    ),
    (
        report(same_nat=True),
        (Cause.SAME_NAT, BOTH),
        "both sides are behind one NAT, which lets nothing through between them",
        "put both on one local network, or add a TURN server: --ice-server turn:HOST",
    ),
    (
        report(
            VARYING,
            VARYING,
            servers=(turn("turn:r", "rejected", "turn:r rejected the user name or the password"),),
        ),
        (Cause.RELAY_REFUSED, HERE),
        "the NATs of both sides give a new port for every destination, and turn:r rejected the "
        "user name or the password",
        "check ICE_PUNCH_TURN_USERNAME and ICE_PUNCH_TURN_PASSWORD",
    ),
    (
        Report(relay_only=True, servers=(turn("turn:r", "denied", "turn:r refused: 486 Quota"),)),
        (Cause.RELAY_REFUSED, HERE),
        "turn:r refused: 486 Quota",
        "ask who runs it, or add another TURN server: --ice-server turn:HOST",
    ),
    (
        Report(relay_only=True),
        (Cause.NO_RELAY, HERE),
        "no TURN server was given, and --relay-only allows nothing else",
        "add a TURN server: --ice-server turn:HOST",
    ),
    (
        Report(nothing_gathered="no usable address was found on eth9"),
        (Cause.NO_CANDIDATES, HERE),
        "no usable address was found on eth9",
        "see that this host has a network, and an interface that may be used",
    ),
    (
        report(remote=SideReport(), pairs=()),
        (Cause.NO_CANDIDATES, THERE),
        "the peer told no address that this side could reach",
        "see what the other side says",
    ),
    (
        report(peer_heard=True, pairs=(pair(requests_received=3),)),
        (Cause.FILTERED, THERE),
        "the peer's checks arrive here, and this side's are not answered",
        "let UDP through the firewall there, or add a TURN server: --ice-server turn:HOST",
    ),
    (
        report(KEEPING, KEEPING),
        (Cause.PEER_SILENT, THERE),
        "nothing came from the peer on any of 2 paths, although both NATs keep their ports",
        "see that the other side still runs and may use UDP, or add a TURN server: "
        "--ice-server turn:HOST",
    ),
    (
        report(servers=(turn(outcome="ok"),)),
        (Cause.PEER_SILENT, THERE),
        "nothing came from the peer on any of 2 paths, not even at the relay",
        "see that the other side still runs and may use UDP, or give the other side a TURN server "
        f"that it reaches, over TCP or TLS if it must be: {TURN_TCP}",
    ),
]


@pytest.mark.parametrize(("known", "cause", "sentence", "advice"), NO_PATH)
def test_no_path_has_one_cause_one_sentence_and_one_piece_of_advice(
    known: Report, cause: tuple[Cause, Side], sentence: str, advice: str
) -> None:
    found = diagnose(known)
    assert (found.cause, found.side) == cause
    assert found.sentence == sentence
    assert found.advice == advice
    assert str(found) == f"{sentence}; {advice}"


RELAYED = [
    (report(VARYING, VARYING), (Cause.MAPPING_VARIES, BOTH), "a direct path needs IPv6"),
    (report(VARYING, BEHIND_NAT), (Cause.MAPPING_VARIES, HERE), "a direct path needs IPv6"),
    (report(relay_only=True), (Cause.RELAY_ONLY, HERE), "without --relay-only"),
    (report(BEHIND_NAT, RELAY_ALONE), (Cause.RELAY_ONLY, THERE), "without --relay-only"),
    (report(BEHIND_NAT, V6), (Cause.NO_COMMON_FAMILY, BOTH), "one that both have"),
    (
        report(
            PRIVATE,
            servers=(stun(outcome="pending"), turn("turn:r?transport=tcp", "ok")),
            udp_works=None,
        ),
        (Cause.UDP_BLOCKED, HERE),
        "a direct path needs UDP",
    ),
    (report(BEHIND_NAT, PRIVATE), (Cause.NO_PUBLIC_ADDRESS, THERE), "needs UDP there"),
    (report(same_nat=True), (Cause.SAME_NAT, BOTH), "one local network"),
    (report(pairs=(pair(state="succeeded"),)), (Cause.DIRECT_LATE, BOTH), "--direct-only"),
    (report(), (Cause.NO_DIRECT_ANSWER, BOTH), "ice-punch stun"),
]


@pytest.mark.parametrize(("known", "cause", "advice"), RELAYED)
def test_a_relayed_path_has_a_cause_and_no_relay_is_advised(
    known: Report, cause: tuple[Cause, Side], advice: str
) -> None:
    found = why_relayed(known)
    assert (found.cause, found.side) == cause
    assert advice in found.advice
    assert "turn:HOST" not in str(found)


def test_what_else_stood_in_the_way_is_told_to_programs() -> None:
    refused = turn("turn:r", "rejected", "turn:r says no")
    found = diagnose(report(VARYING, VARYING, servers=(refused,)))
    assert found.also == ((Cause.MAPPING_VARIES, BOTH),)
    assert diagnose(report()).also == ()


def test_udp_is_not_called_blocked_where_something_came_over_it() -> None:
    servers = (stun("stun:a.example"), stun("stun:b.example"))
    blocked = no_udp(*servers, tcp_hosts=("a.example",))
    assert diagnose(blocked).cause is Cause.UDP_BLOCKED
    heard = replace(blocked, udp_works=True)
    assert diagnose(heard).cause is Cause.SERVER_UNREACHABLE
    over_udp = replace(blocked, servers=(*servers, turn(outcome="ok")))
    assert diagnose(over_udp).cause is not Cause.UDP_BLOCKED


def test_servers_over_udp_are_no_news_where_udp_is_blocked_and_one_over_tcp_is() -> None:
    silent = (stun("stun:a.example"), turn("turn:b.example"), stun("turn:b.example"))
    assert diagnose(no_udp(*silent)).cause is Cause.UDP_BLOCKED
    refused = turn("turn:b.example?transport=tcp", "unreachable", "turn:b.example?... refused")
    found = diagnose(no_udp(*silent, refused))
    assert (found.cause, found.also) == (Cause.SERVER_UNREACHABLE, ((Cause.UDP_BLOCKED, HERE),))
    assert found.sentence.startswith("UDP does not get out of this network: ")
    assert found.sentence.endswith(", and turn:b.example?... refused")


def test_neighbours_need_no_public_address() -> None:
    near = replace(pair("host", "host"), local="192.168.1.2:9", remote="192.168.1.77:9")
    far = replace(near, remote="192.168.2.77:9")
    v6 = replace(near, local="[fd00::1:2]:9", remote="[fd00::7]:9")
    for one, cause in (
        (near, Cause.PEER_SILENT),
        (v6, Cause.PEER_SILENT),
        (far, Cause.NO_PUBLIC_ADDRESS),
    ):
        assert diagnose(report(PRIVATE, PRIVATE, servers=(), pairs=(one,))).cause is cause


# -- what the peer says -----------------------------------------------------------------------


def told(cause: Cause, side: Side, detail: str = "") -> Told:
    return Told(cause.value, side.value, detail)


def test_both_sides_findings_make_one() -> None:
    here = report(VARYING, told=told(Cause.MAPPING_VARIES, THERE))
    assert (diagnose(here).cause, diagnose(here).side) == (Cause.MAPPING_VARIES, BOTH)
    blocked = no_udp(stun(), tcp_hosts=("a.example",), told=told(Cause.UDP_BLOCKED, THERE))
    assert (diagnose(blocked).side, diagnose(blocked).sentence) == (
        BOTH,
        "UDP is blocked on both sides",
    )


def test_what_weighs_more_there_comes_first() -> None:
    says = told(Cause.UDP_BLOCKED, THERE, "in words that are about the other side")
    found = diagnose(report(VARYING, PRIVATE, told=says))
    assert (found.cause, found.side) == (Cause.UDP_BLOCKED, THERE)
    assert found.sentence == "UDP is blocked on the peer's side"
    assert found.advice.startswith("let UDP out there, or add a TURN server over TCP or TLS there")
    assert (Cause.MAPPING_VARIES, HERE) in found.also


def test_a_peer_that_told_no_address_says_itself_why() -> None:
    nothing = report(remote=SideReport(), told=told(Cause.UDP_BLOCKED, THERE))
    assert (diagnose(nothing).cause, diagnose(nothing).side) == (Cause.UDP_BLOCKED, THERE)
    of_both = replace(nothing, told=told(Cause.NO_CANDIDATES, THERE, "no usable address"))
    assert diagnose(of_both).cause is Cause.NO_CANDIDATES


def test_what_the_peer_says_of_its_servers_is_repeated() -> None:
    refusal = told(Cause.RELAY_REFUSED, THERE, "turn:r rejected the user name or the password")
    found = diagnose(report(VARYING, VARYING, told=refusal))
    assert (found.cause, found.side) == (Cause.RELAY_REFUSED, THERE)
    assert found.sentence == (
        "the NATs of both sides give a new port for every destination, and a TURN server refused "
        "the peer (turn:r rejected the user name or the password)"
    )


@pytest.mark.parametrize(
    "nonsense",
    [
        Told("", ""),
        Told("no such cause", "here"),
        Told("mapping-varies", "everywhere"),
        Told("peer-silent", "here"),
        Told("direct-late", "both"),
    ],
)
def test_a_peer_that_says_nothing_of_use_changes_nothing(nonsense: Told) -> None:
    assert diagnose(report(told=nonsense)) == diagnose(report())


# -- any report -------------------------------------------------------------------------------

versions = st.sampled_from([(), (4,), (6,), (4, 6)])
sides = st.builds(SideReport, versions, versions, versions, st.sampled_from([None, True, False]))
words = st.sampled_from(
    ["ok", "pending", "silent", "unreachable", "unresolved", "rejected", "denied", "?"]
)
servers = st.builds(
    ServerReport,
    st.sampled_from(["stun:a", "stun:b:1", "turn:a", "turn:c?transport=tcp", "turns:[::1]", "x"]),
    words,
    st.sampled_from(["", "why not"]),
    st.sampled_from(["", "address", "relay"]),
)
pairs = st.builds(
    PairReport,
    st.sampled_from(["10.0.0.1:1", "[fd00::1]:1", "?"]),
    st.sampled_from(["10.0.0.2:1", "[fd00::2]:1", ""]),
    st.sampled_from(["host", "srflx", "prflx", "relay"]),
    st.sampled_from(["host", "srflx", "prflx", "relay"]),
    st.sampled_from(["failed", "succeeded", "in-progress"]),
    st.integers(0, 2),
    st.integers(0, 2),
    st.integers(0, 2),
    st.none(),
)
peer_says = st.none() | st.builds(
    Told, st.sampled_from([*Cause, "x"]), st.sampled_from([*Side, "x"]), st.just("as it says")
)
reports = st.builds(
    Report,
    pairs=st.lists(pairs, max_size=3).map(tuple),
    servers=st.lists(servers, max_size=5).map(tuple),
    local=sides,
    remote=sides,
    peer_heard=st.booleans(),
    peer_told_all=st.booleans(),
    same_nat=st.booleans(),
    udp_works=st.sampled_from([None, True, False]),
    tcp_hosts=st.sampled_from([(), ("a",), ("::1",)]),
    direct_only=st.booleans(),
    relay_only=st.booleans(),
    nothing_gathered=st.sampled_from(["", "no socket could be opened"]),
    told=peer_says,
)


@given(reports)
@settings(deadline=None, max_examples=500)
def test_every_report_comes_to_one_line(known: Report) -> None:
    for found in (diagnose(known), why_relayed(known)):
        assert str(found).isprintable()
        assert found.sentence
        assert found.advice
        assert len(str(found)) < 500
        assert found.sentence.count(";") == found.advice.count(";") == 0
        assert (found.cause, found.side) not in found.also
    error = NoRoute.explained(known, "no luck")
    assert str(error) == f"no luck: {diagnose(known)}"
    assert error.diagnosis == diagnose(known)
    assert error.report == known


# -- sessions in virtual time -----------------------------------------------------------------


def session(scenario: Scenario, seed: int = 0) -> VirtualSession:
    made = VirtualSession(scenario, seed)
    made.run()
    return made


def report_of(made: VirtualSession, side: str) -> Report:
    peer_of_lab = made.peers["a" if side == "a" else "b"]
    assert isinstance(peer_of_lab.machine, Agent)
    return peer_of_lab.machine.report()


def failed(scenario: Scenario) -> tuple[Diagnosis, Diagnosis]:
    made = session(scenario)
    assert {p.state for p in made.peers.values()} == {IceState.FAILED}
    return diagnose(report_of(made, "a")), diagnose(report_of(made, "b"))


def test_two_symmetric_nats_without_a_relay() -> None:
    a, b = failed(find("symmetric-without-relay"))
    assert (a.cause, a.side) == (b.cause, b.side) == (Cause.MAPPING_VARIES, BOTH)


def test_one_symmetric_nat_is_named_from_either_side() -> None:
    scenario = Scenario(a=peer(NatKind.SYMMETRIC), b=peer(NatKind.PORT_RESTRICTED), seconds=120)
    a, b = failed(scenario)
    assert (a.cause, a.side) == (Cause.MAPPING_VARIES, HERE)
    assert (b.cause, b.side) == (Cause.MAPPING_VARIES, THERE)


def test_udp_that_does_not_get_out_is_seen_on_that_side_and_guessed_on_the_other() -> None:
    a, b = failed(find("udp-blocked-without-relay"))
    assert (a.cause, a.side) == (Cause.UDP_BLOCKED, HERE)
    assert "stun:stun1.lab and stun:stun2.lab did not answer" in a.sentence
    assert (b.cause, b.side) == (Cause.NO_PUBLIC_ADDRESS, THERE)
    assert "where UDP is blocked there" in b.advice


def test_udp_blocked_is_known_to_the_other_side_once_it_is_told() -> None:
    made = session(find("udp-blocked-without-relay"))
    a = diagnose(report_of(made, "a"))
    says = Told(a.cause, a.side.mirrored)
    b = diagnose(replace(report_of(made, "b"), told=says))
    assert (b.cause, b.side) == (Cause.UDP_BLOCKED, THERE)


def test_a_stun_server_that_is_silent() -> None:
    """One that answered the peer's checks proves that UDP works: it is the server."""
    made = VirtualSession(Scenario(a=peer(NatKind.FULL_CONE), b=peer(NatKind.NONE)))
    made.topology.stun.interfaces[0].up = False
    made.run()
    assert report_of(made, "a").udp_works is True
    lonely = VirtualSession(Scenario(b=peer(NatKind.PORT_RESTRICTED, habit=Habit.SILENT)))
    lonely.peers["a"]._stun = lonely.peers["a"]._stun[:1]
    lonely.topology.stun.interfaces[0].up = False
    lonely.run()
    found = diagnose(report_of(lonely, "a"))
    assert (found.cause, found.side) == (Cause.SERVER_UNREACHABLE, HERE)
    assert found.sentence.startswith("stun:stun1.lab did not answer")


def test_no_stun_server_at_all() -> None:
    for found in failed(Scenario(stun=False)):
        assert (found.cause, found.side) == (Cause.NO_PUBLIC_ADDRESS, HERE)


def test_ipv4_meets_ipv6() -> None:
    a, b = failed(Scenario(a=peer(ip=Ip.V4), b=peer(ip=Ip.V6)))
    assert a.cause is b.cause is Cause.NO_COMMON_FAMILY
    assert a.sentence == "this side has IPv4 only, and the peer IPv6 only"
    assert b.sentence == "this side has IPv6 only, and the peer IPv4 only"


def test_a_peer_that_is_silent() -> None:
    made = session(Scenario(b=peer(NatKind.NONE, habit=Habit.SILENT)))
    found = diagnose(report_of(made, "a"))
    assert (found.cause, found.side) == (Cause.PEER_SILENT, THERE)
    assert found.sentence.startswith("nothing came from the peer")


def test_a_carrier_that_does_not_hairpin() -> None:
    alone = replace(find("one-carrier"), relays=Relays.NONE)
    for found in failed(alone):
        assert (found.cause, found.side) == (Cause.SAME_NAT, BOTH)


@pytest.mark.parametrize(
    ("name", "a", "b"),
    [
        ("symmetric", (Cause.MAPPING_VARIES, BOTH), (Cause.MAPPING_VARIES, BOTH)),
        (
            "symmetric-and-port-restricted",
            (Cause.MAPPING_VARIES, HERE),
            (Cause.MAPPING_VARIES, THERE),
        ),
        ("one-carrier", (Cause.SAME_NAT, BOTH), (Cause.SAME_NAT, BOTH)),
        ("udp-blocked", (Cause.UDP_BLOCKED, HERE), (Cause.NO_PUBLIC_ADDRESS, THERE)),
        ("only-tcp-443", (Cause.UDP_BLOCKED, HERE), (Cause.UDP_BLOCKED, HERE)),
    ],
)
def test_why_a_session_is_relayed(name: str, a: tuple[Cause, Side], b: tuple[Cause, Side]) -> None:
    made = session(find(name))
    for side, expected in (("a", a), ("b", b)):
        found = why_relayed(report_of(made, side))
        assert (found.cause, found.side) == expected


def test_checks_at_a_relay_show_what_one_stun_server_does_not() -> None:
    """One server can not tell whether a mapping varies. The relays' ports are other destinations:
    where checks go to and come from there tells it, of both sides."""
    made = VirtualSession(find("symmetric"))
    for virtual in made.peers.values():
        virtual._stun = virtual._stun[:1]
    made.run()
    for side in "ab":
        known = report_of(made, side)
        assert (known.local.mapping_varies, known.remote.mapping_varies) == (True, True)


@pytest.mark.parametrize(
    "scenario",
    [
        find("port-restricted"),
        find("carrier-grade"),
        find("one-carrier-hairpins"),
        find("two-uplinks"),
        find("one-lan"),
        find("public-hosts"),
        find("ports-sequential"),
        find("ipv6"),
        Scenario(
            "between two NATs",
            a=peer((NatBehaviour(), NatBehaviour(filtering=Filtering.ENDPOINT_INDEPENDENT))),
            b=peer(NatKind.FULL_CONE),
            relays=Relays.UDP,
        ),
    ],
    ids=lambda scenario: scenario.name,
)
def test_a_mapping_that_does_not_vary_is_never_said_to(scenario: Scenario) -> None:
    for seed in range(5):
        made = session(scenario, seed)
        for side in "ab":
            known = report_of(made, side)
            assert known.local.mapping_varies is not True
            assert known.remote.mapping_varies is not True
            assert not known.notes


def test_what_was_asked_in_vain_is_known_when_ice_is_done() -> None:
    """The queries end with the first nominated pair; that nobody answered them is not forgotten."""
    made = session(find("udp-blocked"))
    known = report_of(made, "a")
    assert {s.outcome for s in known.servers} <= {"silent", "pending"}
    assert {s.uri for s in known.servers} == {"stun:stun1.lab", "turn:turn.lab"}
    assert all(s.purpose == "address" and s.base for s in known.servers)
    other = report_of(made, "b")
    assert {(s.outcome, s.mapped.rpartition(":")[0]) for s in other.servers} == {
        ("ok", "198.51.100.32")
    }


def test_a_direct_only_session_ends_with_the_same_cause() -> None:
    made = VirtualSession(find("symmetric-without-relay"))
    for virtual in made.peers.values():
        assert isinstance(virtual.machine, Agent)
        session_of_agent = virtual.machine._session
        session_of_agent.config = replace(session_of_agent.config, direct_only=True)
    made.run()
    for side in "ab":
        found = diagnose(report_of(made, side))
        assert (found.cause, found.side) == (Cause.MAPPING_VARIES, BOTH)
        assert found.advice.startswith("leave out --direct-only and add a TURN server")
