"""What README and docs show is run: every shell block and every Python block."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from docs_pages import ROOT, Block, Page, pages
from docs_world import world

MAKE = re.compile(r"make (\w+)\n")
PAGES = [page for page in pages() if any(b.language in ("sh", "python") for b in page.blocks)]


def _runs(block: Block) -> bool:
    shown = block.language in ("sh", "python")
    return shown and block.skipped is None and not MAKE.fullmatch(block.text)


@pytest.mark.parametrize(
    "page", [p for p in PAGES if any(map(_runs, p.blocks))], ids=lambda p: p.name
)
def test_every_block_does_what_the_page_says(page: Page, tmp_path: Path) -> None:
    blocks = [block for block in page.blocks if _runs(block)]
    with world(tmp_path) as here:
        here.serve()
        for block in blocks:
            try:
                here.run(block)
            except AssertionError as error:
                pytest.fail(
                    f"{page.name}, line {block.line}:\n{block.text}\n{error}", pytrace=False
                )


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_a_block_that_is_not_run_says_why(page: Page) -> None:
    for block in page.blocks:
        assert block.language, f"{page.name}, line {block.line}: a block without a language"
        assert block.skipped is None or len(block.skipped.split()) > 3, (page.name, block.line)
        if block.language == "python":
            compile(block.text, page.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_make_targets_exist_and_the_demo_works() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = {
        match[1]
        for page in PAGES
        for block in page.blocks
        if block.language == "sh"
        for match in MAKE.finditer(block.text)
    }
    assert {"demo", "test"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    done = subprocess.run(
        [sys.executable, "-m", "ice_punch", "demo"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Both sides received what the other sent" in done.stdout
