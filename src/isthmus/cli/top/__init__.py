"""`isthmus top`: sites, tasks and transfers in the terminal, as they change."""

from __future__ import annotations

import sys

import click

from isthmus.cli import exits
from isthmus.cli.grammar import command
from isthmus.cli.messages import _


@command(
    "top",
    examples="isthmus top\nisthmus top --site alpha\nisthmus top --state running --state queued",
    help=_(
        "Watch sites, tasks and transfers as they change, in the terminal. Keys: w or Enter says why a task is where it is, l shows "
        "its log, c cancels it (asks first), h holds, r releases, / filters by name, space stands still, q ends."
    ),
)
@click.option("--state", "states", multiple=True, metavar="STATE", help=_("Only tasks in this state; may be repeated."))
@click.option("--site", default="", help=_("Only tasks at this site."))
@click.option("--project", default="", metavar="NAME", help=_("Only tasks of this project."))
def top(states: tuple[str, ...], site: str, project: str) -> int:
    from isthmus.cli.tasks import check_states

    check_states(states)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError(_("`isthmus top` needs a terminal; elsewhere: isthmus ls --json, isthmus events -f."))
    from isthmus.cli.top.app import Top
    from isthmus.client.asynchronous import AsyncClient
    from isthmus.client.config import find_profile

    client = AsyncClient(profile=find_profile(None, None, project or None))
    Top(client, filters={"state": states, "site": site, "project": project}).run()
    return exits.OK
