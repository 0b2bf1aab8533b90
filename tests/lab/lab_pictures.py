"""Matrices and timelines of realistic shape, told by hand, with no agent behind them."""

from __future__ import annotations

from dataclasses import dataclass, field

from ice_punch.lab.behaviour import NINE, Filtering, Mapping, NatBehaviour
from ice_punch.lab.matrix import Cell, Matrix
from ice_punch.lab.outcome import Outcome, SideOutcome
from ice_punch.lab.scenario import Scenario, Verdict, peer
from ice_punch.lab.timeline import Arrow, Kind, Lane, Mark, Place, Timeline

HOSTILE = "<!--<script></script ><img src=x onerror=\"document.title='owned'\"></script>"
LANES = (
    Lane("a-host", Place.A, "host 10.1.0.2:50000, srflx 198.51.100.1:50000"),
    Lane("a-wifi", Place.A, "host 192.168.7.23:50000"),
    Lane("stun", Place.SERVER, "stun 203.0.113.10:3478"),
    Lane("turn", Place.SERVER, "turn 203.0.113.20:3478"),
    Lane("relay-a", Place.SERVER, "relay of a 203.0.113.20:49160"),
    Lane("relay-b", Place.SERVER, "relay of b 203.0.113.20:49161"),
    Lane("b-host", Place.B, "host 10.2.0.2:50000, srflx 198.51.100.2:50000"),
)
ADDRESSES = {lane.id: lane.label.partition(",")[0].rpartition(" ")[2] for lane in LANES} | {
    "a-outside": "198.51.100.1:50000",
    "b-outside": "198.51.100.2:50000",
}
DIRECT = (("a-host", "b-host"),)
RELAYED = (("a-host", "turn"), ("relay-a", "b-host"))


def reaches(sender: NatBehaviour, receiver: NatBehaviour) -> bool:
    """Whether a check to the receiver's server-reflexive address comes in, once both have sent."""
    if receiver.filtering is Filtering.ENDPOINT_INDEPENDENT:
        return True
    if receiver.mapping is not Mapping.ENDPOINT_INDEPENDENT:
        return False
    return (
        receiver.filtering is Filtering.ADDRESS_DEPENDENT
        or sender.mapping is Mapping.ENDPOINT_INDEPENDENT
    )


@dataclass
class Story:
    """Arrows and marks as they come to the teller's mind."""

    rtt: float
    arrows: list[Arrow] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    transactions: int = 0

    @property
    def one_way(self) -> float:
        return self.rtt / 2

    def transaction(self) -> str:
        self.transactions += 1
        return f"{0xC0FFEE0000000000 + self.transactions * 0x9E3779B97F4A7C15 % 2**61:024x}"

    def arrive(
        self, at: float, source: str, target: str, kind: Kind, transaction: str, what: str = ""
    ) -> float:
        """A packet that arrives; returns when."""
        away = self.one_way / (1 if {source[0], target[0]} == {"a", "b"} else 2)
        label = f"{what or kind}, {ADDRESSES[source]} > {ADDRESSES[target]}"
        self.arrows.append(
            Arrow(at, at + away, source, target, kind, label, transaction=transaction)
        )
        return at + away

    def drop(
        self, at: float, source: str, to: str, why: str, by: str, transaction: str, late: float
    ) -> None:
        """A check that is dropped after a share ``late`` of its way."""
        label = f"check, {ADDRESSES[source]} > {ADDRESSES[to]}"
        target = f"{to[0]}-host" if to.endswith("outside") else to
        end = at + self.one_way * late
        self.arrows.append(
            Arrow(at, end, source, target, Kind.CHECK, label, why, by, transaction=transaction)
        )

    def exchange(
        self, at: float, hops: tuple[tuple[str, str], ...], kind: Kind, what: str = ""
    ) -> float:
        """A request and its answer, hop by hop; returns when the answer is there."""
        transaction = self.transaction()
        answer = Kind.ANSWER if kind in (Kind.CHECK, Kind.NOMINATION) else kind
        for source, target in hops:
            at = self.arrive(at, source, target, kind, transaction, what)
        for source, target in reversed(hops):
            at = self.arrive(at, target, source, answer, transaction, what and f"{what} success")
        return at

    def timeline(self, title: str) -> Timeline:
        arrows = tuple(sorted(self.arrows, key=lambda arrow: arrow.sent_at))
        marks = tuple(sorted(self.marks, key=lambda mark: mark.at))
        last = max(arrow.ended_at or arrow.sent_at for arrow in arrows)
        return Timeline(title, max(last, marks[-1].at) + 0.01, LANES, arrows, marks)


