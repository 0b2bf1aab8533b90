"""GStreamer's webrtcbin, with libnice and an RSA certificate, at a link whose other end is a Python
program: what a page does there, behind kernel NATs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("aiortc", reason="needs the extra webrtc")

from support import foreign_stacks
from support.foreign_links import (
    Homes,
    another_certificate_than_the_stacks,
    chat,
    connected,
    exchange_files,
    homes,
    meeting,
    pull_the_cable,
    settled,
    stream,
    wrong_secret,
)
from support.netns import NETNS

pytestmark = [*NETNS, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Homes]:
    with homes(foreign_stacks.webrtcbin(), tmp_path_factory.mktemp("tls")) as made:
        yield made


def test_a_whole_session_of_a_stack_that_opens_a_programs_link(
    place: Homes, tmp_path: Path
) -> None:
    with meeting(place, "listen", tmp_path) as (stack, robot):
        first = stack.next("described")
        connected(stack, robot)
        ours = [told["line"] for told in stack.told if told["event"] == "ours"]
        assert any(place.net.peer_a.public_address in line for line in ours if line)
        chat(stack, robot, "hello")
        exchange_files(stack, robot, tmp_path)
        stream(stack, robot)
        pull_the_cable(place.net.peer_a, robot)
        stack.next("restart-asked")
        again = stack.next("described")
        # It has no restart of its own: it offers the credentials that it had, and takes ours.
        assert (first["kind"], again["kind"]) == ("offer", "offer")
        assert first["ufrag"] == again["ufrag"]
        settled(robot)
        chat(stack, robot, "after the cable")
        # On its own way it tells nobody that it ends; its program has to.
        stack.do("bye", reason="that was all")
        robot.next("ended", 25)


def test_a_stack_that_is_there_first_answers_the_program(place: Homes, tmp_path: Path) -> None:
    with meeting(place, "connect", tmp_path) as (stack, robot):
        first = stack.next("described")
        connected(stack, robot)
        chat(stack, robot, "good morning")
        pull_the_cable(place.net.peer_b, robot)
        assert stack.next("told")["generation"] >= 1
        again = stack.next("described")
        assert (first["kind"], again["kind"]) == ("answer", "answer")
        assert first["ufrag"] == again["ufrag"]
        settled(robot)
        chat(stack, robot, "after the cable")
        robot.do("close")
        assert stack.next("goodbye")["kind"] == "bye"


def test_a_wrong_secret_is_refused_and_said_on_both_sides(place: Homes, tmp_path: Path) -> None:
    wrong_secret(place, tmp_path)


@pytest.mark.parametrize("role", ["listen", "connect"])
def test_another_certificate_than_the_stack_has_described_is_refused(
    place: Homes, role: str, tmp_path: Path
) -> None:
    another_certificate_than_the_stacks(place, role, tmp_path)


def test_the_stack_compares_no_certificates(place: Homes, tmp_path: Path) -> None:
    """Nobody at its end hears of another one than the program has described."""
    with meeting(place, "connect", tmp_path, lie="theirs") as (stack, robot):
        connected(stack, robot)
        chat(stack, robot, "hello")
