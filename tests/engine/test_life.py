"""Tasks go through their whole life, with one engine and with several, on each database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from isthmus.domain.lifecycle import EndReason
from isthmus.domain.placement import Receipt, Snapshot, WaitingTask
from isthmus.domain.task import Array, Constraints, Demand, Dependency, Input, Objective, TaskSpec
from isthmus.engine import intents, leases, leaving, placing
from isthmus.engine.checking import check
from isthmus.engine.describing import is_idle
from isthmus.engine.leases import LostLease, guard
from isthmus.placement import Decision
from isthmus.sites.null import NullSite
from isthmus.sites.port import Full, Job, Rejected, SubmitOutcome
from isthmus.store import tables
from isthmus.store.database import Database
from isthmus.store.documents import load
from tests.engine.conftest import QUICK, EngineMaker, count, join, task


async def until(condition: Callable[[], bool] | Callable[[], Awaitable[bool]], seconds: float = 60.0) -> None:
    """Wait for a condition, at most so long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found if isinstance(found, bool) else await found:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it never came to be")


async def submit(store: Database, *specs: TaskSpec) -> list[list[str]]:
    return await store.write(intents.submit, now=time.time(), user="ada", project="p", specs=specs)


def ended(store: Database) -> int:
    return count(store, tables.tasks, tables.tasks.c.state == "succeeded")


def assert_whole(store: Database) -> None:
    """No invariant is broken and every attempt that ran is accounted exactly once."""
    assert store.read_now(lambda connection: list(check(connection))) == []


async def test_a_hundred_tasks_succeed_and_are_accounted_once(store: Database, make_engine: EngineMaker) -> None:
    """Every task succeeds with one attempt and one usage record with its charge."""
    join(store)
    engine = make_engine(store)
    await engine.start()
    await submit(store, TaskSpec(command=("true",), array=Array(size=100)))
    engine.wake()
    await until(lambda: ended(store) == 100 and count(store, tables.usage_records) == 100)
    assert count(store, tables.attempts) == 100
    assert_whole(store)


async def test_dependencies_run_in_order(store: Database, make_engine: EngineMaker) -> None:
    """A task that depends on another starts after the other ended."""
    join(store)
    engine = make_engine(store)
    await engine.start()
    ids = await submit(
        store,
        TaskSpec(name="first", command=("true",)),
        TaskSpec(name="then", command=("true",), depends_on=(Dependency(task="first"),)),
    )
    engine.wake()
    await until(lambda: ended(store) == 2)
    assert task(store, ids[0][0]).ended_at <= task(store, ids[1][0]).started_at + 0.001
    assert_whole(store)


async def test_a_running_task_is_cancelled(store: Database, make_engine: EngineMaker) -> None:
    """A cancel reaches the site, and the task ends as cancelled."""
    join(store, config={"seconds": 3600})
    engine = make_engine(store)
    await engine.start()
    [[one]] = await submit(store, TaskSpec(command=("true",)))
    engine.wake()
    await until(lambda: task(store, one).state == "running")
    await store.write(intents.cancel, now=time.time(), task_ids=[one], by="ada")
    engine.wake()
    await until(lambda: task(store, one).state == "cancelled")
    assert task(store, one).reason == "cancelled_by_user"


