"""How many tasks are in each state, counted up to a bound, so that the answer costs the same in any table."""

from __future__ import annotations

from typing import Annotated

import sqlalchemy as sa
from fastapi import Query, Response

from isthmus.api import answers
from isthmus.api.body import NAME, answer
from isthmus.api.routing import Router
from isthmus.api.service import Calling, Serving
from isthmus.domain.lifecycle import TaskState
from isthmus.store import tables
from isthmus.trust.access import Scope, Signed

router = Router("tasks")
COUNTED = 10_000


@router.route("GET", "/v1/tasks:counts", rule=Signed(Scope.TASKS_READ), answer=answers.TaskCounts)
async def count_tasks(
    service: Serving, caller: Calling, project: Annotated[str | None, Query(pattern=NAME)] = None
) -> Response:
    """Tasks that one may see by state; a state with more than 10,000 is named in `more`."""
    if project is not None:
        caller.need_project(project)
    t = tables.tasks.c

    def read(connection: sa.Connection) -> dict[str, int]:
        projects = [project] if project is not None else sorted(caller.projects)
        if project is None and caller.rules_all:
            projects = list(connection.scalars(sa.select(tables.projects.c.name)))
        found = {}
        for state in TaskState:
            some = sa.select(sa.literal(1)).where(t.project.in_(projects), t.state == state.value).limit(COUNTED + 1)
            number = connection.scalar(sa.select(sa.func.count()).select_from(some.subquery())) or 0
            if number:
                found[state.value] = number
        return found

    found = await service.database.read(read)
    more = [state for state, number in found.items() if number > COUNTED]
    return answer({"states": {state: min(number, COUNTED) for state, number in found.items()}, "more": more})
