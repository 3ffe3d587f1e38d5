"""Moving waiting work, and making room: only when it pays, only what is needed."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from isthmus.domain.placement import PoolView, Promise, Snapshot, WaitingTask, Why
from isthmus.domain.site import Pool
from isthmus.domain.task import Constraints, Demand, Goal, Objective
from isthmus.placement import decide
from isthmus.placement.candidates import Staying
from isthmus.placement.moving import Better, Queued, find_better
from isthmus.placement.preempting import Holder, Room, Wanting, make_room

HOUR = 3600.0


def _view(site: str, *, queued_cpu_seconds: float = 0.0, price: str = "0", up: bool = True, free: int = 8) -> PoolView:
    busy = queued_cpu_seconds > 0
    return PoolView(
        site=site,
        pool=Pool(
            name="p",
            cpus_per_node=8,
            memory_bytes_per_node=1 << 40,
            free_cpus=0 if busy else free,
            queued_jobs=10 if busy else 0,
            queued_cpu_seconds=queued_cpu_seconds,
            price_per_cpu_hour=Decimal(price),
            up=up,
        ),
    )


def _task(name: str = "t", *, goal: Goal = Goal.SOONEST, cpus: int = 1, preemptible: bool = False) -> WaitingTask:
    return WaitingTask(
        id=name,
        user="ada",
        demand=Demand(cpus=cpus, walltime_seconds=600),
        objective=Objective(goal=goal),
        constraints=Constraints(),
        preemptible=preemptible,
    )


def _better(*views: PoolView, queued: list[Queued]) -> list[Better]:
    return find_better(Snapshot(now=0.0, pools=views), queued, least_seconds=300.0, least_part=0.3)


def test_a_job_moves_where_it_would_start_hours_sooner() -> None:
    """And the note says how much and where."""
    [move] = _better(
        _view("north", queued_cpu_seconds=3 * HOUR * 8),
        _view("south"),
        queued=[Queued(key="k", site="north", pool="p", task=_task())],
    )
    assert (move.key, move.site) == ("k", "south")
    assert 2.9 * HOUR < move.gain_seconds <= 3 * HOUR
    assert move.note == "would start 3h 00m sooner at south"


def test_a_task_that_wants_to_be_apart_moves_where_none_of_its_group_is() -> None:
    """The idle site has one already; the next best has not. Of two of the group only one goes there."""
    group = Constraints(apart="replicas")
    there = replace(_view("south"), apart=frozenset({("ada", "replicas")}))
    queued = [
        Queued(key=key, site="north", pool="p", task=replace(_task(key), constraints=group)) for key in ("k", "l")
    ]
    north = _view("north", queued_cpu_seconds=3 * HOUR * 8)
    assert _better(north, there, queued=queued) == []
    [move] = _better(north, there, _view("west", queued_cpu_seconds=HOUR * 8), queued=queued)
    assert (move.key, move.site) == ("k", "west")


def test_a_gain_must_be_worth_it_in_seconds_and_as_a_part() -> None:
    """Four minutes are too few; ten minutes of ten hours are too small a part; a job at the queue's head stays."""
    for backlog, ahead in ((240.0 * 8, 1.0), (3 * HOUR * 8, 0.02)):
        queued = [Queued(key="k", site="north", pool="p", task=_task(), ahead=ahead)]
        assert _better(_view("north", queued_cpu_seconds=backlog), _view("south"), queued=queued) == []
    near = _view("south", queued_cpu_seconds=9.8 * HOUR * 8)
    assert _better(_view("north", queued_cpu_seconds=10 * HOUR * 8), near, queued=[Queued(key="k", site="north", pool="p", task=_task())]) == []  # fmt: skip


def test_the_cheapest_place_is_not_left_for_a_sooner_one() -> None:
    """Unless the other costs no more."""
    queued = [Queued(key="k", site="north", pool="p", task=_task(goal=Goal.CHEAPEST))]
    north = _view("north", queued_cpu_seconds=3 * HOUR * 8, price="1")
    assert _better(north, _view("south", price="2"), queued=queued) == []
    assert len(_better(north, _view("south", price="1"), queued=queued)) == 1


def test_a_pool_that_is_down_and_a_full_queue_are_left() -> None:
    """A job that was refused for an hour is taken to be refused for another."""
    [move] = _better(_view("north", up=False), _view("south"), queued=[Queued(key="k", site="north", pool="p", task=_task())])  # fmt: skip
    assert move.note == "its pool is down; south has room"
    north = _view("north", queued_cpu_seconds=60.0 * 8)
    taken = Queued(key="k", site="north", pool="p", task=_task())
    assert _better(north, _view("south"), queued=[taken]) == []
    [move] = _better(north, _view("south"), queued=[replace(taken, refused_seconds=HOUR)])
    assert move.gain_seconds > 0.99 * HOUR


def test_a_job_is_not_counted_at_its_own_pool_once_more() -> None:
    """Nor are the others that stay: what is in the snapshot is all there is. Two jobs that fill a pool of eight processors wait for
    one another there, and for nothing else."""
    long = replace(_task(cpus=8).demand, walltime_seconds=36_000)
    tasks = [replace(_task(name), demand=long) for name in "abc"]
    own = Promise(jobs=3, cpus=24, cpu_seconds=24 * 36_000.0)
    north = replace(_view("north", free=8), promised=own)
    queued = [Queued(key=task.id, site="north", pool="p", task=task) for task in tasks]
    south = _view("south", queued_cpu_seconds=0.5 * HOUR * 8)
    assert _better(north, south, queued=queued) == []
    immediate = replace(north.pool, immediate=True)
    alone = replace(north, pool=immediate, promised=Promise(jobs=1, cpus=8, cpu_seconds=8 * 36_000.0))
    [stay] = [Staying(Snapshot(now=0.0, pools=(alone,))).plan(tasks[0], "north", "p", refused=False)]
    assert stay is not None
    assert stay.wait is not None
    assert stay.wait.seconds == 0.0


