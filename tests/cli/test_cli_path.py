"""What a person at the terminal reads when something becomes of a path."""

from __future__ import annotations

import pytest

from ice_punch.cli.output import TextOutput
from ice_punch.ice import IceState, SelectedPairChanged, StateChanged
from support.bench import completed_bench


def test_a_path_that_falls_silent_and_comes_back_is_told_in_a_line_each(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = TextOutput()
    pair = completed_bench().agent.selected_pair()
    assert pair is not None
    output.observed(StateChanged(IceState.COMPLETED, "the peer nominated it"))
    output.observed(SelectedPairChanged(pair, "the peer nominated it"))
    assert capsys.readouterr().err == ""  # the first path is what ``connected`` tells
    output.observed(StateChanged(IceState.DISCONNECTED, "no answer for 1.1 s"))
    output.observed(StateChanged(IceState.CONNECTED, "another valid pair carries data"))
    output.observed(SelectedPairChanged(pair, "this side nominated relay\nto srflx"))
    output.observed(StateChanged(IceState.COMPLETED, "this side nominated it"))
    assert capsys.readouterr().err.splitlines() == [
        "disconnected: no answer for 1.1 s",
        "connected again: another valid pair carries data",
        "path: direct, this side nominated relay to srflx",
    ]
