"""aiortc's own tests of ICE transports and data channels pass with our connection in the place of
aioice's. They come with its source distribution, of the very version that is installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

import pytest

pytest.importorskip("aiortc", reason="needs the extra webrtc")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def aiortc_source() -> Path:
    """The unpacked source distribution, fetched once for a checkout."""
    name = f"aiortc-{version('aiortc')}"
    source = ROOT / ".cache" / name
    if not source.exists():
        fresh = ROOT / ".cache" / f"{name}.{os.getpid()}"
        wanted = f"aiortc=={version('aiortc')}"
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        fetched = subprocess.run(
            [*pip, "--no-deps", "--no-binary", "aiortc", "--dest", str(fresh), wanted],
            capture_output=True,
            text=True,
            timeout=90,
        )
        if fetched.returncode:
            shutil.rmtree(fresh, ignore_errors=True)
            why = (fetched.stderr.strip() or "pip failed").splitlines()[-1]
            pytest.skip(f"the source of {wanted} is not to be had from a package index: {why}")
        with tarfile.open(next(fresh.glob("*.tar.gz"))) as archive:
            archive.extractall(fresh, filter="data")
        if not source.exists():
            (fresh / name).rename(source)
        shutil.rmtree(fresh)
    return source


@pytest.mark.parametrize(
    ("file", "chosen", "at_least"),
    [
        ("test_rtcicetransport.py", "GathererTest or TransportTest", 8),
        ("test_ortc.py", "", 1),
        ("test_rtcpeerconnection.py", "datachannel or data_channel", 20),
    ],
)
def test_their_tests_pass(aiortc_source: Path, file: str, chosen: str, at_least: int) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    # Their checkout lies in ours, whose settings are none of its.
    settings = ["-c", os.devnull, "--rootdir", str(aiortc_source)]
    theirs = [sys.executable, "-m", "pytest", *settings, "-p", "support.aiortc_on_our_ice"]
    run = subprocess.run(
        [*theirs, "-q", "--no-header", "-p", "no:cacheprovider", f"tests/{file}", "-k", chosen],
        cwd=aiortc_source,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr
    ours = re.search(r"connections of ours: (\d+)", run.stdout)
    passed = re.search(r"(\d+) passed", run.stdout)
    assert passed is not None
    assert int(passed[1]) >= at_least
    assert ours is not None
    assert int(ours[1]) > 0
    assert "failed" not in run.stdout
