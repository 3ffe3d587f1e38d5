"""What to buy next: every site's processors and every link by its price, and the twin run again with each of the first few."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from isthmus.domain.errors import Invalid
from isthmus.twin.paired import paired_interval
from isthmus.twin.scenario.fluid import Prices, prices_of
from isthmus.twin.scenario.model import Link, Scenario
from isthmus.twin.scenario.run import Result, federation_of, run_scenario, workload_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Purchase:
    """One purchase: `amount` in `unit` for `money` (None: no price is declared); figures in seconds of mean wait saved.

    `price_s`: by one more unit, at the margin; `foreseen_s`: by all of it, in the fluid; `measured_s`: in the twin, with the
    ends of its 95 % interval (see `paired_interval`). The last four are None where it was not tried.
    """

    what: Literal["site", "link"]
    name: str
    unit: str
    amount: float
    money: float | None
    price_s: float
    foreseen_s: float | None = None
    measured_s: float | None = None
    low_s: float | None = None
    high_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Buying:
    """Purchases, the best by price first. `by_money`: values were divided by money. `best`: the name of the one that
    measured best of those tried, None where none of them helped. `no_price`: left out of a budget, as they declare no price
    or cost more. Mean waits before any purchase: of the fluid, and of the twin."""

    purchases: tuple[Purchase, ...]
    by_money: bool
    best: str | None
    no_price: tuple[str, ...]
    fluid_wait_s: float
    mean_wait_s: float


def what_to_buy(
    scenario: Scenario, *, share: float = 0.1, budget: float | None = None, check: int = 3, seed: int = 0
) -> Buying:
    """Rank the purchase of `share` more at each site and link, or of what `budget` buys there; try the first `check`.

    Ranked by value for money where all declare prices, else by value; equals by how pressed they were. The jobs are the same in every run.
    """
    base = replace(scenario, traced=workload_of(scenario), synthetic=(), arrivals=1.0)
    before = run_scenario(base)
    until = int((before.outcome.start_seconds + before.work.run_seconds).max())
    now = _prices(base, before, until)
    offers, no_price = _offers(base, now, share, budget)
    if not offers:
        raise Invalid("budget", "It buys nothing anywhere.", remedy="Give more, or declare prices in the scenario.")
    by_money = all(offer.money for offer, _ in offers)
    pressure = _pressure(before)

    def order(one: tuple[Purchase, Scenario]) -> tuple[float, float]:
        return -_worth(one[0], one[0].price_s * one[0].amount, by_money), -pressure[one[0].name]

    ranked = sorted(offers, key=order)
    tried: list[Purchase] = []
    for offer, bought in ranked[:check]:
        saved = (before.waits - run_scenario(bought).waits).astype(np.float64)
        low, high = paired_interval(saved, seed)
        tried.append(
            replace(
                offer,
                foreseen_s=now.mean_wait_s - _prices(bought, before, until).mean_wait_s,
                measured_s=float(saved.mean()),
                low_s=low,
                high_s=high,
            )
        )
    best = max(tried, key=lambda one: _worth(one, one.measured_s or 0.0, by_money), default=None)
    return Buying(
        purchases=(*tried, *(offer for offer, _ in ranked[check:])),
        by_money=by_money,
        best=best.name if best is not None and (best.low_s or 0.0) > 0 else None,
        no_price=no_price,
        fluid_wait_s=now.mean_wait_s,
        mean_wait_s=before.summary.mean_wait_s,
    )


def _prices(scenario: Scenario, before: Result, until: int) -> Prices:
    return prices_of(
        before.work, federation_of(scenario), moves=scenario.router != "isolated" or scenario.brain == "production", until_seconds=until
    )  # fmt: skip


def _pressure(before: Result) -> dict[str, float]:
    """How pressed each was in the run: processors asked for by those waiting, and bytes carried, of what it has. Ranks equals."""
    scenario, work = before.scenario, before.work
    begun = int(work.submit_seconds.min())
    seconds = max(int((before.outcome.start_seconds + work.run_seconds).max()) - begun, 1)
    asked = np.bincount(work.home, weights=before.waits * work.processors, minlength=len(scenario.sites)) / seconds
    found = {site.name: float(asked[number]) / site.processors for number, site in enumerate(scenario.sites)}
    for number, link in enumerate(scenario.links):
        found[_name(link)] = float(before.outcome.carried_bytes[number]) / seconds / link.bytes_per_second
    return found


def _name(link: Link) -> str:
    return " - ".join(link.ends)


def _worth(offer: Purchase, value: float, by_money: bool) -> float:
    return value / offer.money if by_money and offer.money else value


def _offers(
    scenario: Scenario, prices: Prices, share: float, budget: float | None
) -> tuple[list[tuple[Purchase, Scenario]], tuple[str, ...]]:
    """Each purchase with the scenario after it, and the names of what the budget cannot buy."""
    offers: list[tuple[Purchase, Scenario]] = []
    no_price: list[str] = []
    for number, site in enumerate(scenario.sites):
        unit_price = site.price_per_processor
        more = max(1, round(share * site.processors))
        if budget is not None:
            more = int(budget // unit_price) if unit_price else 0
        if more < 1:
            no_price.append(site.name)
            continue
        grown = replace(site, processors=site.processors + more)
        offers.append(
            (
                Purchase(
                    what="site",
                    name=site.name,
                    unit="processors",
                    amount=float(more),
                    money=unit_price * more if unit_price else None,
                    price_s=float(prices.sites[number]),
                ),
                replace(scenario, sites=(*scenario.sites[:number], grown, *scenario.sites[number + 1 :])),
            )
        )
    for number, link in enumerate(scenario.links):
        unit_price = link.price_per_gbit
        gbit = share * link.bytes_per_second * 8 / 1e9
        if budget is not None:
            gbit = budget / unit_price if unit_price else 0.0
        name = _name(link)
        if gbit <= 0:
            no_price.append(name)
            continue
        wider = replace(link, bytes_per_second=link.bytes_per_second + gbit * 1e9 / 8)
        offers.append(
            (
                Purchase(
                    what="link",
                    name=name,
                    unit="Gbit/s",
                    amount=gbit,
                    money=unit_price * gbit if unit_price else None,
                    price_s=float(prices.links[number]),
                ),
                replace(scenario, links=(*scenario.links[:number], wider, *scenario.links[number + 1 :])),
            )
        )
    return offers, tuple(no_price)
