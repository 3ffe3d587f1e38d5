"""The brain of the service under the twin's clock: beside the fast rules on four real logs, and what it is told by the hour."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isthmus.domain.placement import Snapshot
from isthmus.domain.roads import Roads, Route, Way
from isthmus.domain.task import Goal
from isthmus.engine import homes
from isthmus.engine.settings import EngineSettings
from isthmus.placement import Decision, decide
from isthmus.twin.federation import Federation, Workload, federate, homelines, production, queuewatch, turns
from isthmus.twin.federation.production import govern
from isthmus.twin.federation.surroundings import Surroundings, Tariff
from isthmus.twin.readers import read_swf
from isthmus.twin.scenario.load import scenario_of
from isthmus.twin.scenario.run import run_scenario
from isthmus.twin.schedulers.outages import Outage

LOGS = (
    ("KTH-SP2.sc15-rebuilt.swf.gz", 100),
    ("CTC-SP2.sc15-rebuilt.swf.gz", 338),
    ("SDSC-SP2.sc15-rebuilt.swf.gz", 128),
    ("HPC2N-2002-2.2-cln.swf.gz", 240),
)
TWO = Federation(processors=np.array([4, 8]))


def work(*rows: tuple[int, int, int, int, int, int]) -> Workload:
    """A workload from (submit, run, processors, requested, home, bytes)."""
    columns = np.array(rows, dtype=np.int64).T
    return Workload(**dict(zip(Workload.__dataclass_fields__, columns.copy(), strict=True)))


@pytest.mark.timeout(600)
def test_on_four_real_logs(traces: Path) -> None:
    """Four days: every job starts once and fits; waits are shorter than at home alone, and the same again to the second."""
    parts, users = [], []
    for home, (name, size) in enumerate(LOGS):
        log = read_swf(traces / "pwa" / name)
        log = log.where((log.run_seconds > 0) & (log.requested_processors > 0) & (log.requested_processors <= size))
        log = log.where((log.requested_seconds > 0) & (log.submit_seconds - log.submit_seconds.min() < 4 * 86400))
        none = np.zeros(len(log), dtype=np.int64)
        begun = log.submit_seconds - log.submit_seconds.min()
        columns = (begun, log.run_seconds, log.requested_processors, log.requested_seconds, none + home, none)
        parts.append(np.column_stack(columns))
        users.append(log.user + 100_000 * home)
    jobs = work(*map(tuple, np.concatenate(parts)))
    sites = Federation(processors=np.array([size for _, size in LOGS]))
    around = Surroundings(names=("kth", "ctc", "sdsc", "hpc2n"))
    got = govern(jobs, sites, around, users=np.concatenate(users))
    start, site = got.outcome.start_seconds, got.outcome.site
    assert (start >= jobs.submit_seconds).all()
    assert (jobs.processors <= sites.processors[site]).all()
    for number, size in enumerate(sites.processors):
        here = site == number
        times = np.concatenate([start[here], start[here] + jobs.run_seconds[here]])
        change = np.concatenate([jobs.processors[here], -jobs.processors[here]])
        order = np.lexsort((change, times))  # at equal times what ends goes first
        assert change[order].cumsum().max() <= size
    waits = {
        router: federate(jobs, sites, router).start_seconds - jobs.submit_seconds for router in ("isolated", "holes")
    }
    assert (start - jobs.submit_seconds).mean() < waits["isolated"].mean()
    assert 0 < got.rounds <= len(jobs) * 3
    few = np.flatnonzero(jobs.submit_seconds < 21_600)
    first, again = (
        govern(jobs.take(few), sites, around, users=np.concatenate(users)[few]).outcome.start_seconds for _ in range(2)
    )
    assert np.array_equal(first, again)


def test_a_task_goes_where_it_ends_soonest_and_its_data_in_a_reserved_window() -> None:
    """Home is full for long; the input of 1,000 bytes takes 100 s at 10 bytes/s, the second's only afterwards."""
    roads = Roads(
        links={"wire": Way(bytes_per_second=10.0)},
        routes={("a", "b"): (Route(links=("wire",)),), ("b", "a"): (Route(links=("wire",)),)},
    )
    jobs = work((0, 5000, 4, 5000, 0, 0), (1, 50, 4, 50, 0, 1000), (1, 50, 4, 50, 0, 1000))
    got = govern(jobs, TWO, Surroundings(names=("a", "b"), roads=roads), learn=False).outcome
    assert got.site.tolist() == [1, 0, 1] or got.site.tolist() == [0, 1, 1]
    moved = np.sort(got.data_seconds[got.data_seconds >= 0])
    assert (np.diff(moved) >= 100).all()
    assert got.carried_bytes.tolist() == [1000.0 * len(moved)]
    assert (got.start_seconds >= got.data_seconds).all()


def test_the_cheapest_site_of_the_hour_is_taken() -> None:
    """a is cheap before, b after one o'clock: a task that wants the cheapest goes there."""
    cheap, dear = Decimal("0.01"), Decimal("0.05")
    tariffs = (Tariff(price_per_cpu_hour=(cheap, dear)), Tariff(price_per_cpu_hour=(dear, cheap)))
    jobs = work((10, 60, 1, 60, 1, 0), (3700, 60, 1, 60, 0, 0))
    got = govern(jobs, TWO, Surroundings(names=("a", "b"), tariffs=tariffs), goal=Goal.CHEAPEST, learn=False)
    assert got.outcome.site.tolist() == [0, 1]


