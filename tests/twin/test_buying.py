"""What to buy next: prices by hand, and scenarios whose answer is known by construction."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from isthmus.cli.main import call
from isthmus.domain.errors import Invalid
from isthmus.twin.federation import Federation, Workload
from isthmus.twin.scenario.buying import what_to_buy
from isthmus.twin.scenario.fluid import prices_of
from isthmus.twin.scenario.load import scenario_of
from isthmus.twin.scenario.model import Scenario
from isthmus.twin.schedulers.outages import Outage

HOUR = 3600


def jobs(*rows: tuple[int, int, int, int, int]) -> Workload:
    """Jobs of (submit, run, processors, home, input bytes)."""
    submit, run, width, home, size = np.array(rows, dtype=np.int64).T.copy()
    return Workload(
        submit_seconds=submit, run_seconds=run, processors=width, requested_seconds=run, home=home, input_bytes=size
    )


def test_prices_by_hand() -> None:
    """Two jobs of an hour at one processor: one waits an hour, so half an hour in the mean; a second processor saves it all."""
    work = jobs((0, HOUR, 1, 0, 0), (0, HOUR, 1, 0, 0))
    found = prices_of(work, Federation(processors=np.array([1])), moves=False, until_seconds=2 * HOUR)
    assert found.mean_wait_s == pytest.approx(1800.0, rel=1e-4)
    assert found.sites.tolist() == pytest.approx([1800.0], rel=1e-4)
    # The second at an empty neighbour, over no network: nobody waits, and nothing is worth money.
    free = Federation(processors=np.array([1, 1]))
    found = prices_of(work, free, moves=True, until_seconds=2 * HOUR)
    assert found.mean_wait_s == pytest.approx(0.0)
    # Who may not move waits, and the neighbour's processors are worth nothing.
    found = prices_of(work, free, moves=False, until_seconds=2 * HOUR)
    assert found.sites.tolist() == pytest.approx([1800.0, 0.0], rel=1e-4)


def test_who_is_away_serves_nobody() -> None:
    """One job of an hour at one processor that is away for that hour: it waits an hour, which a second processor would save."""
    away = ((0, Outage(begin_seconds=0, finish_seconds=HOUR, processors=1)),)
    found = prices_of(
        jobs((0, HOUR, 1, 0, 0)),
        Federation(processors=np.array([1]), outages=away),
        moves=False,
        until_seconds=2 * HOUR,
    )
    assert found.mean_wait_s == pytest.approx(HOUR, rel=1e-4)
    assert found.sites.tolist() == pytest.approx([HOUR], rel=1e-4)


def test_the_price_of_a_link_by_hand() -> None:
    """Three jobs of an hour with 90 GB each; a link of 0.1 Gbit/s carries half of one in an hour, and one more Gbit/s is worth
    5 processor hours in each hour of shortage."""
    work = jobs(*[(0, HOUR, 1, 0, 90_000_000_000)] * 3)
    sites = Federation(
        processors=np.array([1, 9]),
        paths=np.array([[[-1], [0]], [[0], [-1]]]),
        latency_seconds=np.zeros((2, 2)),
        capacity_bytes_per_second=np.array([0.1e9 / 8]),
    )
    found = prices_of(work, sites, moves=True, until_seconds=2 * HOUR)
    # 1.5 of 3 are served in the first hour, 1.5 in the second: 1.5 job hours of waiting.
    assert found.mean_wait_s == pytest.approx(1.5 * HOUR / 3, rel=1e-4)
    assert found.sites.tolist() == pytest.approx([HOUR / 3, 0.0], rel=1e-4)
    assert found.links.tolist() == pytest.approx([5 * HOUR / 3], rel=1e-4)


def document(*, processors: list[int], gbit: list[float], prices: bool = False) -> dict[str, Any]:
    """Three sites in a row; one processor a job; a is busy, the jobs of a have 1 GB each, those of c have none."""
    sites: list[dict[str, Any]] = [{"name": n, "processors": p} for n, p in zip("abc", processors, strict=True)]
    links: list[dict[str, Any]] = [
        {"ends": ends, "gbit_per_second": g, "latency_ms": 1.0}
        for ends, g in zip((["a", "b"], ["b", "c"]), gbit, strict=True)
    ]
    if prices:
        sites = [site | {"price_per_processor": 10.0} for site in sites]
        links = [link | {"price_per_gbit": 1000.0} for link in links]
    alike = {"days": 1.0, "most_processors": 1, "mean_run_seconds": 1800.0, "run_spread": 0.5}
    return {
        "name": "three in a row",
        "rational": False,
        "sites": sites,
        "links": links,
        "workload": [
            {"home": "a", "synthetic": {"jobs_per_day": 1200.0, "mean_input_bytes": 1e9, **alike}},
            {"home": "c", "synthetic": {"jobs_per_day": 200.0, **alike}},
        ],
    }


def scenario(**parts: Any) -> Scenario:
    """The scenario of such a document."""
    return scenario_of(document(**parts), Path())


def test_one_starved_pool_is_what_is_bought() -> None:
    """No job may leave its home, and a has a fifth too few processors: no other purchase measures anything at all."""
    alone = replace(scenario(processors=[20, 64, 64], gbit=[0.05, 10.0]), router="isolated")
    found = what_to_buy(alone, check=5)
    assert (found.purchases[0].name, found.best) == ("a", "a")
    first, *others = found.purchases
    assert first.amount == 2
    assert first.measured_s is not None
    assert first.foreseen_s is not None
    assert first.low_s is not None
    assert first.low_s > 0
    assert [one.measured_s for one in others] == [0.0] * 4
    assert [one.price_s for one in others] == pytest.approx([0.0] * 4)
    assert first.foreseen_s == pytest.approx(first.measured_s, rel=0.2)
    assert first.price_s * first.amount >= first.foreseen_s * 0.999, "the price is that of the first processor"


def test_one_starved_link_is_what_is_bought() -> None:
    """a is small, b is empty and large, and the link between them carries half of what should go over: half as much link again
    measures better than half as many processors again anywhere."""
    starved = scenario(processors=[4, 64, 16], gbit=[0.05, 10.0])
    found = what_to_buy(starved, share=0.5, check=5)
    assert (found.purchases[0].name, found.best) == ("a - b", "a - b")
    measured = {one.name: one.measured_s or 0.0 for one in found.purchases}
    assert measured["a - b"] > 1.5 * measured["a"] > 0
    # More of b, which is empty, brings something: the router sends no more than is free there, its data's way included.
    assert all(measured[name] < 0.5 * measured["a"] for name in ("b", "c", "b - c"))
    for one in found.purchases[:2]:
        assert one.measured_s is not None
        assert one.low_s is not None
        assert one.high_s is not None
        assert one.low_s < one.measured_s < one.high_s
        assert one.foreseen_s == pytest.approx(one.measured_s, rel=0.2)


def test_money_decides_where_prices_are_declared() -> None:
    """The same link, but dear: for the same money the processors of a save more, and are what is bought."""
    parts = document(processors=[4, 64, 16], gbit=[0.05, 10.0], prices=True)
    cheap = what_to_buy(scenario_of(parts, Path()), budget=40.0, check=2)
    assert cheap.by_money
    assert cheap.purchases[0].name == "a - b", "40 buy 4 processors, or 0.04 Gbit/s"
    for link in parts["links"]:
        link["price_per_gbit"] = 100_000.0
    dear = what_to_buy(scenario_of(parts, Path()), budget=40.0, check=2)
    assert (dear.purchases[0].name, dear.best) == ("a", "a")
    assert [one.money for one in dear.purchases] == pytest.approx([40.0] * 5)
    del parts["sites"][1]["price_per_processor"]
    assert what_to_buy(scenario_of(parts, Path()), budget=40.0, check=0).no_price == ("b",)
    with pytest.raises(Invalid, match="buys nothing"):
        what_to_buy(scenario(processors=[4, 64, 16], gbit=[0.05, 10.0]), budget=40.0)


def test_the_command_tells_what_to_buy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As JSON and as a table, alone and at the load where the limit breaks; what is wrong is said."""
    file = tmp_path / "s.yaml"
    file.write_text(yaml.safe_dump(document(processors=[20, 64, 64], gbit=[0.05, 10.0]) | {"router": "isolated"}))
    assert call(["twin", "capacity", str(file), "--buy", "20%", "--check", "1", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["buy"]["best"] == "a"
    assert answer["buy"]["purchases"][0]["amount"] == 4
    assert call(["twin", "capacity", str(file), "--p95-wait", "2h", "--buy", "10%", "--check", "1"]) == 0
    told = capsys.readouterr()
    assert "PRICE" in told.out
    assert "Buy processors at a" in told.err
    assert call(["twin", "capacity", str(file)]) == 64
    assert call(["twin", "capacity", str(file), "--buy", "much"]) == 64
    assert call(["twin", "capacity", str(file), "--buy", "10%", "--budget", "5"]) == 64
