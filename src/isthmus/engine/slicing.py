"""Slices in the store: rates of links that a project's transfers, or packets with a mark, have for sure; admitted only where they fit.

A slice holds in both directions of its links. Routers know its packets by their DSCP, in the outer header where there is one; the
reconciler of `engine.routers` makes the routers follow. What a slice does not use, others may.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import orjson
import sqlalchemy as sa

from isthmus.domain.errors import Busy, Conflict, Invalid, NotFound, Refused
from isthmus.domain.network import NetLink, NetNode, NetworkView
from isthmus.domain.quantities import show_rate
from isthmus.domain.roads import Reserved
from isthmus.network.control.desired import Slice, SlicedInterface
from isthmus.store import tables

SHAPED = 0.97
"""Of a link's capacity: so much is sent, so that packets wait at the router, where slices are told apart, and not beyond."""
MOST_SLICED = 0.9
"""Of a link's capacity: best effort, and routing with it, keep the rest."""
_GREATEST_BITS_PER_SECOND = 30e9
_DSCPS = (46, 32, 24, 16, 40)
"""Expedited forwarding and class selectors (RFC 4594): none that marks of paths are taken from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sliced:
    """One slice of some links; `project` empty: only packets that carry the mark by themselves are in it."""

    name: str
    project: str
    dscp: int
    bits_per_second: float
    links: tuple[str, ...]
    wanted: bool = True
    error: str = ""
    programmed_at: float | None = None
    created_by: str = ""
    created_at: float = 0.0


def want(connection: sa.Connection, view: NetworkView, sliced: Sliced, reserved: Reserved, *, until: float) -> Sliced:
    """Ask for a slice. `dscp` 0: one is chosen. `reserved` is what is promised of links until then.

    Conflict for a name, a mark or a project that has a slice; Invalid for links that cannot be sliced; Refused, code `slice_too_large`,
    where a link has too little left.
    """
    s = tables.net_slices
    known = slices(connection)
    if any(one.name == sliced.name for one in known):
        raise Conflict(f"There is a slice {sliced.name}.", remedy="Give it up first, or use another name.")
    if sliced.project and any(one.project == sliced.project and one.wanted for one in known):
        raise Conflict(f"The project {sliced.project} has a slice.", remedy="Give it up first.")
    used = {one.dscp for one in known}
    dscp = sliced.dscp or next((value for value in _DSCPS if value not in used), 0)
    if not dscp:
        raise Busy("The marks for slices are used up.", remedy="Name a DSCP that your packets do not have otherwise.")
    if dscp in used:
        raise Conflict(f"Another slice has the DSCP {dscp}.", remedy="Choose another, or none.")
    nodes = {node.name: node for node in view.nodes}
    links = {one.link.name: one.link for one in view.links}
    for place, name in enumerate(sliced.links):
        if name not in links:
            raise Invalid(f"links.{place}", f"There is no link {name}.", remedy="`isthmus net show` shows the links.")
        _check(links[name], nodes, place)
        _admit(links[name], sliced, view.now, until, reserved)
    connection.execute(
        s.insert().values(
            name=sliced.name,
            project=sliced.project,
            dscp=dscp,
            bits_per_second=sliced.bits_per_second,
            links=orjson.dumps(list(sliced.links)).decode(),
            wanted=True,
            created_by=sliced.created_by,
            created_at=sliced.created_at,
        )
    )
    return next(one for one in slices(connection) if one.name == sliced.name)


def give_up(connection: sa.Connection, name: str) -> None:
    """Ask that the routers forget a slice; NotFound when there is none."""
    s = tables.net_slices
    found = connection.execute(s.update().where(s.c.name == name).values(wanted=False, programmed_at=None))
    if not found.rowcount:
        raise NotFound(f"There is no slice {name}.")


def slices(connection: sa.Connection) -> tuple[Sliced, ...]:
    """All of them, by name."""
    return tuple(
        Sliced(
            name=row.name,
            project=row.project,
            dscp=row.dscp,
            bits_per_second=row.bits_per_second,
            links=tuple(orjson.loads(row.links)),
            wanted=row.wanted,
            error=row.error,
            programmed_at=row.programmed_at,
            created_by=row.created_by,
            created_at=row.created_at,
        )
        for row in connection.execute(tables.net_slices.select().order_by(tables.net_slices.c.name))
    )


def sliced_rates(connection: sa.Connection, *, without: str = "") -> dict[str, float]:
    """Bits a second that slices have of links, by the link's name; those of the project `without` left out."""
    return sum_rates(one for one in slices(connection) if not without or one.project != without)


def sum_rates(found: Iterable[Sliced]) -> dict[str, float]:
    """Bits a second that these slices have of links, by the link's name."""
    rates: dict[str, float] = {}
    for one in found:
        for link in one.links if one.wanted else ():
            rates[link] = rates.get(link, 0.0) + one.bits_per_second
    return rates


