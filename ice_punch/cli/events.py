"""The events that ``--json`` writes: one dict each, addresses as ``host:port``, times in ms."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from ice_punch.datagram import format_address

if TYPE_CHECKING:
    from ice_punch.channel import Channel
    from ice_punch.diagnosis import Diagnosis
    from ice_punch.ice import Candidate
    from ice_punch.path import Path
    from ice_punch.peer import PeerEvent
    from ice_punch.recording import Replay
    from ice_punch.recording.lines import AnyLine
    from ice_punch.report import PairReport, Report

Event = dict[str, Any]


def observed(event: PeerEvent) -> Event:
    """``signaling``, ``candidate``, ``state``, ``selected``, ``restart`` or ``network``."""
    from ice_punch.ice import (
        LocalCandidateFound,
        RestartAdvised,
        SelectedPairChanged,
        StateChanged,
    )
    from ice_punch.net.monitor import NetworkChanged
    from ice_punch.peer import RemoteCandidateFound

    match event:
        case LocalCandidateFound(candidate=candidate):
            return _candidate("local", candidate)
        case RemoteCandidateFound(candidate=candidate):
            return _candidate("remote", candidate)
        case StateChanged():
            return {"event": "state", "state": event.state.value, "reason": event.reason}
        case SelectedPairChanged(pair=pair, reason=reason):
            kind = "relayed" if pair.relayed else "direct"
            told = _pair(pair.report())
            return {"event": "selected", "kind": kind, "pair": told, "reason": reason}
        case RestartAdvised(reason=reason):
            return {"event": "restart", "reason": reason}
        case NetworkChanged(added=added, removed=removed):
            came = [{"interface": a.interface, "ip": a.ip} for a in added]
            return {"event": "network", "added": came, "removed": list(removed)}
        case _:
            return {"event": "signaling", "state": event.state, "detail": event.detail}


def recorded(line: AnyLine) -> Event | None:
    """A line of a recording that is an event of ``observed``."""
    from ice_punch.recording import lines

    match line:
        case lines.LocalCandidate(candidate=candidate):
            return _candidate("local", candidate)
        case lines.AddRemoteCandidate(candidate=candidate):
            return _candidate("remote", candidate)
        case lines.State():
            return {"event": "state", "state": line.state.value, "reason": line.reason}
        case lines.Selected(report=report):
            relayed = "relay" in (report.local_type, report.remote_type)
            kind = "relayed" if relayed else "direct"
            told = _pair(report)
            return {"event": "selected", "kind": kind, "pair": told, "reason": line.reason}
        case _:
            return None


def replayed(replay: Replay) -> Event:
    """What came of a recording."""
    return {
        "event": "replayed",
        "state": replay.state.value,
        "reason": replay.reason,
        "inputs": replay.inputs,
        "outputs": replay.outputs,
        "complete": replay.complete,
        **_reported(replay.report),
    }


def connected(channel: Channel) -> Event:
    report = channel.report()
    encryption, timings = channel.encryption, channel.timings
    return {
        "event": "connected",
        "path": _path(channel.path),
        "why_relayed": _diagnosis(channel.why_relayed),
        "dtls": None if encryption is None else dataclasses.asdict(encryption),
        "timings": {
            "signaling_ms": _ms(timings.signaling),
            "gathering_ms": _ms(timings.gathering),
            "checks_ms": _ms(timings.checks),
            "dtls_ms": _ms(timings.dtls),
        },
        "max_datagram_size": channel.max_datagram_size,
        **_reported(report),
    }


def relayed(why: Diagnosis) -> Event:
    return {"event": "relayed", "why_relayed": _diagnosis(why)}


def closed(reason: str, channel: Channel) -> Event:
    stats = dataclasses.asdict(channel.stats)
    for name in ("rtt", "rtt_smoothed", "rtt_min"):
        stats[f"{name}_ms"] = _ms(stats.pop(name))
    return {"event": "closed", "reason": reason, "stats": stats}


def error(
    name: str, message: str, report: Report | None, diagnosis: Diagnosis | None = None
) -> Event:
    told: Event = {
        "event": "error",
        "error": name,
        "message": message,
        "diagnosis": _diagnosis(diagnosis),
    }
    if report is not None:
        told |= _reported(report)
    return told


def as_text(event: Event) -> str:
    """An event of ``observed`` as a line for people."""
    match event["event"]:
        case "candidate":
            server = f" from {event['server']}" if event["server"] else ""
            return (
                f"{event['side']} candidate: {event['type']} {event['address']} "
                f"priority {event['priority']}{server}"
            )
        case "state":
            return f"state: {event['state']}, {event['reason']}"
        case "selected":
            pair = event["pair"]
            return f"selected: {event['kind']} {pair['local']} to {pair['remote']}"
        case "network":
            came = [f"{one['ip']} on {one['interface']} came" for one in event["added"]]
            return f"network: {', '.join([*came, *(f'{ip} went' for ip in event['removed'])])}"
        case _:
            detail = f" ({event['detail']})" if event["detail"] else ""
            return f"signaling: {event['state']}{detail}"


def _candidate(side: str, candidate: Candidate) -> Event:
    return {
        "event": "candidate",
        "side": side,
        "type": candidate.type.value,
        "address": format_address(candidate.address),
        "base": None if candidate.base is None else format_address(candidate.base),
        "priority": candidate.priority,
        "component": candidate.component,
        "foundation": candidate.foundation,
        "server": candidate.server,
    }


def _path(path: Path | None) -> Event | None:
    if path is None:
        return None
    return {
        "kind": path.kind,
        "local": format_address(path.local),
        "remote": format_address(path.remote),
        "local_type": path.local_type,
        "remote_type": path.remote_type,
        "rtt_ms": _ms(path.rtt),
    }


def _diagnosis(diagnosis: Diagnosis | None) -> Event | None:
    if diagnosis is None:
        return None
    return {
        "cause": diagnosis.cause.value,
        "side": diagnosis.side.value,
        "sentence": diagnosis.sentence,
        "advice": diagnosis.advice,
        "also": [{"cause": cause.value, "side": side.value} for cause, side in diagnosis.also],
    }


def _reported(report: Report) -> Event:
    return {
        "pairs": [_pair(pair) for pair in report.pairs],
        "servers": [dataclasses.asdict(server) for server in report.servers],
        "notes": list(report.notes),
        "local": dataclasses.asdict(report.local),
        "remote": dataclasses.asdict(report.remote),
        "peer_heard": report.peer_heard,
        "udp_works": report.udp_works,
    }


def _pair(pair: PairReport) -> Event:
    told = dataclasses.asdict(pair)
    told["rtt_ms"] = _ms(told.pop("rtt"))
    return told


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
