"""Reads the network as it is known: declared nodes and links, with the newest figures that were measured of them."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from isthmus.domain.network import (
    Figure,
    LinkView,
    Metric,
    NetLink,
    NetNode,
    NetworkView,
    NodeKind,
    PairView,
    Source,
)
from isthmus.store import tables
from isthmus.store.documents import load

_Key = tuple[str, str, str]  # source, target, link
_Figures = dict[Metric, Figure]


def read_network(connection: sa.Connection, now: float) -> NetworkView:
    """The network at `now`. Of several sources of one figure the newest counts; a figure keeps its age and error."""
    nodes = tuple(
        load(NetNode, row.body)
        for row in connection.execute(tables.net_nodes.select().order_by(tables.net_nodes.c.name))
    )
    measured, since = _measured(connection)
    routers = {node.name for node in nodes if node.kind is NodeKind.ROUTER and node.locator}
    links: list[LinkView] = []
    for row in connection.execute(tables.net_links.select().order_by(tables.net_links.c.name)):
        link = load(NetLink, row.body)
        for source, target in (link.ends, link.ends[::-1]):
            key = (source, target, link.name)
            links.append(_link(link, source, target, row.declared_at, measured.get(key, {}), since.get(key), routers))
    pairs = tuple(_pair(key, figures, since.get(key)) for key, figures in sorted(measured.items()) if not key[2])
    return NetworkView(now=now, nodes=nodes, links=tuple(links), pairs=pairs)


def _measured(connection: sa.Connection) -> tuple[dict[_Key, _Figures], dict[_Key, float | None]]:
    measured: dict[_Key, _Figures] = {}
    since: dict[_Key, float | None] = {}
    states = tables.link_states
    for row in connection.execute(states.select().order_by(states.c.measured_at)):  # the newest comes last
        key, metric = (row.source, row.target, row.link), Metric(row.metric)
        measured.setdefault(key, {})[metric] = Figure(
            value=row.value, error=row.error, measured_at=row.measured_at, source=Source(row.origin)
        )
        if metric is Metric.UP:
            since[key] = row.since
    return measured, since


def _link(
    link: NetLink,
    source: str,
    target: str,
    declared_at: float,
    found: Mapping[Metric, Figure],
    since: float | None,
    programmable: set[str],
) -> LinkView:
    def declared(value: float | None) -> Figure | None:
        if value is None:
            return None
        return Figure(value=value, error=0.0, measured_at=declared_at, source=Source.DECLARED)

    return LinkView(
        link=link,
        source=source,
        target=target,
        programmable={source, target} <= programmable,
        up=_is_up(found),
        up_since=since,
        delay_seconds=found.get(Metric.ONE_WAY_DELAY, declared(link.delay_seconds)),
        jitter_seconds=found.get(Metric.JITTER, declared(link.jitter_seconds)),
        loss=found.get(Metric.LOSS, declared(link.loss)),
        available_bits_per_second=_capped(found.get(Metric.AVAILABLE), link.capacity_bits_per_second),
    )


def _capped(figure: Figure | None, capacity: float | None) -> Figure | None:
    if figure is None or capacity is None or figure.value <= capacity:
        return figure
    return Figure(value=capacity, error=figure.error, measured_at=figure.measured_at, source=figure.source)


def _pair(key: _Key, found: Mapping[Metric, Figure], since: float | None) -> PairView:
    return PairView(
        source=key[0],
        target=key[1],
        up=_is_up(found),
        up_since=since,
        delay_seconds=found.get(Metric.ONE_WAY_DELAY),
        two_way_delay_seconds=found.get(Metric.TWO_WAY_DELAY),
        jitter_seconds=found.get(Metric.JITTER),
        loss=found.get(Metric.LOSS),
        available_bits_per_second=found.get(Metric.AVAILABLE),
    )


def _is_up(found: Mapping[Metric, Figure]) -> bool:
    """What nobody says is down is taken to be up."""
    word = found.get(Metric.UP)
    return word is None or word.value > 0.5
