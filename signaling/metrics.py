"""What a server tells Prometheus: counts and sizes, and nothing that names a person or a room."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from signaling.messages import OUTCOMES, Outcome

if TYPE_CHECKING:
    from prometheus_client.core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LONGEST = 3600.0
"""Seconds: a path that took longer is nobody's, and one such word would spoil the sum for good."""
SECONDS_TO_CONNECT = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0)

# Names in Metrics.counters, by what they are a case of; every other one is an event.
_DROPS = (
    "abuse",
    "bad_field",
    "bad_json",
    "bad_order",
    "bad_type",
    "duplicates",
    "peer_unavailable",
    "queue_full",
    "slow",
    "too_large",
    "too_many_candidates",
)
_REFUSALS = (
    "bad_room",
    "busy",
    "forbidden_origin",
    "hello_timeout",
    "room_closed",
    "room_full",
    "token_expired",
    "too_many_accepts",
    "too_many_connections",
    "unauthorized",
    "version",
    "wrong_subprotocol",
)
_RESUMES = {"sessions_resumed": "ok", "resumes_refused": "refused", "takeovers": "takeover"}
_OWN = {"relayed", "replayed", *_DROPS, *_REFUSALS, *_RESUMES}


class ServerMetrics:
    """The :class:`signaling.hooks.Metrics` of a server that is observed.

    ``sizes``, ``extra`` and ``counters_beside`` are asked at every scrape: what the rooms and the
    server are now, gauges by their full names, and counters that others keep.
    """

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Histogram, ProcessCollector
        from prometheus_client import Counter as PrometheusCounter

        self.counters: Counter[str] = Counter()
        self.sizes: Callable[[], Mapping[str, int]] = dict
        self.extra: Callable[[], Mapping[str, float]] = dict
        self.counters_beside: Callable[[], Mapping[str, int]] = dict
        self._registry = CollectorRegistry()
        self._outcomes = PrometheusCounter(
            "icepunch_outcomes",
            "How attempts ended, as the peers report it",
            ["outcome"],
            registry=self._registry,
        )
        for outcome in OUTCOMES:
            self._outcomes.labels(outcome)
        self._seconds = Histogram(
            "icepunch_connect_seconds",
            "Time until there was a path, as the peers report it",
            ["outcome"],
            buckets=SECONDS_TO_CONNECT,
            registry=self._registry,
        )
        for outcome in OUTCOMES[:2]:
            self._seconds.labels(outcome)
        self._registry.register(_Collector(self))
        ProcessCollector(registry=self._registry)

    def outcome(self, outcome: Outcome, seconds: float | None) -> None:
        self._outcomes.labels(outcome).inc()
        if seconds is not None and seconds <= LONGEST:
            self._seconds.labels(outcome).observe(seconds)

    def render(self) -> bytes:
        """The text format of Prometheus; its media type is :data:`CONTENT_TYPE`."""
        from prometheus_client import generate_latest

        return generate_latest(self._registry)


class _Collector:
    def __init__(self, metrics: ServerMetrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        from signaling.pages import server_name

        metrics = self._metrics
        counters = Counter(metrics.counters)
        counters.update(metrics.counters_beside())
        sizes = metrics.sizes()

        def gauge(name: str, text: str, value: float) -> Metric:
            return GaugeMetricFamily(f"icepunch_{name}", text, value=value)

        def labelled(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
            family = CounterMetricFamily(f"icepunch_{name}", text, labels=[label])
            for key, value in values.items():
                family.add_metric([key], value)
            return family

        build = GaugeMetricFamily("icepunch_build_info", "The version", labels=["version"])
        build.add_metric([server_name().partition("/")[2] or "unknown"], 1)
        yield build
        away = sizes.get("away", 0)
        sessions = GaugeMetricFamily(
            "icepunch_sessions", "Sessions, present or waiting to be resumed", labels=["state"]
        )
        sessions.add_metric(["present"], sizes.get("sessions", 0) - away)
        sessions.add_metric(["away"], away)
        yield sessions
        yield gauge("rooms", "Rooms with a session", sizes.get("rooms", 0))
        yield gauge("connections", "Open WebSockets", sizes.get("connections", 0))
        queues = GaugeMetricFamily(
            "icepunch_queue_bytes", "Bytes kept for replay, or unsent", labels=["queue"]
        )
        queues.add_metric(["replay"], sizes.get("kept_bytes", 0))
        queues.add_metric(["out"], sizes.get("queue_bytes", 0))
        yield queues
        yield CounterMetricFamily(
            "icepunch_relayed_messages", "Signals passed on", value=counters["relayed"]
        )
        yield CounterMetricFamily(
            "icepunch_replayed_messages",
            "Frames sent again at a resume",
            value=counters["replayed"],
        )
        resumes = {result: counters[name] for name, result in _RESUMES.items()}
        yield labelled("resumes", "Claims to a session", "result", resumes)
        drops = {name: counters[name] for name in _DROPS}
        yield labelled("drops", "Messages not passed on", "reason", drops)
        refusals = {name: counters[name] for name in _REFUSALS}
        yield labelled("refusals", "Clients not let in", "reason", refusals)
        events = {name: counters[name] for name in sorted(counters.keys() - _OWN)}
        yield labelled("events", "Everything else that is counted", "event", events)
        for name, value in metrics.extra().items():
            yield gauge(name, name.replace("_", " "), value)
