"""The brain as in production, under a virtual clock: `isthmus.placement.decide`, called as the service calls it, over sites that are simulated.

Only the sites and the passage of time are the twin's. In each round the brain sees a snapshot of every pool (`surroundings`) and
all tasks that wait, in the order of fair share (`turns`); run times and waits are forecast by the service's own models, which
learn from jobs and queues as they go (`queuewatch`). Data moves in the windows that the brain reserved for it. What waits at
a site and would start sooner elsewhere is moved (`placement.moving`); an attempt that a failure ends waits for another place.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from isthmus.domain.placement import Estimate, ScarcePrice, Snapshot, WaitingTask
from isthmus.domain.roads import Piece
from isthmus.domain.task import Constraints, Demand, Goal, Objective
from isthmus.forecasting.forecast import Forecast, Source
from isthmus.forecasting.runtime import RunRecord, RunRequest, RunTimeModel
from isthmus.placement import decide
from isthmus.placement.moving import Queued, find_better
from isthmus.twin.federation.batches import change_size, end_before, hand_in, take_back, waiting_at
from isthmus.twin.federation.federate import Federation, Outcome, Workload, modes_of
from isthmus.twin.federation.homelines import with_homes
from isthmus.twin.federation.queuewatch import LOOK_SECONDS, QUIET_SECONDS, QueueWatch
from isthmus.twin.federation.surroundings import MEMORY, POOL, Promises, Surroundings
from isthmus.twin.federation.turns import Turns
from isthmus.twin.schedulers.backfill import FOREVER, make_jobs, make_state
from isthmus.twin.schedulers.outages import Outage

# The service's own figures (engine.settings).
MOVE_SECONDS, MOVE_AFTER, MOVE_LEAST, MOVE_LEAST_PART, MOVES_AT_ONCE, MOVES_MOST = 30, 60, 300.0, 0.3, 20, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Governed:
    """The outcome, and how the brain worked: rounds, contested ones among them, tasks left waiting in a round at most, moves."""

    outcome: Outcome
    rounds: int
    contested: int
    most_waiting: int
    moves: int


def govern(
    work: Workload,
    sites: Federation,
    around: Surroundings,
    *,
    users: NDArray[np.int64] | None = None,
    goal: Goal = Goal.SOONEST,
    round_seconds: int = 1,
    learn: bool = True,
    pricing: bool = True,
    home_first: bool = True,
    on_jobs: Callable[[int, int], None] | None = None,
) -> Governed:
    """Run the workload, with a round as soon as a task comes or a site changes, at most one in `round_seconds`.

    `users` are numbers, by whose earlier jobs run times are forecast; without them each home is one user. Of `sites` the
    processors, schedulers and outages count, the network is that of `around`. Without `learn` run times are those requested, and
    waits the work ahead; with `home_first` guests make nobody wait longer at home (`placement.homerow`). Pure: the same answer for the same arguments. `on_jobs` is told how many have ended, of how many.
    """
    run = _Run(work, sites, around, users if users is not None else work.home, goal, learn, pricing, home_first)
    return run.run(round_seconds, on_jobs)


class _Run:
    def __init__(
        self,
        work: Workload,
        sites: Federation,
        around: Surroundings,
        users: NDArray[np.int64],
        goal: Goal,
        learn: bool,
        pricing: bool,
        home_first: bool,
    ) -> None:
        self._order = np.argsort(work.submit_seconds, kind="stable")
        self._work = ordered = work.take(self._order)
        self._users = users[self._order]
        self._around, self._pricing, self._home_first = around, pricing, home_first
        self._objective = Objective(goal=goal)
        jobs_in_all, count = len(ordered), len(sites.processors)
        columns = (
            ordered.submit_seconds, ordered.run_seconds, ordered.processors, ordered.requested_seconds,
            ordered.requested_seconds,
        )  # fmt: skip
        jobs = make_jobs(*(np.ascontiguousarray(column, dtype=np.int64) for column in columns), count)
        self._state = make_state(jobs, np.asarray(sites.processors, dtype=np.int64), modes_of(sites))
        self._over = np.empty(max(jobs_in_all, 1), dtype=np.int64)
        self._gone = np.empty((max(jobs_in_all, 1), 2), dtype=np.int64)
        self._where = ordered.home.copy()
        self._moved_at = np.full(jobs_in_all, -1, dtype=np.int64)
        self._handed_at = np.full(jobs_in_all, -1, dtype=np.int64)
        self._model = RunTimeModel() if learn else None
        self._watch = QueueWatch(count, self._users, self._handed_at) if learn else None
        self._asked: dict[int, tuple[RunRequest, Forecast]] = {}
        self._waiting: dict[int, WaitingTask] = {}
        self._live: dict[int, tuple[WaitingTask, float]] = {}  # placed: the task, and what was promised to it
        self._moves: dict[int, int] = {}
        self._under_way: list[tuple[int, int]] = []  # (arrival of the data, job)
        self._prices: tuple[ScarcePrice, ...] = ()
        self._promises = Promises(around)
        self._turns = Turns(count)
        self._changes = _changes(sites.outages)
        self._lost = [0, 0]  # attempts, processor seconds
        self._ended = 0
        self._looked = self._looked_for_moves = -QUIET_SECONDS
        self._unseen = False  # a queue changed since the last look
        self._queues_changed = False  # and since the last look for moves

    def run(self, round_seconds: int, on_jobs: Callable[[int, int], None] | None) -> Governed:
        submit = self._work.submit_seconds
        now = arrived = rounds = contested = most = next_round = 0
        changed = False
        while True:
            moments = [int(submit[arrived])] if arrived < len(submit) else []
            moments += self._moments()
            if self._waiting:
                # A task that waits is looked at again when a site has changed, no sooner than the next round.
                moments.append(max(next_round, 0 if changed else int(self._state.next_end.min()) + 1))
            now = max(now, int(min(moments, default=FOREVER)))
            if now >= FOREVER:
                break
            changed |= self._ends(now)
            changed |= self._change(now)
            while self._under_way and self._under_way[0][0] <= now:
                self._arrive(heapq.heappop(self._under_way)[1], now)
                changed = True
            fresh = arrived
            while arrived < len(submit) and submit[arrived] <= now:
                self._waiting[arrived] = self._task(arrived, ())
                arrived += 1
            self._look(now)
            changed |= self._move(now)
            if self._waiting and now >= next_round and (changed or arrived > fresh or not rounds):
                rounds += 1
                contested += self._round(now)
                most = max(most, len(self._waiting))
                next_round = now + round_seconds
                changed = False
                if on_jobs is not None:
                    on_jobs(self._ended, len(submit))
            elif arrived > fresh:
                changed = True  # they wait for the next round
        back = np.empty(len(submit), dtype=np.int64)
        back[self._order] = np.arange(len(submit))
        outcome = Outcome(
            start_seconds=self._state.jobs["start"][: len(submit)][back],
            site=self._where[back],
            data_seconds=self._moved_at[back],
            carried_bytes=np.array(self._promises.carried_bytes),
            lost_attempts=self._lost[0],
            lost_processor_seconds=self._lost[1],
        )
        moves = sum(self._moves.values())
        return Governed(outcome=outcome, rounds=rounds, contested=contested, most_waiting=most, moves=moves)

    def _moments(self) -> list[int]:
        """When something happens beside arrivals and rounds."""
        end = int(self._state.next_end.min())
        moments = [end + 1] if end < FOREVER else []
        if self._under_way:
            moments.append(self._under_way[0][0])
        if self._changes:
            moments.append(self._changes[0][0])
        if self._watch is not None and (self._unseen or end < FOREVER):
            moments.append(self._looked + (LOOK_SECONDS if self._unseen else QUIET_SECONDS))
        if self._queues_changed:
            moments.append(self._looked_for_moves + MOVE_SECONDS)
        return moments

    def _ends(self, moment: int) -> bool:
        count = end_before(self._state, moment, self._over)
        for job in self._over[:count].tolist():
            row = self._state.jobs[job]
            run, width, ended = int(row["run"]), int(row["width"]), int(row["start"] + row["run"])
            home = int(self._work.home[job])
            self._turns.promise(home, -self._live.pop(job)[1])
            self._turns.use(home, float(width * run), ended)
            if self._model is not None:
                request, forecast = self._asked.pop(job)
                record = RunRecord(request=request, run_seconds=run, ended_at=float(ended), forecast=forecast)
                self._model.observe(record)
                if self._model.due:
                    self._model.train()
        self._ended += count
        self._touched(count)
        return bool(count)

    def _touched(self, count: int) -> None:
        self._unseen |= count > 0
        self._queues_changed |= count > 0

    def _change(self, now: int) -> bool:
        """Outages that begin or finish; an attempt that one ends waits for another place, as its task would in the service."""
        before = len(self._changes)
        while self._changes and self._changes[0][0] <= now:
            self._ends(now + 1)  # an outage comes after all else of its second
            _, _, site, outage, more = heapq.heappop(self._changes)
            count = change_size(self._state, site, more, outage.drain, now, self._gone)
            for job, ran in self._gone[:count].tolist():
                task, promised = self._live.pop(job)
                home, width = int(self._work.home[job]), int(self._work.processors[job])
                self._turns.promise(home, -promised)
                self._turns.use(home, float(width * ran), now)
                self._lost[0] += 1
                self._lost[1] += width * ran
                failed = self._around.names[site]
                self._waiting[job] = self._task(job, (*(s for s in task.avoid_sites if s != failed), failed))
            self._touched(1)
        return len(self._changes) < before

    def _task(self, job: int, avoid: tuple[str, ...]) -> WaitingTask:
        work = self._work
        width, requested, size = (int(c[job]) for c in (work.processors, work.requested_seconds, work.input_bytes))
        run = None
        if self._model is not None:
            request = RunRequest(
                user=str(self._users[job]),
                processors=width,
                requested_seconds=requested,
                submitted_at=float(work.submit_seconds[job]),
            )
            forecast = self._model.predict(request)
            self._asked[job] = request, forecast
            if forecast.source is not Source.DECLARED:
                run = Estimate(
                    seconds=forecast.point, source="learned", p10=forecast.p10, p90=forecast.p90, error=forecast.error
                )
        names = self._around.names
        places = {names[work.home[job]]} | ({names[self._where[job]]} if self._moved_at[job] >= 0 else set())
        return WaitingTask(
            id=str(job),
            user=str(self._users[job]),
            home=names[work.home[job]] if self._home_first else "",
            demand=Demand(cpus=width, memory_bytes=MEMORY, walltime_seconds=requested),
            objective=self._objective,
            constraints=Constraints(),
            data=(Piece(name=f"input-{job}", size_bytes=size, places=frozenset(places)),) if size else (),
            run=run,
            avoid_sites=avoid,
        )

    def _snapshot(self, now: int, tasks: Sequence[WaitingTask]) -> Snapshot:
        snapshot = self._promises.snapshot(self._state, now, self._prices)
        if self._watch is not None:
            snapshot = self._watch.into(snapshot, tasks)
        if not self._home_first:
            return snapshot
        coming = [(job, int(self._where[job])) for _, job in self._under_way]
        return with_homes(snapshot, self._state, self._work.home, self._waiting, coming, self._expected)

    def _expected(self, job: int) -> float:
        """Seconds that a placed job was believed to run."""
        return self._live[job][1] / float(self._work.processors[job])

    def _look(self, now: int) -> None:
        due = self._looked + (LOOK_SECONDS if self._unseen else QUIET_SECONDS)
        if self._watch is not None and now >= due:
            self._watch.look(self._state, self._promises.snapshot(self._state, now, ()))
            self._looked, self._unseen = now, False

    def _round(self, now: int) -> bool:
        turns: dict[int, list[tuple[int, int, WaitingTask]]] = {}
        for job, task in self._waiting.items():
            turns.setdefault(int(self._work.home[job]), []).append((int(self._work.submit_seconds[job]), job, task))
        processors = float(self._state.sites["processors"].sum())
        tasks = [turn[2] for turn in self._turns.in_order(turns, now, processors)]
        decision = decide(self._snapshot(now, tasks), tasks, pricing=self._pricing)
        self._prices = decision.prices
        at_once: list[int] = []
        for placement in decision.placements:
            job = int(placement.task_id)
            width, requested = int(self._work.processors[job]), int(self._work.requested_seconds[job])
            promised = width * placement.run_seconds
            self._live[job] = self._waiting.pop(job), promised
            self._turns.promise(int(self._work.home[job]), promised)
            self._where[job] = self._around.names.index(placement.site)
            if placement.transfers:
                self._promises.send(placement.transfers)
                self._promises.promise(int(self._where[job]), width, requested, 1)
                arrival = ceil(max(one.ends for one in placement.transfers))
                heapq.heappush(self._under_way, (arrival, job))
            else:
                at_once.append(job)
        self._hand_in(at_once, now)
        return decision.contested

    def _hand_in(self, jobs: list[int], now: int) -> None:
        numbers = np.array(jobs, dtype=np.int64)
        self._handed_at[numbers] = now
        hand_in(self._state, numbers, self._where[numbers], now)
        self._touched(len(jobs))

    def _arrive(self, job: int, now: int) -> None:
        self._moved_at[job] = now
        width, requested = int(self._work.processors[job]), int(self._work.requested_seconds[job])
        self._promises.promise(int(self._where[job]), width, requested, -1)
        self._hand_in([job], now)

    def _move(self, now: int) -> bool:
        """Take jobs back that wait at a site and would start sooner elsewhere; the round places them."""
        if not self._queues_changed or now < self._looked_for_moves + MOVE_SECONDS:
            return False
        self._looked_for_moves, self._queues_changed = now, False
        queued = self._queued(now) if len(self._around.names) > 1 else []
        if not queued:
            return False
        snapshot = self._snapshot(now, [one.task for one in queued])
        better = find_better(snapshot, queued, least_seconds=MOVE_LEAST, least_part=MOVE_LEAST_PART)
        better.sort(key=lambda one: (-one.gain_seconds, one.key))
        for one in better[:MOVES_AT_ONCE]:
            job = int(one.key)
            if self._state.jobs[job]["start"] >= 0:
                continue  # another's going let it start
            take_back(self._state, job, self._where[job], now)
            task, promised = self._live.pop(job)
            self._turns.promise(int(self._work.home[job]), -promised)
            self._moves[job] = self._moves.get(job, 0) + 1
            self._waiting[job] = task
        self._unseen |= bool(better)
        return bool(better)

    def _queued(self, now: int) -> list[Queued]:
        found = []
        for site, name in enumerate(self._around.names):
            waiting = self._over[: waiting_at(self._state, site, self._over)].tolist()
            for place, job in enumerate(waiting, 1):
                if now - self._handed_at[job] >= MOVE_AFTER and self._moves.get(job, 0) < MOVES_MOST:
                    task = self._live[job][0]
                    found.append(Queued(key=str(job), site=name, pool=POOL, task=task, ahead=place / len(waiting)))
        found.sort(key=lambda one: (self._moves.get(int(one.key), 0), int(one.key)))
        return found


def _changes(outages: tuple[tuple[int, Outage], ...]) -> list[tuple[int, int, int, Outage, int]]:
    """A heap of (second, number, site, outage, processors more)."""
    found = []
    for number, (site, one) in enumerate(outages):
        found.append((one.begin_seconds, 2 * number + 1, site, one, -one.processors))
        found.append((one.finish_seconds, 2 * number, site, one, one.processors))
    heapq.heapify(found)
    return found
