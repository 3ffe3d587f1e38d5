"""What becomes of copies and transfers when a site leaves, a transfer fails, or there is no room."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from functools import partial

import pytest
import sqlalchemy as sa

from isthmus.domain.dataset import HOME, DatasetFile, DatasetManifest, DatasetRef, Labels, TransferState
from isthmus.domain.errors import Conflict, Forbidden, Invalid, Refused
from isthmus.domain.task import Input, Output, TaskSpec
from isthmus.engine import datasets as intents
from isthmus.engine import taskdata
from isthmus.engine.evicting import missing_at, room_for
from isthmus.engine.leases import Lease, take
from isthmus.engine.leaving import leave
from isthmus.store import datasets, schema, tables
from isthmus.store.database import Database

NOW = 1_800_000_000.0
REF = DatasetRef(project="p", name="d", version=1)
SIZE = 60
OWN = ("p", "d", 1)


def _furnish(connection: sa.Connection) -> None:
    for site in ("alpha", "beta"):
        connection.execute(
            tables.sites.insert().values(
                name=site,
                kind="null",
                mode="agent",
                state="active",
                config="{}",
                accounts="{}",
                created_by="x",
                created_at=NOW,
                last_seen_at=NOW,
            )
        )
        connection.execute(tables.data_servers.insert().values(site=site, address="", quota_bytes=100, seen_at=NOW))
    manifest = DatasetManifest(files=(DatasetFile(path="a", size_bytes=SIZE, blake3="a" * 64),))
    intents.add_version(
        connection,
        now=NOW,
        user="ann",
        project="p",
        name="d",
        manifest=manifest,
        manifest_hash="b" * 64,
        manifest_sha256="c" * 64,
        place=HOME,
        home_region="",
    )


@pytest.fixture
def furnished(store: Database) -> Database:
    """A version that the service holds; alpha and beta keep data, with room for 100 bytes each."""
    store.write_now(_furnish)
    return store


def _plan(database: Database, target: str) -> str:
    return database.write_now(
        lambda c: intents.plan_transfer(c, now=NOW, user="ann", ref=REF, target=target, home_region="", cached=False)
    )


def _states(database: Database) -> dict[str, str]:
    rows = database.read_now(lambda c: c.execute(tables.replicas.select()).all())
    return {row.site: row.state for row in rows}


def _end(database: Database, key: str, state: TransferState) -> None:
    def end(connection: sa.Connection) -> None:
        row = connection.execute(tables.transfers.select().where(tables.transfers.c.id == key)).one()
        intents.end_transfer(connection, NOW, row, state, "why")

    database.write_now(end)


def test_a_site_that_leaves_holds_nothing_any_more(furnished: Database) -> None:
    """Its copy is lost and no other copy's reason to go; what moves there fails; it keeps no data."""
    _end(furnished, _plan(furnished, "alpha"), TransferState.DONE)
    assert _states(furnished) == {HOME: "whole", "alpha": "whole"}
    going = _plan(furnished, "beta")
    furnished.write_now(lambda c: leave(c, now=NOW, site="beta", by="op"))
    furnished.write_now(lambda c: leave(c, now=NOW, site="alpha", by="op"))
    assert _states(furnished) == {HOME: "whole", "alpha": "lost"}
    row = furnished.read_now(lambda c: c.execute(tables.transfers.select().where(tables.transfers.c.id == going)).one())
    assert (row.state, row.message) == ("failed", "beta has left.")
    assert furnished.read_now(lambda c: c.execute(tables.data_servers.select()).all()) == []
    places = furnished.read_now(lambda c: datasets.whole_places(c, [REF]))
    assert places == {"p/d@1": frozenset({HOME})}


def test_a_transfer_to_the_service_may_be_tried_again_after_it_failed(furnished: Database) -> None:
    """Nothing of it stays behind that another would wait for."""
    _end(furnished, _plan(furnished, "alpha"), TransferState.DONE)
    furnished.write_now(lambda c: c.execute(tables.replicas.delete().where(tables.replicas.c.site == HOME)))
    first = _plan(furnished, HOME)
    furnished.write_now(
        lambda c: c.execute(tables.replicas.update().where(tables.replicas.c.site == HOME).values(state="arriving"))
    )
    _end(furnished, first, TransferState.FAILED)
    assert _states(furnished) == {"alpha": "whole"}
    assert furnished.read_now(datasets.failed_transfer, "p", "d", 1, HOME, NOW - 1) == "why"
    assert furnished.read_now(datasets.failed_transfer, "p", "d", 1, HOME, NOW + 1) is None
    assert _plan(furnished, HOME) != first


