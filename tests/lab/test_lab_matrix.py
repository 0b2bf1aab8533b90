"""The 9 x 9 matrix: three mappings x three filterings on each side, 20 seeds, in virtual time.

What each cell has to come to is worked out by ``nat_oracle``, which knows nothing of the
laboratory, and held against the page of the documentation as well.
"""

from __future__ import annotations

import itertools

import nat_oracle
import pytest

from ice_punch.lab import matrix_run
from ice_punch.lab.behaviour import NINE, Mapping, NatBehaviour
from ice_punch.lab.drawing import matrix_markdown
from ice_punch.lab.expectation import budget, expected
from ice_punch.lab.links import preset
from ice_punch.lab.matrix import Cell, Matrix
from ice_punch.lab.matrix_run import MatrixOptions, MatrixTooLarge, run_matrix
from ice_punch.lab.scenario import PeerSetup, Relays, Scenario, Verdict
from ice_punch.lab.virtual.session import run
from support.netns import ROOT

R = 0.1
SLOTS = 0.045
PAGE = ROOT / "docs" / "reference" / "nat-matrix.md"

_KINDS: dict[str, str] = {
    "endpoint-independent": "independent",
    "address-dependent": "address",
    "address-and-port-dependent": "port",
}


def on_paper(nat: NatBehaviour) -> nat_oracle.Nat:
    return (_KINDS[nat.mapping], _KINDS[nat.filtering])


def pairings() -> list[tuple[NatBehaviour, NatBehaviour]]:
    return list(itertools.product(NINE, NINE))


@pytest.fixture(scope="module")
def matrix() -> Matrix:
    """What ``ice-punch lab matrix`` runs without any switch."""
    return run_matrix(MatrixOptions())


def test_every_cell_that_can_be_direct_is_direct_and_the_others_are_relayed(
    matrix: Matrix,
) -> None:
    assert len(matrix.cells) == 81
    for cell in matrix.cells:
        direct = nat_oracle.can_be_direct(on_paper(cell.row), on_paper(cell.column))
        wanted = Verdict.DIRECT if direct else Verdict.RELAYED
        assert len(cell.outcomes) == 20
        assert {o.verdict for o in cell.outcomes} == {wanted}, (cell.row.short, cell.column.short)


def test_direct_cells_are_valid_on_both_sides_within_the_budget(matrix: Matrix) -> None:
    """max(r, s + 1.5 r) + 45 ms; where one NAT maps by address and the other by port no agent can
    be faster than 2 r, which the oracle knows as well."""
    for cell in direct_cells(matrix):
        least = max(nat_oracle.valid_times(on_paper(cell.row), on_paper(cell.column), R, 0.0))
        slower_by_nature = least > 1.5 * R + 1e-9
        limit = max(least, R, 1.5 * R) + SLOTS
        assert slower_by_nature == (by_address_and_by_port(cell.row, cell.column))
        for outcome in cell.outcomes:
            assert outcome.settled_time is not None
            assert outcome.settled_time <= limit, (cell.row.short, cell.column.short)


def test_relayed_cells_take_at_most_one_more_round_trip_to_the_relay(matrix: Matrix) -> None:
    relayed = [cell for cell in matrix.cells if cell.verdict is Verdict.RELAYED]
    assert len(relayed) == 36
    for cell in relayed:
        for outcome in cell.outcomes:
            assert outcome.connect_time is not None
            assert outcome.connect_time <= max(R, 1.5 * R) + R / 2 + SLOTS


def test_both_sides_end_on_one_pair_and_never_on_two_relays(matrix: Matrix) -> None:
    for cell in matrix.cells:
        for outcome in cell.outcomes:
            assert outcome.same_pair, (cell.row.short, cell.column.short, outcome.seed)
            hops = outcome.a.pair.count("relay"), outcome.b.pair.count("relay")
            assert max(hops) <= 1, outcome.a.pair


@pytest.mark.parametrize("r", [0.1, 0.3])
@pytest.mark.parametrize("s", [0.05, 0.15, 0.6, -0.15, -0.6])
def test_the_budget_holds_for_whoever_is_late_by_whatever(r: float, s: float) -> None:
    for a, b in pairings():
        if not nat_oracle.can_be_direct(on_paper(a), on_paper(b)):
            continue
        outcome = run(Scenario(a=of(a), b=of(b), rtt=r, skew=s, relays=Relays.UDP))
        assert outcome.verdict is Verdict.DIRECT, (a.short, b.short)
        assert outcome.settled_time is not None
        limit = abs(s) + 1.5 * r + SLOTS
        if Mapping.ENDPOINT_INDEPENDENT not in {a.mapping, b.mapping}:
            limit += 0.02  # both knock, and a triggered check may just have missed its slot
        if by_address_and_by_port(a, b):
            limit += 0.5 * r
        assert outcome.settled_time <= limit, (a.short, b.short, outcome.settled_time)


