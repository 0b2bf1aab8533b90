"""The heat map as a table of buttons, readable without scripts, colours or eyes."""

from __future__ import annotations

from html import escape
from typing import Final

from ice_punch.lab.behaviour import NatBehaviour
from ice_punch.lab.matrix import Cell, Matrix
from ice_punch.lab.picture import LETTERS, NAMES, milliseconds, packets, share
from ice_punch.lab.scenario import Verdict

_SHADES: Final = 5
_WIDEST_NUMBER: Final = 5


def name_of(nat: NatBehaviour) -> str:
    """In full: ``endpoint-independent mapping, address-dependent filtering``."""
    return f"{nat.mapping} mapping, {nat.filtering} filtering"


def conditions_markup(matrix: Matrix) -> str:
    pairs = (*matrix.conditions, ("backend", matrix.backend))
    items = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs
    )
    return f'<dl class="conditions">{items}</dl>'


def heat_map_markup(matrix: Matrix) -> str:
    """The table and its legend."""
    shades = _Shades(matrix)
    headings = "".join(
        f'<th scope="col"{_group(matrix, column)} title="{escape(name_of(nat))}">'
        f"<span>{_name(nat)}</span></th>"
        for column, nat in enumerate(matrix.behaviours)
    )
    rows = "".join(_row(matrix, row, shades) for row in range(len(matrix.behaviours)))
    return (
        '<section class="matrix" aria-labelledby="matrix-title">'
        '<h2 id="matrix-title" class="unseen">Heat map</h2>'
        '<table role="grid" class="heat">'
        "<caption>Rows: peer a's NAT. Columns: peer b's NAT. "
        '<span class="hint">A cell opens its timeline.</span></caption>'
        '<thead><tr><td class="corner"><span aria-hidden="true">a ╲ b</span></td>'
        f"{headings}</tr></thead><tbody>{rows}</tbody></table>{_legend(shades)}</section>"
    )


class _Shades:
    """Median connect times, in equal steps from the fastest cell to the slowest."""

    def __init__(self, matrix: Matrix) -> None:
        medians = [cell.median for cell in matrix.cells if cell.median is not None]
        self.low = min(medians, default=0.0)
        self.high = max(medians, default=0.0)

    def of(self, cell: Cell) -> int:
        if cell.median is None or self.high == self.low:
            return 0
        part = (cell.median - self.low) / (self.high - self.low)
        return min(_SHADES - 1, int(part * _SHADES))


def _row(matrix: Matrix, row: int, shades: _Shades) -> str:
    nat = matrix.behaviours[row]
    cells = "".join(
        f'<td role="gridcell"{_group(matrix, column)}>'
        f"{_cell(matrix.cell(row, column), row, column, shades)}</td>"
        for column in range(len(matrix.behaviours))
    )
    heading = f'<th scope="row" title="{escape(name_of(nat))}">{_name(nat)}</th>'
    return f"<tr{_group(matrix, row)}>{heading}{cells}</tr>"


def _cell(cell: Cell, row: int, column: int, shades: _Shades) -> str:
    connected = cell.median is not None
    worst = milliseconds(cell.worst, _WIDEST_NUMBER) if connected else ""
    spoken = f"a {cell.row.short}, b {cell.column.short}: {cell.verdict}"
    if share(cell):
        spoken += f" in {cell.count(cell.verdict)} of {len(cell.outcomes)}"
    if connected:
        spoken += f", median {milliseconds(cell.median)} ms, worst {milliseconds(cell.worst)} ms"
    spoken += f", {packets(cell)} packets"
    return (
        f'<button type="button" class="cell {cell.verdict}" data-shade="{shades.of(cell)}" '
        f'data-cell="{row},{column}" tabindex="{-1 if row or column else 0}" '
        f'aria-label="{escape(spoken)}">'
        f'<span class="letter">{LETTERS[cell.verdict]}</span>'
        f'<span class="share">{share(cell)}</span>'
        f'<span class="median">{milliseconds(cell.median, _WIDEST_NUMBER)}</span>'
        f'<span class="worst">{worst}</span>'
        f'<span class="packets">{packets(cell)}</span>'
        "</button>"
    )


def _legend(shades: _Shades) -> str:
    def scale(verdict: Verdict, count: int) -> str:
        swatches = "".join(
            f'<span class="cell swatch {verdict}" data-shade="{shade}">'
            f"{LETTERS[verdict] if shade == 0 else ''}</span>"
            for shade in range(count)
        )
        return f'<li><span class="swatches" aria-hidden="true">{swatches}</span> {verdict}</li>'

    return (
        '<div class="legend"><ul class="verdicts">'
        f"{scale(Verdict.DIRECT, _SHADES)}{scale(Verdict.RELAYED, _SHADES)}"
        f"{scale(Verdict.FAILED, 1)}</ul>"
        f"<p>Faint is {milliseconds(shades.low)} ms, strong is {milliseconds(shades.high)} ms: "
        "the median time until both sides have a valid pair.</p>"
        '<dl class="reading">'
        "<dt>letter</dt><dd>the worst of all seeds; 2/20 beside it: of that many</dd>"
        "<dt>right</dt><dd>packets sent by both, median</dd>"
        "<dt><b>large</b></dt><dd>median, ms</dd><dt>small</dt><dd>worst, ms</dd></dl>"
        f"<p>{escape(NAMES)}</p></div>"
    )


def _name(nat: NatBehaviour) -> str:
    return escape(nat.short).replace("/", "/<wbr>")


def _group(matrix: Matrix, index: int) -> str:
    """Sets apart where another kind of mapping begins."""
    nats = matrix.behaviours
    begins = index and nats[index].mapping is not nats[index - 1].mapping
    return ' class="begins"' if begins else ""
