"""`isthmus completion`: the script that a shell sources."""

from __future__ import annotations

import click

from isthmus.cli import exits, screen
from isthmus.cli.grammar import command
from isthmus.cli.messages import _


@command(
    "completion",
    examples="""
    isthmus completion bash > ~/.local/share/bash-completion/completions/isthmus
    isthmus completion zsh > ~/.zfunc/_isthmus
    isthmus completion fish > ~/.config/fish/completions/isthmus.fish
    """,
    help=_("Print the completion script of a shell."),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    from click.shell_completion import get_completion_class

    from isthmus.cli.main import isthmus

    kind = get_completion_class(shell)
    if kind is None:
        return exits.INTERNAL
    made = kind(isthmus, {}, "isthmus", "_ISTHMUS_COMPLETE")
    screen.put(made.source_template % made.source_vars())  # `source()` would first run the shell to ask its version
    return exits.OK
