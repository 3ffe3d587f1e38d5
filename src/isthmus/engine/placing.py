"""The placement round: reads a snapshot, lets the brain decide, and writes attempts, promises and receipts at once."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import orjson
import sqlalchemy as sa

from isthmus.domain.errors import Refused
from isthmus.domain.lifecycle import ATTEMPT_ENDED, AttemptState, EndReason, TaskState
from isthmus.domain.placement import (
    PASSING,
    Gang,
    Receipt,
    ScarcePrice,
    Snapshot,
    WaitingTask,
    Why,
)
from isthmus.domain.site import SiteState
from isthmus.domain.task import TaskSpec
from isthmus.engine.auditing import Auditing
from isthmus.engine.clock import new_id
from isthmus.engine.endings import end_tasks
from isthmus.engine.ends import AGAIN_SECONDS as ENDS_SECONDS
from isthmus.engine.ends import Ends
from isthmus.engine.failpoints import failpoint
from isthmus.engine.gangs import open_gangs, read_gangs, settle
from isthmus.engine.handling import AGAIN_SECONDS as HANDLING_SECONDS
from isthmus.engine.handling import Handling
from isthmus.engine.homes import NOBODY, Homes, read_homes
from isthmus.engine.learning import RunTimes
from isthmus.engine.leases import Lease, guard
from isthmus.engine.rebalancing import Look, RoomToCome, as_queued, following, free_room, look, unplaced
from isthmus.engine.roads import NOTHING, DataView, RoadMap, promise, with_data
from isthmus.engine.serving import Line, as_cpus, open_line, processors_of, read_waiting
from isthmus.engine.settings import EngineSettings
from isthmus.engine.snapshot import read_apart, read_snapshot, waiting_task
from isthmus.engine.taskdata import kept_by, refs_of
from isthmus.engine.waiting import WaitTimes, shape_of
from isthmus.engine.warming import Warming
from isthmus.engine.withdrawing import MOVE, PREEMPT, take_back
from isthmus.placement import Decision, decide
from isthmus.placement.fairshare import Leads
from isthmus.placement.moving import find_better
from isthmus.placement.preempting import Wanting, make_room
from isthmus.store import events, tables
from isthmus.store.database import Database
from isthmus.store.documents import dump, load

log = logging.getLogger(__name__)
_ENDED = [state.value for state in ATTEMPT_ENDED]
_PAGES = 5
_SHOWN_SECONDS = 5.0  # beyond the next look at its pools a site needs to show room that became free
_READING_TASKS = 300  # tasks looked at in one go while some of them read data sets: ways are looked at for each of them


def look_again(connection: sa.Connection, now: float, lease: Lease) -> None:
    """Let the next round look at every waiting task, also at those that could go nowhere before."""
    guard(connection, lease)
    t = tables.tasks.c
    connection.execute(
        tables.tasks.update().where(t.state == TaskState.WAITING.value).where(t.due_at > now).values(due_at=0.0)
    )


class Round:
    """Places waiting tasks; remembers the last reasons it wrote, so that it writes a receipt only when they change.

    `prices` are those of the last round, empty when nothing is contested.
    """

    def __init__(
        self, settings: EngineSettings, run_times: RunTimes, wait_times: WaitTimes, handling: Handling, ends: Ends
    ) -> None:
        self._settings = settings
        self._run_times = run_times
        self._wait_times = wait_times
        self._told: dict[str, tuple[str, ...]] = {}
        self._specs: dict[str, TaskSpec] = {}
        self.prices: tuple[ScarcePrice, ...] = ()
        self._looked_for_moves = 0.0
        self._moves_after = ""
        self._gangs_after = ""
        self._to_come = RoomToCome(settings.describe_interval + _SHOWN_SECONDS)
        self.took_back = False  # the last round asked that attempts end
        self.roads = RoadMap(settings.home_region)
        self.auditing = Auditing()
        self.handling = handling
        self.ends = ends
        self._reading = False
        self._warming = Warming("isthmus.placement.joint", "contested rounds stay in plain order")

    async def run(self, database: Database, now: float, lease: Lease) -> int:
        """One round; answers how many tasks were placed. LostLease when another process places now."""
        placed = 0
        found: tuple[ScarcePrice, ...] = ()
        line: Line | None = None
        wanting: list[Wanting] = []
        limit, weight = self._settings.round_tasks, self._settings.fair_weight
        done: set[str] = set()  # gangs
        settled = await self._settle(database, now, lease)
        if self._reading:
            limit = min(limit, _READING_TASKS)
        pages = _PAGES * self._settings.round_tasks // limit
        for _ in range(pages):  # a page on which nothing fits must not hide what is behind it
            snapshot = replace(
                await database.read(read_snapshot, now), prices=found or self.prices, gap=self.auditing.gap
            )
            if line is None:
                line = await database.read(open_line, now, self._settings, processors_of(snapshot))
            rows = await database.read(read_waiting, now, limit, line, partial(self._cost, now), weight)
            if not rows:
                break
            read = len(rows)
            rows, gangs = await self._with_gangs(database, rows, done)
            await self.handling.refresh(now, HANDLING_SECONDS)
            await self.ends.refresh(now, ENDS_SECONDS)
            specs, broken = self._read_specs(rows)
            if broken:
                await database.write(_park, now, lease, broken)
                rows = [row for row in rows if row.id in specs]
            snapshot = await self._apart(database, snapshot, rows, specs)
            data = await self._data(database, now, specs)
            self._reading = bool(data.pieces)
            snapshot = replace(snapshot, roads=data.roads)
            gangs = _readable(gangs, rows)
            homes = await self.homes(database)
            tasks, decision = await asyncio.to_thread(
                self._decide, snapshot, rows, specs, data, line.leads, homes, gangs
            )
            wanting += unplaced(decision, tasks)
            if decision.contested:
                self._warming.start()
                if self._warming.ready:
                    self.auditing.offer(snapshot, tasks, now)
            found = decision.prices or found
            failpoint("place.decided")
            placed += await database.write(self._write, now, lease, specs, decision, gangs)
            if read < limit:
                break
        self.prices = self.auditing.adjust(found)
        self.took_back = await self._take_back(database, now, lease, wanting) or settled
        return placed

    async def _settle(self, database: Database, now: float, lease: Lease) -> bool:
        """Let gangs start whose parts are all there, and take back the parts of those that lost one; whether any site is to act."""
        if not await database.read(open_gangs):
            return False
        settled = await database.write(settle, now, lease, self._gangs_after)
        self._gangs_after = settled.after
        failpoint("gang.let_go")
        return settled.asked

    async def _with_gangs(
        self, database: Database, rows: list[Any], done: set[str]
    ) -> tuple[list[Any], Mapping[str, Gang]]:
        """The rows without those of gangs that an earlier page had, with the members that are on no page yet; and the gangs."""
        rows = [row for row in rows if row.gang not in done]
        if not any(row.gang for row in rows):
            return rows, {}
        whole = await database.read(read_gangs, rows)
        done.update(row.gang for row in rows if row.gang)
        return [*rows, *whole.others], whole.places

    async def _take_back(self, database: Database, now: float, lease: Lease, wanting: Sequence[Wanting]) -> bool:
        """Ask preemptible jobs to make room, and jobs that wait at one site to go where they would start sooner."""
        settings = self._settings
        moves = settings.moves_at_once > 0 and not 0 <= now - self._looked_for_moves < settings.move_interval
        if moves:
            self._looked_for_moves = now
        seen = await database.read(look, now, settings, moves, self._moves_after)
        if moves:
            self._moves_after = following(seen.queued) if seen is not None else ""
        if seen is None:
            return False
        holders = self._to_come.into(seen.holders, seen.snapshot, now)
        ended = await asyncio.to_thread(make_room, free_room(seen.snapshot), [*wanting, *seen.blocked], holders)
        notes = {key: f"made room for task {task_id}" for key, task_id in ended}
        asked = await database.write(take_back, now, lease, PREEMPT, notes) if notes else []
        taken = set(asked)
        self._to_come.remember([holder for holder in holders if holder.key in taken], now)
        if seen.queued:
            specs, _ = self._read_specs(seen.queued)
            readable = [row for row in seen.queued if row.id in specs]
            seen = replace(seen, snapshot=await self._apart(database, seen.snapshot, readable, specs), queued=readable)
            data = await self._data(database, now, specs)
            homes = await self.homes(database)
            notes = await asyncio.to_thread(self._better, seen, now, specs, data, homes)
            asked += await database.write(take_back, now, lease, MOVE, notes) if notes else []
        return bool(asked)

    def _better(
        self, seen: Look, now: float, specs: Mapping[str, TaskSpec], data: DataView, homes: Homes
    ) -> dict[str, str]:
        """Waiting jobs that should move, and why: those that gain most."""
        jobs = {(view.site, view.pool.name): view.pool.queued_jobs for view in seen.snapshot.pools}
        rows = seen.queued
        tasks = self._tasks(now, rows, specs, data, None, homes)
        snapshot = self.at_home(self._informed(replace(seen.snapshot, roads=data.roads), tasks), homes)
        queued = [
            as_queued(row, task, now, jobs.get((row.site, row.pool), 0)) for row, task in zip(rows, tasks, strict=True)
        ]
        settings = self._settings
        better = find_better(
            snapshot, queued, least_seconds=settings.move_least_seconds, least_part=settings.move_least_part
        )
        better.sort(key=lambda one: (-one.gain_seconds, one.key))
        return {one.key: f"moved: {one.note}" for one in better[: settings.moves_at_once]}

    async def _data(self, database: Database, now: float, specs: Mapping[str, TaskSpec]) -> DataView:
        """Where the tasks' data sets are and how they could move; nothing is read when no task reads any, or leaves one where it runs."""
        distinct = {id(spec): spec for spec in specs.values()}
        reading = [spec for spec in distinct.values() if refs_of(spec) or kept_by(spec)]
        return await database.read(self.roads.read, now, reading) if reading else NOTHING

    def _cost(self, now: float, row: Any) -> float:
        """Processor-seconds that a waiting task is expected to take."""
        try:
            spec = self._spec(row.spec)
        except (ValueError, Refused):
            return 0.0  # it is parked later
        demand = spec.demand
        run = self._run_times.estimate(row.user, spec, now)
        seconds = run.seconds if run is not None else demand.walltime_seconds
        return as_cpus(demand.cpus_per_node, demand.accelerators.count) * demand.nodes * seconds

    def _tasks(
        self,
        now: float,
        rows: Sequence[Any],
        specs: Mapping[str, TaskSpec],
        data: DataView,
        leads: Leads | None,
        homes: Homes,
        gangs: Mapping[str, Gang] | None = None,
    ) -> list[WaitingTask]:
        """The rows as the brain sees them."""
        standings = {
            project: None if leads is None else leads.standing(project) for project in {row.project for row in rows}
        }
        return [
            with_data(
                waiting_task(
                    row.id,
                    row.user,
                    specs[row.id],
                    input_bytes=row.input_bytes,
                    **self._run_times.known(row.user, specs[row.id], now),
                    avoid_sites=orjson.loads(row.avoid_sites),
                    standing=standings[row.project],
                    home=homes.of.get(row.project, ""),
                    gang=None if gangs is None else gangs.get(row.id),
                ),
                specs[row.id],
                data,
            )
            for row in rows
        ]

    def _informed(self, snapshot: Snapshot, tasks: Sequence[WaitingTask]) -> Snapshot:
        """The snapshot with what was learned of waits, of handling, and of how far ends are from their predictions."""
        waits = self._wait_times.into(snapshot, {shape_of(task) for task in tasks})
        return self.ends.into(self.handling.into(waits))

    async def homes(self, database: Database) -> Homes:
        """Whose home is where, and what the rows of home sites are made from; nobody's where own users do not come first."""
        return await database.read(read_homes) if self._settings.home_first else NOBODY

    def at_home(self, snapshot: Snapshot, homes: Homes) -> Snapshot:
        """The snapshot with a line at each pool of each home site."""
        specs, _ = self._read_specs(homes.waiting)
        rows = [row for row in homes.waiting if row.id in specs]
        return homes.into(
            snapshot, self._tasks(snapshot.now, rows, specs, NOTHING, None, homes), self._wait_times.lines
        )

    def _decide(
        self,
        snapshot: Snapshot,
        rows: Sequence[Any],
        specs: Mapping[str, TaskSpec],
        data: DataView,
        leads: Leads,
        homes: Homes,
        gangs: Mapping[str, Gang],
    ) -> tuple[list[WaitingTask], Decision]:
        """The rows as tasks, and the brain's word on them; in a thread of its own, since it computes."""
        tasks = self._tasks(snapshot.now, rows, specs, data, leads, homes, gangs)
        informed = self.at_home(self._informed(snapshot, tasks), homes)
        return tasks, decide(informed, tasks, pricing=self._warming.ready)

    async def stop(self) -> None:
        """End what goes on beside the rounds."""
        await self.auditing.stop()
        await self._warming.stop()

    async def _apart(
        self, database: Database, snapshot: Snapshot, rows: Sequence[Any], specs: Mapping[str, TaskSpec]
    ) -> Snapshot:
        """The snapshot with the groups that are at each site already, when a task of the round wants to be apart."""
        users = sorted({row.user for row in rows if specs[row.id].constraints.apart})
        groups: dict[str, set[tuple[str, str]]] = {}
        for start in range(0, len(users), 500):
            for site, user, group in await database.read(read_apart, users[start : start + 500]):
                groups.setdefault(site, set()).add((user, group))
        if not groups:
            return snapshot
        views = (replace(view, apart=frozenset(groups.get(view.site, ()))) for view in snapshot.pools)
        return replace(snapshot, pools=tuple(views))

    def _read_specs(self, rows: Sequence[Any]) -> tuple[dict[str, TaskSpec], list[str]]:
        """What each task asks for, and the tasks whose rows cannot be read: they must not hold up the others."""
        specs: dict[str, TaskSpec] = {}
        broken: list[str] = []
        for row in rows:
            try:
                specs[row.id] = self._spec(row.spec)
            except (ValueError, Refused) as error:
                log.error("task %s cannot be read and is parked: %s", row.id, error)
                broken.append(row.id)
        return specs, broken

    def _spec(self, text: str) -> TaskSpec:
        """Elements of an array share their text: read it once."""
        found = self._specs.get(text)
        if found is None:
            if len(self._specs) > 10_000:
                self._specs.clear()
            found = self._specs[text] = load(TaskSpec, text)
        return found

    def _write(
        self,
        connection: sa.Connection,
        now: float,
        lease: Lease,
        specs: Mapping[str, TaskSpec],
        decision: Decision,
        gangs: Mapping[str, Gang],
    ) -> int:
        guard(connection, lease)
        accounts = _accounts(connection)
        wanted = {p.task_id: p for p in decision.placements if p.site in accounts}  # the others: in the next round
        locked = _whole(self._lock_waiting(connection, sorted(wanted)), gangs)
        attempt_rows: list[dict[str, Any]] = []
        task_rows: list[dict[str, Any]] = []
        receipt_rows: list[dict[str, Any]] = []
        receipts = {receipt.task_id: receipt for receipt in decision.receipts}
        for task_id, note in _taken_back(connection, [task.attempt for task in locked if task.moves + task.restarts]):
            receipts[task_id] = replace(receipts[task_id], after=note)
        for task in locked:
            placement, spec = wanted[task.id], specs[task.id]
            demand = spec.demand
            key = new_id(now)
            attempt_rows.append(
                {
                    "key": key,
                    "task_id": task.id,
                    "gang": task.gang,
                    "project": task.project,
                    "user": task.user,
                    "number": task.attempts + 1,
                    "fence": task.fence + 1,
                    "site": placement.site,
                    "pool": placement.pool,
                    "account": _account(accounts[placement.site], task.user),
                    "state": AttemptState.PLACED.value,
                    "nodes": demand.nodes,
                    "cpus": demand.cpus_per_node * demand.nodes,
                    "memory_bytes": demand.memory_bytes * demand.nodes,
                    "accelerators": demand.accelerators.count * demand.nodes,
                    "walltime_seconds": demand.walltime_seconds,
                    "expected_seconds": placement.run_seconds,
                    "grace_seconds": spec.checkpoint_grace_seconds if spec.preemptible else 0,
                    "predicted_seconds": placement.predicted_seconds,
                    "created_at": now,
                    "updated_at": now,
                }
            )
            task_rows.append(
                {
                    "which": task.id,
                    "state": TaskState.PLACED.value,
                    "attempt": key,
                    "attempts": task.attempts + 1,
                    "fence": task.fence + 1,
                    "site": placement.site,
                    "pool": placement.pool,
                    "updated_at": now,
                }
            )
            receipt_rows.append(
                {"task_id": task.id, "attempt": key, "decided_at": now, "body": dump(receipts[task.id])}
            )
        if attempt_rows:
            connection.execute(tables.attempts.insert(), attempt_rows)
            connection.execute(tables.tasks.update().where(tables.tasks.c.id == sa.bindparam("which")), task_rows)
            connection.execute(tables.receipts.insert(), receipt_rows)
            for task in locked:
                promise(connection, now, task.user, task.id, wanted[task.id], self._settings.home_region)
            events.add(
                connection,
                [
                    events.event(
                        now,
                        "attempt.placed",
                        project=row["project"],
                        task_id=row["task_id"],
                        attempt=row["key"],
                        site=row["site"],
                        body={"pool": row["pool"], "number": row["number"]},
                    )
                    for row in attempt_rows
                ],
            )
        placed = {placement.task_id for placement in decision.placements}
        self._tell_waiting(connection, now, [r for r in decision.receipts if r.task_id not in placed])
        self._end_late(connection, now, {task_id: spec for task_id, spec in specs.items() if task_id not in placed})
        return len(attempt_rows)

    @staticmethod
    def _lock_waiting(connection: sa.Connection, ids: Sequence[str]) -> list[Any]:
        """Those tasks that still wait, locked; one that a user cancelled or holds meanwhile is left out."""
        rows: list[Any] = []
        for start in range(0, len(ids), 500):
            query = (
                tables.tasks.select()
                .where(tables.tasks.c.id.in_(ids[start : start + 500]))
                .where(tables.tasks.c.state == TaskState.WAITING.value)
                .order_by(tables.tasks.c.id)
            )
            rows.extend(connection.execute(query.with_for_update(skip_locked=True)))
        return rows

    def _end_late(self, connection: sa.Connection, now: float, specs: Mapping[str, TaskSpec]) -> None:
        """A task whose deadline passed before it found a place can no longer be what its user asked for: it ends."""
        late = [
            task_id
            for task_id, spec in specs.items()
            if spec.objective.deadline is not None and spec.objective.deadline.timestamp() <= now
        ]
        still = [row.id for row in self._lock_waiting(connection, sorted(late))]
        message = "Its deadline passed before it found a place; its last receipt says what stood in the way."
        ending = (TaskState.FAILED, EndReason.INFEASIBLE)
        end_tasks(connection, now, dict.fromkeys(still, ending), {task_id: {"message": message} for task_id in still})

    def _tell_waiting(self, connection: sa.Connection, now: float, receipts: Sequence[Receipt]) -> None:
        """Keep the latest reason why a task waits, when it changed; look later again at what can go nowhere."""
        if len(self._told) > 200_000:
            self._told.clear()
        fresh: list[Receipt] = []
        hopeless: list[str] = []
        for receipt in receipts:
            reasons = tuple(candidate.why for candidate in receipt.candidates)
            lacking = ""
            if receipt.together is not None:
                reasons += (receipt.together.why,)
                lacking = receipt.together.offered if receipt.together.why is Why.PARTS_MISSING else ""
            if self._told.get(receipt.task_id) != (*reasons, lacking):
                self._told[receipt.task_id] = (*reasons, lacking)
                fresh.append(receipt)
            if reasons and not any(reason in PASSING for reason in reasons):
                hopeless.append(receipt.task_id)
        ids = [receipt.task_id for receipt in fresh]
        for start in range(0, len(ids), 500):
            connection.execute(
                tables.receipts.delete()
                .where(tables.receipts.c.task_id.in_(ids[start : start + 500]))
                .where(tables.receipts.c.attempt == "")
            )
        if fresh:
            connection.execute(
                tables.receipts.insert(),
                [{"task_id": r.task_id, "attempt": "", "decided_at": now, "body": dump(r)} for r in fresh],
            )
        for start in range(0, len(hopeless), 500):
            connection.execute(
                tables.tasks.update()
                .where(tables.tasks.c.id.in_(hopeless[start : start + 500]))
                .where(tables.tasks.c.state == TaskState.WAITING.value)
                .values(due_at=now + self._settings.hopeless_interval)
            )


