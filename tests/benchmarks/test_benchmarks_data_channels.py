"""The benchmark of data channels runs every pair, and counts what arrives."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import data_channels  # noqa: E402


def test_it_says_what_it_measures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["data_channels.py", "--help"])
    with pytest.raises(SystemExit):
        data_channels.main()
    assert " ".join((data_channels.__doc__ or "").split()) in " ".join(
        capsys.readouterr().out.split()
    )
    assert "data_channels.py" in (BENCHMARKS / "README.md").read_text()


@pytest.mark.parametrize("pair", data_channels.ALL)
def test_messages_arrive_in_every_pair(pair: str) -> None:
    workload = next(iter(data_channels.WORKLOADS))
    measured = data_channels.measure(pair, workload, 0.1)
    assert measured.rate > 0
    assert measured.cpu > 0


def test_the_page_has_a_row_for_every_pair() -> None:
    page = (BENCHMARKS.parent / "docs" / "performance.md").read_text()
    section = page[page.index("## Data channels") :]
    rows = re.findall(r"^\| \**([\w-]+ to [\w-]+)\** \|.* ([0-9.]+) \|$", section, re.MULTILINE)
    assert [name for name, _ in rows] == list(data_channels.ALL) * len(data_channels.WORKLOADS)
    assert all(float(ratio) >= 1.0 for _, ratio in rows)
