"""Has the agents of sites measure the paths between them, and keeps what they tell: figures, whether a path is alive, what changed.

A round a minute: each agent that its operator lets measure sends twenty small packets to each other node with an address, and every ten minutes
a packet train of a quarter of a megabyte. Whoever holds the lease of placement does it.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa

from isthmus.domain.errors import Forbidden, IsthmusError
from isthmus.domain.network import STALE_SECONDS, Figure, Metric, NetNode, NetworkView, Source
from isthmus.engine.agentsite import AgentSite
from isthmus.engine.clock import Clock
from isthmus.engine.declaring import Measured, record
from isthmus.engine.fleet import Fleet
from isthmus.engine.networkview import read_network
from isthmus.network.measurement.change import Change
from isthmus.network.measurement.linkstate import LinkState
from isthmus.network.measurement.probing import Probe, Probes, Told
from isthmus.store import events, tables
from isthmus.store.database import Database
from isthmus.store.documents import dump, load

log = logging.getLogger(__name__)
TARGETS_IN_A_ROUND = 32
PACKETS = 20
INTERVAL_SECONDS = 0.05
KEPT_SECONDS = 30 * 86400.0
_REFUSED_SECONDS = 600.0
_TRAIN_ERROR = 0.3
"""Of what a packet train says: other traffic on the path is in it."""


class Measuring:
    """Rounds of measurement over the agents of one fleet."""

    def __init__(
        self, database: Database, fleet: Fleet, clock: Clock, *, every_seconds: float, train_every_seconds: float
    ) -> None:
        self._database = database
        self._fleet = fleet
        self._clock = clock
        self._every = every_seconds
        self._train_every = train_every_seconds
        self._trained: dict[str, float] = {}
        self._refused: dict[str, float] = {}
        self._at_it: set[str] = set()
        self._rounds: set[asyncio.Task[None]] = set()
        self._turn = 0

    async def run(self, is_ours: Callable[[], bool]) -> None:
        """Measure from time to time, while it is ours to do."""
        try:
            while True:
                await self._clock.sleep(self._every)
                if is_ours():
                    task = asyncio.create_task(self._quietly(), name="measuring")
                    self._rounds.add(task)
                    task.add_done_callback(self._rounds.discard)
        finally:
            for task in self._rounds:
                task.cancel()

    async def _quietly(self) -> None:
        try:
            await self.round()
        except IsthmusError as error:
            log.warning("the network was not measured: %s", error)
        except Exception:
            log.exception("the network was not measured")

    async def round(self) -> int:
        """Ask every agent that is not still at it, and wait for all; how many sessions were told of. Each answer is kept as it comes, so that
        one that is cut off holds up nobody."""
        view = await self._database.read(read_network, self._clock.now())
        targets = [node for node in view.nodes if node.address]
        now = self._clock.monotonic()
        asked = [
            (name, member.adapter)
            for name, member in self._fleet.members.items()
            if isinstance(member.adapter, AgentSite) and now >= self._refused.get(name, 0.0)
        ]
        self._turn += 1
        counts = await asyncio.gather(*(self._measured(name, adapter, targets) for name, adapter in asked))
        return sum(counts)

    async def _measured(self, name: str, agent: AgentSite, targets: Sequence[NetNode]) -> int:
        if name in self._at_it:
            return 0
        self._at_it.add(name)
        try:
            found = await self._ask(name, agent, targets)
            if found:
                await self._database.write(store, self._clock.now(), [(name, one) for one in found])
            return len(found)
        finally:
            self._at_it.discard(name)

    async def _ask(self, name: str, agent: AgentSite, targets: Sequence[NetNode]) -> tuple[Told, ...]:
        others = [node for node in targets if node.name != name]
        first = self._turn * TARGETS_IN_A_ROUND % max(1, len(others)) if len(others) > TARGETS_IN_A_ROUND else 0
        chosen = (others + others)[first : first + min(len(others), TARGETS_IN_A_ROUND)]
        if not chosen:
            return ()
        now = self._clock.monotonic()
        train = now - self._trained.get(name, -math.inf) >= self._train_every
        probes = tuple(Probe(name=node.name, address=node.address, port=node.port) for node in chosen)
        try:
            found = await agent.measure(
                Probes(probes=probes, count=PACKETS, interval_seconds=INTERVAL_SECONDS, train=train)
            )
        except Forbidden as error:
            self._refused[name] = now + _REFUSED_SECONDS
            log.info("the agent of %s does not measure: %s", name, error)
            return ()
        except IsthmusError as error:
            log.info("the agent of %s did not measure: %s", name, error)
            return ()
        if any(one.bits_per_second is not None for one in found):
            self._trained[name] = now
        return found


def store(connection: sa.Connection, now: float, told: Sequence[tuple[str, Told]]) -> None:
    """Keep what agents told: (from which site, session or train)."""
    view = read_network(connection, now)
    direct = {frozenset(one.link.ends): one.link.name for one in view.links}
    found: list[Measured] = []
    happened: list[dict[str, Any]] = []
    for site, one in told:
        links = ("", direct[frozenset((site, one.name))]) if frozenset((site, one.name)) in direct else ("",)
        if one.bits_per_second is not None:
            error = one.bits_per_second * _TRAIN_ERROR
            figure = Figure(value=one.bits_per_second, error=error, measured_at=now, source=Source.PROBE)
            found += [
                Measured(source=site, target=one.name, link=link, metric=Metric.AVAILABLE, figure=figure)
                for link in links
            ]
        if not one.sent:
            continue
        before = _state(connection, site, one.name)
        state, changes = before.with_told(one, now)
        for link in links:
            found += _figures(site, one.name, link, state, now)
        happened += _events(now, site, one.name, before, state, changes)
    record(connection, found)
    record(connection, _derived(read_network(connection, now)))
    states = tables.link_states
    connection.execute(states.delete().where(states.c.measured_at < now - KEPT_SECONDS))
    events.add(connection, happened)


def _state(connection: sa.Connection, source: str, target: str) -> LinkState:
    s = tables.link_states.c
    text = connection.execute(
        sa.select(s.watched).where(
            s.source == source,
            s.target == target,
            s.link == "",
            s.metric == Metric.UP.value,
            s.origin == Source.STAMP.value,
        )
    ).scalar()
    return load(LinkState, text) if text else LinkState()


def _figures(source: str, target: str, link: str, state: LinkState, now: float) -> list[Measured]:
    figures = {
        Metric.ONE_WAY_DELAY: state.delay_seconds,
        Metric.TWO_WAY_DELAY: state.two_way_seconds,
        Metric.JITTER: state.variation_seconds,
        Metric.LOSS: state.loss,
    }
    found = [
        Measured(source=source, target=target, link=link, metric=metric, figure=figure)
        for metric, figure in figures.items()
        if figure is not None
    ]
    word = Figure(value=float(state.up is not False), error=0.0, measured_at=now, source=Source.STAMP)
    watched = "" if link else dump(state)
    return [
        *found,
        Measured(
            source=source,
            target=target,
            link=link,
            metric=Metric.UP,
            figure=word,
            since=state.up_since,
            watched=watched,
        ),
    ]


def _events(
    now: float, source: str, target: str, before: LinkState, state: LinkState, changes: dict[str, Change]
) -> list[dict[str, Any]]:
    where = {"source": source, "target": target}
    found = []
    if before.up is not None and state.up != before.up:
        kind = "network.up" if state.up else "network.down"
        found.append(events.event(now, kind, site=source, body=where))
    for name, change in changes.items():
        usual = state.watched[name].mean
        figure = state.loss if name == "loss" else state.delay_seconds
        body = {**where, "figure": name, "value": figure.value if figure else None, "usual": usual}
        found.append(events.event(now, f"network.{change.value}", site=source, body=body))
    return found


def _derived(view: NetworkView) -> list[Measured]:
    """Delay and loss of links that no session crosses alone, from those that cross several."""
    from isthmus.network.candidates import own_way
    from isthmus.network.measurement.attribution import Sum, attribute

    delays: list[Sum] = []
    losses: list[Sum] = []
    oldest = view.now - STALE_SECONDS
    ends = {link.link.name: link.link.ends for link in view.links}
    for pair in view.pairs:
        way = own_way(view, pair.source, pair.target) if pair.up else None
        if not way:
            continue
        if (two_way := pair.two_way_delay_seconds) is not None and two_way.measured_at >= oldest:
            names = tuple(link.link.name for link in way)
            delays.append(Sum(links=names, value=two_way.value / 2, error=max(two_way.error / 2, 1e-6)))
        if (loss := pair.loss) is not None and loss.measured_at >= oldest and loss.value < 1:
            directed = tuple(f"{link.link.name}>{link.target}" for link in way)
            losses.append(Sum(links=directed, value=-math.log1p(-loss.value), error=max(loss.error, 1e-6)))
    found: list[Measured] = []

    def add(source: str, target: str, link: str, metric: Metric, value: float, error: float) -> None:
        figure = Figure(value=value, error=error, measured_at=view.now, source=Source.DERIVED)
        found.append(Measured(source=source, target=target, link=link, metric=metric, figure=figure))

    alone = {one.links[0] for one in delays if len(one.links) == 1}
    for name, (value, error) in attribute(delays).items():
        if name in alone:
            continue
        one, other = ends[name]
        add(one, other, name, Metric.ONE_WAY_DELAY, value, error)
        add(other, one, name, Metric.ONE_WAY_DELAY, value, error)
    for name, (value, error) in attribute(losses).items():
        link, _, target = name.rpartition(">")
        if link in alone:
            continue
        source = next(end for end in ends[link] if end != target)
        add(source, target, link, Metric.LOSS, -math.expm1(-value), error)
    return found
