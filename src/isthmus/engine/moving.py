"""Moves datasets: PLANNED -> MOVING -> DONE, one process at a time, by orders to the agents of sites.

The control plane moves no bytes itself. A transfer between two sites goes directly when the sending one can be dialled, else through
the service: first a transfer to the service, then one from it. An order carries a fence; a site that does not answer leaves the
transfer as it is, since it may well be moving. What arrived is known by its hashes, so an order is safe to send again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
import sqlalchemy as sa

from isthmus.data.port import DataKeeper
from isthmus.domain.dataset import (
    HOME,
    DatasetRef,
    Going,
    ReplicaState,
    Tier,
    TransferOrder,
    TransferProgress,
    TransferState,
)
from isthmus.domain.errors import Corrupt, Forbidden, IsthmusError, NotFound, Refused, Unavailable
from isthmus.domain.lifecycle import AttemptState
from isthmus.domain.units import show_size
from isthmus.engine import datasets as intents
from isthmus.engine import leading, waystaken
from isthmus.engine.clock import Clock
from isthmus.engine.evicting import room_for, set_tier
from isthmus.engine.failpoints import failpoint
from isthmus.engine.fleet import Fleet
from isthmus.engine.home import Home
from isthmus.engine.leases import Lease, LostLease, guard
from isthmus.engine.settings import EngineSettings
from isthmus.engine.sources import Offer, Passes, choose
from isthmus.engine.verifying import lost
from isthmus.store import datasets, tables
from isthmus.store.database import Database

log = logging.getLogger(__name__)
_BATCH = 200
_MOST_TRIES = 20
_AT_ONCE = 16  # transfers of one site in hand
_ROUTERS_SECONDS = 0.5  # between two looks whether routers have a path
_TREE_SECONDS = 0.3  # between two looks whether the site before in the tree receives
_r, _t = tables.replicas.c, tables.transfers.c


class Mover:
    """Looks after every transfer while `lease()` answers one."""

    def __init__(
        self,
        database: Database,
        fleet: Fleet,
        home: Home,
        clock: Clock,
        settings: EngineSettings,
        passes: Passes,
        *,
        lease: Callable[[], Lease | None],
        arrived: Callable[[], None],
        wake_routers: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._fleet = fleet
        self._home = home
        self._clock = clock
        self._settings = settings
        self._passes = passes
        self._lease = lease
        self._arrived = arrived
        self._wake_routers = wake_routers
        self._in_hand: dict[str, asyncio.Task[None]] = {}
        self._place_of: dict[str, str] = {}  # whose agent is asked for a transfer in hand
        self._rooms: dict[str, asyncio.Lock] = {}
        self._leaving: dict[str, asyncio.Task[None]] = {}  # by site: a slow one holds nobody up
        self._warming: dict[str, asyncio.Task[None]] = {}
        self.due = asyncio.Event()

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            while True:
                self.due.clear()
                lease = self._lease()
                if lease is not None:
                    try:
                        await self._look(lease)
                    except IsthmusError as error:
                        log.warning("transfers: %s", error)
                    except Exception:
                        log.exception("a look at the transfers failed")
                await self._pause(self._settings.transfer_interval)
        finally:
            tasks = [*self._in_hand.values(), *self._leaving.values(), *self._warming.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self, lease: Lease) -> None:
        if not self._in_hand and await self._database.read(datasets.is_still):
            return
        rows = await self._database.read(datasets.due_transfers, self._clock.now(), _BATCH, list(self._in_hand))
        asked = Counter(self._place_of[key] for key in self._in_hand)
        for row in rows:
            place = row.source if row.target == HOME else row.target
            if asked[place] >= _AT_ONCE:
                continue  # the agent of a site has its jobs to look after too
            asked[place] += 1
            self._place_of[row.id] = place
            self._in_hand[row.id] = asyncio.create_task(self._serve(row, lease), name=f"transfer {row.id}")
        if lost := await self._database.read(leading.left_behind):
            await self._database.write(leading.give_up, lease, lost)
            self._wake_routers()
        by_site: dict[str, list[Any]] = {}
        busy = sorted(self._leaving)
        for row in await self._database.read(_leaving, self._clock.now(), _BATCH, busy):
            by_site.setdefault(row.site, []).append(row)
        for row in await self._database.read(_limits_due, self._clock.now(), _BATCH, busy):
            if row.site not in by_site and row.site not in self._leaving:
                self._leaving[row.site] = asyncio.create_task(self._tell_limits(row, lease), name=f"limits {row.site}")
        cold: dict[str, list[Any]] = {}
        for row in await self._database.read(_cold_wanted, self._clock.now(), _BATCH, sorted(self._warming)):
            cold.setdefault(row.site, []).append(row)
        for site, rows in cold.items():
            task = asyncio.create_task(self._warm_for_tasks(rows, site, lease), name=f"cold copies of {site}")
            self._warming[site] = task
        for site, rows in by_site.items():
            self._leaving[site] = asyncio.create_task(self._let_go(site, rows, lease), name=f"what leaves {site}")

    async def _serve(self, row: Any, lease: Lease) -> None:
        try:
            if row.state == TransferState.PLANNED.value:
                await self._begin(row, lease)
            else:
                await self._follow(row, lease)
        except LostLease:
            pass
        except (Refused, Forbidden) as error:
            await self._end(row, lease, TransferState.FAILED, str(error))
        except (IsthmusError, TimeoutError, OSError) as error:
            await self._put_off(row, lease, str(error))
        except Exception:
            log.exception("transfer %s", row.id)
            await self._put_off(row, lease, "Handling it broke; the service's log says how.", tried=True)
        finally:
            self._in_hand.pop(row.id, None)
            self._place_of.pop(row.id, None)

    # --- beginning --------------------------------------------------------------------------------------------------

    async def _begin(self, row: Any, lease: Lease) -> None:
        """Choose where it comes from, write the intent with a higher fence, and only then send the order."""
        offer = await self._database.read(choose, row, self._settings.home_region, self._clock.now())
        if offer.warm_first:
            await self._warm(row, offer.warm_first, lease)
            return
        if offer.wait_for_home:
            await self._bring_home(row, lease)
            return
        if offer.wait_for:
            later = self._clock.now() + _TREE_SECONDS
            await self._put_off(row, lease, f"Waits for {offer.wait_for}, which passes it on.", at=later)
            return
        if offer.not_before > self._clock.now():
            await self._put_off(row, lease, "Its window has not come.", at=offer.not_before)
            return
        async with self._rooms.setdefault(row.target, asyncio.Lock()):
            opened = await self._open(row, offer, lease)
        if opened is not None:
            fence, led = opened
            await self._order(row, offer, led, fence, lease)

    async def _open(self, row: Any, offer: Offer, lease: Lease) -> tuple[int, leading.Lead] | None:
        """Write the intent: one transfer to a place after the other, so that what one takes of its room is written before the next
        looks. None when it has to wait, or somebody else has it."""
        if row.target != HOME and (missing := await self._make_room(row, row.target, lease)):
            await self._put_off(row, lease, f"Waits for room at {row.target}: {show_size(missing)} over its quota.")
            return None
        led = leading.BY_ITSELF
        if HOME not in (offer.source, row.target):
            led = await self._database.write(leading.lead, self._clock.now(), lease, row, offer.source)
        if not led.is_set:
            self._wake_routers()
            at = self._clock.now() + _ROUTERS_SECONDS
            await self._put_off(
                row, lease, f"Waits for routers to open {' and '.join(' '.join(nodes) for nodes in led.paths)}.", at=at
            )
            return None
        fence = await self._database.write(_intend, self._clock.now(), lease, row, offer, led)
        failpoint("transfer.intended")
        return (fence, led) if fence else None

    async def _bring_home(self, row: Any, lease: Lease) -> None:
        """No site that holds it can be dialled: it goes through the service, and this transfer waits for that one."""
        now = self._clock.now()

        def plan(connection: sa.Connection) -> None:
            guard(connection, lease)
            intents.plan_transfer(
                connection,
                now=now,
                user=row.created_by,
                ref=DatasetRef(project=row.project, name=row.name, version=row.version),
                target=HOME,
                home_region=self._settings.home_region,
                cached=True,
                task_id=row.task_id,
            )

        await self._database.write(plan)
        await self._put_off(row, lease, "Waits for the service, through which it goes.")
        self.due.set()

    async def _warm(self, row: Any, site: str, lease: Lease) -> None:
        """The only copy is a cold one: it is brought back at its site first, where there is room for it."""
        async with self._rooms.setdefault(site, asyncio.Lock()):
            missing = await self._bring_back(row, site, lease)
        if missing:
            said = f"The copy at {site} is cold, and waits for room there: {show_size(missing)} over its quota."
            await self._put_off(row, lease, said)
        self.due.set()

    async def _bring_back(self, row: Any, site: str, lease: Lease) -> int:
        """A cold copy is warm again, unless so many bytes of room are missing. Nothing else comes to the site meanwhile (its lock is held),
        so that both do not take the same room. What is not in the cold store any more is lost: Unavailable."""
        if missing := await self._make_room(row, site, lease):
            return missing
        try:
            await self._keeper(site).data_warm([row.manifest])
        except (NotFound, Corrupt) as error:
            key = (row.project, row.name, row.version, site)
            await self._database.write(lost, self._clock.now(), key, (), self._settings.home_region, row.created_by)
            raise Unavailable(f"The cold copy at {site} is lost: {error}") from error
        await self._database.write(_warmed, lease, row, site)
        return 0

    async def _warm_for_tasks(self, rows: Sequence[Any], site: str, lease: Lease) -> None:
        """Bring back what tasks at a site wait for."""
        try:
            for row in rows:
                async with self._rooms.setdefault(site, asyncio.Lock()):
                    await self._bring_back(row, site, lease)
        except LostLease:
            pass
        except (IsthmusError, TimeoutError, OSError) as error:
            log.info("site %s: a cold copy does not come back yet: %s", site, error)
        except Exception:
            log.exception("site %s: bringing cold copies back broke", site)
        finally:
            await asyncio.sleep(self._settings.transfer_interval)
            self._warming.pop(site, None)
            self._arrived()

    async def _make_room(self, row: Any, site: str, lease: Lease) -> int:
        """The bytes by which a version is over a site's quota now (0: it fits); copies of less value go first, which takes a moment."""
        own = (row.project, row.name, row.version)
        missing, chill = await self._database.write(room_for, self._clock.now(), lease, site, own, row.size_bytes)
        if chill:
            await self._keeper(site).data_chill(sorted({copy.manifest for copy in chill}))
            await self._database.write(set_tier, lease, chill, Tier.COLD)
        return missing

    async def _order(self, row: Any, offer: Offer, led: leading.Lead, fence: int, lease: Lease) -> None:
        order = TransferOrder(
            id=row.id,
            fence=fence,
            dataset=f"{row.project}/{row.name}@{row.version}",
            manifest=row.manifest,
            manifest_sha256=row.manifest_sha256,
            size_bytes=row.size_bytes,
            source="" if offer.source == HOME else offer.source,
            address=offer.address,
            ticket=await self._ticket(row, offer, led),
            regions=tuple(orjson.loads(row.regions)),
            bytes_per_second=offer.bytes_per_second,
            ways=led.ways,
            windows=offer.windows,
            is_receiving=offer.is_receiving,
            relay=led.relay_address,
            multipath=led.multipath,
        )
        if row.target == HOME:
            told = await self._keeper(offer.source).data_send([order])
        else:
            told = await self._keeper(row.target).data_pull([order])
        failpoint("transfer.ordered")
        await self._take_in(row, told, lease)

    async def _ticket(self, row: Any, offer: Offer, led: leading.Lead) -> str:
        if HOME in (offer.source, row.target):
            return ""
        manifest = await self._home.manifest(row.manifest, row.manifest_sha256)
        relayed = (offer.address.replace("[", "").replace("]", ""),) if led.relay else ()
        return self._passes.ticket(row.id, reader=row.target, source=offer.source, manifest=manifest, relayed=relayed)

    # --- following --------------------------------------------------------------------------------------------------

    async def _follow(self, row: Any, lease: Lease) -> None:
        site = row.source if row.target == HOME else row.target
        told = await self._keeper(site).data_status([row.id])
        if told.get(row.id, TransferProgress(going=Going.ABSENT)).going is Going.ABSENT:
            # The site started anew. The order goes out again, with what holds now; what arrived is there and is not sent again.
            await self._again(row, lease, "The site started anew.", tried=False)
            return
        await self._take_in(row, told, lease)

    async def _take_in(self, row: Any, told: Mapping[str, TransferProgress], lease: Lease) -> None:
        progress = told.get(row.id)
        if progress is None:
            raise Unavailable("The site did not answer for the transfer.")
        match progress.going:
            case Going.DONE:
                await self._end(row, lease, TransferState.DONE, "", progress)
            case Going.REFUSED:
                await self._end(row, lease, TransferState.FAILED, progress.message, progress)
            case Going.FAILED:
                await self._again(row, lease, progress.message, tried=True, progress=progress)
            case Going.MOVING | Going.ABSENT:
                await self._database.write(_progress, self._clock.now(), lease, row, progress, self._settings)

    async def _again(
        self, row: Any, lease: Lease, message: str, *, tried: bool, progress: TransferProgress | None = None
    ) -> None:
        """Back to PLANNED: another source, or the same one, is ordered with a higher fence after a while."""
        if tried and row.tries + 1 >= _MOST_TRIES:
            await self._end(row, lease, TransferState.FAILED, message, progress)
            return
        await self._database.write(_plan_again, self._clock.now(), lease, row, message, tried, progress)
        self.due.set()

    async def _end(
        self,
        row: Any,
        lease: Lease,
        state: TransferState,
        message: str,
        progress: TransferProgress | None = None,
    ) -> None:
        if state is TransferState.DONE and row.target == HOME:
            manifest = await self._home.manifest(row.manifest, row.manifest_sha256)
            held = await self._home.sha256_of(manifest.contents)
            if len(held) < len(manifest.contents):
                await self._again(row, lease, "Content that was sent is not at the service.", tried=True)
                return
        try:
            await self._database.write(_finish, self._clock.now(), lease, row, state, message, progress)
        except LostLease:
            return
        failpoint("transfer.ended")
        self._wake_routers()
        self._arrived()
        self.due.set()

    async def _put_off(
        self, row: Any, lease: Lease, message: str, *, at: float | None = None, tried: bool = False
    ) -> None:
        """Look again later. A site that does not answer may well be moving it: nothing else is done about it."""
        later = self._clock.now() + self._settings.transfer_interval if at is None else at
        try:
            await self._database.write(_later, lease, row, later, message, tried)
        except LostLease:
            pass
        except IsthmusError as error:
            log.warning("transfer %s: %s", row.id, error)

    # --- leaving ----------------------------------------------------------------------------------------------------

    async def _let_go(self, site: str, rows: Sequence[Any], lease: Lease) -> None:
        """Tell a site to drop what leaves; a row goes once the site has done it."""
        try:
            manifests = sorted({row.manifest for row in rows if not row.shared})
            if manifests:
                await self._keeper(site).data_drop(manifests)
            await self._database.write(_gone, lease, rows)
        except LostLease:
            pass
        except (IsthmusError, TimeoutError, OSError) as error:
            log.info("site %s: what leaves is not dropped yet: %s", site, error)
            await asyncio.sleep(self._settings.transfer_interval)
        except Exception:
            log.exception("site %s: letting copies go broke", site)
        finally:
            self._leaving.pop(site, None)

    async def _tell_limits(self, row: Any, lease: Lease) -> None:
        """Tell a site the regions of a version that were changed."""
        try:
            regions = await self._database.read(_strictest, row.site, row.manifest)
            await self._keeper(row.site).data_limit({row.manifest: regions})
            await self._database.write(_limits_told, lease, row)
        except LostLease:
            pass
        except (IsthmusError, TimeoutError, OSError) as error:
            log.info("site %s: new limits are not told yet: %s", row.site, error)
            await asyncio.sleep(self._settings.transfer_interval)
        except Exception:
            log.exception("site %s: telling limits broke", row.site)
        finally:
            self._leaving.pop(row.site, None)
            self.due.set()

    def _keeper(self, site: str) -> DataKeeper:
        adapter = self._fleet.site(site)
        if not isinstance(adapter, DataKeeper):
            raise Refused(f"{site} keeps no data.", remedy="Its agent must run with --data-root.")
        return adapter

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self.due.wait()
        except TimeoutError:
            pass


