"""Which content the agent of a site may read and send: what its open calls and transfers need, and nothing else.

It may read what an open `stage` call names, send while a `collect` call is open, and is told that content is there only
when it sent that content itself, so that knowing a hash never gives access to what is behind it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from isthmus.domain.dataset import HOME
from isthmus.domain.errors import Forbidden, NotFound
from isthmus.engine.clock import Clock
from isthmus.engine.home import Home
from isthmus.engine.mailbox import Mailbox
from isthmus.sites import wire
from isthmus.store.database import Database
from isthmus.store.tables import contents, dataset_versions, site_blobs, transfers

_REMEMBERED = 1024
_CHUNK = 500  # hashes in one query


class AgentBlobs:
    """Answers from the open calls of the mailbox and the table of what agents sent."""

    def __init__(self, mailbox: Mailbox, database: Database, clock: Clock, home: Home | None = None) -> None:
        self._mailbox = mailbox
        self._database = database
        self._clock = clock
        self._home = home
        self._named: OrderedDict[str, frozenset[str]] = OrderedDict()

    async def need_read(self, site: str, sha256: str) -> None:
        """NotFound when no open call of the site needs this content and it did not send it itself."""
        if any(sha256 in hashes for hashes in await self._of_open_stages(site)):
            return
        if await self._of_open_transfer(site, sha256):
            return
        if await self.unproven(site, [sha256]):
            raise NotFound("No call for this site needs this content.")

    async def need_send(self, site: str) -> None:
        """Forbidden when the site has no call that collects or takes files in."""
        for method in ("collect", "data_register"):
            if await self._mailbox.has_open(site, method):
                return
        if not await self._database.read(_sends, site):
            raise Forbidden("No call for this site collects now.", remedy="Wait for the next call.")

    async def _of_open_transfer(self, site: str, sha256: str) -> bool:
        """Whether a transfer to the site needs it: a manifest, or, from the service, content of the version."""
        rows = await self._database.read(_transfers_of, site)
        if any(row.manifest_sha256 == sha256 for row in rows):
            return True
        if self._home is None:
            return False
        blake3 = await self._database.read(_blake3_of, sha256)
        for row in rows:
            if blake3 is not None and row.source == HOME and row.target == site:
                manifest = await self._home.manifest(row.manifest, row.manifest_sha256)
                if blake3 in manifest.contents:
                    return True
        return False

    async def unproven(self, site: str, hashes: Collection[str]) -> set[str]:
        """Those of the hashes whose content the site's agent never sent."""
        wanted = sorted(set(hashes))
        proven: set[str] = set()
        for start in range(0, len(wanted), _CHUNK):
            proven |= await self._database.read(_proven, site, wanted[start : start + _CHUNK])
        return set(wanted) - proven

    async def sent(self, site: str, sha256: str) -> None:
        """Remember that the site's agent sent this content, whole and checked."""
        await self._database.write(_sent, site, sha256, self._clock.now())

    async def _of_open_stages(self, site: str) -> list[frozenset[str]]:
        ids = await self._mailbox.open_ids(site, "stage")
        if any(call_id not in self._named for call_id in ids):
            for call_id, arguments in (await self._mailbox.open_arguments(site, "stage")).items():
                self._named[call_id] = _named(arguments)
            while len(self._named) > _REMEMBERED:
                self._named.popitem(last=False)
        return [self._named[call_id] for call_id in ids if call_id in self._named]


def _named(arguments: bytes) -> frozenset[str]:
    stage = wire.decode_arguments("stage", arguments)
    assert isinstance(stage, wire.Jobs)
    return frozenset(file.blob for job in stage.jobs for file in job.files if file.blob)


def _transfers_of(connection: sa.Connection, site: str) -> Sequence[sa.Row[tuple[str, str, str, str]]]:
    t, v = transfers.c, dataset_versions.c
    query = (
        sa.select(t.source, t.target, v.manifest, v.manifest_sha256)
        .join(dataset_versions, sa.and_(v.project == t.project, v.name == t.name, v.version == t.version))
        .where(t.state == "moving", sa.or_(t.source == site, t.target == site))
    )
    return connection.execute(query).all()


def _blake3_of(connection: sa.Connection, sha256: str) -> str | None:
    return connection.execute(sa.select(contents.c.blake3).where(contents.c.sha256 == sha256)).scalar()


def _sends(connection: sa.Connection, site: str) -> bool:
    t = transfers.c
    query = sa.select(t.id).where(t.state == "moving", t.source == site, t.target == HOME).limit(1)
    return connection.execute(query).first() is not None


def _proven(connection: sa.Connection, site: str, hashes: Sequence[str]) -> set[str]:
    query = sa.select(site_blobs.c.sha256).where(site_blobs.c.site == site, site_blobs.c.sha256.in_(hashes))
    return set(connection.scalars(query))


def _sent(connection: sa.Connection, site: str, sha256: str, now: float) -> None:
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    connection.execute(insert(site_blobs).values(site=site, sha256=sha256, created_at=now).on_conflict_do_nothing())
