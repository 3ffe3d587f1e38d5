"""Copies that are to be at their sites by a time: promised over what links have left, or refused with the soonest time that can be."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import replace
from datetime import datetime
from typing import Any

import orjson
import pytest
import sqlalchemy as sa

from isthmus.domain.dataset import DatasetFile, DatasetManifest, DatasetRef, Labels
from isthmus.domain.errors import Conflict, IsthmusError, Refused
from isthmus.domain.network import DeclaredNetwork, NetLink, NetNode, NodeKind
from isthmus.engine import datasets as data_intents
from isthmus.engine import intents
from isthmus.engine.admitting import SPARE_SECONDS, Wish, admit, read_ways
from isthmus.engine.ends import Ends
from isthmus.engine.handling import Handling
from isthmus.engine.learning import RunTimes
from isthmus.engine.placing import Round
from isthmus.engine.reserving import read_reserved
from isthmus.engine.sources import choose
from isthmus.engine.waiting import WaitTimes
from isthmus.store import datasets, tables
from isthmus.store.database import Database
from tests.engine.conftest import QUICK, join
from tests.engine.test_roads import BYTES, NETWORK, reads, transfers, world

FAT, THIN = BYTES / 0.95e8, BYTES / 0.95e7  # seconds of one version over each link
THREE = DeclaredNetwork(
    nodes=(*NETWORK.nodes, NetNode(name="c", kind=NodeKind.SITE)),
    links=(*NETWORK.links, NetLink(name="r2-c", ends=("r2", "c"))),
)


def another(store: Database, name: str, *, regions: tuple[str, ...] = ()) -> None:
    """A version p/NAME@1 of the same size, whole at a."""
    manifest = DatasetManifest(files=(DatasetFile(path=name, size_bytes=BYTES, blake3="0" * 64),))
    store.write_now(
        lambda connection: data_intents.add_version(
            connection,
            now=time.time(),
            user="ada",
            project="p",
            name=name,
            manifest=manifest,
            manifest_hash="3" * 64,
            manifest_sha256="4" * 64,
            place="a",
            home_region="",
            labels=Labels(regions=regions),
        )
    )


def wish(seconds: float, *targets: str, name: str = "corpus", most: float = 0.0) -> Wish:
    by = time.time() + seconds
    ref = DatasetRef(project="p", name=name)
    return Wish(ref=ref, targets=targets or ("b",), by=by, most_bytes_per_second=most)


def ask(store: Database, wanted: Wish) -> list[str]:
    now = time.time()
    roads = store.read_now(read_ways, now, wanted, "")
    return store.write_now(lambda c: admit(c, now=now, user="ada", wish=wanted, roads=roads, home_region=""))


def refused(store: Database, wanted: Wish) -> IsthmusError:
    with pytest.raises(IsthmusError) as told:
        ask(store, wanted)
    return told.value


def round_(store: Database, kind: type[Round] = Round) -> Round:
    return kind(QUICK, RunTimes(store), WaitTimes(store), Handling(store), Ends(store))


def test_a_copy_is_promised_with_its_path_and_windows_and_ordered_with_them(store: Database) -> None:
    """The row holds source, links, windows and the time; everybody sees it as held; the order has the windows."""
    world(store)
    wanted = wish(FAT + 30.0)
    [transfer] = ask(store, wanted)
    [row] = transfers(store)
    assert (row.id, row.source, row.target, row.state) == (transfer, "a", "b", "planned")
    assert orjson.loads(row.links) == ["a-r1>r1", "fat>r2", "r2-b>b"]
    [window] = orjson.loads(row.stretches)
    assert window["bytes_per_second"] == pytest.approx(0.95e8)
    assert window["ends"] - window["begins"] == pytest.approx(FAT)
    assert window["ends"] < row.ends_at <= wanted.by - SPARE_SECONDS
    assert row.wanted_by == pytest.approx(wanted.by)
    now = time.time()
    held = store.read_now(read_reserved, now).bits_per_second("fat", "r2", now, now + 1.0)
    assert held == pytest.approx(7.6e8)
    [due] = store.read_now(datasets.due_transfers, now, 10, ())
    offer = store.read_now(choose, due, "", now)
    assert (offer.source, offer.address) == ("a", "a:1")
    assert [one.bytes_per_second for one in offer.windows] == [pytest.approx(0.95e8)]


def test_what_cannot_be_in_time_is_refused_with_the_soonest_that_can(store: Database) -> None:
    """Nothing is stored; the time that is named, with a little for the asking, is promised."""
    world(store)
    told = refused(store, wish(FAT / 2))
    assert (told.code, told.status) == ("misses_deadline", 422)
    said = re.search(r"the soonest end that can be promised is (\S+)\.$", told.cause)
    assert said is not None
    soonest = datetime.fromisoformat(said[1]).timestamp()
    assert 0 <= soonest - time.time() - FAT - SPARE_SECONDS <= 1.5
    assert transfers(store) == []
    copies = store.read_now(lambda c: datasets.replicas(c, "p", "corpus"))
    assert [copy.site for copy in copies] == ["a"]
    assert ask(store, replace(wish(0.0), by=soonest + 30.0))


async def test_what_is_promised_is_gone_for_the_next(store: Database) -> None:
    """Another version gets the thin path or a later window, and so does a task's data."""
    lease = world(store)
    another(store, "more")
    another(store, "third")
    ask(store, wish(FAT + 30.0))
    assert refused(store, wish(FAT + 15.0, name="more")).code == "misses_deadline"
    ask(store, wish(2 * FAT + 30.0, name="more"))
    first, second = [orjson.loads(row.stretches) for row in transfers(store)]
    assert second[0]["begins"] >= first[-1]["ends"] - 0.01
    third = replace(reads(), inputs=(replace(reads().inputs[0], data="p/third"),))
    await store.write(intents.submit, now=time.time(), user="ada", project="p", specs=[third])
    assert await round_(store).run(store, time.time(), lease) == 1
    [of_task] = [row for row in transfers(store) if row.task_id]
    assert orjson.loads(of_task.stretches)[0]["begins"] >= second[-1]["ends"] - 0.01


