"""The one command: it measures what is there, says where, and writes a table and a plot."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.netns import needs_netns

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import datagrams  # noqa: E402

OURS = datagrams.OURS
PLAIN, DTLS = (
    next(w for w in datagrams.WORKLOADS if (w.kind, w.size, w.link) == (kind, 1200, "whole"))
    for kind in ("plain", "dtls")
)


def run(rate: float, cpu: float) -> dict[str, float]:
    return {"rate": rate, "sender": cpu, "receiver": cpu / 2, "lost": 0.0}


def some_results() -> datagrams.Results:
    results = datagrams.Results(
        throughput={
            PLAIN: {OURS: [run(500e3, 1.0)] * 3, "pion/ice": [run(50e3, 8.0)] * 3},
            DTLS: {OURS: [run(200e3, 2.0)] * 3, "pion/dtls": [run(50e3, 12.0)] * 3},
        },
        latency={
            "plain: udp asyncio": [{"median": 100.0, "p99": 200.0}],
            f"dtls: {OURS}": [{"median": 130.0, "p99": 300.0}],
        },
        control={OURS: [{"first": 2.5, "second": 2.0}]},
        idle={"kilobytes": 127.0, "percent": 15.0},
    )
    results.windows = {
        (w.kind, stack): 832 for w, found in results.throughput.items() for stack in found
    }
    return results


def test_a_report_has_rates_beside_cpu_time_and_holds_them_against_the_targets() -> None:
    text = datagrams.report(datagrams.Plan(runs=3), some_results())
    rows = {" ".join(line.split()) for line in text.splitlines()}
    assert f"{OURS} 832 500.0 500 - 500 1.00 / 0.50 0.00 1.00 1.00" in rows
    assert "pion/ice 832 50.0 50 - 50 8.00 / 4.00 0.00 10.00 8.00" in rows
    assert f"Plain, 1200 bytes {OURS} pion/ice 8 10.00 8.00" in rows
    assert f"DTLS, 1200 bytes {OURS} pion/dtls 3.5 4.00 6.00" in rows
    assert f"dtls: {OURS} 130 300 1.30" in rows
    assert f"{OURS} 2.5 2.0" in rows
    assert "keep 127 kB each" in text
    assert "15.0 % of a core per 1,000" in text
    assert "machine  " in text
    assert "date     " in text


def test_every_stack_of_a_target_is_measured() -> None:
    for workload in datagrams.WORKLOADS:
        for ours, theirs, factor in workload.targets:
            assert {ours, theirs} <= {*workload.stacks}
            assert ours.startswith("ice-punch")
            assert factor > 0


def test_the_page_gets_the_report_between_its_marks_and_keeps_the_rest(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{datagrams.BEGIN}\nold\n{datagrams.END}\nafter\n")
    datagrams.write(page, "new")
    assert page.read_text() == (f"before\n{datagrams.BEGIN}\n\nnew\n\n{datagrams.END}\nafter\n")
    page.write_text("no marks")
    with pytest.raises(SystemExit, match="does not say where"):
        datagrams.write(page, "new")
    assert page.read_text() == "no marks"


def test_the_real_page_has_the_marks() -> None:
    text = datagrams.PAGE.read_text()
    assert text.index(datagrams.BEGIN) < text.index(datagrams.END)


def test_a_plot_is_a_png(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "images" / "plot.png"
    datagrams.draw(some_results(), file)
    assert file.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@needs_netns
def test_our_channel_is_measured_on_every_kind_of_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datagrams, "WINDOWS", {"plain": (832,), "dtls": (832,)})
    links = ("whole", "segmented")
    workloads = [w for w in datagrams.WORKLOADS if w.size == 1200 and w.link in links]
    plan = datagrams.Plan(1, 0.1, workloads=workloads, stacks=frozenset({OURS}))
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
            raise SystemExit("an end of the link died")
        return {"rate": 1.0}

    assert datagrams.in_turn(["alive", "dead"], 2, once) == {"alive": [{"rate": 1.0}] * 2}
    assert "dead: an end of the link died" in capsys.readouterr().err
