"""What a kernel can be made to do of a scenario, and why not where it can not."""

from __future__ import annotations

from ice_punch.lab.behaviour import (
    EarlyInbound,
    Filtering,
    Hairpinning,
    Mapping,
    NatBehaviour,
    PortAllocation,
    Refresh,
)
from ice_punch.lab.scenario import Event, Habit, Ip, PeerSetup, Scenario

_FROM_A_TABLE = (
    PortAllocation.SEQUENTIAL,
    PortAllocation.PARITY_PRESERVING,
    PortAllocation.CONTIGUOUS,
)


def why_not(nat: NatBehaviour) -> str | None:
    """Why no kernel NAT behaves like this; ``None`` if one does."""
    independent = nat.mapping is Mapping.ENDPOINT_INDEPENDENT
    if nat.early_inbound is EarlyInbound.CLAIM:
        return _why_not_claim(nat)
    if not independent and nat.allocation is PortAllocation.PRESERVING:
        return "a kernel that preserves ports has one port for all destinations"
    if not independent and nat.allocation is PortAllocation.CONTIGUOUS:
        return "a kernel shifts the ports of all destinations alike"
    if nat.external_addresses > 1 and nat.allocation in _FROM_A_TABLE:
        return f"a kernel has no {nat.allocation} ports on several addresses"
    if nat.lifetime is not None:
        if nat.lifetime < 1:
            return "a kernel's mappings live for a second or more"
        if not independent and nat.refresh is not Refresh.OUTBOUND:
            return "a kernel's mappings by destination are refreshed by what goes out only"
    return None


def _why_not_claim(nat: NatBehaviour) -> str | None:
    symmetric = nat.mapping is Mapping.ADDRESS_AND_PORT_DEPENDENT
    ports = PortAllocation.RANDOM if symmetric else PortAllocation.PRESERVING
    if (
        nat.mapping is Mapping.ADDRESS_DEPENDENT
        or nat.filtering is not Filtering.ADDRESS_AND_PORT_DEPENDENT
        or nat.allocation is not ports
        or nat.hairpinning is not Hairpinning.NONE
        or nat.external_addresses > 1
    ):
        return "a kernel that claims early packets masquerades, and does nothing else besides"
    if nat.lifetime is not None and (nat.refresh is not Refresh.BOTH or nat.lifetime % 1):
        return "a kernel that masquerades refreshes by both directions, in whole seconds"
    return None


def can_run(scenario: Scenario) -> str | None:
    """``None`` when the kernel backend can run the scenario, else why not, in one line."""
    for setup in (scenario.a, scenario.b):
        reason = _why_not_peer(setup, shared=bool(scenario.shared_nats))
        if reason is not None:
            return reason
    for nat in (*scenario.a.nats, *scenario.b.nats, *scenario.shared_nats):
        reason = why_not(nat)
        if reason is not None:
            return reason
    if any(nat.allocation is PortAllocation.CONTIGUOUS for nat in scenario.shared_nats):
        return "a kernel shifts the ports of all hosts alike"
    return _why_not_happenings(scenario)


def _why_not_peer(setup: PeerSetup, *, shared: bool) -> str | None:
    if setup.habit is not Habit.FULL:
        return f"the kernel backend runs our own agent, none with the habit {setup.habit}"
    if setup.ip is Ip.NAT64:
        return "the kernel has no NAT64"
    links = [setup.link] if setup.second_link is None else [setup.link, setup.second_link]
    profiles = [profile for link in links for profile in (link.up, link.down)]
    if shared and any(p.mtu is not None and p.tells_mtu for p in profiles):
        return "a kernel's bridge does not tell its MTU"
    if setup.ip is not Ip.V4 and any(p.mtu is not None and p.mtu < 1280 for p in profiles):
        return "an IPv6 link of the kernel carries 1280 bytes (RFC 8200 section 5)"
    return None


def _why_not_happenings(scenario: Scenario) -> str | None:
    for happening in scenario.happenings:
        setup = scenario.setup(happening.side)
        nats = setup.nats or scenario.shared_nats
        if happening.event in (Event.INTERFACE_LOST, Event.INTERFACE_FOUND):
            return "the kernel backend takes no interface away"
        if happening.event is Event.NAT_REBINDS and any(
            nat.early_inbound is EarlyInbound.CLAIM or nat.allocation in _FROM_A_TABLE
            for nat in nats
        ):
            return "a kernel NAT of this kind gives the same ports again"
    return None
