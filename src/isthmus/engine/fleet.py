"""The sites as the engine holds them: one adapter each, rebuilt when the operator changes its settings."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
import sqlalchemy as sa

from isthmus.data.port import BlobStore
from isthmus.domain.errors import IsthmusError, NotFound, Unavailable
from isthmus.domain.site import SiteState
from isthmus.sites import registry
from isthmus.sites.port import Site
from isthmus.store import tables
from isthmus.store.database import Database

log = logging.getLogger(__name__)

AgentSiteMaker = Callable[[str], Site]


@dataclass(slots=True)
class Member:
    """One site: its row's facts, and its adapter (None while its settings do not make one)."""

    name: str
    kind: str
    version: int
    state: SiteState
    accounts: Mapping[str, str] = field(default_factory=dict)
    adapter: Site | None = None
    error: str = ""

    def account_of(self, user: str) -> str | None:
        """The local account that runs the user's jobs; None when the operator maps the user to none."""
        account = self.accounts.get(user, self.accounts.get("*"))
        return None if account is None else account.replace("{user}", user)


class Fleet:
    """All sites that have not left."""

    def __init__(self, database: Database, blobs: BlobStore, agent_site: AgentSiteMaker | None = None) -> None:
        self._database = database
        self._blobs = blobs
        self._agent_site = agent_site
        self.members: dict[str, Member] = {}

    async def refresh(self) -> None:
        """Follow the table of sites: build new adapters, rebuild changed ones, close those of sites that left."""
        rows = {row.name: row for row in await self._database.read(_load_sites)}
        for name in [name for name in self.members if name not in rows]:
            await self._close(self.members.pop(name))
        for name, row in rows.items():
            member = self.members.get(name)
            if member is not None and member.version == row.version:
                member.state = SiteState(row.state)
                continue
            if member is not None:
                await self._close(member)
            self.members[name] = self._build(row)

    def site(self, name: str) -> Site:
        """The adapter of a site; NotFound, or Unavailable with the reason why there is none."""
        member = self.members.get(name)
        if member is None:
            raise NotFound(f"There is no site {name}.", remedy="`isthmus site ls` shows the sites.")
        if member.adapter is None:
            raise Unavailable(f"Site {name} cannot be reached: {member.error}")
        return member.adapter

    async def close(self) -> None:
        """Close every adapter; jobs are not touched."""
        for member in self.members.values():
            await self._close(member)
        self.members.clear()

    def _build(self, row: Any) -> Member:
        member = Member(
            name=row.name,
            kind=row.kind,
            version=row.version,
            state=SiteState(row.state),
            accounts=orjson.loads(row.accounts),
        )
        try:
            if row.mode == "agent":
                if self._agent_site is None:
                    raise Unavailable("this control plane was started without agents.")
                member.adapter = self._agent_site(row.name)
            else:
                member.adapter = registry.build(row.kind, row.name, orjson.loads(row.config), self._blobs)
        except (IsthmusError, ImportError, AttributeError, TypeError) as error:
            member.error = str(error)
            log.warning("site %s has no adapter: %s", row.name, error)
        return member

    async def _close(self, member: Member) -> None:
        if member.adapter is not None:
            try:
                await member.adapter.close()
            except (IsthmusError, OSError) as error:
                log.warning("site %s did not close well: %s", member.name, error)


def _load_sites(connection: sa.Connection) -> list[Any]:
    query = tables.sites.select().where(tables.sites.c.state != SiteState.LEFT.value).order_by(tables.sites.c.name)
    return list(connection.execute(query))
