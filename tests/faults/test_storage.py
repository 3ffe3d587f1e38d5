"""F2, F7 to F13: the store's disk and database fail under it, really where that can be had."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from isthmus.domain.errors import Busy, Unavailable
from isthmus.lab.postgres import PostgresServer
from isthmus.store import schema, tables
from isthmus.store.database import Database
from tests.faults.scenes import centre, done, runs, spec, states, tell, until
from tests.world.history import World, end

pytestmark = pytest.mark.fault
SRC = str(Path(__file__).parents[2] / "src")

WRITER = """
import sys, time
from isthmus.store import schema, tables
from isthmus.store.database import Database
database = Database("sqlite:///" + sys.argv[1])
payload = "x" * 2000
print("ready", flush=True)
for number in range(int(sys.argv[2])):
    row = {"name": f"p{number}", "created_at": 0.0}
    try:
        database.write_now(lambda c: (c.execute(tables.projects.insert(), [row]), c.execute(tables.audit.insert(), [
            {"at": 0.0, "user": "u", "action": "a", "subject": f"p{number}", "body": payload}])) and None)
        print("stored", number, flush=True)
    except Exception as error:
        print("failed", number, type(error).__name__, flush=True)
"""


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": SRC}


def _write(path: Path, number: int, prefix: list[str]) -> tuple[set[int], list[str]]:
    """Run the writer behind a command; answers what it was told is stored, and the errors it was told."""
    done = subprocess.run(
        [*prefix, sys.executable, "-c", WRITER, str(path), str(number)],
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["ready"] in lines, done.stderr[-1000:]
    return {int(line[1]) for line in lines if line[0] == "stored"}, [line[2] for line in lines if line[0] == "failed"]


def _held(path: Path) -> set[int]:
    """What the store holds when it is opened again, whole: every project with its line in the audit."""
    database = Database(f"sqlite:///{path}")
    try:
        with database.engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
        names = set(database.read_now(lambda c: c.execute(sa.select(tables.projects.c.name)).scalars().all()))
        audit = set(database.read_now(lambda c: c.execute(sa.select(tables.audit.c.subject)).scalars().all()))
        assert {name for name in names if name.startswith("p") and name[1:].isdigit()} == audit
        return {int(name[1:]) for name in audit}
    finally:
        database.close()


def _fresh(path: Path) -> None:
    database = Database(f"sqlite:///{path}")
    schema.prepare(database)
    database.close()


def _strace(inject: str) -> list[str]:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    return [
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        f"trace={inject.partition(':')[0]}",
        "-e",
        f"inject={inject}",
    ]


def test_f02_killed_while_it_migrates(tmp_path: Path) -> None:
    """Killed at any statement of the migration, the next start makes the same tables."""
    script = """
