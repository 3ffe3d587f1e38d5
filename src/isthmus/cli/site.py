"""`isthmus site ...`: join, watch, drain and leave compute centres."""

from __future__ import annotations

import json
from typing import Any

import click

from isthmus.cli import exits, screen
from isthmus.cli.grammar import Group, command
from isthmus.cli.messages import _
from isthmus.cli.session import Session, answers, confirm

_HERE = "isthmus.cli.site:"
_TOLD = 50  # jobs named by `leave --force`
_SETTINGS = "isthmus.cli.site_settings:"
site = Group(
    name="site",
    lazy={
        "join": (_SETTINGS + "join", "Join a site", "Commands"),
        "ls": (_HERE + "ls", "List sites", "Commands"),
        "show": (_HERE + "show", "Show one site with its pools", "Commands"),
        "bench": ("isthmus.cli.site_bench:bench", "Measure what its nodes do", "Commands"),
        "set": (_SETTINGS + "set_", "Change a site's settings, accounts or prices", "Commands"),
        "enrol": (_SETTINGS + "enrol", "A one-time token for a site's agent", "Commands"),
        "tasks": (_HERE + "tasks", "What runs there, under which account", "Commands"),
        "usage": (_HERE + "usage", "What was used there, by whom", "Commands"),
        "load": (_HERE + "load", "The load that Isthmus puts on it", "Commands"),
        "forecast": ("isthmus.cli.site_ahead:forecast", "Load, price and carbon by the hour ahead", "Commands"),
        "carbon": ("isthmus.cli.site_carbon:carbon", "The carbon of a site's grid by the hour", "Commands"),
        "map": (_SETTINGS + "map_", "Which user is which local account", "Commands"),
        "drain": (_HERE + "drain", "Let nothing new go there", "Commands"),
        "resume": (_HERE + "resume", "Let tasks go there again", "Commands"),
        "leave": (_HERE + "leave", "Take a site out", "Commands"),
    },
    examples="""
    isthmus site join slurm alpha --set host=login.alpha.example --set user=isthmus --account '*=guest'
    isthmus site ls
    isthmus site drain alpha
    """,
    help=_("Join, watch, drain and leave sites (compute centres)."),
    context_settings={"help_option_names": ["-h", "--help"]},
)


@command("ls", examples="isthmus site ls\nisthmus site ls -o wide", help=_("List sites."))
@answers
def ls(session: Session) -> int:
    found = session.client.sites()
    if session.as_json:
        screen.put_json(found)
        return exits.OK
    if not found:
        screen.say(_("No site has joined."))
        screen.suggest("isthmus site join local here")
        return exits.OK
    headers = [_("SITE"), _("KIND"), _("STATE"), _("ANSWERS"), _("NODES"), _("CPUS"), _("FREE"), _("REGION")]
    if session.wide:
        headers += [_("MODE"), _("TRUST"), _("VERSION"), _("SEEN"), _("FEATURES"), _("ERROR")]
    rows = []
    for one in found:
        nodes = sum(int(pool.get("nodes", 0)) for pool in one.pools)
        cpus = sum(int(pool.get("nodes", 1)) * int(pool.get("cpus_per_node", 1)) for pool in one.pools)
        free = [int(pool["free_cpus"]) for pool in one.pools if pool.get("free_cpus") is not None]
        row: list[Any] = [one.name, one.kind, screen.state(one.state), _("yes") if one.reachable else _("no")]
        row += [str(nodes), str(cpus), str(sum(free)) if free else "", one.region]
        if session.wide:
            row += [one.mode, one.trust, one.version, screen.age(one.last_seen_at), " ".join(one.features), one.error]
        rows.append(row)
    screen.table(headers, rows, right=(4, 5, 6))
    return exits.OK