def test_what_waits_moves_when_another_site_falls_idle() -> None:
    """b is taken for long, by its request, so a's second job waits at home; b's job ends early, and the service's rule moves it."""
    jobs = work((0, 100, 8, 10_000, 1, 0), (1, 5000, 4, 5000, 0, 0), (2, 50, 4, 50, 0, 0))
    got = govern(jobs, TWO, Surroundings(names=("a", "b")), learn=False)
    assert got.moves == 1
    assert got.outcome.site.tolist() == [1, 0, 1]
    assert 100 <= got.outcome.start_seconds[2] <= 140


def test_who_used_more_is_served_later() -> None:
    """A home that handed in sixty jobs at once does not keep the other's single job behind all of them."""
    flood = [(0, 100, 4, 100, 0, 0)] * 60
    both = Federation(processors=np.array([4, 4]))
    got = govern(
        work(*flood, (10, 100, 4, 100, 1, 0)), both, Surroundings(names=("a", "b")), learn=False, pricing=False
    )
    start = got.outcome.start_seconds
    before = (start[:60] < start[60]).sum()
    assert before <= 8  # what runs and waits at the sites when it comes, and no more


def test_an_attempt_that_a_failure_ends_goes_elsewhere() -> None:
    """a fails at 50 s: its job starts again at b, which is idle; what drains at b runs on; both are there again later."""
    outages = ((0, Outage(begin_seconds=50, finish_seconds=5000, processors=4, drain=False)),)
    outages += ((1, Outage(begin_seconds=60, finish_seconds=7000, processors=8, drain=True)),)
    sites = replace(TWO, outages=outages)
    jobs = work((0, 300, 8, 300, 1, 0), (1, 300, 4, 300, 0, 0), (2000, 10, 4, 10, 0, 0), (2001, 10, 8, 10, 1, 0))
    got = govern(jobs, sites, Surroundings(names=("a", "b")), learn=False).outcome
    assert got.lost_attempts == 1
    assert got.lost_processor_seconds == 4 * 49
    assert got.start_seconds[0] == 0
    assert got.start_seconds[1] >= 5000  # b drains: it takes nobody
    assert 5300 <= got.start_seconds[2] < 5400  # after it
    assert 7000 <= got.start_seconds[3] < 7100
    for home_first, second in ((False, 300), (True, 301)):  # in b's queue; as b's guest it is placed once there is room
        one = govern(
            jobs.take(slice(0, 2)),
            replace(TWO, outages=outages[:1]),
            Surroundings(names=("a", "b")),
            learn=False,
            home_first=home_first,
        )
        assert one.outcome.site.tolist() == [1, 1]
        assert one.outcome.start_seconds.tolist() == [0, second]


def test_a_guest_makes_no_own_job_of_a_home_wait() -> None:
    """Both sites are full, b for 100 s; a's second job would queue at b before b's own wide one comes. With the row it does not, and
    starts there as a guest after that one has ended; with the row off the wide one waits for it."""
    jobs = work((0, 100, 8, 100, 1, 0), (1, 2000, 4, 2000, 0, 0), (3, 1000, 4, 1000, 0, 0), (4, 50, 8, 50, 1, 0))
    for home_first in (True, False):
        got = govern(jobs, TWO, Surroundings(names=("a", "b")), learn=False, home_first=home_first).outcome
        assert got.site.tolist() == [1, 0, 1, 1]
        guest, wide = got.start_seconds[2:].tolist()
        assert (wide == 100 and 150 <= guest < 250) if home_first else (guest == 100 and wide == 1100)


def test_rounds_are_told_what_was_learned_of_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once enough jobs were seen to start, snapshots carry forecasts of waiting by the service's own model, and not before."""
    told: list[bool] = []

    def spy(snapshot: Snapshot, *arguments: Any, **more: Any) -> Decision:
        told.append(any(view.waits is not None for view in snapshot.pools))
        return decide(snapshot, *arguments, **more)

    monkeypatch.setattr(production, "decide", spy)
    rows = [(40 * number, 200, 2, 300, 0, 0) for number in range(80)]
    got = govern(work(*rows), Federation(processors=np.array([8])), Surroundings(names=("a",)))
    assert not told[0]
    assert told[-1]
    assert (got.outcome.start_seconds >= 0).all()


def test_the_figures_are_those_of_the_service() -> None:
    """The twin may not import the engine; its settings are the same."""
    engine = EngineSettings()
    assert (engine.fair_half_life, engine.fair_weight) == (turns.HALF_LIFE, turns.WEIGHT)
    assert engine.move_interval == production.MOVE_SECONDS
    assert engine.move_after == production.MOVE_AFTER
    assert (engine.move_least_seconds, engine.move_least_part) == (production.MOVE_LEAST, production.MOVE_LEAST_PART)
    assert (engine.moves_at_once, engine.moves_most) == (production.MOVES_AT_ONCE, production.MOVES_MOST)
    assert engine.describe_interval == queuewatch.LOOK_SECONDS
    assert engine.home_first
    assert homelines.MOST_WAITING == homes.MOST_WAITING


def test_a_scenario_chooses_its_brain() -> None:
    """`brain: production` runs the same jobs; it beats a home that is too small alone."""
    tree = {
        "name": "two",
        "brain": "production",
        "sites": [{"name": "a", "processors": 8}, {"name": "b", "processors": 64}],
        "links": [{"ends": ["a", "b"], "gbit_per_second": 10.0, "km": 100.0}],
        "workload": [
            {
                "home": "a",
                "synthetic": {"jobs_per_day": 100.0, "days": 1.0, "most_processors": 8, "mean_input_bytes": 1e9},
            }
        ],
    }
    scenario = scenario_of(tree, Path())
    governed = run_scenario(scenario)
    alone = run_scenario(replace(scenario, brain="fast", router="isolated"))
    assert np.array_equal(governed.work.run_seconds, alone.work.run_seconds)
    assert governed.waits.mean() < alone.waits.mean()
    assert governed.outcome.carried_bytes.sum() > 0
