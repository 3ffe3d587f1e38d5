"""Outages in scenarios and by the command: the federation does what the single site does, and every job ends."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from isthmus.cli.main import call
from isthmus.domain.errors import Invalid
from isthmus.twin.federation import Federation, Workload, federate
from isthmus.twin.report.page import make_page
from isthmus.twin.scenario.load import scenario_of
from isthmus.twin.scenario.run import run_scenario, stream_scenario
from isthmus.twin.schedulers.outages import Outage, replan
from tests.twin.test_outages import JOB, OUTAGE, Log, jobs

DAY = 86_400


def joined(*logs: Log) -> Workload:
    """The jobs of each home in turn, without data."""
    homes = np.repeat(np.arange(len(logs)), [len(log.submit_seconds) for log in logs])
    columns = [
        np.concatenate([getattr(log, name) for log in logs])
        for name in ("submit_seconds", "run_seconds", "requested_processors", "requested_seconds")
    ]
    submit, run, width, request = columns
    return Workload(
        submit_seconds=submit, run_seconds=run, processors=width, requested_seconds=request, home=homes, input_bytes=0 * homes
    )  # fmt: skip


def log_of(rows: list[tuple[int, int, int, int]]) -> Log:
    """Jobs whose requests are at least their run times."""
    return jobs(*((submit, run, width, run + more) for submit, run, width, more in rows))


def distinct(log: Log, starts: np.ndarray, outages: list[Outage]) -> bool:
    """Whether no two events fall into one second, in which the two would take them in another order."""
    events = [*log.submit_seconds.tolist(), *(starts + log.run_seconds).tolist()]
    events += [moment for one in outages for moment in (one.begin_seconds, one.finish_seconds)]
    return len(set(events)) == len(events)


@settings(max_examples=80, deadline=None)
@given(rows=st.lists(JOB, min_size=1, max_size=20), outages=st.lists(OUTAGE, min_size=1, max_size=3))
def test_fcfs_with_outages_is_that_of_one_site(rows: list[tuple[int, int, int, int]], outages: list[Outage]) -> None:
    """The same waits and losses, by two implementations."""
    log = log_of(rows)
    one = replan(log, 8, "fcfs", tuple(outages))
    assume(distinct(log, log.submit_seconds + one.wait_seconds, outages))
    sites = Federation(processors=np.array([8]), policies=("fcfs",), outages=tuple((0, outage) for outage in outages))
    many = federate(joined(log), sites, "isolated")
    assert (many.start_seconds - log.submit_seconds).tolist() == one.wait_seconds.tolist()
    assert many.lost_attempts == one.attempts.sum() - len(rows)
    assert many.lost_processor_seconds == one.lost_processor_seconds


@settings(max_examples=80, deadline=None)
@given(
    rows=st.lists(JOB, min_size=1, max_size=15),
    others=st.lists(JOB, min_size=1, max_size=15),
    outages=st.lists(st.tuples(st.integers(0, 1), OUTAGE), max_size=4),
    policy=st.sampled_from(["fcfs", "easy", "easy-sjbf"]),
    router=st.sampled_from(["isolated", "shortest-backlog", "holes"]),
    rational=st.booleans(),
)
def test_every_job_ends_and_fits_on_what_is_there(
    rows: Any, others: Any, outages: Any, policy: Any, router: Any, rational: bool
) -> None:
    """No job is lost, none starts before its submission, failed processors run nothing, under every scheduler and router."""
    work = joined(log_of(rows), log_of(others))
    sites = Federation(processors=np.array([8, 8]), policies=(policy,), outages=tuple(outages))
    done = federate(work, sites, router, rational=rational)
    start, end = done.start_seconds, done.start_seconds + work.run_seconds
    assert (start >= work.submit_seconds).all()
    for moment in start.tolist():
        for site in (0, 1):
            there = (done.site == site) & (start <= moment) & (moment < end)
            failed = sum(
                one.processors
                for where, one in outages
                if where == site and not one.drain and one.begin_seconds < moment < one.finish_seconds
            )
            assert work.processors[there].sum() <= max(8 - failed, 0)
    if all(one.drain for _, one in outages):
        assert (done.lost_attempts, done.lost_processor_seconds) == (0, 0)


def test_a_failure_and_a_drain_by_hand() -> None:
    """As on the single site: the job that started last loses its work; a drain kills none."""
    log = jobs((0, 100, 2, 100), (10, 100, 2, 100))
    for policy in ("fcfs", "easy", "easy-sjbf"):
        sites = Federation(processors=np.array([4]), policies=(policy,))
        failing = replace(sites, outages=((0, Outage(begin_seconds=50, finish_seconds=300, processors=2)),))
        failed = federate(joined(log), failing, "isolated")
        assert failed.start_seconds.tolist() == [0, 100]
        assert (failed.lost_attempts, failed.lost_processor_seconds) == (1, 80)
        later = jobs((0, 100, 2, 100), (10, 100, 2, 100), (60, 10, 2, 10), (61, 10, 4, 10))
        draining = replace(
            sites, outages=((0, Outage(begin_seconds=50, finish_seconds=300, processors=2, drain=True)),)
        )
        assert federate(joined(later), draining, "isolated").start_seconds.tolist() == [0, 10, 110, 300]


def tree(**more: Any) -> dict[str, Any]:
    """Two sites, of which one is away for half a day."""
    return {
        "name": "two sites",
        "sites": [{"name": "a", "processors": 32}, {"name": "b", "processors": 32, "policy": "easy-sjbf"}],
        "outages": [
            {"site": "a", "from": "12h", "to": "1d"},
            {"site": "b", "from": 7200, "to": "4h", "processors": 8, "drain": True},
        ],
        "workload": [
            {"home": home, "synthetic": {"jobs_per_day": 200.0, "days": 2.0, "most_processors": 16}} for home in "ab"
        ],
        **more,
    }


def test_a_scenario_says_what_is_away_and_when() -> None:
    """Nothing runs at a in its half day; a federation bears it better than a site alone; streamed it is the same."""
    scenario = scenario_of(tree(), Path())
    result = run_scenario(scenario)
    start, end = result.outcome.start_seconds, result.outcome.start_seconds + result.work.run_seconds
    there = result.outcome.site == 0
    assert not (there & (start < DAY) & (end > DAY // 2)).any()
    assert result.figures()["lost_attempts"] > 0
    assert "attempts that outages ended" in make_page(result)
    assert result.figures()["lost_processor_hours"] > 0
    whole = run_scenario(replace(scenario, outages=()))
    assert "lost_attempts" not in whole.figures()
    assert result.waits.mean() > whole.waits.mean()
    alone = run_scenario(replace(scenario, router="isolated"))
    assert alone.waits.mean() > result.waits.mean()
    waits: list[int] = []
    stream_scenario(scenario, on_ended=lambda one, _: waits.extend(one.start_seconds - one.jobs.submit_seconds))
    assert sorted(waits) == sorted(result.waits.tolist())


@pytest.mark.parametrize(
    ("outage", "field"),
    [
        ({"site": "z", "from": 0, "to": 1}, "outages.0.site"),
        ({"site": "a", "from": "2h", "to": "1h"}, "outages.0"),
        ({"site": "a", "from": "soon", "to": "1h"}, "outages.0.from"),
        ({"site": "a", "from": 0, "to": 1, "processors": 33}, "outages.0.processors"),
        ({"site": "a", "from": 0}, "outages.0.to"),
    ],
)
def test_a_wrong_outage_is_named(outage: dict[str, Any], field: str) -> None:
    """With its dotted path."""
    with pytest.raises(Invalid) as caught:
        scenario_of(tree(outages=[outage]), Path())
    assert caught.value.field.startswith(field)


def test_the_command_takes_outages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`twin run` with a file of outages for one log, under each scheduler; with those of a scenario; what is wrong is said."""
    log, away = tmp_path / "log.swf", tmp_path / "away.csv"
    rows = [(1, 0, 100, 2, 100), (2, 10, 100, 2, 100)]
    log.write_text(
        "".join(f"{n} {at} -1 {run} {w} -1 -1 {w} {ask} -1 1 1 -1 -1 -1 -1 -1 -1\n" for n, at, run, w, ask in rows)
    )
    away.write_text("begin_seconds,finish_seconds,processors,drain\n50,300,2,0\n")
    words = ["twin", "run", "--swf", str(log), "--processors", "4", "--outages", str(away)]
    for policy in ("fcfs", "easy", "easy-sjbf", "conservative", "selective"):
        assert call([*words, "--policy", policy, "--json"]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert (answer["mean_wait_s"], answer["lost_attempts"], answer["outages"]) == (45.0, 1, 1)
        assert answer["lost_processor_hours"] == pytest.approx(80 / 3600)
    assert call(words) == 0
    assert "1 attempts were lost to 1 outages" in capsys.readouterr().err
    for text, cause in (
        ("begin_seconds,processors\n1,2\n", "no finish_seconds"),
        ("begin_seconds,finish_seconds,processors\n1,2,x\n", "line 2"),
        ("begin_seconds,finish_seconds,processors\n5,5,1\n", "line 2"),
    ):
        away.write_text(text)
        assert call(words) == 65
        assert cause in capsys.readouterr().err
    file = tmp_path / "s.yaml"
    file.write_text(yaml.safe_dump(tree()))
    assert call(["twin", "run", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["lost_attempts"] > 0
    assert call(["twin", "run", str(file), "--outages", str(away)]) == 64
