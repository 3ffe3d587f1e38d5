"""`isthmus run`: hand in, follow phases and logs, fetch outputs, end with the task's exit code."""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isthmus.cli import exits, screen
from isthmus.cli.grammar import command
from isthmus.cli.messages import _
from isthmus.cli.session import Session, answers
from isthmus.cli.task_options import read_flags, task_options
from isthmus.cli.terminal import TerminalFilter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isthmus.client.draft import Draft
    from isthmus.client.records import Task


@command(
    "run",
    examples="""
    isthmus run -- hostname
    isthmus run --cpus 4 --memory 8G --time 2h --workdir . --out model.bin -- python train.py
    isthmus run --gpus a100:1 --in data.csv:in.csv --out result/=./result -- ./solve in.csv
    isthmus run --over 2 --cpus 8 -- ./coupled
    isthmus run --dry-run --nodes 4 --deadline +6h -- ./simulate
    """,
    help=_(
        "Run a command somewhere fit: Isthmus decides where. Follows it, fetches what --out names, and ends with the command's "
        "own exit code (125: it failed without one). Ctrl-C leaves the task running."
    ),
    context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False},
)
@task_options
@click.option("--quiet", "-q", is_flag=True, help=_("Only what the task itself writes."))
@click.option("--no-fetch", is_flag=True, help=_("Leave the outputs where they are."))
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="-- COMMAND...")
@answers
def run(session: Session, words: tuple[str, ...], dry_run: bool, quiet: bool, no_fetch: bool, **flags: Any) -> int:
    if not words and not flags.get("image"):
        raise click.UsageError(_("What should run? Write it after --, as in: isthmus run -- hostname"))
    draft = read_flags(flags, words)
    if dry_run:
        return plan(session, [draft])
    talk = not quiet
    ids = hand_in(session, draft, talk=talk)
    try:
        if len(ids) > 1:
            return _wait_many(session, ids, talk)
        return _follow(session, ids[0], draft, talk=talk, fetch=not no_fetch)
    except KeyboardInterrupt:
        which = ids[0]
        screen.say("")
        screen.say(_("The task goes on without you."))
        screen.say(_("  follow it: isthmus logs -f {id}").format(id=which))
        screen.say(_("  end it:    isthmus cancel {id}").format(id=which))
        return exits.INTERRUPTED


def plan(session: Session, drafts: Sequence[Draft]) -> int:
    """Show where drafts would go and what would be sent; 0 when all can go somewhere, 75 when not now."""
    from isthmus.cli.plans import show_receipt
    from isthmus.client import operations, transfer
    from isthmus.client.draft import check_spec, pack
    from isthmus.domain.units import show_size

    project = session.project_given or drafts[0].project or session.project
    packed = [pack(draft) for draft in drafts]
    for one in packed:
        for note in one.notes:
            screen.say(_("note: {note}").format(note=note))
        check_spec(one.spec)
    contents = {content.sha256: content for one in packed for content in one.contents}
    missing = session.run(transfer.missing(list(contents), project=project)) if contents else set()
    if missing:
        size = sum(contents[sha256].size_bytes for sha256 in missing)
        screen.say(_("{size} would be sent first").format(size=show_size(size)))
    if len(packed) == 1:
        receipts = [session.run(operations.plan(packed[0].spec, project=project, unsent=bool(missing)))]
    else:
        specs = [one.spec for one in packed]
        receipts = session.run(operations.plan_batch(specs, project=project, unsent=bool(missing)))
    if session.as_json:
        screen.put_json(receipts if len(receipts) > 1 else receipts[0])
    else:
        for one, receipt in zip(packed, receipts, strict=True):
            if len(receipts) > 1:
                screen.put(screen.clean(_("Task {name}").format(name=one.spec.get("name") or "-")))
            show_receipt(receipt, wide=session.wide)
    return exits.OK if all(receipt.chosen_site for receipt in receipts) else exits.TRY_AGAIN


