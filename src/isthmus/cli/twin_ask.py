"""`isthmus twin compare`, `sweep`, `capacity`, `circles`: what-if questions about scenarios."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isthmus.cli import exits, screen
from isthmus.cli.grammar import command
from isthmus.cli.messages import _
from isthmus.cli.twin_run import need_twin, working

if TYPE_CHECKING:
    from isthmus.twin.scenario.buying import Buying

_JSON = click.option("--json", "as_json", is_flag=True, help=_("Answer JSON, for programs."))
_PARQUET = click.option("--parquet-out", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help=_("Write the rows as Parquet."))  # fmt: skip


@command(
    "compare",
    examples="isthmus twin compare today.yaml tomorrow.yaml",
    help=_(
        "Two scenarios with the same jobs: B minus A per job, paired, with 95 % intervals from a bootstrap over days."
    ),
)
@click.argument("a", metavar="A.yaml")
@click.argument("b", metavar="B.yaml")
@click.option("--seed", default=0, show_default=True, help=_("Of the bootstrap."))
@_JSON
def compare(a: str, b: str, seed: int, as_json: bool) -> int:
    need_twin()
    from isthmus.twin.scenario import questions
    from isthmus.twin.scenario.load import load_scenario
    from isthmus.twin.scenario.run import run_scenario

    with working(not as_json, _("running A")) as tell:
        first = run_scenario(load_scenario(a))
        tell(_("running B"))
        found = questions.compare(first, run_scenario(load_scenario(b)), seed=seed)
    if as_json:
        screen.put_json(found)
        return exits.OK
    headers = [_("FIGURE, PER JOB"), "A", "B", "B - A", _("FROM (95 %)"), _("TO")]
    screen.table(
        headers,
        [[one.figure, *(f"{x:,.4g}" for x in (one.a, one.b, one.difference, one.low, one.high))] for one in found],
        right=(1, 2, 3, 4, 5),
    )
    return exits.OK


@command(
    "sweep",
    examples="isthmus twin sweep scenario.yaml --arrivals 1 --arrivals 1.2 --router isolated --router holes --seeds 5\n"
    "isthmus twin sweep scenario.yaml --seeds 1000 --ray 10.0.0.1:6379",
    help=_("Every combination of loads, routers and seeds, on all cores, or on a Ray cluster."),
)
@click.argument("scenario", metavar="SCENARIO.yaml")
@click.option("--arrivals", multiple=True, type=click.FloatRange(min=0, min_open=True), help=_("A factor of load; repeat it."))  # fmt: skip
@click.option("--router", multiple=True, type=click.Choice(["isolated", "shortest-backlog", "holes"]), help=_("A router; repeat it."))  # fmt: skip
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True, help=_("So many seeds, from the scenario's."))  # fmt: skip
@click.option("--processes", type=click.IntRange(min=1), default=None, help=_("Else as many as there are cores."))
@click.option("--ray", metavar="ADDRESS", help=_("Run on this Ray cluster (10.0.0.1:6379), or on one that is started here for it (local)."))  # fmt: skip
@_PARQUET
@_JSON
def sweep(
    scenario: str,
    arrivals: tuple[float, ...],
    router: tuple[Any, ...],
    seeds: int,
    processes: int | None,
    ray: str | None,
    parquet_out: Path | None,
    as_json: bool,
) -> int:
    need_twin()
    import os

    from isthmus.twin import writers
    from isthmus.twin.scenario import questions
    from isthmus.twin.scenario.load import load_scenario
    from isthmus.twin.summary import shown as figure

    base = load_scenario(scenario)
    with working(not as_json, _("running")) as tell:
        rows = questions.sweep(
            base,
            arrivals=arrivals or (base.arrivals,),
            routers=router or (base.router,),
            seeds=range(base.seed, base.seed + seeds),
            processes=processes or len(os.sched_getaffinity(0)),
            ray=ray,
            on_row=lambda done, runs: tell(_("{done} of {runs} runs").format(done=done, runs=runs)),
        )
    if parquet_out:
        writers.write_parquet(parquet_out, {name: [row[name] for row in rows] for name in rows[0]})
    if as_json:
        screen.put_json(rows)
        return exits.OK
    columns = {
        "router": _("ROUTER"),
        "arrivals": _("LOAD"),
        "seed": _("SEED"),
        "mean_wait_s": _("WAIT (S)"),
        "p95_wait_s": _("P95 (S)"),
        "avebsld": _("AVEBSLD"),
        "utilisation": _("IN USE"),
        "cost": _("COST"),
        "carbon_kg": _("KG CO2"),
    }
    cells = [[value if isinstance(value := row[name], str) else figure(value) for name in columns] for row in rows]
    screen.table(list(columns.values()), cells, right=range(1, len(columns)))
    return exits.OK


@command(
    "capacity",
    examples="isthmus twin capacity scenario.yaml --p95-wait 1h\n"
    "isthmus twin capacity scenario.yaml --p95-wait 1h --buy 10%\n"
    "isthmus twin capacity scenario.yaml --budget 50000 --check 5",
    help=_(
        "How far arrivals can be compressed until the 95th percentile of waits exceeds a limit; and which site or link to "
        "buy next: each by its price in seconds of mean wait, the first few with what they brought when the twin ran again."
    ),
)
@click.argument("scenario", metavar="SCENARIO.yaml")
@click.option("--p95-wait", default="", metavar="TIME", help=_("The limit: 10m, 1h. What to buy is then asked at the load that breaks it."))  # fmt: skip
@click.option("--buy", default="", metavar="SHARE", help=_("Say what to buy next, if each purchase is so much more of what is there: 10%."))  # fmt: skip
@click.option("--budget", type=click.FloatRange(min=0, min_open=True), help=_("The same for a sum of money, at the prices that the scenario declares."))  # fmt: skip
@click.option("--check", type=click.IntRange(min=0), default=3, show_default=True, help=_("Run the twin again with each of the first so many."))  # fmt: skip
@click.option("--seed", default=0, show_default=True, help=_("Of the intervals' bootstrap."))
@_JSON
def capacity(scenario: str, p95_wait: str, buy: str, budget: float | None, check: int, seed: int, as_json: bool) -> int:
    if buy and budget:
        raise click.UsageError(_("Give --buy or --budget, one of the two."))
    if not (p95_wait or buy or budget):
        raise click.UsageError(_("Give --p95-wait, or --buy or --budget."))
    share = _share(buy) if buy else 0.1
    need_twin()
    from isthmus.domain.units import parse_duration
    from isthmus.twin.scenario import questions
    from isthmus.twin.scenario.load import load_scenario

    base = load_scenario(scenario)
    found = None
    if p95_wait:
        limit = parse_duration(p95_wait, "p95-wait")
        with working(not as_json, _("running")) as tell:
            found = questions.capacity(
                base,
                p95_wait_seconds=limit,
                on_try=lambda factor, wait: tell(_("x{factor:.3f}: {wait:,.0f} s").format(factor=factor, wait=wait)),
            )
        base = replace(base, arrivals=found.exceeded or found.kept)
    bought = None
    if buy or budget:
        from isthmus.twin.scenario.buying import what_to_buy

        with working(not as_json, _("pricing, and trying the first {check}").format(check=check)):
            bought = what_to_buy(base, share=share, budget=budget, check=check, seed=seed)
    if as_json:
        screen.put_json((asdict(found) if found else {}) | ({"arrivals": base.arrivals, "buy": asdict(bought)} if bought else {}))  # fmt: skip
        return exits.OK
    if found:
        rows = [[f"x{factor:.3f}", f"{wait:,.0f}"] for factor, wait in sorted(found.tried)]
        screen.table([_("ARRIVALS"), _("P95 WAIT (S)")], rows, right=(0, 1))
        above = "" if found.exceeded is None else _(", not at x{factor:.3f}").format(factor=found.exceeded)
        screen.say(_("It keeps the limit at x{factor:.3f}").format(factor=found.kept) + above + ".")
    if bought:
        _tell_purchases(bought)
    return exits.OK


def _share(text: str) -> float:
    number = text.strip().removesuffix("%")
    try:
        share = float(number) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        share = 0.0
    if not 0 < share <= 100:
        raise click.UsageError(_("--buy {text} is no share: write 10%.").format(text=text))
    return share


def _tell_purchases(bought: Buying) -> None:
    headers = [_("BUY"), _("MORE"), _("MONEY"), _("PRICE (S OF WAIT, OF ONE)"), _("FORESEEN (S)"), _("MEASURED (S)"), _("95 % INTERVAL")]  # fmt: skip
    rows = []
    for one in bought.purchases:
        tried = ["", "", ""]
        if one.foreseen_s is not None and one.low_s is not None and one.high_s is not None:
            tried = [f"{one.foreseen_s:,.1f}", f"{one.measured_s:,.1f}", f"{one.low_s:,.1f} to {one.high_s:,.1f}"]
        money = "" if one.money is None else f"{one.money:,.0f}"
        rows.append([one.name, f"{one.amount:,.4g} {one.unit}", money, f"{one.price_s:,.4g}", *tried])
    screen.table(headers, rows, right=(1, 2, 3, 4, 5, 6))
    screen.say(
        _("Seconds of mean wait saved, of {wait:,.1f} s; ranked by {how}.").format(
            wait=bought.mean_wait_s, how=_("value for money") if bought.by_money else _("value")
        )
    )
    if not any(one.price_s for one in bought.purchases):
        screen.say(_("In every hour all had room, so no price tells them apart: they stand by how pressed they were."))
    if bought.no_price:
        screen.say(_("Not for this money, or without a price: {names}.").format(names=", ".join(bought.no_price)))
    best = next((one for one in bought.purchases if one.name == bought.best), None)
    if best is not None:
        what = _("processors at {name}") if best.what == "site" else _("more of the link {name}")
        screen.say(_("Buy {what}: of those tried it brought most.").format(what=what.format(name=best.name)))
    elif any(one.measured_s is not None for one in bought.purchases):
        screen.say(_("None of those tried surely shortens the waits."))


@command(
    "circles",
    examples="isthmus twin circles east-data-west-compute",
    help=_("Latency circles: the sites within a round trip of 1, 5 and 20 ms of each, in fibre alone."),
)
@click.argument("scenario", metavar="SCENARIO.yaml")
@_JSON
def circles(scenario: str, as_json: bool) -> int:
    need_twin()
    from isthmus.twin.scenario.circles import latency_circles
    from isthmus.twin.scenario.load import load_scenario

    found = latency_circles(load_scenario(scenario))
    if as_json:
        screen.put_json(found)
        return exits.OK
    headers = [_("SITE"), _("WITHIN (MS)"), _("KM SOLID"), _("KM HOLLOW"), _("SITES"), _("SITES, IF ALL WERE HOLLOW")]
    rows = [
        [one.site, f"{one.limit_ms:g}", f"{one.solid_km:.0f}", f"{one.hollow_km:.0f}", ", ".join(one.within) or "-", ", ".join(one.within_hollow) or "-"]
        for one in found
    ]  # fmt: skip
    screen.table(headers, rows, right=(1, 2, 3))
    return exits.OK
