"""The nemesis: what goes wrong, when, and for how long, all drawn from the history's seed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from isthmus.engine import failpoints
from tests.world.history import World, make_specs

PLACES = (
    *failpoints.NAMES,
    "write.before",
    "write.after",
    "read",
    "any",
    "stage.before",
    "stage.after",
    "submit.before",
    "submit.after",
    "observe.before",
    "observe.after",
    "collect.before",
    "collect.after",
    "usage.after",
    "clean.before",
    "clean.after",
)


async def play(world: World) -> None:
    """A few minutes of users at work while things break, then peace."""
    rng = world.rng
    await world.start_engine("one")
    if rng.random() < 0.5:
        await world.start_engine("two")
    faults = rng.sample(FAULTS, k=rng.randint(2, 6))
    ids: list[str] = []
    end = world.loop.time() + rng.uniform(60, 300)
    next_submit, next_fault, next_cancel = 0.0, rng.uniform(0, 20), rng.uniform(5, 200)
    while world.loop.time() < end:
        now = world.loop.time()
        if now >= next_submit and len(ids) < 14:
            ids += world.submit(make_specs(rng, len(world.centres)))
            next_submit = now + rng.expovariate(1 / 40)
        if now >= next_fault:
            await rng.choice(faults)(world)
            next_fault = now + rng.expovariate(1 / 12)
        if now >= next_cancel and ids:
            chosen = rng.sample(ids, k=min(len(ids), rng.randint(1, 2)))
            world.tell(f"cancel of {chosen}")
            world.cancel(chosen)
            next_cancel = now + rng.expovariate(1 / 120)
        world.note_ends()
        await asyncio.sleep(rng.uniform(0.3, 4))
    await make_peace(world)


async def make_peace(world: World) -> None:
    """Everything works again; what was frozen goes on where it stood."""
    world.tell("peace")
    for link in world.links.values():
        link.heal()
    for centre in world.centres.values():
        centre.drained = centre.accounting_down = False
        centre.reject_rate = centre.blind_rate = 0.0
        centre.schedule()
    for process, _ in world.engines.values():
        process.broken_store = 0.0
        process.kill_at.clear()
    for process, _ in world.old:
        process.thawed.set()
    if not world.engines:
        await world.start_engine("one")


def _link(world: World) -> str:
    return world.rng.choice(sorted(world.links))


def _later(world: World, seconds: float, act: Callable[[], None]) -> None:
    world.loop.call_later(seconds, act)


async def kill(world: World) -> None:
    """F1, F4: the process dies at a named place, or at the n-th thing it does."""
    if world.engines:
        owner = world.rng.choice(sorted(world.engines))
        place = world.rng.choice(PLACES)
        count = world.rng.randint(1, 60 if place in ("any", "read") else 3)
        world.engines[owner][0].kill_at[place] = count
        world.tell(f"{owner} will die at {place}, passage {count}")


async def freeze(world: World) -> None:
    """F3, F5: a process stands still past its lease while another works, then goes on as if nothing had happened."""
    if world.engines:
        owner = world.rng.choice(sorted(world.engines))
        process = world.engines[owner][0]
        seconds = world.rng.choice((5.0, 61.0, 130.0))
        process.thawed.clear()
        world.tell(f"{owner} stands still for {seconds:.0f} s")
        _later(world, seconds, process.thawed.set)
        if len(world.engines) == 1 and world.rng.random() < 0.7:
            await world.start_engine("three")


async def store_breaks(world: World) -> None:
    """F10, F11: transactions fail, before their commit or after it."""
    for process, _ in world.engines.values():
        process.broken_store = world.rng.uniform(0.05, 0.5)
        _later(world, world.rng.uniform(2, 30), lambda p=process: setattr(p, "broken_store", 0.0))
    world.tell("the store breaks")


async def noise(world: World) -> None:
    """F15 to F18: the link drops, delays, repeats and reorders."""
    link = world.links[_link(world)]
    rng = world.rng
    link.drop, link.lose_answer = rng.uniform(0, 0.3), rng.uniform(0, 0.4)
    link.late, link.twice, link.partial = rng.uniform(0, 0.6), rng.uniform(0, 0.3), rng.uniform(0, 0.3)
    link.latency = rng.choice((0.02, 0.5, 5.0))
    world.tell(f"noise at {link.centre.name}")
    _later(world, rng.uniform(10, 120), link.heal)


async def partition(world: World) -> None:
    """F19 to F22: no way through, both ways or one, long or many times short."""
    link = world.links[_link(world)]
    rng = world.rng
    both = rng.random() < 0.5
    there = not both and rng.random() < 0.5

    def cut() -> None:
        link.there, link.back = there, False

    def mend() -> None:
        link.there = link.back = True

    world.tell(f"partition of {link.centre.name}, requests {'arrive' if there else 'do not arrive'}")
    if rng.random() < 0.4:
        for number in range(rng.randint(3, 8)):
            _later(world, number * 6.0, cut)
            _later(world, number * 6.0 + rng.uniform(0.5, 5), mend)
    else:
        cut()
        _later(world, rng.choice((10.0, 45.0, 200.0)), mend)


async def submissions_unclear(world: World) -> None:
    """F23, F26: accepted but a time-out is told; looks that come back empty or as garbage."""
    centre = world.centres[_link(world)]
    centre.blind_rate = world.rng.uniform(0.1, 0.8)
    world.tell(f"{centre.name} answers unclearly")
    _later(world, world.rng.uniform(10, 120), lambda: setattr(centre, "blind_rate", 0.0))


async def reject_after_accept(world: World) -> None:
    """F24: the site takes jobs and ends them before they start."""
    centre = world.centres[_link(world)]
    centre.reject_rate = world.rng.uniform(0.2, 1.0)
    world.tell(f"{centre.name} ends jobs that it accepted")
    _later(world, world.rng.uniform(5, 40), lambda: setattr(centre, "reject_rate", 0.0))


async def accounting_late(world: World) -> None:
    """F27: accounting is far behind, or away."""
    centre = world.centres[_link(world)]
    centre.accounting_delay = world.rng.choice((120.0, 600.0))
    centre.accounting_down = world.rng.random() < 0.5
    world.tell(f"accounting of {centre.name} is late")
    _later(world, world.rng.uniform(20, 200), lambda: setattr(centre, "accounting_down", False))


def _at_site(act: Callable[[World, str], None]) -> Callable[[World], Awaitable[None]]:
    async def fault(world: World) -> None:
        name = _link(world)
        world.tell(f"{act.__name__} at {name}")
        act(world, name)

    fault.__doc__ = act.__doc__
    fault.__name__ = act.__name__
    return fault


@_at_site
def node_lost(world: World, name: str) -> None:
    """F28."""
    world.centres[name].lose_node()


@_at_site
def requeue(world: World, name: str) -> None:
    """F29."""
    world.centres[name].requeue()


@_at_site
def killed_at_site(world: World, name: str) -> None:
    """An administrator cancels jobs."""
    world.centres[name].kill_some()


@_at_site
def scheduler_restarts(world: World, name: str) -> None:
    """The scheduler forgets what it had not saved."""
    world.centres[name].restart()


@_at_site
def drain(world: World, name: str) -> None:
    """F31: a maintenance reservation; nothing starts."""
    centre = world.centres[name]
    centre.drained = True

    def resume() -> None:
        centre.drained = False
        centre.schedule()

    _later(world, world.rng.uniform(20, 200), resume)


async def clock_jumps(world: World) -> None:
    """F43, F44: the control plane's clock is set, by a second, an hour or a day, there or back."""
    world.jump += world.rng.choice((1.0, -1.0, 3600.0, -3600.0, 86400.0, -90.0))
    world.jumped = True
    world.tell(f"the clock is {world.jump:.0f} s off")


FAULTS: tuple[Callable[[World], Awaitable[None]], ...] = (
    kill,
    kill,
    kill,
    kill,
    kill,
    freeze,
    freeze,
    store_breaks,
    noise,
    noise,
    partition,
    submissions_unclear,
    reject_after_accept,
    accounting_late,
    node_lost,
    requeue,
    killed_at_site,
    scheduler_restarts,
    drain,
    clock_jumps,
)


def rng_of(seed: int) -> random.Random:
    """The one source of chance of a history."""
    return random.Random(seed)
