"""What holds waiting tasks, over all that one may see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx

from isthmus.domain.placement import Candidate, Receipt, Why
from isthmus.store import tables
from isthmus.store.documents import dump
from tests.api.conftest import House, problem_of


async def _waiting(house: House, client: httpx.AsyncClient, refusals: Sequence[tuple[str, Why]], remedy: str) -> str:
    """A waiting task whose last decision refused these pools for these reasons."""
    task: str = (await client.post("/v1/tasks", json={"command": ["a"]})).json()["id"]
    candidates = tuple(Candidate(site=site, pool="p", why=why) for site, why in refusals)
    receipt = Receipt(task_id=task, decided_at=1.0, candidates=candidates, remedy=remedy)
    row: dict[str, Any] = {"task_id": task, "attempt": "", "decided_at": 1.0, "body": dump(receipt)}
    house.execute(tables.receipts.insert().values(row))
    return task


async def test_the_reasons_that_hold_most_come_first(each_house: House, each_admin: httpx.AsyncClient) -> None:
    """A reason counts once for a task, with all its pools and the help that most of its tasks were told; a task that no round
    has looked at is among the waiting only."""
    memory, full = Why.TOO_LITTLE_MEMORY, Why.FULL_NOW
    for _ in range(2):
        await _waiting(each_house, each_admin, [("a", memory), ("b", memory)], "Ask for less.")
    last = await _waiting(each_house, each_admin, [("a", full), ("c", memory)], "Wait.")
    await each_admin.post("/v1/tasks", json={"command": ["a"]})
    told = (await each_admin.get("/v1/tasks:holding")).json()
    assert (told["waiting"], told["looked_at"]) == (4, 3)
    assert told["reasons"] == [
        {"why": "too_little_memory", "tasks": 3, "pools": ["a/p", "b/p", "c/p"], "remedy": "Ask for less."},
        {"why": "full_now", "tasks": 1, "pools": ["a/p"], "remedy": "Wait."},
    ]
    one = (await each_admin.get("/v1/tasks:holding", params={"limit": 1})).json()
    assert [reason["why"] for reason in one["reasons"]] == ["too_little_memory"]
    await each_admin.post(f"/v1/tasks/{last}:cancel")
    assert (await each_admin.get("/v1/tasks:holding")).json()["waiting"] == 3
    nothing = (await each_admin.get("/v1/tasks:holding", params={"project": "default", "array_id": last})).json()
    assert nothing == {"waiting": 0, "looked_at": 0, "reasons": []}
    problem_of(await each_admin.get("/v1/tasks:holding", params={"limit": 0}), 422)
