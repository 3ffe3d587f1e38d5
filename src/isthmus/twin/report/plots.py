"""The pictures of one run: Gantt, utilisation, waits, map; each a figure as SVG text, the same for the same run."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from isthmus.twin.scenario.run import Result

GANTT_JOBS = 400
COLUMNS = 400  # of the picture of utilisation
STYLE: Any = {"svg.hashsalt": "isthmus", "svg.fonttype": "path", "font.size": 9}


def gantt(result: Result) -> str:
    """The first jobs by start, a bar each, at their site; guests hatched. Rows are jobs, not processors."""
    order = np.argsort(result.outcome.start_seconds, kind="stable")[:GANTT_JOBS]
    order = order[np.lexsort((result.outcome.start_seconds[order], result.outcome.site[order]))]
    start = result.outcome.start_seconds[order] / 3600
    site = result.outcome.site[order]
    guest = site != result.work.home[order]
    figure, axes = _figure(9, 6)
    for number, place in enumerate(result.scenario.sites):
        rows = np.flatnonzero(site == number)
        for visiting in (False, True):
            mine = rows[guest[rows] == visiting]
            label = f"{place.name}, guests" if visiting else place.name
            if len(mine):
                axes.barh(
                    mine,
                    result.work.run_seconds[order][mine] / 3600,
                    left=start[mine],
                    height=0.9,
                    color=f"C{number % 10}",
                    alpha=0.5 if visiting else 1.0,
                    label=label,
                )
    axes.set(xlabel="hours", ylabel="jobs", title=f"The first {len(order)} jobs to start, by site")
    axes.legend(fontsize=6, loc="center left", bbox_to_anchor=(1, 0.5))
    return _svg(figure)


def utilisation(result: Result) -> str:
    """Processors in use, as a share of each site's: a row a site, a column an hour (or more, so that all fit)."""
    start, run = result.outcome.start_seconds, result.work.run_seconds
    end = start + run
    # Until the last submission: what runs on afterwards says nothing about the load.
    until = max(int(result.work.submit_seconds.max()), 3600)
    seconds = 3600 * max(1, -(-until // (3600 * COLUMNS)))
    edges = np.arange(0, until + seconds, seconds)
    shares = np.zeros((len(result.scenario.sites), len(edges) - 1))
    for number, place in enumerate(result.scenario.sites):
        mine = result.outcome.site == number
        width = result.work.processors[mine]
        # Processor seconds used before each edge.
        before = [
            float((width * (np.minimum(end[mine], edge) - np.minimum(start[mine], edge))).sum()) for edge in edges
        ]
        shares[number] = np.diff(before) / (seconds * place.processors)
    figure, axes = _figure(9, max(2.2, 1 + 0.3 * len(shares)))
    cells = axes.pcolormesh(edges / 86400, np.arange(len(shares) + 1), shares, vmin=0, vmax=1, cmap="viridis")
    axes.set_yticks(np.arange(len(shares)) + 0.5, [place.name for place in result.scenario.sites])
    axes.invert_yaxis()
    axes.set(xlabel="days", title="Utilisation until the last submission")
    figure.colorbar(cells, label="share in use")
    return _svg(figure)


def waits(result: Result) -> str:
    """The share of each home's jobs that waited no longer than so many seconds."""
    figure, axes = _figure(9, 4)
    for number, place in enumerate(result.scenario.sites):
        mine = np.sort(result.waits[result.work.home == number])
        if len(mine):
            some = np.unique(np.linspace(0, len(mine) - 1, 500).astype(np.int64))
            axes.plot(np.maximum(mine[some], 1), (some + 1) / len(mine), label=place.name)
    axes.set(xscale="log", xlabel="wait (s)", ylabel="share of jobs", ylim=(0, 1.02), title="Waits by home")
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return _svg(figure)


def network_map(result: Result) -> str:
    """Sites where they are, as large as they are; links as wide as what they carried."""
    figure, axes = _figure(8, 6)
    places = {place.name: place for place in result.scenario.sites}
    carried = result.outcome.carried_bytes
    most = max(float(carried.max()) if len(carried) else 0.0, 1.0)
    for number, link in enumerate(result.scenario.links):
        a, b = (places[end] for end in link.ends)
        axes.plot(
            [a.longitude, b.longitude],
            [a.latitude, b.latitude],
            color="grey",
            linewidth=0.5 + 4 * carried[number] / most,
        )
    largest = max(place.processors for place in places.values())
    for number, place in enumerate(places.values()):
        axes.scatter(
            place.longitude, place.latitude, s=30 + 170 * place.processors / largest, color=f"C{number % 10}", zorder=3
        )
        axes.annotate(place.name, (place.longitude, place.latitude), xytext=(6, 6), textcoords="offset points")
    axes.set(xlabel="longitude", ylabel="latitude", title="Sites, and what the links carried")
    return _svg(figure)


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    with rc_context(STYLE):
        figure.savefig(text, format="svg", metadata={"Date": None})
    made = text.getvalue()
    return made[made.index("<svg") :]
