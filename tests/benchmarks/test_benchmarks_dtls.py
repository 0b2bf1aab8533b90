"""The DTLS benchmarks run, and every stack in them carries what the others carry."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ice_punch.dtls import codec
from support.netns import needs_netns

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import cable  # noqa: E402
import dtls_codec  # noqa: E402
import dtls_throughput  # noqa: E402

PION = ("pion/dtls", "dtls_pion.go")


@pytest.mark.parametrize("script", [dtls_codec, dtls_throughput])
def test_a_script_says_what_it_measures(
    script: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["script.py", "--help"])
    with pytest.raises(SystemExit):
        script.main()  # type: ignore[attr-defined]
    assert " ".join((script.__doc__ or "").split()) in " ".join(capsys.readouterr().out.split())
    assert f"{script.__name__}.py" in (BENCHMARKS / "README.md").read_text()  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", dtls_codec.CASES)
def test_every_codec_carries_the_same_datagrams(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dtls_codec, "BATCHES", 2)
    usual = codec.CODEC
    case = dtls_codec.CASES[name]()
    for size in (1200, 200):
        datagrams = [bytes((n,)) * size for n in range(dtls_codec.BATCH)]
        assert min(dtls_codec.cpu_times(case, datagrams)) > 0
    assert codec.CODEC is usual


@needs_netns
@pytest.mark.parametrize("stack", dtls_throughput.installed())
def test_every_stack_that_is_installed_carries_datagrams_both_ways(stack: str) -> None:
    with cable.cable() as namespaces, cable.pion_program(*PION) as program:
        ground = dtls_throughput.Ground(namespaces, program)
        found = cable.throughput(ground, stack, 200, 0.3, 64)
        assert found["rate"] > 0
        assert cable.latency(ground, stack, 200, 20)["median"] < 1e6
