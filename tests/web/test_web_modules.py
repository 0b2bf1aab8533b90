"""The page's modules without a browser: their own tests under node, and both ends of the seal."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from web_support import ROOT

from signaling.errors import SealBroken
from signaling.link import Link
from signaling.randomness import base64url
from signaling.sealing import Sealer

JS = Path(__file__).with_name("js")
WEB = ROOT / "signaling" / "web"
SVG = "http://www.w3.org/2000/svg"
NODE = shutil.which("node")


def _no_node() -> str | None:
    """Why the tests can not run here: they want the globals of browsers that node 20 has."""
    if NODE is None:
        return "no node: apt-get install nodejs"
    version = subprocess.run([NODE, "--version"], capture_output=True, text=True, check=True).stdout
    return None if int(version[1:].split(".")[0]) >= 20 else f"node {version.strip()} is too old"


_reason = _no_node()
needs_node = pytest.mark.skipif(_reason is not None, reason=str(_reason))


@needs_node
@pytest.mark.parametrize("file", sorted(JS.glob("*.test.mjs")), ids=lambda file: file.name)
def test_the_modules_do_what_their_tests_say(file: Path) -> None:
    done = subprocess.run(
        [str(NODE), "--test", str(file)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.findall(r"^# pass (\d+)$", done.stdout, re.MULTILINE)[0]) >= 4, done.stdout


def _node(*orders: dict[str, Any]) -> list[dict[str, Any]]:
    done = subprocess.run(
        [str(NODE), str(JS / "seal.mjs")],
        input="\n".join(map(json.dumps, orders)),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@needs_node
def test_what_one_side_seals_the_other_opens() -> None:
    source = random.Random(7)
    secret, room = source.randbytes(16), base64url(source.randbytes(16))
    sealer = Sealer(secret, room)
    place = {"sender": "a", "to": "b", "link": "ä", "generation": 3, "kind": "offer"}
    js = {"from": "a", "to": "b", "link": "ä", "gen": 3, "kind": "offer"}
    text = json.dumps({"sdp": "v=0\r\n ü \U0001f980"})
    common = {"secret": base64url(secret), "room": room}
    ours = sealer.seal(text, **place)  # type: ignore[arg-type]
    (opened, sealed, wrong_place, wrong_secret, altered, nothing) = _node(
        {**common, "open": ours, "place": js},
        {**common, "seal": text, "place": js},
        {**common, "open": ours, "place": {**js, "gen": 4}},
        {**common, "secret": base64url(bytes(16)), "open": ours, "place": js},
        {**common, "open": ours[:-2] + ("AA" if ours[-2:] != "AA" else "BA"), "place": js},
        {**common, "open": "", "place": js},
    )
    assert opened == {"opened": text}
    assert sealer.open(sealed["sealed"], **place) == text  # type: ignore[arg-type]
    for refused in (wrong_place, wrong_secret, altered, nothing):
        assert refused == {"error": "SealBroken"}
    with pytest.raises(SealBroken):
        sealer.open(sealed["sealed"], **{**place, "to": "c"})  # type: ignore[arg-type]


@needs_node
def test_both_call_the_room_of_a_link_the_same() -> None:
    link = Link.create("https://signal.example", random.Random(8))
    assert _node({"link": str(link)}) == [{"wireRoom": link.wire_room}]


def test_the_page_is_built_of_small_modules_and_of_nothing_else() -> None:
    names = {file.name for file in WEB.iterdir()}
    modules = {name for name in names if name.endswith(".js")}
    assert {"ice-punch.js", "page.js", "index.html", "style.css"} <= names
    for name in modules:
        text = (WEB / name).read_text("utf-8")
        assert len(text.splitlines()) <= 420, name
        imports = re.findall(r'from "([^"]+)"', text)
        assert {i.removeprefix("./") for i in imports} <= modules, name
        assert not re.search(
            r"\beval\b|innerHTML|document\.write|https?://(?!www\.w3\.org/2000/svg)[a-z]+\.", text
        ), name
    page = (WEB / "index.html").read_text("utf-8")
    named = set(re.findall(r'"/web/([^"]+)"', page))
    assert named == modules - {"ice-punch.js"} | {"style.css", "icon.svg"}
