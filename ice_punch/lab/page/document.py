"""Puts a page together from ``page.html``, the style sheet, the scripts and the data."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from html import escape
from importlib import resources
from string import Template
from typing import Final

from ice_punch.lab.matrix import Cell, Matrix
from ice_punch.lab.page.data import Json, encode_timelines
from ice_punch.lab.page.heat_map import conditions_markup, heat_map_markup, name_of
from ice_punch.lab.picture import milliseconds, packets, totals
from ice_punch.lab.scenario import Verdict
from ice_punch.lab.timeline import Timeline

_SCRIPTS: Final = ("scale.js", "picture.js", "details.js", "page.js")
_LEDE: Final = "Which pairs of NATs let two peers reach each other, and how long that takes."


def matrix_page(matrix: Matrix) -> str:
    """The heat map; each cell opens its timeline. ``#cell=ROW,COLUMN`` in the address does too,
    counted from 0."""
    data = encode_timelines([cell.timeline for cell in matrix.cells])
    columns = len(matrix.behaviours)
    data["cells"] = [
        {
            "cell": f"{index // columns},{index % columns}",
            "name": f"a behind {cell.row.short}, b behind {cell.column.short}",
            "verdict": cell.verdict,
            "told": _told(cell),
        }
        for index, cell in enumerate(matrix.cells)
    ]
    return _page(
        "NAT \N{MULTIPLICATION SIGN} NAT",
        f'<p class="lede">{_LEDE}</p><p class="totals">{escape(totals(matrix))}</p>'
        f"{conditions_markup(matrix)}",
        heat_map_markup(matrix),
        data,
    )


def timeline_page(timeline: Timeline) -> str:
    """One timeline."""
    data = encode_timelines([timeline])
    data["cells"] = []
    return _page(timeline.title, "", "", data)


def _told(cell: Cell) -> str:
    counts = ", ".join(
        f"{verdict} in {count} of {len(cell.outcomes)}"
        for verdict in Verdict
        if (count := cell.count(verdict))
    )
    times = ""
    if cell.median is not None:
        times = f" Median {milliseconds(cell.median)} ms, worst {milliseconds(cell.worst)} ms."
    return (
        f"{counts[0].upper()}{counts[1:]}.{times} {packets(cell)} packets. "
        f"Peer a: {name_of(cell.row)}. Peer b: {name_of(cell.column)}. "
        "The picture shows the slowest."
    )


def _page(title: str, introduction: str, heat_map: str, data: dict[str, Json]) -> str:
    style = _file("page.css")
    script = '"use strict";\n' + "".join(map(_file, _SCRIPTS))
    return Template(_file("page.html")).substitute(
        policy=_policy(style, script),
        title=escape(title),
        style=style,
        script=script,
        introduction=introduction,
        heat_map=heat_map,
        data=_embedded(data),
    )


def _policy(style: str, script: str) -> str:
    """Nothing but this style, this script and the icon in the page itself."""
    rules: Sequence[str] = (
        "default-src 'none'",
        f"script-src {_digest(script)}",
        f"style-src {_digest(style)}",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "require-trusted-types-for 'script'",
    )
    return "; ".join(rules)


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _embedded(data: dict[str, Json]) -> str:
    """JSON in which nothing ends a script element or opens a comment."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")
