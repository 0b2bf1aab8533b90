"""Running a matrix: every pairing over every seed, on all processors."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from multiprocessing import resource_tracker

from ice_punch.errors import InvalidConfiguration
from ice_punch.lab.behaviour import NINE, NatBehaviour
from ice_punch.lab.expectation import budget, expected
from ice_punch.lab.links import PERFECT, PRESETS
from ice_punch.lab.matrix import Cell, Matrix
from ice_punch.lab.outcome import Outcome
from ice_punch.lab.scenario import Relays, Scenario, Verdict
from ice_punch.lab.timeline import Timeline
from ice_punch.lab.virtual.session import VirtualSession
from ice_punch.lab.virtual.story import timeline

MAX_SEEDS = 10000
SEEDS_A_TASK = 5
CALIBRATION = 1.0
"""Seconds after which it is known how long the rest takes."""

Progress = Callable[[int, int], None]
"""Told how many sessions of how many are done."""


@dataclass(frozen=True, slots=True)
class MatrixOptions:
    """What to run. ``template`` has everything but the NATs: links, round trip, skew, relays."""

    template: Scenario = field(default_factory=lambda: Scenario(relays=Relays.UDP))
    behaviours: tuple[NatBehaviour, ...] = NINE
    first_seed: int = 0
    seeds: int = 20
    jobs: int = 0
    """Processes; 0: as many as there are processors."""
    time_limit: float | None = None
    """Seconds. A matrix that would take longer is not run to its end."""
    timelines: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.seeds <= MAX_SEEDS:
            raise InvalidConfiguration(f"a matrix has 1 to {MAX_SEEDS} seeds")
        if self.first_seed < 0:
            raise InvalidConfiguration("a seed is not negative")
        if not self.behaviours:
            raise InvalidConfiguration("a matrix needs a NAT")
        if self.time_limit is not None and not self.time_limit > 0:
            raise InvalidConfiguration("a time limit is more than 0 seconds")

    def scenario(self, row: NatBehaviour, column: NatBehaviour) -> Scenario:
        template = self.template
        return replace(
            template,
            name=f"{row.short} x {column.short}",
            a=replace(template.a, nats=(row,)),
            b=replace(template.b, nats=(column,)),
        )

    @property
    def all_seeds(self) -> range:
        return range(self.first_seed, self.first_seed + self.seeds)


class MatrixTooLarge(InvalidConfiguration):
    """The matrix would take longer than the time it was given."""


def run_matrix(options: MatrixOptions, progress: Progress | None = None) -> Matrix:
    """Run a matrix in virtual time. The same options give the same matrix.

    Raises :class:`MatrixTooLarge` as soon as it shows that the time limit will not do.
    """
    # Not forked: a fork of a process that has threads may inherit a lock that nobody releases.
    with contextlib.ExitStack() as stack:  # whose end is the end of all, whatever they are at
        with _interrupts_held():
            pool = stack.enter_context(
                multiprocessing.get_context("spawn").Pool(_jobs(options), _begin_work)
            )
        outcomes = _collect(options, pool.imap(_run_virtual, _tasks(options)), progress)
        stories: Iterable[Timeline | None] = [None] * len(outcomes)
        if options.timelines:
            stories = pool.map(_tell, [max(found, key=_slowness) for found in outcomes])
        cells = _cells(options, outcomes, stories)
    return Matrix(options.behaviours, cells, _conditions(options))


def run_kernel_matrix(options: MatrixOptions, progress: Progress | None = None) -> Matrix:
    """Run a matrix on the kernel, in real time. Raises LaboratoryError where it can not be."""
    from ice_punch.lab.kernel.batch import JOBS, run_all

    scenarios = [options.scenario(*pairing) for pairing in _pairings(options)]
    cells = {scenario.name: number for number, scenario in enumerate(scenarios)}
    outcomes: list[list[Outcome]] = [[] for _ in scenarios]
    clock = _Clock(options, progress)
    for seed in options.all_seeds:
        for outcome in run_all(scenarios, seed, jobs=options.jobs or JOBS):
            outcomes[cells[outcome.scenario.name]].append(outcome)
            clock.tick(1)
    none: list[Timeline | None] = [None] * len(outcomes)
    return Matrix(
        options.behaviours, _cells(options, outcomes, none), _conditions(options), "netns"
    )


def _jobs(options: MatrixOptions) -> int:
    return options.jobs or os.cpu_count() or 1


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Keep Ctrl-C waiting here; the processes started meanwhile never hear of it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # which would let it through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_work() -> None:
    """Leave Ctrl-C to the parent, and do not go on with a debugger or the like of its."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.settrace(None)


# -- the work -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Task:
    """Some seeds of one cell."""

    scenario: Scenario
    seeds: range


