"""Where rooms live: in this process (:mod:`signaling.backends.memory`), or shared by several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Protocol

from signaling.effects import Effect
from signaling.messages import IceInfo

Apply = Callable[[list[Effect]], None]


class Backend(Protocol):
    """What :class:`signaling.server.SignalingServer` reports to and takes its orders from.

    The calls report what happened to the connections of this process, at the time ``now``, and
    return at once. What is to be done about it comes through ``apply``: during the call, or later
    if the backend has to ask another process first. Connection numbers are this process's own.
    """

    @property
    def counters(self) -> Counter[str]: ...

    @property
    def sizes(self) -> dict[str, int]: ...

    async def start(self, apply: Apply) -> None: ...

    @property
    def ready(self) -> bool:
        """Whether new clients are served as they should be: ``/readyz``."""

    def on_open(
        self,
        connection: int,
        address: tuple[str, int],
        now: float,
        *,
        host: str = "",
        origin: str | None = None,
    ) -> None: ...

    def on_message(self, connection: int, data: str | bytes, now: float) -> None: ...

    def on_ice_servers(self, connection: int, ice: IceInfo | None, now: float) -> None:
        """What an ``AwaitIce`` effect came to."""

    def on_close(self, connection: int, now: float) -> None: ...

    def on_timer(self, now: float) -> None: ...

    def get_timer(self) -> float | None: ...

    def drain(self, in_s: float, jitter_s: float) -> None:
        """Tell everybody that this process goes away in ``in_s`` seconds."""

    def dismiss(self, connection: int) -> None:
        """Close one connection with code 4000; its session waits for a resume elsewhere."""

    async def close(self) -> None: ...
