"""The virtual internet is a pure function of its arguments: nothing in it has a clock, a socket or
randomness that does not come from a seed."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import ice_punch.lab
from ice_punch.lab.virtual.internet import VirtualInternet

LAB = Path(ice_punch.lab.__file__).parent
PURE = sorted(
    [
        *(LAB / "virtual").glob("*.py"),
        *(LAB / "peers").glob("*.py"),
        *(
            LAB / f"{name}.py"
            for name in (
                "behaviour",
                "links",
                "outcome",
                "packets",
                "scenario",
                "timeline",
                "trace",
            )
        ),
    ]
)
WORLDLY = {
    "asyncio",
    "concurrent",
    "datetime",
    "multiprocessing",
    "os",
    "secrets",
    "select",
    "selectors",
    "socket",
    "subprocess",
    "sys",
    "threading",
    "time",
    "uuid",
}


def faults(source: str) -> list[str]:
    """What a module takes from outside of its arguments."""
    found = []
    tree = ast.parse(source)
    # Elsewhere ``random`` is an argument, a RandomSource.
    names_module = any(
        isinstance(node, ast.Import) and any(name.name == "random" for name in node.names)
        for node in ast.walk(tree)
    )
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                found += [name.name for name in names if name.name.split(".")[0] in WORLDLY]
                found += [f"random as {name.asname}" for name in names if _renames_random(name)]
            case ast.ImportFrom(module=str(module)):
                if module.split(".")[0] in {*WORLDLY, "random"}:
                    found.append(f"from {module}")
            case ast.Attribute(value=ast.Name(id="random"), attr=attr) if (
                names_module and attr != "Random"
            ):
                found.append(f"random.{attr}")
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="random"), attr="Random"), args=[], keywords=[]
            ):
                found.append("random.Random() without a seed")
            case ast.Call(func=ast.Name(id="hash" | "id" as name)):
                found.append(f"{name}(), which differs from run to run")
    return found


def _renames_random(name: ast.alias) -> bool:
    return name.name == "random" and name.asname is not None


@pytest.mark.parametrize("path", PURE, ids=[str(path.relative_to(LAB)) for path in PURE])
def test_a_module_has_nothing_but_its_arguments(path: Path) -> None:
    assert faults(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "import os.path",
        "from asyncio import sleep",
        "import random as r",
        "from random import Random",
        "import random\nrandom.random()",
        "import random\nrandom.seed(1)",
        "import random\nx = random.SystemRandom()",
        "import random\nx = random.Random()",
        "x = hash('a')",
    ],
)
def test_a_module_that_has_more_would_be_found(source: str) -> None:
    assert len(faults(source)) == 1


def test_seeded_randomness_is_fine_and_so_is_an_argument() -> None:
    assert faults("def draw(random): return random.random()") == []
    assert faults("import random\nx: random.Random = random.Random('1/a')\nx.random()") == []


def test_a_source_of_randomness_depends_on_the_seed_and_its_name_only() -> None:
    def drawn(seed: int, name: str) -> float:
        return VirtualInternet(seed).random(name).random()

    assert drawn(1, "a") == drawn(1, "a")
    assert len({drawn(1, "a"), drawn(1, "b"), drawn(2, "a"), drawn(12, "a"), drawn(1, "2/a")}) == 5
