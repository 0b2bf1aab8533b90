"""A session of the virtual internet as a :class:`Timeline`: what its trace and its peers tell."""

from __future__ import annotations

from dataclasses import dataclass

from ice_punch.datagram import Address, format_address
from ice_punch.ice import (
    CandidatePair,
    CandidateType,
    IceState,
    LocalCandidateFound,
    RestartAdvised,
    SelectedPairChanged,
    StateChanged,
)
from ice_punch.lab.outcome import ends_of
from ice_punch.lab.packets import describe
from ice_punch.lab.scenario import Event, Side
from ice_punch.lab.timeline import Arrow, Kind, Lane, Mark, Place, Timeline
from ice_punch.lab.trace import PacketRecord, Protocol
from ice_punch.lab.virtual.peer import ICE_PORT
from ice_punch.lab.virtual.session import VirtualSession

_GOOD = {
    IceState.CONNECTED: True,
    IceState.COMPLETED: True,
    IceState.DISCONNECTED: False,
    IceState.FAILED: False,
}


@dataclass(slots=True)
class _Lanes:
    """The lanes by what is known of them: whose socket, and who is meant by an address."""

    made: dict[tuple[str, Address], Lane]
    meant: dict[Address, str]
    """Lane ids by the addresses that stand for them elsewhere."""

    def add(self, host: str, address: Address, place: Place, label: str) -> Lane:
        lane = self.made.get((host, address))
        if lane is None:
            lane = Lane(f"{host} {format_address(address)}", place, label)
            self.made[host, address] = lane
            self.meant.setdefault(address, lane.id)
        return lane

    def at(self, host: str, address: Address) -> str:
        lane = self.made.get((host, address))
        return "" if lane is None else lane.id


def timeline(session: VirtualSession) -> Timeline:
    """Everything from the start on. Times are seconds after it."""
    packets = session.internet.trace.packets[session.first_packet :]
    lanes = _lanes(session, packets)
    arrows = tuple(_arrow(packet, lanes, session) for packet in packets)
    scenario = session.scenario
    return Timeline(
        title=scenario.name or f"{_nats(session, 'a')} meets {_nats(session, 'b')}",
        seconds=session.internet.now - session.started_at,
        lanes=_in_order(lanes),
        arrows=arrows,
        marks=tuple(sorted(_marks(session), key=lambda mark: mark.at)),
    )


def _nats(session: VirtualSession, side: Side) -> str:
    nats = session.scenario.setup(side).nats
    return " behind ".join(nat.short for nat in nats) or "no NAT"


def _lanes(session: VirtualSession, packets: list[PacketRecord]) -> _Lanes:
    lanes = _Lanes({}, {})
    sides: tuple[Side, ...] = ("a", "b")
    for side in sides:
        place = Place(side)
        for ip in session.peers[side].host.addresses:
            base = (ip, ICE_PORT)
            lanes.add(side, base, place, _base_label(session, side, base))
    for side in sides:
        for _, event in session.peers[side].events:
            if isinstance(event, LocalCandidateFound):
                _add_candidate(lanes, side, event)
    for packet in packets:
        ends = [(packet.sender, packet.source)]
        if packet.receiver is not None:
            ends.append((packet.receiver, packet.wire_destination))
        for host, address in ends:
            if packet.protocol is Protocol.ICMP:
                continue
            if host in sides:
                label = f"to the relay {format_address(address)}"
                lanes.add(host, address, Place(host), label)
            elif host in ("stun", "turn"):
                lanes.add(host, address, Place.SERVER, f"{host} {format_address(address)}")
    return lanes


def _base_label(session: VirtualSession, side: Side, base: Address) -> str:
    seen = [
        f"{event.candidate.type.value} {format_address(event.candidate.address)}"
        for _, event in session.peers[side].events
        if isinstance(event, LocalCandidateFound)
        and event.candidate.type in (CandidateType.SRFLX, CandidateType.PRFLX)
        and event.candidate.base == base
    ]
    return ", ".join([f"host {format_address(base)}", *seen])


def _add_candidate(lanes: _Lanes, side: Side, event: LocalCandidateFound) -> None:
    candidate = event.candidate
    if candidate.type is CandidateType.RELAY:
        label = f"relay of {side} {format_address(candidate.address)}"
        lanes.add("turn", candidate.address, Place.SERVER, label)
    elif candidate.base is not None:
        lanes.meant.setdefault(candidate.address, lanes.at(side, candidate.base))


def _in_order(lanes: _Lanes) -> tuple[Lane, ...]:
    made = list(lanes.made.values())
    return tuple(
        lane for place in (Place.A, Place.SERVER, Place.B) for lane in made if lane.place is place
    )


def _arrow(packet: PacketRecord, lanes: _Lanes, session: VirtualSession) -> Arrow:
    told = describe(packet)
    source = lanes.at(packet.sender, packet.source)
    if packet.receiver is not None:
        target = lanes.at(packet.receiver, packet.wire_destination)
    else:
        target = lanes.meant.get(packet.destination, "")
    if packet.protocol is Protocol.ICMP and packet.error is not None and packet.receiver:
        target = lanes.at(packet.receiver, packet.error.source)
    kind = told.kind
    if kind in (Kind.CHECK, Kind.ANSWER, Kind.ERROR) and "stun" in (packet.sender, packet.receiver):
        kind = Kind.QUERY
    sent = packet.sent_at - session.started_at
    ended = None if packet.ended_at is None else packet.ended_at - session.started_at
    way = f"{format_address(packet.source)} > {format_address(packet.destination)}"
    return Arrow(
        sent_at=sent,
        ended_at=ended,
        source=source,
        target=target,
        kind=kind,
        label=f"{told.text}, {way}",
        dropped="" if packet.dropped is None else str(packet.dropped),
        dropped_by=packet.dropped_by or "",
        transaction=told.transaction,
    )


def _selected(pair: CandidatePair) -> str:
    ours, theirs = ends_of(pair)
    return f"selected {ours} > {theirs} ({(pair.mapped or pair.local).type} to {pair.remote.type})"


def _marks(session: VirtualSession) -> list[Mark]:
    marks = []
    sides: tuple[Side, ...] = ("a", "b")
    for side in sides:
        selected: set[int] = set()
        for at, event in session.peers[side].events:
            since = at - session.started_at
            if since < 0:
                continue
            if isinstance(event, StateChanged):
                text = f"{event.state}: {event.reason}"
                marks.append(Mark(since, Place(side), text, _GOOD.get(event.state)))
            elif isinstance(event, SelectedPairChanged):
                text = _selected(event.pair)
                if event.pair.component in selected:
                    text += f" instead: {event.reason}"
                selected.add(event.pair.component)
                marks.append(Mark(since, Place(side), text, True))
            elif isinstance(event, RestartAdvised):
                text = f"an ICE restart is advised: {event.reason}"
                marks.append(Mark(since, Place(side), text, False))
    for happening in session.scenario.happenings:
        good = happening.event in (Event.LINK_UP, Event.SECOND_LINK_UP, Event.INTERFACE_FOUND)
        dies = happening.event is Event.TURN_SERVER_DIES
        place = Place.SERVER if dies else Place(happening.side)
        marks.append(Mark(happening.at, place, str(happening.event), good))
    return marks
