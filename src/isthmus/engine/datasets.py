"""What people and tasks ask about datasets, each as a change within one transaction: a new version, a transfer, pin, drop.

The rule of regions holds here for every plan: a version goes to a place only if its labels allow the place's region.
"""

from __future__ import annotations

from typing import Any

import orjson
import sqlalchemy as sa

from isthmus.domain.dataset import (
    AT_SITE,
    HOME,
    DatasetManifest,
    DatasetRef,
    Labels,
    ReplicaState,
    Tier,
    TransferState,
)
from isthmus.domain.errors import Conflict, Forbidden, NotFound, Refused
from isthmus.domain.site import SiteState
from isthmus.engine.clock import new_id
from isthmus.store import datasets, events, tables

_d, _v, _r, _t = tables.datasets.c, tables.dataset_versions.c, tables.replicas.c, tables.transfers.c


def labels_of(row: Any) -> Labels:
    """The labels in a row of `datasets`."""
    return Labels(sensitivity=row.sensitivity, regions=tuple(orjson.loads(row.regions)))


def may_not_leave(name: str, regions: tuple[str, ...], place: str, region: str) -> Refused:
    """The refusal of a copy outside its regions."""
    where = f"in region {region}" if region else "in no region that is known"
    what = "the service" if place == HOME else place
    return Refused(
        f"{name} may not leave {', '.join(regions)}, and {what} is {where}.",
        remedy="Choose a site in there, or have the dataset's owner change its label.",
        code="data_may_not_leave",
    )


def need_version(connection: sa.Connection, ref: DatasetRef) -> Any:
    """The version that `ref` names; NotFound."""
    row = datasets.version(connection, ref)
    if row is None:
        raise NotFound(f"There is no dataset {ref}.", remedy="`isthmus data ls` shows yours.")
    return row


def region_of(connection: sa.Connection, place: str, home_region: str) -> str:
    """The region of a place; NotFound for a site that is not joined."""
    if place == HOME:
        return home_region
    row = connection.execute(
        sa.select(tables.sites.c.region, tables.sites.c.state).where(tables.sites.c.name == place)
    ).first()
    if row is None or row.state == SiteState.LEFT.value:
        raise NotFound(f"There is no site {place}.", remedy="`isthmus site ls` shows the sites.")
    return str(row.region)


def cold_region_of(connection: sa.Connection, site: str) -> str:
    """The region that a site's cold store is in; empty where nobody knows."""
    s, d = tables.sites.c, tables.data_servers.c
    query = sa.select(d.cold_region, s.region).join(tables.sites, s.name == d.site).where(d.site == site)
    row = connection.execute(query).first()
    if row is None:
        return ""
    return str(row.region if row.cold_region == AT_SITE else row.cold_region)


def add_version(
    connection: sa.Connection,
    *,
    now: float,
    user: str,
    project: str,
    name: str,
    manifest: DatasetManifest,
    manifest_hash: str,
    manifest_sha256: str,
    place: str,
    home_region: str,
    labels: Labels | None = None,
    task_id: str = "",
    pinned: bool = False,
    in_place: bool = False,
    tier: Tier = Tier.WARM,
) -> int:
    """Store a version whose content is whole at `place`, and its dataset when it is new; answers its number. Content equal to
    the newest version's makes no new one. `labels` None keeps what the dataset has. `in_place`: files of somebody's own there."""
    where = sa.and_(_d.project == project, _d.name == name)
    row = connection.execute(tables.datasets.select().where(where).with_for_update()).first()
    known = labels_of(row) if row is not None else Labels()
    labels = labels or known
    region = region_of(connection, place, home_region)
    if not labels.allow(region):
        raise may_not_leave(f"{project}/{name}", labels.regions, place, region)
    said = {"sensitivity": labels.sensitivity, "regions": orjson.dumps(labels.regions).decode()}
    if row is None:
        # Copies of a forgotten dataset of this name may still be leaving: their numbers are not given again.
        left = sa.select(sa.func.max(_r.version)).where(_r.project == project, _r.name == name)
        last = connection.execute(left).scalar() or 0
        fresh = {"project": project, "name": name, "owner": user, "newest": 0, "made": last}
        connection.execute(tables.datasets.insert().values(**fresh, **said, created_at=now, updated_at=now))
        number = 0
    else:
        number, last = int(row.newest), int(row.made)
        if labels != known:
            set_labels(connection, now=now, project=project, name=name, labels=labels, home_region=home_region)
    newest = datasets.version(connection, DatasetRef(project=project, name=name)) if number else None
    if newest is None or newest.manifest != manifest_hash:
        number = last + 1
        connection.execute(
            tables.dataset_versions.insert().values(
                project=project,
                name=name,
                version=number,
                manifest=manifest_hash,
                manifest_sha256=manifest_sha256,
                files=len(manifest.files),
                size_bytes=manifest.size_bytes,
                created_by=user,
                task_id=task_id,
                created_at=now,
            )
        )
        connection.execute(tables.datasets.update().where(where).values(newest=number, made=number, updated_at=now))
        body = {"dataset": f"{project}/{name}", "version": number, "size_bytes": manifest.size_bytes}
        events.add(connection, [events.event(now, "dataset.version", project=project, task_id=task_id, body=body)])
    put_replica(
        connection,
        now=now,
        key=(project, name, number, place),
        manifest=manifest_hash,
        manifest_sha256=manifest_sha256,
        size_bytes=manifest.size_bytes,
        state=ReplicaState.WHOLE,
        pinned=pinned,
        cached=False,
        in_place=in_place,
        tier=tier,
        user=user,
    )
    return number


