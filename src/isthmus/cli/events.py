"""`isthmus events`: what happens, as it happens."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from isthmus.cli import exits, screen
from isthmus.cli.grammar import command
from isthmus.cli.messages import _
from isthmus.cli.session import Session, answers

if TYPE_CHECKING:
    from isthmus.client.records import Event


@command(
    "events",
    examples="isthmus events -f\nisthmus events TASK\nisthmus events -f --json | jq .kind",
    help=_("What happens, as it happens: of a task, a project, or all that you may see. JSON is one event a line."),
)
@click.argument("task_id", required=False, default="", metavar="[TASK]")
@click.option("--follow", "-f", is_flag=True, help=_("Go on until Ctrl-C."))
@click.option("--after", default="", metavar="NUMBER", help=_("Go on after this event."))
@answers
def events(session: Session, task_id: str, follow: bool, after: str) -> int:
    from isthmus.client import operations

    if task_id:
        task_id = session.task_id(task_id)
    if task_id and not follow:
        found: Iterator[Event] = iter(session.run(operations.task_events(task_id)))
    else:
        last = after if follow else after or "0"
        found = session.client.events(project=session.project_given, task_id=task_id, last_id=last, follow=follow)
    try:
        for event in found:
            if session.as_json:
                screen.put(json.dumps(screen.plain(event), ensure_ascii=False))
            else:
                body = " ".join(f"{key}={value}" for key, value in event.body.items())
                place = " ".join(item for item in (event.task_id, event.site) if item)
                screen.put(screen.clean(f"{event.seq} {screen.moment(event.at)} {event.kind} {place} {body}".rstrip()))
            sys.stdout.flush()
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    return exits.OK
