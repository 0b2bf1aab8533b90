"""A recorded session as a :class:`Timeline`, from the side that recorded it.

That side knows when it sent and when it received. When its packets arrived and when those of the
peer left is half a round trip away, of the same transaction or of that path; where no round trip is
known, the picture does not know either. A request that nobody answered counts as dropped.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass

from ice_punch.datagram import Address, format_address
from ice_punch.ice import Candidate, Credentials, IceState
from ice_punch.lab.packets import Description, describe_datagram
from ice_punch.lab.timeline import Arrow, Kind, Lane, Mark, Place, Timeline
from ice_punch.recording import Recording, Replay
from ice_punch.recording import lines as told
from ice_punch.report import ServerReport

STILL_WAITING = 0.5
"""Seconds. Who asked no longer before the end may still have been answered."""
NEWS = 10.0
"""Seconds before and after something happened in which every packet is shown. In between, the
checks that keep a session alive are counted, but for those that were not answered."""
SHOWN = 4
"""Of checks in a row to one address that nobody answered; the others but the last are counted."""
STRANGERS = Lane("strangers", Place.B, "strangers")

_GOOD = {
    IceState.CONNECTED: True,
    IceState.COMPLETED: True,
    IceState.DISCONNECTED: False,
    IceState.FAILED: False,
}
_REQUESTS = (Kind.CHECK, Kind.NOMINATION)
_RESPONSES = (Kind.ANSWER, Kind.ERROR)


@dataclass(frozen=True, slots=True)
class _Packet:
    """A datagram at the side that recorded it. ``at`` is since the first input."""

    at: float
    ours: bool
    local: Address
    remote: Address
    description: Description

    @property
    def path(self) -> tuple[Address, Address]:
        return (self.local, self.remote)

    @property
    def asks(self) -> bool:
        return self.description.kind in _REQUESTS

    @property
    def answers(self) -> bool:
        return self.description.kind in _RESPONSES


def timeline_of(replay: Replay) -> Timeline:
    """Everything from the first input on. Times are seconds after it."""
    recording = replay.recording
    return _Picture(recording).timeline()


class _Picture:
    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._began = recording.began
        self._packets = list(_packets(recording))
        self._end = max((at for at, _ in _timed(recording)), default=self._began) - self._began
        self._servers = {
            line.address: line.server
            for line in recording.body
            if isinstance(line, told.QueryServer)
        }
        self._lanes = self._make_lanes()
        self._asked: defaultdict[str, list[_Packet]] = defaultdict(list)
        """Our requests by transaction."""
        self._answered: dict[str, _Packet] = {}
        """The first response to each."""
        self._round_trips: dict[tuple[Address, Address], float] = {}
        """The shortest of each path, in seconds."""
        self._measure()

    def timeline(self) -> Timeline:
        marks = self._marks()
        arrows, repeated = self._arrows()
        quiet = _quiet([mark.at for mark in marks], self._end)
        counted = [*repeated, *(mark for span in quiet for mark in _counted(span, arrows))]
        header = self._recording.header
        role = "controlling" if header.controlling else "controlled"
        when = f" on {header.started}" if header.started else ""
        return Timeline(
            title=f"the {role} side, recorded{when} by ice-punch {header.package}",
            seconds=self._end,
            lanes=tuple(self._lanes.values()),
            arrows=tuple(arrow for arrow in arrows if not _within(arrow, quiet)),
            marks=tuple(sorted([*marks, *counted], key=lambda mark: mark.at)),
        )

    # -- lanes --------------------------------------------------------------------------------

    def _make_lanes(self) -> dict[Address, Lane]:
        """By address: our bases, the servers, what the peer has."""
        lanes: dict[Address, Lane] = {}
        for base, label in self._bases().items():
            lanes[base] = Lane(f"a {format_address(base)}", Place.A, label)
        for address, server in self._servers.items():
            label = f"{server} {format_address(address)}"
            lanes.setdefault(
                address, Lane(f"server {format_address(address)}", Place.SERVER, label)
            )
        for address, label in self._remotes().items():
            lanes.setdefault(address, Lane(f"b {format_address(address)}", Place.B, label))
        if any(packet.remote not in lanes for packet in self._packets):
            lanes[("", 0)] = STRANGERS
        return lanes

    def _bases(self) -> dict[Address, str]:
        labels: dict[Address, list[str]] = {}
        interfaces: dict[Address, str] = {}
        for line in self._recording.body:
            if isinstance(line, told.LocalCandidate):
                candidate = line.candidate
                labels.setdefault(candidate.base or candidate.address, []).append(_named(candidate))
            elif isinstance(line, told.InterfaceNote):
                interfaces[line.base] = f" on {line.name}"
        return {
            base: ", ".join(dict.fromkeys(names)).replace(
                names[0], names[0] + interfaces.get(base, ""), 1
            )
            for base, names in labels.items()
        }

    def _remotes(self) -> dict[Address, str]:
        """Signalled, or learned: what is not signalled and was checked nevertheless."""
        signalled = {
            line.candidate.address: _named(line.candidate)
            for line in self._recording.body
            if isinstance(line, told.AddRemoteCandidate)
        }
        checked = dict.fromkeys(p.remote for p in self._packets if p.ours and p.asks)
        learned = {
            address: f"prflx {format_address(address)}"
            for address in checked
            if address not in signalled and address not in self._servers
        }
        used = {packet.remote for packet in self._packets}
        return {a: label for a, label in {**signalled, **learned}.items() if a in used}

    def _lane(self, address: Address) -> str:
        return self._lanes.get(address, STRANGERS).id

    # -- arrows -------------------------------------------------------------------------------

    def _measure(self) -> None:
        for packet in self._packets:
            transaction = packet.description.transaction
            if packet.ours and packet.asks:
                self._asked[transaction].append(packet)
            elif not packet.ours and packet.answers and transaction in self._asked:
                if transaction in self._answered:
                    continue
                self._answered[transaction] = packet
                asked = self._asked[transaction]
                if len(asked) == 1:
                    known = self._round_trips.get(packet.path, packet.at - asked[0].at)
                    self._round_trips[packet.path] = min(known, packet.at - asked[0].at)

    def _one_way(self, packet: _Packet) -> float | None:
        """Seconds; None where nobody knows."""
        round_trip = self._round_trips.get(packet.path)
        transaction = packet.description.transaction
        asked = self._asked.get(transaction)
        answer = self._answered.get(transaction)
        if asked and answer is not None and len(asked) == 1:
            round_trip = answer.at - asked[0].at
        return None if round_trip is None else round_trip / 2

    def _arrows(self) -> tuple[list[Arrow], list[Mark]]:
        """All but the checks of long runs without an answer, and marks in their place."""
        left_out: set[int] = set()
        marks = []
        for run in self._unanswered_runs():
            hidden = run[SHOWN:-1]
            if len(hidden) > 1:
                left_out.update(hidden)
                first, last = (self._packets[n] for n in (hidden[0], hidden[-1]))
                what = f"{len(hidden)} more checks to {format_address(first.remote)}"
                text = f"{what} until {last.at * 1000:.1f} ms, none answered"
                marks.append(Mark(first.at, Place.A, text))
        shown = [p for number, p in enumerate(self._packets) if number not in left_out]
        return [self._arrow(packet) for packet in shown], marks

    def _unanswered_runs(self) -> list[list[int]]:
        """Indices of our checks on one path with nothing from there in between."""
        runs: list[list[int]] = []
        open_runs: dict[tuple[Address, Address], list[int]] = {}
        for number, packet in enumerate(self._packets):
            if packet.ours and not packet.asks:
                continue
            if not packet.ours or packet.description.transaction in self._answered:
                open_runs.pop(packet.path, None)
            elif packet.path in open_runs:
                open_runs[packet.path].append(number)
            else:
                open_runs[packet.path] = [number]
                runs.append(open_runs[packet.path])
        return runs

    def _arrow(self, packet: _Packet) -> Arrow:
        one_way = self._one_way(packet)
        local, remote = self._lane(packet.local), self._lane(packet.remote)
        kind = Kind.QUERY if packet.remote in self._servers else packet.description.kind
        way = (format_address(packet.local), format_address(packet.remote))
        if not packet.ours:
            return Arrow(
                sent_at=max(0.0, packet.at - (one_way or 0.0)),
                ended_at=packet.at,
                source=remote,
                target=local,
                kind=kind,
                label=f"{packet.description.text}, {way[1]} > {way[0]}",
                transaction=packet.description.transaction,
            )
        fate, dropped = self._fate(packet)
        return Arrow(
            sent_at=packet.at,
            ended_at=None if dropped or one_way is None else packet.at + one_way,
            source=local,
            target=remote,
            kind=kind,
            label=f"{packet.description.text}, {way[0]} > {way[1]}{fate}",
            dropped=dropped,
            transaction=packet.description.transaction,
        )

    def _fate(self, packet: _Packet) -> tuple[str, str]:
        """What became of a packet of ours: in words, and why it counts as dropped."""
        if not packet.asks:
            return "", ""
        asked = self._asked[packet.description.transaction]
        answer = self._answered.get(packet.description.transaction)
        if answer is None:
            waiting = self._end - packet.at < STILL_WAITING
            return (", not answered before the end", "") if waiting else ("", "no answer")
        before = [other for other in asked if other.at <= answer.at]
        if before and packet is not before[-1]:
            return "", "no answer in time"
        return f", answered after {(answer.at - packet.at) * 1000:.1f} ms", ""

    # -- marks --------------------------------------------------------------------------------

    def _marks(self) -> list[Mark]:
        marks = []
        signalled: set[Address] = set()
        selected: set[int] = set()
        peer: Credentials | None = None
        for at, line in _timed(self._recording):
            since = at - self._began
            match line:
                case told.AddRemoteCandidate():
                    # RFC 8840 section 4.4: every fragment repeats those before it
                    if line.candidate.address in signalled:
                        continue
                    signalled.add(line.candidate.address)
                case told.Restart():
                    signalled.clear()
                case told.SetRemoteParameters():
                    if peer not in (None, line.credentials):
                        marks.append(Mark(since, Place.B, "has new credentials"))
                    peer = line.credentials
                case told.Selected():
                    again = line.remote.component in selected
                    selected.add(line.remote.component)
                    marks.append(_selected_mark(since, line, again=again))
            mark = _mark(since, line)
            if mark is not None:
                marks.append(mark)
        return marks


def _quiet(news: list[float], end: float) -> list[tuple[float, float]]:
    """The stretches far from anything new."""
    times = sorted([0.0, *news, end])
    spans = [(a + NEWS, b - NEWS) for a, b in itertools.pairwise(times)]
    return [(begin, over) for begin, over in spans if over - begin > NEWS]


def _within(arrow: Arrow, quiet: list[tuple[float, float]]) -> bool:
    return not arrow.dropped and any(begin <= arrow.sent_at < end for begin, end in quiet)


def _counted(span: tuple[float, float], arrows: list[Arrow]) -> list[Mark]:
    begin, end = span
    asked = sum(arrow.kind in _REQUESTS and _within(arrow, [span]) for arrow in arrows)
    packets = sum(_within(arrow, [span]) for arrow in arrows)
    if not packets:
        return []
    text = f"{end - begin:.0f} s with {asked} checks and {packets - asked} other packets"
    return [Mark(begin, Place.A, text)]


def _timed(recording: Recording) -> list[tuple[float, told.AnyLine]]:
    """Every line with the time of the last that has one."""
    timed = []
    now = recording.began
    for line in recording.body:
        if isinstance(line, told.Input | told.Sent):
            now = line.at
        timed.append((now, line))
    return timed


def _packets(recording: Recording) -> list[_Packet]:
    packets = []
    for at, line in _timed(recording):
        since = at - recording.began
        match line:
            case told.Sent():
                description = describe_datagram(bytes.fromhex(line.data))
                packets.append(_Packet(since, True, line.local, line.destination, description))
            case told.ReceiveDatagram():
                description = describe_datagram(bytes.fromhex(line.data))
                packets.append(_Packet(since, False, line.local, line.source, description))
            case told.ReceiveData():
                description = Description(Kind.DATA, f"data, {line.size} bytes")
                packets.append(_Packet(since, False, line.local, line.source, description))
            case told.ReceiveIcmpError():
                description = Description(Kind.ICMP, "ICMP error")
                packets.append(_Packet(since, False, line.local, line.destination, description))
    return packets


def _mark(at: float, line: told.AnyLine) -> Mark | None:
    match line:
        case told.State():
            return Mark(at, Place.A, f"{line.state}: {line.reason}", _GOOD.get(line.state))
        case told.Advised():
            fresh = ", on fresh sockets" if line.fresh_sockets else ""
            return Mark(at, Place.A, f"an ICE restart is advised{fresh}: {line.reason}", False)
        case told.Restart():
            fresh = " and fresh sockets" if line.fresh_sockets else ""
            return Mark(at, Place.A, f"ICE restart: new credentials{fresh}")
        case told.RemoveLocalCandidate():
            text = f"{format_address(line.address)} is gone with its interface"
            return Mark(at, Place.A, text, False)
        case told.LocalCandidate():
            server = f" from {line.candidate.server}" if line.candidate.server else ""
            return Mark(at, Place.A, f"candidate {_named(line.candidate)}{server}")
        case told.AddRemoteCandidate():
            return Mark(at, Place.B, f"candidate {_named(line.candidate)}")
        case told.EndOfRemoteCandidates():
            return Mark(at, Place.B, "has no more candidates")
        case told.QueryEnded() | told.ServerNote():
            return _server_mark(at, line.report)
        case told.FailureNote():
            return Mark(at, Place.A, f"{line.error}: {line.message}", False)
        case told.Raised():
            return Mark(at, Place.A, f"raised {line.error}: {line.message}", False)
    return None


def _selected_mark(at: float, line: told.Selected, *, again: bool) -> Mark:
    """``again``: instead of another pair, by a restart, by renomination, or where the peer is seen
    at another port; the reason says which."""
    report = line.report
    way = f"{report.local_type} {report.local} > {report.remote_type} {report.remote}"
    text = f"selected {way} instead: {line.reason}" if again else f"selected {way}"
    return Mark(at, Place.A, text, True)


def _server_mark(at: float, report: ServerReport) -> Mark:
    detail = f" ({report.detail})" if report.detail else ""
    return Mark(at, Place.SERVER, f"{report.uri}: {report.outcome}{detail}", report.outcome == "ok")


def _named(candidate: Candidate) -> str:
    return f"{candidate.type.value} {format_address(candidate.address)}"
