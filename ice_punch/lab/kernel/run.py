"""Scenarios on the kernel: the counterpart of the virtual internet's ``run``."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

from ice_punch.lab.kernel import namespaces
from ice_punch.lab.kernel.ability import can_run
from ice_punch.lab.kernel.crew import Member, hire, wait_for
from ice_punch.lab.kernel.faults import TOOLS, happen
from ice_punch.lab.kernel.internet import KernelInternet, has_cable
from ice_punch.lab.kernel.layout import STUN_IPS, STUN_IPS_V6, TURN_IP, TURN_IP_V6
from ice_punch.lab.kernel.namespaces import LaboratoryError
from ice_punch.lab.outcome import Outcome, SideOutcome
from ice_punch.lab.scenario import PeerSetup, Relays, Scenario, Side, Verdict

__all__ = ["can_run", "run"]

SIDES: tuple[Side, Side] = ("a", "b")
GATHERING_TIMEOUT = 5.0
"""Seconds for servers to answer, at most."""
PATIENCE = 20.0
"""Seconds until a process that says nothing is given up."""
PAUSE = 0.05
"""Seconds between the end of gathering and the start."""
AFTERMATH = 1.0
"""Seconds before the end at which no more application datagrams are sent."""
STUN_PORT = 3478
USER = ("lab", "relay password")


def run(scenario: Scenario, seed: int = 0, *, record: Path | None = None) -> Outcome:
    """Run a scenario in real time. ``seed`` seeds what the links do; all else is the kernel's.

    With ``record`` both agents are recorded, in ``a.jsonl`` and ``b.jsonl`` of that directory.
    Raises :class:`LaboratoryError` where it can not be run: ``can_run`` has a reason, or this
    machine has, or a process fails.
    """
    return run_on(prepare(scenario, seed), record=record)


def prepare(scenario: Scenario, seed: int = 0) -> KernelInternet:
    """The internet to run a scenario on, which is yet to be built. Raises like ``run``."""
    reason = can_run(scenario) or namespaces.available() or _missing(scenario)
    if reason is not None:
        raise LaboratoryError(reason)
    internet = KernelInternet.of(scenario, seed)
    if any(wire.needs_cable for wire in internet.layout.wires) and not has_cable():
        raise LaboratoryError("links with delay or loss need /dev/net/tun")
    return internet


def run_on(internet: KernelInternet, *, record: Path | None = None) -> Outcome:
    """Build it, run its scenario, and remove it. Whoever closes it meanwhile ends the run with a
    :class:`LaboratoryError`."""
    with internet, contextlib.ExitStack() as stack:
        return _Session(internet, stack, record).run()


def _missing(scenario: Scenario) -> str | None:
    for happening in scenario.happenings:
        name = TOOLS.get(happening.event)
        if name is not None and namespaces.missing(name):
            return f"the program {name} is not installed"
    return None


class _Session:
    def __init__(
        self, internet: KernelInternet, stack: contextlib.ExitStack, record: Path | None
    ) -> None:
        self._internet = internet
        self._scenario = internet.scenario
        self._stack = stack
        self._record = record

    def run(self) -> Outcome:
        self._serve()
        peers = [self._peer(side) for side in SIDES]
        told = [peer.hear(GATHERING_TIMEOUT + PATIENCE)["gathered"] for peer in peers]
        start = self._start(peers, told)
        self._live(peers, start)
        for peer in peers:
            peer.tell(stop=True)
        reports = [self._last_word(peer) for peer in peers]
        if self._record is not None:
            for peer in peers:
                peer.wait_until_gone(PATIENCE)
        return self._outcome(start, reports)

    # -- people -------------------------------------------------------------------------------

    def _serve(self) -> None:
        scenario, ipv6 = self._scenario, self._internet.layout.ipv6
        turn = [] if scenario.relays is Relays.NONE else [TURN_IP, *([TURN_IP_V6] if ipv6 else [])]
        servers = self._hire(
            self._internet.public.namespace,
            "servers",
            stun=[STUN_IPS, *([STUN_IPS_V6] if ipv6 else [])] if scenario.stun else [],
            turn=turn,
            port=STUN_PORT,
            tcp_ports=[443] if scenario.relays is Relays.TCP_443 else [],
            username=USER[0],
            password=USER[1],
        )
        servers.hear(PATIENCE)

    def _peer(self, side: Side) -> Member:
        setup = self._scenario.setup(side)
        return self._hire(
            self._internet.side(side).namespace,
            "peer",
            controlling=side == "a",
            servers=self._uris(side),
            username=USER[0],
            password=USER[1],
            gathering_timeout=self._gathering_timeout(setup),
            record=None if self._record is None else str(self._record / f"{side}.jsonl"),
        )

    def _hire(self, namespace: str, role: str, **parameters: Any) -> Member:
        return self._stack.enter_context(hire(namespace, role, **parameters))

    def _uris(self, side: Side) -> list[str]:
        own = self._internet.side(side).addresses
        versions = {":" in ip for ip in own}
        uris: list[str] = []
        asked = self._scenario.stun_servers
        uris += [
            f"stun:{_bracketed(ip)}"
            for ip in (*STUN_IPS[:asked], *STUN_IPS_V6[:asked])
            if (":" in ip) in versions
        ]
        if self._scenario.relays is not Relays.NONE:
            turn = _bracketed(TURN_IP if False in versions else TURN_IP_V6)
            uris.append(f"turn:{turn}")
            if self._scenario.relays is Relays.TCP_443:
                uris.append(f"turn:{turn}:443?transport=tcp")
        return uris

    def _gathering_timeout(self, setup: PeerSetup) -> float:
        """Where nothing gets lost, nothing has to be asked again."""
        link = setup.link
        if link.up.mean_loss or link.down.mean_loss or link.up.rate or link.down.rate:
            return GATHERING_TIMEOUT
        delays = [profile.delay + profile.jitter for profile in (link.up, link.down)]
        round_trip = self._scenario.rtt / 2 + sum(delays)
        return min(GATHERING_TIMEOUT, 1.0 + 6 * round_trip)

    # -- the run ------------------------------------------------------------------------------

    def _start(self, peers: list[Member], told: list[str]) -> float:
        """Tell each of the other, and when it is to know. Returns when the first one does."""
        scenario = self._scenario
        start = time.monotonic() + PAUSE
        rate = scenario.datagrams_per_second
        for index, skew in enumerate((-scenario.skew, scenario.skew)):
            peers[index].tell(
                start=start,
                at=start + max(0.0, skew),
                remote=told[1 - index],
                interval=1 / rate if rate else None,
                end=start + scenario.seconds - AFTERMATH,
                way=scenario.rtt / 2,
            )
        return start

    def _live(self, peers: list[Member], start: float) -> None:
        """Let happen what is to happen, until both have settled or the time is over."""
        scenario = self._scenario
        end = start + scenario.seconds
        to_come = sorted(scenario.happenings, key=lambda happening: happening.at)
        endures = bool(to_come or scenario.datagrams_per_second)
        settled = dict.fromkeys(peers, False)
        letters: list[tuple[float, Member, str]] = []
        while (now := time.monotonic()) < end:
            while letters and now >= letters[0][0]:
                _, to, description = letters.pop(0)
                to.tell(remote=description)
            if to_come and now >= start + to_come[0].at:
                happen(self._internet, to_come.pop(0))
                continue
            dues = [start + happening.at for happening in to_come[:1]]
            until = min([end, *dues, *(at for at, _, _ in letters[:1])])
            for peer in wait_for(peers, until - now):
                message = peer.hear(PATIENCE)
                if "restart" in message:
                    other = peers[1 - peers.index(peer)]
                    letters.append((time.monotonic() + scenario.rtt / 2, other, message["restart"]))
                else:
                    settled[peer] = message["settled"]
            if not endures and all(settled.values()):
                end = min(end, time.monotonic() + self._aftermath())
                endures = True

    def _aftermath(self) -> float:
        """Until the last answers have come and count."""
        scenario = self._scenario
        links = [setup.link for setup in (scenario.a, scenario.b)]
        delay = max(link.up.delay + link.down.delay for link in links)
        return min(AFTERMATH, 0.02 + scenario.rtt + 2 * delay)

    def _last_word(self, peer: Member) -> dict[str, Any]:
        while "report" not in (message := peer.hear(PATIENCE)):
            pass
        report: dict[str, Any] = message["report"]
        return report

    def _outcome(self, start: float, reports: list[dict[str, Any]]) -> Outcome:
        relayed = [report["relayed"] for report in reports]
        if None in relayed:
            verdict = Verdict.FAILED
        else:
            verdict = Verdict.RELAYED if any(relayed) else Verdict.DIRECT
        skew = self._scenario.skew
        sides = (
            _side(start, max(0.0, late), report, other)
            for late, report, other in zip((-skew, skew), reports, reversed(reports), strict=True)
        )
        return Outcome(self._scenario, self._internet.seed, verdict, *sides)


def _side(
    start: float, started_at: float, report: dict[str, Any], other: dict[str, Any]
) -> SideOutcome:
    def after_start(at: float | None) -> float | None:
        return None if at is None else at - start

    return SideOutcome(
        started_at=started_at,
        valid_at=after_start(report["valid_at"]),
        direct_at=after_start(report["direct_at"]),
        selected_at=after_start(report["selected_at"]),
        relayed=bool(report["relayed"]),
        pair=report["pair"],
        ends=(report["ends"][0], report["ends"][1]),
        state=report["state"],
        reason=report["reason"],
        packets_sent=report["packets_sent"],
        received=report["received"],
        lost=report["sent"] - other["received"],
        longest_gap=report["longest_gap"],
    )


def _bracketed(ip: str) -> str:
    return f"[{ip}]" if ":" in ip else ip
