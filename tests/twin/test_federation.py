"""Many sites under one clock: exact with one site, never over capacity, causal, and without losers on four real logs."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.domain.errors import Invalid
from isthmus.placement.federation import fits_hole, is_open, order_of_guest
from isthmus.twin.federation import Federation, Outcome, Router, Stream, Workload, federate
from isthmus.twin.readers import read_swf
from isthmus.twin.schedulers import simulate

ROUTERS = get_args(Router)
# Three sites, a link each between 0-1 and 1-2; 0-2 goes over both.
PATHS = np.full((3, 3, 2), -1)
for a, b, links in ((0, 1, (0,)), (1, 2, (1,)), (0, 2, (0, 1))):
    PATHS[a, b, : len(links)] = PATHS[b, a, : len(links)] = links
LINKED = Federation(
    processors=np.array([4, 8, 6]),
    paths=PATHS,
    latency_seconds=np.full((3, 3), 0.01),
    capacity_bytes_per_second=np.array([10.0, 20.0]),
)


def work(rows: list[tuple[int, int, int, int, int, int]]) -> Workload:
    """A workload from (submit, run, processors, requested, home, bytes)."""
    table = np.array(rows, dtype=np.int64).reshape(-1, 6)
    columns = [table[:, i].copy() for i in range(6)]
    return Workload(
        submit_seconds=columns[0],
        run_seconds=columns[1],
        processors=columns[2],
        requested_seconds=columns[3],
        home=columns[4],
        input_bytes=columns[5],
    )


JOBS = st.lists(
    st.tuples(
        st.integers(0, 80),
        st.integers(1, 60),
        st.integers(1, 4),
        st.integers(0, 30),
        st.integers(0, 2),
        st.integers(0, 300),
    ).map(lambda row: (row[0], row[1], row[2], row[1] + row[3], row[4], row[5])),
    min_size=1,
    max_size=40,
)


@pytest.mark.parametrize("router", ROUTERS)
def test_one_site_gives_the_published_waits(traces: Path, router: Router) -> None:
    """With one site every router is EASY, job by job as in the SC'15 artefact."""
    log = read_swf(traces / "pwa" / "KTH-SP2.sc15-rebuilt.swf.gz")
    reference = np.load(traces / "reference-sc15" / "KTH-SP2.waits.npz")
    none = np.zeros(len(log), dtype=np.int64)
    one = Workload(
        submit_seconds=log.submit_seconds,
        run_seconds=log.run_seconds,
        processors=log.requested_processors,
        requested_seconds=log.requested_seconds,
        home=none,
        input_bytes=none,
    )
    got = federate(one, Federation(processors=np.array([100])), router)
    assert np.array_equal(got.start_seconds - log.submit_seconds, reference["EASY"])


@given(rows=JOBS)
@settings(max_examples=40, deadline=None)
def test_isolated_sites_are_sites_alone(rows: list[tuple[int, int, int, int, int, int]]) -> None:
    """Under `isolated` each home's waits are those of its own simulation, and no data moves."""
    jobs = work(rows)
    got = federate(jobs, LINKED, "isolated")
    for home in range(3):
        mine = jobs.home == home
        alone = Alone(jobs, mine)
        waits = simulate(alone, int(LINKED.processors[home]), "easy")
        assert np.array_equal(got.start_seconds[mine] - jobs.submit_seconds[mine], waits)
    assert not got.carried_bytes.any()


class Alone:
    """One home's jobs as a workload of one site."""

    def __init__(self, jobs: Workload, mine: Any) -> None:
        self.submit_seconds = jobs.submit_seconds[mine]
        self.run_seconds = jobs.run_seconds[mine]
        self.requested_processors = jobs.processors[mine]
        self.requested_seconds = jobs.requested_seconds[mine]


