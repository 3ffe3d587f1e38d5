"""What a round decided, written in one transaction: attempts with their promises, receipts, ends of what is too late."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson
import sqlalchemy as sa

from isthmus.domain.lifecycle import AttemptState, EndReason, TaskState
from isthmus.domain.placement import PASSING, Gang, Receipt, Why
from isthmus.domain.site import SiteState
from isthmus.domain.task import TaskSpec
from isthmus.engine.clock import new_id
from isthmus.engine.endings import end_tasks
from isthmus.engine.leases import Lease, guard
from isthmus.engine.roads import held_by_a_time, promise
from isthmus.engine.settings import EngineSettings
from isthmus.placement import Decision
from isthmus.store import events, tables
from isthmus.store.database import promise_alone
from isthmus.store.documents import dump


class Verdicts:
    """Writes verdicts; remembers the last reasons it wrote, so that it writes a receipt of what waits only when they change."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._told: dict[str, tuple[str, ...]] = {}

    def write(
        self,
        connection: sa.Connection,
        now: float,
        lease: Lease,
        specs: Mapping[str, TaskSpec],
        decision: Decision,
        gangs: Mapping[str, Gang],
        by_a_time: frozenset[str],
    ) -> int:
        """Placements become attempts, with their promises and receipts; what waits keeps its reason; what is too late ends. How many
        were placed. LostLease when another process places now. `by_a_time`: the copies whose promises the decision has seen; with another one
        since then its own may not fit any more, and nothing is written: the next round decides with what is left."""
        guard(connection, lease)
        if any(one.stretches for placement in decision.placements for one in placement.transfers):
            promise_alone(connection)
            if not held_by_a_time(connection) <= by_a_time:
                return 0
        accounts = _accounts(connection)
        wanted = {p.task_id: p for p in decision.placements if p.site in accounts}  # the others: in the next round
        locked = _whole(self._lock_waiting(connection, sorted(wanted)), gangs)
        attempt_rows: list[dict[str, Any]] = []
        task_rows: list[dict[str, Any]] = []
        receipt_rows: list[dict[str, Any]] = []
        receipts = {receipt.task_id: receipt for receipt in decision.receipts}
        for task_id, note in _taken_back(connection, [task.attempt for task in locked if task.moves + task.restarts]):
            receipts[task_id] = replace(receipts[task_id], after=note)
        for task in locked:
            placement, spec = wanted[task.id], specs[task.id]
            demand = spec.demand
            key = new_id(now)
            attempt_rows.append(
                {
                    "key": key,
                    "task_id": task.id,
                    "gang": task.gang,
                    "project": task.project,
                    "user": task.user,
                    "number": task.attempts + 1,
                    "fence": task.fence + 1,
                    "site": placement.site,
                    "pool": placement.pool,
                    "account": _account(accounts[placement.site], task.user),
                    "state": AttemptState.PLACED.value,
                    "nodes": demand.nodes,
                    "cpus": demand.cpus_per_node * demand.nodes,
                    "memory_bytes": demand.memory_bytes * demand.nodes,
                    "accelerators": demand.accelerators.count * demand.nodes,
                    "walltime_seconds": demand.walltime_seconds,
                    "expected_seconds": placement.run_seconds,
                    "grace_seconds": spec.checkpoint_grace_seconds if spec.preemptible else 0,
                    "predicted_seconds": placement.predicted_seconds,
                    "created_at": now,
                    "updated_at": now,
                }
            )
            task_rows.append(
                {
                    "which": task.id,
                    "state": TaskState.PLACED.value,
                    "attempt": key,
                    "attempts": task.attempts + 1,
                    "fence": task.fence + 1,
                    "site": placement.site,
                    "pool": placement.pool,
                    "updated_at": now,
                }
            )
            receipt_rows.append(
                {"task_id": task.id, "attempt": key, "decided_at": now, "body": dump(receipts[task.id])}
            )
        if attempt_rows:
            connection.execute(tables.attempts.insert(), attempt_rows)
            connection.execute(tables.tasks.update().where(tables.tasks.c.id == sa.bindparam("which")), task_rows)
            connection.execute(tables.receipts.insert(), receipt_rows)
            for task in locked:
                promise(connection, now, task.user, task.id, wanted[task.id], self._settings.home_region)
            events.add(
                connection,
                [
                    events.event(
                        now,
                        "attempt.placed",
                        project=row["project"],
                        task_id=row["task_id"],
                        attempt=row["key"],
                        site=row["site"],
                        body={"pool": row["pool"], "number": row["number"]},
                    )
                    for row in attempt_rows
                ],
            )
        placed = {placement.task_id for placement in decision.placements}
        self._tell_waiting(connection, now, [r for r in decision.receipts if r.task_id not in placed])
        self._end_late(connection, now, {task_id: spec for task_id, spec in specs.items() if task_id not in placed})
        return len(attempt_rows)

    @staticmethod
    def _lock_waiting(connection: sa.Connection, ids: Sequence[str]) -> list[Any]:
        """Those tasks that still wait, locked; one that a user cancelled or holds meanwhile is left out."""
        rows: list[Any] = []
        for start in range(0, len(ids), 500):
            query = (
                tables.tasks.select()
                .where(tables.tasks.c.id.in_(ids[start : start + 500]))
                .where(tables.tasks.c.state == TaskState.WAITING.value)
                .order_by(tables.tasks.c.id)
            )
            rows.extend(connection.execute(query.with_for_update(skip_locked=True)))
        return rows

    def _end_late(self, connection: sa.Connection, now: float, specs: Mapping[str, TaskSpec]) -> None:
        """A task whose deadline passed before it found a place can no longer be what its user asked for: it ends."""
        late = [
            task_id
            for task_id, spec in specs.items()
            if spec.objective.deadline is not None and spec.objective.deadline.timestamp() <= now
        ]
        still = [row.id for row in self._lock_waiting(connection, sorted(late))]
        message = "Its deadline passed before it found a place; its last receipt says what stood in the way."
        ending = (TaskState.FAILED, EndReason.INFEASIBLE)
        end_tasks(connection, now, dict.fromkeys(still, ending), {task_id: {"message": message} for task_id in still})

    def _tell_waiting(self, connection: sa.Connection, now: float, receipts: Sequence[Receipt]) -> None:
        """Keep the latest reason why a task waits, when it changed; look later again at what can go nowhere."""
        if len(self._told) > 200_000:
            self._told.clear()
        fresh: list[Receipt] = []
        hopeless: list[str] = []
        for receipt in receipts:
            reasons = tuple(candidate.why for candidate in receipt.candidates)
            lacking = ""
            if receipt.together is not None:
                reasons += (receipt.together.why,)
                lacking = receipt.together.offered if receipt.together.why is Why.PARTS_MISSING else ""
            if self._told.get(receipt.task_id) != (*reasons, lacking):
                self._told[receipt.task_id] = (*reasons, lacking)
                fresh.append(receipt)
            if reasons and not any(reason in PASSING for reason in reasons):
                hopeless.append(receipt.task_id)
        ids = [receipt.task_id for receipt in fresh]
        for start in range(0, len(ids), 500):
            connection.execute(
                tables.receipts.delete()
                .where(tables.receipts.c.task_id.in_(ids[start : start + 500]))
                .where(tables.receipts.c.attempt == "")
            )
        if fresh:
            connection.execute(
                tables.receipts.insert(),
                [{"task_id": r.task_id, "attempt": "", "decided_at": now, "body": dump(r)} for r in fresh],
            )
        for start in range(0, len(hopeless), 500):
            connection.execute(
                tables.tasks.update()
                .where(tables.tasks.c.id.in_(hopeless[start : start + 500]))
                .where(tables.tasks.c.state == TaskState.WAITING.value)
                .values(due_at=now + self._settings.hopeless_interval)
            )


