"""The documentation as tests see it: pages, fenced blocks, and how to run them.

A comment above a block, ``<!-- test: ... -->``, holds one or more of these, separated by commas:

``not run, REASON``   the block is not run
``terminals``         every ``ice-punch`` line runs in a terminal of its own until the page ends
``afresh``            end the terminals that are open
``on HOST``           run on ``server``, ``a`` or ``b``; without it on ``server``
``until HOST/PORT``   the terminal is ready when something listens there, over TCP
``with FILE``         FILE is there before the block is run
``exit N``            the exit code, 0 without it
``shows TEXT``        the output has TEXT; the last one, as TEXT may have commas
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"<!-- test: ([^\n]*) -->\n\Z")


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    language: str
    text: str
    line: int
    skipped: str | None = None
    """Why it is not run."""
    terminals: bool = False
    afresh: bool = False
    host: str = "server"
    until: str | None = None
    shows: str | None = None
    files: tuple[str, ...] = ()
    exit_code: int = 0


@dataclass(frozen=True)
class Page:
    """One Markdown file."""

    path: Path
    text: str
    blocks: tuple[Block, ...] = field(repr=False)

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()


def pages() -> list[Page]:
    """README.md and everything under docs/."""
    return [_read(ROOT / "README.md"), *map(_read, sorted((ROOT / "docs").rglob("*.md")))]


def _read(path: Path) -> Page:
    text = path.read_text()
    blocks = []
    for fence in _FENCE.finditer(text):
        comment = _COMMENT.search(text, 0, fence.start())
        line = text.count("\n", 0, fence.start()) + 1
        blocks.append(_block(fence[1], fence[2], line, comment[1] if comment else ""))
    return Page(path, text, tuple(blocks))


def _block(language: str, text: str, line: int, comment: str) -> Block:
    if comment.startswith("not run"):
        return Block(language, text, line, skipped=comment.removeprefix("not run, "))
    comment, has_text, shows = comment.partition("shows ")
    words = dict(part.partition(" ")[::2] for part in comment.rstrip(", ").split(", "))
    words.pop("", None)
    unknown = words.keys() - {"terminals", "afresh", "on", "until", "with", "exit"}
    assert not unknown, f"line {line}: no such directive: {unknown}"
    return Block(
        language,
        text,
        line,
        terminals="terminals" in words,
        afresh="afresh" in words,
        host=words.get("on", "server"),
        until=words.get("until"),
        shows=shows if has_text else None,
        files=(words["with"],) if "with" in words else (),
        exit_code=int(words.get("exit", 0)),
    )
