"""What the commands of ``ice-punch lab`` do."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ice_punch.cli import let_interrupts_raise
from ice_punch.errors import InvalidConfiguration
from ice_punch.lab.behaviour import NINE, NatBehaviour
from ice_punch.lab.catalogue import SCENARIOS, find
from ice_punch.lab.links import PRESETS, preset
from ice_punch.lab.matrix_run import MatrixOptions, Progress, run_kernel_matrix, run_matrix
from ice_punch.lab.outcome import Outcome, SideOutcome
from ice_punch.lab.scenario import PeerSetup, Relays, Scenario

if TYPE_CHECKING:
    from rich.console import Console

    from ice_punch.lab.matrix import Cell, Matrix
    from ice_punch.lab.timeline import Timeline

BACKENDS = ("virtual", "netns")
DEFAULT_RTT = 0.1
DEFAULT_SEEDS = {"virtual": 20, "netns": 1}
MARKERS = ("<!-- matrix: begin -->\n", "<!-- matrix: end -->")
"""Between them a page of documentation keeps its table."""
WIDE = 160
"""Columns of a picture that nobody looks at on a screen."""
FAILED = 1


@dataclass(frozen=True, slots=True)
class MatrixArguments:
    rtt: float | None
    skew: float
    link: str
    link_b: str
    seed: int
    seeds: int | None
    relay: bool
    nats: tuple[str, ...]
    backend: str
    jobs: int
    time_limit: float
    html: str | None
    markdown: str | None

    def options(self) -> MatrixOptions:
        """Raises InvalidConfiguration for what can not be run."""
        _check_backend(self.backend)
        links = (preset(self.link), preset(self.link_b))
        rtt = self.rtt
        if rtt is None:
            rtt = DEFAULT_RTT if (self.link, self.link_b) == ("perfect", "perfect") else 0.0
        return MatrixOptions(
            Scenario(
                a=PeerSetup(link=links[0]),
                b=PeerSetup(link=links[1]),
                rtt=rtt,
                skew=self.skew,
                relays=Relays.UDP if self.relay else Relays.NONE,
            ),
            behaviours=_behaviours(self.nats),
            first_seed=self.seed,
            seeds=DEFAULT_SEEDS[self.backend] if self.seeds is None else self.seeds,
            jobs=self.jobs,
            time_limit=self.time_limit,
        )


def run_lab_matrix(arguments: MatrixArguments, *, as_json: bool) -> int:
    """Raises InvalidConfiguration, MatrixTooLarge among them, and LaboratoryError."""
    options = arguments.options()
    for path in (arguments.html, arguments.markdown):
        _check_writable(path)
    before, after = _around_the_table(arguments.markdown)
    run = run_matrix
    if arguments.backend == "netns":
        _check_kernel(options)
        run = run_kernel_matrix
    let_interrupts_raise()
    with _progress() as progress:
        done = run(options, progress)
    if as_json:
        for cell in done.cells:
            _write_json(_cell(cell, done))
    else:
        from ice_punch.lab.drawing import print_matrix

        print_matrix(_console(), done)
    if arguments.markdown is not None:
        from ice_punch.lab.drawing import matrix_markdown

        _write(arguments.markdown, before + matrix_markdown(done) + after)
    if arguments.html is not None:
        from ice_punch.lab.page import matrix_page

        _write(arguments.html, matrix_page(done))
    return 0


def run_lab_scenario(name: str, seed: int, backend: str, html: str | None, *, as_json: bool) -> int:
    """Raises InvalidConfiguration for a scenario or a backend that is none, and LaboratoryError."""
    _check_backend(backend)
    _check_writable(html)
    scenario = find(name)
    outcome, stories = (_run_virtual if backend == "virtual" else _run_kernel)(scenario, seed)
    if as_json:
        _write_json(_outcome(outcome, backend))
    else:
        _print_outcome(outcome, stories)
    if html is not None and stories:
        from ice_punch.lab.page import timeline_page

        _write(html, timeline_page(stories[0]))
    missed = scenario.expects is not None and outcome.verdict is not scenario.expects
    return FAILED if missed else 0


def run_lab_list(*, as_json: bool) -> int:
    from ice_punch.lab.kernel.ability import can_run

    if as_json:
        for scenario in SCENARIOS.values():
            _write_json(
                {
                    "scenario": scenario.name,
                    "summary": scenario.summary,
                    "expects": scenario.expects,
                    "netns": can_run(scenario),
                }
            )
        return 0
    from rich.table import Table

    console = _console()
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("scenario", "ends", "netns", "what it is"):
        table.add_column(heading)
    for scenario in SCENARIOS.values():
        why_not = can_run(scenario)
        table.add_row(
            scenario.name,
            str(scenario.expects or ""),
            "yes" if why_not is None else "no",
            scenario.summary if why_not is None else f"{scenario.summary} ({why_not})",
        )
    console.print(table)
    console.print(f"\nlinks: {', '.join(PRESETS)}", soft_wrap=True)
    console.print(f"NATs of the matrix: {', '.join(nat.short for nat in NINE)}", soft_wrap=True)
    return 0


# -- running one --------------------------------------------------------------------------------


def _run_virtual(scenario: Scenario, seed: int) -> tuple[Outcome, list[Timeline]]:
    from ice_punch.lab.virtual.session import VirtualSession
    from ice_punch.lab.virtual.story import timeline

    session = VirtualSession(scenario, seed)
    return session.run(), [timeline(session)]


def _run_kernel(scenario: Scenario, seed: int) -> tuple[Outcome, list[Timeline]]:
    """The picture is what both agents recorded."""
    from ice_punch.lab.kernel.run import run
    from ice_punch.lab.replayed import timeline_of
    from ice_punch.recording import Recording, replay

    let_interrupts_raise()
    with tempfile.TemporaryDirectory(prefix="ice-punch-lab-") as directory:
        outcome = run(scenario, seed, record=Path(directory))
        stories = []
        for side in ("a", "b"):
            with (Path(directory) / f"{side}.jsonl").open(encoding="utf-8") as file:
                stories.append(timeline_of(replay(Recording.load(file))))
    return outcome, stories


# -- telling ------------------------------------------------------------------------------------


def _print_outcome(outcome: Outcome, stories: list[Timeline]) -> None:
    from ice_punch.lab.drawing import print_timeline

    console = _console()
    scenario = outcome.scenario
    console.print(f"{scenario.name}: {scenario.summary}", markup=False, soft_wrap=True)
    for story in stories:
        console.print()
        print_timeline(console, story)
    console.print()
    for name, side in (("a", outcome.a), ("b", outcome.b)):
        console.print(f"{name}: {_sentence(side)}", markup=False, soft_wrap=True)
    words = f"{outcome.verdict}"
    if outcome.connect_time is not None:
        words += f" after {outcome.connect_time * 1000:.0f} ms"
    expects = scenario.expects
    if expects is not None and outcome.verdict is not expects:
        words += f", and it should be {expects}"
    console.print(f"{words}, {outcome.packets_sent} packets sent", style="bold", soft_wrap=True)


def _sentence(side: SideOutcome) -> str:
    words = [f"{side.state}: {side.reason}"]
    if side.pair:
        words.append(side.pair)
    if side.received or side.lost:
        words.append(f"{side.received} datagrams received, {side.lost} of its own lost")
    return "; ".join(words)


def _side(side: SideOutcome) -> dict[str, Any]:
    return {
        "started_ms": _ms(side.started_at),
        "valid_ms": _ms(side.valid_at),
        "direct_ms": _ms(side.direct_at),
        "selected_ms": _ms(side.selected_at),
        "pair": side.pair,
        "state": side.state,
        "reason": side.reason,
        "packets": side.packets_sent,
        "received": side.received,
        "lost": side.lost,
    }


def _outcome(outcome: Outcome, backend: str) -> dict[str, Any]:
    return {
        "scenario": outcome.scenario.name,
        "backend": backend,
        "seed": outcome.seed,
        "verdict": outcome.verdict,
        "expects": outcome.scenario.expects,
        "connect_ms": _ms(outcome.connect_time),
        "same_pair": outcome.same_pair,
        "a": _side(outcome.a),
        "b": _side(outcome.b),
    }


def _cell(cell: Cell, matrix: Matrix) -> dict[str, Any]:
    from ice_punch.lab.scenario import Verdict

    return {
        "a": cell.row.short,
        "b": cell.column.short,
        "backend": matrix.backend,
        "expected": cell.expected,
        **{str(verdict): cell.count(verdict) for verdict in Verdict},
        "median_ms": _ms(cell.median),
        "worst_ms": _ms(cell.worst),
        "budget_ms": _ms(cell.budget),
        "packets": cell.packets,
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def _write_json(told: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


def _console() -> Console:
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDE)


@contextmanager
def _progress() -> Iterator[Progress | None]:
    """A bar on standard error, where somebody looks at it."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.completed}/{task.total} sessions"),
        BarColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("matrix", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


# -- wrong use ----------------------------------------------------------------------------------


def _behaviours(names: tuple[str, ...]) -> tuple[NatBehaviour, ...]:
    known = {nat.short: nat for nat in NINE}
    for name in names:
        if name.upper() not in known:
            raise InvalidConfiguration(f"no NAT is called {name}; there are {', '.join(known)}")
    return tuple(known[name.upper()] for name in dict.fromkeys(names)) or NINE


def _check_backend(backend: str) -> None:
    if backend not in BACKENDS:
        raise InvalidConfiguration(f"no backend is called {backend}; there are virtual and netns")


def _check_kernel(options: MatrixOptions) -> None:
    """Before anything runs: whether this machine can, and the kernel what is asked of it."""
    from ice_punch.lab.kernel import LaboratoryError, available
    from ice_punch.lab.kernel.ability import can_run

    reason = available()
    if reason is not None:
        raise LaboratoryError(reason)
    for row in options.behaviours:
        reason = can_run(options.scenario(row, row))
        if reason is not None:
            raise LaboratoryError(f"{row.short}: {reason}")


def _check_writable(path: str | None) -> None:
    """A long run is not to end with a file that can not be written."""
    if path is None:
        return
    try:
        with Path(path).open("a", encoding="utf-8"):
            pass
    except OSError as error:
        raise InvalidConfiguration(f"{path} can not be written: {error.strerror}") from None


def _around_the_table(path: str | None) -> tuple[str, str]:
    """What a page has before and after its table, markers included; nothing where it has none."""
    if path is None or not Path(path).is_file():
        return "", ""
    begin, end = MARKERS
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    before, begins, rest = text.partition(begin)
    _, ends, after = rest.partition(end)
    if begins and ends:
        return before + begins, ends + after
    if begins or end in text:
        raise InvalidConfiguration(f"{path} has one of {begin.strip()} and {end} and not the other")
    return "", ""


def _write(path: str, text: str) -> None:
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidConfiguration(f"{path} can not be written: {error.strerror}") from None
