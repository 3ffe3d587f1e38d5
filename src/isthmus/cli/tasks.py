"""`ls`, `show`, `cancel`, `hold`, `release`, `retry`, `wait`."""

from __future__ import annotations

import sys
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import click

from isthmus.cli import exits, screen
from isthmus.cli.grammar import Command, command
from isthmus.cli.messages import _, _n
from isthmus.cli.session import Session, answers, confirm

if TYPE_CHECKING:
    from isthmus.client.records import Task

MANY = 1  # more than so many are confirmed
WATCH_SECONDS = 2.0


@command(
    "ls",
    examples="""
    isthmus ls
    isthmus ls --state running --state queued --watch
    isthmus ls --since 2d --site alpha --json
    """,
    help=_("List tasks, newest first."),
)
@click.option("--state", "states", multiple=True, metavar="STATE", help=_("Only in this state; may be repeated."))
@click.option("--site", default="", help=_("Only at this site."))
@click.option("--user", default="", help=_("Only of this user."))
@click.option("--name", default="", help=_("Only with this name."))
@click.option("--array", "array_id", default="", metavar="ID", help=_("Only of this array."))
@click.option("--tag", "tags", multiple=True, metavar="K=V", help=_("Only with this label."))
@click.option("--since", default="", metavar="TIME", help=_("Only newer than: 2h, 3d, 2026-11-26T18:00."))
@click.option("--limit", "-n", type=click.IntRange(1), default=50, help=_("At most so many (50)."))
@click.option("--all", "everything", is_flag=True, help=_("All of them."))
@click.option("--watch", "-w", is_flag=True, help=_("Show again every two seconds until Ctrl-C."))
@answers
def ls(
    session: Session,
    states: tuple[str, ...],
    tags: tuple[str, ...],
    since: str,
    limit: int,
    everything: bool,
    watch: bool,
    **filters: Any,
) -> int:
    check_states(states)
    filters |= {"state": states, "tag": [tag.replace("=", ":", 1) for tag in tags], "since": screen.since(since)}
    filters["project"] = session.project_given
    amount = None if everything else limit
    while True:
        tasks = list(session.client.tasks(limit=amount, **filters))
        if watch and sys.stdout.isatty():
            sys.stdout.write("\033[H\033[2J")
        if session.as_json:
            screen.put_json(tasks)
        else:
            _table(session, tasks)
            if amount is not None and len(tasks) == amount and not watch:
                screen.say(_("These are the newest {count}; --all shows all.").format(count=amount))
        if not watch:
            return exits.OK
        sys.stdout.flush()
        time.sleep(WATCH_SECONDS)


def check_states(states: tuple[str, ...]) -> None:
    """A usage error that names an unknown state and the one that may be meant."""
    from difflib import get_close_matches

    from isthmus.domain.lifecycle import TaskState

    known = [str(state) for state in TaskState]
    for state in states:
        if state not in known:
            near = get_close_matches(state, known, 1)
            hint = _("Did you mean {name}?").format(name=near[0]) if near else _("There are: ") + ", ".join(known)
            raise click.UsageError(_("There is no state {state!r}. {hint}").format(state=state, hint=hint))


def _table(session: Session, tasks: list[Task]) -> None:
    from isthmus.cli.plans import why_it_ended

    if not tasks:
        screen.say(_("No tasks."))
        screen.suggest("isthmus run -- hostname")
        return
    headers = [_("ID"), _("NAME"), _("STATE"), _("SITE"), _("AGE"), _("TIME"), _("EXIT")]
    if session.wide:
        headers += [_("POOL"), _("NATIVE"), _("USER"), _("PROJECT"), _("TRY"), _("MESSAGE")]
    rows = []
    for task in tasks:
        name = task.name + (f"[{task.array_index}]" if task.array_index is not None else "")
        code = "" if task.exit_code is None else str(task.exit_code)
        row: list[Any] = [task.id, name, screen.state(task.state), task.site, screen.age(task.created_at)]
        row += [screen.span(task.started_at, task.ended_at), code]
        if session.wide:
            row += [task.pool, task.native_id, task.user, task.project, f"{task.attempts}/{task.max_attempts}"]
            row += [why_it_ended(task) if task.ended else task.message]
        rows.append(row)
    screen.table(headers, rows)


