"""A scenario as a fluid: what one more processor at a site, or one more Gbit/s of a link, would save in waiting.

A linear program over equal times. Each class of jobs (home, width, with or without data) asks for the processor hours that it
would use if nobody waited; what is not served then waits. As wait x processors x run time of a job is the area of its backlog,
the least backlog, weighted by jobs per processor hour, is the least sum of waits. The duals of the capacities, added up over the
run, are the prices. It knows no gangs, no fragments and no queue order, and data as bytes per processor hour of its class: it
says where the shortage is, and the twin, run again, says what a purchase brings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isthmus.domain.errors import Invalid
from isthmus.twin.federation import Federation, Workload

Figures = NDArray[np.float64]
MOST_PARTS = 200
GB_PER_GBIT_HOUR = 450.0  # 3600 s of 1 Gbit/s
HOUR = 3600.0
ASIDE = (
    1e-5  # capacities are taken so much larger: where one just suffices, the price is then that of more, not of less
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Least mean wait in seconds, and seconds of it that one more processor (by site), one more Gbit/s (by link) would save."""

    mean_wait_s: float
    sites: Figures
    links: Figures


def prices_of(work: Workload, sites: Federation, *, moves: bool, until_seconds: int) -> Prices:
    """The prices of a workload at sites; `moves`: whether jobs may leave home; `until_seconds`: when all had ended in the twin.

    Parts of an hour, or longer where the time has more than 200 of them. HiGHS by SciPy.
    """
    from scipy.optimize import linprog
    from scipy.sparse import coo_array

    begun = int(work.submit_seconds.min())
    span = max(until_seconds - begun, 1) / HOUR
    length = max(1.0, span / MOST_PARTS)  # hours
    parts = int(np.ceil(span / length)) + 1
    edges = np.asarray(begun + np.arange(parts + 1) * length * HOUR, dtype=np.float64)
    sizes = sites.processors
    gbit = np.zeros(0)
    if sites.capacity_bytes_per_second is not None:
        gbit = sites.capacity_bytes_per_second * 8 / 1e9
    steps = np.unique(sizes)
    band = np.searchsorted(steps, work.processors)
    key = (work.home * len(steps) + band) * 2 + (work.input_bytes > 0)
    classes, member = np.unique(key, return_inverse=True)
    count = len(classes)
    homes, least = classes // 2 // len(steps), steps[classes // 2 % len(steps)]
    demand = np.stack([_demand(work.take(member == c), edges) for c in range(count)])
    whole = demand.sum(axis=1)
    weight = np.bincount(member, minlength=count) / whole  # jobs per processor hour
    gigabytes = np.bincount(member, weights=work.input_bytes / 1e9, minlength=count) / whole
    of, to = np.nonzero((sizes[None, :] >= least[:, None]) if moves else homes[:, None] == np.arange(len(sizes)))

    part = np.arange(parts)
    ways = len(of)
    served = (np.arange(ways)[:, None] * parts + part).ravel()
    backlog = ways * parts + np.arange(count * parts)
    rows_of = (of[:, None] * parts + part).ravel()
    later = np.flatnonzero(np.tile(part, count) > 0)
    balance = coo_array(
        (
            np.concatenate([np.ones(len(served) + len(backlog)), -np.ones(len(later))]),
            (
                np.concatenate([rows_of, np.arange(count * parts), later]),
                np.concatenate([served, backlog, backlog[later - 1]]),
            ),
        ),
        shape=(count * parts, (ways + count) * parts),
    )
    values, rows, columns = [np.ones(len(served))], [(to[:, None] * parts + part).ravel()], [served]
    if sites.paths is not None:
        for way in np.flatnonzero((homes[of] != to) & (gigabytes[of] > 0)).tolist():
            for link in sites.paths[homes[of[way]], to[way]].tolist():
                if link >= 0:
                    values.append(np.full(parts, gigabytes[of[way]]))
                    rows.append((len(sizes) + link) * parts + part)
                    columns.append(way * parts + part)
    links_hold = np.repeat(gbit * GB_PER_GBIT_HOUR * length, parts)
    limits = np.concatenate([_there(sites, edges).ravel(), links_hold]) * (1 + ASIDE)
    within = coo_array(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))),
        shape=(len(limits), (ways + count) * parts),
    )
    waiting = np.repeat(weight * length, parts).reshape(count, parts)
    waiting[:, -1] *= parts  # what the fluid leaves over is not free
    found = linprog(
        np.concatenate([np.zeros(ways * parts), waiting.ravel()]),
        A_ub=within.tocsr(),
        b_ub=limits,
        A_eq=balance.tocsr(),
        b_eq=demand.ravel(),
        method="highs",
    )
    if found.status != 0:
        raise Invalid("scenario", f"Its prices cannot be found: {found.message}", remedy="Give a shorter workload.")
    saved = -np.asarray(found.ineqlin.marginals).reshape(-1, parts).sum(axis=1) * length * HOUR / len(work)
    saved = np.maximum(saved, 0.0) + 0.0  # no -0
    return Prices(
        mean_wait_s=float(found.fun) * HOUR / len(work),
        sites=saved[: len(sizes)],
        links=saved[len(sizes) :] * GB_PER_GBIT_HOUR,
    )


def _there(sites: Federation, edges: Figures) -> Figures:
    """Site x part: processor hours that are there between the edges (seconds), outages left out."""
    hours: Figures = sites.processors[:, None] * np.diff(edges)[None, :] / HOUR
    for site, outage in sites.outages:
        away = np.diff(np.clip(edges, outage.begin_seconds, outage.finish_seconds)) / HOUR
        hours[site] -= outage.processors * away
    return np.maximum(hours, 0.0)


def _demand(work: Workload, edges: Figures) -> Figures:
    """Processor hours between the edges (seconds) if each job ran from its submission on."""
    at = np.concatenate([work.submit_seconds, work.submit_seconds + work.run_seconds])
    change = np.concatenate([work.processors, -work.processors])
    order = np.argsort(at, kind="stable")
    moments, busy = at[order].astype(np.float64), np.cumsum(change[order])
    area = np.concatenate([[0.0], np.cumsum(busy[:-1] * np.diff(moments))])
    result: Figures = np.diff(np.interp(edges, moments, area)) / HOUR
    return result
