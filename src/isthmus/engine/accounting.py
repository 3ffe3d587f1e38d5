"""After the end: the usage record of each attempt, exactly one, with its charge; then the site's directory is removed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any

import orjson
import sqlalchemy as sa

from isthmus.domain.errors import Unavailable
from isthmus.domain.hours import Hours, read_hours
from isthmus.domain.site import Energy
from isthmus.domain.usage import Usage
from isthmus.engine.carbon import carbon_hours
from isthmus.engine.failpoints import failpoint
from isthmus.engine.jobs import reference
from isthmus.engine.leases import Lease, guard
from isthmus.engine.serving import add_usage, as_cpus
from isthmus.engine.settings import EngineSettings
from isthmus.engine.work import SiteWork, is_due, update_attempts
from isthmus.store import events, tables

log = logging.getLogger(__name__)
_BATCH = 1000
_TRIES_BEFORE_LOST = 100  # more than an hour of asking once a minute


async def account(work: SiteWork) -> int:
    """One pass over ended attempts: record usage that is ready, clean what is recorded. Answers how many were moved."""
    now = work.clock.now()
    rows = await work.database.read(_load, work.name, now)
    if not rows:
        return 0
    work.check_ours()
    recorded = await _record(work, [row for row in rows if row.usage_state == "due"], now)
    clean = [
        row
        for row in rows
        if row.clean_state == "due"
        and (row.usage_state != "due" or row.key in recorded)
        and not 0 <= now - row.updated_at < work.settings.clean_after
    ]
    if clean:
        async with asyncio.timeout(work.settings.call_timeout):
            await work.adapter.clean([reference(row) for row in clean])
        failpoint("clean.done")
        changes = [{"which": row.key, "clean_state": "done"} for row in clean]
        await work.database.write(update_attempts, work.lease, changes, ("clean_state",))
    return len(recorded) + len(clean)


async def _record(work: SiteWork, rows: Sequence[Any], now: float) -> set[str]:
    if not rows:
        return set()
    try:
        async with asyncio.timeout(work.settings.call_timeout):
            usages = await work.adapter.usage([reference(row) for row in rows])
    except (Unavailable, TimeoutError, OSError):
        await work.database.write(_put_off, work.lease, [(row.key, now + work.delay(row.tries + 1)) for row in rows])
        raise
    failpoint("account.asked")
    ready = [(row, usages[row.key]) for row in rows if row.key in usages]
    late = [row for row in rows if row.key not in usages]
    lost = [row for row in late if _is_given_up(row, now, work.settings.usage_patience)]
    await work.database.write(record, work.lease, now, ready, lost, work.settings.fair_half_life)
    failpoint("account.written")
    still = [(row.key, now + work.delay(row.tries + 1)) for row in late if row not in lost]
    await work.database.write(_put_off, work.lease, still)
    return {row.key for row, _ in ready} | {row.key for row in lost}


def _is_given_up(row: Any, now: float, patience: float) -> bool:
    """Asked often and for long. Long alone may be a clock that was set, or a service that was off for that time."""
    return row.tries >= _TRIES_BEFORE_LOST and now - (row.ended_at or now) > patience


def record(
    connection: sa.Connection,
    lease: Lease,
    now: float,
    ready: Sequence[tuple[Any, Usage]],
    lost: Sequence[Any] = (),
    half_life: float = EngineSettings().fair_half_life,
) -> None:
    """Write usage records, each only if its attempt has none yet, and mark the attempts as accounted."""
    guard(connection, lease)
    keys = [row.key for row, _ in ready]
    there: set[str] = set()
    for start in range(0, len(keys), 500):
        query = sa.select(tables.usage_records.c.attempt).where(
            tables.usage_records.c.attempt.in_(keys[start : start + 500])
        )
        there.update(connection.execute(query).scalars())
    tariffs = _tariffs(connection)
    fresh = [(row, usage) for row, usage in ready if row.key not in there]
    carbon = carbon_hours(connection)
    rows = [_usage_row(now, row, usage, tariffs.get(row.site, {}), carbon.get(row.site)) for row, usage in fresh]
    if rows:
        used = dict.fromkeys({row.project for row, _ in fresh}, 0.0)
        for row, usage in fresh:
            used[row.project] += as_cpus(usage.allocated_cpu_seconds, usage.accelerators * usage.elapsed_seconds)
        add_usage(connection, now, half_life, used)
        connection.execute(tables.usage_records.insert(), rows)
        events.add(
            connection,
            [
                events.event(
                    now,
                    "usage.recorded",
                    project=row["project"],
                    task_id=row["task_id"],
                    attempt=row["attempt"],
                    site=row["site"],
                    body={"charge": row["charge"], "source": row["source"]},
                )
                for row in rows
            ],
        )
    _mark(connection, keys, "done")
    _mark(connection, [row.key for row in lost], "lost")


def _mark(connection: sa.Connection, keys: Sequence[str], state: str) -> None:
    for start in range(0, len(keys), 500):
        connection.execute(
            tables.attempts.update()
            .where(tables.attempts.c.key.in_(keys[start : start + 500]))
            .values(usage_state=state, tries=0, due_at=0.0)
        )


def charge(usage: Usage, tariff: Mapping[str, Any], begin: float, *, preemptible: bool = False) -> Decimal:
    """What a usage costs at a tariff of `cpu_hour` and `accelerator_hour` in the hours of its run, to the sixth decimal."""
    cpu_hours = Decimal(usage.allocated_cpu_seconds) / 3600
    accelerator_hours = Decimal(usage.accelerators * usage.elapsed_seconds) / 3600
    each = {
        name: hours_of(tariff, name).mean(begin, usage.elapsed_seconds) if name in tariff else Decimal(0)
        for name in ("cpu_hour", "accelerator_hour")
    }
    total = cpu_hours * each["cpu_hour"] + accelerator_hours * each["accelerator_hour"]
    if preemptible:
        total *= preemptible_share(tariff)
    return total.quantize(Decimal("0.000001"))


def by_hour(tariff: Mapping[str, Any], name: str) -> Hours | None:
    """A figure of a tariff that differs by the hour; None where it does not."""
    found = hours_of(tariff, name) if name in tariff else None
    return found if found is not None and len(found.values) > 1 else None


def preemptible_share(tariff: Mapping[str, Any]) -> Decimal:
    """The part of the price that preemptible tasks pay; all of it where the tariff says nothing."""
    return flat(tariff, "preemptible_share") if "preemptible_share" in tariff else Decimal(1)


def flat(tariff: Mapping[str, Any], name: str) -> Decimal:
    """A figure of a tariff, or the mean over its hours; 0 where it has none."""
    return hours_of(tariff, name).middle if name in tariff else Decimal(0)


def hours_of(tariff: Mapping[str, Any], name: str) -> Hours:
    """A figure that a tariff has, by the hour where it differs."""
    return _read(str(tariff[name]))


_read = lru_cache(maxsize=4096)(read_hours)


def energy_of(tariff: Mapping[str, Any], carbon: Hours | None = None) -> Energy:
    """What an operator declared of a pool's power and grid, beside its prices; `carbon` is a series that was brought in."""
    declared = "carbon_grams_per_kwh" in tariff
    return Energy(
        watts_per_cpu=Decimal(str(tariff.get("cpu_watts", 0))),
        watts_per_accelerator=Decimal(str(tariff.get("accelerator_watts", 0))),
        pue=Decimal(str(tariff.get("pue", 1))),
        carbon_grams_per_kwh=flat(tariff, "carbon_grams_per_kwh") if declared else None,
        carbon_hours=carbon or by_hour(tariff, "carbon_grams_per_kwh"),
    )