def _current(connection: sa.Connection, row: Any) -> Any | None:
    """The transfer as it is now, locked; None when somebody ended it meanwhile or its fence moved on."""
    found = connection.execute(tables.transfers.select().where(_t.id == row.id).with_for_update()).first()
    if found is None or datasets.is_over(found.state) or found.state != row.state:
        return None
    return found


def _intend(connection: sa.Connection, now: float, lease: Lease, row: Any, offer: Offer, led: leading.Lead) -> int:
    guard(connection, lease)
    found = _current(connection, row)
    if found is None:
        return 0
    fence = int(found.fence) + 1
    connection.execute(
        tables.transfers.update()
        .where(_t.id == row.id)
        .values(
            state=TransferState.MOVING.value,
            fence=fence,
            source=offer.source,
            through="service" if HOME in (offer.source, row.target) else "relay" if led.relay else "direct",
            relay=led.relay,
            ways=waystaken.ordered(found.ways, led.paths, led.relay),
            started_at=sa.func.coalesce(_t.started_at, now),
            updated_at=now,
            message="",
            due_at=now,
        )
    )
    connection.execute(
        tables.replicas.update()
        .where(_r.project == row.project, _r.name == row.name, _r.version == row.version, _r.site == row.target)
        .where(_r.state == ReplicaState.PLANNED.value)
        .values(state=ReplicaState.ARRIVING.value)
    )
    body = {"dataset": f"{row.project}/{row.name}@{row.version}", "source": offer.source}
    intents.tell(connection, now, row.project, row.id, "moving", row.target, body, row.task_id)
    return fence