def test_a_transfer_that_is_tried_again_does_not_count_itself(furnished: Database) -> None:
    """Half of it lies there already: the room that it takes is its own."""
    key = _plan(furnished, "alpha")
    lease: Lease | None = furnished.write_now(take, "transfers", "me", NOW, 60.0)
    assert lease is not None
    assert key
    furnished.write_now(
        lambda c: c.execute(tables.replicas.update().where(tables.replicas.c.site == "alpha").values(state="arriving"))
    )
    assert furnished.write_now(room_for, NOW, lease, "alpha", OWN, SIZE) == (0, [])
    other = {"project": "p", "name": "other", "version": 1, "site": "alpha", "manifest": "m", "state": "arriving"}
    furnished.write_now(
        lambda c: c.execute(tables.replicas.insert().values(**other, size_bytes=50, heat_at=NOW, created_at=NOW))
    )
    missing, chill = furnished.write_now(room_for, NOW, lease, "alpha", OWN, SIZE)
    assert (missing, chill) == (10, [])


def test_a_cold_copy_comes_back_into_the_room_that_there_is(furnished: Database) -> None:
    """By itself it takes none; to come back it has what a copy that arrives has: others go cold first, and where none may, it is told."""
    lease: Lease | None = furnished.write_now(take, "transfers", "me", NOW, 60.0)
    assert lease is not None
    _end(furnished, _plan(furnished, "alpha"), TransferState.DONE)
    r = tables.replicas
    other = {"project": "p", "name": "other", "version": 1, "site": "alpha", "manifest": "m", "state": "whole"}
    furnished.write_now(lambda c: c.execute(r.update().where(r.c.site == "alpha").values(tier="cold")))
    furnished.write_now(lambda c: c.execute(r.insert().values(**other, size_bytes=50, heat_at=NOW, created_at=NOW)))
    assert furnished.write_now(room_for, NOW, lease, "alpha", ("p", "other", 1), 50) == (0, [])
    assert furnished.write_now(room_for, NOW, lease, "alpha", OWN, SIZE) == (10, [])
    assert furnished.read_now(missing_at, NOW, "alpha", OWN, SIZE) == 10
    furnished.write_now(lambda c: c.execute(tables.data_servers.update().values(cold=True)))
    assert furnished.read_now(missing_at, NOW, "alpha", OWN, SIZE) == 0
    missing, chill = furnished.write_now(room_for, NOW, lease, "alpha", OWN, SIZE)
    assert (missing, [row.name for row in chill]) == (10, ["other"])


def test_bound_data_goes_cold_in_its_regions_only(furnished: Database) -> None:
    """A bucket elsewhere, or of which nobody says where it is, takes none of it; what is there cold already is not bound against it."""
    lease: Lease | None = furnished.write_now(take, "transfers", "me", NOW, 60.0)
    assert lease is not None
    _end(furnished, _plan(furnished, "alpha"), TransferState.DONE)
    d, v, r, s = tables.datasets, tables.data_servers, tables.replicas, tables.sites
    furnished.write_now(lambda c: c.execute(s.update().values(region="north")))
    furnished.write_now(lambda c: c.execute(d.update().values(regions='["north"]')))

    def chilled(region: str) -> list[str]:
        furnished.write_now(lambda c: c.execute(v.update().values(cold=True, cold_region=region)))
        _, chill = furnished.write_now(room_for, NOW, lease, "alpha", ("p", "other", 1), SIZE)
        return [row.name for row in chill]

    assert (chilled("south"), chilled(""), chilled("north"), chilled("@site")) == ([], [], ["d"], ["d"])
    furnished.write_now(lambda c: c.execute(d.update().values(regions="[]")))
    assert chilled("south") == ["d"]
    furnished.write_now(lambda c: c.execute(r.delete().where(r.c.site == HOME)))
    furnished.write_now(lambda c: c.execute(r.update().values(tier="cold")))
    bind = partial(
        intents.set_labels, now=NOW, project="p", name="d", labels=Labels(regions=("north",)), home_region=""
    )
    with pytest.raises(Refused) as refused:
        furnished.write_now(lambda c: bind(c))
    assert "the cold store of alpha is in region south" in refused.value.cause


def test_what_is_made_from_bound_data_is_delivered_nowhere_else(furnished: Database) -> None:
    """An address is in no region that is known: an output of a task that takes bound data in may come to the service there, and to no address."""
    furnished.write_now(lambda c: c.execute(tables.datasets.update().values(regions='["north"]')))

    def resolve(url: str, *, bound: bool) -> list[TaskSpec]:
        inputs = (Input(path="in", data="p/d"),) if bound else ()
        spec = TaskSpec(command=("true",), inputs=inputs, outputs=(Output(path="out", url=url),))
        return furnished.read_now(lambda c: taskdata.resolve(c, [spec], "north"))

    url = "https://elsewhere.example/out"
    assert resolve(url, bound=False)
    assert resolve("", bound=True)
    with pytest.raises(Invalid) as refused:
        resolve(url, bound=True)
    assert refused.value.field == "tasks.0.outputs.0"
    assert f"{url} is in no region that is known" in refused.value.cause


