"""The plainest machine there is: a socket that keeps what it gets."""

from __future__ import annotations

from ice_punch.datagram import Address, Transmit
from ice_punch.lab.virtual.host import VirtualHost


class Socket:
    """Sends what it is told, keeps datagrams and ICMP errors, and echoes when asked to."""

    def __init__(
        self, host: VirtualHost, port: int = 5000, *, ip: str | None = None, echo: bool = False
    ) -> None:
        self.host = host
        self.local: Address = (ip or host.address, port)
        self.received: list[tuple[float, bytes, Address]] = []
        self.errors: list[tuple[float, Address, Address]] = []
        """When, and from where to where it was that did not arrive."""
        self.echo = echo
        self._outgoing: list[Transmit] = []
        host.internet.attach(host, self, ports=[port], ips=[self.local[0]])

    def send(self, destination: Address, data: bytes = b"probe") -> None:
        self._outgoing.append(Transmit(data, self.local, destination))

    def receive_datagram(self, data: bytes, source: Address, local: Address, now: float) -> None:
        assert local == self.local
        self.received.append((now, data, source))
        if self.echo:
            self._outgoing.append(Transmit(data, local, source))

    def receive_icmp_error(self, local: Address, destination: Address, now: float) -> None:
        self.errors.append((now, local, destination))

    def datagrams_to_send(self, now: float) -> list[Transmit]:
        out, self._outgoing = self._outgoing, []
        return out

    @property
    def sources(self) -> list[Address]:
        return [source for _, _, source in self.received]

    @property
    def data(self) -> list[bytes]:
        return [data for _, data, _ in self.received]