def _moving(connection: sa.Connection, row: Any) -> Any | None:
    found = connection.execute(tables.transfers.select().where(_t.id == row.id).with_for_update()).first()
    return None if found is None or found.state != TransferState.MOVING.value else found


def _progress(
    connection: sa.Connection,
    now: float,
    lease: Lease,
    row: Any,
    progress: TransferProgress,
    settings: EngineSettings,
) -> None:
    guard(connection, lease)
    if _moving(connection, row) is None:
        return
    leading.note_running_rate(connection, now, row, progress.bytes_per_second)
    left = progress.seconds_left
    done = max(row.done_bytes, min(progress.done_bytes, row.size_bytes))  # a new order begins to count at nothing
    connection.execute(
        tables.transfers.update()
        .where(_t.id == row.id)
        .values(
            done_bytes=done,
            bytes_per_second=progress.bytes_per_second,
            ends_at=None if left is None else now + left,
            message=progress.message[:2000],
            multipath=progress.multipath,
            updated_at=now,
            due_at=now + settings.transfer_interval,
            tries=0 if done > row.done_bytes else row.tries,
        )
    )


def _plan_again(
    connection: sa.Connection,
    now: float,
    lease: Lease,
    row: Any,
    message: str,
    tried: bool,
    progress: TransferProgress | None,
) -> None:
    guard(connection, lease)
    found = connection.execute(tables.transfers.select().where(_t.id == row.id).with_for_update()).first()
    if found is None or datasets.is_over(found.state):
        return
    leading.let_go(connection, row.id)
    tries = row.tries + tried
    pause = min(60.0, 0.5 * 2 ** min(tries, 8)) if tried else 0.0
    connection.execute(
        tables.transfers.update()
        .where(_t.id == row.id)
        .values(
            state=TransferState.PLANNED.value,
            message=message[:2000],
            ways=waystaken.carried(found.ways, progress.ways if progress is not None else ()),
            tries=tries,
            due_at=now + pause,
            updated_at=now,
        )
    )