def _whole(rows: Sequence[Any], gangs: Mapping[str, Gang]) -> list[Any]:
    """The tasks without those of which another part of the gang is not among them: it was cancelled or held meanwhile."""
    here = Counter(row.gang for row in rows if row.gang)
    return [row for row in rows if row.id not in gangs or here[row.gang] == gangs[row.id].parts]


def _taken_back(connection: sa.Connection, keys: Sequence[str]) -> list[tuple[str, str]]:
    """Of attempts that the engine took back: their task, and why, in words."""
    a = tables.attempts.c
    found: list[tuple[str, str]] = []
    for start in range(0, len(keys), 500):
        query = sa.select(a.task_id, a.ending_note).where(a.key.in_(keys[start : start + 500])).where(a.ending != "")
        found += [(row.task_id, row.ending_note) for row in connection.execute(query)]
    return found


def _accounts(connection: sa.Connection) -> dict[str, dict[str, str]]:
    """Who is who at each site that takes work now. None of them drains or leaves before this transaction has ended."""
    query = sa.select(tables.sites.c.name, tables.sites.c.accounts).where(
        tables.sites.c.state == SiteState.ACTIVE.value
    )
    query = query.order_by(tables.sites.c.name).with_for_update(read=True, key_share=True)
    return {row.name: orjson.loads(row.accounts) for row in connection.execute(query)}


def _account(accounts: Mapping[str, str], user: str) -> str:
    return accounts.get(user, accounts.get("*", "")).replace("{user}", user)
