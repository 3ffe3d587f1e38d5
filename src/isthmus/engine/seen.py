"""What transfers see of the network as they run: the rate of each tells what was free for it."""

from __future__ import annotations

from typing import Literal

import sqlalchemy as sa

from isthmus.domain.network import STALE_SECONDS, Figure, Metric, Source
from isthmus.engine.declaring import Measured, record
from isthmus.store import tables

LimitedBy = Literal["network", "source", "target", "rate", "unknown"]
_ERROR = 0.1
_WEIGHT = 0.3
"""Of a new rate in the figure, while the figure is fresh."""


def seen_rate(
    connection: sa.Connection, source: str, target: str, bytes_per_second: float, at: float, limited_by: LimitedBy
) -> None:
    """Take note that a transfer went from one site to another at this rate at a time.

    `limited_by` says what kept it from being faster. Where that was the network, the rate is what was free. Where it was something else
    (the disks of an end, the rate that was promised), it is only the least that was free, and counts when it is more than what is known.
    """
    s = tables.link_states.c
    known = connection.execute(
        sa.select(s.value).where(
            s.source == source,
            s.target == target,
            s.link == "",
            s.metric == Metric.AVAILABLE.value,
            s.origin == Source.TRANSFERS.value,
            s.measured_at > at - STALE_SECONDS,
        )
    ).scalar()
    rate = bytes_per_second * 8
    if limited_by == "network":
        value = rate if known is None else known + _WEIGHT * (rate - known)
    elif known is None or rate > known:
        value = rate
    else:
        return
    k = tables.net_links.c
    ends = sa.or_(
        sa.and_(k.one_end == source, k.other_end == target), sa.and_(k.one_end == target, k.other_end == source)
    )
    links = ["", *connection.scalars(sa.select(k.name).where(ends))]
    figure = Figure(value=value, error=value * _ERROR, measured_at=at, source=Source.TRANSFERS)
    record(
        connection,
        [Measured(source=source, target=target, link=link, metric=Metric.AVAILABLE, figure=figure) for link in links],
    )
