"""The states of TES, as they are shown and as they are asked for."""

from __future__ import annotations

import itertools

import sqlalchemy as sa

from isthmus.api.tes.models import TesState
from isthmus.api.tes.states import in_state, state_of
from isthmus.domain.lifecycle import EndReason, TaskState
from isthmus.store import tables


def test_every_task_is_found_by_the_state_that_it_shows() -> None:
    """For every combination of state, reason, start and cancel, exactly the shown state's filter finds the row."""
    engine = sa.create_engine("sqlite://")
    tables.metadata.create_all(engine, [tables.tasks])
    cases = itertools.product(TaskState, ["", *EndReason], [None, 1.0], [None, 2.0])
    rows = [
        {
            "id": f"{number:026}",
            "project": "p",
            "user": "u",
            "spec": "{}",
            "state": state.value,
            "reason": str(reason),
            "started_at": started,
            "cancel_requested_at": cancelled,
            "rank": 0.0,
            "max_attempts": 1,
            "created_at": 0.0,
            "updated_at": 0.0,
        }
        for number, (state, reason, started, cancelled) in enumerate(cases)
    ]
    with engine.begin() as connection:
        connection.execute(tables.tasks.insert(), rows)
        shown = {row.id: state_of(row) for row in connection.execute(sa.select(tables.tasks))}
        found: dict[str, list[TesState]] = {task_id: [] for task_id in shown}
        for state in TesState:
            for task_id in connection.scalars(sa.select(tables.tasks.c.id).where(in_state(state))):
                found[task_id].append(state)
    engine.dispose()
    assert found == {task_id: [state] for task_id, state in shown.items()}
    assert set(shown.values()) == set(TesState) - {TesState.UNKNOWN}
