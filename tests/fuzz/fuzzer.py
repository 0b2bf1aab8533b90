"""``fuzzer.py TARGET [FILE ...]`` runs files through a harness; ``fuzzer.py --fuzz TARGET ...`` has
atheris make up more of them, the rest being options and directories of libFuzzer.

TARGET is ``message``, ``sdp`` or ``agent``.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGETS = ("message", "sdp", "agent")
Harness = Callable[[bytes], None]


def harness(target: str) -> Harness:
    """The function that raises where ``target`` does wrong with the bytes it is given."""
    found: Harness = importlib.import_module(f"fuzz_{target}").check
    return found


def corpus(target: str) -> list[Path]:
    return sorted((HERE / "corpus" / target).iterdir())


def fuzz(target: str, arguments: list[str]) -> None:
    import atheris  # type: ignore[import-untyped]

    with atheris.instrument_imports(include=["ice_punch"]):
        check = harness(target)
    atheris.Setup([sys.argv[0], *arguments], check)
    atheris.Fuzz()


def main(arguments: list[str]) -> int:
    fuzzing = arguments[:1] == ["--fuzz"]
    if fuzzing:
        del arguments[0]
    if not arguments or arguments[0] not in TARGETS:
        print(__doc__, file=sys.stderr)
        return 2
    target, *rest = arguments
    if fuzzing:
        fuzz(target, rest)
        return 0
    for name in rest or map(str, corpus(target)):
        harness(target)(Path(name).read_bytes())
    return 0


if __name__ == "__main__":
    sys.path[:0] = [str(path) for path in (HERE, HERE.parent, HERE.parents[1])]
    sys.exit(main(sys.argv[1:]))
