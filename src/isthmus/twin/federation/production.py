"""The brain as in production, under a virtual clock: `isthmus.placement.decide`, called as the service calls it, over sites that are simulated.

Only the sites and the passage of time are the twin's. In each round the brain sees a snapshot of every pool (free processors,
queue, promises, price, energy and carbon of the hour) and of the links with what was promised of them, and all tasks that
wait; run times are forecast by the service's own model, which learns from jobs as they end. Data moves in the windows that
the brain reserved for it.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field, replace
from decimal import Decimal
from math import ceil

import numpy as np
from numpy.typing import NDArray

from isthmus.domain.placement import Estimate, PoolView, Promise, ScarcePrice, Snapshot, WaitingTask
from isthmus.domain.roads import Carriage, Held, Piece, Roads
from isthmus.domain.site import Energy, Pool
from isthmus.domain.task import Constraints, Demand, Goal, Objective
from isthmus.forecasting.forecast import Forecast, Source
from isthmus.forecasting.runtime import RunRecord, RunRequest, RunTimeModel
from isthmus.placement import decide
from isthmus.twin.federation.batches import end_before, hand_in, load
from isthmus.twin.federation.federate import Federation, Outcome, Workload, modes_of
from isthmus.twin.schedulers.backfill import make_jobs, make_state

POOL = "main"
_MEMORY = 1024**2  # logs do not say how much a job needs


@dataclass(frozen=True, slots=True, kw_only=True)
class Tariff:
    """What a processor hour costs at a site in each hour, and what it draws and emits; hours are repeated."""

    price_per_cpu_hour: tuple[Decimal, ...] = (Decimal(0),)
    watts_per_cpu: Decimal = Decimal(0)
    pue: Decimal = Decimal(1)
    carbon_grams_per_kwh: tuple[Decimal, ...] = ()

    def at(self, now: int) -> tuple[Decimal, Energy]:
        """The price and the energy figures of the hour."""
        hour = now // 3600
        carbon = self.carbon_grams_per_kwh
        energy = Energy(
            watts_per_cpu=self.watts_per_cpu,
            pue=self.pue,
            carbon_grams_per_kwh=carbon[hour % len(carbon)] if carbon else None,
        )
        return self.price_per_cpu_hour[hour % len(self.price_per_cpu_hour)], energy


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Sites by number as the brain knows them: names, tariffs, and the network between them."""

    names: tuple[str, ...]
    tariffs: tuple[Tariff, ...] = ()
    roads: Roads = field(default_factory=Roads)


