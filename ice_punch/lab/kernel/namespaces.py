"""Linux network namespaces: make, enter, run something in, remove."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import os
import pickle
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NoReturn, TypeVar

from ice_punch.errors import IcePunchError
from ice_punch.lab.behaviour import Mapping, NatBehaviour, PortAllocation
from ice_punch.lab.kernel.nat_rules import nat_rules
from ice_punch.lab.kernel.processes import end_processes, signals_held

T = TypeVar("T")

PREFIX = "icep-"
DIRECTORY = "/run/netns"
CLONE_NEWNET = 0x40000000
_SEARCH_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
_TRIAL = NatBehaviour(mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT, allocation=PortAllocation.RANDOM)
"""Its rules need everything that any rules need."""
_counter = itertools.count(1)


class LaboratoryError(IcePunchError):
    """The kernel laboratory can not be built, or something in it failed."""


def tool(name: str) -> str:
    """The full path of a system program. Raises :class:`LaboratoryError` when it is missing."""
    path = shutil.which(name, path=_SEARCH_PATH)
    if path is None:
        raise LaboratoryError(f"the program {name} is not installed")
    return path


def missing(name: str) -> bool:
    return shutil.which(name, path=_SEARCH_PATH) is None


def run_tool(name: str, *arguments: str, script: str | None = None) -> str:
    """Run a system program to its end and return what it printed.

    ``script`` goes to its standard input. Raises :class:`LaboratoryError` with its own words.
    """
    done = subprocess.run(
        [tool(name), *arguments], input=script or "", capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip() or f"exit status {done.returncode}"
        raise LaboratoryError(f"{name} {' '.join(arguments)}: {said}")
    return done.stdout


def new_names(*roles: str) -> list[str]:
    """Unique namespace names that tell their owner: prefix, process id, counter, role."""
    number = next(_counter)
    return [f"{PREFIX}{os.getpid()}-{number}-{role}" for role in roles]


def make(*namespaces: str) -> None:
    run_tool("ip", "-batch", "-", script="".join(f"netns add {n}\n" for n in namespaces))


def remove(*namespaces: str) -> None:
    """Remove the namespaces that exist, and end what runs in them or is on its way in."""
    with contextlib.ExitStack() as stack:
        # What has opened a namespace enters it after its removal, too. Held open, no other gets
        # its number.
        inodes = {}
        for name in namespaces:
            with contextlib.suppress(FileNotFoundError):
                held = stack.enter_context(open(f"{DIRECTORY}/{name}", "rb"))
                inodes[name] = os.fstat(held.fileno()).st_ino
        if not inodes:
            return
        script = "".join(f"netns del {n}\n" for n in inodes)
        run_tool("ip", "-force", "-batch", "-", script=script)
        there = {*inodes.values()}
        end_processes(_pids(lambda pid: _inode(pid) in there or _destination(pid) in inodes))


def pids_in(*namespaces: str) -> list[int]:
    """The processes in any of the namespaces; none for one that does not exist."""
    inodes = set()
    for name in namespaces:
        with contextlib.suppress(OSError):
            inodes.add(os.stat(f"{DIRECTORY}/{name}").st_ino)
    return _pids(lambda pid: _inode(pid) in inodes) if inodes else []


def _pids(matches: Callable[[int], bool]) -> list[int]:
    found: list[int] = []
    for pid in [int(entry) for entry in os.listdir("/proc") if entry.isdecimal()]:
        with contextlib.suppress(OSError):
            if matches(pid):
                found.append(pid)
    return found


def _inode(pid: int) -> int:
    return os.stat(f"/proc/{pid}/ns/net").st_ino


def _destination(pid: int) -> str | None:
    """The namespace that the ``ip`` of a :func:`command_in` is to enter."""
    with open(f"/proc/{pid}/cmdline", "rb") as line:
        name, *words = os.fsdecode(line.read()).split("\0")
    entering = os.path.basename(name) == "ip" and words[:2] == ["netns", "exec"]
    return words[2] if entering and len(words) > 2 else None


def command_in(namespace: str, command: list[str]) -> list[str]:
    """The command line that runs ``command`` in the namespace, as the same process."""
    return [tool("ip"), "netns", "exec", namespace, *command]


@contextlib.contextmanager
def enter(namespace: str) -> Iterator[None]:
    """Put the calling thread in a namespace: sockets it opens meanwhile belong there for good.

    Raises :class:`LaboratoryError` when there is no such namespace.
    """
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter_for_good(namespace)
        try:
            yield
        finally:
            _set_namespace(before)
    finally:
        os.close(before)


_forking = threading.Lock()
"""A child that is forked meanwhile would hold the pipe of another open, and its answer up."""


def run_in(namespace: str, function: Callable[[], T], *, timeout: float = 30.0) -> T:
    """Call ``function`` in a forked process inside the namespace and return its result.

    The result, or the exception, comes back by pickle. Raises what ``function`` raises,
    :class:`TimeoutError` after ``timeout`` seconds (the process is killed), and
    :class:`LaboratoryError` when it dies without a word.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with _forking:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            _forking.release()
            os.close(reading)
            _answer(namespace, function, writing)
        os.close(writing)
    try:
        said = _read_until_closed(reading, timeout)
    finally:
        os.close(reading)
        _reap(child)
    if not said:
        raise LaboratoryError(f"the process in {namespace} died without a result")
    succeeded, result = pickle.loads(said)  # noqa: S301
    if not succeeded:
        raise result
    value: T = result
    return value


