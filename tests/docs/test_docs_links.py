"""Links between the pages lead somewhere, and the pages say nothing of how they were made."""

from __future__ import annotations

import re

import pytest
from docs_pages import ROOT, Page, pages

LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def _anchors(text: str) -> set[str]:
    """As GitHub makes them."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", pages(), ids=lambda p: p.name)
def test_relative_links_lead_to_files_and_headings(page: Page) -> None:
    for target in LINK.findall(CODE.sub("", page.text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.path.parent / path).resolve() if path else page.path
        assert file.is_file(), f"{page.name} links to {target}"
        assert file.is_relative_to(ROOT), f"{page.name} links to {target}"
        if anchor:
            assert anchor in _anchors(file.read_text()), f"{page.name} links to {target}"


def test_every_page_is_reachable_from_the_readme() -> None:
    found, waiting = set(), [ROOT / "README.md"]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        for target in LINK.findall(path.read_text()):
            file = (path.parent / target.partition("#")[0]).resolve()
            if file.suffix == ".md" and file.is_file():
                waiting.append(file)
    assert {page.path for page in pages()} <= found


@pytest.mark.parametrize("page", pages(), ids=lambda p: p.name)
def test_tests_that_are_named_exist(page: Page) -> None:
    for path, _, name in re.findall(r"(tests/[\w/]+\.py)(::(\w+))?", page.text):
        file = ROOT / path
        assert file.is_file(), f"{page.name} names {path}"
        if name:
            assert f"def {name}(" in file.read_text(), f"{page.name} names {path}::{name}"
