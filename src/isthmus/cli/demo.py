"""`isthmus demo`: the main job on real centres of this machine."""

from __future__ import annotations

import click

from isthmus.cli.grammar import command
from isthmus.cli.messages import _


@command(
    "demo",
    examples="isthmus demo\nisthmus demo --keep",
    help=_(
        "See Isthmus do its main job on this machine. As root on Debian: two Slurm clusters, an SSH host and the machine itself, "
        "started for this, over an emulated network with two paths; otherwise the machine alone. Every result is checked; the exit code is 0 only if all is right. "
        "Everything is removed at the end."
    ),
)
@click.option("--keep", is_flag=True, help=_("Leave everything running until Ctrl-C."))
def demo(keep: bool) -> int:
    from isthmus.demo.story import run

    return run(keep=keep)
