"""A clock may not tell a check from its answer: Windows' stands still for 15.6 ms at a time."""

from __future__ import annotations

from support.bench import REMOTE, Bench


def test_an_answer_at_the_time_of_its_check_is_an_answer() -> None:
    bench = Bench(remotes=[REMOTE])
    bench.answer_all(0.0)
    bench.run(60.0)
    assert bench.states == ["checking", "connected", "completed"]
    assert len(bench.requests) < 30
    assert bench.agent.counters["paths_fell_silent"] == 0
