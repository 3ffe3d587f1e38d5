"""`isthmus usage`: what was used, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import TYPE_CHECKING

import click

from isthmus.cli import exits, screen
from isthmus.cli.grammar import command
from isthmus.cli.messages import _
from isthmus.cli.session import Session, answers

if TYPE_CHECKING:
    from isthmus.client.records import UsageRecord

_KEYS: dict[str, Callable[[UsageRecord], str]] = {
    "user": lambda record: record.user,
    "project": lambda record: record.project,
    "site": lambda record: record.site,
    "account": lambda record: f"{record.site}:{record.account}",
}


@command(
    "usage",
    examples="isthmus usage\nisthmus usage --since 30d --by site\nisthmus usage --records --json",
    help=_("What was used, by the sites' own accounting, and what it costs."),
)
@click.option("--site", default="", help=_("Only at this site."))
@click.option("--user", default="", help=_("Only of this user."))
@click.option("--since", default="", metavar="TIME", help=_("Only newer than: 30d, 2026-11-01."))
@click.option("--by", type=click.Choice(list(_KEYS)), default="project", help=_("Sum by this."))
@click.option("--records", is_flag=True, help=_("Every record."))
@answers
def usage(session: Session, site: str, user: str, since: str, by: str, records: bool) -> int:
    found = list(session.client.usage(project=session.project_given, site=site, user=user, since=screen.since(since)))
    show(session, found, by=by, records=records)
    return exits.OK


def show(session: Session, found: list[UsageRecord], *, by: str, records: bool) -> None:
    """Usage records as sums, or one by one."""
    if session.as_json and records:
        screen.put_json(found)
        return
    if records:
        headers = [_("ATTEMPT"), _("USER"), _("SITE"), _("ACCOUNT"), _("NATIVE"), _("CPU TIME"), _("ELAPSED"), _("PEAK"), _("CHARGE")]  # fmt: skip
        screen.table(headers, [_record(record) for record in found], right=(5, 6, 7, 8))
        return
    sums: dict[str, list[UsageRecord]] = {}
    for record in found:
        sums.setdefault(_KEYS[by](record), []).append(record)
    rows = [
        {
            by: name,
            "attempts": len(group),
            "cpu_hours": round(sum(one.allocated_cpu_seconds for one in group) / 3600, 3),
            "accelerator_hours": round(sum(one.accelerators * one.elapsed_seconds for one in group) / 3600, 3),
            "charge": sum((one.charge for one in group), Decimal(0)),
            "energy_kwh": _total(one.energy_kwh for one in group),
            "carbon_grams": _total(one.carbon_grams for one in group),
        }
        for name, group in sorted(sums.items())
    ]
    if session.as_json:
        screen.put_json(rows)
    elif not rows:
        screen.say(_("Nothing was used yet."))
    else:
        headers = [_(by.upper()), _("ATTEMPTS"), _("CPU HOURS"), _("ACCELERATOR HOURS"), _("CHARGE")]
        if any(row["energy_kwh"] is not None for row in rows):
            headers += [_("ENERGY (kWh)"), _("CARBON (g)")]
        cells = [["" if cell is None else str(cell) for cell in row.values()] for row in rows]
        screen.table(headers, [row[: len(headers)] for row in cells], right=range(1, len(headers)))


def _total(amounts: Iterable[Decimal | None]) -> Decimal | None:
    """The sum of what is known; None when nothing is."""
    known = [amount for amount in amounts if amount is not None]
    return sum(known, Decimal(0)) if known else None


def _record(record: UsageRecord) -> list[str]:
    from isthmus.domain.units import show_duration, show_size

    return [
        record.attempt,
        record.user,
        f"{record.site}/{record.pool}",
        record.account,
        record.native_id,
        show_duration(record.allocated_cpu_seconds),
        show_duration(record.elapsed_seconds),
        show_size(record.max_rss_bytes),
        str(record.charge),
    ]
