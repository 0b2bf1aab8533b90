"""The reference pages name what there is, and nothing else: switches, events, fields, errors."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import json
import re
from typing import Any

import pytest
import typer
from docs_pages import ROOT

import ice_punch
from ice_punch import errors, lab
from ice_punch.cli import app as cli
from ice_punch.cli import events
from ice_punch.ice import IceState
from ice_punch.lab.probe import ProbedBehaviour
from ice_punch.peer import Listener
from ice_punch.report import PairReport, Report, ServerReport, SideReport
from support.commands import Command
from support.loopback import LOOPBACK

CLI = (ROOT / "docs" / "reference" / "cli.md").read_text()
LABORATORY = (ROOT / "docs" / "reference" / "laboratory.md").read_text()
LINKS = (ROOT / "docs" / "explanation" / "nat-laboratory.md").read_text()
PYTHON = (ROOT / "docs" / "reference" / "python.md").read_text()


def _section(text: str, heading: str) -> str:
    """From a heading to the next one of its level or above."""
    level = heading.split(" ")[0]
    start = text.index(f"\n{heading}\n") + len(heading) + 2
    end = re.search(rf"^#{{1,{len(level)}}} ", text[start:], re.MULTILINE)
    return text[start:] if end is None else text[start : start + end.start()]


def _first_cells(text: str) -> str:
    return "\n".join(line.split(" | ")[0] for line in text.splitlines() if line.startswith("| `"))


# -- commands ---------------------------------------------------------------------------------


def _commands(group: Any, within: str = "") -> dict[str, Any]:
    """By their full names, those of groups among them: ``lab run``."""
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        full = f"{within}{name}"
        found |= _commands(command, f"{full} ") if hasattr(command, "commands") else {full: command}
    return found


COMMANDS = _commands(typer.main.get_command(cli.app))
LABS = [name for name in COMMANDS if name.startswith("lab ")]
SHARED = "## Switches of listen and connect"


def _switches(command: Any) -> set[str]:
    options = [p for p in command.params if p.param_type_name == "option"]
    names = (name for option in options for name in (*option.opts, *option.secondary_opts))
    return {*names} - {"--help", "-h"}


def test_every_command_is_described_and_no_other() -> None:
    described = re.findall(r"^\| \[`ice-punch ([\w ]+)`\]", CLI, re.MULTILINE)
    assert {"serve", "lab matrix"} <= set(described)
    assert set(described) == set(COMMANDS)
    assert len(described) == len(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_switch_is_described_and_no_other(name: str) -> None:
    text = _section(CLI, f"## {name}")
    if name in ("listen", "connect"):
        text += _section(CLI, SHARED)
    told = set(re.findall(r"`(-[-\w]+)", _first_cells(text)))
    assert told == _switches(COMMANDS[name])


def test_defaults_are_those_of_the_commands() -> None:
    defaults = {"--host": "0.0.0.0", "--port": 8080, "--stun-port": 3478, "--timeout": 60}
    table = dict(re.findall(r"^\| `(--[\w-]+)[^|]*\| `?([^|`]*)`? \|", CLI, re.MULTILINE))
    assert {k: str(v) for k, v in defaults.items() if k != "--timeout"}.items() <= table.items()
    params = {o: p.default for c in ("serve", "listen") for p in COMMANDS[c].params for o in p.opts}
    assert {name: params[name] for name in defaults} == defaults


@pytest.mark.parametrize("name", LABS)
def test_defaults_of_the_laboratory_are_those_of_its_commands(name: str) -> None:
    table = dict(re.findall(r"^\| `(--[\w-]+)[^|]*\| ([^|]*)\|", _section(CLI, f"## {name}"), re.M))
    for option in (p for p in COMMANDS[name].params if p.param_type_name == "option"):
        if option.default is not None and not isinstance(option.default, bool):
            assert table[option.opts[0]].strip() == f"`{option.default}`"


def test_environment_variables_are_those_of_the_code() -> None:
    code = "".join(path.read_text() for path in (ROOT / "ice_punch").rglob("*.py"))
    known = set(re.findall(r'"(ICE_PUNCH_[A-Z_]+)"', code))
    assert set(re.findall(r"`(ICE_PUNCH_[A-Z_]+)`", _section(CLI, "## Environment"))) == known


# -- events -----------------------------------------------------------------------------------


def _fields(text: str) -> dict[str, set[str]]:
    """First cell of each row: all code words in the last one."""
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| `")]
    return {row[0].strip("| `"): set(re.findall(r"`(\w+)`", row[-1])) for row in rows}


def test_the_events_of_a_session_are_as_described() -> None:
    events = _fields(_section(CLI, "## Events").partition("### ")[0])
    objects = _fields(_section(CLI, "### Objects in events"))
    pair = set(re.findall(r"`(\w+)`", _first_cells(_section(CLI, "### Pairs"))))
    with Command("serve", "--host", "127.0.0.1", "--port", "0", "--stun-port", "0", "--json") as s:
        url = s.event("serving")["url"]
        here = ("--interface", LOOPBACK, "-4", "--json")
        with Command("listen", "--server", url, *here) as listener:
            link = listener.event("listening")["link"]
            with Command("connect", link, *here) as connector:
                connector.send(b"hello")
                listener.received(b"hello")
                connector.interrupt()
                connector.exit_code()
                listener.exit_code()
        told = [*s.events, *listener.events, *connector.events]
    with Command("connect", "nonsense", "--json") as wrong:
        wrong.exit_code()
        told += wrong.events
    assert {e["event"] for e in told} >= {"serving", "listening", "connected", "closed", "error"}
    for event in told:
        name = event.pop("event")
        assert set(event) <= events[name], (name, event)
        for key, value in event.items():
            if isinstance(value, dict) and key != "pair":
                assert set(value) <= objects[key], (key, value)
        for shown in (*event.get("pairs", ()), *filter(None, [event.get("pair")])):
            assert set(shown) == pair
        for server in event.get("servers", ()):
            assert set(server) <= objects["servers"]
        if name == "state":
            assert event["state"] in events["state"]


def test_the_results_of_stun_are_as_described() -> None:
    events = _fields(_section(CLI, "## Events").partition("### ")[0])
    from ice_punch.cli import stun
    from ice_punch.nat import MappingVerdict
    from ice_punch.net.ice_server import parse_server_argument
    from ice_punch.net.stun_client import ProbeResult

    result = stun._server_event(ProbeResult(parse_server_argument("192.0.2.1"), error="silent"))
    assert set(result) - {"event"} == events["server"]
    behaviours = inspect.signature(MappingVerdict).parameters
    assert "behaviour" in behaviours
    assert {"ip_version", "mapping", "varies", "exact", "reason"} <= events["verdict"]


def _told(capfd: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    assert cli.run(["lab", *arguments, "--json"]) == 0
    return [json.loads(line) for line in capfd.readouterr().out.splitlines()]


def test_the_results_of_the_laboratory_are_as_described(capfd: pytest.CaptureFixture[str]) -> None:
    described = {
        name: set(re.findall(r"`(\w+)`", _first_cells(_section(CLI, f"## {name}"))))
        for name in LABS
    }
    (cell,) = _told(capfd, "matrix", "--nat", "EIM/APDF", "--seeds", "1")
    assert set(cell) == described["lab matrix"]
    (result,) = _told(capfd, "run", "port-restricted")
    assert {*result, *result["a"]} == described["lab run"]
    assert set(result["a"]) == set(result["b"])
    for scenario in _told(capfd, "list"):
        assert set(scenario) == described["lab list"]


# -- Python -----------------------------------------------------------------------------------


def test_every_cause_is_described_and_no_other() -> None:
    page = (ROOT / "docs" / "howto" / "why-am-i-relayed.md").read_text()
    causes = re.findall(r"^\| `([\w-]+)`", _section(page, "### The causes"), re.MULTILINE)
    assert sorted(causes) == sorted(["cause", *ice_punch.Cause])


def test_diagnoses_are_described_field_by_field() -> None:
    objects = _fields(_section(CLI, "### Objects in events"))
    found = events._diagnosis(ice_punch.diagnose(Report()))
    assert set(found or {}) <= objects["diagnosis"]
    assert set(found or {}) <= objects["why_relayed"]
    sides = {field.name for field in dataclasses.fields(SideReport)}
    assert sides == objects["remote"]
    assert sides <= objects["local"]


def test_every_public_name_is_described() -> None:
    for name in ice_punch.__all__:
        assert name == "__version__" or f"`{name}" in PYTHON or f"## {name}\n" in PYTHON, name


@pytest.mark.parametrize(
    ("heading", "described"),
    [
        ("## PeerOptions", ice_punch.PeerOptions),
        ("### GatheringOptions", ice_punch.GatheringOptions),
        ("### Path", ice_punch.Path),
        ("### ChannelStats", ice_punch.ChannelStats),
        ("## Report", Report),
        ("## Diagnosis", ice_punch.Diagnosis),
    ],
)
def test_dataclasses_are_described_field_by_field(heading: str, described: Any) -> None:
    fields = {field.name for field in dataclasses.fields(described)}
    assert set(re.findall(r"`(\w+)(?=[:`])", _first_cells(_section(PYTHON, heading)))) == fields


def test_defaults_of_options_are_those_of_the_code() -> None:
    for heading, options in (
        ("## PeerOptions", ice_punch.PeerOptions()),
        ("### GatheringOptions", ice_punch.GatheringOptions()),
    ):
        for line in _section(PYTHON, heading).splitlines():
            cells = re.split(r"(?<!\\) \| ", line.strip("| "))
            if line.startswith("| `") and re.fullmatch(r"`[^`]*`", cells[1]):
                for name in re.findall(r"`(\w+):", cells[0]):
                    assert repr(getattr(options, name)) == cells[1].strip("`"), line


def test_reports_are_described_field_by_field() -> None:
    text = _fields(_section(PYTHON, "## Report"))
    assert text["pairs"] == {field.name for field in dataclasses.fields(PairReport)}
    assert text["servers"] == {field.name for field in dataclasses.fields(ServerReport)}


@pytest.mark.parametrize(
    ("heading", "described"),
    [
        ("## Channel", ice_punch.Channel),
        ("## IceConnection", ice_punch.IceConnection),
        ("## listen", Listener),
    ],
)
def test_methods_that_are_described_exist_and_public_ones_are_described(
    heading: str, described: type
) -> None:
    text = _first_cells(_section(PYTHON, heading).partition("\n### ")[0])
    named = set(re.findall(r"(?:`|await |in |listener\.)([a-z_]+)(?=[(:`])", text))
    source = inspect.getsource(described)
    for name in named - {"listener", "channel"}:
        assert hasattr(described, name) or f"self.{name}" in source, name
    public = {n for n in vars(described) if not n.startswith("_") and n not in INTERNAL}
    assert public <= named, public - named


INTERNAL = {"open", "peer_closed", "fail", "note_failure", "next_channel"}
"""For the package's own layers."""


