"""Takes in what operators declare of the network, and what is measured of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from isthmus.domain.network import DeclaredNetwork, Figure, Metric, NetLink, NetNode
from isthmus.store import tables
from isthmus.store.documents import dump, load


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One line of what a declaration changes: `was` and `becomes` are the fields that differ, as text."""

    what: Literal["node", "link"]
    name: str
    change: Literal["added", "removed", "changed"]
    fields: dict[str, tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A figure of one direction of a link, or with an empty `link` of the way that packets take by themselves."""

    source: str
    target: str
    link: str
    metric: Metric
    figure: Figure
    since: float | None = None
    watched: str = ""


def declare(
    connection: sa.Connection, network: DeclaredNetwork, *, by: str, now: float, dry_run: bool = False
) -> tuple[Difference, ...]:
    """Make this what is declared, all of it; what stays the same keeps its time. Figures of links that are gone go too.

    Returns what differs from before, nodes first; `dry_run` stores nothing.
    """
    n, k = tables.net_nodes, tables.net_links
    old_nodes = {row.name: row.body for row in connection.execute(n.select())}
    old_links = {row.name: row.body for row in connection.execute(k.select())}
    new_nodes = {node.name: node for node in network.nodes}
    new_links = {link.name: link for link in network.links}
    found = [*_differences("node", old_nodes, new_nodes), *_differences("link", old_links, new_links)]
    if dry_run:
        return tuple(found)
    for item in found:
        table = n if item.what == "node" else k
        connection.execute(table.delete().where(table.c.name == item.name))
        if item.what == "link" and item.change != "added":
            connection.execute(tables.link_states.delete().where(tables.link_states.c.link == item.name))
        if item.change == "removed":
            continue
        kept: dict[str, Any] = {"name": item.name, "declared_by": by, "declared_at": now}
        if item.what == "node":
            node = new_nodes[item.name]
            connection.execute(n.insert().values(**kept, kind=node.kind.value, body=dump(node)))
        else:
            link = new_links[item.name]
            connection.execute(k.insert().values(**kept, one_end=link.ends[0], other_end=link.ends[1], body=dump(link)))
    return tuple(found)


def record(connection: sa.Connection, measured: Iterable[Measured]) -> None:
    """Store figures, each in place of the older one of its source; an older one than what is stored changes nothing."""
    s = tables.link_states
    for item in measured:
        values = {
            "value": item.figure.value,
            "error": item.figure.error,
            "measured_at": item.figure.measured_at,
            "since": item.since,
            "watched": item.watched,
        }
        key = {
            "source": item.source,
            "target": item.target,
            "link": item.link,
            "metric": item.metric.value,
            "origin": item.figure.source.value,
        }
        at = sa.and_(*(s.c[name] == value for name, value in key.items()))
        stored = connection.execute(sa.select(s.c.measured_at).where(at)).scalar()
        if stored is None:
            connection.execute(s.insert().values(**key, **values))
        elif stored <= item.figure.measured_at:
            connection.execute(s.update().where(at).values(**values))


def _differences(
    what: Literal["node", "link"], old: dict[str, str], new: dict[str, NetNode] | dict[str, NetLink]
) -> Iterable[Difference]:
    kind: type[Any] = NetNode if what == "node" else NetLink
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            yield Difference(what=what, name=name, change="removed", fields={})
        elif name not in old:
            yield Difference(what=what, name=name, change="added", fields={})
        elif (before := load(kind, old[name])) != new[name]:
            fields = {
                field: (str(getattr(before, field)), str(getattr(new[name], field)))
                for field in kind.__dataclass_fields__
                if getattr(before, field) != getattr(new[name], field)
            }
            yield Difference(what=what, name=name, change="changed", fields=fields)