def set_labels(
    connection: sa.Connection, *, now: float, project: str, name: str, labels: Labels, home_region: str
) -> None:
    """Set a dataset's labels; Refused while a copy lies, or is on its way to, where they would not let it be."""
    for row in datasets.replicas(connection, project, name):
        region = home_region if row.site == HOME else str(row.region)
        if not labels.allow(region):
            raise may_not_leave(f"{project}/{name}", labels.regions, row.site, region)
        if row.tier == Tier.COLD and not row.in_place:
            region = cold_region_of(connection, row.site)
            if not labels.allow(region):
                raise may_not_leave(f"{project}/{name}", labels.regions, f"the cold store of {row.site}", region)
    said = {"sensitivity": labels.sensitivity, "regions": orjson.dumps(labels.regions).decode()}
    where = sa.and_(_d.project == project, _d.name == name)
    connection.execute(tables.datasets.update().where(where).values(**said, updated_at=now))
    # The sending end keeps the rule by itself, so each site that holds a copy learns the new one.
    held = sa.and_(_r.project == project, _r.name == name, _r.site != HOME)
    connection.execute(tables.replicas.update().where(held).values(limits_due=True))


def put_replica(
    connection: sa.Connection,
    *,
    now: float,
    key: tuple[str, str, int, str],
    manifest: str,
    manifest_sha256: str,
    size_bytes: int,
    state: ReplicaState,
    cached: bool,
    pinned: bool = False,
    in_place: bool = False,
    tier: Tier = Tier.WARM,
    user: str = "",
) -> None:
    """Store where a copy is in its life; what is known of it stays."""
    project, name, number, site = key
    where = sa.and_(_r.project == project, _r.name == name, _r.version == number, _r.site == site)
    whole = {"whole_at": now} if state is ReplicaState.WHOLE else {}
    row = connection.execute(tables.replicas.select().where(where).with_for_update()).first()
    if row is None:
        connection.execute(
            tables.replicas.insert().values(
                project=project,
                name=name,
                version=number,
                site=site,
                manifest=manifest,
                manifest_sha256=manifest_sha256,
                state=state.value,
                cached=cached,
                pinned=pinned,
                pinned_by=user if pinned else "",
                in_place=in_place,
                tier=tier.value,
                size_bytes=size_bytes,
                created_at=now,
                **whole,
            )
        )
        return
    kept: dict[str, Any] = {"cached": bool(row.cached) and cached, "pinned": bool(row.pinned) or pinned}
    if pinned and not row.pinned:
        kept["pinned_by"] = user
    if state is ReplicaState.WHOLE and row.state != ReplicaState.WHOLE:
        kept["in_place"] = in_place
    connection.execute(tables.replicas.update().where(where).values(state=state.value, **kept, **whole))