def _readable(gangs: Mapping[str, Gang], rows: Sequence[Any]) -> Mapping[str, Gang]:
    """The gangs as they are without members that cannot be read."""
    here = Counter(gangs[row.id].id for row in rows if row.id in gangs)
    return {
        task_id: gang if gang.lacking or here[gang.id] == gang.parts else replace(gang, lacking="a part cannot be read")
        for task_id, gang in gangs.items()
    }


def _whole(rows: Sequence[Any], gangs: Mapping[str, Gang]) -> list[Any]:
    """The tasks without those of which another part of the gang is not among them: it was cancelled or held meanwhile."""
    here = Counter(row.gang for row in rows if row.gang)
    return [row for row in rows if row.id not in gangs or here[row.gang] == gangs[row.id].parts]


def _park(connection: sa.Connection, now: float, lease: Lease, task_ids: Sequence[str]) -> None:
    """End tasks whose rows cannot be read."""
    guard(connection, lease)
    message = "Its row in the store cannot be read; the service's log says why."
    poisoned = dict.fromkeys(task_ids, (TaskState.FAILED, EndReason.POISON))
    end_tasks(connection, now, poisoned, {task_id: {"message": message} for task_id in task_ids})


def _taken_back(connection: sa.Connection, keys: Sequence[str]) -> list[tuple[str, str]]:
    """Of attempts that the engine took back: their task, and why, in words."""
    a = tables.attempts.c
    found: list[tuple[str, str]] = []
    for start in range(0, len(keys), 500):
        query = sa.select(a.task_id, a.ending_note).where(a.key.in_(keys[start : start + 500])).where(a.ending != "")
        found += [(row.task_id, row.ending_note) for row in connection.execute(query)]
    return found


def _accounts(connection: sa.Connection) -> dict[str, dict[str, str]]:
    """Who is who at each site that takes work now. None of them drains or leaves before this transaction has ended."""
    query = sa.select(tables.sites.c.name, tables.sites.c.accounts).where(
        tables.sites.c.state == SiteState.ACTIVE.value
    )
    query = query.order_by(tables.sites.c.name).with_for_update(read=True, key_share=True)
    return {row.name: orjson.loads(row.accounts) for row in connection.execute(query)}


def _account(accounts: Mapping[str, str], user: str) -> str:
    return accounts.get(user, accounts.get("*", "")).replace("{user}", user)
