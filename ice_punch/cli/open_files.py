"""How many connections a process may hold: each is an open file."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from signaling.limits import Limits

WANTED = 65536
RESERVED = 64
"""Files for everything but clients: listening, logging, the bus, those who are turned away."""


def raise_open_files() -> int | None:
    """Raise this process's limit of open files as far as it may; the limit, if there is one.

    Shells begin with 1024, for the sake of programs that call ``select``.
    """
    try:
        import resource
    except ImportError:  # Windows
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(hard, WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return None if soft == resource.RLIM_INFINITY else soft


def within_open_files(limits: Limits) -> Limits:
    """``limits`` with no more connections than there are files: who is too much hears of it."""
    files = raise_open_files()
    if files is None:
        return limits
    return replace(limits, connections=min(limits.connections, max(1, files - RESERVED)))
