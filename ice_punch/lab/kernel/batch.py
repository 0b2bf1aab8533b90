"""Many scenarios on the kernel at once: most of the time of each goes by with waiting."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

from ice_punch.lab.kernel.processes import exit_on_signals
from ice_punch.lab.kernel.run import prepare, run_on
from ice_punch.lab.outcome import Outcome
from ice_punch.lab.scenario import Scenario, Verdict

JOBS = 6
"""Laboratories that stand side by side. More of them on few cores disturb each other's timing."""


def run_all(scenarios: Iterable[Scenario], seed: int = 0, *, jobs: int = JOBS) -> Iterator[Outcome]:
    """The outcome of each, as they come. Raises what ``run`` raises; then, and when the iterator is
    closed, all that still run are ended."""
    # Those that take longest first: what fails has to be waited for.
    internets = [prepare(scenario, seed) for scenario in sorted(scenarios, key=_is_short)]
    with exit_on_signals(), ThreadPoolExecutor(jobs, "kernel scenario") as executor:
        try:
            running = {executor.submit(run_on, internet) for internet in internets}
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BaseException:
            for internet in internets:
                internet.close()
            raise


def _is_short(scenario: Scenario) -> bool:
    endures = scenario.happenings or scenario.datagrams_per_second
    return not endures and scenario.expects is not Verdict.FAILED
