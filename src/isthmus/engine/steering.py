"""Policies in the store: what transfers, tasks and operators want of the network, and the marks by which their packets are known.

A transfer wants its path before it starts (`want`), waits until `is_programmed`, marks its packets as told, and gives it up at its end
(`give_up`). The reconciler of `engine.routers` makes the routers follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import orjson
import sqlalchemy as sa

from isthmus.domain.errors import Busy, Conflict, Invalid, NotFound
from isthmus.domain.network import NetworkView, NodeKind
from isthmus.network.control.desired import Match
from isthmus.store import tables
from isthmus.store.documents import dump, load

Owner = Literal["transfer", "task", "operator"]
_DSCPS = [value for value in range(1, 64) if value % 8 and value not in (46, 44)]
"""Those that no class of RFC 4594 needs for itself: neither class selectors nor expedited forwarding nor voice admission."""
_MOST_WAYPOINTS = 7  # a path has eight segments at most, the last of which leads out of the network
_FIRST_LABEL, _LAST_LABEL = 0x80000, 0xFFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One policy; `nodes` is the path from site to site, `match` the marks that its packets carry."""

    name: str
    source: str
    target: str
    nodes: tuple[str, ...]
    match: Match
    owner: Owner
    slice_dscp: int = 0
    wanted: bool = True
    error: str = ""
    programmed_at: float | None = None
    moved_at: float | None = None
    created_at: float = 0.0


def want(
    connection: sa.Connection,
    view: NetworkView,
    *,
    name: str,
    nodes: Sequence[str],
    owner: Owner,
    now: float,
    match: Match | None = None,
    slice_dscp: int = 0,
) -> Wanted:
    """Ask that packets with these marks go from the first of `nodes` to the last, over those between, in the slice with a DSCP (0: in none).

    Without `match` a mark is chosen that no other policy of the pair has: a DSCP, or when those are used up an IPv6 flow label. Raises
    Conflict for a name that is there, or marks that another policy of the pair has; Invalid for a path that the network does not have.
    """
    check_path(view, nodes)
    p = tables.net_policies
    if connection.execute(sa.select(p.c.name).where(p.c.name == name)).first() is not None:
        raise Conflict(f"There is a policy {name}.", remedy="Give it up first, or use another name.")
    used = [one.match for one in policies(connection) if (one.source, one.target) == (nodes[0], nodes[-1])]
    chosen = match or _free_mark(used)
    if chosen in used:
        raise Conflict("Another policy of this pair has these marks.", remedy="Choose others, or none.")
    connection.execute(
        p.insert().values(
            name=name,
            source=nodes[0],
            target=nodes[-1],
            nodes=orjson.dumps(list(nodes)).decode(),
            match=dump(chosen),
            owner=owner,
            slice_dscp=slice_dscp,
            wanted=True,
            created_at=now,
        )
    )
    return Wanted(
        name=name,
        source=nodes[0],
        target=nodes[-1],
        nodes=tuple(nodes),
        match=chosen,
        owner=owner,
        slice_dscp=slice_dscp,
        created_at=now,
    )


def give_up(connection: sa.Connection, name: str) -> None:
    """Ask that the routers forget a policy; nothing when there is none."""
    p = tables.net_policies
    connection.execute(p.update().where(p.c.name == name).values(wanted=False, programmed_at=None))


def is_programmed(connection: sa.Connection, name: str) -> bool:
    """Whether the routers have it as it is wanted; NotFound when there is none."""
    p = tables.net_policies
    row = connection.execute(sa.select(p.c.programmed_at).where(p.c.name == name, p.c.wanted)).first()
    if row is None:
        raise NotFound(f"There is no policy {name}.")
    return row.programmed_at is not None


def policies(connection: sa.Connection) -> tuple[Wanted, ...]:
    """All of them, by name."""
    return tuple(
        Wanted(
            name=row.name,
            source=row.source,
            target=row.target,
            nodes=tuple(orjson.loads(row.nodes)),
            match=load(Match, row.match),
            owner=row.owner,
            slice_dscp=row.slice_dscp,
            wanted=row.wanted,
            error=row.error,
            programmed_at=row.programmed_at,
            moved_at=row.moved_at,
            created_at=row.created_at,
        )
        for row in connection.execute(tables.net_policies.select().order_by(tables.net_policies.c.name))
    )


def check_path(view: NetworkView, nodes: Sequence[str]) -> None:
    """Raise Invalid when the nodes are no path from a site to another over routers, of which the first and the last obey Isthmus."""
    known = {node.name: node for node in view.nodes}
    for place, name in enumerate(nodes):
        if name not in known:
            raise Invalid(f"nodes.{place}", f"There is no node {name}.", remedy="`isthmus net show` shows the nodes.")
    inner = [known[name] for name in nodes[1:-1]]
    if not inner or any(node.kind is not NodeKind.ROUTER for node in inner) or len(set(nodes)) != len(nodes):
        raise Invalid("nodes", "A path leads from a site over routers to another.", remedy="Such as alpha r1 r2 beta.")
    if any(known[name].kind is not NodeKind.SITE for name in (nodes[0], nodes[-1])):
        raise Invalid("nodes", "A path begins and ends at a site.", remedy="Such as alpha r1 r2 beta.")
    joined = {(link.source, link.target) for link in view.links}
    for place, pair in enumerate(pairwise(nodes)):
        if pair not in joined:
            raise Invalid(f"nodes.{place + 1}", f"No link joins {pair[0]} and {pair[1]}.")
    for node in (inner[0], inner[-1]):
        if not node.locator:
            raise Invalid("nodes", f"The router {node.name} has no locator: paths through it cannot be set.")
    from isthmus.network.candidates import waypoints

    via = waypoints(view, nodes[1:-1])
    if via is None or len(via) > _MOST_WAYPOINTS:
        raise Invalid(
            "nodes",
            "No segments hold packets to this path: routing leads from one of its routers to the next over others.",
            remedy="`isthmus net paths` shows paths that policies can take.",
        )
    if inner[0].control is None:
        raise Invalid(
            "nodes", f"Nobody said how the daemon of {inner[0].name} is reached.", remedy="Declare `control`."
        )


def _free_mark(used: Sequence[Match]) -> Match:
    dscps = {match.dscp for match in used}
    for value in _DSCPS:
        if value not in dscps:
            return Match(dscp=value)
    labels = {match.flow_label for match in used}
    for label in range(_FIRST_LABEL, _LAST_LABEL):
        if label not in labels:
            return Match(flow_label=label)
    raise Busy("Every mark of this pair is used.", remedy="Wait until some transfers have ended.")
