"""What Prometheus is told."""

from __future__ import annotations

import random

from prometheus_client.parser import text_string_to_metric_families
from signaling_support import Shell

from signaling.metrics import CONTENT_TYPE, ServerMetrics
from signaling.rooms import Rooms


def values(metrics: ServerMetrics) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels."""
    text = metrics.render().decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def shell_with(metrics: ServerMetrics) -> Shell:
    shell = Shell()
    shell.rooms = Rooms(random.Random(0), metrics=metrics)
    metrics.sizes = lambda: shell.rooms.sizes
    return shell


def test_what_rooms_do_is_counted() -> None:
    metrics = ServerMetrics()
    shell = shell_with(metrics)
    one, first = shell.join()
    two, second = shell.join()
    for id in (1, 2):
        shell.signal(one, id, second["self"], data="x" * 100)
    shell.signal(one, 3, "nobody")
    shell.drop(two)
    seen = values(metrics)
    assert seen["icepunch_rooms",] == 1
    assert seen["icepunch_connections",] == 1
    assert seen["icepunch_sessions", "present"] == 1
    assert seen["icepunch_sessions", "away"] == 1
    assert seen["icepunch_relayed_messages_total",] == 2
    assert seen["icepunch_drops_total", "peer_unavailable"] == 1
    assert seen["icepunch_drops_total", "queue_full"] == 0
    assert seen["icepunch_queue_bytes", "replay"] > 200
    shell.resume(second, 0)
    shell.resume(second | {"key": "wrong"}, 0)
    seen = values(metrics)
    assert seen["icepunch_resumes_total", "ok"] == 1
    assert seen["icepunch_resumes_total", "refused"] == 1
    assert seen["icepunch_replayed_messages_total",] >= 2
    assert seen["icepunch_sessions", "away"] == 0
    assert first["self"] not in metrics.render().decode()


def test_outcomes_are_what_peers_report() -> None:
    metrics = ServerMetrics()
    shell = shell_with(metrics)
    connection, _ = shell.join()
    shell.say(connection, "outcome", outcome="direct", ms=150)
    shell.say(connection, "outcome", outcome="direct", ms=700)
    shell.say(connection, "outcome", outcome="relay", ms=3000)
    shell.say(connection, "outcome", outcome="failed")
    shell.say(connection, "outcome", outcome="magic")
    shell.say(connection, "outcome", outcome="relay", ms=2**53 - 1)  # one word, and no sum is left
    seen = values(metrics)
    assert seen["icepunch_outcomes_total", "direct"] == 2
    assert seen["icepunch_outcomes_total", "relay"] == 2
    assert seen["icepunch_connect_seconds_sum", "relay"] == 3
    assert seen["icepunch_outcomes_total", "failed"] == 1
    assert not any("magic" in labels for labels in seen)
    assert seen["icepunch_connect_seconds_count", "direct"] == 2
    assert seen["icepunch_connect_seconds_sum", "direct"] == 0.85
    assert seen["icepunch_connect_seconds_bucket", "0.2", "direct"] == 1
    assert ("icepunch_connect_seconds_count", "failed") not in seen


def test_every_scrape_asks_anew_and_two_servers_share_nothing() -> None:
    one, two = ServerMetrics(), ServerMetrics()
    one.counters["relayed"] += 5
    one.counters["something_new"] += 1
    one.extra = lambda: {"bus_up": 1.0}
    one.counters_beside = lambda: {"slow": 2}
    seen = values(one)
    assert seen["icepunch_relayed_messages_total",] == 5
    assert seen["icepunch_events_total", "something_new"] == 1
    assert seen["icepunch_drops_total", "slow"] == 2
    assert seen["icepunch_bus_up",] == 1
    one.counters["relayed"] += 1
    assert values(one)["icepunch_relayed_messages_total",] == 6
    assert values(two)["icepunch_relayed_messages_total",] == 0
    assert "0.0.4" in CONTENT_TYPE
