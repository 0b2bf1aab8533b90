"""The corpus of the fuzzers, and a few mutations of each file, the same ones every time."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from fuzz_agent import MOST_RECORDS, Play, records
from fuzzer import TARGETS, corpus, harness, main
from seeds import SEEDS

from ice_punch.ice import IceState

MUTATIONS = 12
FILES = [(target, path) for target in TARGETS for path in corpus(target)]


def _mutated(data: bytes, other: bytes, source: random.Random) -> bytes:
    """Bits flipped, pieces lost, repeated or taken from another file."""
    changed = bytearray(data)
    for _ in range(source.randint(1, 5)):
        at = source.randrange(len(changed) + 1)
        size = source.randint(1, 16)
        match source.randrange(5):
            case 0 if at < len(changed):
                changed[at] ^= 1 << source.randrange(8)
            case 1 if at < len(changed):
                changed[at] = source.randrange(256)
            case 2:
                del changed[at : at + size]
            case 3:
                changed[at:at] = changed[at : at + size]
            case _:
                start = source.randrange(len(other) + 1)
                changed[at:at] = other[start : start + size]
    return bytes(changed)


@pytest.mark.parametrize(("target", "path"), FILES, ids=lambda v: getattr(v, "name", v))
def test_a_file_of_the_corpus_and_mutations_of_it_break_no_rule(target: str, path: Path) -> None:
    check = harness(target)
    data = path.read_bytes()
    check(data)
    source = random.Random(f"{target}/{path.name}")
    others = corpus(target)
    for _ in range(MUTATIONS):
        other = source.choice(others).read_bytes()
        mutated = _mutated(data, other, source)
        try:
            check(mutated)
        except Exception as error:
            pytest.fail(f"{type(error).__name__}: {error}, with {mutated.hex()}")


@pytest.mark.parametrize("target", SEEDS)
def test_the_seeds_are_those_that_the_script_writes(target: str) -> None:
    folder = {path.name: path for path in corpus(target)}
    for name, data in SEEDS[target]().items():
        assert folder[name].read_bytes() == data, f"{name}: run tests/fuzz/seeds.py"


def test_the_scripts_reach_what_lies_behind_the_password() -> None:
    """A corpus that never gets past the HMAC would show nothing."""
    states: set[IceState] = set()
    counters: set[str] = set()
    for path in corpus("agent"):
        data = path.read_bytes()
        play = Play(data[0])
        for record in records(data[1:]):
            play.perform(record)
            states.add(play.agent.state)
        play.run(60.0)
        counters |= play.agent.counters.keys()
    assert states == set(IceState)
    assert counters >= {
        "candidates_surplus", "checks_answered", "checks_repeated", "consents_expired",
        "data_received", "early_checks_dropped", "icmp_errors", "requests_refused",
        "responses_from_elsewhere", "responses_unauthenticated", "role_conflicts", "role_switches",
        "restarts", "restarts_failed", "fresh_starts", "renominations", "nominations_outdated",
        "nominations_abandoned", "ports_followed", "paths_fell_silent",
    }  # fmt: skip


def test_a_script_ends_whatever_it_says() -> None:
    assert len(list(records(b"\0\0\0\0\0" * (2 * MOST_RECORDS)))) == MOST_RECORDS
    assert list(records(b"\0\0\0\0")) == []
    assert [r.payload for r in records(b"\0\0\0\xff\xffrest")] == [b"rest"]


def test_files_run_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = tmp_path / "found"
    found.write_bytes(b"anything")
    for target in TARGETS:
        assert main([target, str(found)]) == 0
    assert main([]) == main(["nothing"]) == main(["--fuzz"]) == 2
    assert capsys.readouterr().err.count("TARGET is") == 3
