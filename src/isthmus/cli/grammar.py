"""Commands whose help begins with examples, groups that load a command only when it is called, and "did you mean"."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click

from isthmus.cli.messages import _

_TAIL = "isthmus.tail"


def tail_of(ctx: click.Context) -> tuple[str, ...]:
    """The words after `--` of a command with `keep_tail`."""
    tail: tuple[str, ...] = ctx.meta.get(_TAIL, ())
    return tail


class Command(click.Command):
    """A command that shows its examples before anything else."""

    examples: str = ""
    keep_tail: bool = False  # what stands after `--` is no argument, but in `tail_of`

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments."""
        if self.keep_tail and "--" in args:
            index = args.index("--")
            ctx.meta[_TAIL] = tuple(args[index + 1 :])
            args = args[:index]
        return super().parse_args(ctx, args)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Usage, examples, what it does, options."""
        self.format_usage(ctx, formatter)
        _write_examples(formatter, self.examples)
        self.format_help_text(ctx, formatter)
        self.format_options(ctx, formatter)
        self.format_epilog(ctx, formatter)


def _write_examples(formatter: click.HelpFormatter, examples: str) -> None:
    lines = [line.strip() for line in examples.strip().splitlines() if line.strip()]
    if lines:
        formatter.write("\n" + _("Examples:") + "\n")
        for line in lines:
            formatter.write(f"  {line}\n")


def command(
    name: str, *, examples: str = "", keep_tail: bool = False, **settings: Any
) -> Callable[[Callable[..., Any]], Command]:
    """A command with examples."""

    def make(function: Callable[..., Any]) -> Command:
        made: Command = click.command(name, cls=Command, **settings)(function)
        made.examples = examples
        made.keep_tail = keep_tail
        return made

    return make


class Group(click.Group):
    """Commands by name, loaded when called. `lazy` maps a name to (module:attribute, one line of help, section)."""

    def __init__(self, *, lazy: Mapping[str, tuple[str, str, str]], examples: str = "", **settings: Any) -> None:
        super().__init__(**settings)
        self.lazy = lazy
        self.examples = examples

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (of click)
        """All names, in the order of the table."""
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Load a command."""
        if cmd_name not in self.lazy:
            return None
        module, _colon, attribute = self.lazy[cmd_name][0].partition(":")
        found: click.Command = getattr(import_module(module), attribute)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command; UsageError names the nearest one."""
        name = args[0]
        if name not in self.lazy and not name.startswith("-"):
            near = get_close_matches(name, self.lazy, 2, 0.5)
            hint = " " + _("Did you mean {names}?").format(names=_(" or ").join(near)) if near else ""
            raise click.UsageError(_("There is no command {name!r}.").format(name=name) + hint, ctx)
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Usage, examples, the commands by section."""
        self.format_usage(ctx, formatter)
        _write_examples(formatter, self.examples)
        self.format_help_text(ctx, formatter)
        sections: dict[str, list[tuple[str, str]]] = {}
        for name, (_place, line, section) in self.lazy.items():
            sections.setdefault(section, []).append((name, _(line)))
        for section, rows in sections.items():
            with formatter.section(_(section)):
                formatter.write_dl(rows)
        options = [record for param in self.get_params(ctx) if (record := param.get_help_record(ctx))]
        with formatter.section(_("Options")):
            formatter.write_dl(options)
        self.format_epilog(ctx, formatter)
