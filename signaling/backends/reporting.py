"""What every backend does with a report of the server's: pass it on to its rooms."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Generic, TypeVar

from signaling.backends import Apply
from signaling.effects import Effect
from signaling.messages import IceInfo

if TYPE_CHECKING:
    from signaling.backends.shared_rooms import SharedRooms
    from signaling.rooms import Rooms

R = TypeVar("R", bound="Rooms | SharedRooms")


class ReportingBackend(Generic[R]):
    """The part of a :class:`signaling.backends.Backend` between the server and a state machine."""

    def __init__(self, rooms: R) -> None:
        self._rooms = rooms
        self._apply: Apply = _ignore

    @property
    def counters(self) -> Counter[str]:
        return self._rooms.counters

    @property
    def sizes(self) -> dict[str, int]:
        return self._rooms.sizes

    def on_open(
        self,
        connection: int,
        address: tuple[str, int],
        now: float,
        *,
        host: str = "",
        origin: str | None = None,
    ) -> None:
        self._do(self._rooms.on_open(connection, address, now, host=host, origin=origin))

    def on_message(self, connection: int, data: str | bytes, now: float) -> None:
        self._do(self._rooms.on_message(connection, data, now))

    def on_ice_servers(self, connection: int, ice: IceInfo | None, now: float) -> None:
        self._do(self._rooms.on_ice_servers(connection, ice, now))

    def on_close(self, connection: int, now: float) -> None:
        self._do(self._rooms.on_close(connection, now))

    def on_timer(self, now: float) -> None:
        self._do(self._rooms.on_timer(now))

    def get_timer(self) -> float | None:
        return self._rooms.get_timer()

    def drain(self, in_s: float, jitter_s: float) -> None:
        self._do(self._rooms.drain(in_s, jitter_s))

    def dismiss(self, connection: int) -> None:
        self._do(self._rooms.dismiss(connection))

    def _do(self, effects: list[Effect]) -> None:
        self._apply(effects)


def _ignore(effects: list[Effect]) -> None:
    """Whoever is closed has no orders to give any more."""
