"""Figures of the network for Prometheus, in base units: each direction of each link, and each measured pair of nodes (`link=""`)."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge

from isthmus.domain.network import Figure, LinkView, NetworkView, PairView

_WHERE = ("link", "source", "target")
_FIGURE = (*_WHERE, "origin")


class NetworkMetrics:
    """Gauges that are set anew at each scrape; a figure that nobody measured or declared is not there."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, labels: tuple[str, ...] = _FIGURE) -> Gauge:
            return Gauge(f"isthmus_link_{name}", text, labels, registry=registry)

        self._delay = gauge("delay_seconds", "One-way delay.")
        self._two_way = gauge("round_trip_seconds", "Two-way delay.")
        self._jitter = gauge("jitter_seconds", "Variation of the one-way delay (RFC 3393).")
        self._loss = gauge("loss_ratio", "Share of packets lost.")
        self._available = gauge("available_bytes_per_second", "Bandwidth that is free.")
        self._age = gauge("figure_age_seconds", "Age of the newest measured figure.", _WHERE)
        self._up = gauge("up", "1 when packets pass.", _WHERE)
        self._capacity = gauge("capacity_bytes_per_second", "Capacity as declared.", _WHERE)
        self._all = (
            *(self._delay, self._two_way, self._jitter, self._loss),
            *(self._available, self._age, self._up, self._capacity),
        )

    def set(self, view: NetworkView) -> None:
        """Show this view, and nothing of an earlier one."""
        for one in self._all:
            one.clear()
        for link in view.links:
            where = (link.link.name, link.source, link.target)
            self._common(where, link, view.now)
            if link.capacity_bits_per_second is not None:
                self._capacity.labels(*where).set(link.capacity_bits_per_second / 8)
        for pair in view.pairs:
            where = ("", pair.source, pair.target)
            self._common(where, pair, view.now)
            _show(self._two_way, where, pair.two_way_delay_seconds)

    def _common(self, where: tuple[str, str, str], one: LinkView | PairView, now: float) -> None:
        figures = (one.delay_seconds, one.jitter_seconds, one.loss, one.available_bits_per_second)
        for gauge, figure in zip((self._delay, self._jitter, self._loss), figures, strict=False):
            _show(gauge, where, figure)
        _show(self._available, where, one.available_bits_per_second, 1 / 8)
        self._up.labels(*where).set(1 if one.up else 0)
        ages = [figure.age_seconds(now) for figure in figures if figure is not None and figure.source != "declared"]
        if ages:
            self._age.labels(*where).set(min(ages))


def _show(gauge: Gauge, where: tuple[str, str, str], figure: Figure | None, factor: float = 1.0) -> None:
    if figure is not None:
        gauge.labels(*where, figure.source.value).set(figure.value * factor)
