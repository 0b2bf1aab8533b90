"""A peer whose NAT gives it new ports is followed to them: along each base, and no further."""

from __future__ import annotations

from support.bench import REMOTE, Bench, completed_bench

FIRST, SECOND = 1845501695, 1845501439
"""What the peer's checks from two bases say as PRIORITY: bases have different ones (RFC 8445
section 7.1.1)."""
FIRST_MOVED, SECOND_MOVED = (REMOTE[0], 7001), (REMOTE[0], 7002)


def behind_one_nat() -> Bench:
    """A peer with two bases behind one NAT; the first is selected, and silent for a while."""
    bench = completed_bench()
    bench.receive(bench.request(priority=FIRST))
    bench.run(0.2)
    bench.answer_all(0.02, when=lambda sent: sent.destination != REMOTE)
    return bench


def test_another_base_of_the_peer_behind_the_same_nat_is_not_the_selected_one() -> None:
    bench = behind_one_nat()
    bench.receive(bench.request(priority=SECOND), SECOND_MOVED)
    bench.run(0.2)
    assert bench.agent.check_list.find(bench.pair().base, SECOND_MOVED) is not None
    assert bench.agent.selected_pair() is bench.pair()


def test_the_selected_base_is_followed_whichever_of_them_is_seen_first() -> None:
    bench = behind_one_nat()
    bench.receive(bench.request(priority=SECOND), SECOND_MOVED)
    bench.run(0.2)
    bench.receive(bench.request(priority=FIRST), FIRST_MOVED)
    bench.run(0.2)
    assert bench.agent.selected_pair() is bench.pair(FIRST_MOVED)
    bench.receive(bench.request(priority=SECOND), SECOND_MOVED)
    bench.run(0.2)
    assert bench.agent.selected_pair() is bench.pair(FIRST_MOVED)


def test_data_leads_to_the_port_as_a_check_does() -> None:
    bench = behind_one_nat()
    bench.receive(b"data", FIRST_MOVED)
    bench.run(0.1)
    assert bench.agent.selected_pair() is bench.pair(FIRST_MOVED)
    # and the base is known by its PRIORITY at the next port, too
    bench.run(0.2)
    bench.receive(bench.request(priority=FIRST), (REMOTE[0], 7003))
    bench.run(0.1)
    assert bench.agent.selected_pair() is bench.pair((REMOTE[0], 7003))
