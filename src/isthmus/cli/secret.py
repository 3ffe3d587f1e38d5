"""`isthmus secret`: values come from a prompt or stdin, never from the command line."""

from __future__ import annotations

import sys

import click

from isthmus.cli import exits, screen
from isthmus.cli.grammar import Group, command
from isthmus.cli.messages import _
from isthmus.cli.session import Session, answers

_HERE = "isthmus.cli.secret:"
secret = Group(
    name="secret",
    lazy={
        "set": (_HERE + "set_", "Store a secret (from a prompt or stdin)", "Commands"),
        "ls": (_HERE + "ls", "List the names of secrets", "Commands"),
        "rm": (_HERE + "rm", "Remove a secret", "Commands"),
    },
    examples="isthmus secret set api-key < key.txt\nisthmus run --secret API_KEY=api-key -- ./call",
    help=_("Secrets of a project that tasks may use as variables."),
    context_settings={"help_option_names": ["-h", "--help"]},
)


@command("set", examples="isthmus secret set api-key\nisthmus secret set api-key < key.txt", help=_("Store a secret of the project. The value is asked for, or read from stdin (one line end at its end is cut)."))  # fmt: skip
@click.argument("name")
@answers
def set_(session: Session, name: str) -> int:
    from isthmus.client import administration

    if sys.stdin.isatty():
        value = click.prompt(
            _("Value of {name}").format(name=name), hide_input=True, confirmation_prompt=True, err=True
        )
    else:
        value = sys.stdin.read().removesuffix("\n")
    if not value:
        raise click.UsageError(_("The value is empty."))
    session.run(administration.set_secret(session.project, name, str(value)))
    screen.say(_("secret {name} of {project} is stored").format(name=name, project=session.project))
    return exits.OK


@command("ls", examples="isthmus secret ls", help=_("List the names of the project's secrets; values are never shown."))
@answers
def ls(session: Session) -> int:
    from isthmus.client import administration

    names = session.run(administration.secrets(session.project))
    if session.as_json:
        screen.put_json(names)
    else:
        for name in names:
            screen.put(name)
    return exits.OK


@command("rm", examples="isthmus secret rm api-key", help=_("Remove a secret of the project."))
@click.argument("name")
@answers
def rm(session: Session, name: str) -> int:
    from isthmus.client import administration

    session.run(administration.remove_secret(session.project, name))
    screen.say(_("secret {name} is removed").format(name=name))
    return exits.OK