def test_open_transfers_are_found_by_their_index(furnished: Database) -> None:
    """Ended ones are many, and never looked through."""
    if not furnished.is_sqlite:
        pytest.skip("the plan of SQLite")
    query = tables.transfers.select().where(datasets.OPEN)
    text = str(query.compile(compile_kwargs={"literal_binds": True}))
    plan = furnished.read_now(lambda c: c.execute(sa.text(f"EXPLAIN QUERY PLAN {text}")).all())
    assert "ix_transfers_open" in str(plan)


@pytest.mark.real
def test_two_at_once_do_not_let_the_last_two_copies_go(postgres_url: str) -> None:
    """Each waits for the other's word on the version: one copy stays, and whoever came second is told that it is the last."""
    database = Database(postgres_url)
    schema.prepare(database)
    try:
        database.write_now(_furnish)
        for site in ("alpha", "beta"):
            _end(database, _plan(database, site), TransferState.DONE)
        database.write_now(lambda c: intents.drop_replica(c, now=NOW, ref=REF, site=HOME))
        gate = threading.Barrier(2)
        told: dict[str, str] = {}

        def drop(site: str) -> None:
            def change(connection: sa.Connection) -> None:
                intents.need_version(connection, REF)
                if site not in told:
                    told[site] = ""
                    gate.wait(20)  # both have begun before either writes
                intents.drop_replica(connection, now=NOW, ref=REF, site=site)

            try:
                database.write_now(change)
                told[site] = "gone"
            except Conflict as error:
                told[site] = error.code

        threads = [threading.Thread(target=drop, args=(site,)) for site in ("alpha", "beta")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(told.values()) == ["gone", "last_replica"]
        assert sorted(_states(database).values()) == ["leaving", "whole"]
    finally:
        database.close()


@pytest.mark.real
@pytest.mark.parametrize("how", ["drop", "remove"])
def test_a_copy_that_is_pinned_at_this_moment_is_not_let_go(postgres_url: str, how: str) -> None:
    """Whoever lets it go waits for who pins it, and then sees the pin; without that it would go, pinned."""
    database = Database(postgres_url)
    schema.prepare(database)
    try:
        database.write_now(_furnish)
        _end(database, _plan(database, "alpha"), TransferState.DONE)
        pinned, told = threading.Event(), []

        def pin(connection: sa.Connection) -> None:
            intents.pin(connection, ref=REF, site="alpha", pinned=True, user="ann")
            pinned.set()
            time.sleep(1.0)  # the other has begun before this is committed

        def let_go() -> None:
            assert pinned.wait(20)
            try:
                if how == "drop":
                    database.write_now(lambda c: intents.drop_replica(c, now=NOW, ref=REF, site="alpha"))
                else:
                    database.write_now(lambda c: intents.remove(c, now=NOW, ref=replace(REF, version=0), by="ann"))
            except Conflict as error:
                told.append(error.cause)

        thread = threading.Thread(target=let_go)
        thread.start()
        database.write_now(pin)
        thread.join(30)
        assert ["pinned at alpha" in cause for cause in told] == [True], told
        assert _states(database)["alpha"] == "whole"
    finally:
        database.close()


def test_only_who_pinned_a_copy_or_owns_the_dataset_unpins_it(furnished: Database) -> None:
    """A member's own pin is theirs; another member's is not; the owner and managers may all."""
    _end(furnished, _plan(furnished, "alpha"), TransferState.DONE)

    def pin(user: str, pinned: bool, may_all: bool = False) -> None:
        furnished.write_now(lambda c: intents.pin(c, ref=REF, site="alpha", pinned=pinned, user=user, may_all=may_all))

    pin("bob", True)
    pin("eve", True)  # it is bob's still
    with pytest.raises(Forbidden, match="by bob"):
        pin("eve", False)
    pin("bob", False)
    for user, may_all in (("ann", False), ("root", True)):
        pin("bob", True)
        pin(user, False, may_all)


def test_a_clock_that_was_set_back_holds_no_transfer_up(furnished: Database) -> None:
    """What was put off by a clock that ran ahead is due; what waits for its window is not."""
    key = _plan(furnished, "alpha")
    t = tables.transfers

    def due(**values: object) -> list[str]:
        furnished.write_now(lambda c: c.execute(t.update().where(t.c.id == key).values(**values)))
        return [row.id for row in furnished.read_now(lambda c: datasets.due_transfers(c, NOW, 10, []))]

    assert due(due_at=NOW + 3600.0) == [key]
    assert due(due_at=NOW + 30.0) == []
    assert due(due_at=NOW + 3600.0, stretches='[{"begins": 1800003600.0, "ends": 1800007200.0}]') == []
