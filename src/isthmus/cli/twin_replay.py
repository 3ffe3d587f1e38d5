"""`isthmus twin replay`: what your own tasks of some time would have waited under another scheduler."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isthmus.cli import exits, screen
from isthmus.cli.grammar import command
from isthmus.cli.messages import _
from isthmus.cli.session import Session, answers
from isthmus.cli.twin_run import need_twin

if TYPE_CHECKING:
    from isthmus.client.records import UsageRecord
    from isthmus.client.sync import Client
    from isthmus.twin.readers.history import PastAttempt

YESTERDAY = "yesterday"
RECORDED = "recorded"
_POLICIES = ["easy", "easy-sjbf", "fcfs", "conservative", "selective"]
_SHOWN = 3


@command(
    "replay",
    examples="isthmus twin replay --since yesterday --policy easy-sjbf\n"
    "isthmus twin replay --since 7d --site alpha --policy easy-sjbf --against easy\n"
    "isthmus twin replay --since 2026-11-01 --until 2026-11-08 --policy conservative --swf-out logs",
    help=_(
        "Replay the tasks that Isthmus itself remembers, at each pool where they ran, under another scheduler: mean waits "
        "then and now, and a 95 % interval of the difference, paired task by task. Other people's jobs at a site are not "
        "remembered, and so not replayed: --against a scheduler compares like with like, in the twin."
    ),
)
@click.option("--since", default=YESTERDAY, show_default=True, metavar="TIME", help=_("Handed to the site after: yesterday (the whole day), 7d, 2026-11-01."))  # fmt: skip
@click.option("--until", default="", metavar="TIME", help=_("And before this (now; for yesterday: today's midnight)."))
@click.option("--policy", type=click.Choice(_POLICIES), required=True, help=_("The scheduler to try."))
@click.option("--estimate", type=click.Choice(["requested", "actual"]), default="requested", show_default=True, help=_("What the scheduler believes of run times."))  # fmt: skip
@click.option("--against", type=click.Choice([RECORDED, *_POLICIES]), default=RECORDED, show_default=True, help=_("What it is compared with: the waits that were, or another scheduler."))  # fmt: skip
@click.option("--site", default="", help=_("Only at this site."))
@click.option("--swf-out", metavar="DIR", type=click.Path(file_okay=False, path_type=Path), help=_("Write what was remembered as SITE.POOL.swf, with the recorded waits."))  # fmt: skip
@click.option("--seed", default=1, show_default=True, help=_("Of the interval's bootstrap."))
@answers
def replay(
    session: Session,
    since: str,
    until: str,
    policy: Any,
    estimate: Any,
    against: Any,
    site: str,
    swf_out: Path | None,
    seed: int,
) -> int:
    need_twin()
    begin, end = window(since, until, datetime.now().astimezone())
    found = _past(session.client, session.project_given, site, begin, end)
    if not found:
        if session.as_json:
            screen.put_json([])
        else:
            screen.say(_("No task was handed to a site in this time."))
        return exits.OK
    sizes = _processors(session.client)
    answer = []
    for (where, pool), attempts in sorted(found.items()):
        row = _replayed(where, pool, attempts, sizes.get((where, pool), 0), policy, estimate, against, swf_out, seed)
        answer.append({"site": where, "pool": pool, **row})
    if session.as_json:
        screen.put_json(answer)
        return exits.OK
    headers = [_("SITE"), _("POOL"), _("PROCESSORS"), _("JOBS"), _("LEFT OUT"), _("WAIT ({name})").format(name=against), _("WAIT ({name})").format(name=policy), _("DIFFERENCE"), _("95 % INTERVAL")]  # fmt: skip
    screen.table(headers, [_cells(row) for row in answer], right=(2, 3, 4, 5, 6, 7, 8))
    for row in answer:
        for cause, keys in row["left_out"].items():
            ids = ", ".join(keys[:_SHOWN]) + (", ..." if len(keys) > _SHOWN else "")
            where = f"{row['site']}/{row['pool']}"
            screen.say(_("{where}: {count} left out: {cause} ({ids})").format(where=where, count=len(keys), cause=cause, ids=ids))  # fmt: skip
    return exits.OK


def window(since: str, until: str, now: datetime) -> tuple[datetime, datetime]:
    """Begin and end in time; `now` has a zone, which decides when yesterday was."""
    if since != YESTERDAY:
        begin = datetime.fromisoformat(screen.since(since)) if since else datetime.fromtimestamp(0, UTC)
        return begin, datetime.fromisoformat(screen.since(until)) if until else now
    midnight = datetime.combine(now.date(), time(), now.tzinfo)
    day_before = datetime.combine(now.date() - timedelta(days=1), time(), now.tzinfo)
    return day_before, datetime.fromisoformat(screen.since(until)) if until else midnight


def _past(
    client: Client, project: str, site: str, begin: datetime, end: datetime
) -> dict[tuple[str, str], list[PastAttempt]]:
    """The attempts with a usage record that were handed to a site in the window, by site and pool."""
    found: dict[tuple[str, str], list[PastAttempt]] = {}
    # A record is made after its attempt was handed in, so none of the window is older than `begin`.
    for record in client.usage(project=project, site=site, since=begin.isoformat()):
        past = _of_record(record)
        if past.submitted is None or begin.timestamp() <= past.submitted < end.timestamp():
            found.setdefault((record.site, record.pool), []).append(past)
    return found


def _of_record(record: UsageRecord) -> PastAttempt:
    from isthmus.twin.readers.history import PastAttempt

    started = record.started_at or record.observed_start_at
    return PastAttempt(
        key=record.attempt,
        user=record.user,
        submitted=record.submitted_at.timestamp() if record.submitted_at else None,
        started=started.timestamp() if started else None,
        elapsed_seconds=record.elapsed_seconds,
        processors=record.cpus,
        requested_seconds=record.requested_seconds or 0,
        succeeded=record.state == "succeeded",
    )


def _processors(client: Client) -> dict[tuple[str, str], int]:
    """Processors of each pool as its site told last."""
    return {
        (site.name, pool["name"]): int(pool.get("nodes", 1)) * int(pool.get("cpus_per_node", 1))
        for site in client.sites()
        for pool in site.pools
    }


def _replayed(
    site: str,
    pool: str,
    attempts: list[PastAttempt],
    processors: int,
    policy: Any,
    estimate: Any,
    against: Any,
    swf_out: Path | None,
    seed: int,
) -> dict[str, Any]:
    """The waits of one pool: recorded or under `against`, under `policy`, and their difference."""
    import numpy as np

    from isthmus.domain.errors import Invalid
    from isthmus.twin.paired import paired_interval
    from isthmus.twin.readers.history import history_log
    from isthmus.twin.readers.swf import write_swf
    from isthmus.twin.runnable import runnable
    from isthmus.twin.schedulers import simulate

    whole, jobs, unusable = history_log(attempts, f"{site}/{pool}")
    if swf_out:
        try:
            swf_out.mkdir(parents=True, exist_ok=True)
            (swf_out / f"{site}.{pool}.swf").write_text(write_swf(whole), encoding="utf-8")
        except OSError as error:
            raise Invalid("swf_out", f"{swf_out} cannot be written: {error.strerror}.", remedy="Give another folder.") from error  # fmt: skip
    left: dict[str, list[str]] = {}
    for one in unusable:
        left.setdefault(one.cause, []).append(one.key)
    strict = estimate == "requested" and "conservative" in (policy, against)
    log, more = runnable(whole, processors, needs_request=True, within_request=strict)
    for cause in more:
        left[cause.cause] = [jobs[number - 1].key for number in cause.job_ids]
    row: dict[str, Any] = {"processors": processors, "jobs": len(log), "policy": policy, "against": against, "left_out": left}  # fmt: skip
    if not len(log):
        return row | dict.fromkeys(("wait_before_s", "wait_after_s", "difference_s", "low_s", "high_s"))
    before = log.wait_seconds if against == RECORDED else simulate(log, processors, against, estimate)
    after = simulate(log, processors, policy, estimate)
    difference = (after - before).astype(np.float64)
    low, high = paired_interval(difference, seed)
    figures = {"wait_before_s": before.mean(), "wait_after_s": after.mean(), "difference_s": difference.mean()}
    return row | {name: round(float(value), 3) for name, value in (figures | {"low_s": low, "high_s": high}).items()}


def _cells(row: dict[str, Any]) -> list[str]:
    cells = [row["site"], row["pool"], str(row["processors"]), str(row["jobs"])]
    cells.append(str(sum(len(keys) for keys in row["left_out"].values())))
    if row["jobs"] == 0:
        return [*cells, "", "", "", ""]
    return [
        *cells,
        f"{row['wait_before_s']:.1f} s",
        f"{row['wait_after_s']:.1f} s",
        f"{row['difference_s']:+.1f} s",
        f"{row['low_s']:+.1f} to {row['high_s']:+.1f} s",
    ]
