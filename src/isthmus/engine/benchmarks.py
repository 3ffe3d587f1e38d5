"""Benchmarks of sites: the tasks that measure, and the capabilities that become of what they leave.

A benchmark is an ordinary task with a row in `benchmarks`. When the task has ended, its document is read, checked and
stored, and the capabilities of its pool are made anew from the newest measurement of each node, in one transaction.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from isthmus.data.port import BlobStore
from isthmus.domain.capability import NodeCapability
from isthmus.domain.errors import IsthmusError, Unavailable
from isthmus.domain.lifecycle import TASK_ENDED, TaskState
from isthmus.domain.site import Pool
from isthmus.domain.task import Accelerators, Constraints, Demand, Input, Output, TaskSpec
from isthmus.engine import intents
from isthmus.engine.leases import Lease, guard
from isthmus.engine.transitions import grant
from isthmus.metering import aggregate
from isthmus.metering.packing import NAME
from isthmus.metering.reading import MAX_BYTES, read_document
from isthmus.store import events, tables
from isthmus.store.database import Database
from isthmus.store.documents import dump, load

log = logging.getLogger(__name__)
RESULT = "capability.json"
KEPT_SECONDS = 90 * 86400.0  # an older measurement of a node counts no more
_WALLTIME_SECONDS = 600
_MEMORY_BYTES = 8 * 1024**3  # enough for large matrices; a small node gives half of its own
_AT_ONCE = 50


def specification(site: str, pool: Pool, *, program: str, python: str, seconds: float) -> TaskSpec:
    """The task that measures one whole node of a pool; `program` is the hash of the benchmark's file."""
    memory = max(512 * 1024**2, min(_MEMORY_BYTES, pool.memory_bytes_per_node // 2))
    words = ["--quiet", "--seconds", f"{seconds:g}", "--memory", str(memory), "--output", RESULT]
    return TaskSpec(
        name=f"bench-{pool.name}"[:255],
        description=f"Measures one node of {site}/{pool.name}.",
        command=(python, NAME, *words),
        inputs=(Input(path=NAME, blob=program),),
        outputs=(Output(path=RESULT),),
        demand=Demand(
            cpus=pool.cpus_per_node,
            memory_bytes=memory,
            accelerators=Accelerators(count=pool.accelerators_per_node),
            walltime_seconds=min(_WALLTIME_SECONDS, pool.max_walltime_seconds or _WALLTIME_SECONDS),
        ),
        constraints=Constraints(sites_allow=(site,), pools_allow=(pool.name,)),
        tags={"isthmus": "bench"},
        max_attempts=1,
    )


def submit(
    connection: sa.Connection,
    *,
    now: float,
    user: str,
    project: str,
    site: str,
    pools: Sequence[Pool],
    nodes: int,
    program: str,
    program_bytes: int,
    python: str,
    seconds: float,
) -> list[str]:
    """Store the tasks that measure `nodes` nodes of each pool; answers their ids."""
    grant(connection, now, {(project, program): program_bytes})
    each = [pool for pool in pools for _ in range(min(nodes, pool.nodes))]
    specs = [specification(site, pool, program=program, python=python, seconds=seconds) for pool in each]
    ids = [made[0] for made in intents.submit(connection, now=now, user=user, project=project, specs=specs)]
    connection.execute(
        tables.benchmarks.insert(),
        [
            {"task_id": task_id, "site": site, "pool": pool.name, "user": user, "state": "due", "created_at": now}
            for task_id, pool in zip(ids, each, strict=True)
        ],
    )
    return ids


async def take_in(database: Database, blobs: BlobStore, now: float, lease: Lease) -> int:
    """Read what ended benchmarks left and store the capabilities; answers how many were taken in."""
    rows = await database.read(_ended)
    for row in rows:
        try:
            measured: NodeCapability | None = await _read(blobs, row)
            message = "" if measured else row.message or f"The task {row.task_state}."
        except Unavailable as error:
            log.warning("benchmark %s is read later: %s", row.task_id, error)
            continue
        except IsthmusError as error:
            measured, message = None, str(error)
        await database.write(_store, now, lease, row, measured, message)
    return len(rows)


def _ended(connection: sa.Connection) -> list[Any]:
    b, t, o = tables.benchmarks, tables.tasks, tables.outputs
    output = sa.and_(o.c.task_id == b.c.task_id, o.c.path == RESULT)
    query = (
        sa.select(
            b.c.task_id, b.c.site, b.c.pool, t.c.state.label("task_state"), t.c.message, o.c.sha256, o.c.size_bytes
        )
        .join(t, t.c.id == b.c.task_id)
        .outerjoin(o, output)
        .where(sa.text("benchmarks.state = 'due'"), t.c.state.in_([state.value for state in TASK_ENDED]))
        .order_by(b.c.task_id)
        .limit(_AT_ONCE)
    )
    return list(connection.execute(query).all())


async def _read(blobs: BlobStore, row: Any) -> NodeCapability | None:
    if row.task_state != TaskState.SUCCEEDED or row.sha256 is None:
        return None
    content = bytearray()
    async for chunk in blobs.read(row.sha256):
        content += chunk
        if len(content) > MAX_BYTES:
            break
    return read_document(bytes(content))


def _store(
    connection: sa.Connection, now: float, lease: Lease, row: Any, measured: NodeCapability | None, message: str
) -> None:
    guard(connection, lease)
    b = tables.benchmarks
    values: dict[str, Any] = {"state": "failed", "message": message[:4000]}
    if measured is not None:
        values = {"state": "done", "node": measured.node[:255], "body": dump(measured), "measured_at": now}
    connection.execute(b.update().where(b.c.task_id == row.task_id, b.c.state == "due").values(values))
    if measured is not None:
        _aggregate(connection, now, row.site, row.pool)
    body = {"pool": row.pool, "state": values["state"], "node": values.get("node", "")}
    events.add(connection, [events.event(now, "site.measured", site=row.site, body=body)])


def _aggregate(connection: sa.Connection, now: float, site: str, pool: str) -> None:
    """Make the pool's capabilities anew."""
    b, c = tables.benchmarks, tables.capabilities
    query = sa.select(b.c.body).where(
        b.c.site == site, b.c.pool == pool, b.c.state == "done", b.c.measured_at >= now - KEPT_SECONDS
    )
    found = aggregate.by_kind(load(NodeCapability, body) for body in connection.scalars(query))
    connection.execute(c.delete().where(c.c.site == site, c.c.pool == pool))
    if found:
        connection.execute(
            c.insert(),
            [
                {
                    "site": site,
                    "pool": pool,
                    "kind": one.kind,
                    "measured_at": one.measured_at,
                    "stored_at": now,
                    "general_units": one.general,
                    "body": dump(one),
                }
                for one in found
            ],
        )
