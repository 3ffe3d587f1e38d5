"""Figures for Prometheus, in a registry of our own: what the store holds, and how long answers take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import sqlalchemy as sa
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from isthmus.api.netmetrics import NetworkMetrics
from isthmus.domain.lifecycle import TaskState
from isthmus.engine.networkview import read_network
from isthmus.store import tables
from isthmus.store.database import Database

_LATENCIES = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Audits(Protocol):
    """What is told of the audits of contested rounds."""

    gap: float | None
    audits: int
    failures: int


class Metrics:
    """All figures of one service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.latency = Histogram(
            "isthmus_http_seconds",
            "Time to the end of an answer.",
            ["method", "route"],
            registry=self.registry,
            buckets=_LATENCIES,
        )
        self.answers = Counter(
            "isthmus_http_answers", "Answers by status.", ["method", "route", "status"], registry=self.registry
        )
        self.tasks = Gauge("isthmus_tasks", "Tasks by state.", ["state"], registry=self.registry)
        self.attempts = Gauge(
            "isthmus_attempts", "Live attempts by site and state.", ["site", "state"], registry=self.registry
        )
        self.queue = Gauge("isthmus_queue_length", "Tasks that wait for a place.", registry=self.registry)
        self.events = Gauge("isthmus_events_last", "Number of the last event.", registry=self.registry)
        self.reachable = Gauge("isthmus_site_reachable", "1 when the site answers.", ["site"], registry=self.registry)
        self.gap = Gauge(
            "isthmus_placement_gap",
            "How far above the bound of all possible answers the last audited contested round was, relative.",
            registry=self.registry,
        )
        self.audits = Gauge(
            "isthmus_placement_audits", "Audits of contested rounds.", ["result"], registry=self.registry
        )
        which = ["kind", "site", "pool", "source"]
        self.accuracy = Gauge(
            "isthmus_forecast_accuracy",
            "Mean score of the forecasts of the last 30 days, 1 = exact.",
            which,
            registry=self.registry,
        )
        self.outcomes = Gauge(
            "isthmus_forecast_outcomes", "Forecasts scored in the last 30 days.", which, registry=self.registry
        )
        self.coverage = Gauge(
            "isthmus_forecast_coverage",
            "Share of facts that kept the bound: 80 = from p10 to p90, 90 and 95 = below.",
            [*which, "bound"],
            registry=self.registry,
        )
        self.network = NetworkMetrics(self.registry)
        self.subscribers = Gauge("isthmus_event_subscribers", "Open event streams.", registry=self.registry)

    def seen(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answer."""
        self.latency.labels(method, route).observe(seconds)
        self.answers.labels(method, route, str(status)).inc()

    async def text(self, database: Database, subscribers: int, now: float, audits: Audits | None = None) -> bytes:
        """The figures as Prometheus reads them."""
        if audits is not None:
            if audits.gap is not None:
                self.gap.set(audits.gap)
            self.audits.labels("done").set(audits.audits)
            self.audits.labels("failed").set(audits.failures)
        states, attempts, sites, last = await database.read(_figures)
        self._set_models(await database.read(_models))
        for state in TaskState:
            self.tasks.labels(state.value).set(states.get(state.value, 0))
        self.queue.set(states.get(TaskState.WAITING.value, 0))
        self.attempts.clear()
        for site, state_name, count in attempts:
            self.attempts.labels(site, state_name).set(count)
        self.reachable.clear()
        for site, reachable in sites:
            self.reachable.labels(site).set(1 if reachable else 0)
        self.events.set(last)
        self.network.set(await database.read(read_network, now))
        self.subscribers.set(subscribers)
        return generate_latest(self.registry)

    def _set_models(self, rows: Sequence[sa.Row[Any]]) -> None:
        for gauge in (self.accuracy, self.outcomes, self.coverage):
            gauge.clear()
        for row in rows:
            which = (row.kind, row.site, row.pool, row.source)
            self.accuracy.labels(*which).set(row.accuracy)
            self.outcomes.labels(*which).set(row.outcomes)
            for bound in (80, 90, 95):
                share = getattr(row, f"coverage_{bound}")
                if share is not None:
                    self.coverage.labels(*which, str(bound)).set(share)


def _models(connection: sa.Connection) -> Sequence[sa.Row[Any]]:
    return connection.execute(sa.select(tables.models)).all()


def _figures(
    connection: sa.Connection,
) -> tuple[dict[str, int], list[tuple[str, str, int]], list[tuple[str, bool]], int]:
    t, a, s, e = tables.tasks, tables.attempts, tables.sites, tables.events
    count = sa.func.count()
    states = {row[0]: row[1] for row in connection.execute(sa.select(t.c.state, count).group_by(t.c.state))}
    live = sa.text("state NOT IN ('succeeded', 'failed', 'cancelled', 'lost')")  # as the partial index says it
    attempts = [
        (row[0], row[1], row[2])
        for row in connection.execute(sa.select(a.c.site, a.c.state, count).where(live).group_by(a.c.site, a.c.state))
    ]
    sites = [
        (row.name, row.error == "" and row.last_seen_at is not None)
        for row in connection.execute(sa.select(s.c.name, s.c.error, s.c.last_seen_at).where(s.c.state != "left"))
    ]
    last = connection.scalar(sa.select(sa.func.max(e.c.seq))) or 0
    return states, attempts, sites, last
