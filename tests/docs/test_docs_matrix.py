"""``make matrix`` writes the table of a page anew, and nothing else of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from docs_pages import ROOT

from ice_punch.cli import app
from ice_punch.cli.lab_commands import MARKERS

BEGIN, END = MARKERS
ONE = ("lab", "matrix", "--nat", "EIM/APDF", "--seeds", "1", "--markdown")


def test_the_table_of_a_page_is_replaced_and_the_rest_stays(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    page, alone = tmp_path / "page.md", tmp_path / "alone.md"
    page.write_text(f"# NATs\n\nBefore.\n\n{BEGIN}old\n{END}\n\nAfter. {END}\n")
    for _ in range(2):
        for path in (page, alone):
            assert app.run([*ONE, str(path)]) == 0
    table = alone.read_text()
    assert "| **EIM/APDF** | D 120/120 (42) |" in table
    assert BEGIN not in table
    assert page.read_text() == f"# NATs\n\nBefore.\n\n{BEGIN}{table}{END}\n\nAfter. {END}\n"


@pytest.mark.parametrize("text", [f"# NATs\n{BEGIN}old\n", f"# NATs\nold\n{END}\n"])
def test_a_page_with_one_marker_only_is_left_as_it_is(
    text: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    assert app.run([*ONE, str(page)]) == 2
    assert "and not the other" in capfd.readouterr().err
    assert page.read_text() == text


def test_make_matrix_runs_the_command_of_the_page_on_the_page() -> None:
    makefile = (ROOT / "Makefile").read_text()
    recipe = re.search(r"^matrix:.*\n\t@\$\(BIN\)/(ice-punch .*)$", makefile, re.MULTILINE)
    assert recipe is not None
    *command, page = recipe[1].split()
    assert command == ["ice-punch", "lab", "matrix", "--markdown"]
    text = (ROOT / page).read_text()
    assert text.count(BEGIN) == text.count(END) == 1
    assert "make matrix" in text
