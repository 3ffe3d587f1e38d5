"""`isthmus twin`: sites under a virtual clock, on this machine alone; only `replay` asks a service."""

from __future__ import annotations

from isthmus.cli.grammar import Group
from isthmus.cli.messages import _

COMMANDS = {
    "run": ("isthmus.cli.twin_run:run", "Replay a log on one site, or run a scenario", "Twin"),
    "replay": ("isthmus.cli.twin_replay:replay", "Replay your own tasks under another scheduler", "Twin"),
    "compare": ("isthmus.cli.twin_ask:compare", "Two scenarios, job by job", "Twin"),
    "sweep": ("isthmus.cli.twin_ask:sweep", "A scenario under many loads, routers, seeds", "Twin"),
    "capacity": ("isthmus.cli.twin_ask:capacity", "How much more load a scenario bears", "Twin"),
    "circles": ("isthmus.cli.twin_ask:circles", "What is within 1, 5 and 20 ms of each site", "Twin"),
}

twin = Group(
    name="twin",
    lazy=COMMANDS,
    help=_("Sites under a virtual clock: replay traces exactly, and ask what if. Only replay needs a service."),
    examples="""
    isthmus twin run --swf KTH-SP2.swf.gz --processors 100 --policy easy
    isthmus twin run east-data-west-compute --html-out report.html
    isthmus twin capacity scenario.yaml --p95-wait 1h
    """,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
