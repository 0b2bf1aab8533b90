"""Sessions at a link between a Python program and a WebRTC stack that is no browser: each in a home
behind a kernel NAT, the signaling server in public with TLS and STUN."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ice_punch.lab.kernel import KernelHost, KernelInternet
from support.programs import Program, Robot, cable_pulled, new_link, served, sha256

FILE_SIZE = 50_000_000
RATE, SECONDS = 200, 10


@dataclass(frozen=True, slots=True)
class Homes:
    """The stack is in the first one, robots are in the second one."""

    net: KernelInternet
    url: str
    cafile: Path
    command: Sequence[str]
    """Of the stack."""

    def robot(self, role: str, url: str, directory: Path) -> Robot:
        return Robot(role, url, directory, str(self.cafile), self.net.peer_b.popen)

    def stack(self, link: str, *, waits: bool = False, lie: str = "") -> Program:
        """It comes to a link, or ``waits`` there; ``lie`` as in ``link_end.py``."""
        program = str(Path(__file__).with_name("link_end.py"))
        setup = {
            "link": link,
            "cafile": str(self.cafile),
            "command": list(self.command),
            "waits": waits,
            "lie": lie,
        }
        return Program([sys.executable, program, json.dumps(setup)], self.net.peer_a.popen)


@contextlib.contextmanager
def homes(command: Sequence[str], directory: Path) -> Iterator[Homes]:
    with KernelInternet() as net, served(net, directory) as (url, cafile):
        yield Homes(net, url, cafile, command)


@contextlib.contextmanager
def meeting(
    place: Homes, role: str, directory: Path, *, lie: str = ""
) -> Iterator[tuple[Program, Robot]]:
    """The stack, and a program that does ``listen`` or ``connect``: the other one offers in the
    first case."""
    with contextlib.ExitStack() as ends:
        if role == "listen":
            robot = ends.enter_context(place.robot("listen", place.url, directory))
            link = str(robot.next("link")["link"])
            stack = ends.enter_context(place.stack(link, lie=lie))
        else:
            link = str(new_link(place.url))
            stack = ends.enter_context(place.stack(link, waits=True, lie=lie))
            stack.next("ready")
            robot = ends.enter_context(place.robot("connect", link, directory))
        yield stack, robot


def connected(stack: Program, robot: Robot) -> None:
    assert robot.next("connected")["path"] == "direct"
    stack.next("channel")


def chat(stack: Program, robot: Robot, word: str) -> None:
    stack.do("say", text=f"{word} from the stack")
    assert robot.next("message")["text"] == f"{word} from the stack"
    robot.do("say", text=f"{word} from the robot")
    assert stack.next("message")["message"] == f"{word} from the robot"


def exchange_files(stack: Program, robot: Robot, directory: Path) -> None:
    """50 MB each way; both sides tell the SHA-256 of what they have."""
    there, here = directory / "to-robot.bin", directory / "to-stack.bin"
    for file in (there, here):
        file.write_bytes(os.urandom(FILE_SIZE))
    stack.do("file", path=str(there), name="taken.bin")
    arrived = robot.next("file", 100)
    assert arrived["sha256"] == sha256(there) == sha256(Path(arrived["path"]))
    assert stack.next("sent")["sent"] == {"ok": True, "sha256": sha256(there)}
    robot.do("send", path=str(here))
    got = stack.next("file", 100)
    assert (got["file"], got["size"]) == ("to-stack.bin", FILE_SIZE)
    assert got["sha256"] == robot.next("sent")["sha256"] == sha256(here)


def stream(stack: Program, robot: Robot) -> None:
    """200 datagrams a second, both ways at once, for 10 s."""
    count = RATE * SECONDS
    began = time.monotonic()
    for side in (stack, robot):
        side.do("stream", rate=RATE, seconds=SECONDS)
    assert robot.next("streamed")["count"] == stack.next("streamed")["streamed"] == count
    assert time.monotonic() - began >= SECONDS - 0.1
    time.sleep(0.5)
    for side in (stack, robot):
        side.do("count")
    assert robot.next("count")["received"] >= 0.98 * count
    assert stack.next("received")["received"] >= 0.98 * count


def pull_the_cable(home: KernelHost, robot: Robot) -> None:
    """Until the program wants an ICE restart."""
    with cable_pulled(home):
        assert robot.next("advised")["why"]


def settled(robot: Robot, timeout: float = 30.0) -> None:
    """The program has a selected pair, and no restart under way."""
    deadline = time.monotonic() + timeout
    while True:
        robot.do("ice")
        ice = robot.next("ice")
        if ice["state"] == "completed" and not ice["restarting"]:
            return
        assert time.monotonic() < deadline, ice
        time.sleep(0.1)


FAILURES = {"attempt-failed", "failed"}
MISMATCH = "the peer's DTLS certificate is not the one its description announced"


def another_certificate_than_the_stacks(place: Homes, role: str, directory: Path) -> None:
    """The program refuses it, and says so to the other side too."""
    with meeting(place, role, directory, lie="ours") as (stack, robot):
        failure = robot.next(FAILURES)
        assert (failure["error"], failure["why"]) == ("FingerprintMismatch", MISMATCH)
        said, failed = "", False
        while not (said and failed):
            told = stack.next({"goodbye", "state"})
            said = said or told.get("reason", "")
            failed = failed or told.get("state") == "failed"
        assert said == MISMATCH


def wrong_secret(place: Homes, directory: Path) -> None:
    """Said on both sides, and the right one is welcome after it."""
    with place.robot("listen", place.url, directory) as robot:
        link = str(robot.next("link")["link"])
        with place.stack(link.partition("#")[0] + "#" + "A" * 22) as stack:
            stack.next("wrong-secret")
        with place.stack(link) as stack:
            stack.next("channel")
            assert robot.next("refused")["count"] == 1
