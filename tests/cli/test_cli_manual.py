"""``--manual``: a channel by copy and paste, without any server."""

from __future__ import annotations

import pytest
from cli_support import HERE, only_line, run

from support.commands import Command

HTTP_NOWHERE = {"ICE_PUNCH_SERVER": "http://127.0.0.1:1"}


@pytest.mark.parametrize("both", [(), ("--no-encrypt",)])
def test_two_blobs_are_all_it_takes(both: tuple[str, ...]) -> None:
    with (
        Command("listen", "--manual", *HERE, "--json", *both, environment=HTTP_NOWHERE) as a,
        Command("connect", "--manual", *HERE, "--json", *both, environment=HTTP_NOWHERE) as b,
    ):
        offer = a.event("blob")
        assert offer["kind"] == "offer"
        b.send(offer["blob"].encode() + b"\nthe first data\n")
        answer = b.event("blob")
        assert answer["kind"] == "answer"
        a.send(b"\n" + answer["blob"].encode() + b"\r\n")
        a.event("connected")
        b.event("connected")
        a.received(b"the first data")
        a.send(b"and back\n")
        b.received(b"and back")


def test_the_offer_may_stand_where_the_link_does() -> None:
    with Command("listen", "--manual", *HERE, "--json") as a:
        offer = a.event("blob")["blob"]
        with Command("connect", "--manual", offer, *HERE, "--json") as b:
            a.send(b.event("blob")["blob"].encode() + b"\n")
            b.send(b"hello\n")
            a.received(b"hello")


def test_a_wrong_paste_is_told_and_may_be_mended() -> None:
    with (
        Command("listen", "--manual", *HERE, "--json") as a,
        Command("connect", "--manual", *HERE, "--json") as b,
    ):
        offer = a.event("blob")["blob"]
        b.send(offer.encode() + b"\n")
        answer = b.event("blob")["blob"]
        a.send(offer.encode() + b"\n")
        a.until(lambda: len(_warnings(a)) == 1, 10, "warning")
        a.send(answer[:-20].encode() + b"\n")
        a.until(lambda: len(_warnings(a)) == 2, 10, "warning")
        a.send(answer.encode() + b"\n")
        b.event("connected")
        assert "this is an offer" in _warnings(a)[0]
        assert "cut off or garbled" in _warnings(a)[1]


def _warnings(command: Command) -> list[str]:
    return [event["message"] for event in command.events if event["event"] == "warning"]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "the input ended before the offer came"),
        (b"http://h/j/room#secret\n", "this is no offer"),
        (b"icepunch1-answer.xyz\n", "this is an answer"),
        (b"icepunch1-offer.xyz\n", "cut off or garbled"),
    ],
)
def test_what_is_no_offer_is_one_line(data: bytes, says: str) -> None:
    done = run("connect", "--manual", *HERE, data=data)
    assert done.returncode != 0
    assert done.stdout == ""
    assert says in only_line(done.stderr)


def test_one_side_alone_without_encryption_is_told() -> None:
    with Command("listen", "--manual", "--no-encrypt", *HERE, "--json") as a:
        done = run("connect", "--manual", a.event("blob")["blob"], *HERE)
        assert done.returncode == 1
        assert "does not encrypt" in only_line(done.stderr)