@command(
    "show",
    examples="isthmus site show alpha\nisthmus site show alpha -o wide",
    help=_("Show one site: what it has, what it can, what it does as measured (-o wide: every figure), how it is."),
)
@click.argument("name")
@answers
def show(session: Session, name: str) -> int:
    from isthmus.cli.site_bench import show_capabilities
    from isthmus.cli.site_forecasts import show_forecasts
    from isthmus.client import administration
    from isthmus.domain.units import show_duration, show_size

    one = session.client.site(name)
    measured = session.run(administration.site_capabilities(name))
    forecasts = session.run(administration.site_forecasts(name))
    if session.as_json:
        screen.put_json({**screen.plain(one), "capabilities": measured, "forecasts": forecasts})
        return exits.OK
    screen.pairs(
        [
            (_("site"), one.name),
            (_("kind"), f"{one.kind} {one.version}".strip()),
            (_("mode"), one.mode),
            (_("agent"), _agent(one.agent)),
            (_("state"), screen.state(one.state)),
            (_("answers"), _("yes") if one.reachable else _("no: {error}").format(error=one.error or "?")),
            (_("seen"), screen.moment(one.last_seen_at)),
            (_("region"), one.region),
            (_("trust"), one.trust),
            (_("features"), " ".join(one.features)),
            (_("accounts"), ", ".join(f"{user}={local}" for user, local in one.accounts.items())),
            (_("prices"), json.dumps(one.prices) if one.prices else ""),
            (_("settings"), json.dumps(one.config) if one.config else ""),
            (_("datasets"), _kept(one.data) if one.data else ""),
        ]
    )
    if one.pools:
        screen.put("")
        rows = []
        for pool in one.pools:
            limit = pool.get("max_walltime_seconds")
            gpus = pool.get("accelerators_per_node") or 0
            rows.append(
                [
                    str(pool.get("name", "")),
                    str(pool.get("nodes", 1)),
                    str(pool.get("cpus_per_node", 1)),
                    show_size(int(pool.get("memory_bytes_per_node") or 0)),
                    f"{gpus}x{pool.get('accelerator_kind') or '?'}" if gpus else "",
                    "" if pool.get("free_cpus") is None else str(pool["free_cpus"]),
                    str(pool.get("queued_jobs", 0)),
                    show_duration(limit) if limit else "",
                ]
            )
        headers = [_("POOL"), _("NODES"), _("CPUS/NODE"), _("MEMORY/NODE"), _("GPUS/NODE"), _("FREE CPUS"), _("QUEUED"), _("LONGEST")]  # fmt: skip
        screen.table(headers, rows, right=(1, 2, 3, 5, 6, 7))
    show_capabilities(measured, wide=session.wide)
    show_forecasts(forecasts)
    if one.pools and not measured:
        screen.suggest(f"isthmus site bench {name}")
    return exits.OK


@command(
    "tasks", examples="isthmus site tasks alpha", help=_("What runs at a site, of whom, under which local account.")
)
@click.argument("name")
@click.option("--all", "everything", is_flag=True, help=_("What ended, too."))
@answers
def tasks(session: Session, name: str, everything: bool) -> int:
    from isthmus.client import administration

    found = session.run(administration.site_tasks(name, live=not everything))
    if session.as_json:
        screen.put_json(found)
        return exits.OK
    headers = [_("TASK"), _("USER"), _("ACCOUNT"), _("STATE"), _("POOL"), _("NATIVE"), _("CPUS")]
    names = ("task_id", "user", "account", "state", "pool", "native_id", "cpus")
    rows = [
        [screen.state(str(row.get(key, ""))) if key == "state" else str(row.get(key, "")) for key in names]
        for row in found
    ]
    screen.table(headers, rows)
    return exits.OK


@command("usage", examples="isthmus site usage alpha --by account", help=_("What was used at a site, by whom."))
@click.argument("name")
@click.option("--by", type=click.Choice(["user", "project", "account"]), default="user", help=_("Sum by this."))
@click.option("--records", is_flag=True, help=_("Every record."))
@answers
def usage(session: Session, name: str, by: str, records: bool) -> int:
    from isthmus.cli.usage import show as show_usage
    from isthmus.client import administration

    show_usage(session, session.run(administration.site_usage(name)), by=by, records=records)
    return exits.OK


@command("load", examples="isthmus site load alpha", help=_("The load that Isthmus itself puts on a site."))
@click.argument("name")
@answers
def load(session: Session, name: str) -> int:
    from isthmus.client import administration

    found = session.run(administration.site_load(name))
    if session.as_json:
        screen.put_json(found)
    else:
        screen.pairs([(key.replace("_", " "), _flat(value)) for key, value in found.items()])
    return exits.OK