def hand_in(session: Session, draft: Draft, *, talk: bool) -> list[str]:
    """Send what is missing of a draft and submit it; the ids of its tasks."""
    from isthmus.client import operations
    from isthmus.client.draft import prepare
    from isthmus.domain.units import show_size

    project = session.project_given or draft.project or session.project
    sent = 0

    def progressed(done: int, whole: int) -> None:
        nonlocal sent
        sent = whole
        if status is not None:
            status.update(_("sending {done} of {whole}").format(done=show_size(done), whole=show_size(whole)))

    def note(text: str) -> None:
        screen.say(_("note: {note}").format(note=text))

    status: Any = None
    try:
        with _status(talk, _("reading files")) as status:
            spec = session.run(prepare(draft, project=project, progress=progressed, say=note))
    except KeyboardInterrupt:
        screen.say(_("Nothing was submitted."))
        raise
    if talk and (draft.workdir or draft.inputs):
        screen.say(_("sent {size}").format(size=show_size(sent)) if sent else _("everything is there already"))
    try:
        done = session.run(operations.submit(spec, project=project))
    except KeyboardInterrupt:
        screen.say(_("It is not known whether the task was submitted; look with: isthmus ls"))
        raise
    if talk:
        if spec.get("together") and len(done.ids) > 1:
            line = _("group {id} of {count} parts that start together").format(id=done.ids[0], count=len(done.ids))
        elif done.array_id:
            line = _("array {id} of {count} tasks").format(id=done.array_id, count=len(done.ids))
        else:
            line = _("task {id}").format(id=done.ids[0])
        screen.say(line)
    return done.ids


def _status(talk: bool, text: str) -> Any:
    """A line on the terminal that changes; nothing where stderr is no terminal."""
    if talk and sys.stderr.isatty():
        return screen.console(stderr=True).status(text)
    return nullcontext()


class Phases:
    """Tells each change of a task: a line each, or on a terminal one line that changes until the task itself writes."""

    def __init__(self, talk: bool, status: Any) -> None:
        self._talk = talk
        self._status = status
        self._attempt = ""
        self._told = ""

    def changed(self, task: Task) -> None:
        """The task changed."""
        line = phase(task)
        if self._talk and task.attempt and self._attempt and task.attempt != self._attempt:
            self._say(_("— attempt {number} at {site} —").format(number=task.attempts, site=task.site or "?"))
        self._attempt = task.attempt or self._attempt
        if line == self._told or task.ended:  # the end is told when all of it is known
            return
        self._told = line
        if self._status is not None and task.state != "running":
            self._status.update(screen.clean(line))
            self._status.start()
        elif self._talk:
            self._say(line)

    def write(self, stream: str, data: bytes) -> None:
        """What the task wrote; the changing line makes room."""
        if self._status is not None:
            self._status.stop()
        write_bytes(stream, data)

    def _say(self, line: str) -> None:
        if self._status is not None:
            self._status.stop()
        screen.say(line)


def phase(task: Task) -> str:
    """Where a task is, in a line."""
    place = f" {task.site}/{task.pool}" if task.site else ""
    words = {
        "blocked": _("waits for other tasks"),
        "held": _("held; isthmus release {id}").format(id=task.id),
        "waiting": _("waits for a place (isthmus why {id})").format(id=task.id),
        "placed": _("placed at{place}").format(place=place),
        "staging": _("data moves to{place}").format(place=place),
        "submitting": _("is handed to{place}").format(place=place),
        "queued": _("queued at{place}").format(place=place) + queued_as(task),
        "running": _("running at{place}").format(place=place),
        "unknown": _("{site} does not answer; it may well run").format(site=task.site),
        "collecting": _("outputs come back from{place}").format(place=place),
    }
    mark = screen.MARKS.get(task.state, ("·", ""))[0]
    line = f"{mark} {words.get(task.state, task.state)}"
    return f"{line}: {task.message}" if task.message and not task.ended else line


def queued_as(task: Task) -> str:
    """` #14` when the site says at which place of its queue the task stands."""
    return "" if task.queue_position is None else f" #{task.queue_position}"


_FILTERS = {"stdout": TerminalFilter(), "stderr": TerminalFilter()}


def write_bytes(stream: str, data: bytes) -> None:
    target = sys.stdout if stream == "stdout" else sys.stderr
    target.flush()
    if target.isatty():
        data = _FILTERS[stream].pass_on(data)
    buffer = getattr(target, "buffer", None)
    if buffer is None:
        target.write(data.decode(errors="replace"))
    else:
        buffer.write(data)
    target.flush()