@pytest.mark.parametrize("router", ROUTERS)
@given(rows=JOBS, under=st.booleans())
@settings(max_examples=60, deadline=None)
def test_no_site_is_over_capacity(router: Router, rows: list[tuple[int, int, int, int, int, int]], under: bool) -> None:
    """Every job starts, after submission and after its data is there, and at every start the site's jobs fit."""
    jobs = work(rows)
    estimates = np.maximum(jobs.run_seconds // 2, 1) if under else None
    got = federate(jobs, LINKED, router, estimates=estimates, credit=1.0)
    assert (got.start_seconds >= jobs.submit_seconds).all()
    assert (got.start_seconds >= got.data_seconds).all()
    with_data = (got.site != jobs.home) & (jobs.input_bytes > 0)
    assert np.array_equal(got.data_seconds >= 0, with_data)
    for moment, site in zip(got.start_seconds, got.site, strict=True):
        here = (got.site == site) & (got.start_seconds <= moment) & (moment < got.start_seconds + jobs.run_seconds)
        assert jobs.processors[here].sum() <= LINKED.processors[site]
    pairs = zip(jobs.home[with_data], got.site[with_data], jobs.input_bytes[with_data], strict=True)
    carried = np.zeros(2)
    for a, b, size in pairs:
        carried[PATHS[a, b][PATHS[a, b] >= 0]] += size
    assert np.allclose(carried, got.carried_bytes)


@pytest.mark.parametrize("router", ROUTERS)
@given(rows=JOBS, moment=st.integers(1, 120), longer=st.integers(1, 50))
@settings(max_examples=60, deadline=None)
def test_the_future_decides_nothing(
    router: Router, rows: list[tuple[int, int, int, int, int, int]], moment: int, longer: int
) -> None:
    """What has started before a moment is the same if jobs come no more, and what runs then runs longer."""
    jobs = work(rows)
    jobs = replace(jobs, requested_seconds=jobs.run_seconds + 60)
    first = federate(jobs, LINKED, router, credit=1.0)
    going_on = first.start_seconds + jobs.run_seconds >= moment
    known = jobs.submit_seconds < moment
    changed = replace(jobs, run_seconds=np.where(going_on, jobs.run_seconds + longer, jobs.run_seconds))
    columns = {name: getattr(changed, name)[known] for name in Workload.__dataclass_fields__}
    second = federate(Workload(**columns), LINKED, router, credit=1.0)
    before = first.start_seconds[known] < moment
    assert np.array_equal(first.start_seconds[known][before], second.start_seconds[before])
    assert np.array_equal(first.site[known][before], second.site[before])


def test_a_job_goes_where_there_is_a_hole_and_not_behind_a_reservation() -> None:
    """A guest starts at once where processors idle; a site whose head would be delayed is left alone."""
    # Site 0 is full until 100; site 1 has 2 idle processors until its head starts at 50.
    base = [(0, 100, 4, 100, 0, 0), (0, 50, 6, 50, 1, 0), (1, 10, 4, 10, 1, 0)]
    two = Federation(processors=np.array([4, 8]))
    short = federate(work([*base, (2, 40, 2, 40, 0, 0)]), two, "holes")
    assert (short.start_seconds[3], short.site[3]) == (2, 1)
    # Of 8 processors the head leaves 4 over, so that a long guest of 2 fits too; one of 5 has to wait.
    assert federate(work([*base, (2, 90, 2, 90, 0, 0)]), two, "holes").start_seconds[3] == 2
    tight = [(0, 100, 4, 100, 0, 0), (0, 50, 6, 50, 1, 0), (1, 10, 8, 10, 1, 0), (2, 90, 2, 90, 0, 0)]
    got = federate(work(tight), two, "holes")
    assert got.start_seconds.tolist() == [0, 0, 50, 60]


def test_data_that_moves_shares_links_fairly() -> None:
    """Two inputs over one link take twice as long each; the guest starts when its data is there."""
    jobs = [(0, 1000, 4, 1000, 0, 0), (0, 5, 1, 5, 0, 100), (0, 5, 1, 5, 0, 100)]
    got = federate(work(jobs), LINKED, "holes")
    assert got.site.tolist() == [0, 1, 1]
    assert got.data_seconds.tolist() == [-1, 21, 21]  # 200 bytes at 10 a second, and the latency
    assert got.start_seconds.tolist() == [0, 21, 21]
    assert got.carried_bytes.tolist() == [200.0, 0.0]


def test_a_site_in_debt_is_closed_to_guests() -> None:
    """With no credit no home takes guests until its own users have gained."""
    jobs = work([(0, 100, 4, 100, 0, 0), (1, 40, 2, 40, 0, 0)])
    two = Federation(processors=np.array([4, 8]))
    assert federate(jobs, two, "holes").start_seconds.tolist() == [0, 1]
    assert federate(jobs, two, "holes", credit=0.0).start_seconds.tolist() == [0, 100]
    assert federate(jobs, two, "holes", credit=0.0, rational=False).start_seconds.tolist() == [0, 1]


def test_the_rules_are_plain_functions() -> None:
    """The brain may call what the twin compiles."""
    assert fits_hole(2, 100, 2, False, 0, 0)
    assert not fits_hole(3, 1, 2, False, 0, 0)
    assert fits_hole(2, 100, 2, True, 100, 0)
    assert not fits_hole(2, 101, 2, True, 100, 1)
    assert fits_hole(2, 101, 2, True, 100, 2)
    assert order_of_guest(10, 5) < order_of_guest(10, 4) < order_of_guest(11, 1_000_000)
    assert is_open(-10.0, 100.0, 5.0, 0.1)
    assert not is_open(-15.0, 100.0, 5.0, 0.1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"router": "best"}, "router"),
        ({"sites": Federation(processors=np.array([2]))}, "home"),
        ({"sites": Federation(processors=np.array([1, 1, 1]))}, "do not fit"),
        ({"sites": Federation(processors=np.array([4, 4, 4]))}, "no network"),
        ({"sites": replace(LINKED, policies=("best",))}, "policies"),
    ],
)
def test_what_cannot_run_is_refused(change: dict[str, Any], said: str) -> None:
    """The refusal names the field."""
    arguments = {"work": work([(0, 1, 2, 1, 1, 10)]), "sites": LINKED, "router": "holes", **change}
    with pytest.raises(Invalid, match=said):
        federate(**arguments)


