"""Scenarios: what is wrong is named, what is right gives the same answer again, and the accounts add up."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet

from isthmus.cli.main import call
from isthmus.domain.errors import Invalid, NotFound
from isthmus.twin.readers import read_swf
from isthmus.twin.report.page import make_page
from isthmus.twin.scenario.account import account, hours_of
from isthmus.twin.scenario.circles import great_circle_km, latency_circles
from isthmus.twin.scenario.load import load_scenario, packaged_names, scenario_of, shapes_of
from isthmus.twin.scenario.model import Scenario, Site, Synthetic
from isthmus.twin.scenario.questions import capacity, compare, sweep
from isthmus.twin.scenario.routes import least_latency_paths
from isthmus.twin.scenario.run import run_scenario, stream_scenario
from isthmus.twin.scenario.synthetic import make_workload
from isthmus.twin.writers import parquet_rows

TREE: dict[str, Any] = {
    "name": "three sites",
    "sites": [
        {"name": "a", "processors": 32, "pue": 1.5, "watts_per_processor": 10.0, "tariff": [0.1] * 12 + [0.3] * 12, "intensity": 500.0, "latitude": 40.0, "longitude": 110.0},
        {"name": "b", "processors": 64, "watts_per_processor": 10.0, "tariff": {"value": 0.2, "source": "assumed"}, "intensity": 100.0},
        {"name": "c", "processors": 32, "policy": "easy-sjbf"},
    ],
    "links": [
        {"ends": ["a", "b"], "gbit_per_second": 1.0, "km": 1000.0},
        {"ends": ["b", "c"], "gbit_per_second": 10.0, "km": 100.0, "fibre": "hollow"},
        {"ends": ["a", "c"], "gbit_per_second": 10.0, "latency_ms": 9.0},
    ],
    "workload": [
        {"home": "a", "synthetic": {"jobs_per_day": 300.0, "days": 3.0, "most_processors": 16, "mean_input_bytes": 1e9}},
        {"home": "c", "synthetic": {"jobs_per_day": 100.0, "days": 3.0, "most_processors": 16}},
    ],
}  # fmt: skip


def small() -> Scenario:
    """The scenario above."""
    return scenario_of(TREE, Path())


def changed(path: str, value: Any) -> Any:
    """The document above with one entry set, or taken away with `...`."""
    tree = json.loads(json.dumps(TREE))
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    node = tree
    for part in parents:
        node = node[part]
    if value is ...:
        del node[last]
    else:
        node[last] = value
    return tree


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("sites.0.processors", 0, "sites.0.processors"),
        ("sites.0.processors", ..., "sites.0.processors"),
        ("sites.1.name", "a", "sites.1.name"),
        ("sites.1.pue", 0.9, "sites.1.pue"),
        ("sites.1.tariff", [0.1] * 23, "sites.1.tariff"),
        ("sites.2.policy", "best", "sites.2.policy"),
        ("sites.2.colour", "red", "sites.2.colour"),
        ("links.0.ends", ["a", "z"], "links.0.ends"),
        ("links.0.km", ..., "links.0"),
        ("links.2.latency_ms", -1.0, "links.2.latency_ms"),
        ("workload.0.home", "z", "workload.0.home"),
        ("workload.1.synthetic", ..., "workload.1"),
        ("workload", [], "workload"),
        ("links", [], "links"),
        ("arrivals", float("inf"), "arrivals"),
    ],
)
def test_what_is_wrong_is_named(path: str, value: Any, field: str) -> None:
    """The dotted path of the wrong entry is in the error."""
    with pytest.raises(Invalid) as caught:
        scenario_of(changed(path, value), Path())
    assert caught.value.field.startswith(field)


def test_a_network_in_pieces_and_a_doubled_link_are_refused() -> None:
    """Every site must be within reach, and a pair has one link."""
    with pytest.raises(Invalid, match="no path from a to b"):
        run_scenario(scenario_of(changed("links", TREE["links"][2:]), Path()))
    with pytest.raises(Invalid, match="two links"):
        run_scenario(scenario_of(changed("links.2.ends", ["b", "a"]), Path()))
    with pytest.raises(NotFound, match="east-data-west-compute"):
        load_scenario("nowhere")


def test_paths_are_those_of_least_latency() -> None:
    """1,000 km of solid fibre and 100 km of hollow core beat a direct link of 9 ms."""
    scenario = small()
    paths, latency = least_latency_paths(scenario.sites, scenario.links)
    assert paths[0, 2].tolist() == [0, 1]
    assert paths[2, 0].tolist() == [1, 0]
    assert latency[0, 2] == pytest.approx(1000 * 4.9e-6 + 100 * 3.46e-6)


def test_the_same_seed_gives_the_same_run_and_homes_do_not_disturb_each_other() -> None:
    """To the bit; another seed, and a home left out, change what they should."""
    first, again = run_scenario(small()), run_scenario(small())
    assert first.figures() == again.figures()
    assert np.array_equal(first.outcome.start_seconds, again.outcome.start_seconds)
    assert run_scenario(replace(small(), seed=1)).figures() != first.figures()
    alone = run_scenario(replace(small(), synthetic=small().synthetic[:1]))
    assert np.array_equal(alone.work.run_seconds, first.work.run_seconds[first.work.home == 0])


def test_hours_add_up() -> None:
    """The integral of an hourly series is exact within, at and beyond its end."""
    series = np.array([1.0] * 12 + [3.0] * 12)
    times = np.array([0, 1800, 12 * 3600, 13 * 3600, 24 * 3600, 49 * 3600])
    assert hours_of(series, times).tolist() == [0.0, 0.5, 12.0, 15.0, 48.0, 97.0]


def test_accounts_of_a_job_by_hand() -> None:
    """Two hours over noon, 4 processors of 250 W at PUE 1.5: 3 kWh, half of it at each tariff."""
    site = Site(name="a", processors=4, pue=1.5, watts_per_processor=250.0, tariff=np.array([0.1] * 12 + [0.3] * 12), intensity=np.full(24, 500.0))  # fmt: skip
    one = np.array([0]), np.array([11 * 3600]), np.array([7200]), np.array([4])
    got = account((site,), *one)
    assert got.energy_kwh.tolist() == [3.0]
    assert got.cost.tolist() == pytest.approx([0.6])
    assert got.carbon_kg.tolist() == pytest.approx([1.5])


def test_a_scenario_compared_with_itself_has_no_difference() -> None:
    """And against isolated sites the mean of the differences is the difference of the means, inside its interval."""
    holes = run_scenario(small())
    assert all((one.low, one.difference, one.high) == (0.0, 0.0, 0.0) for one in compare(holes, holes, seed=1))
    isolated = run_scenario(replace(small(), router="isolated"))
    wait = compare(isolated, holes, seed=1)[0]
    assert wait.difference == pytest.approx(holes.waits.mean() - isolated.waits.mean())
    assert wait.low <= wait.difference <= wait.high < 0
    with pytest.raises(Invalid, match="different jobs"):
        compare(holes, run_scenario(replace(small(), seed=2)), seed=1)


def test_a_sweep_on_two_processes_is_that_on_one() -> None:
    """Every combination is there, in order, with the same figures."""
    asked = {"arrivals": (1.0, 1.5), "routers": ("isolated", "holes"), "seeds": (0,)}
    one = sweep(small(), processes=1, **asked)  # type: ignore[arg-type]
    assert [(row["router"], row["arrivals"]) for row in one] == [("isolated", 1.0), ("isolated", 1.5), ("holes", 1.0), ("holes", 1.5)]  # fmt: skip
    assert sweep(small(), processes=2, **asked) == one  # type: ignore[arg-type]


def test_capacity_finds_the_crossing() -> None:
    """At the factor found the limit holds, a little above it does not."""
    found = capacity(small(), p95_wait_seconds=1800.0, precision=0.05)
    assert found.exceeded is not None
    assert run_scenario(replace(small(), arrivals=found.kept)).summary.p95_wait_s <= 1800.0
    assert run_scenario(replace(small(), arrivals=found.exceeded)).summary.p95_wait_s > 1800.0
    assert found.exceeded <= found.kept * 1.06
    assert capacity(small(), p95_wait_seconds=1e9, most=2.0).exceeded is None
    assert capacity(small(), p95_wait_seconds=-1.0).kept == 0.0


def test_the_national_scenario_is_whole() -> None:
    """Eight hubs, ten clusters, every figure with a source, plausible distances, and circles that grow."""
    assert packaged_names() == ["east-data-west-compute"]
    scenario = load_scenario("east-data-west-compute")
    assert len(scenario.sites) == 10
    assert len({site.region for site in scenario.sites}) == 8
    sourced = {source.path for source in scenario.sources}
    for number in range(10):
        for figure in ("latitude", "processors", "pue", "watts_per_processor", "tariff", "intensity"):
            assert f"sites.{number}.{figure}" in sourced
    sites = {site.name: site for site in scenario.sites}
    for link in scenario.links:
        direct = great_circle_km(sites[link.ends[0]], sites[link.ends[1]])
        assert 1.3 * direct < link.km < 1.5 * direct
    circles = latency_circles(scenario)
    assert len(circles) == 30
    for near, middle, far in zip(circles[::3], circles[1::3], circles[2::3], strict=True):
        assert set(near.within) <= set(middle.within) <= set(far.within) <= set(far.within_hollow)
        assert near.solid_km == pytest.approx(500 / 4.9)


def test_sites_of_a_kind() -> None:
    """A kind's figures are those of its sites, unless a site says otherwise; an unknown kind, or one of no figures, is named."""
    tree = changed("sites.2", {"name": "c", "kind": "western", "processors": 40})
    tree["kinds"] = {"western": {"processors": 8, "pue": {"value": 1.2, "source": "assumed"}, "policy": "fcfs"}}
    scenario = scenario_of(tree, Path())
    assert (scenario.sites[2].processors, scenario.sites[2].pue, scenario.sites[2].policy) == (40, 1.2, "fcfs")
    assert "kinds.western.pue" in [one.path for one in scenario.sources]
    with pytest.raises(Invalid, match="no kind southern"):
        scenario_of(tree | {"sites": [{"name": "c", "kind": "southern"}]}, Path())
    with pytest.raises(Invalid, match="kinds"):
        scenario_of(tree | {"kinds": {"western": 3}}, Path())


