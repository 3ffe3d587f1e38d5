"""`isthmus logs`."""

from __future__ import annotations

import click

from isthmus.cli import exits, screen
from isthmus.cli.grammar import command
from isthmus.cli.messages import _
from isthmus.cli.session import Session, answers


@command(
    "logs",
    examples="""
    isthmus logs TASK
    isthmus logs -f TASK
    isthmus logs --stream stderr --tail 20 TASK
    isthmus logs --since 1048576 TASK >> kept.log
    """,
    help=_(
        "Show what a task writes. With -f it follows to the task's end, across tries and sites. What programs write carries no "
        "time, so --since takes the byte to go on from (the end of what you have)."
    ),
)
@click.argument("task_id", metavar="TASK")
@click.option("--follow", "-f", is_flag=True, help=_("Follow until the task ends."))
@click.option(
    "--stream",
    type=click.Choice(["stdout", "stderr", "both"]),
    default=None,
    help=_("Which stream (stdout; with -f both)."),
)
@click.option("--since", type=click.IntRange(0), default=0, metavar="BYTE", help=_("Go on from this byte."))
@click.option("--tail", type=click.IntRange(1), default=None, metavar="N", help=_("Only the last N lines."))
@click.option(
    "--try", "number", type=click.IntRange(1), default=None, metavar="N", help=_("Of this try (else the last).")
)
@answers
def logs(
    session: Session, task_id: str, follow: bool, stream: str | None, since: int, tail: int | None, number: int | None
) -> int:
    from isthmus.cli.run import Phases, account, tell_end, write_bytes
    from isthmus.client import operations, waiting
    from isthmus.domain.errors import NotFound

    task_id = session.task_id(task_id)
    chosen = stream or ("both" if follow else "stdout")
    streams = ["stdout", "stderr"] if chosen == "both" else [chosen]
    alone = len(streams) == 1
    if follow and tail is None and number is None:
        phases = Phases(not session.as_json, None)
        try:
            task = session.run(
                waiting.follow(
                    task_id,
                    streams=streams,
                    write=lambda name, data: write_bytes("stdout" if alone else name, data),
                    changed=phases.changed,
                    offset=since,
                )
            )
        except KeyboardInterrupt:
            screen.say(_("\nThe task goes on; isthmus logs -f {id} follows it again.").format(id=task_id))
            return exits.INTERRUPTED
        if not session.as_json:
            tell_end(task, [], *account(session, task))
        return exits.OK
    if follow:
        raise click.UsageError(_("--follow goes neither with --tail nor with --try."))
    attempt = ""
    if number is not None:
        attempt = next((one.key for one in session.run(operations.attempts(task_id)) if one.number == number), "")
        if not attempt:
            raise NotFound(f"Task {task_id} has no try {number}.", remedy=f"See `isthmus show {task_id}`.")
    session.run(operations.task(task_id))  # says NotFound where a stream that is not there yet would be empty
    for name in streams:
        pieces: list[bytes] = []
        follower = waiting.Follower(name, since, attempt)
        session.run(waiting.read_stream(task_id, follower, lambda _name, data, to=pieces: to.append(data)))  # type: ignore[misc]
        text = b"".join(pieces)
        if tail is not None:
            text = b"".join(text.splitlines(keepends=True)[-tail:])
        write_bytes("stdout" if alone else name, text)
        if not follower.complete:
            screen.suggest(f"isthmus logs -f {task_id}")
    return exits.OK
