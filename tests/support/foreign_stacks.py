"""WebRTC stacks that are neither browsers nor Python, as commands: ``tests/integration/peers`` has
the programs around them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support.programs import ROOT

PEERS = ROOT / "tests" / "integration" / "peers"
NODE_DATACHANNEL = "0.33.4"
SYSTEM_PYTHON = "/usr/bin/python3"
WEBRTCBIN = """
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import Gst, GstSdp, GstWebRTC
Gst.init(None)
names = ("webrtcbin", "nicesrc", "dtlsenc", "sctpenc")
raise SystemExit(", ".join(n for n in names if Gst.ElementFactory.find(n) is None) or None)
"""


def libdatachannel() -> list[str]:
    """npm's package of it is fetched once for a checkout. Skips the test where that fails."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not installed (scripts/setup-system)")
    home = ROOT / ".cache" / f"node-datachannel-{NODE_DATACHANNEL}"
    if not home.exists():
        _fetch(npm, home)
    modules = home / "node_modules"
    return ["env", f"NODE_PATH={modules}", node, str(PEERS / "datachannel_peer.cjs")]


def _fetch(npm: str, home: Path) -> None:
    fresh = home.with_name(f"{home.name}.{os.getpid()}")
    quiet = ["--no-audit", "--no-fund", "--loglevel", "error"]
    install = [npm, "install", "--prefix", str(fresh), "--no-save", "--ignore-scripts", *quiet]
    fresh.mkdir(parents=True)
    run = subprocess.run(
        [*install, f"node-datachannel@{NODE_DATACHANNEL}"],
        capture_output=True,
        text=True,
        timeout=100,
    )
    if run.returncode:
        shutil.rmtree(fresh)
        why = (run.stderr.strip() or "npm failed").splitlines()[-1]
        pytest.skip(f"node-datachannel is not to be had from npm: {why}")
    try:
        fresh.rename(home)
    except OSError:  # somebody else was faster
        shutil.rmtree(fresh)


def webrtcbin() -> list[str]:
    """Skips the test where it is not installed."""
    if not Path(SYSTEM_PYTHON).exists():
        pytest.skip("the system has no Python of its own, with GStreamer's bindings")
    probe = subprocess.run(
        [SYSTEM_PYTHON, "-c", WEBRTCBIN], capture_output=True, text=True, timeout=60
    )
    if probe.returncode:
        why = (probe.stderr.strip() or "it fails").splitlines()[-1]
        pytest.skip(f"GStreamer's webrtcbin is not installed (scripts/setup-system): {why}")
    return [SYSTEM_PYTHON, str(PEERS / "webrtcbin_peer.py")]