def owner(namespace: str) -> int | None:
    """The process that made a namespace, from its name; ``None`` when it is not one of ours."""
    if not namespace.startswith(PREFIX):
        return None
    pid = namespace[len(PREFIX) :].split("-", 1)[0]
    return int(pid) if pid.isdecimal() else None


def ours(*, pid: int | None = None) -> list[str]:
    """The laboratory's namespaces on this machine; with ``pid`` those of that process."""
    try:
        names = os.listdir(DIRECTORY)
    except OSError:
        return []
    owners = {name: owner(name) for name in sorted(names)}
    return [n for n, o in owners.items() if o is not None and pid in (None, o)]


def leftovers() -> list[str]:
    """Namespaces whose owner is gone: killed before it could remove them."""
    return [n for n in ours() if not _is_alive(owner(n) or 0)]


def remove_leftovers() -> list[str]:
    """Remove them, and whatever still runs in them. Returns their names."""
    names = leftovers()
    remove(*names)
    return names


@functools.cache
def available() -> str | None:
    """``None`` when kernel laboratories can be built here, else the reason why not."""
    if not sys.platform.startswith("linux"):
        return "network namespaces need Linux"
    if os.geteuid() != 0:
        return "network namespaces need root"
    (name,) = new_names("try")
    try:
        tool("nft")
        with signals_held():
            try:
                make(name)
                run_tool("ip", "-n", name, "-batch", "-", script="link add v0 type veth\n")
                with enter(name):
                    run_tool("nft", "-f", "-", script=nat_rules(_TRIAL, ("192.0.2.1",)))
            finally:
                remove(name)
    except (LaboratoryError, OSError) as error:
        why = str(error).partition("\n")[0]
        return f"no network namespaces with nftables here: {why}"
    return None


def _set_namespace(fd: int) -> None:
    # os.setns exists from Python 3.12 on.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise LaboratoryError(f"can not enter the network namespace: {os.strerror(error)}")


def enter_for_good(namespace: str) -> None:
    """Put the calling thread in a namespace. Raises like :func:`enter`."""
    try:
        fd = os.open(f"{DIRECTORY}/{namespace}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise LaboratoryError(f"there is no namespace {namespace}") from error
    try:
        _set_namespace(fd)
    finally:
        os.close(fd)


def _answer(namespace: str, function: Callable[[], object], writing: int) -> NoReturn:
    status = 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        answer: tuple[bool, object]
        try:
            enter_for_good(namespace)
            answer = (True, function())
        except BaseException as error:
            answer = (False, error)
        try:
            data = pickle.dumps(answer)
            pickle.loads(data)  # noqa: S301
        except Exception:
            data = pickle.dumps((False, LaboratoryError(f"not to be pickled: {answer[1]!r}")))
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(data)
        status = 0
    finally:
        os._exit(status)


def _read_until_closed(fd: int, timeout: float) -> bytes:
    deadline = time.monotonic() + timeout
    parts: list[bytes] = []
    while True:
        ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise TimeoutError(f"nothing came back from the namespace in {timeout:g} s")
        part = os.read(fd, 1 << 16)
        if not part:
            return b"".join(parts)
        parts.append(part)


def _reap(child: int) -> None:
    # It has answered and is gone or about to go, or it is late and its answer not wanted.
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid > 0
