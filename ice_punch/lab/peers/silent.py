"""A peer that went away after it had told its candidates."""

from __future__ import annotations

from ice_punch.datagram import Address, Transmit
from ice_punch.lab.peers.base import BaseMachine


class SilentMachine(BaseMachine):
    """Has credentials and host candidates, and never sends anything."""

    def receive_datagram(self, data: bytes, source: Address, local: Address, now: float) -> None:
        return

    def datagrams_to_send(self, now: float) -> list[Transmit]:
        return []
