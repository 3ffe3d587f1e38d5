"""What a round looks at beside the waiting tasks: jobs that wait at sites and might move, and preemptible ones in the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson
import sqlalchemy as sa

from isthmus.domain.lifecycle import AttemptState
from isthmus.domain.placement import Snapshot, WaitingTask, Why
from isthmus.engine.dispatching import DATA_AGAIN_SECONDS
from isthmus.engine.settings import EngineSettings
from isthmus.engine.snapshot import read_snapshot
from isthmus.engine.withdrawing import PREEMPT, STATES
from isthmus.placement import Decision
from isthmus.placement.moving import Queued
from isthmus.placement.preempting import Holder, Place, Room, Wanting
from isthmus.store import tables

_A = AttemptState
_AT_ONCE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """All of it, read at one moment; `queued` are rows, empty unless it is time to look for moves."""

    snapshot: Snapshot
    queued: list[Any]
    holders: list[Holder]
    blocked: list[Wanting]


def look(connection: sa.Connection, now: float, settings: EngineSettings, moves: bool, after: str = "") -> Look | None:
    """None when there is nothing to move and nothing to end. `after`: the last task of the look before, see `following`."""
    queued = read_queued(connection, now, settings, after) if moves else []
    holders = read_holders(connection)
    if not queued and not holders:
        return None
    blocked = read_blocked(connection, now, settings) if holders else []
    return Look(snapshot=read_snapshot(connection, now), queued=queued, holders=holders, blocked=blocked)


def following(queued: Sequence[Any]) -> str:
    """What the next look begins behind, so that many that cannot move hide nobody; empty: at the start."""
    return str(queued[-1].id) if len(queued) == _AT_ONCE else ""


def read_queued(connection: sa.Connection, now: float, settings: EngineSettings, after: str = "") -> list[Any]:
    """Attempts that wait at a site for long enough to be looked at, by task, those behind `after` first."""
    a, t = tables.attempts, tables.tasks
    since = now - settings.move_after
    not_for_data = (
        now + 2 * DATA_AGAIN_SECONDS
    )  # what waits for data is put off for less, what a full queue refused for more
    refused = sa.and_(a.c.state == _A.STAGING.value, a.c.due_at > not_for_data, a.c.tries == 0, a.c.created_at < since)
    query = (
        sa.select(
            a.c.key,
            a.c.site,
            a.c.pool,
            a.c.submitted_at,
            a.c.observed,
            a.c.created_at,
            a.c.state.label("at"),
            t.c.id,
            t.c.user,
            t.c.project,
            t.c.spec,
            t.c.input_bytes,
            t.c.avoid_sites,
        )
        .join_from(a, t, sa.and_(t.c.id == a.c.task_id, t.c.attempt == a.c.key))
        .where(sa.text(tables.LIVE.replace("state", "attempts.state")))
        .where(sa.or_(sa.and_(a.c.state == _A.QUEUED.value, a.c.submitted_at < since), refused))
        .where(a.c.ending == "")
        .where(a.c.gang == "")  # those that start together stay where they were placed together
        .where(a.c.cancel_requested.is_(False))
        .where(t.c.moves < settings.moves_most)
        .order_by(sa.case((t.c.id > after, 0), else_=1), t.c.id)
        .limit(_AT_ONCE)
    )
    return list(connection.execute(query))


def as_queued(row: Any, task: WaitingTask, now: float, queued_jobs: int) -> Queued:
    """A waiting job as the brain sees it; where it stands in its queue is known at some sites, at others only how long it waits."""
    position = orjson.loads(row.observed).get("queue_position")
    known = bool(position and queued_jobs)
    ahead = min(1.0, position / queued_jobs) if known else 1.0
    refused = max(0.0, now - row.created_at) if row.at == _A.STAGING else 0.0
    waited = 0.0 if known or refused or row.submitted_at is None else max(0.0, now - row.submitted_at)
    return Queued(
        key=row.key,
        site=row.site,
        pool=row.pool,
        task=task,
        ahead=ahead,
        waited_seconds=waited,
        refused_seconds=refused,
    )


def read_holders(connection: sa.Connection) -> list[Holder]:
    """The preemptible attempts that hold room: those that can be asked to end, and those that were."""
    a = tables.attempts.c
    can_end = a.state.in_([state.value for state in STATES[PREEMPT]])
    query = (
        sa.select(tables.attempts)
        .where(sa.text(f"grace_seconds > 0 AND {tables.LIVE}"))
        .where(a.state != _A.COLLECTING.value)
        .where(sa.or_(can_end, a.ending != "", a.cancel_requested))
    )
    return [
        Holder(
            key=row.key,
            place=(row.site, row.pool),
            room=_room(row),
            started_at=row.started_at or row.created_at,
            ending=bool(row.ending) or row.cancel_requested,
        )
        for row in connection.execute(query)
    ]


class RoomToCome:
    """Holders that were asked to end and are gone, until their site's figures show their room: it must not be made twice.

    A pool without a queue needs none of it: what is free there is counted by promises.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._known: dict[str, tuple[Holder, float]] = {}  # with the time when it was last there

    def remember(self, asked: Sequence[Holder], now: float) -> None:
        """These were asked to end just now."""
        self._known.update((holder.key, (replace(holder, ending=True), now)) for holder in asked)

    def into(self, holders: Sequence[Holder], snapshot: Snapshot, now: float) -> list[Holder]:
        """The holders, with those that have gone since."""
        self.remember([holder for holder in holders if holder.ending], now)
        there = {holder.key for holder in holders}
        queues = {(view.site, view.pool.name) for view in snapshot.pools if not view.pool.immediate}
        self._known = {
            key: (holder, at)
            for key, (holder, at) in self._known.items()
            if holder.place in queues and 0 <= now - at < self._seconds
        }
        return [*holders, *(holder for key, (holder, _) in self._known.items() if key not in there)]


