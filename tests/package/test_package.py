"""What installing and importing ice-punch costs."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import ice_punch

ROOT = Path(__file__).resolve().parents[2]
MEDIA_STACK = {"aiortc", "av", "pylibsrtp", "pyee"}


def _import_seconds(module: str) -> float:
    """What the import costs on top of an interpreter that does nothing."""
    program = (
        f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT
    )
    return float(done.stdout)


def test_import_takes_less_than_150_ms_when_warm() -> None:
    _import_seconds("ice_punch")
    assert min(_import_seconds("ice_punch") for _ in range(5)) < 0.150


def test_import_pulls_in_nothing_heavy() -> None:
    program = (
        "import sys, ice_punch; "
        "print([m for m in ('asyncio', 'cryptography', 'OpenSSL', 'aioice', 'websockets', 'rich')"
        " if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"


def test_every_public_name_can_be_had() -> None:
    for name in ice_punch.__all__:
        assert getattr(ice_punch, name) is not None
    assert set(ice_punch.__all__) <= set(dir(ice_punch))
    with pytest.raises(AttributeError):
        ice_punch.no_such_name


def test_the_core_install_has_no_media_stack() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {_name(line) for line in project["dependencies"]}
    reached = set(names)
    while names:
        for line in importlib.metadata.requires(names.pop()) or []:
            requirement, _, marker = line.partition(";")
            if "extra ==" not in marker and _name(requirement) not in reached:
                try:
                    importlib.metadata.distribution(_name(requirement))
                except importlib.metadata.PackageNotFoundError:
                    continue  # for another platform
                reached.add(_name(requirement))
                names.add(_name(requirement))
    assert not reached & MEDIA_STACK
    assert any(_name(line) == "aiortc" for line in project["optional-dependencies"]["webrtc"])


def test_the_extras_are_those_that_are_promised() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(project["optional-dependencies"]) == {
        "webrtc",
        "redis",
        "picows",
        "uvloop",
        "fuzz",
        "benchmarks",
        "dev",
    }
    assert project["license"] == "BSD-3-Clause"


def test_the_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == ice_punch.__version__


def _name(requirement: str) -> str:
    for end in "<>=!~;[ (":
        requirement = requirement.partition(end)[0]
    return requirement.strip().lower()