def test_two_at_once_do_not_both_get_the_last_room(store: Database) -> None:
    """The second looks only when the first has ended, whatever it had read of the ways before."""
    world(store)
    another(store, "more")
    both = [wish(FAT + 15.0), wish(FAT + 15.0, name="more")]
    ways = [store.read_now(read_ways, time.time(), one, "") for one in both]
    admitted, found = threading.Event(), []

    def first(connection: sa.Connection) -> None:
        admit(connection, now=time.time(), user="ada", wish=both[0], roads=ways[0], home_region="")
        admitted.set()
        time.sleep(1.0)  # what it wrote is not there for others yet

    def second() -> None:
        admitted.wait(20.0)
        try:
            store.write_now(
                lambda c: admit(c, now=time.time(), user="ada", wish=both[1], roads=ways[1], home_region="")
            )
            found.append("promised")
        except Refused as error:
            found.append(error.code)

    other = threading.Thread(target=second)
    other.start()
    store.write_now(first)
    other.join(30.0)
    assert found == ["misses_deadline"]
    assert [row.name for row in transfers(store)] == ["corpus"]


async def test_a_round_that_decided_before_a_copy_was_promised_writes_nothing(store: Database) -> None:
    """Its promise would take the same rate a second time; the next round takes what is left."""
    lease = world(store)
    another(store, "more")
    promised: list[str] = []

    class Overtaken(Round):
        def _decide(self, *args: Any, **kwargs: Any) -> Any:
            decided = super()._decide(*args, **kwargs)
            if not promised:
                promised.extend(ask(store, wish(FAT + 30.0, name="more")))
            return decided

    await store.write(intents.submit, now=time.time(), user="ada", project="p", specs=[reads()])
    overtaken = round_(store, Overtaken)
    assert await overtaken.run(store, time.time(), lease) == 0
    assert [row.name for row in transfers(store)] == ["more"]
    assert await overtaken.run(store, time.time(), lease) == 1
    copy, of_task = transfers(store)
    assert orjson.loads(of_task.stretches)[0]["begins"] >= orjson.loads(copy.stretches)[-1]["ends"] - 0.01


