"""The flags that describe a task, the same for `run` and `submit`, mapped to the keys of a task file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isthmus.cli.messages import _

if TYPE_CHECKING:
    from isthmus.client.draft import Draft

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_OPTIONS: list[Decorator] = [
    click.option("--name", metavar="TEXT", help=_("A name to find it by.")),
    click.option("--cpus", type=int, metavar="N", help=_("Processors for each rank.")),
    click.option("--memory", metavar="SIZE", help=_("Memory for each node: 8G, 512M.")),
    click.option("--nodes", type=int, metavar="N", help=_("Nodes.")),
    click.option("--tasks-per-node", type=int, metavar="N", help=_("Ranks on each node.")),
    click.option("--gpus", metavar="[KIND:]N", help=_("Accelerators for each node: 2, a100:2.")),
    click.option("--disk", metavar="SIZE", help=_("Disk for each node.")),
    click.option("--time", metavar="TIME", help=_("The longest it may run: 90, 15m, 2h30m, 1-12:00:00.")),
    click.option("--image", metavar="IMAGE", help=_("A container image to run in.")),
    click.option(
        "--in", "--input", "inputs", multiple=True, metavar="LOCAL[:PATH]",
        help=_(
            "A file or directory of yours, URL:PATH, site://SITE/PATH[:PATH], or a dataset: "
            "data:PROJECT/NAME[@VERSION][:PATH]=PATH; may be repeated."
        ),
    ),
    click.option(
        "--out", "outputs", multiple=True, metavar="PATH[=LOCAL]",
        help=_(
            "What it leaves: a file, a directory (ends with /), a pattern; LOCAL may be a URL, or data:PROJECT/NAME, of which it "
            "becomes the next version; may be repeated."
        ),
    ),
    click.option("--env", multiple=True, metavar="K=V", help=_("A variable (K alone: its value here); may be repeated.")),
    click.option(
        "--secret", "secrets", multiple=True, metavar="ENV=NAME", help=_("A variable from a secret of the project.")
    ),
    click.option(
        "--workdir", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
        help=_("Send this directory (.gitignore and .isthmusignore honoured; only what changed) and run in it."),
    ),
    click.option("--site", "sites", multiple=True, metavar="NAME", help=_("Only this site; may be repeated.")),
    click.option("--not-site", "not_sites", multiple=True, metavar="NAME", help=_("Not this site.")),
    click.option("--pool", "pools", multiple=True, metavar="NAME", help=_("Only this pool.")),
    click.option("--region", "regions", multiple=True, metavar="NAME", help=_("Only this region.")),
    click.option("--not-region", "not_regions", multiple=True, metavar="NAME", help=_("Not this region.")),
    click.option("--trust", metavar="LEVEL", help=_("Only sites with this trust.")),
    click.option("--apart", metavar="GROUP", help=_("At no site where another task of yours of this group is.")),
    click.option(
        "--licence", "licences", multiple=True, metavar="NAME=N", help=_("Licences that it holds; may be repeated.")
    ),
    click.option("--deadline", metavar="TIME", help=_("To be done by: 2026-11-26T18:00 or +6h.")),
    click.option("--budget", metavar="MONEY", help=_("The most it may cost.")),
    click.option("--goal", type=click.Choice(["soonest", "cheapest", "greenest"]), help=_("What to prefer.")),
    click.option("--priority", type=int, metavar="N", help=_("-1000 to 1000; higher goes first.")),
    click.option("--retries", type=int, metavar="N", help=_("How often to try again after a site's fault.")),
    click.option("--retry-on-exit", is_flag=True, default=None, help=_("Try again also when the command itself fails.")),
    click.option("--preemptible", is_flag=True, default=None, help=_("Fill what is idle; make room when others need it.")),
    click.option("--checkpoint", multiple=True, metavar="PATH", help=_("What it saves to go on from; may be repeated.")),
    click.option("--checkpoint-signal", metavar="NAME", help=_("It is warned by: TERM, INT, HUP, USR1, USR2 (TERM).")),
    click.option("--checkpoint-grace", metavar="TIME", help=_("Time to save its state (60s).")),
    click.option("--array", metavar="N|A-B", help=_("Many copies: 100, 0-99, 1-10:2 (ISTHMUS_ARRAY_INDEX, _VALUE).")),
    click.option(
        "--over", type=int, metavar="N",
        help=_("The same command at N sites (2) at once, each part knowing the others: ISTHMUS_PART, _PARTS, _PEERS."),
    ),
    click.option("--together", metavar="NAME", help=_("One of the tasks of that name that start together, each at another site.")),
    click.option("--together-hold", metavar="TIME", help=_("How long a part is held at its site until all are there (10m).")),
    click.option("--after", multiple=True, metavar="ID[:ended]", help=_("Start when that task succeeded (or ended).")),
    click.option("--tag", "tags", multiple=True, metavar="K=V", help=_("A label; may be repeated.")),
    click.option("--hold", is_flag=True, default=None, help=_("Do not start before `isthmus release`.")),
    click.option("--dry-run", is_flag=True, help=_("Show the plan, by the service's own validation; store nothing.")),
]  # fmt: skip
NAMES = frozenset(
    [
        "name",
        "cpus",
        "memory",
        "nodes",
        "tasks_per_node",
        "gpus",
        "disk",
        "time",
        "image",
        "inputs",
        "outputs",
        "env",
        "secrets",
        "workdir",
        "sites",
        "not_sites",
        "pools",
        "regions",
        "not_regions",
        "trust",
        "apart",
        "licences",
        "deadline",
        "budget",
        "goal",
        "priority",
        "retries",
        "retry_on_exit",
        "preemptible",
        "checkpoint",
        "checkpoint_signal",
        "checkpoint_grace",
        "array",
        "over",
        "together",
        "together_hold",
        "after",
        "tags",
        "hold",
    ]
)


def task_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the flags that describe a task."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def document_of(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that were given, as a task document."""
    import os

    document: dict[str, Any] = {}
    for name in NAMES:
        value = flags.get(name)
        if value is None or value == ():
            continue
        if name == "env":
            document["env"] = _pairs(value, "--env", os.environ)
        elif name in ("secrets", "tags"):
            document[name] = _pairs(value, "--secret" if name == "secrets" else "--tag")
        elif name == "licences":
            document[name] = {kind: _number(kind, count) for kind, count in _pairs(value, "--licence").items()}
        elif isinstance(value, tuple):
            document[name] = list(value)
        else:
            document[name] = str(value) if isinstance(value, Path) else value
    return document


