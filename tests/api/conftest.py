"""A service over a real store, with the real engine not started, so that tasks stay as the API left them."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from fastapi import FastAPI

from isthmus.api.app import create_app
from isthmus.api.service import ApiSettings, Service
from isthmus.data.directory import DirectoryBlobStore
from isthmus.engine.engine import Engine
from isthmus.store import schema, tables
from isthmus.store.database import Database
from isthmus.trust import first
from isthmus.trust.access import Scope
from isthmus.trust.sealing import Sealer
from isthmus.trust.tokens import mint

CONTENT = b"seven stones\n"
CONTENT_HASH = hashlib.sha256(CONTENT).hexdigest()


@dataclass(slots=True)
class Clock:
    """A clock that tests set."""

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass(slots=True)
class House:
    """One service with its people; `client(token)` calls it."""

    service: Service
    app: FastAPI
    state: Path
    clock: Clock
    admin: str
    clients: list[httpx.AsyncClient] = field(default_factory=list)

    def client(self, token: str | None) -> httpx.AsyncClient:
        """A client with this token."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        made = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app, raise_app_exceptions=False),
            base_url="http://isthmus",
            headers=headers,
        )
        self.clients.append(made)
        return made

    def person(
        self,
        name: str,
        *,
        projects: dict[str, str] | None = None,
        sites: Iterable[str] = (),
        scopes: Iterable[Scope] = (Scope.TASKS_WRITE, Scope.SITES_OPERATE),
        is_admin: bool = False,
        expires_at: float | None = None,
        agent_site: str = "",
    ) -> str:
        """A user with these rights (made when missing); answers a token of theirs."""

        def make(connection: sa.Connection) -> str:
            u = tables.users
            if not connection.execute(sa.select(u.c.name).where(u.c.name == name)).first():
                connection.execute(
                    u.insert().values(name=name, is_admin=is_admin, disabled=False, created_at=self.clock())
                )
            for project, role in (projects or {}).items():
                p = tables.projects
                if not connection.execute(sa.select(p.c.name).where(p.c.name == project)).first():
                    connection.execute(p.insert().values(name=project, created_at=self.clock()))
                connection.execute(tables.members.insert().values(project=project, user=name, role=role))
            for site in sites:
                connection.execute(tables.site_operators.insert().values(site=site, user=name))
            return mint(
                connection,
                now=self.clock(),
                user=name,
                scopes=list(scopes),
                expires_at=expires_at,
                site=agent_site,
            ).secret

        token = self.service.database.write_now(make)
        self.service.gate.forget()
        return token

    def execute(self, statement: Any, rows: list[dict[str, Any]] | None = None) -> None:
        """Change rows directly, as the engine would."""
        self.service.database.write_now(lambda connection: connection.execute(statement, rows or {}) and None)

    def rows(self, query: sa.Select[Any]) -> list[Any]:
        """Read rows directly."""
        return list(self.service.database.read_now(lambda connection: connection.execute(query).all()))


@asynccontextmanager
async def open_house(directory: Path, url: str, settings: ApiSettings | None = None) -> AsyncIterator[House]:
    """A service over the store at `url`."""
    clock = Clock()
    database = Database(url)
    schema.prepare(database)
    first.prepare(database, directory, clock())
    sealer = Sealer.open(directory / "key")
    blobs = DirectoryBlobStore(directory / "blobs")
    service = Service(
        database=database,
        blobs=blobs,
        engine=Engine(database, blobs, owner="test", unseal=sealer.unseal),
        sealer=sealer,
        state=directory,
        settings=settings or ApiSettings(event_poll_seconds=0.05),
        clock=clock,
    )
    app = create_app(service)
    house = House(service, app, directory, clock, (directory / first.TOKEN_FILE).read_text().strip())
    try:
        async with app.router.lifespan_context(app):
            yield house
    finally:
        for client in house.clients:
            await client.aclose()
        database.close()


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """A service on SQLite."""
    async with open_house(tmp_path, f"sqlite:///{tmp_path}/isthmus.db") as opened:
        yield opened


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.real)])
async def each_house(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[House]:
    """A service on SQLite, then one on PostgreSQL."""
    url = f"sqlite:///{tmp_path}/isthmus.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    async with open_house(tmp_path, url) as opened:
        yield opened


@pytest.fixture
def admin(house: House) -> httpx.AsyncClient:
    """The administrator's client."""
    return house.client(house.admin)


@pytest.fixture
def each_admin(each_house: House) -> httpx.AsyncClient:
    """The administrator's client."""
    return each_house.client(each_house.admin)


def problem_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The problem in an answer, checked to be one."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body.keys() >= {"type", "title", "status", "detail", "code", "remedy"}
    assert body["status"] == status
    return body


async def upload(client: httpx.AsyncClient, content: bytes, project: str = "default") -> str:
    """Upload content in one part; answers its hash."""
    sha256 = hashlib.sha256(content).hexdigest()
    answer = await client.patch(
        f"/v1/uploads/{sha256}",
        params={"project": project},
        headers={"Upload-Offset": "0", "Upload-Length": str(len(content))},
        content=content,
    )
    assert answer.status_code == 201, answer.text
    return sha256
