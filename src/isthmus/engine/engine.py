"""Wires the engine: takes leases, runs the worker of each site and the placement round, keeps house."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from isthmus.data.port import BlobStore
from isthmus.domain.errors import Invalid, IsthmusError
from isthmus.domain.lifecycle import TASK_ENDED
from isthmus.domain.placement import Receipt, WaitingTask
from isthmus.domain.task import TaskSpec
from isthmus.engine import benchmarks, leases
from isthmus.engine.ahead import Ahead
from isthmus.engine.auditing import Auditing
from isthmus.engine.clock import Clock, SystemClock
from isthmus.engine.delivering import Deliver
from isthmus.engine.ends import Ends
from isthmus.engine.failpoints import failpoint
from isthmus.engine.fleet import AgentSiteMaker, Fleet
from isthmus.engine.gangs import gangs_of
from isthmus.engine.handling import Handling
from isthmus.engine.home import Home
from isthmus.engine.jobs import JobMaker, Presigner, Unseal, reference
from isthmus.engine.learning import EVERY_SECONDS, RunTimes
from isthmus.engine.leases import Lease, LostLease
from isthmus.engine.leaving import live_attempts
from isthmus.engine.measuring import Measuring
from isthmus.engine.moving import Mover
from isthmus.engine.placing import Round, look_again
from isthmus.engine.roads import DataView, sweep, with_data
from isthmus.engine.routers import Routers
from isthmus.engine.scoring import Scoring
from isthmus.engine.settings import EngineSettings
from isthmus.engine.sitework import SiteWorker
from isthmus.engine.snapshot import read_snapshot, waiting_task
from isthmus.engine.sources import NoPasses, Passes
from isthmus.engine.taskdata import DataFiles
from isthmus.engine.verifying import Verifier
from isthmus.engine.waiting import EVERY_SECONDS as LOOK_SECONDS
from isthmus.engine.waiting import WaitTimes, shape_of
from isthmus.engine.work import SiteWork
from isthmus.placement import best_plans, decide, impossible
from isthmus.sites.port import Site
from isthmus.store import tables
from isthmus.store.database import Database

log = logging.getLogger(__name__)
_PLACEMENT = "placement"
_TRANSFERS = "transfers"
_LAST_WORD_SECONDS = 20.0


async def deliver_nowhere(_blobs: BlobStore, _sha256: str, url: str) -> None:
    """The default when no delivery was wired."""
    raise IsthmusError(f"This control plane cannot put files at {url}.")


class Engine:
    """The engine of one control-plane process. `owner` names the instance: it lives once, and after a crash takes its
    own leases back at once; several owners share one store and one owns each site at a time."""

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        settings: EngineSettings | None = None,
        *,
        owner: str,
        unseal: Unseal,
        presign: Presigner | None = None,
        deliver: Deliver = deliver_nowhere,
        agent_site: AgentSiteMaker | None = None,
        clock: Clock | None = None,
        routers: Sequence[Path] = (),
        passes: Passes | None = None,
    ) -> None:
        self.database = database
        self.settings = settings or EngineSettings()
        self.clock = clock or SystemClock()
        self.fleet = Fleet(database, blobs, agent_site)
        self._blobs = blobs
        self._owner = owner
        self.home = Home(database, blobs)
        data = DataFiles(database, self.home, self.settings.home_region, self.clock.now)
        self._maker = JobMaker(database, blobs, unseal, presign, data)
        self.mover = Mover(
            database,
            self.fleet,
            self.home,
            self.clock,
            self.settings,
            passes or NoPasses(),
            lease=self._transfer_lease,
            arrived=self._data_arrived,
            wake_routers=self.wake_routers,
        )
        data.wake = self.mover.due.set
        self.verifier = Verifier(database, self.fleet, self.home, blobs, self.settings.home_region)
        self._deliver = deliver
        self._run_times = RunTimes(database)
        self._measuring = Measuring(
            database,
            self.fleet,
            self.clock,
            every_seconds=self.settings.measure_interval,
            train_every_seconds=self.settings.train_interval,
        )
        self._routers = Routers(database, self.fleet, self.clock, routers)
        self._wait_times = WaitTimes(database)
        self._scoring = Scoring(database)
        self._ahead = Ahead(database)
        self._round = Round(self.settings, self._run_times, self._wait_times, Handling(database), Ends(database))
        self._held: dict[str, Lease] = {}
        self._renewed_at: dict[str, float] = {}
        self._workers: dict[str, tuple[SiteWorker, asyncio.Task[None]]] = {}
        self._placement_due = asyncio.Event()
        self._sites_changed = True
        self._leases_due = asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Take over what is free and begin to work."""
        await self.fleet.refresh()
        await self._take_leases()
        for name, loop in (
            ("leases", self._keep_leases()),
            ("placement", self._place()),
            ("learning", self._learn()),
            ("waiting", self._watch_queues()),
            ("benchmarks", self._take_in_benchmarks()),
            ("transfers", self.mover.run()),
            ("house", self._keep_house()),
            ("measuring", self._measuring.run(self._places)),
            ("routers", self._routers.run(self._places)),
        ):
            self._loops.append(asyncio.create_task(loop, name=name))

    async def stop(self) -> None:
        """Stop working and let others take over at once; jobs at the sites are not touched."""
        tasks = [*self._loops, *(task for _, task in self._workers.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._loops.clear()
        self._workers.clear()
        await self._round.stop()
        await self._wait_times.stop()
        held = list(self._held.values())
        self._held.clear()
        try:
            await self.database.write(leases.give_back, held)
        except IsthmusError as error:
            log.warning("leases were not given back: %s", error)
        await self.verifier.close()
        await self.fleet.close()

    def wake(self) -> None:
        """Something was submitted, released, cancelled or joined: look soon."""
        self._placement_due.set()
        self.mover.due.set()
        for worker, _ in self._workers.values():
            worker.work.dispatch_due.set()
            worker.work.observe_due.set()
            worker.work.describe_due.set()

    def wake_sites(self) -> None:
        """A site joined, left or was changed: follow soon."""
        self._leases_due.set()
        self._look_again()

    def wake_routers(self) -> None:
        """A policy was wanted or given up: make the routers follow soon."""
        self._routers.wake()

    @property
    def audits(self) -> Auditing:
        """The audits of contested rounds."""
        return self._round.auditing

    def site(self, name: str) -> Site:
        """The adapter of a site, for reading logs."""
        return self.fleet.site(name)

    async def end_all(self, name: str) -> bool:
        """Ask a site to end every live job that it has of ours, before it is given up; whether it took the order."""
        rows = await self.database.read(live_attempts, name)
        if not rows:
            return True
        try:
            async with asyncio.timeout(_LAST_WORD_SECONDS):
                await self.fleet.site(name).cancel([reference(row) for row in rows])
        except (IsthmusError, TimeoutError, OSError) as error:
            log.warning("site %s: its jobs could not be ended: %s", name, error)
            return False
        return True

    async def plan(
        self, specs: Sequence[TaskSpec], user: str, project: str, input_bytes: Sequence[int]
    ) -> tuple[Receipt, ...]:
        """What the brain would decide for tasks of one round now, a receipt for each; nothing is stored. `input_bytes`: see
        `admission.input_bytes`."""
        now = self.clock.now()
        snapshot = replace(await self.database.read(read_snapshot, now), prices=self._round.prices)
        data = await self.database.read(self._round.roads.read, now, specs)
        homes = await self._round.homes(self.database)
        home = homes.of.get(project, "")
        first, specs, input_bytes = _with_all_parts(specs, input_bytes)
        tasks = [replace(task, home=home) for task in self._as_waiting(specs, user, input_bytes, data)]
        snapshot = replace(snapshot, roads=data.roads)
        snapshot = await asyncio.to_thread(self._wait_times.into, snapshot, {shape_of(task) for task in tasks})
        snapshot = self._round.ends.into(self._round.handling.into(snapshot))
        snapshot = await asyncio.to_thread(self._round.at_home, snapshot, homes)
        receipts = (await asyncio.to_thread(decide, snapshot, tasks, pricing=False)).receipts
        whole = [
            replace(receipt, plans=best_plans(task, receipt)) for task, receipt in zip(tasks, receipts, strict=True)
        ]
        return tuple(whole[number] for number in first)

    def check_possible(
        self, connection: sa.Connection, specs: Sequence[TaskSpec], user: str, input_bytes: Sequence[int]
    ) -> None:
        """Invalid for the first task whose deadline and budget no pool could keep even if it had nothing else to do."""
        if all(spec.objective.deadline is None and spec.objective.budget is None for spec in specs):
            return
        now = self.clock.now()
        data = self._round.roads.read(connection, now, specs)
        snapshot = replace(read_snapshot(connection, now), roads=data.roads)
        first, whole, sizes = _with_all_parts(specs, input_bytes)
        tasks = self._as_waiting(whole, user, sizes, data)
        for index, number in enumerate(first):
            task = tasks[number]
            gang = task.gang.id if task.gang is not None and not task.gang.lacking else None
            peers = [one for one in tasks if one.gang is not None and one.gang.id == gang and one is not task]
            error = impossible(snapshot, task, *peers)
            if error is not None:
                raise Invalid(f"tasks.{index}.{error.field}", error.cause, remedy=error.remedy)

    def _as_waiting(
        self, specs: Sequence[TaskSpec], user: str, input_bytes: Sequence[int], data: DataView
    ) -> list[WaitingTask]:
        now = self.clock.now()
        known = self._run_times.known
        return [
            with_data(
                waiting_task("0" * 26, user, spec, input_bytes=size, gang=gang, **known(user, spec, now)), spec, data
            )
            for spec, size, gang in zip(specs, input_bytes, gangs_of(specs), strict=True)
        ]

    # --- leases -----------------------------------------------------------------------------------------------------

    async def _keep_leases(self) -> None:
        while True:
            await self._pause(self._leases_due, min(2.0, self.settings.lease_seconds / 6))
            try:
                await self.fleet.refresh()
                await self._take_leases()
            except IsthmusError as error:
                log.warning("leases: %s", error)
            except Exception:
                log.exception("leases were not looked after")

    async def _take_leases(self) -> None:
        """Renew what is held, take what is free, start and stop workers to match."""
        begun = self.clock.monotonic()
        seconds = self.settings.lease_seconds
        for name in [name for name, lease in self._held.items() if not self._fresh(lease)]:
            await self._let_go(name)
        if self._held:
            kept = await self.database.write(
                leases.renew, list(self._held.values()), self._owner, self.clock.now(), seconds
            )
            self._renewed_at.update(dict.fromkeys(kept, begun))
            for name in set(self._held) - kept:
                await self._let_go(name)
        wanted = {_PLACEMENT, _TRANSFERS, *(f"site:{name}" for name in self.fleet.members)}
        for name in sorted(set(self._held) - wanted):
            await self._let_go(name)
        for name in sorted(wanted - set(self._held)):
            begun = self.clock.monotonic()
            lease = await self.database.write(leases.take, name, self._owner, self.clock.now(), seconds)
            if lease is not None:
                self._held[name] = lease
                self._renewed_at[name] = begun
                if name not in (_PLACEMENT, _TRANSFERS):
                    self._start_worker(name.removeprefix("site:"), lease)
        for name, (_, task) in list(self._workers.items()):
            if task.done():
                if not task.cancelled() and task.exception() is not None:
                    log.error("site %s: its worker broke and is started again", name, exc_info=task.exception())
                await self._let_go(f"site:{name}")

    def _places(self) -> bool:
        """Whether the placement round is this process's now, and with it what is done once for the whole service."""
        lease = self._held.get(_PLACEMENT)
        return lease is not None and self._fresh(lease)

    def _fresh(self, lease: Lease) -> bool:
        """Whether the lease was renewed lately enough that nobody else can hold it. Uses the clock that never jumps."""
        renewed = self._renewed_at.get(lease.name)
        return (
            self._held.get(lease.name) == lease
            and renewed is not None
            and self.clock.monotonic() - renewed < 0.8 * self.settings.lease_seconds
        )

    async def _let_go(self, name: str) -> None:
        self._held.pop(name, None)
        self._renewed_at.pop(name, None)
        if not name.startswith("site:"):
            return  # a site may be called `transfers` too
        worker = self._workers.pop(name.removeprefix("site:"), None)
        if worker is not None:
            worker[1].cancel()
            await asyncio.gather(worker[1], return_exceptions=True)

    def _start_worker(self, name: str, lease: Lease) -> None:
        work = SiteWork(
            name=name,
            lease=lease,
            database=self.database,
            blobs=self._blobs,
            fleet=self.fleet,
            clock=self.clock,
            settings=self.settings,
            maker=self._maker,
            wake_placement=self._placement_due.set,
            look_again=self._look_again,
            still_ours=lambda: self._fresh(lease),
            home=self.home,
        )
        worker = SiteWorker(work, self._deliver)
        self._workers[name] = (worker, asyncio.create_task(worker.run(), name=f"site:{name}"))

    def _look_again(self) -> None:
        self._sites_changed = True
        self._placement_due.set()

    def _transfer_lease(self) -> Lease | None:
        lease = self._held.get(_TRANSFERS)
        return lease if lease is not None and self._fresh(lease) else None

    def _data_arrived(self) -> None:
        """What waits for data may go on."""
        for worker, _ in self._workers.values():
            worker.work.dispatch_due.set()

    # --- placement --------------------------------------------------------------------------------------------------

    async def _place(self) -> None:
        idle = 0
        while True:
            pause = self.settings.round_interval * (1 if idle < 4 else 4)
            await self._pause(self._placement_due, pause)
            lease = self._held.get(_PLACEMENT)
            if lease is None or not self._fresh(lease):
                continue
            try:
                if self._sites_changed:
                    self._sites_changed = False
                    await self.database.write(look_again, self.clock.now(), lease)
                placed = await self._round.run(self.database, self.clock.now(), lease)
                failpoint("place.written")
            except LostLease:
                self._held.pop(_PLACEMENT, None)
                continue
            except Exception:
                log.exception("a placement round failed")
                await self.clock.sleep(1.0)
                continue
            idle = 0 if placed else idle + 1
            if placed:
                self.mover.due.set()
            if placed or self._round.took_back:
                for worker, _ in self._workers.values():
                    worker.work.dispatch_due.set()
            if self._round.took_back:
                for worker, _ in self._workers.values():
                    worker.work.observe_due.set()

    async def _learn(self) -> None:
        while True:
            await self.clock.sleep(EVERY_SECONDS)
            try:
                await self._run_times.refresh()
                await self._round.handling.refresh(self.clock.now())
                await self._round.ends.refresh(self.clock.now())
                lease = self._held.get(_PLACEMENT)
                if lease is not None and self._fresh(lease):
                    await self._scoring.refresh(self.clock.now(), lease)
                    await self._ahead.refresh(self.clock.now(), lease)
            except LostLease:
                continue
            except Exception:
                log.exception("what ended was not learned from")

    async def _watch_queues(self) -> None:
        """Learn from what the sites' queues show; whoever places does it."""
        while True:
            await self.clock.sleep(LOOK_SECONDS)
            lease = self._held.get(_PLACEMENT)
            if lease is None or not self._fresh(lease):
                continue
            try:
                await self._wait_times.refresh(self.clock.now(), lease)
            except LostLease:
                continue
            except Exception:
                log.exception("the sites' queues were not learned from")

    async def _take_in_benchmarks(self) -> None:
        """Make capabilities of what ended benchmarks left; whoever places does it."""
        while True:
            await self.clock.sleep(self.settings.benchmark_interval)
            lease = self._held.get(_PLACEMENT)
            if lease is None or not self._fresh(lease):
                continue
            try:
                await benchmarks.take_in(self.database, self._blobs, self.clock.now(), lease)
            except IsthmusError as error:
                log.warning("benchmarks: %s", error)
            except Exception:
                log.exception("benchmarks were not taken in")

    # --- house ------------------------------------------------------------------------------------------------------

    async def _keep_house(self) -> None:
        """Drop what is old: events, remembered answers, calls of agents."""
        while True:
            await self.clock.sleep(300.0)
            try:
                await self.database.write(_drop_old, self.clock.now(), self.settings)
                lease = self._held.get(_PLACEMENT)
                if lease is not None and self._fresh(lease):
                    await self.database.write(sweep, self.clock.now(), lease)
            except IsthmusError as error:
                log.warning("house keeping: %s", error)
            except Exception:
                log.exception("what is old was not dropped")

    async def _pause(self, due: asyncio.Event, seconds: float) -> None:
        """Until woken, or that long."""
        waiter: asyncio.Future[Any] = asyncio.ensure_future(due.wait())
        sleeper = asyncio.ensure_future(self.clock.sleep(seconds))
        try:
            await asyncio.wait((waiter, sleeper), return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiter.cancel()
            sleeper.cancel()
        due.clear()


def _with_all_parts(
    specs: Sequence[TaskSpec], input_bytes: Sequence[int]
) -> tuple[list[int], list[TaskSpec], list[int]]:
    """The specifications with one for every part of those that are a whole gang; and the number of each one's first."""
    first: list[int] = []
    whole: list[TaskSpec] = []
    sizes: list[int] = []
    for spec, size in zip(specs, input_bytes, strict=True):
        first.append(len(whole))
        copies = 1 if spec.together is None or spec.together.name else spec.together.parts
        whole += [spec] * copies
        sizes += [size] * copies
    return first, whole, sizes


def _drop_old(connection: sa.Connection, now: float, settings: EngineSettings) -> None:
    connection.execute(tables.events.delete().where(tables.events.c.at < now - settings.events_kept_seconds))
    connection.execute(tables.idempotency.delete().where(tables.idempotency.c.created_at < now - 86400.0))
    t, c = tables.tasks.c, tables.checkpoints
    ended = sa.exists().where(t.id == c.c.task_id).where(t.state.in_([state.value for state in TASK_ENDED]))
    connection.execute(c.delete().where(ended))
    connection.execute(tables.agent_calls.delete().where(tables.agent_calls.c.expires_at < now - 3600.0))
