"""Sessions that something happens to while data flows, and what is to be said of all of them."""

from __future__ import annotations

import itertools
from typing import Any

from ice_punch.ice import IceState, RestartAdvised, SelectedPairChanged, StateChanged
from ice_punch.lab.scenario import Event, Happening, Scenario, Side
from ice_punch.lab.virtual.peer import DATA_MARK
from ice_punch.lab.virtual.session import VirtualSession

HAPPENS = 5.0
RATE = 50.0
SIDES: tuple[Side, Side] = ("a", "b")


def roam(*events: Event | tuple[float, Event, Side], side: Side = "a", **more: Any) -> Roaming:
    """A session of RTT 40 ms in which ``events`` happen at 5 s, and data flows both ways."""
    happenings = tuple(
        Happening(HAPPENS, event, side) if isinstance(event, Event) else Happening(*event)
        for event in events
    )
    scenario = Scenario(
        happenings=happenings,
        datagrams_per_second=RATE,
        **{"rtt": 0.04, "seconds": 20.0, **more},
    )
    return Roaming(scenario)


class Roaming:
    """The session, run."""

    def __init__(
        self, scenario: Scenario, seed: int = 0, session: VirtualSession | None = None
    ) -> None:
        self.session = session or VirtualSession(scenario, seed)
        self.outcome = self.session.run()

    @classmethod
    def of(cls, session: VirtualSession) -> Roaming:
        return cls(session.scenario, session=session)

    def gap(self, side: Side, after: float = 2.0) -> float:
        """The longest time without a datagram at ``side``, seconds."""
        begin = self.session.started_at + after
        times = [at for at in self.session.peers[side].arrivals if at >= begin]
        return max((later - at for at, later in itertools.pairwise(times)), default=float("inf"))

    def told(self, side: Side, kind: type, after: float = HAPPENS) -> list[tuple[float, Any]]:
        """Events of one kind, with their times since the first happening."""
        begin = self.session.started_at + after
        return [
            (at - begin, event)
            for at, event in self.session.peers[side].events
            if isinstance(event, kind) and at >= begin
        ]

    def selected(self, side: Side, after: float = HAPPENS) -> list[tuple[float, Any]]:
        return self.told(side, SelectedPairChanged, after)

    def states(self, side: Side, after: float = HAPPENS) -> list[IceState]:
        return [event.state for _, event in self.told(side, StateChanged, after)]

    def advice(self, side: Side, after: float = HAPPENS) -> list[tuple[float, Any]]:
        return self.told(side, RestartAdvised, after)

    def counter(self, side: Side, name: str) -> int:
        counters = getattr(self.session.peers[side].machine, "counters", {})
        return int(counters.get(name, 0))

    def settled(self) -> bool:
        """Whether both ended on one pair, and alive."""
        return self.outcome.same_pair and all(
            peer.state is IceState.COMPLETED for peer in self.session.peers.values()
        )

    def unaccounted(self) -> int:
        """Application datagrams that were sent, did not come, and are counted nowhere: neither
        dropped on the way nor refused by the agent they came to."""
        missing = 0
        for side, other in (SIDES, SIDES[::-1]):
            fates: dict[bytes, list[Any]] = {}
            for packet in self.session.internet.trace.packets[self.session.first_packet :]:
                at = packet.data.find(DATA_MARK)
                if at >= 0 and packet.sender in (side, "turn"):
                    fates.setdefault(packet.data[at : at + len(DATA_MARK) + 4], []).append(packet)
            lost = [
                number
                for number in range(self.session.peers[side].sent)
                if number not in self.session.peers[other].received
            ]
            unseen = [
                number
                for number in lost
                if not any(
                    packet.dropped
                    for packet in fates.get(DATA_MARK + number.to_bytes(4, "big"), [])
                )
            ]
            missing += max(0, len(unseen) - self.counter(other, "data_from_strangers"))
        return missing
