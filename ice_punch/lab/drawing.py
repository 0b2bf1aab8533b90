"""The matrix and the timeline in a terminal, and the matrix in Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.console import Console
from rich.text import Text

from ice_punch.lab.ladder import ladder
from ice_punch.lab.matrix import Cell, Matrix
from ice_punch.lab.picture import (
    LEGEND,
    LETTERS,
    NAMES,
    milliseconds,
    packets,
    share,
    times,
    totals,
)
from ice_punch.lab.scenario import Verdict
from ice_punch.lab.timeline import Timeline

_STYLES: Final = {
    Verdict.DIRECT: "black on green",
    Verdict.RELAYED: "black on yellow",
    Verdict.FAILED: "bold white on red",
}
_WIDEST_NUMBER: Final = 5
"""Characters of a time; longer ones are written in seconds."""


def print_timeline(console: Console, timeline: Timeline) -> None:
    """A ladder: time runs down, lanes stand side by side, every packet is a line."""
    for line in ladder(timeline, console.width, ascii_only=console.options.ascii_only):
        console.print(line, no_wrap=True, overflow="crop", crop=True)


def print_matrix(console: Console, matrix: Matrix) -> None:
    """NAT x NAT: a cell has the median and worst connect time in ms, a letter and the packets.

    Nine by nine fit 100 columns; in a narrower terminal the two times stand below each other.
    """
    conditions = (*matrix.conditions, ("backend", matrix.backend))
    console.print(Text(", ".join(f"{name} {value}" for name, value in conditions)))
    console.print()
    for line in _table(matrix, console.width):
        console.print(line, no_wrap=True, overflow="crop", crop=True)
    for verdict in Verdict:
        console.print(
            Text.assemble((f" {LETTERS[verdict]} ", _STYLES[verdict]), f" {verdict}  "), end=""
        )
    console.print(Text("the worst of all seeds; R2: in 2 of them"))
    console.print(
        Text("Times: median/worst in ms until both sides have a valid pair. Then packets sent.")
    )
    console.print(Text(NAMES))
    console.print(Text(totals(matrix), "bold"))


def matrix_markdown(matrix: Matrix) -> str:
    """The table as the documentation keeps it; the same matrix gives the same text."""
    names = [behaviour.short for behaviour in matrix.behaviours]
    conditions = ", ".join(f"{name} {value}" for name, value in matrix.conditions)
    lines = [
        f"{conditions}. {totals(matrix)}",
        "",
        f"| a \\ b | {' | '.join(names)} |",
        "|---" * (len(names) + 1) + "|",
    ]
    for row, name in enumerate(names):
        cells = (matrix.cell(row, column) for column in range(len(names)))
        lines.append(f"| **{name}** | {' | '.join(map(_markdown_cell, cells))} |")
    lines += [
        "",
        f"Rows are peer a's NAT, columns peer b's. {NAMES} {LEGEND}; then median/worst time in ms "
        "until both sides have a valid pair, and (packets sent by both, median).",
    ]
    return "\n".join(lines) + "\n"


def _markdown_cell(cell: Cell) -> str:
    words = (LETTERS[cell.verdict] + share(cell), times(cell), f"({packets(cell)})")
    return " ".join(words)


def _table(matrix: Matrix, width: int) -> Iterator[Text]:
    names: list[tuple[str, ...]] = [(behaviour.short,) for behaviour in matrix.behaviours]
    cells = [_lines(cell) for cell in matrix.cells]
    if _margin(names) + len(names) * (_widest(cells, names) + 1) > width:
        names = [tuple(behaviour.short.split("/")) for behaviour in matrix.behaviours]
        cells = [_narrow_lines(cell) for cell in matrix.cells]
    margin, column = _margin(names), _widest(cells, names)
    for number in range(max(map(len, names))):
        heading = Text(("a \\ b" if number == 0 else "").ljust(margin), "bold")
        for name in names:
            heading.append(name[number].center(column) + " ", "bold")
        yield heading
    for row, name in enumerate(names):
        if row and matrix.behaviours[row].mapping is not matrix.behaviours[row - 1].mapping:
            yield Text()
        start = row * len(names)
        in_row = range(start, start + len(names))
        for number in range(len(cells[start])):
            line = Text((name[number] if number < len(name) else "").ljust(margin), "bold")
            for index in in_row:
                style = _STYLES[matrix.cells[index].verdict]
                line.append(cells[index][number].center(column), style).append(" ")
            yield line
        yield Text()


def _margin(names: list[tuple[str, ...]]) -> int:
    return max(map(len, ("a \\ b", *(part for name in names for part in name)))) + 1


def _lines(cell: Cell) -> tuple[str, ...]:
    return times(cell, 4), f"{_verdict(cell)} {packets(cell)}"


def _narrow_lines(cell: Cell) -> tuple[str, ...]:
    return (
        _verdict(cell),
        milliseconds(cell.median, _WIDEST_NUMBER),
        milliseconds(cell.worst, _WIDEST_NUMBER),
        packets(cell),
    )


def _verdict(cell: Cell) -> str:
    """``R``, or ``R2`` if only two outcomes are relayed."""
    return LETTERS[cell.verdict] + share(cell).partition("/")[0]


def _widest(cells: list[tuple[str, ...]], names: list[tuple[str, ...]]) -> int:
    return max(len(text) for lines in (*cells, *names) for text in lines)
