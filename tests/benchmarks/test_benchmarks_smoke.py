"""The benchmarks run and compare like with like; how fast anything is, no test says."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest

from ice_punch.lab.behaviour import NINE, NatKind
from ice_punch.lab.kernel import KernelInternet
from ice_punch.lab.matrix import Cell
from ice_punch.lab.outcome import Outcome, SideOutcome
from ice_punch.lab.scenario import Relays, Scenario, Verdict
from ice_punch.stun import XOR_MAPPED_ADDRESS, parse_message
from support.netns import needs_netns

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import behaviour  # noqa: E402
import connect_time  # noqa: E402
import gathering  # noqa: E402
import harness  # noqa: E402
import nat_matrix  # noqa: E402
import relay_choice  # noqa: E402
import session  # noqa: E402
import stun_codec  # noqa: E402

SCRIPTS = ("behaviour", "connect_time", "gathering", "nat_matrix", "relay_choice", "stun_codec")
DATAGRAM_SCRIPTS = ("datagrams", "idle_channels", "flame_graph")
PAGE = ROOT / "docs" / "why-not-aioice.md"


@pytest.mark.parametrize("name", [*SCRIPTS, *DATAGRAM_SCRIPTS])
def test_a_script_says_what_it_measures(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = importlib.import_module(name)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit):
        script.main()
    assert " ".join((script.__doc__ or "").split()) in " ".join(capsys.readouterr().out.split())
    assert f"`{name}.py`" in (BENCHMARKS / "README.md").read_text()


def test_where_namespaces_can_not_be_made_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "available", lambda: "network namespaces need root")
    monkeypatch.setattr(sys, "argv", ["benchmarks/connect_time.py"])
    for script in (behaviour, connect_time, gathering, nat_matrix, relay_choice):
        with pytest.raises(SystemExit, match=r"^connect_time\.py: network namespaces need root$"):
            script.main()


def test_every_table_says_where_it_was_measured() -> None:
    lines = [line.split()[0] for line in harness.where().splitlines()]
    assert lines == ["machine", "kernel", "python", "date"]


def test_columns_line_up() -> None:
    assert harness.table(["a", "b"], [["long", "1"], ["s", "22"]]) == (
        "a      b\n----  --\nlong   1\ns     22"
    )


def test_cases_take_turns() -> None:
    turns: list[str] = []
    assert harness.interleaved(["x", "y"], 2, lambda case: turns.append(case)) == {
        "x": [None, None],
        "y": [None, None],
    }
    assert turns == ["x", "y", "x", "y"]


def test_both_codecs_do_the_same_work() -> None:
    assert stun_codec.build_ours() == stun_codec.build_theirs()
    assert stun_codec.read_ours() is stun_codec.read_theirs() is True
    ours, theirs = stun_codec.answer_ours(), stun_codec.answer_theirs()
    assert ours == theirs
    assert parse_message(ours).get(XOR_MAPPED_ADDRESS) == stun_codec.SOURCE
    assert stun_codec.cpu_time("build a check", "ice-punch", 3) > 0


def test_the_bound_steps_up_where_the_first_check_finds_the_nat_closed() -> None:
    assert [connect_time.bound(100, s) for s in connect_time.skews(100)] == [100, 200, 300, 750]
    assert connect_time.bound(100, 49) == 149


def outcome(
    ms: float | None, verdict: Verdict = Verdict.DIRECT, *, direct: float = 0, one_pair: bool = True
) -> Outcome:
    """What came of a session that connected after so long, and was direct so much later."""
    if ms is None:
        return Outcome(Scenario(), 0, Verdict.FAILED, SideOutcome(0.0), SideOutcome(0.0))
    at = ms / 1000
    ends = [("a:1", "b:1"), ("b:1", "a:1") if one_pair else ("b:2", "a:1")]
    relayed = verdict is Verdict.RELAYED
    sides = (
        SideOutcome(
            0.0,
            valid_at=at,
            direct_at=None if relayed else at + direct / 1000,
            selected_at=at + 0.1,
            relayed=relayed,
            ends=pair,
        )
        for pair in ends
    )
    return Outcome(Scenario(), 0, verdict, *sides)


def test_a_row_tells_medians_and_their_ratio() -> None:
    outcomes = {
        stack: [outcome(ms) for ms in times]
        for stack, times in {"ice-punch": (300, 310, 400), "aioice": (600, 620, 600)}.items()
    }
    assert connect_time.row(100, 150, outcomes) == (
        ["100", "150", "300", "310", "300-400", "410", "600", "600-620", "1.9"]
    )


def comparison(ours: list[Outcome], theirs: list[Outcome]) -> nat_matrix.Comparison:
    cells = (
        Cell(NINE[2], NINE[8], tuple(outcomes), expected=Verdict.DIRECT)
        for outcomes in (ours, theirs)
    )
    return nat_matrix.Comparison(150, *cells)


def test_a_cell_tells_both_verdicts_and_times_and_where_two_sides_parted() -> None:
    relayed = outcome(600, Verdict.RELAYED, one_pair=False)
    cell = comparison([outcome(300), outcome(320), outcome(310)], [relayed, relayed, outcome(620)])
    assert nat_matrix.row(cell) == [
        *("EIM/APDF x APDM/APDF", "150"),
        *("direct", "310", "300-320", "same"),
        *("direct 1x, relayed 2x", "600", "600-620", "two in 2 of 3", "1.94"),
    ]
    plan = nat_matrix.Plan((NINE[2],), skews=(150,))
    assert "| **EIM/APDF** | **1.94** 310/600 D/DR≠ |\n" in nat_matrix.markdown(plan, [cell])


def test_a_cell_where_nobody_connects_has_no_ratio() -> None:
    cell = comparison([outcome(None)], [outcome(None)])
    assert nat_matrix.row(cell)[2:] == ["failed", "-", "", "-", "failed", "-", "", "-", "-"]
    assert nat_matrix.ratios([cell]) == "In no cell both connect"


def test_a_summary_counts_what_fell_short_and_says_who_is_faster() -> None:
    cells = [
        comparison([outcome(100), outcome(104)], [outcome(104), outcome(104)]),
        comparison([outcome(200, direct=30)] * 2, [outcome(100), outcome(100)]),
        comparison(
            [outcome(100), outcome(None)],
            [outcome(300, Verdict.RELAYED), outcome(300, Verdict.RELAYED, one_pair=False)],
        ),
    ]
    ours, theirs = nat_matrix.summary(cells)
    spread = "0 ms, nine in ten <= 0, all <= 4"
    assert ours == ["ice-punch", "5 of 6 that can be", "0", "1", "0", "2, 30 ms later", spread]
    assert theirs[1:6] == ["4 of 6 that can be", "2", "0", "1", "0"]
    assert nat_matrix.ratios(cells) == (
        "Ratios from 0.50 to 3.00, median 1.02: ice-punch is faster in 1 of 3 cells, aioice in 1; "
        "the others differ by 5% at most"
    )


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (["--nat", "EIM/XYZ"], "no NAT of the matrix is called EIM/XYZ; there are EIM/EIF, "),
        (["--rtt", "-1"], "nat_matrix.py: a round trip time is not negative"),
        (["--skew", "50000"], "nat_matrix.py: a skew is shorter than the scenario runs"),
        (["--repeat", "0"], "argument --repeat: '0' is not a whole number from 1 on"),
    ],
)
def test_a_matrix_that_can_not_be_is_refused_in_one_line(
    wrong: list[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["nat_matrix.py", *wrong])
    with pytest.raises(SystemExit) as exit_:
        nat_matrix.main()
    assert words in f"{exit_.value}{capsys.readouterr().err}"


def test_a_candidate_that_never_came_is_never() -> None:
    answer = {"found": [(0.001, "host"), (0.02, "srflx")], "ended": 0.02}
    assert gathering.row("x", "one", [answer]) == ["one", "x", "1", "20", "20"]
    silent = {"found": [(0.001, "host")], "ended": 5.0}
    assert gathering.row("x", "one", [silent]) == ["one", "x", "1", "never", "5000"]


@needs_netns
def test_one_cell_of_the_matrix_compares_both_stacks_on_the_same_nats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "matrix.md"
    options = ["--nat", "EIM/APDF", "--rtt", "20", "--skew", "0", "--repeat", "1"]
    monkeypatch.setattr(sys, "argv", ["nat_matrix.py", *options, "--markdown", str(file)])
    nat_matrix.main()
    printed = capsys.readouterr().out.splitlines()
    line = next(line for line in printed if line.startswith("EIM/APDF x EIM/APDF"))
    found = re.fullmatch(
        r"\S+ x \S+ +0 +direct +(\d+) +\d+ +same +direct +(\d+) +\d+ +same +(\d+\.\d\d)", line
    )
    assert found, line
    ours, theirs, ratio = map(float, found.groups())
    assert ours >= 20
    assert theirs >= 20
    assert ratio == pytest.approx(theirs / ours, rel=0.05)
    assert f"| **EIM/APDF** | **{ratio:.2f}** {ours:.0f}/{theirs:.0f} D |" in file.read_text()


@needs_netns
def test_two_stacks_of_a_kind_meet_at_a_relay_or_fail_without_one() -> None:
    symmetric = KernelInternet(nat_a=NatKind.SYMMETRIC, nat_b=NatKind.SYMMETRIC)
    with harness.Ground(symmetric) as ground:
        for stack in ("ice-punch", "aioice"):
            relayed = session.meet(ground, (stack, stack), Scenario(rtt=0, relays=Relays.UDP))
            assert relayed.verdict is Verdict.RELAYED
            assert session.kinds(relayed) == ("relayed", "relayed")
            if stack == "ice-punch":  # aioice's two sides may end on different pairs
                assert relayed.same_pair
            assert relayed.a.ends[0]
            assert relayed.a.ends[1]
            failed = session.meet(ground, (stack, stack), Scenario(rtt=0, seconds=1.0))
            assert failed.verdict is Verdict.FAILED
            assert failed.connect_time is None
            assert "TimeoutError" in failed.a.reason


@needs_netns
def test_the_later_side_starts_so_much_later() -> None:
    with harness.Ground(KernelInternet()) as ground:
        for skew in (0.2, -0.2):
            met = session.meet(ground, ("ice-punch", "aioice"), Scenario(rtt=0, skew=skew))
            assert met.b.started_at - met.a.started_at == pytest.approx(skew, abs=0.05)
            assert met.connect_time is not None
            selected = session.selected_time(met)
            assert selected is not None
            assert 0.2 < met.connect_time <= selected < 30


@needs_netns
def test_a_stranger_is_tried_on_both_stacks() -> None:
    with KernelInternet(nat_a="none", nat_b="none") as net:
        result = net.peer_a.call(lambda: behaviour.run(behaviour.data_from_a_stranger))
    assert result["ice-punch"] == "dropped"
    assert result["aioice"] in ("dropped", "delivered")


def test_every_script_that_the_page_names_exists() -> None:
    named = set(re.findall(r"benchmarks/(\w+\.py)", PAGE.read_text()))
    assert named == {f"{name}.py" for name in SCRIPTS}
    assert all((BENCHMARKS / name).is_file() for name in named)
