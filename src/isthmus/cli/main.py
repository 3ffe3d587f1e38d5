"""The command `isthmus`: finds the subcommand, and turns every way to end into one exit code."""

from __future__ import annotations

import os
import sys

import click

from isthmus import __version__
from isthmus.cli.grammar import Group
from isthmus.cli.messages import _

_WORK, _SEE, _SITES, _PEOPLE, _SERVICE = "Work", "See", "Sites", "People", "Service"
COMMANDS = {
    "run": ("isthmus.cli.run:run", "Run a command somewhere fit, follow it, fetch what it leaves", _WORK),
    "submit": ("isthmus.cli.submit:submit", "Hand in tasks: a YAML file, an sbatch script, or flags", _WORK),
    "cancel": ("isthmus.cli.tasks:cancel", "End tasks", _WORK),
    "hold": ("isthmus.cli.tasks:hold", "Keep a task from starting", _WORK),
    "release": ("isthmus.cli.tasks:release", "Let a held task go", _WORK),
    "retry": ("isthmus.cli.tasks:retry", "Run an ended task again", _WORK),
    "wait": ("isthmus.cli.tasks:wait", "Wait until tasks end", _WORK),
    "fetch": ("isthmus.cli.fetch:fetch", "Fetch what a task left", _WORK),
    "data": ("isthmus.cli.data:data", "Datasets: put, get, copy to sites, pin", _WORK),
    "ls": ("isthmus.cli.tasks:ls", "List tasks", _SEE),
    "show": ("isthmus.cli.tasks:show", "Show one task", _SEE),
    "logs": ("isthmus.cli.logs:logs", "Show what a task writes", _SEE),
    "why": ("isthmus.cli.why:why", "Why a task runs where it runs, or why it waits", _SEE),
    "usage": ("isthmus.cli.usage:usage", "What was used, and what it costs", _SEE),
    "top": ("isthmus.cli.top:top", "Watch sites, tasks and transfers in the terminal", _SEE),
    "events": ("isthmus.cli.events:events", "What happens, as it happens", _SEE),
    "site": ("isthmus.cli.site:site", "Join, watch, drain and leave sites", _SITES),
    "net": ("isthmus.cli.net:net", "The network: declare it, see it measured, compare paths", _SITES),
    "agent": ("isthmus.cli.service:agent", "Run at a site that dials out", _SITES),
    "user": ("isthmus.cli.people:user", "Users", _PEOPLE),
    "project": ("isthmus.cli.people:project", "Projects and their members", _PEOPLE),
    "token": ("isthmus.cli.people:token", "Your tokens", _PEOPLE),
    "secret": ("isthmus.cli.secret:secret", "Secrets that tasks may use", _PEOPLE),
    "up": ("isthmus.cli.service:up", "Start the service here", _SERVICE),
    "down": ("isthmus.cli.service:down", "Stop the service here", _SERVICE),
    "check": ("isthmus.cli.service:check", "Check what the service here has stored", _SERVICE),
    "demo": ("isthmus.cli.demo:demo", "See it work on real centres on this machine", _SERVICE),
    "lab": ("isthmus.cli.lab:lab", "Emulate sites and the network between them on this machine", _SERVICE),
    "twin": ("isthmus.cli.twin:twin", "Sites under a virtual clock: replay a log, ask what if", _SERVICE),
    "completion": ("isthmus.cli.completion:completion", "Completion for bash, zsh and fish", _SERVICE),
}

isthmus = Group(
    name="isthmus",
    lazy=COMMANDS,
    help=_("Hand in a task; Isthmus decides where it runs, moves its data, and brings back the result."),
    examples="""
    isthmus up --detach
    isthmus run --cpus 4 --memory 8G --workdir . --out result.csv -- python train.py
    isthmus submit job.sbatch
    isthmus why TASK
    """,
    epilog=_("`isthmus COMMAND --help` begins with examples. Exit codes are in docs/cli.md."),
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=lambda ctx, _param, value: _print_version(ctx, value),
            help=_("Print the version."),
        )
    ],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _print_version(ctx: click.Context, value: bool) -> None:
    if value:
        click.echo(f"isthmus {__version__}")
        ctx.exit()


def call(arguments: list[str]) -> int:
    """Carry out a command line; returns its exit code and never raises, unless ISTHMUS_DEBUG is set."""
    from isthmus.domain.errors import IsthmusError

    try:
        outcome = isthmus.main(arguments, prog_name="isthmus", standalone_mode=False)
        sys.stdout.flush()
        return outcome if isinstance(outcome, int) else 0
    except click.exceptions.Exit as end:
        return end.exit_code
    except (
        SystemExit
    ) as end:  # click leaves so after completion (0), and when the reader (head, less) has seen enough (1)
        return end.code if isinstance(end.code, int) and end.code != 1 else 0
    except click.ClickException as error:
        _tell_usage(error)
        return 64
    except (click.Abort, KeyboardInterrupt):
        sys.stderr.write(_("Interrupted.") + "\n")
        return 130
    except BrokenPipeError:
        _silence_stdout()
        return 0
    except IsthmusError as error:
        from isthmus.cli import exits

        exits.tell(error, as_json="--json" in arguments)
        return exits.code_of(error)
    except Exception as error:  # a fault of this command: a person gets a sentence, its authors can have the trace
        if os.environ.get("ISTHMUS_DEBUG"):
            raise
        sys.stderr.write(_("error: this command failed: {cause!r}").format(cause=error) + "\n")
        sys.stderr.write(_("  try: the same with ISTHMUS_DEBUG=1, and report what it shows") + "\n")
        return 70


def _tell_usage(error: click.ClickException) -> None:
    sys.stderr.write(_("error: {cause}").format(cause=error.format_message()) + "\n")
    context = getattr(error, "ctx", None)
    if context is not None:
        sys.stderr.write(_("  try: {command} --help").format(command=context.command_path) + "\n")


def _silence_stdout() -> None:
    try:
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, sys.stdout.fileno())
        os.close(descriptor)
    except (OSError, ValueError):
        pass


def main() -> None:
    """The entry point."""
    sys.exit(call(sys.argv[1:]))