def _usage_row(now: float, row: Any, usage: Usage, prices: Mapping[str, Any], carbon: Hours | None) -> dict[str, Any]:
    tariff = prices.get(row.pool, prices.get("*", {}))
    energy = energy_of(tariff, carbon)
    begin = usage.started_at if usage.started_at is not None else (usage.ended_at or now) - usage.elapsed_seconds
    kwh = energy.kwh(usage.allocated_cpu_seconds, usage.accelerators * usage.elapsed_seconds)
    grams = energy.grams(kwh, begin, usage.elapsed_seconds)
    return {
        "attempt": row.key,
        "task_id": row.task_id,
        "project": row.project,
        "user": row.user,
        "site": row.site,
        "pool": row.pool,
        "account": row.account,
        "source": usage.source,
        "native_id": usage.native_id or row.native_id,
        "native_state": usage.native_state[:64],
        "started_at": usage.started_at,
        "ended_at": usage.ended_at,
        "elapsed_seconds": usage.elapsed_seconds,
        "nodes": usage.nodes,
        "cpus": usage.cpus,
        "accelerators": usage.accelerators,
        "cpu_seconds": usage.cpu_seconds,
        "allocated_cpu_seconds": usage.allocated_cpu_seconds,
        "max_rss_bytes": usage.max_rss_bytes,
        "read_bytes": usage.read_bytes,
        "written_bytes": usage.written_bytes,
        "charge": str(charge(usage, tariff, begin, preemptible=row.grace_seconds > 0)),
        "energy_kwh": None if kwh is None else str(kwh),
        "carbon_grams": None if grams is None else str(grams),
        "created_at": now,
    }


def _tariffs(connection: sa.Connection) -> dict[str, Any]:
    query = sa.select(tables.sites.c.name, tables.sites.c.prices)
    return {row.name: orjson.loads(row.prices) for row in connection.execute(query)}


def _put_off(connection: sa.Connection, lease: Lease, later: Sequence[tuple[str, float]]) -> None:
    guard(connection, lease)
    if later:
        statement = (
            tables.attempts.update()
            .where(tables.attempts.c.key == sa.bindparam("which"))
            .values(due_at=sa.bindparam("later"), tries=tables.attempts.c.tries + 1)
        )
        connection.execute(statement, [{"which": key, "later": when} for key, when in later])


def _load(connection: sa.Connection, site: str, now: float) -> list[Any]:
    a = tables.attempts.c
    query = (
        tables.attempts.select()
        .where(sa.or_(a.usage_state == "due", a.clean_state == "due"))
        .where(a.site == site)
        .where(is_due(a.due_at, now))
        .order_by(a.due_at)
        .limit(_BATCH)
    )
    return list(connection.execute(query))
