"""What keeps direct paths from working."""

from __future__ import annotations

from ice_punch.diagnosis.causes import Cause, Finding, Side
from ice_punch.diagnosis.evidence import heard_directly, host_of, names_of, neighbours, over_udp
from ice_punch.diagnosis.relays import OVER_TCP, add_relay, has_relay
from ice_punch.report import Report

ASK_THERE = "see what the other side says"


def obstacles_of(report: Report) -> list[Finding]:
    """What keeps the direct paths from working, the weightiest first."""
    if report.relay_only and not report.local.relay_ip_versions:
        return []
    if report.nothing_gathered:
        remedy = "see that this host has a network, and an interface that may be used"
        return [Finding(Cause.NO_CANDIDATES, Side.HERE, report.nothing_gathered, remedy)]
    if not report.remote.ip_versions and not report.remote.relay_ip_versions:
        clause = "the peer told no address that this side could reach"
        return [Finding(Cause.NO_CANDIDATES, Side.THERE, clause, ASK_THERE)]
    findings = [
        no_common_family(report),
        udp_blocked(report),
        no_public_address_here(report),
        no_public_address_there(report),
        same_nat(report),
        mapping_varies(report),
    ]
    return [*filter(None, () if report.relay_only else findings), nothing_known(report)]


def no_common_family(report: Report) -> Finding | None:
    here, there = report.local.ip_versions, report.remote.ip_versions
    if not here or not there or set(here) & set(there):
        return None
    clause = f"this side has IPv{here[0]} only, and the peer IPv{there[0]} only"
    add = add_relay(report, kind="a TURN server that has both")
    remedy = f"give both sides IPv4 or both IPv6, or {add}"
    return Finding(Cause.NO_COMMON_FAMILY, Side.BOTH, clause, remedy)


def udp_blocked(report: Report, *, relayed: bool = False) -> Finding | None:
    """``relayed``: a relay was reached, so servers that were asked over UDP had time enough."""
    outcomes = ("silent", "unreachable", *(("pending",) if relayed else ()))
    asked = [s for s in report.servers if over_udp(s)]
    in_vain = [s for s in asked if s.outcome in outcomes]
    if report.udp_works or not in_vain or any(s.outcome == "ok" for s in asked):
        return None
    names = names_of(in_vain)
    hosts = {host_of(server.uri) for server in in_vain}
    silent = {host_of(server.uri) for server in in_vain if server.outcome != "unreachable"}
    if relayed:
        clause = f"nothing arrives here over UDP: {names} did not answer"
    elif len(hosts) > 1:
        clause = f"UDP does not get out of this network: {names} did not answer"
    elif silent & set(report.tcp_hosts):
        clause = f"UDP is blocked: {names} did not answer, although that host does over TCP"
    else:
        return None
    remedy = f"let UDP out, or {add_relay(report, over_tcp=True)}"
    return Finding(Cause.UDP_BLOCKED, Side.HERE, clause, remedy)


def no_public_address_here(report: Report) -> Finding | None:
    if _has_public(report.local.public_ip_versions, report):
        return None
    asked = [s for s in report.servers if s.purpose == "address"]
    in_vain = [s for s in asked if s.outcome in ("silent", "unreachable")]
    unknown = [s for s in asked if s.outcome == "unresolved"]
    so = "so this side knows no public address of its own"
    another = "or name another STUN server: --ice-server stun:HOST"
    if any(s.outcome == "ok" for s in asked):
        clause = f"{names_of(asked)} sees this side at a private address only"
        remedy = "name a STUN server on the internet: --ice-server stun:HOST"
        return Finding(Cause.NO_PUBLIC_ADDRESS, Side.HERE, clause, remedy)
    if in_vain:
        silent = all(s.outcome == "silent" for s in in_vain)
        what = "did not answer" if silent else "can not be reached"
        clause = f"{names_of(in_vain)} {what}, {so}"
        remedy = f"check the address and that UDP may go there, {another}"
        return Finding(Cause.SERVER_UNREACHABLE, Side.HERE, clause, remedy)
    if unknown:
        clause = f"{unknown[0].detail or f'{unknown[0].uri} has no address'}, {so}"
        return Finding(Cause.SERVER_NAME_UNKNOWN, Side.HERE, clause, f"check the name, {another}")
    if asked:
        return None  # too early to tell
    clause = "this side has private addresses only, and no STUN server was asked for another"
    remedy = "name a STUN server: --ice-server stun:HOST"
    return Finding(Cause.NO_PUBLIC_ADDRESS, Side.HERE, clause, remedy)