def _kept(data: dict[str, Any]) -> str:
    """What a site keeps of datasets, in a line."""
    from isthmus.domain.units import show_size

    quota, free = int(data.get("quota_bytes") or 0), int(data.get("free_bytes") or 0)
    said = show_size(int(data.get("used_bytes") or 0))
    said += _(" of {size}").format(size=show_size(quota)) if quota else _(", {size} free").format(size=show_size(free))
    address = data.get("address")
    said += ", " + (_("read at {address}").format(address=address) if address else _("not to be dialled"))
    return said + (", " + _("with a cold store") if data.get("cold") else "")


def _flat(value: Any) -> Any:
    return ", ".join(f"{key} {item}" for key, item in value.items()) if isinstance(value, dict) else value


@command("drain", examples="isthmus site drain alpha\nisthmus site drain alpha --yes", help=_("Let nothing new go to a site; what is there ends in peace. Shows first what it hits."))  # fmt: skip
@click.argument("name")
@click.option("--yes", "-y", is_flag=True, help=_("Do not ask."))
@click.option("--preview", is_flag=True, help=_("Only show what it would hit."))
@answers
def drain(session: Session, name: str, yes: bool, preview: bool) -> int:
    from isthmus.client import administration

    hit = session.run(administration.drain_site(name, preview=True))
    if preview and session.as_json:
        screen.put_json(hit)
        return exits.OK
    if not session.as_json:
        for key, value in hit.items():
            if key != "site" and value not in ({}, [], None):
                screen.say(f"  {key.replace('_', ' ')}: {_flat(value) if isinstance(value, dict) else value}")
    if preview:
        return exits.OK
    confirm(_("Let nothing new go to {name}?").format(name=name), yes=yes)
    session.answer(session.run(administration.drain_site(name)), _("{name} takes nothing new.").format(name=name))
    screen.suggest(f"isthmus site resume {name}")
    return exits.OK


@command("resume", examples="isthmus site resume alpha", help=_("Let tasks go to a drained site again."))
@click.argument("name")
@answers
def resume(session: Session, name: str) -> int:
    from isthmus.client import administration

    session.answer(session.run(administration.resume_site(name)), _("{name} takes tasks again.").format(name=name))
    return exits.OK


@command("leave", examples="isthmus site leave alpha\nisthmus site leave alpha --force", help=_("Take a site out. What runs there ends first; --force gives it up and places it elsewhere."))  # fmt: skip
@click.argument("name")
@click.option("--force", is_flag=True, help=_("Give up what still runs there."))
@click.option("--yes", "-y", is_flag=True, help=_("Do not ask."))
@answers
def leave(session: Session, name: str, force: bool, yes: bool) -> int:
    from isthmus.client import administration

    question = _("Give up all that runs at {name} and take it out?") if force else _("Take {name} out?")
    confirm(question.format(name=name), yes=yes)
    live = session.run(administration.site_tasks(name)) if force else []
    answer = session.run(administration.leave_site(name, force=force))
    given_up = [row for row in live if row.get("native_id")]
    if given_up:
        screen.say(_("These jobs were given up and may still run at {name}; end them there:").format(name=name))
        for row in given_up[:_TOLD]:
            screen.say(f"  {row['native_id']}  {row.get('account') or '-'}  {row.get('task_id')}")
        if len(given_up) > _TOLD:
            screen.say(_("  and {count} more").format(count=len(given_up) - _TOLD))
    session.answer(answer, _("{name}: {state}").format(name=name, state=answer.get("state", _("leaves"))))
    return exits.OK


def _agent(told: dict[str, Any]) -> str:
    """The version of the site's agent, and its clock when it is more than a second off."""
    parts = [str(told["version"])] if told.get("version") else []
    offset = told.get("clock_offset_seconds")
    if offset is not None and abs(offset) >= 1:
        parts.append(_("its clock is {seconds} s off").format(seconds=f"{offset:+.1f}"))
    return ", ".join(parts)
