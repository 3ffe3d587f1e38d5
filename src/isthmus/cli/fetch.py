"""`isthmus fetch`: bring a task's outputs here."""

from __future__ import annotations

from pathlib import Path

import click

from isthmus.cli import exits, screen
from isthmus.cli.grammar import command
from isthmus.cli.messages import _
from isthmus.cli.session import Session, answers


@command(
    "fetch",
    examples="isthmus fetch TASK\nisthmus fetch TASK --to results/ 'model*' logs/",
    help=_(
        "Fetch a task's outputs (all, or those named: a path, a directory, a pattern). Goes on where an earlier try stopped, "
        "checks every hash, and leaves alone what is here already."
    ),
)
@click.argument("task_id", metavar="TASK")
@click.argument("only", nargs=-1, metavar="[PATH...]")
@click.option("--to", type=click.Path(path_type=Path), default=Path(), metavar="DIR", help=_("Where to (here)."))
@answers
def fetch(session: Session, task_id: str, only: tuple[str, ...], to: Path) -> int:
    from isthmus.cli.run import _status
    from isthmus.client import handles, operations
    from isthmus.domain.units import show_size

    task_id = session.task_id(task_id)
    task = session.run(operations.task(task_id))
    with _status(not session.as_json, _("fetching")) as status:

        def progressed(done: int, whole: int) -> None:
            if status is not None:
                status.update(_("fetching {done} of {whole}").format(done=show_size(done), whole=show_size(whole)))

        paths = session.run(
            handles.fetch_outputs(task_id, project=task.project, directory=to, only=only, progress=progressed)
        )
    if session.as_json:
        screen.put_json([str(path) for path in paths])
    else:
        for path in paths:
            screen.put(str(path))
    return exits.OK
