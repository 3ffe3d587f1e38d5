"""Run a scenario: its workload through the federation, with what it used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.domain.errors import Invalid
from isthmus.twin.federation import Ended, Federation, Outcome, Stream, Workload, federate
from isthmus.twin.scenario.account import Accounts, account
from isthmus.twin.scenario.model import Scenario
from isthmus.twin.scenario.routes import least_latency_paths
from isthmus.twin.scenario.synthetic import days_of, make_workload, no_jobs
from isthmus.twin.schedulers import bounded_slowdown
from isthmus.twin.summary import Summary, summarise
from isthmus.twin.tally import Tally

Whole = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One run, by job; `summary` over all jobs."""

    scenario: Scenario
    work: Workload
    outcome: Outcome
    accounts: Accounts
    summary: Summary

    @property
    def waits(self) -> Any:
        """Seconds from submission to start, by job: the passage of data included."""
        return self.outcome.start_seconds - self.work.submit_seconds

    def figures(self) -> dict[str, float]:
        """The summary with energy, cost, carbon, and what moved, as names and numbers."""
        return {
            **asdict(self.summary),
            "energy_kwh": float(self.accounts.energy_kwh.sum()),
            "cost": float(self.accounts.cost.sum()),
            "carbon_kg": float(self.accounts.carbon_kg.sum()),
            "moved_jobs": int((self.outcome.site != self.work.home).sum()),
            "moved_bytes": int(self.work.input_bytes[self.outcome.data_seconds >= 0].sum()),
            **self._lost(),
        }

    def _lost(self) -> dict[str, float]:
        if not self.scenario.outages:
            return {}
        hours = self.outcome.lost_processor_seconds / 3600
        return {"lost_attempts": self.outcome.lost_attempts, "lost_processor_hours": hours}

    def columns(self) -> dict[str, Any]:
        """One row a job, for Parquet."""
        outcome = self.outcome
        return job_columns(
            self.scenario, self.work, outcome.start_seconds, outcome.site, outcome.data_seconds, self.accounts
        )


def job_columns(
    scenario: Scenario, work: Workload, start: Whole, site: Whole, data: Whole, accounts: Accounts
) -> dict[str, Any]:
    """One row a job, for Parquet: what it asked for, where it ran, its wait and what it used."""
    names = np.array([place.name for place in scenario.sites])
    waits = start - work.submit_seconds
    return {
        "submit_seconds": work.submit_seconds,
        "home": names[work.home],
        "site": names[site],
        "wait_seconds": waits,
        "run_seconds": work.run_seconds,
        "processors": work.processors,
        "data_seconds": data,
        "input_bytes": work.input_bytes,
        "bounded_slowdown": bounded_slowdown(waits, work.run_seconds),
        "energy_kwh": accounts.energy_kwh,
        "cost": accounts.cost,
        "carbon_kg": accounts.carbon_kg,
    }


def workload_of(scenario: Scenario) -> Workload:
    """The scenario's jobs: those of its logs, then the synthetic ones, with `arrivals` applied."""
    made = make_workload(scenario.synthetic, scenario.sites, scenario.seed)
    joined = Workload.joined([part for part in (scenario.traced, made) if part is not None])
    if len(joined) == 0:
        raise Invalid("workload", "It holds no job.", remedy="Give a log, or more jobs a day.")
    # In order of time, so that jobs that come into one second keep their order when they are made day by day.
    return _denser(joined.take(np.argsort(joined.submit_seconds, kind="stable")), scenario.arrivals)


def federation_of(scenario: Scenario) -> Federation:
    """The scenario's sites, and its network where it has links."""
    sizes = np.array([site.processors for site in scenario.sites], dtype=np.int64)
    numbers = {site.name: number for number, site in enumerate(scenario.sites)}
    sites = Federation(
        processors=sizes,
        policies=tuple(site.policy for site in scenario.sites),
        outages=tuple((numbers[name], outage) for name, outage in scenario.outages),
    )
    if not scenario.links:
        return sites
    paths, latency = least_latency_paths(scenario.sites, scenario.links)
    capacity = np.array([link.bytes_per_second for link in scenario.links])
    return replace(sites, paths=paths, latency_seconds=latency, capacity_bytes_per_second=capacity)


