"""What a session has learned of the two networks it connects, for its report."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from ice_punch.datagram import Address
from ice_punch.ice.candidate import Candidate, CandidateType
from ice_punch.ice.pair import CandidatePair
from ice_punch.ice.server_queries import ServerQueries
from ice_punch.ice.session import Session
from ice_punch.report import Report, ServerReport, SideReport

_PRIVATE = tuple(
    map(
        ipaddress.ip_network,
        (
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "::1/128",
            "fc00::/7",
            "fe80::/10",
        ),
    )
)
"""RFC 1918, RFC 6598, RFC 4193, loopback and link-local. What is kept for documentation counts as
public: laboratories use it so."""


def is_public(ip: str) -> bool:
    """Whether the other side could reach this address across the internet."""
    address = ipaddress.ip_address(ip)
    return not any(address in network for network in _PRIVATE)


def report(session: Session, queries: ServerQueries, ended: Iterable[ServerReport]) -> Report:
    """Everything known about a session, for people. ``ended`` are the queries that ended."""
    local, remote = local_side(session, queries), remote_side(session)
    notes = []
    if local.mapping_varies:
        notes.append("this side's NAT gives a new port for every destination")
    if remote.mapping_varies:
        notes.append("the peer's NAT gives a new port for every destination")
    return Report(
        local_candidates=tuple(map(str, session.local.all)),
        remote_candidates=tuple(map(str, session.remote.all)),
        pairs=tuple(pair.report() for pair in session.check_list),
        servers=(*ended, *queries.unanswered()),
        notes=tuple(notes),
        local=local,
        remote=remote,
        peer_heard=session.peer_heard,
        peer_told_all=session.remote_ended,
        same_nat=same_nat(session),
        udp_works=udp_works(session, queries),
        direct_only=session.config.direct_only,
    )


def local_side(session: Session, queries: ServerQueries) -> SideReport:
    """This side's network, by what servers and the peer saw of it."""
    return _side(
        session.local.all,
        varies=queries.mapping_varies() or _checks_were_mapped_elsewhere(session, queries),
        stable=_stable_here(session, queries),
    )


def remote_side(session: Session) -> SideReport:
    """The peer's network, by what it told and where its checks came from. That it has a relay
    counts, also where direct-only refuses it."""
    remote = session.remote
    known = {pair.remote.ip_version for pair in session.check_list if _came_as_told(pair)}
    return _side(
        remote.all,
        varies=remote.mapping_varies() or _checks_came_from_elsewhere(remote.all),
        stable=known,
        more_relays={6 if ":" in ip else 4 for ip, _ in session.refused_remote},
    )


def same_nat(session: Session) -> bool:
    """Whether servers saw both sides at one address on the internet."""
    here, there = (
        {c.host for c in side if c.type is CandidateType.SRFLX and is_public(c.host)}
        for side in (session.local.all, session.remote.all)
    )
    return bool(here & there)


def udp_works(session: Session, queries: ServerQueries) -> bool | None:
    """Whether anything came over UDP from beyond the local network. None: nobody was asked, or it
    is too early to tell."""
    if any(query.answered for query in queries.all):
        return True
    if any(
        pair.local.type is CandidateType.HOST
        and is_public(pair.remote.host)
        and (pair.responses_received or pair.requests_received)
        for pair in session.check_list
    ):
        return True
    return False if any(query.in_vain for query in queries.all) else None


# -- one side ---------------------------------------------------------------------------------


def _side(
    candidates: Iterable[Candidate],
    *,
    varies: bool,
    stable: set[int],
    more_relays: Iterable[int] = (),
) -> SideReport:
    own = [c for c in candidates if c.type is not CandidateType.RELAY and c.ip_version]
    versions = {c.ip_version for c in own}
    public = {
        c.ip_version
        for c in own
        if c.type in (CandidateType.HOST, CandidateType.SRFLX) and is_public(c.host)
    }
    relays = {c.ip_version for c in candidates if c.type is CandidateType.RELAY}
    without_nat = {c.ip_version for c in own if c.type is CandidateType.HOST and is_public(c.host)}
    all_stable = bool(versions) and versions <= stable | without_nat
    return SideReport(
        ip_versions=tuple(sorted(versions)),
        public_ip_versions=tuple(sorted(public)),
        relay_ip_versions=tuple(sorted(relays.union(more_relays))),
        mapping_varies=True if varies else False if all_stable else None,
    )


def _checks_were_mapped_elsewhere(session: Session, queries: ServerQueries) -> bool:
    """Whether the peer, or its relay, saw a base of ours at another port than a server did. Of
    another IP address nothing follows: of two NATs in a row, the peer may be between."""
    seen = {(query.base, query.mapped) for query in queries.all if query.mapped is not None}
    return any(
        candidate.type is CandidateType.PRFLX
        and candidate.base is not None
        and (candidate.base, candidate.address) not in seen
        and any(
            base == candidate.base and mapped[0] == candidate.host
            for base, mapped in seen
            if mapped is not None
        )
        for candidate in session.local.all
    )


def _checks_came_from_elsewhere(candidates: list[Candidate]) -> bool:
    """Whether checks came from another port of an address that a server had seen. Nothing follows
    where the peer has a base of which no server's answer is known: they may be that one's."""
    reflexive = [c for c in candidates if c.type is CandidateType.SRFLX]
    asked: set[Address | None] = {c.related_address for c in reflexive}
    bases = [c for c in candidates if c.type is CandidateType.HOST]
    for learned in (c for c in candidates if c.type is CandidateType.PRFLX):
        own = [c.address for c in bases if c.ip_version == learned.ip_version]
        if (
            own
            and asked.issuperset(own)
            and any(c.host == learned.host and c.port != learned.port for c in reflexive)
        ):
            return True
    return False


def _stable_here(session: Session, queries: ServerQueries) -> set[int]:
    """IP versions of which somebody else saw a base of ours where a server saw it."""
    seen: dict[Address, set[str]] = {}
    stable = set()
    for query in queries.all:
        if query.mapped is not None:
            seen.setdefault(query.base, set()).add(query.address[0])
            if query.mapped == query.base:
                stable.add(_version(query.base))
    stable |= {_version(base) for base, servers in seen.items() if len(servers) > 1}
    return stable | {
        pair.local.ip_version
        for pair in session.check_list
        if pair.mapped is not None and pair.mapped.type is CandidateType.SRFLX
    }


def _came_as_told(pair: CandidatePair) -> bool:
    """A check of the peer's came from where a server had seen it."""
    return pair.remote.type is CandidateType.SRFLX and pair.requests_received > 0


def _version(address: Address) -> int:
    return 6 if ":" in address[0] else 4