def test_four_real_logs_have_no_losers(traces: Path) -> None:
    """Ninety days: a lower mean wait than with the naive router, and no home's users worse off than alone."""
    names = (
        ("KTH-SP2.sc15-rebuilt.swf.gz", 100),
        ("CTC-SP2.sc15-rebuilt.swf.gz", 338),
        ("SDSC-SP2.sc15-rebuilt.swf.gz", 128),
    )
    rows = []
    for home, (name, _) in enumerate(names):
        log = read_swf(traces / "pwa" / name)
        log = log.where(log.submit_seconds - log.submit_seconds.min() < 90 * 86400)
        none = np.zeros(len(log), dtype=np.int64)
        columns = (log.submit_seconds, log.run_seconds, log.requested_processors, log.requested_seconds)
        rows.append(np.column_stack([*columns, none + home, none]))
    jobs = work(list(np.concatenate(rows)))
    sites = Federation(processors=np.array([size for _, size in names]))
    alone, naive, ours = (_figures(jobs, federate(jobs, sites, router)) for router in ROUTERS)
    assert ours[0] < naive[0] < alone[0]
    assert (ours[1] <= alone[1]).all()


def _figures(jobs: Workload, got: Outcome) -> tuple[float, Any]:
    waits = got.start_seconds - jobs.submit_seconds
    slowdown = np.maximum(1.0, (waits + jobs.run_seconds) / np.maximum(jobs.run_seconds, 10))
    return float(waits.mean()), np.array([slowdown[jobs.home == home].mean() for home in range(3)])


@pytest.mark.parametrize("router", ROUTERS)
@given(rows=JOBS, pieces=st.lists(st.integers(0, 80), max_size=4))
@settings(max_examples=60, deadline=None)
def test_in_pieces_it_is_the_same_schedule(
    router: Router, rows: list[tuple[int, int, int, int, int, int]], pieces: list[int]
) -> None:
    """Whatever the pieces: every job is told once, with the start, site and data that it has in one piece."""
    jobs = work(sorted(rows))
    estimates = np.maximum(jobs.run_seconds // 2, 1)
    policies = ("easy", "easy-sjbf", "fcfs")
    whole = federate(jobs, replace(LINKED, policies=policies), router, estimates=estimates, credit=1.0)
    stream = Stream(replace(LINKED, policies=policies), router, credit=1.0)
    told = []
    for low, high in pairwise([-1, *sorted(pieces), 81]):
        part = np.flatnonzero((jobs.submit_seconds > low) & (jobs.submit_seconds <= high))
        told.append(stream.feed(jobs.take(part), estimates=estimates[part], last=high == 81))
    serial = np.concatenate([one.serial for one in told])
    assert sorted(serial.tolist()) == list(range(len(jobs)))
    for name in ("start_seconds", "site", "data_seconds"):
        assert np.array_equal(np.concatenate([getattr(one, name) for one in told]), getattr(whole, name)[serial])
    assert np.array_equal(stream.carried_bytes, whole.carried_bytes)
    assert np.array_equal(
        np.concatenate([one.jobs.run_seconds for one in told]),
        jobs.run_seconds[serial],
    )
