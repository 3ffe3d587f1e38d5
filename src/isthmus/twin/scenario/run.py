"""Run a scenario: its workload through the federation, with what it used."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from isthmus.domain.errors import Invalid
from isthmus.twin.federation import Federation, Outcome, Workload, federate
from isthmus.twin.scenario.account import Accounts, account
from isthmus.twin.scenario.model import Scenario
from isthmus.twin.scenario.routes import least_latency_paths
from isthmus.twin.scenario.synthetic import make_workload
from isthmus.twin.schedulers import bounded_slowdown
from isthmus.twin.summary import Summary, summarise


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
        }

    def columns(self) -> dict[str, Any]:
        """One row a job, for Parquet."""
        names = np.array([site.name for site in self.scenario.sites])
        return {
            "submit_seconds": self.work.submit_seconds,
            "home": names[self.work.home],
            "site": names[self.outcome.site],
            "wait_seconds": self.waits,
            "run_seconds": self.work.run_seconds,
            "processors": self.work.processors,
            "data_seconds": self.outcome.data_seconds,
            "input_bytes": self.work.input_bytes,
            "bounded_slowdown": bounded_slowdown(self.waits, self.work.run_seconds),
            "energy_kwh": self.accounts.energy_kwh,
            "cost": self.accounts.cost,
            "carbon_kg": self.accounts.carbon_kg,
        }


def workload_of(scenario: Scenario) -> Workload:
    """The scenario's jobs: those of its logs, then the synthetic ones, with `arrivals` applied."""
    made = make_workload(scenario.synthetic, scenario.sites, scenario.seed)
    parts = [part for part in (scenario.traced, made) if part is not None]
    names = Workload.__dataclass_fields__
    joined = Workload(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})
    if len(joined.home) == 0:
        raise Invalid("workload", "It holds no job.", remedy="Give a log, or more jobs a day.")
    return replace(joined, submit_seconds=np.floor(joined.submit_seconds / scenario.arrivals).astype(np.int64))


def run_scenario(scenario: Scenario) -> Result:
    """Run it; the same result for the same scenario, to the bit."""
    work = workload_of(scenario)
    sizes = np.array([site.processors for site in scenario.sites], dtype=np.int64)
    sites = Federation(processors=sizes, policies=tuple(site.policy for site in scenario.sites))
    if scenario.links:
        paths, latency = least_latency_paths(scenario.sites, scenario.links)
        capacity = np.array([link.bytes_per_second for link in scenario.links])
        sites = replace(sites, paths=paths, latency_seconds=latency, capacity_bytes_per_second=capacity)
    outcome = federate(work, sites, scenario.router, rational=scenario.rational)
    start = outcome.start_seconds
    waits = start - work.submit_seconds
    return Result(
        scenario=scenario,
        work=work,
        outcome=outcome,
        accounts=account(scenario.sites, outcome.site, start, work.run_seconds, work.processors),
        summary=summarise(work.submit_seconds, work.run_seconds, work.processors, waits, int(sizes.sum())),
    )
