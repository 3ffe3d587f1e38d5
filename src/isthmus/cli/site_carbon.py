"""`isthmus site carbon`: the carbon intensity of a site's grid by the hour."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TextIO

import click

from isthmus.cli import exits, screen
from isthmus.cli.grammar import command
from isthmus.cli.messages import _
from isthmus.cli.session import Session, answers

HOUR = timedelta(hours=1)


def read_series(lines: Iterable[str]) -> tuple[datetime, list[float]]:
    """The first hour and a value for each hour, from `TIME,GRAMS` lines in any order; a heading and empty lines are passed over, a
    gap has the value before it. BadParameter names the line that is none."""
    found: dict[datetime, float] = {}
    for number, line in enumerate(lines, 1):
        fields = [field.strip() for field in line.split(",")]
        if not line.strip() or line.startswith("#"):
            continue
        try:
            at = datetime.fromisoformat(fields[0])
            value = float(fields[1])
        except (ValueError, IndexError):
            if number == 1:
                continue
            raise click.BadParameter(
                _("line {number} is not TIME,GRAMS: {line!r}").format(number=number, line=line.strip()[:60]),
                param_hint="FILE",
            ) from None
        at = at.replace(tzinfo=at.tzinfo or UTC).astimezone(UTC)
        found[at.replace(minute=0, second=0, microsecond=0)] = value
    if not found:
        raise click.BadParameter(_("holds no line TIME,GRAMS."), param_hint="FILE")
    at, values = min(found), list[float]()
    while at <= max(found):
        values.append(found.get(at, values[-1] if values else 0.0))
        at += HOUR
    return min(found), values


@command(
    "carbon",
    examples="""
    isthmus site carbon alpha
    isthmus site carbon alpha intensity.csv
    grid-feed | isthmus site carbon alpha -
    """,
    help=_(
        "Show the carbon intensity of a site's grid, or bring it in: a file of lines TIME,GRAMS (ISO 8601, UTC where no zone is "
        "given; grams of CO2 equivalent for each kWh; hours past or ahead). The day after the last hour is forecast."
    ),
)
@click.argument("name")
@click.argument("file", type=click.File("r", encoding="utf-8"), required=False)
@answers
def carbon(session: Session, name: str, file: TextIO | None) -> int:
    from isthmus.client import administration

    if file is not None:
        first, values = read_series(file)
        found = session.run(administration.bring_carbon(name, first.isoformat(), values))
    else:
        found = session.run(administration.site_carbon(name))
    if session.as_json:
        screen.put_json(found)
        return exits.OK
    first = datetime.fromisoformat(found["first_at"])
    known, ahead = found["grams_per_kwh"], found["forecast"]
    now = int((datetime.now(UTC) - first) / HOUR)
    values = [*known, *ahead]
    start = max(0, min(now, len(values) - 24))
    rows = [
        [screen.moment(first + HOUR * hour), f"{values[hour]:.0f}", _("forecast") if hour >= len(known) else ""]
        for hour in range(start, min(start + 24, len(values)))
    ]
    screen.table([_("HOUR"), _("G CO2/KWH"), ""], rows, right=(1,))
    if found["error"] is not None:
        screen.say(_("Forecasts of this series were off by {part:.0%} in the mean.").format(part=found["error"]))
    return exits.OK