def _finish(
    connection: sa.Connection,
    now: float,
    lease: Lease,
    row: Any,
    state: TransferState,
    message: str,
    progress: TransferProgress | None,
) -> None:
    guard(connection, lease)
    found = connection.execute(tables.transfers.select().where(_t.id == row.id).with_for_update()).first()
    if found is not None and not datasets.is_over(found.state):
        values: dict[str, Any] = {"ways": waystaken.carried(found.ways, progress.ways if progress is not None else ())}
        if progress is not None and progress.multipath:
            values["multipath"] = True
        connection.execute(tables.transfers.update().where(_t.id == row.id).values(**values))
        intents.end_transfer(connection, now, found, state, message)
        leading.let_go(connection, row.id)
        if state is TransferState.DONE:
            leading.note_rate(connection, now, found)


def _later(connection: sa.Connection, lease: Lease, row: Any, at: float, message: str, tried: bool) -> None:
    guard(connection, lease)
    connection.execute(
        tables.transfers.update()
        .where(_t.id == row.id, datasets.OPEN)
        .values(message=message[:2000], due_at=at, tries=row.tries + tried)
    )


def _warmed(connection: sa.Connection, lease: Lease, row: Any, site: str) -> None:
    guard(connection, lease)
    where = (_r.project == row.project, _r.name == row.name, _r.version == row.version, _r.site == site)
    connection.execute(tables.replicas.update().where(*where).values(tier=Tier.WARM.value))


