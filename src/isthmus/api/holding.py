"""What holds waiting tasks: the reasons of their last decisions, counted."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Annotated, Any

import orjson
import sqlalchemy as sa
from fastapi import Query, Response

from isthmus.api import answers
from isthmus.api.body import ID, NAME, answer
from isthmus.api.routing import Router
from isthmus.api.service import Calling, Serving
from isthmus.domain.lifecycle import TaskState
from isthmus.store import tables
from isthmus.trust.access import Scope, Signed

router = Router("tasks")
LOOKED_AT = 5000  # decisions read for one answer, the newest tasks first


@router.route("GET", "/v1/tasks:holding", rule=Signed(Scope.TASKS_READ), answer=answers.Holding)
async def what_holds_tasks(
    service: Serving,
    caller: Calling,
    project: Annotated[str | None, Query(pattern=NAME)] = None,
    array_id: Annotated[str | None, Query(pattern=ID)] = None,
    limit: Annotated[int, Query(ge=1, le=20)] = 3,
) -> Response:
    """The reasons that hold most of the waiting tasks, with what would help; at most the newest 5,000 tasks are looked at."""
    if project is not None:
        caller.need_project(project)
    t, r = tables.tasks.c, tables.receipts.c
    conditions = [t.state == TaskState.WAITING.value]
    if project is not None:
        conditions.append(t.project == project)
    elif not caller.rules_all:
        conditions.append(t.project.in_(sorted(caller.projects)))
    if array_id is not None:
        conditions.append(t.array_id == array_id)

    def read(connection: sa.Connection) -> tuple[int, list[str]]:
        waiting = connection.execute(sa.select(sa.func.count()).select_from(tables.tasks).where(*conditions))
        bodies = (
            sa.select(r.body)
            .join_from(tables.tasks, tables.receipts, r.task_id == t.id)
            .where(*conditions, r.attempt == "")
            .order_by(t.id.desc())
            .limit(LOOKED_AT)
        )
        return waiting.scalar_one(), list(connection.scalars(bodies))

    waiting, bodies = await service.database.read(read)
    return answer({"waiting": waiting, "looked_at": len(bodies), "reasons": _reasons(bodies)[:limit]})


def _reasons(bodies: Iterable[str]) -> list[dict[str, Any]]:
    """Each reason with the tasks that it holds at some pool, at which pools, and the help that most of them were told."""
    tasks: Counter[str] = Counter()
    pools: dict[str, set[str]] = defaultdict(set)
    remedies: dict[str, Counter[str]] = defaultdict(Counter)
    for body in bodies:
        receipt = orjson.loads(body)
        at: dict[str, set[str]] = defaultdict(set)
        for candidate in receipt["candidates"]:
            at[candidate["why"]].add(f"{candidate['site']}/{candidate['pool']}")
        if not receipt["candidates"] and receipt.get("together"):
            at[receipt["together"]["why"]] = set()
        for why, where in at.items():
            tasks[why] += 1
            pools[why] |= where
            if receipt.get("remedy"):
                remedies[why][receipt["remedy"]] += 1
    return [
        {
            "why": why,
            "tasks": count,
            "pools": sorted(pools[why]),
            "remedy": max(remedies[why], key=lambda text: (remedies[why][text], text), default=""),
        }
        for why, count in sorted(tasks.items(), key=lambda item: (-item[1], item[0]))
    ]