def test_several_sites_are_promised_all_or_none(store: Database) -> None:
    """Each has its window in turn; when the last one would be late there is no transfer at all, and the offer is for all."""
    world(store, network=THREE)
    join(store, "c")
    now = time.time()
    row = {"site": "c", "address": "c:1", "seen_at": now}
    store.write_now(lambda c: c.execute(tables.data_servers.insert(), [row]))
    told = refused(store, wish(FAT + 15.0, "b", "c"))
    assert told.code == "misses_deadline"
    assert transfers(store) == []
    assert len(ask(store, wish(2 * FAT + 30.0, "b", "c"))) == 2
    first, second = sorted(transfers(store), key=lambda row: row.target)
    assert orjson.loads(second.stretches)[0]["begins"] >= orjson.loads(first.stretches)[-1]["ends"] - 0.01


@pytest.mark.parametrize(
    "network",
    [
        None,
        replace(NETWORK, links=NETWORK.links[:2]),  # no way between the routers
        replace(NETWORK, links=tuple(replace(link, capacity_bits_per_second=None) for link in NETWORK.links)),
    ],
    ids=["nothing declared", "no way", "no rate known"],
)
def test_where_the_network_is_not_known_nothing_is_promised(store: Database, network: DeclaredNetwork | None) -> None:
    """The refusal says which way is missing, and what helps."""
    world(store, network=network)
    told = refused(store, wish(86400.0))
    assert told.code == "no_declared_path"
    assert "from a to b" in told.cause
    assert "isthmus net load" in told.remedy
    assert transfers(store) == []


def test_only_from_copies_that_can_be_read_and_to_places_that_may_have_it(store: Database) -> None:
    """A site that does not answer is no source; bound data is not promised outside."""
    world(store, regions=("eu",))
    assert refused(store, wish(86400.0)).code == "data_may_not_leave"
    another(store, "free")
    s = tables.sites
    store.write_now(lambda c: c.execute(s.update().where(s.c.name == "a").values(last_seen_at=1.0)) and None)
    told = refused(store, wish(86400.0, name="free"))
    assert told.code == "no_declared_path"
    assert "No site that answers" in told.cause


def test_its_own_bound_is_kept_and_is_no_link(store: Database) -> None:
    """With at most 10 MB/s the window is as long as that takes, and no more of the link is held."""
    world(store)
    assert refused(store, wish(FAT + 30.0, most=1e7)).code == "misses_deadline"
    ask(store, wish(BYTES / 1e7 + 30.0, most=1e7))
    [row] = transfers(store)
    assert [one["bytes_per_second"] for one in orjson.loads(row.stretches)] == [pytest.approx(1e7)]
    assert not any("@" in link for link in orjson.loads(row.links))
    assert row.most_bytes_per_second == 1e7


def test_a_version_that_comes_already_is_promised_too_or_refused(store: Database) -> None:
    """One that only waits gets its windows; one with a promise in time is taken; one that moves without is not."""
    world(store)
    ref = DatasetRef(project="p", name="corpus")

    def plan(connection: sa.Connection) -> str:
        return data_intents.plan_transfer(
            connection, now=time.time(), user="ada", ref=ref, target="b", home_region="", cached=True, task_id="t"
        )

    known = store.write_now(plan)
    assert ask(store, wish(FAT + 60.0)) == [known]
    [row] = transfers(store)
    assert (row.cached, row.stretches != "[]") == (False, True)
    assert ask(store, wish(FAT + 30.0)) == [known]
    [again] = transfers(store)
    assert again.stretches == row.stretches
    assert again.wanted_by < row.wanted_by
    assert isinstance(refused(store, wish(FAT / 2)), Conflict)
    t = tables.transfers
    bare = {"state": "moving", "stretches": "[]", "links": "[]"}
    store.write_now(lambda c: c.execute(t.update().values(**bare)) and None)
    told = refused(store, wish(FAT + 60.0))
    assert isinstance(told, Conflict)
    assert known in told.remedy
