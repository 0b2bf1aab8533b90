"""libdatachannel, by npm's node-datachannel, at a link whose other end is a Python program: what a
page does there, behind kernel NATs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("aiortc", reason="needs the extra webrtc")

from support import foreign_stacks
from support.foreign_links import (
    FAILURES,
    Homes,
    another_certificate_than_the_stacks,
    chat,
    connected,
    exchange_files,
    homes,
    meeting,
    pull_the_cable,
    stream,
    wrong_secret,
)
from support.netns import NETNS
from support.programs import Program

pytestmark = [*NETNS, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Homes]:
    with homes(foreign_stacks.libdatachannel(), tmp_path_factory.mktemp("tls")) as made:
        yield made


def _refuses_a_restart(stack: Program) -> None:
    """Its libjuice can not do that, says so, and goes on with what it has."""
    refused = stack.next("error")
    assert refused["command"] == "describe"
    assert "Invalid ICE settings from remote SDP" in refused["error"]
    while "ICE restart is not supported" not in stack.next("log")["log"]:
        pass


def test_a_whole_session_of_a_stack_that_opens_a_programs_link(
    place: Homes, tmp_path: Path
) -> None:
    with meeting(place, "listen", tmp_path) as (stack, robot):
        assert stack.next("described")["kind"] == "offer"
        connected(stack, robot)
        ours, theirs = next(told["pair"] for told in stack.told if told["event"] == "pair")
        assert place.net.peer_a.public_address in ours
        assert place.net.peer_b.public_address in theirs
        chat(stack, robot, "hello")
        exchange_files(stack, robot, tmp_path)
        stream(stack, robot)
        pull_the_cable(place.net.peer_a, robot)
        stack.next("restart-asked")
        assert stack.next("described")["kind"] == "offer"  # with the credentials that it had
        _refuses_a_restart(stack)
        chat(stack, robot, "after the cable")
        stack.do("end")
        # Its goodbye is one packet. Where that is lost consent runs out, after 30 s.
        robot.next("ended", 50)


def test_a_stack_that_is_there_first_answers_the_program(place: Homes, tmp_path: Path) -> None:
    with meeting(place, "connect", tmp_path) as (stack, robot):
        assert stack.next("described")["kind"] == "answer"
        connected(stack, robot)
        chat(stack, robot, "good morning")
        pull_the_cable(place.net.peer_b, robot)
        assert stack.next("told")["generation"] >= 1
        _refuses_a_restart(stack)
        chat(stack, robot, "after the cable")
        robot.do("close")
        assert stack.next("closed")["closed"] == "messages"


def test_a_wrong_secret_is_refused_and_said_on_both_sides(place: Homes, tmp_path: Path) -> None:
    wrong_secret(place, tmp_path)


@pytest.mark.parametrize("role", ["listen", "connect"])
def test_another_certificate_than_the_stack_has_described_is_refused(
    place: Homes, role: str, tmp_path: Path
) -> None:
    another_certificate_than_the_stacks(place, role, tmp_path)


@pytest.mark.parametrize("role", ["listen", "connect"])
def test_the_stack_refuses_another_certificate_than_the_program_has_described(
    place: Homes, role: str, tmp_path: Path
) -> None:
    with meeting(place, role, tmp_path, lie="theirs") as (stack, robot):
        failure = robot.next(FAILURES)
        assert failure["error"] == "HandshakeFailed"
        assert "the peer refused the DTLS handshake" in failure["why"]
        assert stack.next("goodbye")["reason"] == failure["why"]
        while not any("Invalid fingerprint" in told.get("log", "") for told in stack.told):
            stack.next("log")