def plan_transfer(
    connection: sa.Connection,
    *,
    now: float,
    user: str,
    ref: DatasetRef,
    target: str,
    home_region: str,
    cached: bool = False,
    pinned: bool = False,
    task_id: str = "",
    most_bytes_per_second: float = 0.0,
) -> str:
    """Plan that a version comes to a place; the id of the transfer, also of one that is on its way. Empty: it is there.
    Refused when it may not be there, or when no place holds it."""
    row = need_version(connection, ref)
    labels = labels_of(row)
    region = region_of(connection, target, home_region)
    name = f"{row.project}/{row.name}"
    if not labels.allow(region):
        raise may_not_leave(name, labels.regions, target, region)
    held = {copy.site: copy for copy in datasets.replicas(connection, row.project, row.name, row.version)}
    there = held.get(target)
    if there is not None and there.state == ReplicaState.WHOLE:
        if (pinned and not there.pinned) or (there.cached and not cached):
            put_replica(
                connection,
                now=now,
                key=(row.project, row.name, row.version, target),
                manifest=row.manifest,
                manifest_sha256=row.manifest_sha256,
                size_bytes=row.size_bytes,
                state=ReplicaState.WHOLE,
                cached=cached,
                pinned=pinned,
                user=user,
            )
        return ""
    if there is not None and there.state == ReplicaState.LEAVING:
        raise Conflict(f"{ref} is just leaving {target}.", remedy="Ask again when it is gone.")
    moving = datasets.open_transfer(connection, row.project, row.name, row.version, target)
    if moving is None and not any(copy.state == ReplicaState.WHOLE for copy in held.values()):
        raise Conflict(f"No place holds all of {ref}.", remedy="Put its content again.", code="no_whole_replica")
    if target != HOME and not keeps_data(connection, target):
        raise Refused(
            f"{target} keeps no data.",
            remedy=f"Its agent must run with --data-root; a task there gets {name} through the service.",
            code="site_keeps_no_data",
        )
    put_replica(
        connection,
        now=now,
        key=(row.project, row.name, row.version, target),
        manifest=row.manifest,
        manifest_sha256=row.manifest_sha256,
        size_bytes=row.size_bytes,
        state=ReplicaState(there.state) if there is not None and moving is not None else ReplicaState.PLANNED,
        cached=cached,
        pinned=pinned,
        user=user,
    )
    if moving is not None:
        if moving.cached and not cached:  # it was planned for a task, and goes on now when that has ended
            connection.execute(tables.transfers.update().where(_t.id == moving.id).values(cached=False))
        return str(moving.id)
    transfer_id = new_id(now)
    connection.execute(
        tables.transfers.insert().values(
            id=transfer_id,
            project=row.project,
            name=row.name,
            version=row.version,
            target=target,
            state=TransferState.PLANNED.value,
            size_bytes=row.size_bytes,
            cached=cached,
            task_id=task_id,
            most_bytes_per_second=most_bytes_per_second,
            created_by=user,
            created_at=now,
            updated_at=now,
        )
    )
    tell(connection, now, row.project, transfer_id, "planned", target, {"dataset": f"{name}@{row.version}"}, task_id)
    return transfer_id


def tell(
    connection: sa.Connection,
    now: float,
    project: str,
    transfer_id: str,
    state: str,
    target: str,
    body: dict[str, Any],
    task_id: str = "",
) -> None:
    """The event of a transfer's new state."""
    site = "" if target == HOME else target
    body = {"transfer": transfer_id, **body}
    event = events.event(now, f"transfer.{state}", project=project, task_id=task_id, site=site, body=body)
    events.add(connection, [event])


def keeps_data(connection: sa.Connection, site: str) -> bool:
    """Whether a site's agent said that it keeps data."""
    query = sa.select(tables.data_servers.c.site).where(tables.data_servers.c.site == site)
    return connection.execute(query).first() is not None


def cancel_transfer(connection: sa.Connection, *, now: float, transfer_id: str, by: str) -> None:
    """End a transfer that is not over; a task that waits for it plans another."""
    row = connection.execute(tables.transfers.select().where(_t.id == transfer_id).with_for_update()).first()
    if row is None:
        raise NotFound(f"There is no transfer {transfer_id}.", remedy="`isthmus data transfers` shows them.")
    if datasets.is_over(row.state):
        return
    end_transfer(connection, now, row, TransferState.CANCELLED, f"Cancelled by {by}.")


