"""What the laboratory offers under its own name."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

from ice_punch import lab
from support.netns import ROOT


def test_every_public_name_can_be_had() -> None:
    assert set(lab.__all__) == set(lab._HOME)
    assert len(set(lab.__all__)) == len(lab.__all__)
    for name in lab.__all__:
        assert getattr(lab, name) is not None
    assert set(lab.__all__) <= set(dir(lab))
    with pytest.raises(AttributeError, match="no_such_name"):
        lab.no_such_name


def test_no_name_is_that_of_a_module_which_would_take_its_place_once_imported() -> None:
    modules = {module.name for module in pkgutil.iter_modules(lab.__path__)}
    assert not modules & set(lab.__all__)


def test_importing_the_laboratory_imports_nothing_that_is_not_used() -> None:
    program = (
        "import sys, ice_punch.lab; "
        "ice_punch.lab.Scenario; "
        "print([m for m in ('asyncio', 'cryptography', 'rich', 'multiprocessing', 'ice_punch.ice')"
        " if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"