def run_scenario(scenario: Scenario, *, on_jobs: Callable[[int, int], None] | None = None) -> Result:
    """Run it; the same result for the same scenario, to the bit. `on_jobs` is told by the brain of production, the slow one, how many
    jobs have ended, and of how many."""
    work = workload_of(scenario)
    sites = federation_of(scenario)
    if scenario.brain == "production":
        outcome = _governed(scenario, work, sites, on_jobs)
    else:
        outcome = federate(work, sites, scenario.router, rational=scenario.rational)
    start = outcome.start_seconds
    waits = start - work.submit_seconds
    return Result(
        scenario=scenario,
        work=work,
        outcome=outcome,
        accounts=account(scenario.sites, outcome.site, start, work.run_seconds, work.processors),
        summary=summarise(work.submit_seconds, work.run_seconds, work.processors, waits, int(sites.processors.sum())),
    )


def _governed(
    scenario: Scenario, work: Workload, sites: Federation, on_jobs: Callable[[int, int], None] | None
) -> Outcome:
    from isthmus.twin.federation.production import govern
    from isthmus.twin.scenario.production import surroundings

    around = surroundings(scenario)
    return govern(
        work,
        sites,
        around,
        goal=scenario.goal,
        round_seconds=scenario.round_seconds,
        home_first=scenario.rational,
        on_jobs=on_jobs,
    ).outcome


def stream_scenario(
    scenario: Scenario,
    *,
    on_ended: Callable[[Ended, Accounts], None] | None = None,
    on_day: Callable[[int], None] | None = None,
) -> Tally:
    """Run it a day at a time, and hold only the jobs that are not over: for years. The schedule is that of `run_scenario`.

    `on_ended` is given the jobs as they end, and what they used; `on_day` the number of days whose jobs have arrived.
    """
    if scenario.brain == "production":
        raise Invalid("brain", "production keeps all jobs.", remedy="Stream with the fast one.")
    sites = federation_of(scenario)
    stream = Stream(sites, scenario.router, rational=scenario.rational)
    tally = Tally(homes=len(scenario.sites), processors=int(sites.processors.sum()))

    def add(ended: Ended) -> None:
        jobs = ended.jobs
        accounts = account(scenario.sites, ended.site, ended.start_seconds, jobs.run_seconds, jobs.processors)
        tally.add(ended, accounts)
        if on_ended is not None:
            on_ended(ended, accounts)

    streamed(stream, (_denser(work, scenario.arrivals) for work in _days(scenario)), add, on_day=on_day)
    if not tally.figures()["jobs"]:
        raise Invalid("workload", "It holds no job.", remedy="Give a log, or more jobs a day.")
    return tally


def streamed(
    stream: Stream,
    days: Iterator[Workload],
    add: Callable[[Ended], None],
    *,
    on_day: Callable[[int], None] | None = None,
) -> None:
    """Feed the jobs of each day, and give what ended to `add`, in order. While the core runs, which needs no interpreter, the next
    day's jobs are made and the last one's added up in a thread beside it."""
    with ThreadPoolExecutor(1) as beside:
        coming = beside.submit(next, days, None)
        adding = None
        day = 0
        while (work := coming.result()) is not None:
            coming = beside.submit(next, days, None)
            done = stream.feed(work)
            if adding is not None:
                adding.result()
            adding = beside.submit(add, done)
            day += 1
            if on_day is not None:
                on_day(day)
        if adding is not None:
            adding.result()
    add(stream.feed(no_jobs(), last=True))


def _days(scenario: Scenario) -> Iterator[Workload]:
    """The jobs of the logs and the synthetic ones of each day, in the order in which `workload_of` has them."""
    traced = scenario.traced if scenario.traced is not None else no_jobs()
    day_of = traced.submit_seconds // 86400
    made = days_of(scenario.synthetic, scenario.sites, scenario.seed)
    for day in range(int(day_of.max(initial=-1)) + 1):
        yield Workload.joined([traced.take(day_of == day), next(made, no_jobs())])
    yield from made


def _denser(work: Workload, arrivals: float) -> Workload:
    return replace(work, submit_seconds=np.floor(work.submit_seconds / arrivals).astype(np.int64))