def test_circles_of_mixed_fibre() -> None:
    """2,500 km of solid fibre are 24.5 ms there and back, beyond the circle; of hollow core 17.3 ms, within it."""
    tree = changed("links", [{"ends": ["a", "b"], "gbit_per_second": 1.0, "km": 2500.0}, TREE["links"][1]])
    far = next(one for one in latency_circles(scenario_of(tree, Path())) if one.site == "a" and one.limit_ms == 20)
    assert (far.within, far.within_hollow) == ((), ("b", "c"))


def test_intensity_from_a_file(traces: Path) -> None:
    """A series of Electricity Maps by its name, relative to the scenario; a file that is not there is named."""
    folder = traces / "carbon"
    scenario = scenario_of(changed("sites.0.intensity", "ES_2022_hourly.csv.gz"), folder)
    assert len(scenario.sites[0].intensity) == 8760
    assert scenario.left_out == ()
    with pytest.raises(NotFound, match=r"gone\.csv"):
        scenario_of(changed("sites.0.intensity", "gone.csv"), folder)
    with pytest.raises(NotFound, match=r"gone\.swf"):
        scenario_of(changed("workload.1", {"home": "c", "swf": "gone.swf"}), folder)


def test_the_page_loads_nothing_from_elsewhere() -> None:
    """Pictures are inside; what a scenario says is text, not markup; the page is the same again."""
    result = run_scenario(replace(small(), name="<script>x</script>", left_out=("a.swf, line 3: <b>",)))
    page = make_page(result)
    assert page.count("<svg") == 4
    assert "<script" not in page
    assert "<b>" not in page
    assert "src=" not in page
    assert "<td>b: tariff</td><td>assumed</td>" in page
    assert page == make_page(result)


