"""Makes the routers follow: compares what is wanted with what each daemon has, corrects it, and takes policies away from failed links.

Whoever holds the lease of placement does it. A router is reached through the agent that its declaration names, or over a socket of this machine
that the service was started with; any other is refused. What is right is not touched, by a restart of any part either.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import sqlalchemy as sa

from isthmus.domain.errors import Forbidden, IsthmusError, NotFound
from isthmus.domain.network import Figure, Metric, NetNode, NetworkView, NodeKind, Source
from isthmus.engine import leading
from isthmus.engine.agentsite import AgentSite
from isthmus.engine.clock import Clock
from isthmus.engine.declaring import Measured, record
from isthmus.engine.fleet import Fleet
from isthmus.engine.networkview import read_network
from isthmus.engine.routerstates import RouterStates
from isthmus.engine.slicing import Sliced, interfaces, note, slices
from isthmus.engine.steering import Wanted, policies
from isthmus.network.control import desired
from isthmus.network.control.client import LinkWatch, RouterClient
from isthmus.network.control.desired import DesiredState
from isthmus.store import events, tables
from isthmus.store.database import Database

log = logging.getLogger(__name__)
LOOK_SECONDS = 2.0
_QUIET = "alright"
_GARBAGE = (ValueError, TypeError, KeyError, AttributeError)  # what comes of an answer of another shape


class Routers:
    """The reconciler of all routers."""

    def __init__(self, database: Database, fleet: Fleet, clock: Clock, sockets: Sequence[Path] = ()) -> None:
        """`sockets` are the daemons of this machine that may be spoken to."""
        self._database = database
        self._fleet = fleet
        self._clock = clock
        self._sockets = {str(path) for path in sockets}
        self._due = asyncio.Event()
        self._watched: dict[str, LinkWatch] = {}
        self._said: dict[str, str] = {}
        self._states = RouterStates()

    def wake(self) -> None:
        """Look soon: a policy was wanted or given up."""
        self._due.set()

    async def run(self, is_ours: Callable[[], bool]) -> None:
        """Look from time to time and when woken, while it is ours to do."""
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._due.wait()
                self._due.clear()
                if not is_ours():
                    continue
                try:
                    await self.reconcile()
                except IsthmusError as error:
                    log.warning("the routers were not looked at: %s", error)
                except Exception:
                    log.exception("the routers were not looked at")
        finally:
            for watch in self._watched.values():
                watch.close()

    async def reconcile(self) -> int:
        """One look at every router: take in what is up, move what must, correct what is wrong; how many things of routers changed."""
        now = self._clock.now()
        view = await self._database.read(read_network, now)
        obeying = [node for node in view.nodes if node.kind is NodeKind.ROUTER and node.locator and node.control]
        if not obeying:
            await self._database.write(_forget)
            return 0
        words = await asyncio.gather(*(self._links(node) for node in obeying))
        seen = {node.name: links for node, links in zip(obeying, words, strict=True) if links is not None}
        view, wanted, sliced = await self._database.write(_take_in, now, seen)
        made = interfaces(view, [one for one in sliced if one.wanted])
        states = await asyncio.to_thread(self._states, view, [one for one in wanted if one.wanted], made)
        asked = [node for node in obeying if node.name in states]  # one may have been given up meanwhile
        done = await asyncio.gather(*(self._correct(node, states[node.name]) for node in asked))
        errors = {node.name: error for node, (_, error) in zip(asked, done, strict=True) if error}
        await self._database.write(_note, self._clock.now(), wanted, errors)
        if sliced:
            await self._database.write(note, self._clock.now(), sliced, errors, made, view)
        return sum(changed for changed, _ in done)

    async def _links(self, node: NetNode) -> Mapping[str, bool] | None:
        try:
            answer = await self._ask(node, {"do": "links"})
            self._watch(node)
            return {str(name): bool(up) for name, up in answer["links"].items()}
        except (IsthmusError, *_GARBAGE) as error:
            self._say(node.name, f"does not tell of its links: {error}")
            return None

    async def _correct(self, node: NetNode, state: DesiredState) -> tuple[int, str]:
        """How many things changed, and why it could not be done."""
        try:
            held = (await self._ask(node, {"do": "state"})).get("state")
            wanted = desired.as_json(state)
            if orjson.dumps(held, option=orjson.OPT_SORT_KEYS) == orjson.dumps(wanted, option=orjson.OPT_SORT_KEYS):
                self._say(node.name, _QUIET)
                return 0, ""  # its daemon compares it with the kernel by itself
            answer = await self._ask(node, {"do": "apply", "state": wanted})
            changed = int(answer.get("made", 0)) + int(answer.get("removed", 0))
        except (IsthmusError, *_GARBAGE) as error:
            said = str(error) if isinstance(error, IsthmusError) else f"Its answer cannot be read: {error!r}"
            self._say(node.name, f"does not follow: {said}")
            return 0, said
        self._say(node.name, _QUIET)
        return changed, ""

    async def _ask(self, node: NetNode, request: dict[str, Any]) -> dict[str, Any]:
        assert node.control is not None
        if node.control.agent:
            member = self._fleet.members.get(node.control.agent)
            if member is None or not isinstance(member.adapter, AgentSite):
                raise NotFound(f"The site {node.control.agent} has no agent.", remedy="Let it join with mode agent.")
            return await member.adapter.ask_router(node.control.socket, request)
        if node.control.socket not in self._sockets:
            raise Forbidden(
                f"This service does not speak to {node.control.socket}.",
                remedy="Start it with --router SOCKET, or name an agent under `control`.",
            )
        return await asyncio.to_thread(RouterClient(Path(node.control.socket)).ask, request)

    def _watch(self, node: NetNode) -> None:
        """Follow the interfaces of a router of this machine, so that a failure is known at once."""
        assert node.control is not None
        socket = node.control.socket
        if node.control.agent or socket in self._watched:
            return
        loop = asyncio.get_running_loop()

        def follow(watch: LinkWatch) -> None:
            with contextlib.suppress(
                IsthmusError, OSError, RuntimeError, *_GARBAGE
            ):  # RuntimeError: the loop has ended
                for _links in watch:
                    loop.call_soon_threadsafe(self._due.set)
            self._watched.pop(socket, None)

        with contextlib.suppress(IsthmusError):
            watch = RouterClient(Path(socket)).watch()
            self._watched[socket] = watch
            threading.Thread(target=follow, args=(watch,), name=f"links of {node.name}", daemon=True).start()

    def _say(self, router: str, word: str) -> None:
        """Log what is new only."""
        if self._said.get(router, _QUIET) != word:
            log.warning("router %s: %s", router, word)
        self._said[router] = word


def _take_in(
    connection: sa.Connection, now: float, seen: Mapping[str, Mapping[str, bool]]
) -> tuple[NetworkView, tuple[Wanted, ...], tuple[Sliced, ...]]:
    """Keep the routers' words on links, and give policies whose path has failed another one; only those move."""
    view = read_network(connection, now)
    found: list[Measured] = []
    happened = []
    told: dict[str, bool] = {}
    for link in view.links:
        interface = link.link.interfaces[link.link.ends.index(link.source)]
        up = seen.get(link.source, {}).get(interface) if interface else None
        if up is not None:
            told[link.link.name] = told.get(link.link.name, True) and up
    for link in view.links:
        up = told.get(link.link.name)
        if up is None:
            continue
        since = now if up != link.up or link.up_since is None else link.up_since
        word = Figure(value=float(up), error=0.0, measured_at=now, source=Source.ROUTER)
        if up != link.up and link.source == link.link.ends[0]:
            kind = "network.up" if up else "network.down"
            body = {"source": link.source, "target": link.target, "link": link.link.name}
            happened.append(events.event(now, kind, site=link.source, body=body))
        found.append(
            Measured(
                source=link.source,
                target=link.target,
                link=link.link.name,
                metric=Metric.UP,
                figure=word,
                since=since,
            )
        )
    record(connection, found)
    view = read_network(connection, now)
    wanted = []
    for one in policies(connection):
        moved = _moved(view, one) if one.wanted else None
        if moved is None:
            wanted.append(one)
            continue
        nodes = orjson.dumps(list(moved)).decode()
        p = tables.net_policies
        connection.execute(p.update().where(p.c.name == one.name).values(nodes=nodes, moved_at=now, programmed_at=None))
        if one.owner == "transfer":
            leading.moved(connection, view, one.name, moved)
        moving: dict[str, Any] = {"policy": one.name, "from": list(one.nodes), "to": list(moved)}
        happened.append(events.event(now, "network.moved", site=one.source, body=moving))
        wanted.append(replace(one, nodes=moved, moved_at=now, programmed_at=None))
    events.add(connection, happened)
    return view, tuple(wanted), slices(connection)