def _cold_wanted(connection: sa.Connection, now: float, limit: int, busy: Sequence[str]) -> Sequence[Any]:
    """Cold copies that a task waits for at their site."""
    x, a, d = tables.task_data.c, tables.attempts.c, tables.datasets.c
    waits = (
        sa.exists()
        .where(x.project == _r.project, x.name == _r.name, x.version == _r.version, a.task_id == x.task_id)
        .where(a.site == _r.site, a.state.in_((AttemptState.PLACED.value, AttemptState.STAGING.value)))
    )
    query = (
        sa.select(tables.replicas, d.owner.label("created_by"))
        .join(tables.datasets, sa.and_(d.project == _r.project, d.name == _r.name))
        .join(tables.sites, tables.sites.c.name == _r.site)
        .where(_r.state == ReplicaState.WHOLE.value, _r.tier == Tier.COLD.value, _r.site.not_in([HOME, *busy]), waits)
        .where(datasets.seen_lately(now))
        .order_by(_r.site, _r.project, _r.name, _r.version)
    )
    return connection.execute(query.limit(limit)).all()


def _leaving(connection: sa.Connection, now: float, limit: int, busy: Sequence[str]) -> Sequence[Any]:
    """Copies that leave, without the content that another version at the same site shares whole: nothing is dropped for those."""
    other = tables.replicas.alias("other")
    shared = (
        sa.exists()
        .where(other.c.site == _r.site, other.c.manifest == _r.manifest)
        .where(other.c.state != ReplicaState.LEAVING.value)
    )
    query = sa.select(tables.replicas, shared.label("shared"))
    query = query.where(_r.state == ReplicaState.LEAVING.value, _r.site.not_in([HOME, *busy]))
    query = query.join(tables.sites, tables.sites.c.name == _r.site).where(datasets.seen_lately(now))
    return connection.execute(query.limit(limit)).all()