def end_transfer(connection: sa.Connection, now: float, row: Any, state: TransferState, message: str = "") -> None:
    """Write the end of a transfer, and what it means for the copy that it made."""
    done = state is TransferState.DONE
    values: dict[str, Any] = {"state": state.value, "message": message[:2000], "ended_at": now, "updated_at": now}
    if done:
        values |= {"done_bytes": row.size_bytes, "ends_at": now}
    connection.execute(tables.transfers.update().where(_t.id == row.id).values(**values))
    where = sa.and_(_r.project == row.project, _r.name == row.name, _r.version == row.version, _r.site == row.target)
    if done:
        there = {"state": ReplicaState.WHOLE.value, "whole_at": now}
        connection.execute(tables.replicas.update().where(where).values(**there))
    elif row.target == HOME:  # nobody is told: what arrived is in the content store, and stays
        unfinished = [kind.value for kind in (ReplicaState.PLANNED, ReplicaState.ARRIVING, ReplicaState.LEAVING)]
        connection.execute(tables.replicas.delete().where(where, _r.state.in_(unfinished)))
    else:
        # What arrived of it is dropped at the site: the copy leaves before its row is gone.
        connection.execute(
            tables.replicas.update()
            .where(where, _r.state == ReplicaState.ARRIVING.value)
            .values(state=ReplicaState.LEAVING.value)
        )
        connection.execute(tables.replicas.delete().where(where, _r.state == ReplicaState.PLANNED.value))
    body: dict[str, Any] = {"dataset": f"{row.project}/{row.name}@{row.version}", "source": row.source}
    if message:
        body["message"] = message[:400]
    tell(connection, now, row.project, row.id, state.value, row.target, body, row.task_id)


def pin(
    connection: sa.Connection, *, ref: DatasetRef, site: str, pinned: bool, user: str = "", may_all: bool = True
) -> int:
    """Keep a version's copies (at one site, or all) from eviction, or let them go again; answers how many there are. Without `may_all`
    a user lets only copies go that they pinned themselves: Forbidden."""
    row = need_version(connection, ref)
    lock_version(connection, row.project, row.name, row.version)
    where = [_r.project == row.project, _r.name == row.name, _r.version == row.version]
    if site:
        where.append(_r.site == site)
    copies = connection.execute(tables.replicas.select().where(*where).with_for_update()).all()
    others = [copy for copy in copies if copy.pinned and copy.pinned_by != user]
    if others and not pinned and not may_all and row.owner != user:
        raise Forbidden(
            f"{ref} was pinned at {others[0].site} by {others[0].pinned_by or 'somebody else'}.",
            remedy="Ask them, the dataset's owner, or a manager of the project.",
        )
    values: dict[str, Any] = {"pinned": pinned, "pinned_by": user if pinned else ""}
    fresh = [*where, _r.pinned.is_(not pinned)]
    connection.execute(tables.replicas.update().where(*fresh).values(**values))
    count = len(copies)
    if not count:
        raise NotFound(f"There is no copy of {ref} at {site or 'any place'}.", remedy=f"`isthmus data show {ref}`.")
    return int(count)


def asked_for(connection: sa.Connection, ref: DatasetRef, number: int, site: str, user: str) -> bool:
    """Whether a user had the copy at a site made."""
    query = sa.select(_t.id).where(
        _t.project == ref.project, _t.name == ref.name, _t.version == number, _t.target == site, _t.created_by == user
    )
    return connection.execute(query.limit(1)).first() is not None


def drop_replica(connection: sa.Connection, *, now: float, ref: DatasetRef, site: str) -> None:
    """Let a copy go. Conflict for the last one, a pinned one, and one that a live task at the site takes in."""
    row = need_version(connection, ref)
    lock_version(connection, row.project, row.name, row.version)
    copies = datasets.replicas(connection, row.project, row.name, row.version)
    one = next((copy for copy in copies if copy.site == site), None)
    if one is None:
        raise NotFound(f"There is no copy of {ref} at {site}.", remedy=f"`isthmus data show {ref}`.")
    if one.pinned:
        raise Conflict(f"{ref} is pinned at {site}.", remedy=f"`isthmus data unpin {ref} --at {site}` first.")
    whole = [copy for copy in copies if copy.state == ReplicaState.WHOLE]
    if [copy.site for copy in whole] == [site]:
        raise Conflict(
            f"The copy at {site} is the last one of {ref}.",
            remedy="Copy it elsewhere first, or remove the dataset itself.",
            code="last_replica",
        )
    if (row.project, row.name, row.version) in datasets.in_use_at(connection, site):
        raise Conflict(f"A task at {site} uses {ref}.", remedy="Wait until it has ended.", code="data_in_use")
    moving = datasets.open_transfer(connection, row.project, row.name, row.version, site)
    if moving is not None:
        end_transfer(connection, now, moving, TransferState.CANCELLED, "Its copy was dropped.")
    leave(connection, (row.project, row.name, row.version, site))


