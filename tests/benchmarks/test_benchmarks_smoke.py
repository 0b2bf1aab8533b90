"""The benchmarks run and compare like with like; how fast anything is, no test says."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest

from ice_punch.lab.kernel import KernelInternet
from ice_punch.stun import XOR_MAPPED_ADDRESS, parse_message
from support.netns import needs_netns

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import behaviour  # noqa: E402
import connect_time  # noqa: E402
import gathering  # noqa: E402
import harness  # noqa: E402
import relay_choice  # noqa: E402
import stun_codec  # noqa: E402

SCRIPTS = ("behaviour", "connect_time", "gathering", "relay_choice", "stun_codec")
PAGE = ROOT / "docs" / "why-not-aioice.md"


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_says_what_it_measures(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = importlib.import_module(name)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit):
        script.main()
    assert " ".join((script.__doc__ or "").split()) in " ".join(capsys.readouterr().out.split())
    assert f"{name}.py" in (BENCHMARKS / "README.md").read_text()


def test_where_namespaces_can_not_be_made_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "available", lambda: "network namespaces need root")
    monkeypatch.setattr(sys, "argv", ["benchmarks/connect_time.py"])
    for script in (behaviour, connect_time, gathering, relay_choice):
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


def test_a_row_tells_medians_and_their_ratio() -> None:
    outcomes = {
        stack: [connect_time.Outcome(ms / 1000, ms / 1000 + 0.1, ("direct",) * 2) for ms in times]
        for stack, times in {"ice-punch": (300, 310, 400), "aioice": (600, 620, 600)}.items()
    }
    assert connect_time.row(100, 150, outcomes) == (
        ["100", "150", "300", "310", "300-400", "410", "600", "600-620", "1.9"]
    )


def test_a_candidate_that_never_came_is_never() -> None:
    answer = {"found": [(0.001, "host"), (0.02, "srflx")], "ended": 0.02}
    assert gathering.row("x", "one", [answer]) == ["one", "x", "1", "20", "20"]
    silent = {"found": [(0.001, "host")], "ended": 5.0}
    assert gathering.row("x", "one", [silent]) == ["one", "x", "1", "never", "5000"]


@needs_netns
def test_both_stacks_meet_through_kernel_nats() -> None:
    with harness.Ground(KernelInternet()) as ground:
        for case in ("ice-punch", "aioice"):
            outcome = connect_time.meet(
                ground, connect_time.CASES[case], 0.0, controlling_first=False
            )
            assert outcome.kinds == ("direct", "direct")
            assert 0 < outcome.connected <= outcome.nominated < 30


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