def _limits_due(connection: sa.Connection, now: float, limit: int, busy: Sequence[str]) -> Sequence[Any]:
    d = tables.datasets.c
    query = (
        sa.select(_r.project, _r.name, _r.version, _r.site, _r.manifest, d.regions)
        .join(tables.datasets, sa.and_(d.project == _r.project, d.name == _r.name))
        .join(tables.sites, tables.sites.c.name == _r.site)
        .where(_r.limits_due, _r.site.not_in([HOME, *busy]), _r.state == ReplicaState.WHOLE.value)
        .where(datasets.seen_lately(now))
    )
    return connection.execute(query.limit(limit)).all()


def _strictest(connection: sa.Connection, site: str, manifest: str) -> tuple[str, ...]:
    """Where all datasets with this content that lie at a site may lie (empty: anywhere); where none may, in no region there is."""
    d = tables.datasets.c
    query = (
        sa.select(d.regions)
        .join(tables.replicas, sa.and_(d.project == _r.project, d.name == _r.name))
        .where(_r.site == site, _r.manifest == manifest, d.regions != "[]")
    )
    found: set[str] | None = None
    for text in connection.scalars(query):
        own = set(orjson.loads(text))
        found = own if found is None else found & own
    return () if found is None else tuple(sorted(found)) or ("nowhere",)


def _limits_told(connection: sa.Connection, lease: Lease, row: Any) -> None:
    guard(connection, lease)
    d = tables.datasets.c
    same = sa.exists().where(d.project == row.project, d.name == row.name, d.regions == row.regions)
    where = (_r.project == row.project, _r.name == row.name, _r.version == row.version, _r.site == row.site)
    connection.execute(tables.replicas.update().where(*where, same).values(limits_due=False))


def _gone(connection: sa.Connection, lease: Lease, rows: Sequence[Any]) -> None:
    guard(connection, lease)
    for row in rows:
        connection.execute(
            tables.replicas.delete().where(
                _r.project == row.project,
                _r.name == row.name,
                _r.version == row.version,
                _r.site == row.site,
                _r.state == ReplicaState.LEAVING.value,
            )
        )
