"""The one command: it measures what is there, says where, and writes a table and a plot."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ice_punch.lab.kernel import namespaces
from support.netns import needs_netns

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import cable  # noqa: E402
import datagram_report  # noqa: E402
import datagrams  # noqa: E402
import dtls_throughput  # noqa: E402
from datagram_workloads import OURS, WORKLOADS, Plan, Results  # noqa: E402

PLAIN, DTLS = (
    next(w for w in WORKLOADS if (w.kind, w.size, w.link) == (kind, 1200, "whole"))
    for kind in ("plain", "dtls")
)


def run(rate: float, cpu: float) -> dict[str, float]:
    return {"rate": rate, "sender": cpu, "receiver": cpu / 2, "lost": 0.0}


STALLED = {"before": 50.0, "peak": 50.5, "after": 50.2, "dropped": 2e6}


def some_results() -> Results:
    results = Results(
        throughput={
            PLAIN: {OURS: [run(500e3, 1.0)] * 3, "pion/ice": [run(50e3, 8.0)] * 3},
            DTLS: {OURS: [run(200e3, 2.0)] * 3, "pion/dtls": [run(50e3, 12.0)] * 3},
        },
        latency={
            "plain: udp asyncio": [{"median": 100.0, "p99": 200.0}],
            f"dtls: {OURS}": [{"median": 130.0, "p99": 300.0}],
        },
        control={OURS: [{"first": 2.5, "second": 2.0}]},
        stalled={"DTLS": STALLED},
        idle={"kilobytes": 127.0, "percent": 15.0},
        absent=["libdatachannel"],
    )
    results.windows = {
        (w.kind, stack): 832 for w, found in results.throughput.items() for stack in found
    }
    return results


def test_a_report_has_rates_beside_cpu_time_and_holds_them_against_the_targets() -> None:
    text = datagram_report.report(Plan(runs=3), some_results())
    rows = {" ".join(line.split()) for line in text.splitlines()}
    assert f"{OURS} 832 500.0 500 - 500 1.00 / 0.50 0.00 1.00 1.00" in rows
    assert "pion/ice 832 50.0 50 - 50 8.00 / 4.00 0.00 10.00 8.00" in rows
    assert f"Plain, 1200 bytes {OURS} pion/ice 8 10.00 8.00" in rows
    assert f"DTLS, 1200 bytes {OURS} pion/dtls 3.5 4.00 6.00" in rows
    assert f"dtls: {OURS} 130 300 1.30" in rows
    assert f"{OURS} 2.5 2.0" in rows
    assert "DTLS 50.0 50.5 50.2 2.00" in rows
    assert "keep 127 kB each" in text
    assert "Not on this machine, and not measured: libdatachannel." in text
    assert "15.0 % of a core per 1,000" in text
    assert "machine  " in text
    assert "date     " in text


def test_what_has_a_bound_of_its_own_is_held_against_it() -> None:
    rows = [
        " ".join(line.split()) for line in datagram_report.limits_of(some_results()).splitlines()
    ]
    assert rows[2:] == [
        "DTLS, there and back, asyncio: times raw UDP 1.4 1.30",
        f"DTLS, 200 a second, {OURS}: % of a core 3 2.5",
        "DTLS, nobody reads: MB that memory grows by 0 0.5",
        "An idle channel: kB 60 127",
        "1000 idle channels: % of a core 5 15.0",
    ]


def test_a_ratio_is_of_runs_that_came_one_after_the_other() -> None:
    """A machine that was slow for most of our runs and fast for most of theirs is no judge."""
    results = some_results()
    ours = [run(rate, 100e3 / rate) for rate in (100e3, 100e3, 200e3)]
    theirs = [run(rate, 100e3 / rate) for rate in (50e3, 100e3, 100e3)]
    results.throughput[PLAIN] = {OURS: ours, "pion/ice": theirs}
    rows = {" ".join(line.split()) for line in datagram_report.targets_of(results).splitlines()}
    assert f"Plain, 1200 bytes {OURS} pion/ice 8 2.00 2.00" in rows


def test_every_stack_of_a_target_is_measured() -> None:
    for workload in WORKLOADS:
        for ours, theirs, factor in workload.targets:
            assert {ours, theirs} <= {*workload.stacks}
            assert ours.startswith("ice-punch")
            assert factor > 0


def test_the_page_gets_the_report_between_its_marks_and_keeps_the_rest(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{datagram_report.BEGIN}\nold\n{datagram_report.END}\nafter\n")
    datagram_report.write(page, "new")
    assert page.read_text() == (
        f"before\n{datagram_report.BEGIN}\n\nnew\n\n{datagram_report.END}\nafter\n"
    )
    page.write_text("no marks")
    with pytest.raises(SystemExit, match="does not say where"):
        datagram_report.write(page, "new")
    assert page.read_text() == "no marks"


def test_the_real_page_has_the_marks() -> None:
    text = datagram_report.PAGE.read_text()
    assert text.index(datagram_report.BEGIN) < text.index(datagram_report.END)


def test_a_plot_is_a_png(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "images" / "plot.png"
    datagram_report.draw(some_results(), file)
    assert file.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@needs_netns
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (["--stacks", "nonsense"], "argument --stacks: invalid choice: 'nonsense'"),
        (["--stacks"], "argument --stacks: expected at least one argument"),
        (["--runs", "0"], "argument --runs: '0' is not a whole number from 1 on"),
        (["--seconds", "0"], "argument --seconds: '0' is not a number of seconds above 0"),
        (["--seconds", "nan"], "argument --seconds: 'nan' is not a number of seconds above 0"),
        (["--page", "/nowhere/page.md"], "datagrams.py: /nowhere/page.md: No such file"),
    ],
)
def test_a_wrong_use_is_refused_in_one_line_before_anything_is_measured(
    wrong: list[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(sys, "argv", ["datagrams.py", *wrong])
    monkeypatch.setattr(datagrams, "measure", lambda *_, **__: pytest.fail("it was measured"))
    with pytest.raises(SystemExit) as exit_:
        datagrams.main()
    assert exit_.value.code not in (0, None)
    assert words in f"{exit_.value}{capsys.readouterr().err}"


@needs_netns
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_is_ended_by_a_signal_leaves_no_namespace(number: signal.Signals) -> None:
    command = [sys.executable, str(BENCHMARKS / "datagrams.py"), "--stacks", OURS, "--print"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    assert process.stdout is not None
    while not namespaces.ours(pid=process.pid) or "first" not in str(
        namespaces.ours(pid=process.pid)
    ):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.02)
    process.send_signal(number)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 128 + number
    assert "Traceback" not in said
    assert namespaces.ours(pid=process.pid) == []


@needs_netns
def test_a_reader_that_stopped_costs_no_memory_and_every_datagram_is_counted() -> None:
    with cable.cable() as names:
        ground = dtls_throughput.Ground(names, None)
        found = cable.stalled(ground, OURS, 2.0)
    assert found["dropped"] > 1000
    assert found["before"] <= found["peak"] < found["before"] + 20


def test_a_stack_is_shown_with_the_window_that_suits_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fastest of those that lose nothing, in the runs that are shown; for good."""
    asked: list[int] = []

    def throughput(ground: object, stack: str, size: int, seconds: float, window: int) -> object:
        asked.append(window)
        return {**run(1000.0 * window, 1.0), "lost": 0.5 if window == 832 else 0.0}

    monkeypatch.setattr(cable, "throughput", throughput)
    results, plan = Results(), Plan(runs=3)
    for workload in (PLAIN, next(w for w in WORKLOADS if (w.kind, w.size) == ("plain", 200))):
        datagrams.measure_rate(None, workload, [OURS], plan, results)
        assert [one["rate"] for one in results.throughput[workload][OURS]] == [208e3] * 3
    assert results.windows == {("plain", OURS): 208}
    assert asked == [64, 208, 832] * 3 + [208] * 3