@pytest.mark.parametrize("s", [0.15, 0.6, -0.15])
def test_a_late_start_leaves_nobody_without_a_relay(s: float) -> None:
    """Where the sides start apart, a few slots more: who knocks and who relays share the pacing."""
    for a, b in pairings():
        if nat_oracle.can_be_direct(on_paper(a), on_paper(b)):
            continue
        outcome = run(Scenario(a=of(a), b=of(b), rtt=R, skew=s, relays=Relays.UDP))
        assert outcome.verdict is Verdict.RELAYED, (a.short, b.short)
        assert outcome.connect_time is not None
        assert outcome.connect_time <= abs(s) + 2 * R + SLOTS + 0.06, (a.short, b.short)


def test_the_laboratory_expects_what_the_oracle_finds() -> None:
    for a, b in pairings():
        direct = nat_oracle.can_be_direct(on_paper(a), on_paper(b))
        assert (expected(a, b) is Verdict.DIRECT) == direct
        for s in (0.0, 0.03, 0.15, 0.6):
            least = max(nat_oracle.valid_times(on_paper(a), on_paper(b), R, s))
            if direct:
                assert least <= budget(a, b, R, s) - SLOTS + 1e-9
                assert budget(a, b, R, s) == budget(b, a, R, -s)
                assert budget(a, b, R, s) <= max(least, s + 1.5 * R) + SLOTS + 1e-9


def test_every_cell_has_the_timeline_of_its_slowest_seed(matrix: Matrix) -> None:
    for cell in matrix.cells:
        assert cell.timeline is not None
        assert cell.timeline.arrows
        slowest = max(o.settled_time or 0.0 for o in cell.outcomes)
        marks = [m.at for m in cell.timeline.marks if m.text.startswith("connected")]
        assert max(marks) <= slowest + 1e-9


def test_the_documentation_has_this_very_table(matrix: Matrix) -> None:
    page = PAGE.read_text("utf-8")
    table = page.partition("<!-- matrix: begin -->\n")[2].partition("<!-- matrix: end -->")[0]
    assert table.strip() == matrix_markdown(matrix).strip(), "make matrix writes it anew"


def test_without_a_relay_the_other_cells_fail() -> None:
    nats = (NatBehaviour(), NINE[8])
    options = MatrixOptions(Scenario(rtt=R), behaviours=nats, seeds=2, timelines=False)
    done = run_matrix(options)
    assert [str(cell.verdict) for cell in done.cells] == ["direct", "failed", "failed", "failed"]
    assert [cell.expected for cell in done.cells] == [cell.verdict for cell in done.cells]
    assert done.cells[1].median is None
    assert all(cell.timeline is None for cell in done.cells)


def test_a_lossy_link_has_no_budget_and_is_told_of() -> None:
    template = Scenario(a=PeerSetup(link=preset("wifi_lossy")), rtt=0.0, relays=Relays.UDP)
    done = run_matrix(MatrixOptions(template, behaviours=NINE[2:3], seeds=3))
    assert done.cells[0].budget is None
    assert ("link of a", "wifi_lossy") in done.conditions
    assert ("round trip", "10 ms") in done.conditions


def test_the_same_options_give_the_same_matrix_however_many_processes_work() -> None:
    def table(jobs: int) -> str:
        options = MatrixOptions(behaviours=NINE[1:4], first_seed=7, seeds=6, jobs=jobs)
        return matrix_markdown(run_matrix(options))

    assert table(1) == table(3)


def test_a_matrix_that_would_take_too_long_ends_at_once_and_says_so() -> None:
    with pytest.raises(MatrixTooLarge, match=r"^810000 sessions would take about \d+ s, more than"):
        run_matrix(MatrixOptions(seeds=10000, time_limit=1.0))


def test_the_start_of_the_processes_is_not_taken_for_the_pace_of_the_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = iter((0.0, 3.0, 3.1, 4.1, 44.1))
    monkeypatch.setattr(matrix_run.time, "monotonic", lambda: next(times))
    clock = matrix_run._Clock(MatrixOptions(seeds=1000, time_limit=3600.0), None)
    clock.tick(5)  # after 3 s: at that pace all would take 48600 s
    clock.tick(5)
    clock.tick(50)
    with pytest.raises(MatrixTooLarge, match=r"^81000 sessions would take about 35044 s, more"):
        clock.tick(40)


def direct_cells(matrix: Matrix) -> list[Cell]:
    return [cell for cell in matrix.cells if cell.verdict is Verdict.DIRECT]


def of(nat: NatBehaviour) -> PeerSetup:
    return PeerSetup((nat,))


def by_address_and_by_port(a: NatBehaviour, b: NatBehaviour) -> bool:
    mappings = {a.mapping, b.mapping}
    varies = Mapping.ENDPOINT_INDEPENDENT not in mappings
    return varies and Mapping.ADDRESS_DEPENDENT in mappings and len(mappings) == 2
