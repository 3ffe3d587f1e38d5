"""A site's usage records as one file, exact to the record: CSV, or Parquet where pyarrow is installed."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import Query, Response

from isthmus.api.body import Since, SitePath, when
from isthmus.api.routing import Router
from isthmus.api.service import Serving
from isthmus.api.task_rows import USAGE_FIELDS
from isthmus.domain.errors import Refused, Unavailable
from isthmus.store import tables
from isthmus.trust.access import OfSite

router = Router("usage")
MOST = 200_000
_MONEY = ("charge", "energy_kwh", "carbon_grams")


class Format(StrEnum):
    """What the file is."""

    CSV = "csv"
    PARQUET = "parquet"


Form = Annotated[Format, Query(alias="format")]


@router.route("GET", "/v1/sites/{site}/usage:export", rule=OfSite(), media="application/octet-stream", errors=[503])
async def export_site_usage(
    service: Serving, site: SitePath, form: Form = Format.CSV, since: Since = None, until: Since = None
) -> Response:
    """A site's usage records, oldest first, as a file; at most 200,000 of them, so name a time for more."""
    u = tables.usage_records.c
    query = sa.select(tables.usage_records).where(u.site == site)
    if since is not None:
        query = query.where(u.created_at >= since.timestamp())
    if until is not None:
        query = query.where(u.created_at < until.timestamp())
    query = query.order_by(u.created_at, u.attempt).limit(MOST + 1)
    rows: Sequence[sa.Row[Any]] = await service.database.read(lambda connection: connection.execute(query).all())
    if len(rows) > MOST:
        raise Refused(f"There are more than {MOST} records.", remedy="Narrow it by since and until.")
    import asyncio

    content = await asyncio.to_thread(as_csv if form is Format.CSV else as_parquet, rows)
    name = f"usage-{site}.{form.value}"
    return Response(
        content,
        media_type="application/octet-stream",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def as_csv(rows: Sequence[sa.Row[Any]]) -> bytes:
    """Times as RFC 3339, money as the decimal that was stored; a text that a spreadsheet would run begins with a quote mark."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(USAGE_FIELDS)
    for row in rows:
        writer.writerow([_cell(name, getattr(row, name)) for name in USAGE_FIELDS])
    return out.getvalue().encode()


def _cell(name: str, value: object) -> object:
    if name.endswith("_at") and isinstance(value, float):
        moment = when(value)
        return "" if moment is None else moment.isoformat()
    if isinstance(value, str) and name not in _MONEY and value[:1] in "=+-@\t\r" and value:
        return f"'{value}"
    return "" if value is None else value


def as_parquet(rows: Sequence[sa.Row[Any]]) -> bytes:
    """Times as timestamps in UTC, money as text; Unavailable without pyarrow."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise Unavailable("The service has no pyarrow.", remedy="Install isthmus[twin] there, or take CSV.") from None
    columns: dict[str, Any] = {}
    for column in tables.usage_records.columns:
        values = [getattr(row, column.name) for row in rows]
        if column.name.endswith("_at"):
            columns[column.name] = pa.array([when(value) for value in values], pa.timestamp("us", tz="UTC"))
        elif isinstance(column.type, sa.Integer):
            columns[column.name] = pa.array(values, pa.int64())
        elif isinstance(column.type, sa.Double):
            columns[column.name] = pa.array(values, pa.float64())
        else:
            columns[column.name] = pa.array(values, pa.string())
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()