def _follow(session: Session, task_id: str, draft: Draft, *, talk: bool, fetch: bool) -> int:
    from isthmus.client import waiting

    with _status(talk, _("waits")) as status:
        phases = Phases(talk, status)
        write = (lambda _stream, data: phases.write("stderr", data)) if session.as_json else phases.write
        task = session.run(waiting.follow(task_id, write=write, changed=phases.changed, from_first=True))
    fetched: list[Path] = []
    if task.succeeded and fetch and draft.spec.get("outputs"):
        fetched = _fetch(session, task, draft, talk)
    if session.as_json:
        screen.put_json({**screen.plain(task), "fetched": [str(path) for path in fetched]})
    elif talk:
        tell_end(task, fetched, *account(session, task))
    return exits.of_task(task)


def account(session: Session, task: Task) -> tuple[str, str]:
    """How long the last try ran at its site, and what the task cost by the sites' accounting; empty what is not known yet."""
    from isthmus.client import operations
    from isthmus.domain.errors import IsthmusError

    if not task.attempt:
        return "", ""
    ran = ""
    try:
        last = session.run(operations.attempts(task.id))[-1]
        ran = screen.span(last.started_at, last.ended_at)
        for pause in (0.1, 0.2, 0.4, 0.0):
            usage = session.run(operations.task_usage(task.id))
            if any(record.attempt == task.attempt for record in usage):
                return ran, screen.money(sum((record.charge for record in usage), start=Decimal(0)))
            time.sleep(pause)
    except (IsthmusError, IndexError):  # the task is over; only its figures are not known now
        pass
    return ran, ""


def _fetch(session: Session, task: Task, draft: Draft, talk: bool) -> list[Path]:
    from isthmus.client import handles
    from isthmus.domain.errors import NotFound
    from isthmus.domain.units import show_size

    with _status(talk, _("fetching")) as status:

        def progressed(done: int, whole: int) -> None:
            if status is not None:
                status.update(_("fetching {done} of {whole}").format(done=show_size(done), whole=show_size(whole)))

        steps = handles.fetch_outputs(
            task.id, project=task.project, wanted=draft.fetch, directory=Path.cwd(), progress=progressed
        )
        try:
            return session.run(steps)
        except NotFound as error:
            if error.code != "no_outputs":
                raise
            return []


def tell_end(task: Task, fetched: list[Path], ran: str = "", cost: str = "") -> None:
    """How it ended, where, how long it ran, what it cost, and what is here now."""
    line = task.state
    if task.site:
        line += _(" at {site}/{pool}").format(site=task.site, pool=task.pool)
    if ran:
        line += _(", ran {time}").format(time=ran)
    if cost:
        line += _(", cost {cost}").format(cost=cost)
    screen.say(f"{screen.MARKS.get(task.state, ('·', ''))[0]} {line}")
    for path in fetched[:20]:
        screen.say(_("  fetched {path}").format(path=str(path).replace("\n", "\\n")))
    if len(fetched) > 20:
        screen.say(_("  and {count} more").format(count=len(fetched) - 20))
    if not task.succeeded:
        from isthmus.cli.plans import why_it_ended

        cause = why_it_ended(task)
        if cause:
            screen.say(_("  because: {cause}").format(cause=cause))
        screen.suggest(f"isthmus why {task.id}")


def _wait_many(session: Session, ids: list[str], talk: bool) -> int:
    from isthmus.client import waiting

    ended: set[str] = set()

    with _status(talk, _("waits")) as status:

        def changed(task: Task) -> None:
            if task.ended:
                ended.add(task.id)
                if talk and not task.succeeded:
                    screen.say(f"{phase(task)} ({task.id})")
            if status is not None:
                status.update(_("{done} of {whole} ended").format(done=len(ended), whole=len(ids)))

        done = session.run(waiting.wait(ids, changed=changed))
    failed = [task for task in done if not task.succeeded]
    if session.as_json:
        screen.put_json(done)
    elif talk:
        screen.say(_("{good} succeeded, {bad} did not").format(good=len(done) - len(failed), bad=len(failed)))
    return exits.of_task(failed[0]) if failed else exits.OK