def test_the_commands_answer(tmp_path: Path, traces: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """run with a log, Parquet and page; compare, sweep, capacity and circles, as JSON and as tables."""
    import yaml

    tree = changed("workload.1", {"home": "c", "swf": str(traces / "pwa" / "KTH-SP2-1996-2.swf.gz"), "days": 5.0})
    a, b = tmp_path / "a.yaml", tmp_path / "b.yaml"
    a.write_text(yaml.safe_dump(tree))
    b.write_text(yaml.safe_dump(tree | {"router": "isolated"}))
    page, rows = tmp_path / "r.html", tmp_path / "r.parquet"
    assert call(["twin", "run", str(a), "--json", "--html-out", str(page), "--parquet-out", str(rows)]) == 0
    captured = capsys.readouterr()
    answer = json.loads(captured.out)
    assert "more than 32 processors" in captured.err
    assert answer["jobs"] == parquet.read_metadata(rows).num_rows
    assert page.read_text().count("<svg") == 4
    for words in (
        ["compare", str(a), str(b)],
        ["sweep", str(a), "--processes", "1"],
        ["capacity", str(a), "--p95-wait", "2h"],
        ["circles", str(a)],
    ):
        assert call(["twin", *words, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)
        assert call(["twin", *words]) == 0
        assert capsys.readouterr().out
    assert call(["twin", "run", str(a), "--swf", str(a)]) == 64
    assert call(["twin", "run", "nowhere"]) == 66


def test_a_stream_is_the_same_run_and_holds_only_what_is_not_over(tmp_path: Path, traces: Path) -> None:
    """Day by day, denser, with a log among the homes: the same jobs and figures as at once; quantiles to half a per cent."""
    tree = changed("workload.1", {"home": "c", "swf": str(traces / "pwa" / "KTH-SP2-1996-2.swf.gz"), "days": 4.0})
    scenario = replace(scenario_of(tree, Path()), arrivals=1.3)
    whole = run_scenario(scenario)
    waits: list[int] = []
    tally = stream_scenario(scenario, on_ended=lambda one, _: waits.extend(one.start_seconds - one.jobs.submit_seconds))
    assert sorted(waits) == sorted(whole.waits.tolist())
    got, expected = tally.figures(), whole.figures()
    assert list(got) == list(expected)
    p95, exact = got.pop("p95_wait_s"), expected.pop("p95_wait_s")
    assert got == pytest.approx(expected)
    assert sorted(waits)[int(0.95 * len(waits)) - 1] == pytest.approx(p95, rel=0.006)
    assert exact == pytest.approx(p95, rel=0.02)
    days = tally.by_day([site.name for site in scenario.sites])
    assert days["jobs"].sum() == len(waits)
    with parquet_rows(tmp_path / "rows.parquet") as add:
        add({"a": [1, 2]})
        add({"a": [3]})
    assert parquet.read_table(tmp_path / "rows.parquet")["a"].to_pylist() == [1, 2, 3]
    assert [file.name for file in tmp_path.iterdir()] == ["rows.parquet"]


def test_jobs_like_those_of_a_log(traces: Path) -> None:
    """Each job has the size, run time and request of one of the log's; arrivals come by the log's hours of the week."""
    file = traces / "pwa" / "KTH-SP2.sc15-rebuilt.swf.gz"
    shapes = shapes_of(read_swf(file), "KTH")
    part = Synthetic(home="a", jobs_per_day=2000.0, days=14.0, most_processors=100, like=shapes)
    made = make_workload((part,), (Site(name="a", processors=100),), 1)
    known = set(
        zip(shapes.processors.tolist(), shapes.run_seconds.tolist(), shapes.requested_seconds.tolist(), strict=True)
    )
    assert (
        set(zip(made.processors.tolist(), made.run_seconds.tolist(), made.requested_seconds.tolist(), strict=True))
        <= known
    )
    by_hour = np.bincount(made.submit_seconds // 3600 % 168, minlength=168)
    assert np.corrcoef(by_hour, shapes.hourly)[0, 1] > 0.8
    assert len(made) == pytest.approx(28_000, rel=0.03)