def _moved(view: NetworkView, one: Wanted) -> tuple[str, ...] | None:
    """Another path for a policy whose own has failed; None when it may stay, or there is no other."""
    from isthmus.network.candidates import candidate_paths

    up = {(link.source, link.target): link.up for link in view.links}
    if all(up.get(pair, False) for pair in pairwise(one.nodes)):
        return None
    try:
        found = candidate_paths(view, one.source, one.target, count=16)
    except NotFound:
        return None
    whole = [path.nodes for path in found if path.up and path.programmable]
    return whole[0] if whole else None


def _forget(connection: sa.Connection) -> None:
    """No router obeys: what is given up is nowhere any more."""
    for table in (tables.net_policies, tables.net_slices):
        if connection.execute(sa.select(table.c.name).where(table.c.wanted.is_(False)).limit(1)).first() is not None:
            connection.execute(table.delete().where(table.c.wanted.is_(False)))


def _note(connection: sa.Connection, now: float, wanted: Sequence[Wanted], errors: Mapping[str, str]) -> None:
    """Write down which policies their routers have; those that are given up go when their router forgot them."""
    p = tables.net_policies
    for one in wanted:
        error = errors.get(one.nodes[1], "")[:1000]
        here = p.c.name == one.name
        if not one.wanted:
            if not error:
                connection.execute(p.delete().where(here, p.c.wanted.is_(False)))
            continue
        same = p.c.nodes == orjson.dumps(list(one.nodes)).decode()
        if error:
            connection.execute(p.update().where(here).values(error=error, programmed_at=None))
        elif one.programmed_at is None or one.error:
            connection.execute(p.update().where(here, same, p.c.wanted).values(error="", programmed_at=now))
