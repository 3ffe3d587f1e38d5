"""What ended benchmarks left becomes the capability of their pool: once, checked, by whoever holds the lease."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from isthmus.data.directory import DirectoryBlobStore
from isthmus.domain.capability import PoolCapability, Quantity
from isthmus.domain.site import Pool
from isthmus.domain.task import TaskSpec
from isthmus.engine import benchmarks, leases
from isthmus.engine.leases import Lease, LostLease
from isthmus.metering.bench import FORMAT
from isthmus.store import tables
from isthmus.store.database import Database
from isthmus.store.documents import load
from tests.engine.conftest import join

NOW = 1_800_000_000.0
POOL = Pool(name="cpu", nodes=4, cpus_per_node=8, memory_bytes_per_node=32 * 1024**3, accelerators_per_node=2)


def document(node: str, fp64: float = 1e11) -> bytes:
    """What a node's benchmark leaves."""
    figure = {"median": fp64, "p10": fp64 * 0.99, "p90": fp64 * 1.01, "samples": 9, "rejected": 0}
    return json.dumps(
        {
            "format": FORMAT, "measured_at": NOW, "seconds": 60.0, "node": node, "processor": "P",
            "given": {"cpus": 8, "memory_bytes": 1024}, "figures": {"fp64_ops_per_second": figure},
            "accelerators": [], "left_out": {}, "libraries": {},
        }
    ).encode()  # fmt: skip


class Bench:
    """A store with blobs and the lease of the placement round."""

    def __init__(self, store: Database, directory: Path) -> None:
        self.store = store
        self.blobs = DirectoryBlobStore(directory / "blobs")
        self.ids: list[str] = []
        self.lease: Lease | None = None

    async def begin(self, nodes: int) -> None:
        """Hand in the tasks."""
        program = await self.blobs.put_bytes(b"program")
        self.lease = self.store.write_now(leases.take, "placement", "me", NOW, 60.0)
        self.ids = self.store.write_now(
            lambda c: benchmarks.submit(
                c, now=NOW, user="op", project="p", site="s", pools=[POOL], nodes=nodes, program=program,
                program_bytes=7, python="python3", seconds=60.0,
            )
        )  # fmt: skip

    async def end(self, task_id: str, content: bytes | None, state: str = "succeeded") -> None:
        """End a task as the engine would, with this document."""
        sha256 = await self.blobs.put_bytes(content) if content is not None else ""
        t, o = tables.tasks, tables.outputs

        def change(connection: sa.Connection) -> None:
            connection.execute(t.update().where(t.c.id == task_id).values(state=state, message="broke"))
            if content is not None:
                row = {"task_id": task_id, "path": benchmarks.RESULT, "attempt": task_id, "sha256": sha256}
                connection.execute(o.insert().values(**row, size_bytes=len(content)))

        self.store.write_now(change)

    async def take_in(self) -> int:
        """As the engine's loop does."""
        assert self.lease is not None
        return await benchmarks.take_in(self.store, self.blobs, NOW + 5, self.lease)

    def rows(self, table: sa.Table) -> list[Any]:
        """All rows of a table."""
        return list(self.store.read_now(lambda c: c.execute(table.select()).all()))


@pytest.fixture
def bench(store: Database, tmp_path: Path) -> Bench:
    """A bench on each database, with the site joined."""
    join(store, "s")
    return Bench(store, tmp_path)


async def test_each_node_is_measured_by_a_task_of_its_own(bench: Bench) -> None:
    """A task takes a whole node with its devices, is bound to site and pool, is tried once, and there are no more tasks
    than nodes."""
    await bench.begin(nodes=99)
    specs = [load(TaskSpec, row.spec) for row in bench.rows(tables.tasks)]
    assert len(specs) == len(bench.ids) == POOL.nodes
    spec = specs[0]
    assert (spec.demand.cpus, spec.demand.accelerators.count, spec.max_attempts) == (8, 2, 1)
    assert (spec.constraints.sites_allow, spec.constraints.pools_allow) == (("s",), ("cpu",))
    assert spec.command[:2] == ("python3", "isthmus-bench.pyz")
    assert spec.demand.memory_bytes <= POOL.memory_bytes_per_node // 2


async def test_measurements_become_a_capability(bench: Bench) -> None:
    """Done ones are aggregated, with the slow node; those that go on stay due; a second look changes nothing."""
    await bench.begin(nodes=4)
    for index, task_id in enumerate(bench.ids[:3]):
        await bench.end(task_id, document(f"n{index}", 1e11 if index else 5e10))
    assert await bench.take_in() == 3
    (row,) = bench.rows(tables.capabilities)
    assert (row.site, row.pool, row.kind, row.measured_at, row.stored_at) == ("s", "cpu", "8 x P", NOW, NOW + 5)
    found = load(PoolCapability, row.body)
    assert found.nodes == ("n0", "n1", "n2")
    assert found.processor.figures[Quantity.FP64].median == 1e11
    assert [slow.node for slow in found.slow_nodes] == ["n0"]
    assert row.general_units is None
    assert sorted(one.state for one in bench.rows(tables.benchmarks)) == ["done", "done", "done", "due"]
    assert await bench.take_in() == 0
    await bench.end(bench.ids[3], document("n3"))
    assert await bench.take_in() == 1
    (row,) = bench.rows(tables.capabilities)
    assert len(load(PoolCapability, row.body).nodes) == 4


async def test_what_failed_is_told_and_harms_nothing(bench: Bench) -> None:
    """A task that failed, one without a document, and garbage: failed with the reason; others count."""
    await bench.begin(nodes=4)
    await bench.end(bench.ids[0], None, state="failed")
    await bench.end(bench.ids[1], b"garbage")
    await bench.end(bench.ids[2], b"x" * 3_000_000)
    await bench.end(bench.ids[3], document("good"))
    assert await bench.take_in() == 4
    told = {row.task_id: (row.state, row.message) for row in bench.rows(tables.benchmarks)}
    assert told[bench.ids[0]] == ("failed", "broke")
    assert "cannot be read" in told[bench.ids[1]][1]
    assert "too long" in told[bench.ids[2]][1]
    assert told[bench.ids[3]][0] == "done"
    assert len(bench.rows(tables.capabilities)) == 1
    kinds = [row.body for row in bench.rows(tables.events) if row.kind == "site.measured"]
    assert len(kinds) == 4


async def test_who_lost_the_lease_writes_nothing(bench: Bench) -> None:
    """Another process took over in between."""
    await bench.begin(nodes=1)
    await bench.end(bench.ids[0], document("n"))
    bench.store.write_now(leases.take, "placement", "me", NOW, 60.0)
    with pytest.raises(LostLease):
        await bench.take_in()
    assert bench.rows(tables.capabilities) == []