@command(
    "show",
    examples="isthmus show TASK\nisthmus show TASK --json",
    help=_("Show one task: state, tries, outputs, cost."),
)
@click.argument("task_id", metavar="TASK")
@answers
def show(session: Session, task_id: str) -> int:
    from isthmus.cli.plans import end_in_words, moved_in_words, why_it_ended
    from isthmus.cli.run import queued_as
    from isthmus.client import operations
    from isthmus.domain.lifecycle import AttemptState
    from isthmus.domain.units import show_duration, show_size

    task_id = session.task_id(task_id)
    task = session.run(operations.task(task_id))
    attempts = session.run(operations.attempts(task_id))
    outputs = session.run(operations.outputs(task_id))
    usage = session.run(operations.task_usage(task_id))
    receipts = session.run(operations.receipts(task_id))
    if session.as_json:
        screen.put_json(
            {
                **screen.plain(task),
                "tries": screen.plain(attempts),
                "outputs": screen.plain(outputs),
                "usage": screen.plain(usage),
            }
        )
        return exits.OK
    last = attempts[-1] if attempts else None
    screen.pairs(
        [
            (_("task"), task.id),
            (_("name"), task.name),
            (_("state"), screen.state(task.state, queued_as(task))),
            (_("why"), why_it_ended(task) if task.ended else task.message),
            (_("exit code"), task.exit_code),
            (_("site"), f"{task.site}/{task.pool}" if task.site else ""),
            (_("native id"), task.native_id),
            (_("project"), task.project),
            (_("user"), task.user),
            (_("waits for"), ", ".join(task.waiting_for)),
            (_("together"), f"{task.gang} [{task.part}]" if task.gang else ""),
            (_("array"), f"{task.array_id} [{task.array_index}]" if task.array_id else ""),
            (_("tags"), ", ".join(f"{key}={value}" for key, value in task.tags.items())),
            (_("created"), screen.moment(task.created_at)),
            (_("started"), screen.moment(task.started_at)),
            (_("ended"), screen.moment(task.ended_at)),
            (_("ran"), screen.span(last.started_at, last.ended_at) if last else ""),
            (_("cost"), screen.money(sum((one.charge for one in usage), start=Decimal(0))) if usage else ""),
        ]
    )
    if attempts:
        screen.put("")
        rows = [
            [str(one.number), screen.state(one.state), one.site, one.pool, one.native_id, one.account,
             screen.span(one.started_at, one.ended_at),
             f"≤ {show_duration(one.predicted_seconds)}" if one.predicted_seconds is not None else "",
             one.message or ("" if one.state == AttemptState.SUCCEEDED else end_in_words(one.reason))]
            for one in attempts
        ]  # fmt: skip
        screen.table([_("TRY"), _("STATE"), _("SITE"), _("POOL"), _("NATIVE"), _("ACCOUNT"), _("RAN"), _("PREDICTED"), _("WHY")], rows)  # fmt: skip
    moved = {one.transfer: one for receipt in receipts for one in receipt.actual_transfers}
    if moved:
        screen.put("")
        for one in moved.values():
            screen.put(screen.clean(moved_in_words(one)))
    if outputs:
        screen.put("")
        rows = [[one.path, show_size(one.size_bytes), one.sha256[:12], one.url] for one in outputs]
        screen.table([_("OUTPUT"), _("SIZE"), _("SHA-256"), _("URL")], rows)
        screen.suggest(f"isthmus fetch {task.id}")
    elif not task.ended:
        screen.suggest(f"isthmus logs -f {task.id}" if task.site else f"isthmus why {task.id}")
    return exits.OK