@needs_netns
def test_our_channel_is_measured_on_every_kind_of_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datagrams, "WINDOWS", {"plain": (832,), "dtls": (832,)})
    links = ("whole", "segmented")
    workloads = [w for w in WORKLOADS if w.size == 1200 and w.link in links]
    plan = Plan(1, 0.1, workloads=workloads, stacks=frozenset({OURS}))
    results = datagrams.measure(plan, latency=False, idle=False)
    assert [*results.throughput] == sorted(workloads, key=lambda w: links.index(w.link))
    for found in results.throughput.values():
        assert [*found] == [OURS]
        assert found[OURS][0]["rate"] > 0
        assert found[OURS][0]["sender"] > 0


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc")
def test_idle_channels_are_weighed_and_timed() -> None:
    script = str(BENCHMARKS / "idle_channels.py")
    command = [sys.executable, script, "--json", "--channels", "10"]
    command += ["--seconds", "1", "--settle", "0.5"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert 20 < found["kilobytes"] < 1000
    assert 0 < found["percent"] < 1000


def test_a_flame_graph_is_an_svg(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")  # of the same extra
    file = tmp_path / "flame.svg"
    script = str(BENCHMARKS / "flame_graph.py")
    command = [sys.executable, script, "plain-single", "--seconds", "0.5", "--output", str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    if "ermission" in done.stderr or "ptrace" in done.stderr:
        pytest.skip("py-spy may not look into processes here")
    assert done.returncode == 0, done.stderr
    assert "<svg" in file.read_text()
    assert "send_nowait" in file.read_text()


def test_a_stack_that_dies_costs_itself_and_not_the_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def once(stack: str) -> dict[str, float]:
        if stack == "dead":
            raise cable.EndDied("an end of the link died")
        return {"rate": 1.0}

    assert datagrams.in_turn(["alive", "dead"], 2, once) == {"alive": [{"rate": 1.0}] * 2}
    assert "dead: an end of the link died" in capsys.readouterr().err
