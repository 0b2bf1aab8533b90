"""Every row of docs/conformance.md stands once and names tests that exist."""

from __future__ import annotations

import ast
import re
from collections import Counter
from functools import cache
from typing import NamedTuple

from docs_pages import ROOT

TEXT = (ROOT / "docs" / "conformance.md").read_text()
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
STATES = ("done", "partly", "left out")
LEVELS = {"MUST", "MUST NOT", "SHOULD", "SHOULD NOT", "REC", "text", "ABNF"}


class Row(NamedTuple):
    id: str
    level: str
    requirement: str
    status: str
    test: str
    note: str


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]


ROWS = [
    Row(*_cells(line))
    for line in TEXT.splitlines()
    if re.match(r"\| (\d{4}:|mdns-)", line) and len(_cells(line)) == len(Row._fields)
]


@cache
def _tests_in(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text())
    return frozenset(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
    )


def test_no_id_stands_twice_and_every_row_is_well_formed() -> None:
    lines = [line for line in TEXT.splitlines() if re.match(r"\| (\d{4}:|mdns-)", line)]
    assert len(lines) == len(ROWS), [line for line in lines if len(_cells(line)) != 6]
    assert [id_ for id_, count in Counter(row.id for row in ROWS).items() if count > 1] == []
    for row in ROWS:
        assert row.status in STATES, row
        assert row.level in LEVELS, row
        assert row.requirement, row


def test_the_counts_at_the_top_are_those_of_the_rows() -> None:
    told = re.search(r"(\d+) rows: (\d+) done, (\d+) partly, (\d+) left out", TEXT)
    assert told is not None
    states = Counter(row.status for row in ROWS)
    counted = (len(ROWS), *(states[state] for state in STATES))
    assert tuple(map(int, told.groups())) == counted


def test_a_row_shows_its_test_or_says_why_not() -> None:
    for row in ROWS:
        tests = TEST.findall(row.test)
        assert len(tests) == row.test.count("`") // 2, row
        assert tests or row.status != "done", row
        assert row.note or row.status == "done", row


def test_all_tests_that_are_named_exist() -> None:
    named = TEST.findall(TEXT)
    assert named
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not (ROOT / path).is_file() or name not in _tests_in(path)
    ]
    assert missing == []


def test_short_names_in_notes_exist_too() -> None:
    everywhere = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in _tests_in(path.relative_to(ROOT).as_posix())
    }
    assert set(re.findall(r"`(test_\w+)`", TEXT)) <= everywhere
