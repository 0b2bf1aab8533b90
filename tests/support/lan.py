"""Two hosts on one cable, in kernel namespaces; the first has another interface, to nowhere."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ice_punch.lab.kernel import namespaces


@dataclass(frozen=True)
class Place:
    """A namespace, as ``introduce`` wants it."""

    namespace: str

    def call(self, function: Callable[[], Any], timeout: float = 40.0) -> Any:
        return namespaces.run_in(self.namespace, function, timeout=timeout)


def ip(*commands: str) -> None:
    """Of iproute2."""
    for command in commands:
        subprocess.run([namespaces.tool("ip"), *command.split()], check=True, capture_output=True)


@contextlib.contextmanager
def two_hosts() -> Iterator[tuple[Place, Place]]:
    """192.0.2.5 and .6, 2001:db8::5 and ::6 on ``lan0``; 198.51.100.5 on ``alone0``."""
    one, two = namespaces.new_names("lan1", "lan2")
    namespaces.make(one, two)
    try:
        ip(
            f"link add lan0 netns {one} type veth peer name lan0 netns {two}",
            f"-n {one} link add alone0 type veth peer name spare0",
        )
        for name, number in ((one, 5), (two, 6)):
            ip(
                f"-n {name} addr add 192.0.2.{number}/24 dev lan0",
                f"-n {name} addr add 2001:db8::{number}/64 dev lan0 nodad",
                f"-n {name} link set lo up",
                f"-n {name} link set lan0 up",
                f"-n {name} route add default dev lan0",
            )
        ip(
            f"-n {one} addr add 198.51.100.5/24 dev alone0",
            f"-n {one} link set alone0 up",
            f"-n {one} link set spare0 up",
        )
        yield Place(one), Place(two)
    finally:
        namespaces.remove(one, two)