def test_every_error_is_in_the_table_with_its_bases() -> None:
    rows = dict(
        re.findall(r"^\| `(\w+)` \|(?: `(\w+)`)? \|", _section(PYTHON, "## Errors"), re.MULTILINE)
    )
    known = {
        name: error
        for name, error in vars(errors).items()
        if inspect.isclass(error) and issubclass(error, errors.IcePunchError)
    }
    assert rows.keys() == known.keys()
    for name, base in rows.items():
        others = [b.__name__ for b in known[name].__bases__ if b is not errors.IcePunchError]
        assert ([base] if base else []) == others, name


def test_states_are_those_of_the_agent() -> None:
    line = next(line for line in PYTHON.splitlines() if line.startswith("| `state: IceState`"))
    assert set(re.findall(r"`(\w+)`", line)) == {state.value for state in IceState}


# -- the laboratory ---------------------------------------------------------------------------


def test_every_name_of_the_laboratory_is_described() -> None:
    for name in lab.__all__:
        assert re.search(rf"^##+ {name}$|`{name}\b", LABORATORY, re.MULTILINE), name


@pytest.mark.parametrize(
    ("heading", "described"),
    [
        ("## Scenario", lab.Scenario),
        ("### PeerSetup", lab.PeerSetup),
        ("### Happening", lab.Happening),
        ("## NatBehaviour", lab.NatBehaviour),
        ("### LinkProfile", lab.LinkProfile),
        ("### GilbertElliott", lab.GilbertElliott),
        ("## Outcome", lab.Outcome),
        ("### SideOutcome", lab.SideOutcome),
        ("### MatrixOptions", lab.MatrixOptions),
        ("### Matrix", lab.Matrix),
        ("### Cell", lab.Cell),
        ("## probe", ProbedBehaviour),
    ],
)
def test_classes_of_the_laboratory_are_described_with_their_defaults(
    heading: str, described: Any
) -> None:
    text = _section(LABORATORY, heading).partition("\n### ")[0].partition("\n| of |")[0]
    fields = {field.name: field for field in dataclasses.fields(described)}
    names = set(re.findall(r"`(\w+)(?=[:`(])", _first_cells(text)))
    computed = {name for name in vars(described) if not name.startswith("_")} - fields.keys()
    assert fields.keys() <= names <= fields.keys() | computed
    known = {name: getattr(lab, name) for name in lab.__all__}
    for line in text.splitlines():
        cells = re.split(r"(?<!\\) \| ", line)
        if line.startswith("| `") and re.fullmatch(r"`[^`]*`", cells[1]):
            for name in re.findall(r"`(\w+):", cells[0]):
                default = fields[name].default
                if default is dataclasses.MISSING:
                    default = fields[name].default_factory()  # type: ignore[misc]
                assert eval(cells[1].strip("`"), known) == default, line


