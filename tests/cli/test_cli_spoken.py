"""``listen --code`` and ``connect --code``: a number and two words in place of a link."""

from __future__ import annotations

import json
import re

from cli_support import HERE, only_line, run

from support.commands import Command


def test_a_code_leads_to_the_peer(server: str) -> None:
    with Command("listen", "--server", server, *HERE, "--json", "--code") as listener:
        told = listener.event("code")
        assert re.fullmatch(r"[1-9][0-9]{0,2}-[a-z]+-[a-z]+", told["code"])
        assert told["command"] == f"ice-punch connect --server {server} --code {told['code']}"
        with Command("connect", "--server", server, "--code", told["code"], *HERE, "--json") as it:
            it.event("connected")
            it.send(b"said, not pasted\n")
            listener.received(b"said, not pasted")
        late = run("connect", "--server", server, "--code", told["code"])
        assert (late.returncode, late.stdout) == (1, "")
        assert "nobody waits under number" in only_line(late.stderr)


def test_three_wrong_codes_end_the_listening_with_one_line(server: str) -> None:
    with Command("listen", "--server", server, *HERE, "--json", "--code") as listener:
        number = listener.event("code")["code"].partition("-")[0]
        for says in ("are wrong", "are wrong", "is void"):
            guess = run("connect", "--server", server, "--code", f"{number} zoo zone")
            assert guess.returncode == 1
            assert says in only_line(guess.stderr)
        assert listener.exit_code() == 1
        error = listener.event("error")
        assert error["error"] == "CodeSpent"
        assert "wrong codes" in error["message"]


def test_what_is_no_code_and_what_does_not_go_together(server: str) -> None:
    for arguments, code, says in (
        (["connect", "--code", "seven"], 1, "a number and two words"),
        (["connect", "--code", "7-orbit-guitar", "http://h/j/x#y"], 2, "exclude each other"),
        (["connect", "--code", "7-orbit-guitar", "--manual"], 2, "exclude each other"),
        (["listen", "--code", "--manual"], 2, "exclude each other"),
        (["listen", "--ca-file", "/no/such/file"], 2, "no such file"),
    ):
        done = run(*arguments)
        assert (done.returncode, done.stdout) == (code, "")
        assert says in only_line(done.stderr)


def test_for_people_the_code_is_two_lines(server: str) -> None:
    with Command("listen", "--server", server, *HERE, "--code") as listener:
        listener.until(lambda: len(listener.errors) == 2, 20, "code")
        first, second = listener.errors
        code = first.removeprefix("code: ")
        assert second == (f"on the other side: ice-punch connect --server {server} --code {code}")
        with Command("connect", "--server", server, "--code", code, *HERE, "--json") as other:
            other.event("connected")
            assert not any("code" in json.dumps(event) for event in other.events)
