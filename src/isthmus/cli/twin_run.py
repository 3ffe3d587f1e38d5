"""`isthmus twin run`: one log on one site, or a scenario of many."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isthmus.cli import exits, screen
from isthmus.cli.grammar import command
from isthmus.cli.messages import _

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from isthmus.twin.federation import Ended
    from isthmus.twin.readers import SwfLog
    from isthmus.twin.runnable import LeftOut
    from isthmus.twin.scenario.account import Accounts
    from isthmus.twin.scenario.model import Scenario

_FILE = click.Path(dir_okay=False, path_type=Path)
_SHOWN = 5


@command(
    "run",
    examples="isthmus twin run --swf KTH-SP2.swf.gz --processors 100 --policy easy --waits-out waits.csv\n"
    "isthmus twin run --swf log.swf --processors 338 --policy easy-sjbf --estimate actual --json\n"
    "isthmus twin run --swf log.swf --processors 338 --policy conservative --outages outages.csv\n"
    "isthmus twin run scenario.yaml --html-out report.html\n"
    "isthmus twin run east-data-west-compute --parquet-out jobs.parquet\n"
    "isthmus twin run year.yaml --stream --by-day-out days.parquet",
    help=_(
        "Replay a log in Standard Workload Format (plain, .gz or .zip) on one site under a scheduler: each job's wait, "
        "exactly. Lines and jobs that cannot be used are left out, counted and named. Or run a scenario: a YAML file, or "
        "one that comes with Isthmus by its name (docs/twin.md)."
    ),
)
@click.argument("scenario", required=False, metavar="[SCENARIO.yaml]")
@click.option("--swf", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path), help=_("The log."))  # fmt: skip
@click.option("--processors", type=click.IntRange(min=1), help=_("Processors of the site."))
@click.option("--policy", type=click.Choice(["easy", "easy-sjbf", "fcfs", "conservative", "selective"]), default="easy", show_default=True, help=_("The site's scheduler."))  # fmt: skip
@click.option("--estimate", type=click.Choice(["requested", "actual", "forecast"]), default="requested", show_default=True, help=_("What the scheduler believes of run times; forecast: learned from the jobs that had ended, as the service learns."))  # fmt: skip
@click.option("--outages", "outages_file", metavar="FILE.csv", type=click.Path(exists=True, dir_okay=False, path_type=Path), help=_("Processors that fail or are drained: begin_seconds,finish_seconds,processors,drain."))  # fmt: skip
@click.option("--waits-out", metavar="FILE.csv", type=_FILE, help=_("Write job_id,wait_seconds for each job."))
@click.option("--swf-out", metavar="FILE.swf", type=_FILE, help=_("Write the schedule in the log's format."))
@click.option("--parquet-out", metavar="FILE", type=_FILE, help=_("Write the schedule as Parquet."))
@click.option("--html-out", metavar="FILE.html", type=_FILE, help=_("Write a scenario's report: one file, pictures included."))  # fmt: skip
@click.option("--stream", is_flag=True, help=_("Hold only the jobs that are not over, for a scenario of years; its 95th percentile is right to half a per cent."))  # fmt: skip
@click.option("--by-day-out", metavar="FILE", type=_FILE, help=_("With --stream: write the figures of each day and home as Parquet."))  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help=_("Answer JSON, for programs."))
def run(
    scenario: str | None,
    swf: Path | None,
    processors: int | None,
    policy: Any,
    estimate: Any,
    outages_file: Path | None,
    waits_out: Path | None,
    swf_out: Path | None,
    parquet_out: Path | None,
    html_out: Path | None,
    stream: bool,
    by_day_out: Path | None,
    as_json: bool,
) -> int:
    if (scenario is None) == (swf is None):
        raise click.UsageError(_("Give a scenario, or a log with --swf; one of the two."))
    need_twin()
    if scenario is not None:
        if processors or waits_out or swf_out or outages_file:
            raise click.UsageError(_("--processors, --outages, --waits-out and --swf-out belong to --swf."))
        if stream and html_out:
            raise click.UsageError(_("--stream keeps no job for a report's pictures: leave out --html-out."))
        if by_day_out and not stream:
            raise click.UsageError(_("--by-day-out belongs to --stream."))
        if stream:
            return _stream_scenario(scenario, parquet_out, by_day_out, as_json)
        return _run_scenario(scenario, parquet_out, html_out, as_json)
    if stream or by_day_out:
        raise click.UsageError(_("--stream and --by-day-out belong to a scenario."))
    if html_out:
        raise click.UsageError(_("--html-out belongs to a scenario."))
    if swf is None or processors is None:
        raise click.UsageError(_("--swf needs --processors."))
    from isthmus.domain.errors import Invalid
    from isthmus.twin import writers
    from isthmus.twin.readers import read_swf
    from isthmus.twin.runnable import runnable
    from isthmus.twin.schedulers import bounded_slowdown, simulate
    from isthmus.twin.summary import summarise

    whole = read_swf(swf)
    exact = estimate == "requested" and policy == "conservative" and outages_file is None
    log, left = runnable(whole, processors, needs_request=estimate != "actual", within_request=exact)
    _name_what_is_left_out(whole, left)
    if not len(log):
        raise Invalid(
            "swf", f"{swf} holds no job that {processors} processors can run.", remedy=_better_log(whole, left)
        )
    estimates = estimate
    if estimate == "forecast":
        from isthmus.twin.schedulers.foreseen import forecast_estimates

        with working(not as_json, _("forecasting each job")):
            estimates = forecast_estimates(log, processors)
    lost: dict[str, Any] = {}
    if outages_file is not None:
        waits, lost = _with_outages(log, processors, policy, estimates, outages_file)
    else:
        waits = simulate(log, processors, policy, estimates)
    width = log.requested_processors
    summary = summarise(log.submit_seconds, log.run_seconds, width, waits, processors)
    if waits_out:
        writers.write_waits(waits_out, log.job_id, waits)
    if swf_out:
        writers.write_schedule(swf_out, log, waits)
    if parquet_out:
        columns = {
            "job_id": log.job_id,
            "submit_seconds": log.submit_seconds,
            "wait_seconds": waits,
            "run_seconds": log.run_seconds,
            "processors": width,
            "user": log.user,
            "bounded_slowdown": bounded_slowdown(waits, log.run_seconds),
        }
        writers.write_parquet(parquet_out, columns)
    if as_json:
        gone = {one.cause: list(one.job_ids) for one in left}
        bad = [asdict(line) for line in whole.bad_lines]
        screen.put_json({**asdict(summary), "policy": policy, "estimate": estimate, "processors": processors, "bad_lines": bad, "left_out": gone, **lost})  # fmt: skip
        return exits.OK
    headers = [_("POLICY"), _("ESTIMATE"), _("JOBS"), _("WAIT (S)"), _("P95 (S)"), _("AVEBSLD"), _("IN USE"), _("SPAN (S)")]  # fmt: skip
    row = [policy, estimate, str(summary.jobs), f"{summary.mean_wait_s:.1f}", f"{summary.p95_wait_s:.0f}", f"{summary.avebsld:.4f}", f"{summary.utilisation:.4f}", str(summary.makespan_s)]  # fmt: skip
    screen.table(headers, [row], right=(2, 3, 4, 5, 6, 7))
    if lost:
        screen.say(_("{lost_attempts} attempts were lost to {outages} outages, with {lost_processor_hours:,.1f} processor hours.").format(**lost))  # fmt: skip
    return exits.OK


def _with_outages(
    log: SwfLog, processors: int, policy: Any, estimates: Any, file: Path
) -> tuple[NDArray[np.int64], dict[str, Any]]:
    """Waits under outages, and what was lost; the scheduler plans anew at each event."""
    from isthmus.twin.readers.outages import read_outages
    from isthmus.twin.schedulers.outages import replan

    outages = read_outages(file)
    given = {"requested": None, "actual": log.run_seconds}
    done = replan(log, processors, policy, outages, given[estimates] if isinstance(estimates, str) else estimates)
    return done.wait_seconds, {
        "outages": len(outages),
        "lost_attempts": int(done.attempts.sum()) - len(log),
        "lost_processor_hours": done.lost_processor_seconds / 3600,
    }


def _loaded(place: str) -> Scenario:
    from isthmus.twin.scenario.load import load_scenario

    scenario = load_scenario(place)
    for line in scenario.left_out[:_SHOWN]:
        screen.say(_("left out: {what}").format(what=line))
    if len(scenario.left_out) > _SHOWN:
        screen.say(_("and {count} more; the report names all").format(count=len(scenario.left_out) - _SHOWN))
    return scenario


def _stream_scenario(place: str, parquet_out: Path | None, by_day_out: Path | None, as_json: bool) -> int:
    from contextlib import nullcontext

    from isthmus.twin import writers
    from isthmus.twin.scenario.run import job_columns, stream_scenario
    from isthmus.twin.summary import named

    scenario = _loaded(place)
    with writers.parquet_rows(parquet_out) if parquet_out else nullcontext() as add:

        def write(ended: Ended, accounts: Accounts) -> None:
            if add is not None and len(ended):
                add(job_columns(scenario, ended.jobs, ended.start_seconds, ended.site, ended.data_seconds, accounts))

        with working(not as_json, _("the first day")) as tell:
            tally = stream_scenario(
                scenario, on_ended=write, on_day=lambda day: tell(_("day {day} is in").format(day=day))
            )
    if by_day_out:
        writers.write_parquet(by_day_out, tally.by_day([site.name for site in scenario.sites]))
    if as_json:
        screen.put_json({"scenario": scenario.name, "router": scenario.router, **tally.figures(), "left_out": scenario.left_out})  # fmt: skip
        return exits.OK
    screen.pairs(named(tally.figures()))
    return exits.OK


def _run_scenario(place: str, parquet_out: Path | None, html_out: Path | None, as_json: bool) -> int:
    from isthmus.twin import writers
    from isthmus.twin.scenario.run import run_scenario
    from isthmus.twin.summary import named

    scenario = _loaded(place)
    with working(not as_json, _("running")) as tell:
        result = run_scenario(
            scenario, on_jobs=lambda done, jobs: tell(_("{done:,} of {jobs:,} jobs").format(done=done, jobs=jobs))
        )
    if parquet_out:
        writers.write_parquet(parquet_out, result.columns())
    from isthmus.twin.report.homes import HOME_HEADERS, home_rows

    if html_out:
        from isthmus.twin.report.page import make_page

        writers.write_text(html_out, make_page(result))
    rows = home_rows(result)
    if as_json:
        homes = [dict(zip(HOME_HEADERS, row, strict=True)) for row in rows]
        screen.put_json({"scenario": scenario.name, "router": scenario.router, **result.figures(), "homes": homes, "left_out": scenario.left_out})  # fmt: skip
        return exits.OK
    screen.pairs(named(result.figures()))
    screen.put("")
    screen.table([header.upper() for header in HOME_HEADERS], rows, right=range(1, len(HOME_HEADERS)))
    return exits.OK


@contextmanager
def working(talk: bool, text: str) -> Iterator[Callable[[str], None]]:
    """Say on a terminal what goes on, until it is done; the block may say something newer. Silent elsewhere."""
    if not (talk and sys.stderr.isatty()):
        yield lambda _text: None
        return
    with screen.console(stderr=True).status(text) as status:
        yield status.update


def need_twin() -> None:
    """NotFound, with what to install, where the twin's libraries are not there."""
    from importlib.util import find_spec

    from isthmus.domain.errors import NotFound

    missing = [name for name in ("numpy", "numba", "scipy") if find_spec(name) is None]
    if missing:
        raise NotFound(
            _("The twin needs {names}.").format(names=", ".join(missing)), remedy=_("Install isthmus[twin].")
        )


def _better_log(log: SwfLog, left: tuple[LeftOut, ...]) -> str:
    """What to do about a log of which nothing can run."""
    if not len(log):
        return _("Give a log in Standard Workload Format: 18 numbers a line.")
    most = max(left, key=lambda one: len(one.job_ids)).cause
    if most == "no requested time":
        return _("Use --estimate actual: no job of this log says how long it may run.")
    return _("Give another log, or more --processors.")


def _name_what_is_left_out(log: SwfLog, left: tuple[LeftOut, ...]) -> None:
    if log.bad_lines:
        screen.say(_("{count} bad lines left out:").format(count=len(log.bad_lines)))
        for line in log.bad_lines[:_SHOWN]:
            screen.say(_("  line {number}: {cause}").format(number=line.number, cause=line.cause))
        if len(log.bad_lines) > _SHOWN:
            screen.say(_("  and {count} more; --json names all").format(count=len(log.bad_lines) - _SHOWN))
    for one in left:
        ids = ", ".join(str(job) for job in one.job_ids[:_SHOWN]) + (", ..." if len(one.job_ids) > _SHOWN else "")
        screen.say(
            _("{count} jobs left out: {cause} (jobs {ids})").format(count=len(one.job_ids), cause=one.cause, ids=ids)
        )
