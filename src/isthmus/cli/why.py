"""`isthmus why`: the decision about a task in words."""

from __future__ import annotations

import click

from isthmus.cli import exits, screen
from isthmus.cli.grammar import command
from isthmus.cli.messages import _, _n
from isthmus.cli.plans import show_receipt, why_it_ended
from isthmus.cli.session import Session, answers


@command(
    "why",
    examples="isthmus why TASK\nisthmus why TASK -o wide\nisthmus why --waiting\nisthmus why --waiting --array ARRAY",
    help=_(
        "Why a task runs where it runs, why nowhere else, or why it waits: reasons in order, and the smallest change that would "
        "help. -o wide says where each figure comes from; --all shows the earlier decisions too. --waiting says what holds most of "
        "the waiting tasks."
    ),
)
@click.argument("task_id", metavar="[TASK]", required=False)
@click.option("--waiting", is_flag=True, help=_("The three reasons that hold most of the waiting tasks."))
@click.option("--array", "array_id", default="", metavar="ID", help=_("With --waiting: only of this array."))
@click.option("--all", "everything", is_flag=True, help=_("Earlier decisions too."))
@answers
def why(session: Session, task_id: str | None, waiting: bool, array_id: str, everything: bool) -> int:
    from isthmus.client import operations

    if task_id is None or waiting:
        if not waiting or task_id is not None:
            raise click.UsageError(_("Name a task, or ask --waiting for what holds them all."))
        return _what_holds(session, array_id)
    task_id = session.task_id(task_id)
    task = session.run(operations.task(task_id))
    receipts = sorted(session.run(operations.receipts(task_id)), key=lambda receipt: receipt.decided_at)
    if session.as_json:
        screen.put_json({"task": task, "receipts": receipts})
        return exits.OK
    from isthmus.cli.run import phase

    screen.put(screen.clean(f"{task.id}{f' {task.name}' if task.name else ''}: {phase(task)}"))
    if task.state == "blocked":
        screen.put(_("It waits for: {ids}").format(ids=", ".join(task.waiting_for) or "?"))
    elif task.state == "held":
        screen.put(_("You hold it. What would help: isthmus release {id}").format(id=task.id))
    if task.ended and not task.succeeded:
        cause = why_it_ended(task)
        code = "" if task.exit_code is None else _(" (exit code {code})").format(code=task.exit_code)
        screen.put(_("It ended because: {cause}{code}").format(cause=cause or task.state, code=code))
    if not receipts:
        if task.state == "waiting":
            screen.put(_("No round of placement has looked at it yet; ask again in a moment."))
        return exits.OK
    shown = receipts if everything else receipts[-1:]
    for receipt in shown:
        screen.put("")
        show_receipt(receipt, wide=session.wide)
    if len(receipts) > len(shown):
        earlier = len(receipts) - len(shown)
        one, many = (
            "There is {count} earlier decision; --all shows it.",
            "There are {count} earlier decisions; --all shows them.",
        )
        screen.say(_n(one, many, earlier).format(count=earlier))
    return exits.OK


def _what_holds(session: Session, array_id: str) -> int:
    from isthmus.cli.plans import WORDS
    from isthmus.client import operations

    waiting, looked_at, reasons = session.run(operations.holding(project=session.project_given, array_id=array_id))
    if session.as_json:
        screen.put_json({"waiting": waiting, "looked_at": looked_at, "reasons": reasons})
        return exits.OK
    if not waiting:
        screen.say(_("No task waits."))
        return exits.OK
    screen.put(
        _n(
            "{waiting} task waits; of {looked_at} it is known what holds it.",
            "{waiting} tasks wait; of {looked_at} it is known what holds them.",
            waiting,
        ).format(waiting=waiting, looked_at=looked_at)
    )
    rows = [
        [str(one.tasks), _(WORDS.get(one.why, one.why)), ", ".join(one.pools), one.remedy]  # type: ignore[call-overload]
        for one in reasons
    ]
    if rows:
        screen.table([_("TASKS"), _("WHY"), _("AT"), _("WHAT WOULD HELP")], rows, right=(0,))
    return exits.OK