def read_flags(flags: Mapping[str, Any], command: tuple[str, ...]) -> Draft:
    """A draft from flags and the words after `--`."""
    from isthmus.client.taskfile import read_task

    document = document_of(flags)
    if command:
        document["command"] = list(command)
    return read_task(document, Path.cwd())


def over(draft: Draft, flags: Mapping[str, Any]) -> Draft:
    """A draft of a file, changed by the flags that were given."""
    from isthmus.client.draft import Draft
    from isthmus.client.taskfile import merge, read_task

    more = read_task(document_of(flags), Path.cwd())
    spec = merge(draft.spec, more.spec)
    for name in ("inputs", "outputs", "depends_on"):
        if draft.spec.get(name) and more.spec.get(name):
            spec[name] = [*draft.spec[name], *more.spec[name]]
    return Draft(
        spec=spec,
        inputs=(*draft.inputs, *more.inputs),
        workdir=more.workdir or draft.workdir,
        fetch=(*draft.fetch, *more.fetch),
        project=draft.project,
        notes=draft.notes,
    )


def _pairs(given: tuple[str, ...], flag: str, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not separator:
            if environment is None or name not in environment:
                cause = (
                    _("{flag} {text!r} has no value.") if environment is None else _("{flag} {text!r} is not set here.")
                )
                raise click.BadParameter(cause.format(flag=flag, text=text), param_hint=flag)
            value = environment[name]
        found[name] = value
    return found


def _number(licence: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise click.UsageError(_("--licence {name}: {text!r} is not a number.").format(name=licence, text=text))
    return int(text)
