"""Run a Python block of the documentation: ``docs_python.py FILE``.

A program is run as one. A block without imports runs as in an asyncio REPL, with ``ice_punch``,
``channel`` and ``link``. A block that only defines coroutine functions has them run side by side:
those with a parameter ``link`` get the first link that another one prints.
"""

from __future__ import annotations

import ast
import asyncio
import builtins
import inspect
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import CodeType
from typing import Any

import ice_punch

SERVER = "http://127.0.0.1:8080"
TIMEOUT = 20.0


async def echo(listener: ice_punch.peer.Listener) -> None:
    async def answer(channel: ice_punch.Channel) -> None:
        async for datagram in channel:
            await channel.send(datagram)

    answering = set()
    while True:
        answering.add(asyncio.ensure_future(answer(await listener.accept())))


async def in_repl(code: CodeType) -> None:
    async with ice_punch.listen(SERVER) as listener:
        echoing = asyncio.ensure_future(echo(listener))
        async with ice_punch.connect(listener.link) as channel:
            names = {"ice_punch": ice_punch, "link": listener.link, "channel": channel}
            async with asyncio.timeout(TIMEOUT):
                waiting = eval(code, names)
                if code.co_flags & inspect.CO_COROUTINE:
                    await waiting
        echoing.cancel()


async def side_by_side(sides: list[Callable[..., Coroutine[Any, Any, None]]], names: Any) -> None:
    link: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def show(*values: object) -> None:
        builtins.print(*values)
        if not link.done() and str(values[0]).startswith("http"):
            link.set_result(str(values[0]))

    async def run(side: Callable[..., Coroutine[Any, Any, None]]) -> None:
        await (side(await link) if "link" in inspect.signature(side).parameters else side())

    names["print"] = show
    async with asyncio.timeout(TIMEOUT):
        await asyncio.gather(*map(run, sides))


def main(path: str) -> None:
    source = Path(path).read_text()
    code = compile(source, path, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if "import " not in source:
        asyncio.run(in_repl(code))
        return
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(code, names)
    sides = [value for value in names.values() if inspect.iscoroutinefunction(value)]
    if sides and "asyncio.run(" not in source:
        asyncio.run(side_by_side(sides, names))


if __name__ == "__main__":
    main(sys.argv[1])
