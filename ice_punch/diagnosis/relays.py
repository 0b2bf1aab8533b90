"""Why a side has no relay, and how it comes to one."""

from __future__ import annotations

from ice_punch.diagnosis.causes import Cause, Finding, Side
from ice_punch.diagnosis.evidence import host_of, over_udp
from ice_punch.report import Report, ServerReport

_ANOTHER = "or add another TURN server: --ice-server turn:HOST"
OVER_TCP = "--ice-server 'turn:HOST?transport=tcp'"
_TROUBLES = {
    "rejected": (
        Cause.RELAY_REFUSED,
        "rejected the user name or the password",
        "check ICE_PUNCH_TURN_USERNAME and ICE_PUNCH_TURN_PASSWORD",
    ),
    "denied": (Cause.RELAY_REFUSED, "refused to relay", f"ask who runs it, {_ANOTHER}"),
    "unresolved": (
        Cause.SERVER_NAME_UNKNOWN,
        "has no address",
        f"check the name, {_ANOTHER}",
    ),
    "unreachable": (
        Cause.SERVER_UNREACHABLE,
        "can not be reached",
        f"see that it runs there and that no firewall is between, {_ANOTHER}",
    ),
    "silent": (
        Cause.SERVER_UNREACHABLE,
        "did not answer",
        f"see that it runs there and that no firewall is between, {_ANOTHER}",
    ),
}
"""By outcome, what somebody can mend first."""


def relay_trouble(report: Report, *, udp_blocked: bool) -> Finding | None:
    """Why this side has no relay, where it was to have one. Where UDP is blocked, that is why a
    server is not reached over UDP."""
    relays = [s for s in report.servers if s.purpose == "relay"]
    if any(s.outcome == "ok" for s in relays):
        return None
    if not relays:
        if not report.relay_only:
            return None
        clause = "no TURN server was given, and --relay-only allows nothing else"
        return Finding(Cause.NO_RELAY, Side.HERE, clause, add_relay(report))
    for outcome in _TROUBLES:
        for server in relays:
            if server.outcome == outcome and not (udp_blocked and over_udp(server)):
                return _trouble_with(server)
    return None


def _trouble_with(server: ServerReport) -> Finding:
    cause, what, remedy = _TROUBLES[server.outcome]
    if cause is Cause.SERVER_UNREACHABLE and over_udp(server):
        remedy = f"see that it runs there, or reach it over TCP: {OVER_TCP}"
    clause = server.detail or f"{server.uri} {what}"
    return Finding(cause, Side.HERE, clause, remedy, host_of(server.uri))


def has_relay(report: Report) -> bool:
    return any(s.purpose == "relay" and s.outcome == "ok" for s in report.servers)


def add_relay(report: Report, *, over_tcp: bool = False, kind: str = "a TURN server") -> str:
    """What to do where a relay would help."""
    if has_relay(report) and not report.direct_only:
        reachable = "a TURN server that it reaches, over TCP or TLS if it must be"
        return f"give the other side {reachable}: {OVER_TCP}"
    add = f"add {kind}: --ice-server turn:HOST"
    if over_tcp:
        add = f"add a TURN server over TCP or TLS: {OVER_TCP}"
    return f"leave out --direct-only and {add}" if report.direct_only else add
