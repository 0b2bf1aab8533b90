"""`listen` and `connect` with a browser at the other end, and files between commands.

The browser is stock aiortc behind the page's protocol (`support.tab`).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from cli_support import HERE, connected, listening, run
from test_cli_terminal import Terminal

from support.commands import Command
from support.tab import Messages, Tab, tab

CONTENT = bytes(range(256)) * 2000


def _with_tab(link: str, story: Callable[[Tab], Awaitable[None]]) -> None:
    async def meet() -> None:
        async with tab(link) as page:
            await page.connected()
            await asyncio.wait_for(story(page), 20)

    asyncio.run(meet())


def test_lines_go_both_ways_between_a_pipe_and_a_page(server: str) -> None:
    with listening(server) as (listener, link):

        async def story(page: Tab) -> None:
            page.messages.send("from the page: grüße")
            await asyncio.to_thread(listener.received, "from the page: grüße\n".encode())
            await asyncio.to_thread(listener.send, "to the page: größer\nand more\n".encode())
            assert await page.messages.next() == "to the page: größer"
            assert await page.messages.next() == "and more"
            page.datagrams.send(b"a datagram")
            await asyncio.to_thread(listener.received, b"a datagram")
            await asyncio.to_thread(listener.send, b"\xff\xfe binary\n")
            assert await page.messages.next() == b"\xff\xfe binary\n"

        _with_tab(link, story)
        assert listener.exit_code() == 0
        assert listener.event("connected")["dtls"]["version"].startswith("DTLS")
        assert listener.event("closed")["reason"] == "the peer closed the channel"


def test_a_person_at_a_terminal_chats_with_a_page(server: str) -> None:
    terminal = Terminal("listen", "--server", server, *HERE, "--json")
    try:
        terminal.until(b'"listening"')
        link = next(
            json.loads(line)["link"]
            for line in terminal.errors.decode().splitlines()
            if '"listening"' in line
        )

        async def story(page: Tab) -> None:
            page.messages.send("hello \x1b[31mred")
            await asyncio.to_thread(terminal.until, "hello \ufffd[31mred\r\n".encode())
            await asyncio.to_thread(terminal.type, b"typed\n")
            assert await page.messages.next() == "typed"

        _with_tab(link, story)
        terminal.until(b'"closed"')
    finally:
        terminal.close()


def test_with_a_size_piped_input_goes_out_as_datagrams(server: str) -> None:
    with listening(server, "--size", "4") as (listener, link):

        async def story(page: Tab) -> None:
            await asyncio.to_thread(listener.send, b"12345678")
            assert {await page.datagrams.next(), await page.datagrams.next()} == {b"1234", b"5678"}

        _with_tab(link, story)


def test_a_page_puts_a_file_into_the_directory(server: str, tmp_path: Path) -> None:
    with listening(server, "--files", str(tmp_path)) as (listener, link):

        async def story(page: Tab) -> None:
            channel = Messages(page.pc.createDataChannel("up.bin", protocol="icepunch.file.1"))
            await asyncio.wait_for(channel.opened.wait(), 5)
            channel.send(json.dumps({"name": "../up.bin", "size": len(CONTENT)}))
            assert json.loads(await channel.next()) == {"ok": True}
            for at in range(0, len(CONTENT), 16384):
                channel.send(CONTENT[at : at + 16384])
            sha256 = hashlib.sha256(CONTENT).hexdigest()
            channel.send(json.dumps({"sha256": sha256}))
            assert json.loads(await channel.next(10)) == {"ok": True, "sha256": sha256}
            channel.channel.close()

        _with_tab(link, story)
        told = listener.event("file_received")
        assert told["path"] == str(tmp_path / "up.bin")
        assert told["sha256"] == hashlib.sha256(CONTENT).hexdigest()
        assert listener.exit_code() == 0
    assert (tmp_path / "up.bin").read_bytes() == CONTENT


def test_a_command_sends_a_file_to_a_page(server: str, tmp_path: Path) -> None:
    source = tmp_path / "down.bin"
    source.write_bytes(CONTENT)
    with listening(server, "--send", str(source)) as (listener, link):

        async def story(page: Tab) -> None:
            channel = Messages(await asyncio.wait_for(page.channels.get(), 5))
            assert channel.channel.protocol == "icepunch.file.1"
            assert channel.channel.label == "down.bin"
            assert json.loads(await channel.next()) == {"name": "down.bin", "size": len(CONTENT)}
            channel.send('{"ok": true}')
            came = b""
            while isinstance(piece := await channel.next(), bytes):
                assert len(piece) <= 16384
                came += piece
            assert came == CONTENT
            assert json.loads(piece)["sha256"] == hashlib.sha256(CONTENT).hexdigest()
            channel.send(json.dumps({"ok": True, **json.loads(piece)}))
            await asyncio.wait_for(channel.closed.wait(), 5)

        _with_tab(link, story)
        assert listener.event("file_sent")["size"] == len(CONTENT)
        assert listener.exit_code() == 0


def test_files_go_from_command_to_command(server: str, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    sources = [tmp_path / "one.txt", tmp_path / "two.bin"]
    sources[0].write_text("one")
    sources[1].write_bytes(CONTENT)
    send = [part for source in sources for part in ("--send", str(source))]
    with connected(server, listen=("--files", str(there)), connect=send) as (listener, connector):
        assert connector.exit_code() == 0
        assert listener.exit_code() == 0
        assert [e["size"] for e in listener.events if e["event"] == "file_received"] == [
            3,
            len(CONTENT),
        ]
    assert (there / "one.txt").read_text() == "one"
    assert (there / "two.bin").read_bytes() == CONTENT


def test_a_file_for_a_side_that_takes_none_is_one_clear_line(server: str, tmp_path: Path) -> None:
    source = tmp_path / "a.txt"
    source.write_text("a")
    with listening(server) as (_, link):
        done = run("connect", link, *HERE, "--send", str(source))
    assert done.returncode == 1
    assert "the peer refused the file: this side takes no files" in done.stderr.splitlines()[-1]


def test_a_tab_that_closes_in_the_middle_of_a_file_ends_it(server: str, tmp_path: Path) -> None:
    with listening(server, "--files", str(tmp_path)) as (listener, link):

        async def story(page: Tab) -> None:
            channel = Messages(page.pc.createDataChannel("x", protocol="icepunch.file.1"))
            await asyncio.wait_for(channel.opened.wait(), 5)
            channel.send(json.dumps({"name": "x", "size": 100_000}))
            await channel.next()
            channel.send(bytes(16384))

        _with_tab(link, story)
        assert listener.event("file_failed")["reason"] == "the peer cancelled it"
        assert listener.exit_code() == 0
    assert not os.listdir(tmp_path)


def test_a_tab_that_closes_while_it_is_sent_a_file_is_a_failure(
    server: str, tmp_path: Path
) -> None:
    source = tmp_path / "down.bin"
    source.write_bytes(CONTENT * 20)
    with listening(server, "--send", str(source)) as (listener, link):

        async def story(page: Tab) -> None:
            channel = Messages(await asyncio.wait_for(page.channels.get(), 5))
            await channel.next()
            channel.send('{"ok": true}')
            await channel.next()

        _with_tab(link, story)
        assert listener.exit_code() == 1
        told = listener.event("error")
        assert told["error"] == "TransferFailed"
        assert told["message"] == f"{source} was not sent: the peer closed the channel"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--files", "/nowhere"), "--files /nowhere: it is not a directory"),
        (("--send", "/nowhere"), "--send /nowhere: it is not a file"),
        (("--files", ".", "--no-encrypt"), "files need encryption"),
        (("--files", ".", "--manual"), "files need a link"),
    ],
)
def test_wrong_use_is_one_line(arguments: tuple[str, ...], sentence: str) -> None:
    done = run("listen", *arguments)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_link_that_is_used_up_is_one_clear_line_for_the_next(server: str) -> None:
    with listening(server) as (listener, link):

        async def story(page: Tab) -> None:
            with Command("connect", link, *HERE, "--json", "--timeout", "3") as late:
                error = await asyncio.to_thread(late.event, "error")
                assert "full" in error["message"]

        _with_tab(link, story)
        assert listener.exit_code() == 0