def session(
    row: NatBehaviour, column: NatBehaviour, rtt: float = 0.1, skew: float = 0.03
) -> tuple[Timeline, Verdict, float | None]:
    """One session: its picture, what came of it, and the connect time."""
    story = Story(rtt)
    starts = {"a": 0.0, "b": skew}
    direct = reaches(row, column) or reaches(column, row)
    hopeless = not direct and row == column == NINE[-1]
    for side, other, nat in (("a", "b", row), ("b", "a", column)):
        _gather(story, side, starts[side])
        _punch(story, side, other, starts[side], nat, attempts=6 if hopeless else 3)
    if hopeless:
        story.marks.append(Mark(39.5, Place.A, "failed: no candidate pair works", False))
        story.marks.append(Mark(39.53, Place.B, "failed: no candidate pair works", False))
        return story.timeline(f"{row.short} to {column.short}"), Verdict.FAILED, None
    way = DIRECT if direct else RELAYED
    back = tuple((target, source) for source, target in reversed(way))
    begins = skew + story.one_way + (0.0 if direct else rtt * 0.75)
    valid_a = story.exchange(begins, way, Kind.CHECK)
    valid_b = story.exchange(begins + 0.005, back, Kind.CHECK)
    story.marks += [
        Mark(valid_a, Place.A, "connected: first valid pair", True),
        Mark(valid_b, Place.B, "connected: first valid pair", True),
    ]
    nominated = story.exchange(valid_a + 0.15, way, Kind.NOMINATION)
    story.marks.append(Mark(nominated, Place.A, "completed: pair nominated", True))
    for number in range(3):
        story.arrive(valid_b + 0.01 + number * 0.02, *way[0], Kind.DATA, "", "data, 120 bytes")
    for number in range(2):
        story.exchange(5.0 + number * 5.2, way, Kind.CHECK)
    verdict = Verdict.DIRECT if direct else Verdict.RELAYED
    return story.timeline(f"{row.short} to {column.short}"), verdict, max(valid_a, valid_b)


def _gather(story: Story, side: str, at: float) -> None:
    stun, turn = ((f"{side}-host", "stun"),), ((f"{side}-host", "turn"),)
    story.exchange(at, stun, Kind.QUERY, "Binding")
    answered = story.exchange(at + 0.02, turn, Kind.TURN, "Allocate")
    story.exchange(answered, turn, Kind.TURN, "Allocate")
    story.exchange(answered + 0.06, turn, Kind.TURN, "CreatePermission")
    story.marks.append(Mark(at, Place(side), "checking: the peer's parameters are known"))


def _punch(
    story: Story, side: str, other: str, at: float, nat: NatBehaviour, attempts: int
) -> None:
    """Checks that come to nothing: to a private address, and to a NAT that is still closed."""
    private, closed, relay = (story.transaction() for _ in range(3))
    base, own_nat, other_nat = f"{side}-host", f"nat-{side}", f"nat-{other}"
    resends = [0.0, *(0.5 * 2**number - 0.1 for number in range(attempts - 1))]
    for number, later in enumerate(resends):
        now = at + 0.01 + later
        story.drop(now, base, f"{other}-host", "no route", own_nat, private, 0.02)
        late, why, where = (
            (0.98, "filtered", other_nat) if number < 2 else (0.4, "lost", "internet")
        )
        story.drop(now + 0.02, base, f"{other}-outside", why, where, closed, late)
        if nat.mapping is not Mapping.ENDPOINT_INDEPENDENT:
            story.drop(now + 0.04, base, f"relay-{other}", "no permission", "turn", relay, 0.6)


def matrix(behaviours: tuple[NatBehaviour, ...] = NINE, seeds: int = 20) -> Matrix:
    """Every pairing; the last with itself fails, and one pairing is direct in most seeds only."""
    return Matrix(
        behaviours,
        tuple(_cell(row, column, seeds) for row in behaviours for column in behaviours),
        (("round trip", "100 ms"), ("skew", "30 ms"), ("link", "perfect"), ("seeds", str(seeds))),
    )


def _cell(row: NatBehaviour, column: NatBehaviour, seeds: int) -> Cell:
    timeline, verdict, connect_time = session(row, column)
    scenario = Scenario(a=peer(row), b=peer(column), rtt=0.1, skew=0.03)
    outcomes = []
    for seed in range(seeds):
        later = None if connect_time is None else connect_time + seed * 7919 % 13 / 1000
        unlucky = (row, column) == (NINE[2], NINE[1]) and seed in (3, 11)
        side = SideOutcome(0.0, later, packets_sent=len(timeline.arrows) // 2)
        outcomes.append(
            Outcome(scenario, seed, Verdict.RELAYED if unlucky else verdict, side, side)
        )
    return Cell(row, column, tuple(outcomes), timeline)


def hostile_timeline() -> Timeline:
    """Every text in it is an attack."""
    lanes = (
        Lane("one", Place.A, HOSTILE),
        Lane("two", Place.B, HOSTILE + "\x1b[31m\u2028"),
    )
    arrows = (
        Arrow(0.0, 0.05, "one", "two", Kind.CHECK, HOSTILE, transaction=HOSTILE),
        Arrow(0.01, 0.06, "two", "one", Kind.CHECK, HOSTILE, HOSTILE, HOSTILE, HOSTILE),
    )
    return Timeline(HOSTILE, 0.1, lanes, arrows, (Mark(0.06, Place.B, HOSTILE, True),))