def dscp_of(connection: sa.Connection, project: str) -> int:
    """The mark of the slice of a project; 0 where it has none."""
    s = tables.net_slices.c
    return int(connection.scalar(sa.select(s.dscp).where(s.project == project, s.wanted)) or 0) if project else 0


def interfaces(view: NetworkView, wanted: Sequence[Sliced]) -> dict[str, tuple[SlicedInterface, ...]]:
    """The sliced interfaces of each router. A link that cannot be sliced any more, as it was declared anew, is left out."""
    nodes = {node.name: node for node in view.nodes}
    by_link: dict[str, list[Slice]] = {}
    for one in wanted:
        part = Slice(name=one.name, dscp=one.dscp, rate_bits_per_second=one.bits_per_second)
        for name in one.links:
            by_link.setdefault(name, []).append(part)
    found: dict[str, list[SlicedInterface]] = {}
    for one_way in view.links:
        parts, link = by_link.get(one_way.link.name), one_way.link
        if not parts or _why_not(link, nodes) is not None or link.capacity_bits_per_second is None:
            continue
        interface = link.interfaces[link.ends.index(one_way.source)]
        rate = SHAPED * link.capacity_bits_per_second
        if sum(part.rate_bits_per_second for part in parts) <= 0.99 * rate:
            found.setdefault(one_way.source, []).append(
                SlicedInterface(name=interface, rate_bits_per_second=rate, slices=tuple(parts))
            )
    return {router: tuple(some) for router, some in found.items()}


def note(
    connection: sa.Connection,
    now: float,
    seen: Sequence[Sliced],
    errors: Mapping[str, str],
    made: Mapping[str, tuple[SlicedInterface, ...]],
    view: NetworkView,
) -> None:
    """Write down which slices all their routers have; those that are given up go when these forgot them."""
    s = tables.net_slices
    ends = {one.link.name: one.link.ends for one in view.links}
    for one in seen:
        routers = {end for link in one.links for end in ends.get(link, ())}
        failed = next((errors[name] for name in sorted(routers) if name in errors), "")
        here = s.c.name == one.name
        if not one.wanted:
            if not failed:
                connection.execute(s.delete().where(here, s.c.wanted.is_(False)))
            continue
        lacking = [link for link in one.links if not _is_made(one.name, ends.get(link, ()), made)]
        error = failed or (f"{', '.join(lacking)} cannot be sliced as declared now." if lacking else "")
        if error:
            connection.execute(s.update().where(here).values(error=error[:1000], programmed_at=None))
        elif one.programmed_at is None or one.error:
            connection.execute(s.update().where(here, s.c.wanted).values(error="", programmed_at=now))


def _is_made(name: str, ends: Sequence[str], made: Mapping[str, tuple[SlicedInterface, ...]]) -> bool:
    return bool(ends) and all(
        any(part.name == name for interface in made.get(end, ()) for part in interface.slices) for end in ends
    )


def _check(link: NetLink, nodes: Mapping[str, NetNode], place: int) -> None:
    why = _why_not(link, nodes)
    if why is not None:
        raise Invalid(f"links.{place}", f"{link.name} cannot be sliced: {why[0]}", remedy=why[1])


def _why_not(link: NetLink, nodes: Mapping[str, NetNode]) -> tuple[str, str] | None:
    """Why a link has no slices, and what would help."""
    for end, interface in zip(link.ends, link.interfaces, strict=True):
        node = nodes.get(end)
        if node is None or not node.locator or node.control is None:
            return f"{end} is no router that obeys.", "Declare its `locator` and `control`."
        if not interface:
            return f"nobody said which interface it is at {end}.", "Declare its `interfaces`."
    if link.capacity_bits_per_second is None:
        return "nobody said its rate.", "Declare its `rate`."
    if link.capacity_bits_per_second > _GREATEST_BITS_PER_SECOND:
        return "it is faster than 30 Gbit/s, which Linux does not slice.", "Slice another link of the path."
    return None


def _admit(link: NetLink, sliced: Sliced, now: float, until: float, reserved: Reserved) -> None:
    capacity = link.capacity_bits_per_second or 0.0
    taken = reserved.sliced_bits_per_second(link.name)
    promised = max(reserved.bits_per_second(link.name, end, now, until) for end in link.ends) - taken
    left = min(MOST_SLICED * capacity - taken, 0.95 * capacity - taken - promised)
    if sliced.bits_per_second > left * (1 + 1e-9):
        raise Refused(
            f"{link.name} has {show_rate(capacity)}, of which slices have {show_rate(taken)} and transfers are promised "
            f"{show_rate(promised)}: {show_rate(sliced.bits_per_second)} more do not fit.",
            remedy=f"Ask for at most {show_rate(max(0.0, left))}; {MOST_SLICED:.0%} of a link can be sliced.",
            code="slice_too_large",
        )