@pytest.mark.parametrize(
    "words",
    [
        word
        for word in (getattr(lab, name) for name in lab.__all__)
        if isinstance(word, enum.EnumMeta) and word is not lab.NatKind
    ],
)
def test_words_of_the_laboratory_are_those_of_the_code(words: Any) -> None:
    (row,) = re.findall(rf"^\| [^|]*`{words.__name__}`[^|]* \|(.*)$", LABORATORY, re.MULTILINE)
    assert re.findall(r"`([A-Z]\w+)`", row) == [word.name for word in words]


def test_kinds_of_nats_are_what_they_are_called() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (?:`(.*?)`)? ?\|", _section(LABORATORY, "### NatKind"), re.M)
    shorts = {k.name: k.behaviour.short if k.behaviour else "" for k in lab.NatKind}
    assert dict(rows) == shorts


def test_links_with_a_name_are_as_described() -> None:
    rows = {
        name: [cell.strip() for cell in cells.split("|")]
        for name, cells in re.findall(r"^\| `(\w+)` \|(.*)\|$", _section(LINKS, "## Links"), re.M)
    }
    assert list(rows) == list(lab.PRESETS)
    for name, link in lab.PRESETS.items():
        up, down = link.up, link.down
        told = [
            f"{(up.delay + down.delay) * 1000:g} ms",
            f"{(up.jitter + down.jitter) * 1000:g} ms" if up.jitter else "",
            " / ".join(dict.fromkeys(f"{d.mean_loss * 100:g} %" for d in (up, down)))
            if up.mean_loss
            else "",
            " / ".join(dict.fromkeys(f"{d.rate / 1e6:g}" for d in (up, down) if d.rate)),
        ]
        assert rows[name][:4] == told, name
