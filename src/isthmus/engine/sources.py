"""Where a transfer comes from: the places that hold the version, and by which way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import orjson
import sqlalchemy as sa

from isthmus.domain.dataset import HOME, DatasetManifest, Labels, OrderWindow, ReplicaState, Tier
from isthmus.domain.errors import Conflict, Unavailable
from isthmus.engine import datasets as intents
from isthmus.engine import spreading
from isthmus.store import datasets, tables


class Passes(Protocol):
    """Signs what lets one site read from another."""

    def ticket(
        self, order: str, *, reader: str, source: str, manifest: DatasetManifest, relayed: tuple[str, ...] = ()
    ) -> str:
        """A ticket for one transfer; `relayed` are addresses (HOST:PORT) that relays may connect to for it."""
        ...


class NoPasses:
    """Of a control plane without an authority: no site can read from another."""

    def ticket(
        self,
        order: str,  # noqa: ARG002
        *,
        reader: str,  # noqa: ARG002
        source: str,  # noqa: ARG002
        manifest: DatasetManifest,  # noqa: ARG002
        relayed: tuple[str, ...] = (),  # noqa: ARG002
    ) -> str:
        """Unavailable."""
        raise Unavailable("This control plane signs no tickets.", remedy="Start it as a service.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A source of a transfer. `wait_for_home`: no site that holds it can be dialled, so the service gets it first."""

    source: str = ""
    address: str = ""
    bytes_per_second: float = 0.0
    not_before: float = 0.0
    windows: tuple[OrderWindow, ...] = ()
    is_receiving: bool = False  # the source passes on what it still receives
    wait_for: str = ""  # a site that is about to receive it, and then passes it on
    wait_for_home: bool = False
    warm_first: str = ""  # a site whose cold copy is the only one


def choose(connection: sa.Connection, row: Any, home_region: str, now: float) -> Offer:
    """The best source of a planned transfer: the one that was planned, else a site that can be dialled, else the service.

    Refused when the rule of regions forbids the target now, Conflict when nobody holds it, Unavailable when nobody who holds it
    answers.
    """
    labels = Labels(regions=tuple(orjson.loads(row.regions)))
    name = f"{row.project}/{row.name}@{row.version}"
    region = intents.region_of(connection, row.target, home_region)
    if not labels.allow(region):
        raise intents.may_not_leave(f"{row.project}/{row.name}", labels.regions, row.target, region)
    copies = datasets.replicas(connection, row.project, row.name, row.version)
    whole = {copy.site for copy in copies if copy.state == ReplicaState.WHOLE and copy.site != row.target}
    if not whole:
        raise Conflict(f"No place holds all of {name}.", code="no_whole_replica")
    cold = {copy.site for copy in copies if copy.site in whole and copy.tier == Tier.COLD}
    if whole == cold:
        cold &= _servers(connection, cold, now).keys()
        if not cold:
            raise Unavailable(f"No site that holds {name} answers.")
        return Offer(warm_first=min(cold))
    whole -= cold
    servers = _servers(connection, whole, now)
    stretches = orjson.loads(row.stretches)
    windows = tuple(OrderWindow(**one) for one in stretches if one["ends"] > now)
    begins = float(stretches[0]["begins"]) if stretches else 0.0
    planned = row.size_bytes / max(1e-3, float(stretches[-1]["ends"]) - begins) if stretches else 0.0
    bounds = (0.0 if windows and row.target != HOME else planned, float(row.most_bytes_per_second))
    rate = min((bound for bound in bounds if bound > 0), default=0.0)
    if row.target == HOME:
        if not servers:
            raise Unavailable(f"No site that holds {name} answers.")
        return Offer(source=min(servers), bytes_per_second=rate, not_before=begins)
    dialled = sorted(site for site, address in servers.items() if address)
    if row.source in dialled:
        dialled.remove(row.source)
        dialled.insert(0, row.source)
    if row.tries and len(dialled) > 1:
        dialled = dialled[row.tries % len(dialled) :]  # what failed is not the first choice again
    keeps = _servers(connection, {row.target}, now)
    if row.target not in keeps and intents.keeps_data(connection, row.target):
        raise Unavailable(f"{row.target} does not answer.", remedy="It goes on when its agent is back.")
    if dialled and row.target in keeps:
        everybody = _servers(connection, None, now)
        near = spreading.before(connection, row, everybody, dialled, now)
        if near is not None and near.waits:
            return Offer(wait_for=near.site)
        if near is not None:
            return Offer(source=near.site, address=everybody[near.site], bytes_per_second=rate, is_receiving=True)
        source = dialled[0]
        return Offer(source=source, address=servers[source], bytes_per_second=rate, not_before=begins, windows=windows)
    if HOME in whole:
        return Offer(source=HOME, not_before=begins)
    if not labels.allow(home_region):
        raise intents.may_not_leave(f"{row.project}/{row.name}", labels.regions, HOME, home_region)
    if not servers:
        raise Unavailable(f"No site that holds {name} answers.")
    return Offer(wait_for_home=True)


def _servers(connection: sa.Connection, sites: set[str] | None, now: float) -> dict[str, str]:
    """Of these sites, or of all, those whose agent keeps data and was seen lately, with the address where it can be dialled."""
    s, d = tables.sites.c, tables.data_servers.c
    query = sa.select(d.site, d.address).join(tables.sites, s.name == d.site).where(datasets.seen_lately(now))
    if sites is not None:
        query = query.where(d.site.in_(sorted(sites)))
    return {row.site: row.address for row in connection.execute(query)}
