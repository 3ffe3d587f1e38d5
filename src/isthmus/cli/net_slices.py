"""`isthmus net slice`, `unslice` and `slices`: rates of links that somebody has for sure."""

from __future__ import annotations

import click

from isthmus.cli import exits, screen
from isthmus.cli.grammar import command
from isthmus.cli.messages import _
from isthmus.cli.session import Session, answers


@command(
    "slice",
    examples="""
    isthmus net slice weather r1-r2 r2-r4 --rate "200 Mbit/s" --of weather
    isthmus net slice control r1-r2 --rate "5 Mbit/s" --dscp 46
    """,
    help=_(
        "Give a rate of links, in both directions, to the transfers of a project, or to packets that carry a DSCP. They have it whatever "
        "others send; what they do not use, others may. Refused where a link has too little left that nobody was promised."
    ),
)
@click.argument("name")
@click.argument("links", nargs=-1, required=True)
@click.option("--rate", required=True, metavar="RATE", help=_("The rate, such as 200 Mbit/s."))
@click.option("--of", "project", metavar="PROJECT", help=_("The project whose transfers are in it."))
@click.option("--dscp", type=click.IntRange(1, 63), help=_("The mark of its packets; one is chosen for a project."))
@answers
def add(session: Session, name: str, links: tuple[str, ...], rate: str, project: str | None, dscp: int | None) -> int:
    from isthmus.client import network
    from isthmus.domain.quantities import read_rate

    wanted = read_rate(rate, "rate")
    made = session.run(network.add_slice(name, links, bits_per_second=wanted, project=project, dscp=dscp))
    session.answer(
        made,
        _("{name} has {rate} of {links}; its packets carry the DSCP {dscp}.").format(
            name=name, rate=rate, links=", ".join(links), dscp=made["dscp"]
        ),
    )
    if not session.as_json:
        screen.suggest("isthmus net slices")
    return exits.OK


@command("unslice", examples="isthmus net unslice weather", help=_("Give a slice up; its routers forget it."))
@click.argument("name")
@answers
def remove(session: Session, name: str) -> int:
    from isthmus.client import network

    session.run(network.remove_slice(name))
    session.answer({"name": name}, _("The slice {name} is given up.").format(name=name))
    return exits.OK


@command(
    "slices",
    examples="""
    isthmus net slices
    isthmus net slices --json
    """,
    help=_("The slices: rate, links, whose they are, and since when the routers have them."),
)
@answers
def slices(session: Session) -> int:
    from isthmus.client import network
    from isthmus.domain.quantities import show_rate

    found = session.run(network.slices())
    if session.as_json:
        screen.put_json(found)
        return exits.OK
    rows = []
    for one in found:
        state = "programmed" if one["programmed_at"] else "waiting" if one["wanted"] else "given up"
        rows.append(
            (
                one["name"],
                show_rate(one["bits_per_second"]),
                " ".join(one["links"]),
                one["project"],
                one["dscp"],
                state,
                one["error"],
            )
        )
    screen.table(("SLICE", "RATE", "LINKS", "PROJECT", "DSCP", "STATE", "ERROR"), rows)
    return exits.OK
