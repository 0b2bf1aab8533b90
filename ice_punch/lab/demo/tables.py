"""The demo's tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ice_punch.lab.demo.events import TIMINGS, Event, PeerStory, milliseconds, text


@dataclass(frozen=True, slots=True)
class Exchange:
    """A message one peer sent, and what came out at the other."""

    sender: str
    receiver: str
    message: str
    arrived: bool
    seconds: float


def print_story(
    console: Console, stories: Sequence[PeerStory], exchanges: Sequence[Exchange]
) -> None:
    """Everything there is to tell, also when it came to no connection."""
    if any(story.local_candidates for story in stories):
        _print_candidates(console, stories)
    _print_checks(console, stories)
    if any(story.connected for story in stories):
        _print_paths(console, stories)
        _print_times(console, stories)
    if exchanges:
        _print_messages(console, exchanges)


def _print_candidates(console: Console, stories: Iterable[PeerStory]) -> None:
    table = _table("Candidates", "peer", "type", "address", "base", "priority")
    table.columns[-1].justify = "right"
    for story in stories:
        for candidate in story.local_candidates:
            _add(
                table,
                story.name,
                text(candidate.get("type")),
                text(candidate.get("address")),
                text(candidate.get("base")),
                text(candidate.get("priority")),
            )
        table.add_section()
    _print(console, table)


def _print_checks(console: Console, stories: Iterable[PeerStory]) -> None:
    for story in stories:
        if not story.pairs:
            continue
        table = _table(
            f"Checks of peer {story.name}",
            "from",
            "to",
            "state",
            "sent",
            "answ.",
            "rcvd",
            "rtt",
        )
        for column in table.columns[3:]:
            column.justify = "right"
        for pair in story.pairs:
            nominated = " *" if pair.get("nominated") else ""
            _add(
                table,
                _endpoint(pair, "local"),
                _endpoint(pair, "remote"),
                text(pair.get("state")) + nominated,
                text(pair.get("requests_sent")),
                text(pair.get("responses_received")),
                text(pair.get("requests_received")),
                milliseconds(pair.get("rtt_ms")),
            )
        table.caption = "requests sent, answers to them, requests received; * nominated"
        _print(console, table)


def _print_paths(console: Console, stories: Sequence[PeerStory]) -> None:
    table = _table("Selected pair", "", *(f"peer {story.name}" for story in stories))
    rows: list[tuple[str, Callable[[PeerStory], str]]] = [
        ("path", lambda story: text(story.path.get("kind"))),
        ("from", lambda story: _endpoint(story.path, "local", " ")),
        ("to", lambda story: _endpoint(story.path, "remote", " ")),
        ("round trip", lambda story: milliseconds(story.path.get("rtt_ms"))),
        ("nominated", lambda story: "yes" if story.nominated else "not yet"),
        ("DTLS", lambda story: text(story.dtls.get("version"))),
        ("cipher", lambda story: text(story.dtls.get("cipher"))),
    ]
    for name, value in rows:
        _add(table, name, *map(value, stories))
    _print(console, table)


def _print_times(console: Console, stories: Iterable[PeerStory]) -> None:
    table = _table("Where the time went", "peer", *("DTLS" if t == "dtls" else t for t in TIMINGS))
    for column in table.columns[1:]:
        column.justify = "right"
    for story in stories:
        _add(table, story.name, *(milliseconds(story.timings.get(t)) for t in TIMINGS))
    _print(console, table)


def _print_messages(console: Console, exchanges: Iterable[Exchange]) -> None:
    table = _table("Messages", "from", "to", "message", "arrived", "after")
    for exchange in exchanges:
        _add(
            table,
            exchange.sender,
            exchange.receiver,
            exchange.message,
            "yes" if exchange.arrived else "NO",
            milliseconds(exchange.seconds * 1000) if exchange.arrived else "-",
        )
    _print(console, table)


def _endpoint(event: Event, side: str, separator: str = "\n") -> str:
    kind = event.get(f"{side}_type")
    address = text(event.get(side))
    return f"{kind}{separator}{address}" if kind else address


def _table(title: str, *columns: str) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _add(table: Table, *cells: str) -> None:
    # An IPv6 address in brackets would pass for markup.
    table.add_row(*map(Text, cells))


def _print(console: Console, table: Table) -> None:
    console.print()
    console.print(table)