def no_public_address_there(report: Report) -> Finding | None:
    if _has_public(report.remote.public_ip_versions, report):
        return None
    clause = "the peer told private addresses only: no STUN server told it another"
    if not report.peer_told_all:
        clause = "the peer has told private addresses only so far"
    relay = f"a TURN server over TCP or TLS: {OVER_TCP}"
    remedy = f"give it a STUN server that it reaches or, where UDP is blocked there, {relay}"
    return Finding(Cause.NO_PUBLIC_ADDRESS, Side.THERE, clause, remedy)


def _has_public(public: tuple[int, ...], report: Report) -> bool:
    """Whether one side told an address that the other could reach, or needs none."""
    here, there = set(report.local.ip_versions), set(report.remote.ip_versions)
    common = here & there if here and there else here | there
    return bool(common & set(public)) or heard_directly(report) or neighbours(report)


def same_nat(report: Report) -> Finding | None:
    if not report.same_nat:
        return None
    clause = "both sides are behind one NAT, which lets nothing through between them"
    remedy = f"put both on one local network, or {add_relay(report)}"
    return Finding(Cause.SAME_NAT, Side.BOTH, clause, remedy)


def mapping_varies(report: Report) -> Finding | None:
    here, there = report.local.mapping_varies, report.remote.mapping_varies
    if here and there:
        return varying(Side.BOTH, report)
    if here or there:
        return varying(Side.HERE if here else Side.THERE, report)
    return None


def varying(side: Side, report: Report) -> Finding:
    clause = {
        Side.HERE: "this side's NAT gives a new port for every destination, and the peer's side "
        "lets nothing in from a port that it does not know",
        Side.THERE: "the peer's NAT gives a new port for every destination, and this side lets "
        "nothing in from a port that it does not know",
        Side.BOTH: "the NATs of both sides give a new port for every destination",
    }[side]
    return Finding(Cause.MAPPING_VARIES, side, clause, add_relay(report))


def nothing_known(report: Report) -> Finding:
    if report.peer_heard:
        remedy = f"let UDP through the firewall there, or {add_relay(report)}"
        clause = "the peer's checks arrive here, and this side's are not answered"
        if any(pair.responses_received for pair in report.pairs):
            clause = "the peer was heard, and no path to it held"
        return Finding(Cause.FILTERED, Side.THERE, clause, remedy)
    tried = sum(pair.requests_sent > 0 for pair in report.pairs)
    clause = f"nothing came from the peer on any of {tried} paths"
    if tried < 2:
        clause = "nothing came from the peer" if tried else "there was no path to the peer to try"
    if report.local.mapping_varies is False and report.remote.mapping_varies is False:
        clause += ", although both NATs keep their ports"
    if has_relay(report):
        clause += ", not even at the relay"
    remedy = f"see that the other side still runs and may use UDP, or {add_relay(report)}"
    return Finding(Cause.PEER_SILENT, Side.THERE, clause, remedy)


def of_both(cause: Cause, report: Report) -> Finding:
    if cause is Cause.UDP_BLOCKED:
        remedy = f"let UDP out, or {add_relay(report, over_tcp=True)}"
        return Finding(cause, Side.BOTH, "UDP is blocked on both sides", remedy)
    return varying(Side.BOTH, report)