@command(
    "cancel",
    examples="isthmus cancel TASK\nisthmus cancel --array ID --yes\nisthmus cancel --state waiting",
    help=_("End tasks, wherever they are. Several are confirmed first."),
)
@click.argument("ids", nargs=-1, metavar="[TASK...]")
@click.option("--array", "array_id", default="", metavar="ID", help=_("All tasks of an array."))
@click.option("--state", "states", multiple=True, metavar="STATE", help=_("All your tasks in this state."))
@click.option("--yes", "-y", is_flag=True, help=_("Do not ask."))
@answers
def cancel(session: Session, ids: tuple[str, ...], array_id: str, states: tuple[str, ...], yes: bool) -> int:
    from isthmus.client import operations

    check_states(states)
    wanted = [session.task_id(one) for one in ids]
    if states:
        mine = str(session.run(operations.me()).get("user", ""))
        project = session.project_given
        wanted += [task.id for task in session.client.tasks(limit=None, state=states, user=mine, project=project)]
    if array_id:
        confirm(_("End all tasks of array {id}?").format(id=array_id), yes=yes)
        answer = session.run(operations.cancel_many(array_id=array_id))
        session.answer(answer, _("array {id}: asked to end").format(id=array_id))
        return exits.OK
    if not wanted:
        if states:
            screen.say(_("No such tasks."))
            return exits.OK
        raise click.UsageError(_("Which tasks? Name them, or give --array or --state."))
    if len(wanted) == 1:
        task = session.run(operations.cancel(wanted[0]))
        if session.as_json:
            screen.put_json(task)
        else:
            screen.say(_("{id}: {state}").format(id=task.id, state=task.state if task.ended else _("asked to end")))
        return exits.OK
    if len(wanted) > MANY:
        confirm(_("End {count} tasks?").format(count=len(wanted)), yes=yes)
    changed = 0
    for start in range(0, len(wanted), 1000):
        answer = session.run(operations.cancel_many(ids=wanted[start : start + 1000]))
        changed += int(answer.get("changed", 0))
    session.answer(
        {"changed": changed},
        _n("{count} task was asked to end", "{count} tasks were asked to end", changed).format(count=changed),
    )
    return exits.OK


def _intent(verb: str, text: str, said: str) -> Command:
    @command(verb, examples=f"isthmus {verb} TASK", help=text)
    @click.argument("ids", nargs=-1, required=True, metavar="TASK...")
    @answers
    def act(session: Session, ids: tuple[str, ...]) -> int:
        from isthmus.client import operations

        done = [session.run(getattr(operations, verb)(session.task_id(one))) for one in ids]
        if session.as_json:
            screen.put_json(done if len(done) > 1 else done[0])
        else:
            for task in done:
                screen.say(said.format(id=task.id, state=task.state))
        return exits.OK

    return act


hold = _intent("hold", _("Keep waiting tasks from starting."), _("{id}: {state}"))
release = _intent("release", _("Let held tasks go."), _("{id}: {state}"))
retry = _intent("retry", _("Run ended tasks again."), _("{id}: {state}"))


@command(
    "wait",
    examples="isthmus wait TASK\nisthmus wait A B C --timeout 2h",
    help=_("Wait until tasks end; the exit code is that of the first that did not end well (124: time over)."),
)
@click.argument("ids", nargs=-1, required=True, metavar="TASK...")
@click.option("--timeout", default="", metavar="TIME", help=_("Give up after: 90, 15m, 2h."))
@answers
def wait(session: Session, ids: tuple[str, ...], timeout: str) -> int:
    from isthmus.cli.run import phase
    from isthmus.client import waiting
    from isthmus.domain.units import parse_duration

    limit = float(parse_duration(timeout, "timeout")) if timeout else None

    def changed(task: Task) -> None:
        if not session.as_json:
            screen.say(f"{task.id} {phase(task)}")

    done = session.run(
        waiting.wait(list(dict.fromkeys(session.task_id(one) for one in ids)), timeout_seconds=limit, changed=changed)
    )
    if session.as_json:
        screen.put_json(done if len(done) > 1 else done[0])
    return next((exits.of_task(task) for task in done if not task.succeeded), exits.OK)
