"""What came of the servers that gathering asked, for the report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ice_punch.net.gathering_options import GatheringOptions
from ice_punch.net.ice_server import IceServer
from ice_punch.net.interfaces import InterfaceAddress
from ice_punch.report import Report, ServerReport

MAX_REPORTS = 256
"""Past that nothing more is told: networks may come and go for days."""

_NO_HOSTS: frozenset[str] = frozenset()


class GatheringNotes:
    """Of names and relays; the agent reports its own queries."""

    def __init__(self, options: GatheringOptions) -> None:
        self.reports: list[ServerReport] = []
        self._options = options
        self._rounds: list[list[IceServer]] = []
        self._tcp_hosts = _NO_HOSTS
        self._nothing_gathered = ""

    def add(self, server: IceServer, outcome: str, detail: str, purpose: str) -> None:
        """As in ``ServerReport``."""
        if len(self.reports) < MAX_REPORTS:
            self.reports.append(ServerReport(server.uri, outcome, detail, purpose))

    def note_tcp(self, host: str) -> None:
        self._tcp_hosts |= {host}

    def begin(self) -> list[IceServer]:
        """A round of gathering: a list for the servers that are under way in it."""
        under_way: list[IceServer] = []
        self._rounds.append(under_way)
        return under_way

    def end(self, under_way: list[IceServer]) -> None:
        """The round is over. (By identity: two rounds may be equal.)"""
        self._rounds = [other for other in self._rounds if other is not under_way]

    def report_late(self, under_way: Iterable[IceServer]) -> None:
        """Name the servers whose name or relay was still awaited at the end."""
        told = {report.uri for report in self.reports}
        for server in under_way:
            within = f"within {self._options.timeout:g} s"
            if server.uri in told:
                continue
            if server.is_relay:
                self.add(server, "silent", f"{server.uri} did not answer {within}", "relay")
            else:
                why = f"the name {server.host} was not resolved {within}"
                self.add(server, "unresolved", why, "address")

    def nothing_gathered(self, addresses: Sequence[InterfaceAddress]) -> None:
        """There is no candidate of any kind; ``addresses`` there are."""
        where = f" on {self._options.interface}" if self._options.interface else ""
        if not self._options.relay_only:
            what = "no socket could be opened" if addresses else "no usable address was found"
            self._nothing_gathered = f"{what}{where}"

    def complete(self, report: Report, *, over_udp: bool) -> Report:
        """The agent's report with what is known here. ``over_udp``: a relay was reached by UDP."""
        return replace(
            report,
            servers=(*report.servers, *self.reports, *self._pending(report)),
            udp_works=True if over_udp else report.udp_works,
            tcp_hosts=tuple(sorted(self._tcp_hosts)),
            direct_only=self._options.direct_only,
            relay_only=self._options.relay_only,
            nothing_gathered=self._nothing_gathered,
        )

    def _pending(self, report: Report) -> list[ServerReport]:
        """Of the servers that are under way, what is neither told nor asked by the agent."""
        told = {(server.uri, server.purpose) for server in (*report.servers, *self.reports)}
        under_way = [server for servers in self._rounds for server in servers]
        wanted = [
            *((s, "relay") for s in under_way if s.is_relay and not self._options.direct_only),
            *((s, "address") for s in under_way if not s.is_relay),
        ]
        return [
            ServerReport(server.uri, "pending", "", purpose)
            for server, purpose in wanted
            if (server.uri, purpose) not in told
        ]
