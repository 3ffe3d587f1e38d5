"""One history: a fleet, users, engines and a nemesis, all from one seed; then peace, quiescence and the oracle."""

from __future__ import annotations

import asyncio
import logging
import random
import shutil
import sqlite3
import tempfile
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from isthmus.domain.errors import IsthmusError
from isthmus.domain.lifecycle import ATTEMPT_ENDED, TASK_ENDED
from isthmus.domain.site import Pool
from isthmus.domain.task import Array, Demand, Dependency, DependencyCondition, Output, TaskSpec, Together
from isthmus.engine import clock as engine_clock
from isthmus.engine import failpoints, intents
from isthmus.engine.engine import Engine
from isthmus.engine.gangs import with_their_gangs
from isthmus.engine.settings import EngineSettings
from isthmus.store import tables
from isthmus.store.database import Database
from tests.world.centre import GIB, Centre
from tests.world.link import FarSite, Link
from tests.world.process import CURRENT, Process
from tests.world.virtual import EPOCH, VirtualLoop

MEMORY_DIRECTORY = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
SETTINGS = EngineSettings(
    round_interval=2.0,
    poll_interval=4.0,
    describe_interval=20.0,
    lease_seconds=60.0,
    call_timeout=60.0,
    hopeless_interval=20.0,
    move_interval=8.0,
    move_after=10.0,
    move_least_seconds=5.0,
    move_least_part=0.1,
    preempt_after=5.0,
)
QUIET_SECONDS = 4 * 3600.0  # after the nemesis rests, everything must be settled within this long

TRIGGERS = """
CREATE TABLE wrongs (what TEXT);
CREATE TRIGGER lease_shrinks AFTER UPDATE OF token ON leases WHEN NEW.token < OLD.token
BEGIN INSERT INTO wrongs VALUES ('the fence of lease ' || NEW.name || ' shrank'); END;
CREATE TRIGGER fence_shrinks AFTER UPDATE OF fence ON tasks WHEN NEW.fence < OLD.fence
BEGIN INSERT INTO wrongs VALUES ('the fence of task ' || NEW.id || ' shrank'); END;
CREATE TRIGGER task_rises AFTER UPDATE OF state ON tasks
WHEN OLD.state IN ('succeeded', 'failed', 'cancelled') AND NEW.state <> OLD.state
BEGIN INSERT INTO wrongs VALUES ('task ' || NEW.id || ' went from ' || OLD.state || ' to ' || NEW.state); END;
CREATE TRIGGER attempt_rises AFTER UPDATE OF state ON attempts
WHEN OLD.state IN ('succeeded', 'failed', 'cancelled', 'lost') AND NEW.state <> OLD.state
BEGIN INSERT INTO wrongs VALUES ('attempt ' || NEW.key || ' went from ' || OLD.state || ' to ' || NEW.state); END;
"""

_template: Path | None = None


def _store_file(directory: Path) -> Path:
    """A fresh store, copied from one that was made once."""
    global _template
    if _template is None or not _template.exists():
        _template = Path(tempfile.mkdtemp(dir=MEMORY_DIRECTORY)) / "template.db"
        engine = sa.create_engine(f"sqlite:///{_template}")
        tables.metadata.create_all(engine)
        engine.dispose()
        with sqlite3.connect(_template) as connection:
            connection.executescript(TRIGGERS)
        connection.close()
    path = directory / "store.db"
    shutil.copyfile(_template, path)
    return path


