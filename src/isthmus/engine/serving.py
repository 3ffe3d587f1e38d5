"""Who is served next: the waiting tasks of all projects in one line, by age, priority and fair share, page by page.

Each project's own queue is an index; the line is merged from them as far as a round reads, so a project with a million
tasks costs no more than one with ten. What a project used is kept as one decaying number beside its usage records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from isthmus.domain.lifecycle import AttemptState, TaskState
from isthmus.domain.placement import Snapshot, Standing
from isthmus.engine.settings import EngineSettings
from isthmus.engine.work import is_due
from isthmus.placement.fairshare import Account, Leads, decayed, in_turn
from isthmus.store import tables

_AT_A_TIME = 100  # projects asked in one query
_FORGOTTEN = 1.0  # processor-seconds: a project with less has no part in the shares unless it has work
ACCELERATOR_AS_CPUS = 16  # a device counts as so many processors: about what stands beside it in a node


@dataclass(slots=True)
class Line:
    """The line of one round. `after` remembers for each project the rank and id that were read last."""

    leads: Leads
    projects: tuple[str, ...]
    after: dict[str, tuple[float, str]] = field(default_factory=dict)


def open_line(connection: sa.Connection, now: float, settings: EngineSettings, processors: float) -> Line:
    """The line as it begins: the projects that have waiting tasks, and how far each is ahead of its share."""
    projects = _with_waiting(connection)
    accounts = read_accounts(connection, now, settings.fair_half_life, projects) if len(projects) > 1 else {}
    return Line(Leads(accounts, processors), tuple(projects))


def read_waiting(
    connection: sa.Connection,
    now: float,
    limit: int,
    line: Line,
    cost: Callable[[Any], float],
    weight: float,
) -> list[Any]:
    """The next tasks that want a place, in the order of service; `cost` in processor-seconds. Moves the line on, so it is
    called once for each page."""
    after = dict(line.after)
    each = limit if len(line.projects) < 2 else max(20, 2 * limit // len(line.projects))
    first = _pages(connection, now, line.projects, each, after)
    queues = {name: _queue(connection, now, name, rows, each) for name, rows in first.items()}
    found: list[Any] = []
    for row in in_turn(queues, line.leads, rank=lambda row: row.rank, cost=cost, weight=weight):
        found.append(row)
        after[row.project] = (row.rank, row.id)
        if len(found) == limit:
            break
    line.after = after
    return found


def processors_of(snapshot: Snapshot) -> float:
    """All processors of pools that are up, devices counted as processors."""
    return float(
        sum(
            view.pool.nodes * (view.pool.cpus_per_node + ACCELERATOR_AS_CPUS * view.pool.accelerators_per_node)
            for view in snapshot.pools
            if view.pool.up
        )
    )


def as_cpus(cpus: float, accelerators: float) -> float:
    """Processors and devices as processors."""
    return cpus + ACCELERATOR_AS_CPUS * accelerators


def read_accounts(
    connection: sa.Connection, now: float, half_life: float, more: Sequence[str] = ()
) -> Mapping[str, Account]:
    """Share, use and promises of the projects that used something lately, have live attempts, or are named in `more`."""
    p, a = tables.projects.c, tables.attempts.c
    used = {
        row.project: decayed(row.used, now - row.as_of, half_life)
        for row in connection.execute(tables.project_usage.select())
    }
    running = (
        sa.select(
            a.project,
            sa.func.sum((sa.cast(a.cpus, sa.Double) + ACCELERATOR_AS_CPUS * a.accelerators) * a.expected_seconds).label(
                "promised"
            ),
        )
        .where(sa.text(tables.LIVE))
        .where(a.state != AttemptState.COLLECTING.value)
        .group_by(a.project)
    )
    promised = {row.project: float(row.promised) for row in connection.execute(running)}
    shares = {row.name: row.share for row in connection.execute(sa.select(p.name, p.share))}
    active = {name for name, amount in used.items() if amount >= _FORGOTTEN} | promised.keys() | set(more)
    return {
        name: Account(share=shares.get(name, 1.0), used=used.get(name, 0.0), promised=promised.get(name, 0.0))
        for name in sorted(active)
    }


def standing_of(
    connection: sa.Connection, now: float, half_life: float, project: str
) -> tuple[Account, Standing | None]:
    """A project's account and how much of its share it has used; the project itself counts as active."""
    accounts = read_accounts(connection, now, half_life, [project])
    return accounts[project], Leads(accounts, 1.0).standing(project)