def _pairings(options: MatrixOptions) -> list[tuple[NatBehaviour, NatBehaviour]]:
    return [(row, column) for row in options.behaviours for column in options.behaviours]


def _tasks(options: MatrixOptions) -> list[_Task]:
    """The first seeds of every cell, then the next: what is done says how long the rest takes."""
    seeds = options.all_seeds
    parts = [seeds[n : n + SEEDS_A_TASK] for n in range(0, len(seeds), SEEDS_A_TASK)]
    scenarios = [options.scenario(*pairing) for pairing in _pairings(options)]
    return [_Task(scenario, part) for part in parts for scenario in scenarios]


def _run_virtual(task: _Task) -> tuple[Outcome, ...]:
    return tuple(VirtualSession(task.scenario, seed).run() for seed in task.seeds)


def _tell(outcome: Outcome) -> Timeline:
    session = VirtualSession(outcome.scenario, outcome.seed)
    session.run()
    # The page has its own words for a cell.
    return replace(timeline(session), title="")


# -- the results --------------------------------------------------------------------------------


def _collect(
    options: MatrixOptions,
    results: Iterable[tuple[Outcome, ...]],
    progress: Progress | None,
) -> list[list[Outcome]]:
    """The outcomes of each cell, in the order of their seeds."""
    cells = len(_pairings(options))
    outcomes: list[list[Outcome]] = [[] for _ in range(cells)]
    clock = _Clock(options, progress)
    for number, part in enumerate(results):
        outcomes[number % cells].extend(part)
        clock.tick(len(part))
    return outcomes


class _Clock:
    """Knows early whether the time will do."""

    def __init__(self, options: MatrixOptions, progress: Progress | None) -> None:
        self._limit = options.time_limit
        self._total = len(_pairings(options)) * options.seeds
        self._progress = progress
        self._done = 0
        self._began = time.monotonic()
        self._first: tuple[int, float] | None = None
        """Sessions of the first result, and when it came: before it, processes were started."""

    def tick(self, sessions: int) -> None:
        """So many more sessions are done. Raises :class:`MatrixTooLarge`."""
        self._done += sessions
        if self._progress is not None:
            self._progress(self._done, self._total)
        elapsed = time.monotonic() - self._began
        if self._limit is None or self._done == self._total:
            return
        if self._first is None:
            self._first = (self._done, elapsed)
        before, started = self._first
        projected = elapsed * self._total / self._done
        if self._done > before:
            each = (elapsed - started) / (self._done - before)
            projected = elapsed + each * (self._total - self._done)
        known = elapsed - started >= CALIBRATION
        if elapsed > self._limit or (known and projected > self._limit):
            raise MatrixTooLarge(
                f"{self._total} sessions would take about {projected:.0f} s, more than the "
                f"{self._limit:g} s given: fewer seeds, or a higher time limit"
            )


def _cells(
    options: MatrixOptions,
    outcomes: list[list[Outcome]],
    stories: Iterable[Timeline | None],
) -> tuple[Cell, ...]:
    return tuple(
        _cell(options.template, row, column, tuple(found), story)
        for (row, column), found, story in zip(_pairings(options), outcomes, stories, strict=True)
    )


def _cell(
    template: Scenario,
    row: NatBehaviour,
    column: NatBehaviour,
    outcomes: tuple[Outcome, ...],
    story: Timeline | None,
) -> Cell:
    verdict = expected(row, column)
    if verdict is Verdict.RELAYED and template.relays is Relays.NONE:
        verdict = Verdict.FAILED
    allowed = None
    if verdict is not Verdict.FAILED and not _is_uneven(template):
        allowed = budget(row, column, template.path_round_trip, template.skew)
    return Cell(row, column, outcomes, story, verdict, allowed)


def _is_uneven(template: Scenario) -> bool:
    """Whether a link loses packets, or takes more time for some than for others."""
    directions = [d for s in (template.a, template.b) for d in (s.link.up, s.link.down)]
    return any(d.mean_loss or d.jitter or d.rate for d in directions)


def _slowness(outcome: Outcome) -> float:
    return float("inf") if outcome.settled_time is None else outcome.settled_time


def _conditions(options: MatrixOptions) -> tuple[tuple[str, str], ...]:
    template = options.template
    seeds = options.all_seeds
    names = {link: name for name, link in PRESETS.items()}
    links = (("link of a", template.a.link), ("link of b", template.b.link))
    return (
        ("round trip", f"{template.path_round_trip * 1000:g} ms"),
        ("skew", f"{template.skew * 1000:g} ms"),
        ("relay", str(template.relays)),
        ("seeds", f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else str(seeds[0])),
        *((side, names.get(link, "its own")) for side, link in links if link != PERFECT),
    )
