"""`isthmus site forecast`: load, price and carbon of a site's pools by the hour ahead."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import click

from isthmus.cli import exits, screen
from isthmus.cli.grammar import command
from isthmus.cli.messages import _
from isthmus.cli.session import Session, answers

MOST_HOURS = 48


@command(
    "forecast",
    examples="isthmus site forecast alpha\nisthmus site forecast alpha --pool cpu --hours 48",
    help=_(
        "Show what is expected of a site's pools by the hour: load (the part of its processors that cannot be had: middle, and what it "
        "is between eight times out of ten), price of a processor hour, carbon of the grid. It tells where each comes from."
    ),
)
@click.argument("name")
@click.option("--pool", default="", metavar="POOL", help=_("Only this pool."))
@click.option("--hours", type=click.IntRange(1, MOST_HOURS), default=24, show_default=True, help=_("So many."))
@answers
def forecast(session: Session, name: str, pool: str, hours: int) -> int:
    from isthmus.client import administration

    found = session.run(administration.site_ahead(name, hours=hours))
    pools = [one for one in found["pools"] if not pool or one["pool"] == pool]
    if pool and not pools:
        known = ", ".join(one["pool"] for one in found["pools"])
        raise click.BadParameter(_("{pool} is none of {known}.").format(pool=pool, known=known), param_hint="--pool")
    if session.as_json:
        screen.put_json({**found, "pools": pools})
        return exits.OK
    first = datetime.fromisoformat(found["first_at"])
    for number, one in enumerate(pools):
        if number:
            screen.put("")
        screen.put(screen.clean(f"{name}/{one['pool']}"))
        show_pool(one, first, hours)
    if not pools:
        screen.say(_("The site has shown no pool yet."))
    return exits.OK


def show_pool(one: dict[str, Any], first: datetime, hours: int) -> None:
    """The hours of one pool in a table, and below it where the figures come from."""
    load, price, carbon = one["load"], one["price"], one["carbon"]
    rows = []
    for hour in range(hours):
        row = [screen.moment(first + timedelta(hours=hour))]
        row += [_part(load, hour, "p50"), _between(load, hour)]
        row += ["" if price is None else f"{price['hours'][hour]['p50']:.4f}"]
        row += ["" if carbon is None else f"{carbon['hours'][hour]['p50']:.0f}"]
        rows.append(row)
    screen.table([_("HOUR"), _("LOAD"), _("P10-P90"), _("PRICE"), _("G CO2/KWH")], rows, right=(1, 2, 3, 4))
    for label, series in ((_("Load"), load), (_("Price"), price), (_("Carbon"), carbon)):
        if series is None:
            screen.put(_("{figure}: nothing is known.").format(figure=label))
        else:
            screen.put(screen.clean(_source(label, series, share=series is load)))


def _part(series: dict[str, Any] | None, hour: int, name: str) -> str:
    return "" if series is None else f"{series['hours'][hour][name]:.0%}"


def _between(series: dict[str, Any] | None, hour: int) -> str:
    if series is None or series["hours"][hour]["p10"] == series["hours"][hour]["p90"]:
        return ""
    return f"{series['hours'][hour]['p10']:.0%}-{series['hours'][hour]['p90']:.0%}"


def _source(label: str, series: dict[str, Any], *, share: bool) -> str:
    """Where the figures come from, and how far off such forecasts were."""
    sources = ", ".join(dict.fromkeys(one["source"] for one in series["hours"]))
    line = f"{label}: {sources}"
    errors = [
        _("{off} at {hours} h").format(off=f"{off:.0%}" if share else f"{off:.3g}", hours=ahead)
        for ahead, off in series["errors"].items()
    ]
    return line + (_("; off in the mean by {list}").format(list=", ".join(errors)) if errors else "")