def add_usage(connection: sa.Connection, now: float, half_life: float, used: Mapping[str, float]) -> None:
    """Count processor-seconds to projects, in the transaction that stores their records, in the order of names."""
    u = tables.project_usage
    for project, amount in sorted(used.items()):
        query = sa.select(u.c.used, u.c.as_of).where(u.c.project == project).with_for_update()
        row = connection.execute(query).one_or_none()
        if row is None:
            row = _begin(connection, now, project, query)
        kept = decayed(row.used, now - row.as_of, half_life) + amount
        connection.execute(u.update().where(u.c.project == project).values(used=kept, as_of=max(now, row.as_of)))


def _begin(connection: sa.Connection, now: float, project: str, query: sa.Select[Any]) -> Any:
    """The project's first row; another transaction may make it at the same time."""
    values = {"project": project, "used": 0.0, "as_of": now}
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert

        connection.execute(insert(tables.project_usage).values(values).on_conflict_do_nothing())
    else:
        connection.execute(tables.project_usage.insert().values(values))
    return connection.execute(query).one()


def _with_waiting(connection: sa.Connection) -> list[str]:
    """The projects that have waiting tasks: one step into the index for each, however many tasks there are."""
    t = tables.tasks.c
    # Ordered like the index of waiting tasks, so that no other one is taken.
    least = (
        sa.select(t.project.label("name"))
        .where(t.state == sa.text("'waiting'"))
        .order_by(t.project, t.rank, t.id)
        .limit(1)
    )
    steps = sa.select(least.scalar_subquery().label("name")).cte("steps", recursive=True)
    following = least.where(t.project > steps.c.name).scalar_subquery()
    steps = steps.union_all(sa.select(following).where(steps.c.name.is_not(None)))
    return [name for name in connection.execute(sa.select(steps.c.name)).scalars() if name is not None]


def _queue(connection: sa.Connection, now: float, project: str, rows: list[Any], each: int) -> Iterator[Any]:
    """A project's own queue, from a first page on; the next is read when it is needed."""
    while rows:
        yield from rows
        if len(rows) < each:
            return
        last = {project: (rows[-1].rank, rows[-1].id)}
        rows = _pages(connection, now, [project], each, last).get(project, [])


def first_of(connection: sa.Connection, projects: Sequence[str], limit: int) -> list[Any]:
    """The first waiting tasks of some projects by rank, whether or not it is time to look at them again."""
    found: list[Any] = []
    for start in range(0, len(projects), _AT_A_TIME):
        parts = [_page(None, name, limit, None).subquery() for name in projects[start : start + _AT_A_TIME]]
        found += connection.execute(sa.union_all(*(sa.select(part) for part in parts))).all()
    found.sort(key=lambda row: (row.rank, row.id))
    return found[:limit]


def _pages(
    connection: sa.Connection, now: float, projects: Sequence[str], each: int, after: Mapping[str, tuple[float, str]]
) -> dict[str, list[Any]]:
    """The next `each` tasks of each project, by rank, then id."""
    found: dict[str, list[Any]] = {}
    for start in range(0, len(projects), _AT_A_TIME):
        parts = [_page(now, name, each, after.get(name)).subquery() for name in projects[start : start + _AT_A_TIME]]
        for row in connection.execute(sa.union_all(*(sa.select(part) for part in parts))):
            found.setdefault(row.project, []).append(row)
    for rows in found.values():
        rows.sort(key=lambda row: (row.rank, row.id))
    return found


def _page(now: float | None, project: str, each: int, after: tuple[float, str] | None) -> sa.Select[Any]:
    t = tables.tasks.c
    query = (
        sa.select(t.id, t.user, t.project, t.name, t.spec, t.rank, t.avoid_sites, t.input_bytes, t.gang)
        .where(t.state == sa.literal_column(f"'{TaskState.WAITING.value}'"))  # as the index of waiting tasks has it
        .where(t.project == project)
        .order_by(t.rank, t.id)
        .limit(each)
    )
    if now is not None:
        query = query.where(is_due(t.due_at, now))
    if after is not None:
        query = query.where(sa.or_(t.rank > after[0], sa.and_(t.rank == after[0], t.id > after[1])))
    return query