def lock_version(connection: sa.Connection, project: str, name: str, number: int | None) -> None:
    """Keep others from letting a copy of a version (None: of any) go, or pinning it, until the transaction ends, so that no two take each
    other's copy for the one that stays. What is read of its copies afterwards is so."""
    where = [_v.project == project, _v.name == name]
    if number is not None:
        where.append(_v.version == number)
    connection.execute(sa.select(_v.version).where(*where).order_by(_v.version).with_for_update()).all()


def is_whole_elsewhere(connection: sa.Connection, key: tuple[str, str, int], site: str) -> bool:
    """Whether another place holds a version whole."""
    project, name, number = key
    query = sa.select(_r.site).where(_r.project == project, _r.name == name, _r.version == number, _r.site != site)
    return connection.execute(query.where(_r.state == ReplicaState.WHOLE.value).limit(1)).first() is not None


def site_left(connection: sa.Connection, now: float, site: str) -> None:
    """A site is gone: nothing moves to it any more, and what it held whole is lost, which is no other copy's reason to go."""
    query = tables.transfers.select().where(_t.target == site, datasets.OPEN)
    for row in connection.execute(query).all():
        end_transfer(connection, now, row, TransferState.FAILED, f"{site} has left.")
    where = _r.site == site
    connection.execute(tables.replicas.delete().where(where, _r.state != ReplicaState.WHOLE.value))
    connection.execute(tables.replicas.update().where(where).values(state=ReplicaState.LOST.value))
    connection.execute(tables.data_servers.delete().where(tables.data_servers.c.site == site))


def leave(connection: sa.Connection, key: tuple[str, str, int, str]) -> None:
    """Mark a copy as leaving; its site is told, and only then the row goes. The service's own goes at once."""
    project, name, number, site = key
    where = sa.and_(_r.project == project, _r.name == name, _r.version == number, _r.site == site)
    if site == HOME:
        connection.execute(tables.replicas.delete().where(where))
    else:
        connection.execute(tables.replicas.update().where(where).values(state=ReplicaState.LEAVING.value))


def remove(connection: sa.Connection, *, now: float, ref: DatasetRef, by: str) -> None:
    """Forget a version (0: the whole dataset) and let every copy go. Conflict while a live task takes it in."""
    row = need_version(connection, ref)
    number = ref.version or None
    users = datasets.used_by_live_tasks(connection, ref.project, ref.name, number)
    if users:
        raise Conflict(
            f"Task {users[0]} uses {ref}.", remedy="Wait until it has ended, or cancel it.", code="data_in_use"
        )
    lock_version(connection, ref.project, ref.name, number)
    pinned = [copy for copy in datasets.replicas(connection, ref.project, ref.name, number) if copy.pinned]
    if pinned:
        raise Conflict(
            f"{ref.project}/{ref.name}@{pinned[0].version} is pinned at {pinned[0].site}.",
            remedy=f"`isthmus data unpin {ref}` first.",
        )
    open_ones = tables.transfers.select().where(_t.project == ref.project, _t.name == ref.name, datasets.OPEN)
    for moving in connection.execute(open_ones if number is None else open_ones.where(_t.version == number)).all():
        end_transfer(connection, now, moving, TransferState.CANCELLED, "The dataset was removed.")
    for copy in datasets.replicas(connection, ref.project, ref.name, number):
        leave(connection, (copy.project, copy.name, copy.version, copy.site))
    here = [_v.project == ref.project, _v.name == ref.name]
    if number is not None:
        connection.execute(tables.dataset_versions.delete().where(*here, _v.version == number))
        rest = connection.execute(sa.select(sa.func.max(_v.version)).where(*here)).scalar()
        if rest is not None:
            whose = sa.and_(_d.project == ref.project, _d.name == ref.name)
            connection.execute(tables.datasets.update().where(whose).values(newest=rest, updated_at=now))
    if number is None or rest is None:
        connection.execute(tables.dataset_versions.delete().where(*here))
        connection.execute(tables.datasets.delete().where(_d.project == ref.project, _d.name == ref.name))
    body = {"dataset": f"{ref.project}/{ref.name}", "version": number or 0, "by": by}
    events.add(connection, [events.event(now, "dataset.removed", project=row.project, body=body)])