def test_a_job_has_waited_for_a_part_of_its_queue_already() -> None:
    """Three hours were ahead of it when it came, as of one that comes now; after 2 h 50 m it is worth no move."""
    north = _view("north", queued_cpu_seconds=3 * HOUR * 8)
    one = Queued(key="k", site="north", pool="p", task=_task(), waited_seconds=HOUR)
    [move] = _better(north, _view("south"), queued=[one])
    assert 1.9 * HOUR < move.gain_seconds <= 2 * HOUR
    assert _better(north, _view("south"), queued=[replace(one, waited_seconds=2.95 * HOUR)]) == []


def test_not_all_go_for_the_same_hole() -> None:
    """Eight processors idle elsewhere take eight of twenty waiting jobs, no more."""
    long = replace(_task().demand, walltime_seconds=1800)
    tasks = [replace(_task(f"t{i:02}"), demand=long) for i in range(20)]
    queued = [Queued(key=task.id, site="north", pool="p", task=task) for task in tasks]
    north = _view("north", queued_cpu_seconds=0.5 * HOUR * 8)
    assert len(_better(north, _view("south"), queued=queued)) == 8


# --- making room ------------------------------------------------------------------------------------------------------

rooms = st.builds(Room, cpus=st.integers(0, 4), memory_bytes=st.integers(0, 4), accelerators=st.integers(0, 1))
holders = st.lists(st.tuples(st.sampled_from("ab"), rooms, st.floats(0, 100), st.booleans()), max_size=8)
wants = st.lists(st.tuples(rooms, st.lists(st.sampled_from("ab"), min_size=1, max_size=2, unique=True)), max_size=5)


@given(st.dictionaries(st.sampled_from("ab"), rooms), holders, wants)
def test_room_is_made_for_whom_it_is_enough_and_for_nobody_else(
    free: dict[str, Room], held: list[tuple[str, Room, float, bool]], wanted: list[tuple[Room, list[str]]]
) -> None:
    """Each job ends once and for one task, at a place of its own; for that task it is enough, and without any one of them not."""
    everything = [
        Holder(key=str(i), place=(site, "p"), room=room, started_at=when, ending=ending)
        for i, (site, room, when, ending) in enumerate(held)
    ]
    wanting = [
        Wanting(task_id=str(i), room=room, places=tuple((site, "p") for site in sites))
        for i, (room, sites) in enumerate(wanted)
    ]
    before = {(site, "p"): room for site, room in free.items()}
    ended = make_room(before, wanting, everything)
    by_key = {holder.key: holder for holder in everything}
    assert len({key for key, _ in ended}) == len(ended)
    assert not any(by_key[key].ending for key, _ in ended)
    for want in wanting:
        own = [by_key[key] for key, task_id in ended if task_id == want.task_id]
        if own:
            assert len({holder.place for holder in own}) == 1
            assert own[0].place in want.places


def test_the_last_started_make_room_and_no_more_than_are_needed() -> None:
    """Four processors are wanted: the three youngest hold enough, and one of them turns out not to be needed."""
    held = [
        Holder(key="old", place=("a", "p"), room=Room(cpus=4), started_at=1.0),
        Holder(key="young", place=("a", "p"), room=Room(cpus=1), started_at=9.0),
        Holder(key="middle", place=("a", "p"), room=Room(cpus=4), started_at=5.0),
    ]
    want = Wanting(task_id="t", room=Room(cpus=4), places=(("a", "p"),))
    assert make_room({}, [want], held) == [("middle", "t")]
    assert make_room({("a", "p"): Room(cpus=4)}, [want], held) == []
    too_wide = Wanting(task_id="t", room=Room(cpus=10), places=(("a", "p"),))
    assert make_room({}, [too_wide], held) == []


def test_room_that_is_on_its_way_is_not_made_twice() -> None:
    """A job that was asked already counts as room, for one task."""
    held = [
        Holder(key="x", place=("a", "p"), room=Room(cpus=2), started_at=1.0, ending=True),
        Holder(key="y", place=("a", "p"), room=Room(cpus=2), started_at=2.0),
    ]
    want = Wanting(task_id="t", room=Room(cpus=2), places=(("a", "p"),))
    other = Wanting(task_id="u", room=Room(cpus=2), places=(("a", "p"),))
    assert make_room({}, [want], held) == []
    assert make_room({}, [want, other], held) == [("y", "u")]


def test_preemptible_tasks_take_only_what_is_idle() -> None:
    """They do not join a queue, and not a pool that an ordinary task of the round waits for."""
    busy = Snapshot(now=0.0, pools=(_view("north", queued_cpu_seconds=HOUR),))
    [receipt] = decide(busy, [_task(preemptible=True)]).receipts
    assert receipt.candidates[0].why is Why.FULL_NOW
    assert decide(busy, [_task()]).placements
    pool = Pool(name="p", cpus_per_node=8, memory_bytes_per_node=1 << 40, immediate=True)
    idle = Snapshot(now=0.0, pools=(PoolView(site="n", pool=pool),))
    assert len(decide(idle, [_task(preemptible=True)]).placements) == 1
    first, second = _task("a", cpus=6), _task("b", cpus=6)
    placed = decide(idle, [first, second, _task("c", preemptible=True)])
    assert [one.task_id for one in placed.placements] == ["a"]
    assert placed.receipts[2].candidates[0].offered == "others wait for it"
