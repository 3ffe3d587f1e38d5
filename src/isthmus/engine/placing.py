"""The placement round: reads a snapshot, lets the brain decide, and has its verdicts written at once."""

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
from isthmus.domain.lifecycle import ATTEMPT_ENDED, EndReason, TaskState
from isthmus.domain.placement import (
    Gang,
    ScarcePrice,
    Snapshot,
    WaitingTask,
)
from isthmus.domain.task import TaskSpec
from isthmus.engine.auditing import Auditing
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
from isthmus.engine.roads import NOTHING, DataView, RoadMap, with_data
from isthmus.engine.serving import Line, as_cpus, open_line, processors_of, read_waiting
from isthmus.engine.settings import EngineSettings
from isthmus.engine.snapshot import read_apart, read_snapshot, waiting_task
from isthmus.engine.taskdata import kept_by, refs_of
from isthmus.engine.verdicts import Verdicts
from isthmus.engine.waiting import WaitTimes, shape_of
from isthmus.engine.warming import Warming
from isthmus.engine.withdrawing import MOVE, PREEMPT, take_back
from isthmus.placement import Decision, decide
from isthmus.placement.fairshare import Leads
from isthmus.placement.moving import find_better
from isthmus.placement.preempting import Wanting, make_room
from isthmus.store import tables
from isthmus.store.database import Database
from isthmus.store.documents import load

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
    """Places waiting tasks, and takes back what would be better elsewhere.

    `prices` are those of the last round, empty when nothing is contested.
    """

    def __init__(
        self, settings: EngineSettings, run_times: RunTimes, wait_times: WaitTimes, handling: Handling, ends: Ends
    ) -> None:
        self._settings = settings
        self._run_times = run_times
        self._wait_times = wait_times
        self._verdicts = Verdicts(settings)
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
            placed += await database.write(self._verdicts.write, now, lease, specs, decision, gangs, data.by_a_time)
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


def _readable(gangs: Mapping[str, Gang], rows: Sequence[Any]) -> Mapping[str, Gang]:
    """The gangs as they are without members that cannot be read."""
    here = Counter(gangs[row.id].id for row in rows if row.id in gangs)
    return {
        task_id: gang if gang.lacking or here[gang.id] == gang.parts else replace(gang, lacking="a part cannot be read")
        for task_id, gang in gangs.items()
    }


def _park(connection: sa.Connection, now: float, lease: Lease, task_ids: Sequence[str]) -> None:
    """End tasks whose rows cannot be read."""
    guard(connection, lease)
    message = "Its row in the store cannot be read; the service's log says why."
    poisoned = dict.fromkeys(task_ids, (TaskState.FAILED, EndReason.POISON))
    end_tasks(connection, now, poisoned, {task_id: {"message": message} for task_id in task_ids})
