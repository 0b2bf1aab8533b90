"""From all findings to one diagnosis."""

from __future__ import annotations

from dataclasses import replace

from ice_punch.diagnosis.causes import Cause, Diagnosis, Finding, Side
from ice_punch.diagnosis.evidence import is_direct
from ice_punch.diagnosis.obstacles import (
    ASK_THERE,
    mapping_varies,
    no_common_family,
    no_public_address_here,
    no_public_address_there,
    nothing_known,
    obstacles_of,
    of_both,
    same_nat,
    udp_blocked,
    varying,
)
from ice_punch.diagnosis.relays import OVER_TCP, relay_trouble
from ice_punch.report import Report


def diagnose(report: Report) -> Diagnosis:
    """Why a session came to nothing."""
    obstacles = obstacles_of(report)
    blocked = any(finding.cause is Cause.UDP_BLOCKED for finding in obstacles)
    relay = None if report.direct_only else relay_trouble(report, udp_blocked=blocked)
    told = _told(report)
    if told is not None:
        if relay is None and told.cause in _OF_RELAYS and not report.direct_only:
            relay = told
        else:
            obstacles = _merged(obstacles, told, report)
    if relay is None:
        obstacles = obstacles or [nothing_known(report)]
        return _diagnosis(obstacles, obstacles[0].clause)
    return _diagnosis([relay, *obstacles], _joined(obstacles, relay))


def why_relayed(report: Report) -> Diagnosis:
    """Why a session that goes through a relay does not go directly, as far as is known yet."""
    findings = _reasons_for_relay(report)
    return _diagnosis(findings, findings[0].clause)


def _joined(obstacles: list[Finding], relay: Finding) -> str:
    if not obstacles:
        return relay.clause
    direct = obstacles[0]
    if direct.cause is relay.cause and relay.host and relay.host in direct.clause:
        return f"{direct.clause}, and has no relay"
    return f"{direct.clause}, and {relay.clause}"


def _diagnosis(findings: list[Finding], sentence: str) -> Diagnosis:
    main = findings[0]
    also = {(f.cause, f.side): None for f in findings[1:] if f.cause not in _VAGUE}
    also.pop((main.cause, main.side), None)
    return Diagnosis(main.cause, main.side, sentence, main.remedy, tuple(also))


_VAGUE = (Cause.FILTERED, Cause.PEER_SILENT, Cause.DIRECT_LATE, Cause.NO_DIRECT_ANSWER)
_OF_RELAYS = (Cause.NO_RELAY, Cause.RELAY_REFUSED)
_OF_SERVERS = (
    Cause.NO_CANDIDATES,
    Cause.RELAY_REFUSED,
    Cause.SERVER_NAME_UNKNOWN,
    Cause.SERVER_UNREACHABLE,
)
_OF_TWO = (Cause.MAPPING_VARIES, Cause.UDP_BLOCKED)
_RANK = {cause: rank for rank, cause in enumerate(Cause)}


def _merged(obstacles: list[Finding], told: Finding, report: Report) -> list[Finding]:
    """Own findings and what the peer found, the weightiest first."""
    for index, own in enumerate(obstacles):
        if own.cause is told.cause:
            if own.side is not told.side and own.cause in _OF_TWO:
                return [*obstacles[:index], of_both(own.cause, report), *obstacles[index + 1 :]]
            return obstacles
    if any((f.cause, f.side) == (Cause.NO_CANDIDATES, Side.THERE) for f in obstacles):
        return [told, *obstacles]  # it knows why
    return sorted([*obstacles, told], key=lambda finding: _RANK[finding.cause])


def _told(report: Report) -> Finding | None:
    """What the peer found, unless it knows no more than this side."""
    told = report.told
    if told is None or told.cause not in _TOLD_CLAUSES or told.side not in tuple(Side):
        return None
    cause, side = Cause(told.cause), Side(told.side)
    if cause is Cause.MAPPING_VARIES:
        return varying(side, report)
    clause = _TOLD_CLAUSES[cause]
    if told.detail and cause in _OF_SERVERS:
        clause += f" ({told.detail})"
    remedy = ASK_THERE
    if cause is Cause.UDP_BLOCKED:
        remedy = f"let UDP out there, or add a TURN server over TCP or TLS there: {OVER_TCP}"
    return Finding(cause, side, clause, remedy)


_TOLD_CLAUSES = {
    Cause.NO_CANDIDATES: "the peer has no address to be reached at",
    Cause.NO_COMMON_FAMILY: "the two sides have no IP version in common",
    Cause.UDP_BLOCKED: "UDP is blocked on the peer's side",
    Cause.NO_RELAY: "the peer may use nothing but relays, and has none",
    Cause.RELAY_REFUSED: "a TURN server refused the peer",
    Cause.SERVER_NAME_UNKNOWN: "the peer does not know the address of its server",
    Cause.SERVER_UNREACHABLE: "the peer does not reach its server",
    Cause.MAPPING_VARIES: "",
}


def _reasons_for_relay(report: Report) -> list[Finding]:
    remote = report.remote
    findings: list[Finding | None] = []
    if report.relay_only:
        clause = "this side was told to use nothing but relays"
        remedy = "a direct path needs it without --relay-only"
        findings.append(Finding(Cause.RELAY_ONLY, Side.HERE, clause, remedy))
    elif report.peer_told_all and remote.relay_ip_versions and not remote.ip_versions:
        clause = "the peer tells no address but its relay's"
        remedy = "a direct path needs the other side without --relay-only"
        findings.append(Finding(Cause.RELAY_ONLY, Side.THERE, clause, remedy))
    elif any(pair.state == "succeeded" for pair in report.pairs if is_direct(pair)):
        clause = "a direct path works, but the relay was ready first"
        findings.append(Finding(Cause.DIRECT_LATE, Side.BOTH, clause, "try --direct-only"))
    else:
        findings += [
            _instead(no_common_family(report), "a direct path needs one that both have"),
            _instead(udp_blocked(report, relayed=True), "a direct path needs UDP"),
            no_public_address_here(report),
            _instead(
                no_public_address_there(report) if remote.ip_versions else None,
                "a direct path needs UDP there, and a STUN server that the peer reaches",
            ),
            _instead(same_nat(report), "a direct path needs both on one local network"),
            _instead(
                mapping_varies(report),
                "a direct path needs IPv6 on both sides, or a NAT that keeps its ports",
            ),
        ]
    clause = "no direct path has answered yet"
    remedy = "'ice-punch stun SERVER SERVER' on either side tells what its NAT does"
    last = Finding(Cause.NO_DIRECT_ANSWER, Side.BOTH, clause, remedy)
    return [*filter(None, findings), last]


def _instead(finding: Finding | None, remedy: str) -> Finding | None:
    """No relay is to be added where there is one."""
    return None if finding is None else replace(finding, remedy=remedy)