import os, signal, sys
import sqlalchemy as sa
from isthmus.store import schema
from isthmus.store.database import Database
database, left = Database("sqlite:///" + sys.argv[1]), int(sys.argv[2])
@sa.event.listens_for(database.engine, "after_cursor_execute")
def count(*_):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
schema.prepare(database)
"""
    killed = 0
    for at in (1, 6, 19, 40):
        path = tmp_path / f"{at}.db"
        code = subprocess.run([sys.executable, "-c", script, str(path), str(at)], env=_environment(), check=False)
        killed += code.returncode == -signal.SIGKILL
        database = Database(f"sqlite:///{path}")
        schema.prepare(database)
        assert schema.differences(database) == []
        database.close()
    assert killed >= 3


def test_f07_fsync_fails(tmp_path: Path) -> None:
    """The disk fails one fsync (EIO): that write is refused, what was called stored before and after it is there."""
    path = tmp_path / "store.db"
    _fresh(path)
    stored, errors = _write(path, 30, _strace("fdatasync,fsync:error=EIO:when=12+40"))
    assert set(errors) <= {"Unavailable"}
    assert errors
    assert stored <= _held(path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    place = tmp_path / "small"
    place.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], check=False).returncode
    ):
        pytest.skip("a small file system cannot be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_f08_the_disk_is_full(small_disk: Path) -> None:
    """A full disk refuses writes with a reason, loses nothing that it took, and works again once there is room."""
    path = small_disk / "store.db"
    ballast = small_disk / "ballast"
    _fresh(path)
    ballast.write_bytes(b"x" * max(0, shutil.disk_usage(small_disk).free - 150_000))
    stored, errors = _write(path, 120, [])
    assert errors
    assert set(errors) == {"Unavailable"}
    assert stored == _held(path)
    ballast.unlink()
    more, _ = _write(path, 1, []) if 0 not in stored else (set(), [])
    assert stored | more <= _held(path)


def test_f09_a_write_is_cut_short(tmp_path: Path) -> None:
    """The disk takes only a part of a page (a limit on the size of files): the transaction is refused, the store is whole."""
    path = tmp_path / "store.db"
    _fresh(path)
    limit = ["sh", "-c", 'ulimit -f 601; exec "$@"', "sh"]  # 512-byte blocks: it cuts a page of the log in two
    stored, errors = _write(path, 120, limit)
    assert errors
    assert set(errors) == {"Unavailable"}
    assert stored <= _held(path)


@pytest.fixture(scope="module")
def own_postgres(lab_directory: Path) -> Iterator[PostgresServer]:
    """A PostgreSQL that this module may restart."""
    from tests.conftest import require

    require("postgresql")
    with PostgresServer(lab_directory / "postgres-of-faults", durable=True) as server:
        yield server


@pytest.fixture
def restartable(own_postgres: PostgresServer) -> Iterator[Database]:
    """A store on it."""
    name = f"f10_{os.urandom(4).hex()}"
    database = Database(own_postgres.create_database(name))
    schema.prepare(database)
    yield database
    database.close()


def _project(connection: sa.Connection, name: str) -> None:
    connection.execute(tables.projects.insert(), [{"name": name, "created_at": 0.0}])


def _projects(database: Database) -> list[str]:
    query = sa.select(tables.projects.c.name).where(tables.projects.c.name.like("f%")).order_by(tables.projects.c.name)
    return database.read_now(lambda c: list(c.execute(query).scalars()))


@pytest.mark.real
def test_f10_the_database_restarts_in_a_transaction(own_postgres: PostgresServer, restartable: Database) -> None:
    """Restarted between two statements, the transaction is run again and happens once."""
    runs = 0

    def work(connection: sa.Connection) -> None:
        nonlocal runs
        runs += 1
        _project(connection, "f1")
        if runs == 1:
            own_postgres.restart()
        _project(connection, "f2")

    restartable.write_now(work)
    assert runs == 2
    assert _projects(restartable) == ["f1", "f2"]


@pytest.mark.real
def test_f10_the_connection_breaks_while_it_commits(restartable: Database) -> None:
    """The commit happened and its answer was lost: it is not run again, and the caller is told that nobody knows."""
    runs = 0
    dialect = restartable.engine.dialect
    commit = dialect.do_commit

    def break_after(connection: object) -> None:
        commit(connection)  # type: ignore[arg-type]
        dialect.do_commit = commit  # type: ignore[method-assign]
        connection.dbapi_connection.close()  # type: ignore[attr-defined]
        commit(connection)  # type: ignore[arg-type]

    def work(connection: sa.Connection) -> None:
        nonlocal runs
        runs += 1
        _project(connection, f"f{runs}")

    dialect.do_commit = break_after  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        restartable.write_now(work)
    assert (runs, _projects(restartable)) == (1, ["f1"])


@pytest.mark.real
def test_f11_a_deadlock_and_a_serialization_failure_are_run_again(postgres_store: Database) -> None:
    """Two writers that lock in opposite order both succeed once; a serialization failure is run again."""
    for name in ("fa", "fb"):
        postgres_store.write_now(_project, name)
    meet = threading.Barrier(2, timeout=30)
    tries: list[str] = []

    def cross(connection: sa.Connection, first: str, second: str) -> None:
        tries.append(first)
        for step, name in enumerate((first, second)):
            connection.execute(
                tables.projects.update()
                .where(tables.projects.c.name == name)
                .values(created_at=tables.projects.c.created_at + 1)
            )
            if step == 0 and len(tries) <= 2:
                meet.wait()

    threads = [
        threading.Thread(target=postgres_store.write_now, args=(cross, *pair)) for pair in (("fa", "fb"), ("fb", "fa"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    counts = postgres_store.read_now(
        lambda c: list(
            c.execute(sa.select(tables.projects.c.created_at).where(tables.projects.c.name.in_(("fa", "fb")))).scalars()
        )
    )
    assert counts == [2.0, 2.0]
    assert len(tries) == 3
    failures = iter([True, False])

    def serial(connection: sa.Connection) -> str:
        connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"))
        total = connection.execute(sa.text("SELECT sum(created_at) FROM projects")).scalar()
        if next(failures):
            with postgres_store.engine.connect() as other, other.begin():
                other.execute(sa.text("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"))
                other.execute(sa.text("SELECT sum(created_at) FROM projects")).scalar()
                _project(other, "fc")
        connection.execute(tables.projects.insert(), [{"name": "fd", "created_at": total}])
        return "done"

    assert postgres_store.write_now(serial) == "done"
    assert _projects(postgres_store) == ["fa", "fb", "fc", "fd"]


def test_f12_sqlite_is_busy(tmp_path: Path) -> None:
    """A writer outside the process holds the store: a write waits for it, and is refused as Busy when it takes too long."""
    path = tmp_path / "store.db"
    _fresh(path)
    database = Database(f"sqlite:///{path}")
    holder = sa.create_engine(f"sqlite:///{path}", connect_args={"check_same_thread": False})
    raw = holder.raw_connection()
    raw.driver_connection.isolation_level = None  # type: ignore[union-attr]
    raw.execute("BEGIN IMMEDIATE")
    free = threading.Timer(1.0, lambda: raw.execute("COMMIT"))
    free.start()
    database.write_now(_project, "f1")
    free.join()
    raw.execute("BEGIN IMMEDIATE")

    def impatient(connection: sa.Connection) -> None:
        raise AssertionError("it must not begin")

    with database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout=50")
    sa.event.listen(database.engine, "checkout", lambda c, *_: c.execute("PRAGMA busy_timeout=50"))
    with pytest.raises(Busy):
        database.write_now(impatient)
    raw.execute("COMMIT")
    raw.close()
    holder.dispose()
    database.write_now(_project, "f2")
    assert _projects(database) == ["f1", "f2"]
    database.close()


def test_f13_the_site_was_restored_and_gives_ids_again() -> None:
    """The scheduler counts from an old number again: jobs are told apart by key, usage goes to the right attempt."""

    async def scene(world: World) -> None:
        world.submit([spec(5), spec(7)])
        await until(world, lambda: done(world) == 2)
        centre(world)._next_id = 0
        world.submit([spec(11), spec(13)])
        await until(world, lambda: done(world) == 4)
        ids = [native.native_id for native in centre(world).natives]
        assert len(set(ids)) < len(ids)

    tell(scene)


def test_f13_the_store_is_restored_from_a_backup() -> None:
    """The control plane goes back to a copy from while jobs ran: it finds them ended and cleaned away at the site, runs
    none again, and shows them as collecting until their user gives them up."""

    async def scene(world: World) -> None:
        ids = world.submit([spec(30), spec(40)])
        await until(world, lambda: runs(world) == 2 and states(world).count("running") == 2)
        copy = sqlite3.connect(":memory:")
        world.peek.backup(copy)
        await until(world, lambda: done(world) == 2 and not centre(world).directories)
        dead, engine = world.engines.pop("one")
        dead.kill()
        await end(engine)
        world.database.engine.dispose()
        copy.backup(world.peek)
        copy.close()
        assert states(world) == ["running", "running"]
        await world.start_engine("one")
        await until(world, lambda: states(world) == ["collecting", "collecting"], 3600)
        await asyncio.sleep(3600)
        assert (states(world), runs(world)) == (["collecting", "collecting"], 2)
        world.cancel(ids)
        await until(world, lambda: states(world) == ["cancelled", "cancelled"], 3600)

    tell(scene)
