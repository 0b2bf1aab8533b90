"""``ice-punch lab``: the matrix, one scenario, the list, and what happens to wrong use."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cli_support import only_line, run

from ice_punch.cli import app
from ice_punch.cli.lab import duration
from ice_punch.lab import kernel
from ice_punch.lab.catalogue import SCENARIOS
from support.commands import PUNCH
from support.netns import needs_netns

TWO = ("--nat", "EIM/APDF", "--nat", "APDM/APDF", "--seeds", "3")


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_the_matrix_is_a_table_with_every_pairing(capfd: pytest.CaptureFixture[str]) -> None:
    assert app.run(["lab", "matrix", *TWO]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert out.startswith("round trip 100 ms, skew 0 ms, relay udp, seeds 0 to 2, backend virtual")
    assert "4 pairings: 1 direct, 3 relayed, 0 failed. 12 sessions: 3 direct, 9 relayed" in out


def test_the_matrix_tells_programs_every_cell(capfd: pytest.CaptureFixture[str]) -> None:
    assert app.run(["lab", "matrix", *TWO, "--json"]) == 0
    cells = objects(capfd.readouterr().out)
    assert [(c["a"], c["b"], c["expected"]) for c in cells] == [
        ("EIM/APDF", "EIM/APDF", "direct"),
        ("EIM/APDF", "APDM/APDF", "relayed"),
        ("APDM/APDF", "EIM/APDF", "relayed"),
        ("APDM/APDF", "APDM/APDF", "relayed"),
    ]
    assert cells[0] == {
        "a": "EIM/APDF",
        "b": "EIM/APDF",
        "backend": "virtual",
        "expected": "direct",
        "direct": 3,
        "relayed": 0,
        "failed": 0,
        "median_ms": 120.0,
        "worst_ms": 120.0,
        "budget_ms": 195.0,
        "packets": 42,
    }


def test_the_matrix_takes_round_trip_skew_links_seeds_and_relay(
    capfd: pytest.CaptureFixture[str],
) -> None:
    one = ["lab", "matrix", "--nat", "EIM/APDF", "--seeds", "2", "--json"]
    switches = ["--rtt", "0.3s", "--skew", "-600ms", "--seed", "9", "--no-relay"]
    assert app.run([*one, *switches]) == 0
    (cell,) = objects(capfd.readouterr().out)
    assert cell["median_ms"] == pytest.approx(600 + 300 + 20)
    assert cell["packets"] < 42
    assert app.run([*one, "--link", "satellite", "--link-b", "wifi_lossy"]) == 0
    (cell,) = objects(capfd.readouterr().out)
    assert cell["median_ms"] > 600
    assert cell["budget_ms"] is None


def test_the_matrix_writes_its_page_and_its_table(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    html, markdown = tmp_path / "matrix.html", tmp_path / "matrix.md"
    switches = ["--html", str(html), "--markdown", str(markdown)]
    assert app.run(["lab", "matrix", *TWO, *switches]) == 0
    assert html.read_text("utf-8").startswith("<!doctype html>")
    assert "| **APDM/APDF** | R " in markdown.read_text("utf-8")


def test_a_scenario_is_drawn_and_summed_up(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    html = tmp_path / "run.html"
    assert app.run(["lab", "run", "rejecting", "--html", str(html)]) == 0
    out = capfd.readouterr().out
    assert "filtered by nat b" in out
    assert "ICMP port unreachable" in out
    assert out.rstrip().endswith("direct after 320 ms, 10 packets sent")
    assert "filtered" in html.read_text("utf-8")


def test_a_scenario_tells_programs_what_came_of_it(capfd: pytest.CaptureFixture[str]) -> None:
    assert app.run(["lab", "run", "symmetric", "--seed", "4", "--json"]) == 0
    (told,) = objects(capfd.readouterr().out)
    assert (told["verdict"], told["expects"], told["seed"]) == ("relayed", "relayed", 4)
    assert told["same_pair"] is True
    assert told["a"]["pair"].startswith("prflx 198.51.100.16:")
    assert told["connect_ms"] == max(told["a"]["valid_ms"], told["b"]["valid_ms"])


def test_a_scenario_that_ends_otherwise_than_it_should_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from dataclasses import replace

    from ice_punch.lab.scenario import Verdict

    wrong = replace(SCENARIOS["port-restricted"], expects=Verdict.RELAYED)
    monkeypatch.setitem(SCENARIOS, "port-restricted", wrong)
    assert app.run(["lab", "run", "port-restricted"]) == 1
    assert "direct after 120 ms, and it should be relayed" in capfd.readouterr().out


def test_the_list_names_scenarios_links_and_nats(capfd: pytest.CaptureFixture[str]) -> None:
    assert app.run(["lab", "list"]) == 0
    out = capfd.readouterr().out
    assert all(name in out for name in SCENARIOS)
    assert "barely_usable" in out
    assert "EIM/APDF" in out
    assert app.run(["lab", "list", "--json"]) == 0
    told = {o["scenario"]: o for o in objects(capfd.readouterr().out)}
    assert told.keys() == SCENARIOS.keys()
    assert told["port-restricted"]["netns"] is None
    assert "NAT64" in told["nat64"]["netns"]


@needs_netns
def test_the_kernel_runs_a_scenario_and_draws_what_its_agents_recorded() -> None:
    done = run("lab", "run", "port-restricted", "--backend", "netns", timeout=60)
    assert done.returncode == 0, done.stderr
    assert "check with USE-CANDIDATE" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("direct after ")
    told = run("lab", "run", "symmetric", "--backend", "netns", "--json", timeout=60)
    assert objects(told.stdout)[0]["verdict"] == "relayed"


@needs_netns
def test_the_kernel_runs_a_matrix() -> None:
    done = run("lab", "matrix", *TWO[:4], "--backend", "netns", "--rtt", "20ms", timeout=60)
    assert done.returncode == 0, done.stderr
    assert "backend netns" in done.stdout
    assert "4 sessions: 1 direct, 3 relayed, 0 failed." in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "nope"], "no scenario is called nope"),
        (["run"], "SCENARIO"),
        (["run", "symmetric", "--backend", "mars"], "no backend is called mars"),
        (["run", "symmetric", "--seed", "-1"], "--seed"),
        (["run", "symmetric", "--html", "/nowhere/at/all.html"], "can not be written"),
        (["matrix", "--backend", "mars"], "no backend is called mars"),
        (["matrix", "--link", "carrier-pigeon"], "no link is called carrier-pigeon; there are"),
        (["matrix", "--nat", "cone"], "no NAT is called cone; there are EIM/EIF"),
        (["matrix", "--rtt", "soon"], "a time reads 100ms"),
        (["matrix", "--rtt", "nan"], "a time reads 100ms"),
        (["matrix", "--rtt=-1ms"], "a round trip time is not negative"),
        (["matrix", "--skew", "60s"], "a skew is shorter"),
        (["matrix", "--seeds", "0"], "--seeds"),
        (["matrix", "--seed", "-1"], "--seed"),
        (["matrix", "--jobs", "-1"], "--jobs"),
        (["matrix", "--time-limit", "0"], "more than 0 seconds"),
        (["matrix", "--seeds", "10000", "--time-limit", "1s"], "810000 sessions would take about"),
        (["matrix", "--markdown", "/nowhere/at/all.md"], "can not be written"),
        (["frobnicate"], "frobnicate"),
        ([], "Missing command"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(
    arguments: list[str], says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert app.run(["lab", *arguments]) == 2
    line = only_line(capfd.readouterr().err)
    assert line.startswith("ice-punch: ")
    assert says in line


@pytest.mark.parametrize("command", [["run", "symmetric"], ["matrix"]])
def test_the_kernel_backend_without_root_is_one_line(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    reason = "network namespaces need root"
    for module in (kernel, kernel.namespaces, kernel.internet):
        if hasattr(module, "available"):
            monkeypatch.setattr(module, "available", lambda: reason)
    assert app.run(["lab", *command, "--backend", "netns"]) == 1
    assert only_line(capfd.readouterr().err) == f"ice-punch: {reason}"


@needs_netns
def test_what_the_kernel_can_not_do_is_said_before_anything_runs(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert app.run(["lab", "run", "nat64", "--backend", "netns"]) == 1
    assert "NAT64" in only_line(capfd.readouterr().err)


def test_ctrl_c_ends_a_matrix_with_all_its_processes() -> None:
    with subprocess.Popen(
        [*PUNCH, "lab", "matrix", "--seeds", "200", "--time-limit", "3600s"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        time.sleep(1.5)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=10)
        assert (process.returncode, out, err) == (130, b"", b"")
        deadline = time.monotonic() + 5
        while is_there(process.pid):
            assert time.monotonic() < deadline, "processes are left"
            time.sleep(0.01)


INTERRUPTED_AT = """
import signal, sys
from ice_punch.cli import main

class Interrupting:
    def find_spec(self, name, *_):
        if name == AT:
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
sys.argv = ["ice-punch", "lab", "matrix"]
sys.exit(main())
"""


@pytest.mark.parametrize(
    "module", ["typer", "ice_punch.cli.lab", "ice_punch.cli.lab_commands", "ice_punch.turn.server"]
)
def test_ctrl_c_while_modules_are_still_loaded_is_no_traceback(module: str) -> None:
    script = INTERRUPTED_AT.replace("AT:", f"{module!r}:")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def is_there(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("100ms", 0.1), ("0.1s", 0.1), ("0.1", 0.1), ("-150ms", -0.15), ("2", 2.0), (" 3s ", 3.0)],
)
def test_a_time_reads_as_people_write_it(text: str, seconds: float) -> None:
    assert duration(text) == pytest.approx(seconds)
