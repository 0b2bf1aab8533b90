"""Any text is a session description, a fragment, a candidate, or ``InvalidDescription``; what was
read survives being written, and an agent takes its candidates."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from ice_punch.errors import InvalidDescription
from ice_punch.ice import Agent, AgentConfig, Candidate, Credentials
from ice_punch.sdp import (
    Description,
    Fingerprint,
    Fragment,
    Setup,
    format_candidate,
    parse_candidate,
)
from ice_punch.sdp.attributes import MAX_SENT_UFRAG
from ice_punch.sdp.lines import MAX_CANDIDATES

T = TypeVar("T")
OURS = Credentials("ourfrag1", "our-password-of-24-chars!")
SOME_LINES = 40


def check(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    description = _read(Description.parse, text)
    if description is not None:
        _survives(description, Description.parse)
        _is_taken(description)
    fragment = _read(Fragment.parse, text)
    if fragment is not None:
        _survives(fragment, Fragment.parse)
        if description is not None:
            fragment.belongs_to(description)
            fragment.new_candidates(description.candidates)
    for line in text.splitlines()[:SOME_LINES]:
        candidate = _read(parse_candidate, line)
        if candidate is not None:
            assert parse_candidate(format_candidate(candidate)) == _as_written(candidate)
        name, _, value = line.partition(":")
        if name.endswith("fingerprint"):
            _read(Fingerprint.parse, value)


def _read(parse: Callable[[str], T], text: str) -> T | None:
    try:
        return parse(text)
    except InvalidDescription as error:
        message = str(error)
    assert message.isprintable()
    assert len(message) < 150
    return None


def _survives(read: T, parse: Callable[[str], T]) -> None:
    assert isinstance(read, Description | Fragment)
    assert len(read.candidates) <= MAX_CANDIDATES
    try:
        written = read.to_sdp()
    except InvalidDescription:
        assert len(read.ufrag) > MAX_SENT_UFRAG or _is_not_for_sending(read)
        return
    expected = replace(read, candidates=tuple(map(_as_written, read.candidates)))
    if isinstance(expected, Description) and expected.lite:
        expected = replace(expected, pacing=None)  # RFC 8839 section 4.3.1: a lite agent has none
    assert parse(written) == expected


def _as_written(candidate: Candidate) -> Candidate:
    """RFC 6544 section 4.5: an active candidate has the discard port, whatever was read."""
    return replace(candidate, port=9) if candidate.tcptype == "active" else candidate


def _is_not_for_sending(read: Description | Fragment) -> bool:
    """RFC 8842 section 5.1 and RFC 8839 section 4.2.5."""
    return isinstance(read, Description) and (
        read.setup is Setup.HOLDCONN or (read.ice_mismatch and bool(read.candidates))
    )


def _is_taken(description: Description) -> None:
    agent = Agent(
        controlling=True,
        credentials=OURS,
        random=random.Random(0),
        config=AgentConfig(max_remote_candidates=16),
    )
    agent.add_host_candidate(("192.0.2.1", 5000), 0.0)
    agent.add_host_candidate(("2001:db8::1", 5000), 0.0)
    if description.ufrag:
        credentials = Credentials(description.ufrag, description.pwd)
        ta = None if description.pacing is None else description.pacing / 1000
        agent.set_remote_parameters(credentials, 0.0, lite=description.lite, ta=ta)
    for candidate in description.candidates:
        agent.add_remote_candidate(candidate, 0.0)
    assert len(agent.remote_candidates) <= 16
    for now in (0.1, 1.0, 50.0):
        agent.handle_timer(now)
        agent.datagrams_to_send(now)
    str(agent.report())
