"""`isthmus twin`: sites under a virtual clock, on this machine alone; no service is needed."""

from __future__ import annotations

from isthmus.cli.grammar import Group
from isthmus.cli.messages import _

COMMANDS = {
    "run": ("isthmus.cli.twin_run:run", "Replay a log under a scheduler", "Twin"),
    "replay": ("isthmus.cli.twin_replay:replay", "Replay your own tasks under another scheduler", "Twin"),
}

twin = Group(
    name="twin",
    lazy=COMMANDS,
    help=_("Sites under a virtual clock: replay traces exactly, and ask what if. Works without a service."),
    examples="""
    isthmus twin run --swf KTH-SP2.swf.gz --processors 100 --policy easy
    """,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