def read_blocked(connection: sa.Connection, now: float, settings: EngineSettings) -> list[Wanting]:
    """Ordinary jobs that wait in the queue of a site where preemptible ones run."""
    a = tables.attempts.c
    holding = sa.select(a.site, a.pool).where(a.grace_seconds > 0).where(a.state == _A.RUNNING.value)
    query = (
        sa.select(tables.attempts)
        .where(a.state == _A.QUEUED.value)
        .where(a.grace_seconds == 0)
        .where(a.ending == "")
        .where(a.cancel_requested.is_(False))
        .where(a.submitted_at < now - settings.preempt_after)
        .where(sa.tuple_(a.site, a.pool).in_(holding))
        .order_by(a.key)
        .limit(_AT_ONCE)
    )
    return [
        Wanting(task_id=row.task_id, room=_room(row), places=((row.site, row.pool),))
        for row in connection.execute(query)
    ]


def _room(row: Any) -> Room:
    return Room(cpus=row.cpus, memory_bytes=row.memory_bytes, accelerators=row.accelerators)


def free_room(snapshot: Snapshot) -> dict[Place, Room]:
    """What is idle at each pool: of one without a queue what was not promised; of a queue what its site saw, processors only."""
    found: dict[Place, Room] = {}
    for view in snapshot.pools:
        pool, taken = view.pool, view.promised
        if pool.immediate:
            room = Room(
                cpus=pool.cpus - taken.cpus,
                memory_bytes=pool.memory_bytes_per_node * pool.nodes - taken.memory_bytes,
                accelerators=pool.accelerators_per_node * pool.nodes - taken.accelerators,
            )
        else:
            whole = pool.memory_bytes_per_node * pool.nodes
            room = Room(
                cpus=pool.free_cpus or 0, memory_bytes=whole, accelerators=pool.accelerators_per_node * pool.nodes
            )
        found[view.site, pool.name] = room
    return found


def unplaced(decision: Decision, tasks: Sequence[WaitingTask]) -> list[Wanting]:
    """The ordinary tasks of a round that found every pool full that they could have had; of a gang each part at a site of its own, where
    another is not free for it already."""
    found = []
    sites: dict[str, set[str]] = {}  # by gang, those that its earlier parts would have
    for task, receipt in zip(tasks, decision.receipts, strict=True):
        if task.preemptible or receipt.chosen_site:
            continue
        full = [c for c in receipt.candidates if c.why is Why.FULL_NOW]
        full.sort(key=lambda c: (c.finish_seconds or 0.0, c.site, c.pool))
        if task.gang is not None:
            taken = sites.setdefault(task.gang.id, set())
            free = sorted({c.site for c in receipt.candidates if c.why is Why.NO_PAIR_OF_SITES} - taken)
            full = [] if free else [c for c in full if c.site not in taken]
            full = [c for c in full if c.site == full[0].site]
            taken.update(free[:1] or {c.site for c in full[:1]})
        if full:
            demand = task.demand
            room = Room(
                cpus=demand.cpus_per_node * demand.nodes,
                memory_bytes=demand.memory_bytes * demand.nodes,
                accelerators=demand.accelerators.count * demand.nodes,
            )
            found.append(Wanting(task_id=task.id, room=room, places=tuple((c.site, c.pool) for c in full)))
    return found