@dataclass(slots=True)
class World:
    """All that one history has."""

    seed: int
    rng: random.Random
    loop: VirtualLoop
    database: Database
    peek: sqlite3.Connection
    settings: EngineSettings = SETTINGS
    centres: dict[str, Centre] = field(default_factory=dict)
    links: dict[str, Link] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    engines: dict[str, tuple[Process, Engine]] = field(default_factory=dict)
    old: list[tuple[Process, Engine]] = field(default_factory=list)
    frozen: list[tuple[Process, Engine]] = field(default_factory=list)
    jump: float = 0.0
    jumped: bool = False
    told: list[str] = field(default_factory=list)  # what the nemesis did, in order
    cancelled: set[str] = field(default_factory=set)
    specs: dict[str, TaskSpec] = field(default_factory=dict)
    ended_at: dict[str, float] = field(default_factory=dict)  # true time at which a task was first seen ended
    kills: int = 0
    final: dict[str, list[str]] = field(default_factory=dict)  # states at the end, where a scene wants them

    def now(self) -> float:
        return EPOCH + self.loop.time()

    def tell(self, what: str) -> None:
        self.told.append(f"{self.loop.time():9.2f}  {what}")

    # --- control planes -------------------------------------------------------------------------------------------------

    async def start_engine(self, owner: str) -> None:
        """A new life of this owner; what an earlier life held is gone with it."""
        process = Process(random.Random(self.rng.random()), self.database, self.peek, self.blobs, lambda: self.jump)
        engine = Engine(
            process.store,  # type: ignore[arg-type]
            process.blobs,  # type: ignore[arg-type]
            self.settings,
            owner=owner,
            unseal=lambda sealed, _: sealed,
            agent_site=lambda name: FarSite(process, self.links[name]),  # type: ignore[arg-type, return-value]
            clock=process.clock,
        )
        self.engines[owner] = (process, engine)
        context = copy_context()
        context.run(CURRENT.set, process)
        starting = self.loop.create_task(_start(engine, process), context=context)
        starting.add_done_callback(lambda task: task.cancelled() or task.exception())
        watching = self.loop.create_task(self._bury(owner, process, engine, starting))
        self.old.append((process, engine))
        self._keep(watching)

    def _keep(self, task: asyncio.Task[None]) -> None:
        _KEPT.add(task)
        task.add_done_callback(_KEPT.discard)

    async def _bury(self, owner: str, process: Process, engine: Engine, starting: asyncio.Task[Any]) -> None:
        """When the process dies: nothing of it goes on, and after a while its supervisor starts it again."""
        await process.dead.wait()
        self.kills += 1
        self.tell(f"{owner} is dead")
        await end(engine, starting)
        if self.engines.get(owner, (None,))[0] is process:
            del self.engines[owner]
            await asyncio.sleep(self.rng.uniform(0.1, 30))
            if owner not in self.engines:
                self.tell(f"{owner} is started")
                await self.start_engine(owner)

    # --- users ------------------------------------------------------------------------------------------------------------

    def submit(self, specs: list[TaskSpec], project: str = "lab") -> list[str]:
        """Accepted: from here on each must reach its end."""
        ids = self.database.write_now(
            intents.submit, now=self.now() + self.jump, user="ann", project=project, specs=specs
        )
        for spec, made in zip(specs, ids, strict=True):
            for task_id in made:
                self.specs[task_id] = spec
        for _, engine in self.engines.values():
            engine.wake()
        return [task_id for made in ids for task_id in made]

    def cancel(self, task_ids: list[str]) -> None:
        """A user cancels; those that were alive must end, and not start afterwards."""
        self.database.write_now(intents.cancel, now=self.now() + self.jump, task_ids=task_ids, by="ann")
        self.cancelled.update(self.database.read_now(with_their_gangs, task_ids))
        for _, engine in self.engines.values():
            engine.wake()

    def note_ends(self) -> None:
        """Remember in true time which tasks are over."""
        query = "SELECT id FROM tasks WHERE state IN ('succeeded', 'failed', 'cancelled')"
        for (task_id,) in self.peek.execute(query).fetchall():
            self.ended_at.setdefault(task_id, self.now())

    def unsettled(self) -> list[str]:
        """What still has to happen: tasks and attempts that have not ended, usage and cleaning that are due."""

        def look(connection: sa.Connection) -> list[str]:
            t, a = tables.tasks.c, tables.attempts.c
            open_tasks = sa.select(t.id, t.state).where(t.state.notin_([s.value for s in TASK_ENDED]))
            said = [f"task {row.id} is {row.state}" for row in connection.execute(open_tasks)]
            open_attempts = sa.select(a.key, a.state, a.site, a.usage_state, a.clean_state)
            for row in connection.execute(open_attempts):
                if row.state not in ATTEMPT_ENDED:
                    said.append(f"attempt {row.key} is {row.state}")
                elif self.centres[row.site].record_of(row.key) is not None and "due" in (
                    row.usage_state,
                    row.clean_state,
                ):
                    said.append(f"attempt {row.key}: usage {row.usage_state}, cleaning {row.clean_state}")
            return said

        return self.database.read_now(look)


_KEPT: set[asyncio.Task[None]] = set()


async def _start(engine: Engine, process: Process) -> None:
    """As a supervisor would: a store that does not answer at the start is asked again."""
    while True:
        try:
            await engine.start()
        except IsthmusError:
            await end(engine)
            await process.clock.sleep(2.0)
        else:
            return


async def end(engine: Engine, starting: asyncio.Task[Any] | None = None) -> None:
    """Drop an engine as a kill does: no farewell, nothing is given back."""
    tasks = [*engine._loops, *(task for _, task in engine._workers.values())]
    tasks += [starting] if starting is not None else []
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def determined(rng: random.Random) -> Iterator[None]:
    """Identifiers from the seed, and failpoints that the process passing them decides on."""

    def act(name: str) -> Callable[[], None]:
        def pass_point() -> None:
            process = CURRENT.get()
            if process is not None:
                process.pass_point(name)

        return pass_point

    before_os, before_points = engine_clock.os, failpoints._POINTS
    engine_clock.os = types.SimpleNamespace(urandom=rng.randbytes)  # type: ignore[assignment]
    failpoints._POINTS = {name: act(name) for name in failpoints.NAMES}
    try:
        yield
    finally:
        engine_clock.os, failpoints._POINTS = before_os, before_points


