"""Both engines pass the same tests: those that use the fixture ``engine`` run once on each."""

from __future__ import annotations

import pytest

from signaling import engines


@pytest.fixture(params=engines.ENGINES)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The engine of every server started without another."""
    name: str = request.param
    if name == "picows":
        pytest.importorskip("picows")
    monkeypatch.setattr(engines, "DEFAULT_ENGINE", name)
    return name