@dataclass(frozen=True, slots=True, kw_only=True)
class Governed:
    """The outcome, and how the brain worked: rounds, contested ones among them, tasks left waiting in a round at most."""

    outcome: Outcome
    rounds: int
    contested: int
    most_waiting: int


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
) -> Governed:
    """Run the workload, with a round as soon as a task comes or a site changes, at most one in `round_seconds`.

    `users` are numbers, by whose earlier jobs run times are forecast; without them each home is one user. Of `sites` the
    processors and schedulers count, the network is that of `around`. Pure: the same answer for the same arguments.
    """
    return _Run(work, sites, around, users if users is not None else work.home, goal, learn, pricing).run(round_seconds)


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
    ) -> None:
        self._order = np.argsort(work.submit_seconds, kind="stable")
        self._work = ordered = work.take(self._order)
        self._users = users[self._order]
        self._around, self._pricing = around, pricing
        self._objective = Objective(goal=goal)
        count = len(sites.processors)
        columns = (
            ordered.submit_seconds, ordered.run_seconds, ordered.processors, ordered.requested_seconds,
            ordered.requested_seconds,
        )  # fmt: skip
        jobs = make_jobs(*(np.ascontiguousarray(column, dtype=np.int64) for column in columns), count)
        self._state = make_state(jobs, np.asarray(sites.processors, dtype=np.int64), modes_of(sites))
        self._load = np.zeros((count, 6))
        self._over = np.empty(max(len(ordered), 1), dtype=np.int64)
        self._where = ordered.home.copy()
        self._moved_at = np.full(len(ordered), -1, dtype=np.int64)
        self._model = RunTimeModel() if learn else None
        self._asked: dict[int, tuple[RunRequest, Forecast]] = {}
        self._waiting: dict[int, WaitingTask] = {}
        self._under_way: list[tuple[int, int]] = []  # (arrival of the data, job)
        self._held: list[Held] = []
        self._prices: tuple[ScarcePrice, ...] = ()
        self._carried: dict[str, float] = dict.fromkeys(around.roads.links, 0.0)
        self._sent = [Promise() for _ in range(count)]  # to each site, its data still under way

    def run(self, round_seconds: int) -> Governed:
        submit = self._work.submit_seconds
        arrived = rounds = contested = most = 0
        next_round = 0
        changed = False
        while True:
            moments = [int(submit[arrived])] if arrived < len(submit) else []
            if self._under_way:
                moments.append(self._under_way[0][0])
            if self._waiting:
                # A task that waits is looked at again when a site has changed, no sooner than the next round.
                end = int(self._state.next_end.min())
                moments.append(max(next_round, 0 if changed else end + 1))
            if not moments:
                break
            now = min(moments)
            changed |= self._ends(now)
            while self._under_way and self._under_way[0][0] <= now:
                self._arrive(heapq.heappop(self._under_way)[1], now)
                changed = True
            fresh = arrived
            while arrived < len(submit) and submit[arrived] <= now:
                self._waiting[arrived] = self._task(arrived)
                arrived += 1
            if self._waiting and now >= next_round and (changed or arrived > fresh or not rounds):
                rounds += 1
                contested += self._round(now)
                most = max(most, len(self._waiting))
                next_round = now + round_seconds
                changed = False
            elif arrived > fresh:
                changed = True  # they wait for the next round
        self._ends(2**61)
        back = np.empty(len(submit), dtype=np.int64)
        back[self._order] = np.arange(len(submit))
        start = self._state.jobs["start"][: len(submit)]
        outcome = Outcome(
            start_seconds=start[back],
            site=self._where[back],
            data_seconds=self._moved_at[back],
            carried_bytes=np.array(list(self._carried.values())),
        )
        return Governed(outcome=outcome, rounds=rounds, contested=contested, most_waiting=most)

    def _ends(self, moment: int) -> bool:
        count = end_before(self._state, moment, self._over)
        if self._model is not None:
            for job in self._over[:count].tolist():
                request, forecast = self._asked.pop(job)
                row = self._state.jobs[job]
                run = int(row["run"])
                self._model.observe(
                    RunRecord(request=request, run_seconds=run, ended_at=float(row["start"] + run), forecast=forecast)
                )
                if self._model.due:
                    self._model.train()
        return bool(count)

    def _task(self, job: int) -> WaitingTask:
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
        home = self._around.names[work.home[job]]
        return WaitingTask(
            id=str(job),
            user=str(self._users[job]),
            demand=Demand(cpus=width, memory_bytes=_MEMORY, walltime_seconds=requested),
            objective=self._objective,
            constraints=Constraints(),
            data=(Piece(name=f"input-{job}", size_bytes=size, places=frozenset({home})),) if size else (),
            run=run,
        )

    def _round(self, now: int) -> bool:
        snapshot = self._snapshot(now)
        decision = decide(snapshot, list(self._waiting.values()), pricing=self._pricing)
        self._prices = decision.prices
        at_once: list[int] = []
        for placement in decision.placements:
            job = int(placement.task_id)
            del self._waiting[job]
            self._where[job] = self._around.names.index(placement.site)
            if placement.transfers:
                self._send(job, placement.transfers)
            else:
                at_once.append(job)
        numbers = np.array(at_once, dtype=np.int64)
        hand_in(self._state, numbers, self._where[numbers], now)
        return decision.contested

    def _send(self, job: int, transfers: tuple[Carriage, ...]) -> None:
        for one in transfers:
            for stretch in one.stretches:
                self._held += [
                    Held(link=link, begins=stretch.begins, ends=stretch.ends, bytes_per_second=stretch.bytes_per_second)
                    for link in one.links
                ]
            for link in one.links:
                self._carried[link] += one.size_bytes
        heapq.heappush(self._under_way, (ceil(max(one.ends for one in transfers)), job))
        self._promise(job, 1)

    def _arrive(self, job: int, now: int) -> None:
        self._moved_at[job] = now
        self._promise(job, -1)
        hand_in(self._state, np.array([job]), self._where[job : job + 1], now)

    def _promise(self, job: int, sign: int) -> None:
        width, seconds = int(self._work.processors[job]), int(self._work.requested_seconds[job])
        before = self._sent[self._where[job]]
        self._sent[self._where[job]] = Promise(
            jobs=before.jobs + sign,
            cpus=before.cpus + sign * width,
            memory_bytes=before.memory_bytes + sign * _MEMORY,
            cpu_seconds=before.cpu_seconds + sign * float(width * seconds),
        )

    def _snapshot(self, now: int) -> Snapshot:
        load(self._state, now, self._load)
        self._held = [one for one in self._held if one.ends > now]
        views = []
        for site, (name, figures) in enumerate(zip(self._around.names, self._load.tolist(), strict=True)):
            free, queued, queued_cpus, queued_seconds, left, running = figures
            size = int(self._state.sites[site]["processors"])
            price, energy = self._around.tariffs[site].at(now) if self._around.tariffs else (Decimal(0), Energy())
            sent = self._sent[site]
            views.append(
                PoolView(
                    site=name,
                    pool=Pool(
                        name=POOL,
                        cpus_per_node=size,
                        memory_bytes_per_node=size * _MEMORY,
                        free_cpus=int(free),
                        queued_jobs=int(queued),
                        queued_cpu_seconds=queued_seconds,
                        running_cpu_seconds_left=left,
                        price_per_cpu_hour=price,
                    ),
                    promised=Promise(
                        jobs=int(queued + running) + sent.jobs,
                        cpus=int(queued_cpus) + size - int(free) + sent.cpus,
                        memory_bytes=int(queued + running) * _MEMORY + sent.memory_bytes,
                        cpu_seconds=queued_seconds + left + sent.cpu_seconds,
                    ),
                    promised_unseen=sent,
                    energy=energy,
                )
            )
        roads = replace(self._around.roads, held=tuple(self._held)) if self._around.roads.links else self._around.roads
        return Snapshot(now=float(now), pools=tuple(views), prices=self._prices, roads=roads)
