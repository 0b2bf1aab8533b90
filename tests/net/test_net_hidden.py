"""What is told of our candidates when our addresses are hidden behind names."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from ice_punch.ice import Candidate, CandidateType, ServerQueryEnded
from ice_punch.net.hidden import HiddenAddresses
from ice_punch.net.mdns.messages import is_candidate_name
from ice_punch.report import ServerReport
from ice_punch.sdp import format_candidate, parse_candidate

PRIVATE, PUBLIC = "192.168.1.5", "2001:db8::5"


def candidate(
    type_: CandidateType, host: str, *, base: str = "", related: str = "", priority: int = 1
) -> Candidate:
    return Candidate(
        foundation="1",
        component=1,
        transport="udp",
        priority=priority,
        host=host,
        port=5000,
        type=type_,
        related_address=(related, 5000) if related else None,
        base=(base or host, 5000),
        server="stun:s",
    )


def alone(story: Callable[[HiddenAddresses], None]) -> None:
    async def main() -> None:
        hidden = HiddenAddresses()
        story(hidden)
        hidden.close()

    asyncio.run(main())


def test_mdns_3_1_a_host_candidate_is_told_with_a_name_one_for_each_address() -> None:
    def story(hidden: HiddenAddresses) -> None:
        first = hidden.shown(candidate(CandidateType.HOST, PRIVATE))
        again = hidden.shown(candidate(CandidateType.HOST, PRIVATE))
        other = hidden.shown(candidate(CandidateType.HOST, PUBLIC))
        assert is_candidate_name(first.host)
        assert again.host == first.host
        assert other.host != first.host
        assert (first.port, first.priority, first.foundation) == (5000, 1, "1")

    alone(story)


@pytest.mark.parametrize(
    ("told", "related", "hidden_as"),
    [("198.51.100.1", PRIVATE, "0.0.0.0"), ("2001:db8:9::1", PUBLIC, "::")],
)
@pytest.mark.parametrize("type_", [CandidateType.SRFLX, CandidateType.RELAY])
def test_mdns_3_1_2_2_the_related_address_is_hidden(
    type_: CandidateType, told: str, related: str, hidden_as: str
) -> None:
    def story(hidden: HiddenAddresses) -> None:
        shown = hidden.shown(candidate(type_, told, base=related, related=related))
        assert shown.host == told
        assert shown.related_address == (hidden_as, 9)

    alone(story)


def test_nothing_that_is_told_names_an_address_of_ours() -> None:
    def story(hidden: HiddenAddresses) -> None:
        for real in (
            candidate(CandidateType.HOST, PRIVATE),
            candidate(CandidateType.SRFLX, "198.51.100.1", base=PRIVATE, related=PRIVATE),
            candidate(CandidateType.RELAY, "203.0.113.9", related="198.51.100.1"),
        ):
            shown = hidden.shown(real)
            assert PRIVATE not in repr(shown)
            line = format_candidate(shown)
            assert PRIVATE not in line
            assert parse_candidate(line) is not None

    alone(story)


def answered(base: str, mapped: str) -> ServerQueryEnded:
    report = ServerReport("stun:s", "ok", "", "address", base=base, mapped=f"[{mapped}]:5000")
    return ServerQueryEnded((base, 5000), report)


def test_mdns_3_1_2_2_a_public_address_is_told_as_a_server_reflexive_candidate() -> None:
    """Or two peers that hide would never meet over IPv6, where nothing is translated."""

    def story(hidden: HiddenAddresses) -> None:
        host = candidate(CandidateType.HOST, PUBLIC, priority=(126 << 24) + (65534 << 8) + 255)
        found = hidden.public_candidate(answered(PUBLIC, PUBLIC), (host,))
        assert found is not None
        assert (found.type, found.address) == (CandidateType.SRFLX, host.address)
        assert found.priority == (100 << 24) + (65534 << 8) + 255
        assert found.foundation != host.foundation
        assert hidden.public_candidate(answered(PUBLIC, PUBLIC), (host,)) is None, "once"
        name, reflexive = hidden.all_shown((host,))
        assert is_candidate_name(name.host)
        assert reflexive.address == host.address
        assert reflexive.related_address == ("::", 9)
        hidden.withdraw(PUBLIC)
        assert len(hidden.all_shown((host,))) == 1

    alone(story)


def test_an_address_that_a_nat_translates_is_told_by_the_agent_alone() -> None:
    def story(hidden: HiddenAddresses) -> None:
        host = candidate(CandidateType.HOST, PUBLIC)
        assert hidden.public_candidate(answered(PUBLIC, "2001:db8::77"), (host,)) is None
        assert hidden.public_candidate(answered(PUBLIC, PUBLIC), ()) is None

    alone(story)
