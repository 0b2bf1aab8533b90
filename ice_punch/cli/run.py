"""From the world of signals and exit codes to the world of tasks, and back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from ice_punch.cli import let_interrupts_raise


class Interrupted(Exception):
    """A signal ended the work."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"ended by signal {signal_number}")
        self.exit_code = 128 + signal_number


def run(
    work: Coroutine[Any, Any, int],
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> int:
    """Run until the end, or until Ctrl-C, SIGTERM or SIGHUP cancel it; the second kills.

    Raises Interrupted when a signal ended it and the work did not make a result of that.
    """
    # Standard error has its own lines; what libraries log is for those who ask for it.
    logging.getLogger().addHandler(logging.NullHandler())
    let_interrupts_raise()
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(_until_signal(work))


async def _until_signal(work: Coroutine[Any, Any, int]) -> int:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    caught: list[int] = []

    def interrupt(number: int) -> None:
        if caught:
            os._exit(128 + number)
        caught.append(number)
        task.cancel()

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        # SIGHUP is ignored under nohup, and is to stay so.
        if number is not None and not (
            name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN
        ):
            # Windows: asyncio itself turns Ctrl-C into a cancellation of this task.
            with contextlib.suppress(NotImplementedError):
                loop.add_signal_handler(number, interrupt, number)
    try:
        return await task
    except asyncio.CancelledError:
        if caught:
            raise Interrupted(caught[0]) from None
        raise
