"""`isthmus submit`: hand in tasks and return at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isthmus.cli import exits, screen
from isthmus.cli.grammar import command, tail_of
from isthmus.cli.messages import _
from isthmus.cli.run import hand_in, plan
from isthmus.cli.session import Session, answers
from isthmus.cli.task_options import over, read_flags, task_options

if TYPE_CHECKING:
    from isthmus.client.draft import Draft


@command(
    "submit",
    examples="""
    isthmus submit train.yaml
    isthmus submit job.sbatch --workdir .
    isthmus submit --batch many.yaml
    isthmus submit --cpus 4 --array 0-99 -- ./step
    """,
    help=_(
        "Hand in tasks and return at once; the ids are on stdout. SOURCE is a task file (YAML, one task or many), or a batch "
        "script with #SBATCH lines; flags change what the file says. Without SOURCE the flags and the command after -- are the "
        "task. Many tasks of a file go in all or none; each may wait for another by its name (`after`)."
    ),
    keep_tail=True,
)
@task_options
@click.option("--batch", is_flag=True, help=_("All tasks in one call, all or none (the default for several)."))
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[SOURCE] [-- COMMAND...]")
@answers
def submit(session: Session, words: tuple[str, ...], dry_run: bool, batch: bool, **flags: Any) -> int:
    drafts = _read(words, tail_of(click.get_current_context()), flags)
    if dry_run:
        return plan(session, drafts)
    if len(drafts) == 1 and not batch:
        _answer(session, [hand_in(session, drafts[0], talk=not session.as_json)])
        return exits.OK
    from isthmus.client.handles import submit_drafts

    for draft in drafts:
        for note in draft.notes:
            screen.say(_("note: {note}").format(note=note))
    project = session.project_given or drafts[0].project or session.project
    if any(draft.project and draft.project != drafts[0].project for draft in drafts):
        raise click.UsageError(_("The tasks of one file must be of one project."))
    _answer(session, session.run(submit_drafts(drafts, project=project)))
    return exits.OK


def _read(words: tuple[str, ...], tail: tuple[str, ...], flags: dict[str, Any]) -> list[Draft]:
    """The tasks of a file (`tail` are the arguments of a script), or of flags and a command."""
    from isthmus.client import sbatch, taskfile

    if not words:
        if not tail and not flags.get("image"):
            raise click.UsageError(_("What should be handed in? Name a file, or write the command after --."))
        return [read_flags(flags, tail)]
    source = Path(words[0])
    if len(words) > 1:
        raise click.UsageError(
            _("{word!r} is one word too many. Arguments of a script stand after --.").format(word=words[1])
        )
    if source.suffix in (".yaml", ".yml"):
        if tail:
            raise click.UsageError(_("A task file takes no command ({word!r}).").format(word=tail[0]))
        return [over(draft, flags) for draft in taskfile.read_file(source)]
    if not source.is_file() or source.suffix == ".sbatch" or _is_script(source):
        return [over(sbatch.read_script(source, tail), flags)]
    raise click.UsageError(
        _("{path} is neither a task file (.yaml) nor a script (it would begin with #!).").format(path=source)
    )


def _is_script(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"#!"


def _answer(session: Session, groups: list[list[str]]) -> None:
    if session.as_json:
        screen.put_json({"ids": groups[0] if len(groups) == 1 else groups})
        return
    for group in groups:
        for task_id in group:
            screen.put(task_id)
    if len(groups) == 1 and len(groups[0]) == 1:
        screen.suggest(f"isthmus logs -f {groups[0][0]}")
    else:
        screen.suggest("isthmus ls --watch")