async def test_a_full_queue_is_offered_the_job_again(
    store: Database, make_engine: EngineMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A site whose queue is full takes the job later: the same attempt, one submission taken, one record."""
    monkeypatch.setattr("isthmus.engine.dispatching.FULL_AGAIN_SECONDS", 0.2)
    offered: list[str] = []
    take = NullSite.submit

    async def submit_to_full(site: NullSite, jobs: Sequence[Job]) -> dict[str, SubmitOutcome]:
        offered.extend(job.key for job in jobs)
        if len(offered) <= 3:
            return {job.key: Full(message="AssocMaxSubmitJobLimit") for job in jobs}
        return dict(await take(site, jobs))

    monkeypatch.setattr(NullSite, "submit", submit_to_full)
    join(store)
    engine = make_engine(store)
    await engine.start()
    [[one]] = await submit(store, TaskSpec(command=("true",), max_attempts=1))
    engine.wake()
    await until(lambda: count(store, tables.usage_records) == 1)
    assert task(store, one).state == "succeeded"
    assert len(offered) == 4
    assert len(set(offered)) == count(store, tables.attempts) == 1
    assert_whole(store)


async def test_a_full_account_holds_up_no_other(
    store: Database, make_engine: EngineMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where one account has as many jobs as it may have, the jobs of the others still go there."""
    take = NullSite.submit
    offered: list[str] = []

    async def submit_by_account(site: NullSite, jobs: Sequence[Job]) -> dict[str, SubmitOutcome]:
        offered.extend(job.account for job in jobs)
        good = await take(site, [job for job in jobs if job.account != "ada"])
        return {job.key: good.get(job.key, Full(message="AssocMaxSubmitJobLimit")) for job in jobs}

    monkeypatch.setattr(NullSite, "submit", submit_by_account)
    join(store, accounts={"*": "{user}"})
    engine = make_engine(store)
    await engine.start()
    await submit(store, TaskSpec(command=("true",), array=Array(size=20)))
    engine.wake()
    await until(lambda: "ada" in offered)
    specs = [TaskSpec(command=("true",), array=Array(size=5))]
    await store.write(intents.submit, now=time.time(), user="bo", project="p", specs=specs)
    engine.wake()
    await until(lambda: ended(store) == 5)
    assert offered.count("bo") == 5
    assert_whole(store)


async def test_the_only_site_is_not_asked_a_third_time(
    store: Database, make_engine: EngineMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clear no, said twice by the only site, ends the task although it might try more often."""
    no = Rejected(reason=EndReason.REJECTED_BY_SITE, message="No such account.")

    async def refuse(_: NullSite, jobs: Sequence[Job]) -> dict[str, SubmitOutcome]:
        return {job.key: no for job in jobs}

    monkeypatch.setattr(NullSite, "submit", refuse)
    join(store)
    engine = make_engine(store)
    await engine.start()
    [[one]] = await submit(store, TaskSpec(command=("true",), max_attempts=20))
    engine.wake()
    await until(lambda: task(store, one).state == "failed")
    assert (task(store, one).reason, task(store, one).attempts) == ("rejected_by_site", 2)
    assert_whole(store)


async def test_a_first_no_of_a_site_that_failed_otherwise_is_not_the_last_word(
    store: Database, make_engine: EngineMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lost node, then one refusal, by the only site: the task tries a third time."""
    reasons = [EndReason.NODE_FAILED, EndReason.REJECTED_BY_SITE]
    take = NullSite.submit

    async def submit_at_last(site: NullSite, jobs: Sequence[Job]) -> dict[str, SubmitOutcome]:
        if not reasons:
            return dict(await take(site, jobs))
        reason = reasons.pop(0)
        return {job.key: Rejected(reason=reason, message="not this time") for job in jobs}

    monkeypatch.setattr(NullSite, "submit", submit_at_last)
    join(store)
    engine = make_engine(store)
    await engine.start()
    [[one]] = await submit(store, TaskSpec(command=("true",), max_attempts=5))
    engine.wake()
    await until(lambda: task(store, one).ended_at is not None)
    assert (task(store, one).state, task(store, one).attempts) == ("succeeded", 3)


async def test_what_is_uploaded_counts_as_a_transfer(store: Database, make_engine: EngineMaker) -> None:
    """The receipt's transfer is the uploads' size over the site's bandwidth."""
    join(store)
    content = {"project": "p", "sha256": "a" * 64, "size_bytes": 100_000_000, "created_at": time.time()}
    store.write_now(lambda connection: connection.execute(tables.blobs.insert(), [content]))
    engine = make_engine(store)
    await engine.start()
    inputs = (Input(path="x", blob="a" * 64), Input(path="y", blob="a" * 64), Input(path="z", content="12"))
    [[one]] = await submit(store, TaskSpec(command=("true",), inputs=inputs))
    engine.wake()
    query = tables.receipts.select().where(tables.receipts.c.task_id == one).where(tables.receipts.c.attempt != "")
    await until(lambda: store.read_now(lambda connection: connection.execute(query).first() is not None))
    receipt = load(Receipt, store.read_now(lambda connection: connection.execute(query).one()).body)
    [chosen] = receipt.candidates
    assert chosen.transfer is not None
    assert chosen.transfer.seconds == pytest.approx(100_000_002 / 50e6)


async def test_a_task_that_fits_nowhere_waits_with_a_receipt(store: Database, make_engine: EngineMaker) -> None:
    """The receipt says why, and what would help."""
    join(store, config={"cpus": 4})
    engine = make_engine(store)
    await engine.start()
    [[one]] = await submit(store, TaskSpec(command=("true",), demand=Demand(cpus=64)))
    engine.wake()
    query = tables.receipts.select().where(tables.receipts.c.task_id == one)

    def told() -> str:
        rows = store.read_now(lambda connection: connection.execute(query).all())
        return rows[0].body if rows else ""

    await until(lambda: "too_few_cpus" in told())  # the first round may come before the site was described
    body = told()
    assert "ask for at most 4 a node processors" in body or "at most 4" in body
    assert task(store, one).state == "waiting"


async def test_a_task_whose_deadline_passed_ends(store: Database, make_engine: EngineMaker) -> None:
    """What can no longer be in time does not wait for ever; what depends on it falls with it."""
    join(store)
    engine = make_engine(store)
    await engine.start()
    soon = datetime.fromtimestamp(time.time() + 1.0, UTC)
    late = TaskSpec(name="late", command=("true",), objective=Objective(deadline=soon))
    after = TaskSpec(command=("true",), depends_on=(Dependency(task="late"),))
    [[one], [other]] = await submit(store, late, after)
    engine.wake()
    await until(lambda: task(store, one).state == "failed")
    assert task(store, one).reason == "infeasible"
    assert task(store, other).state == "cancelled"
    assert count(store, tables.attempts) == 0
    assert_whole(store)


async def test_a_full_site_is_never_promised_twice(store: Database, make_engine: EngineMaker) -> None:
    """The live attempts of an immediate pool never exceed its processors."""
    join(store, config={"cpus": 3, "seconds": 0.2})
    engine = make_engine(store)
    await engine.start()
    await submit(store, TaskSpec(command=("true",), array=Array(size=12)))
    engine.wake()
    live = tables.attempts.c.state.in_(["placed", "staging", "submitting", "queued", "running", "unknown"])
    most = 0
    deadline = time.monotonic() + 60
    while ended(store) < 12 and time.monotonic() < deadline:
        most = max(most, count(store, tables.attempts, live))
        await asyncio.sleep(0.02)
    assert ended(store) == 12
    assert 1 <= most <= 3


async def test_two_engines_share_the_sites_and_double_nothing(store: Database, make_engine: EngineMaker) -> None:
    """Two processes on one store: every task has exactly one attempt."""
    for name in ("north", "south"):
        join(store, name=name)
    engines = [make_engine(store, owner=owner) for owner in ("one", "two")]
    for engine in engines:
        await engine.start()
    half = [
        TaskSpec(command=("true",), array=Array(size=50), constraints=Constraints(sites_allow=(name,)))
        for name in ("north", "south")
    ]
    await submit(store, *half)
    for engine in engines:
        engine.wake()
    await until(lambda: ended(store) == 100 and count(store, tables.usage_records) == 100)
    assert count(store, tables.attempts) == 100
    assert_whole(store)


async def test_another_engine_takes_over_what_one_left(store: Database, make_engine: EngineMaker) -> None:
    """When one process stops, the other finishes its work."""
    join(store, config={"seconds": 1})
    one, two = make_engine(store, owner="one"), make_engine(store, owner="two")
    await one.start()
    await submit(store, TaskSpec(command=("true",), array=Array(size=5)))
    one.wake()
    await until(lambda: count(store, tables.attempts, tables.attempts.c.state == "running") == 5)
    await one.stop()
    await two.start()
    # The null site of the other process has forgotten everything: what it does not know is lost, and done again.
    await until(lambda: ended(store) == 5)
    assert_whole(store)


async def test_a_site_that_left_while_a_round_was_decided_gets_nothing(
    sqlite_store: Database, make_engine: EngineMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decision for a site that drained or left meanwhile is not written: the task waits for the next round."""
    join(sqlite_store)
    engine = make_engine(sqlite_store)
    decide = placing.decide

    def slow(snapshot: Snapshot, tasks: Sequence[WaitingTask], *, pricing: bool) -> Decision:
        decision = decide(snapshot, tasks, pricing=pricing)
        if decision.placements:
            sqlite_store.write_now(leaving.leave, now=time.time(), site="null", by="ada")
        return decision

    monkeypatch.setattr(placing, "decide", slow)
    await engine.start()
    [[one]] = await submit(sqlite_store, TaskSpec(command=("true",)))
    engine.wake()
    await until(lambda: count(sqlite_store, tables.sites, tables.sites.c.state == "left") == 1)
    await asyncio.sleep(0.3)
    assert (task(sqlite_store, one).state, count(sqlite_store, tables.attempts)) == ("waiting", 0)
    assert_whole(sqlite_store)


async def test_what_is_live_at_a_site_that_left_is_given_up_by_force(
    sqlite_store: Database, make_engine: EngineMaker
) -> None:
    """The remedy that `isthmus check` names for an attempt at a site that has left works."""
    join(sqlite_store, config={"seconds": 3600})
    engine = make_engine(sqlite_store)
    await engine.start()
    [[one]] = await submit(sqlite_store, TaskSpec(command=("true",)))
    engine.wake()
    await until(lambda: task(sqlite_store, one).state == "running")
    await engine.stop()
    sqlite_store.write_now(lambda connection: connection.execute(tables.sites.update().values(state="left")))
    assert [f.code for f in sqlite_store.read_now(lambda c: list(check(c)))] == ["attempt_at_no_site"]
    sqlite_store.write_now(leaving.leave, now=time.time(), site="null", by="ada", force=True)
    assert task(sqlite_store, one).state == "waiting"
    assert_whole(sqlite_store)


def test_a_zombie_is_fenced_off(store: Database) -> None:
    """A process whose lease was taken by another cannot write any more."""
    first = store.write_now(leases.take, "site:a", "one", 100.0, 10.0)
    assert first is not None
    assert store.write_now(leases.take, "site:a", "two", 105.0, 10.0) is None
    second = store.write_now(leases.take, "site:a", "two", 111.0, 10.0)
    assert second is not None
    assert second.token > first.token
    with pytest.raises(LostLease):
        store.write_now(guard, first)
    assert store.write_now(leases.renew, [first], "one", 112.0, 10.0) == set()
    store.write_now(guard, second)


def test_the_same_instance_takes_its_lease_back_at_once(store: Database) -> None:
    """After a crash the same instance does not wait for its own lease to expire."""
    first = store.write_now(leases.take, "site:a", "one", 100.0, 60.0)
    again = store.write_now(leases.take, "site:a", "one", 101.0, 60.0)
    assert first is not None
    assert again is not None
    assert again.token == first.token + 1


async def test_an_idle_site_is_asked_rarely_and_at_once_when_work_comes(
    store: Database, make_engine: EngineMaker
) -> None:
    """With nothing there and nothing waiting a site is left alone; a task that comes wakes the look at its pools."""
    join(store)
    engine = make_engine(store, settings=replace(QUICK, idle_describe_interval=3600.0))
    await engine.start()

    def seen() -> float:
        return float(store.read_now(lambda c: c.scalar(sa.select(tables.sites.c.described_at))) or 0.0)

    await until(lambda: seen() > 0)
    assert store.read_now(is_idle, "null")
    first = seen()
    await submit(store, TaskSpec(command=("true",)))
    engine.wake()
    await until(lambda: ended(store) == 1)
    await until(lambda: seen() > first)


async def test_what_keeps_a_site_from_being_idle(store: Database) -> None:
    """A waiting task does, wherever it may go."""
    join(store)
    assert store.read_now(is_idle, "null")
    await submit(store, TaskSpec(command=("true",)))
    assert not store.read_now(is_idle, "null")
