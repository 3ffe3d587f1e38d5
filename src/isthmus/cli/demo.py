"""`isthmus demo`: the main job on real centres of this machine."""

from __future__ import annotations

import click

from isthmus.cli import exits, screen
from isthmus.cli.grammar import command
from isthmus.cli.messages import _


@command(
    "demo", examples="isthmus demo\nisthmus demo --keep", help=_("See Isthmus work on real centres on this machine.")
)
@click.option("--keep", is_flag=True, help=_("Leave everything running at the end."))
def demo(keep: bool) -> int:
    screen.say(_("The demo is not part of this installation{more}.").format(more=" (--keep)" if keep else ""))
    return exits.UNAVAILABLE