def make_fleet(world: World, *, sites: int = 0, plain: bool = False) -> None:
    """One to three sites, or so many, each of its own temper (all alike and honest when `plain`), with rows in the store."""
    rng = world.rng
    rows = []
    for number in range(sites or rng.randint(1, 3)):
        name = f"site{number}"
        immediate = rng.random() < 0.4
        pools = (
            Pool(
                name="main",
                nodes=1,
                cpus_per_node=rng.choice((2, 4, 8)),
                memory_bytes_per_node=256 * GIB,
                immediate=immediate,
            ),
        )
        centre = Centre(
            name=name,
            rng=random.Random(rng.random()),
            true_now=world.now,
            pools=pools,
            singleton=rng.random() < 0.6,
            drift=rng.choice((0.0, 0.0, 300.0, -300.0, 1.7)),
            accounting_delay=rng.choice((0.0, 1.0, 20.0, 120.0)),
            queue_memory=rng.choice((5.0, 60.0, 300.0)),
            id_limit=rng.choice((40, 200, 1_000_000)),
            blobs=world.blobs,
        )
        if plain:
            centre.pools = (replace(pools[0], cpus_per_node=8, immediate=False),)
            centre.singleton, centre.drift, centre.accounting_delay = False, 0.0, 1.0
            centre.queue_memory, centre.id_limit = 60.0, 1_000_000
        world.centres[name] = centre
        world.links[name] = Link(random.Random(rng.random()), centre)
        rows.append(
            {
                "name": name,
                "kind": "world",
                "mode": "agent",
                "state": "active",
                "config": "{}",
                "accounts": '{"*": "{user}"}',
                "prices": "{}",
                "created_by": "root",
                "created_at": world.now(),
            }
        )
    world.database.write_now(lambda connection: connection.execute(tables.sites.insert(), rows) and None)


def make_specs(rng: random.Random, sites: int = 1) -> list[TaskSpec]:
    """A few tasks of mixed kinds: plain, arrays, gangs where there are sites, chains, failing ones, with and without outputs."""
    specs: list[TaskSpec] = []
    for number in range(rng.randint(1, 4)):
        fails = rng.random() < 0.15
        spec = TaskSpec(
            name=f"t{number}",
            command=("true",),
            env={
                "SECONDS": str(round(rng.choice((0.5, 3, 20, 90)) * rng.uniform(0.5, 1.5), 2)),
                "EXIT": "3" if fails else "0",
            },
            demand=Demand(cpus=rng.choice((1, 1, 2)), memory_bytes=1024**2, walltime_seconds=600),
            outputs=(Output(path="out.txt"),) if rng.random() < 0.5 else (),
            max_attempts=20,
            retry_on_exit=False,
            priority=rng.choice((0, 0, 5)),
        )
        if rng.random() < 0.25:
            spec = replace(spec, preemptible=True, checkpoint=("state",), checkpoint_grace_seconds=rng.choice((2, 30)))
        elif sites > 1 and rng.random() < 0.4:
            spec = replace(spec, together=Together(hold_seconds=rng.choice((15, 60, 600))))
        if spec.together is None and rng.random() < 0.2:
            spec = replace(spec, array=Array(size=rng.randint(2, 3)))
        if specs and rng.random() < 0.3:
            condition = rng.choice(tuple(DependencyCondition))
            spec = replace(spec, depends_on=(Dependency(task=rng.choice(specs).name, condition=condition),))
        specs.append(spec)
    return specs


def run_history(
    seed: int, play: Callable[[World], Any], judge: Callable[[World], list[str]], *, plain_sites: int = 0
) -> tuple[World, list[str]]:
    """Run one history to its end; answers the world and what the oracle found wrong."""
    logging.disable(logging.CRITICAL)
    rng = random.Random(seed)
    directory = Path(tempfile.mkdtemp(prefix="isthmus-world-", dir=MEMORY_DIRECTORY))
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    path = _store_file(directory)
    database = Database(f"sqlite:///{path}")
    peek = sqlite3.connect(path, isolation_level=None)
    world = World(seed=seed, rng=rng, loop=loop, database=database, peek=peek)
    try:
        with determined(random.Random(rng.random())):
            problems: list[str] = loop.run_until_complete(_whole(world, play, plain_sites))
            problems += judge(world)
        return world, problems
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(_last_breath())
        asyncio.set_event_loop(None)
        loop.close()
        peek.close()
        database.close()
        shutil.rmtree(directory, ignore_errors=True)
        logging.disable(logging.NOTSET)


async def _last_breath() -> None:
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    await asyncio.gather(*others, return_exceptions=True)


async def _whole(world: World, play: Callable[[World], Any], plain_sites: int) -> list[str]:
    make_fleet(world, sites=plain_sites, plain=plain_sites > 0)
    await play(world)
    return await settle(world)


async def settle(world: World) -> list[str]:
    """Wait until everything is settled; answers what never was."""
    limit = world.loop.time() + QUIET_SECONDS
    pause = 5.0
    while True:
        world.note_ends()
        left = world.unsettled()
        if not left:
            return []
        if world.loop.time() > limit:
            return [f"not settled after {QUIET_SECONDS:.0f} s of peace: {line}" for line in left]
        await asyncio.sleep(pause)
        pause = min(120.0, pause * 1.3)
