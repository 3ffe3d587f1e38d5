"""The page: figures, by home, pictures, latency circles, and where each figure of the scenario comes from."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from isthmus.twin.report import plots
from isthmus.twin.report.homes import HOME_HEADERS, home_rows
from isthmus.twin.scenario.circles import latency_circles
from isthmus.twin.scenario.model import Scenario
from isthmus.twin.scenario.run import Result
from isthmus.twin.summary import named

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}table{border-collapse:collapse}"
    "td,th{padding:.2rem .7rem;border-bottom:1px solid #ccc;text-align:right}td:first-child,th:first-child{text-align:left}"
    ".words td,.words th{text-align:left}.words td:nth-child(-n+2){white-space:nowrap}svg{max-width:100%;height:auto}"
)


def make_page(result: Result) -> str:
    """One HTML document that loads nothing from elsewhere."""
    name = escape(result.scenario.name)
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{name}</title><style>{_STYLE}</style></head>',
        f"<body><h1>{name}</h1>",
        f"<p>{_brain(result)} Arrivals: x{result.scenario.arrivals:g}. Seed: {result.scenario.seed}.</p>",
        "<h2>Figures</h2>",
        table(["figure", "value"], named(result.figures())),
        "<h2>By home</h2>",
        table(HOME_HEADERS, home_rows(result)),
        *(
            f"<figure>{draw(result)}</figure>"
            for draw in (plots.network_map, plots.utilisation, plots.waits, plots.gantt)
        ),
    ]
    if result.scenario.links:
        rows = [
            [one.site, f"{one.limit_ms:g} ms", f"{one.solid_km:.0f}", f"{one.hollow_km:.0f}", _names(one.within), _names(one.within_hollow)]
            for one in latency_circles(result.scenario)
        ]  # fmt: skip
        parts += [
            "<h2>Latency circles</h2><p>Round-trip time in fibre alone: 4.9 us/km solid, 3.46 us/km hollow core, one way.</p>",
            table(
                ["site", "limit", "km of solid fibre", "km of hollow", "sites within", "with hollow fibre"],
                rows,
                words=True,
            ),
        ]
    if result.scenario.left_out:
        parts += ["<h2>Left out of the logs</h2>", table(["what"], [[line] for line in result.scenario.left_out[:200]])]
    if result.scenario.sources:
        rows = [[_figure(one.path, result.scenario), one.source] for one in result.scenario.sources]
        parts += ["<h2>Where the scenario's figures come from</h2>", table(["figure", "source"], rows, words=True)]
    return "\n".join([*parts, "</body></html>\n"])


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, words: bool = False) -> str:
    """An HTML table, of figures or of `words`; cells are text, not markup."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in headers)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    kind = ' class="words"' if words else ""
    return f"<table{kind}><tr>{head}</tr>{body}</table>"


def _brain(result: Result) -> str:
    scenario = result.scenario
    if scenario.brain == "production":
        return f"The service's brain, goal {scenario.goal.value}, a round in {scenario.round_seconds} s at most."
    return f"Router: {scenario.router}."


def _figure(path: str, scenario: Scenario) -> str:
    """The dotted path of a figure, with names in place of numbers."""
    room, number, *rest = [*path.split("."), ""]
    if not number.isdigit():
        return path
    names = {
        "sites": [site.name for site in scenario.sites],
        "links": [" - ".join(link.ends) for link in scenario.links],
    }.get(room, [])
    name = names[int(number)] if int(number) < len(names) else f"{room} {int(number) + 1}"
    return f"{name}: {'.'.join(rest).rstrip('.')}"


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "-"
