"""People: users, projects, members, the names of secrets; every change is audited."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import sqlalchemy as sa
from fastapi import Path, Query, Request, Response
from pydantic import Field

from isthmus.api import answers
from isthmus.api.audit import note
from isthmus.api.body import (
    NAME,
    IdempotencyKey,
    Limit,
    ProjectPath,
    UserPath,
    answer,
    fingerprint,
    made,
    nothing,
    once,
    read_body,
    when,
)
from isthmus.api.routing import Router
from isthmus.api.schemas import HomeText, NameText
from isthmus.api.service import Calling, Serving
from isthmus.domain.errors import Conflict, Invalid, NotFound
from isthmus.domain.ids import is_name
from isthmus.domain.site import SiteState
from isthmus.domain.task import FORBID_UNKNOWN
from isthmus.engine.serving import standing_of
from isthmus.store import tables
from isthmus.trust.access import Administrators, InProject, Role, Scope, Signed
from isthmus.trust.sealing import secret_context

MAX_SECRET_BYTES = 65_536
MIN_SHARE, MAX_SHARE = 0.001, 1_000_000.0
router = Router("people")
NameCursor = Annotated[str | None, Query(pattern=NAME)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectChange:
    """How much a project may have beside the others, and the site of its people (empty: none); what is left out stays."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN
    share: Annotated[float, Field(ge=MIN_SHARE, le=MAX_SHARE)] | None = None
    home: HomeText | None = None

    def __post_init__(self) -> None:
        if self.share is None and self.home is None:
            raise Invalid("share", "nothing is to change.", remedy="Give a share, a home, or both.")
        if self.home:
            _check_name("home", self.home)


def _check_name(field: str, name: str) -> None:
    if not is_name(name):
        raise Invalid(field, f"{name[:80]!r} is not a name.", remedy="Use a-z, 0-9, . _ -, at most 63 characters.")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewUser:
    """A user to make, enable or change."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN
    name: NameText
    is_admin: bool = False

    def __post_init__(self) -> None:
        _check_name("name", self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewProject:
    """A project to make; `home` is the site of its people, empty where they have none."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN
    name: NameText
    home: HomeText = ""

    def __post_init__(self) -> None:
        _check_name("name", self.name)
        if self.home:
            _check_name("home", self.home)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMember:
    """A user to add to a project, or whose role there changes."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN
    user: NameText
    role: Role = Role.MEMBER

    def __post_init__(self) -> None:
        _check_name("user", self.user)


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretValue:
    """The value of a secret."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN
    value: Annotated[str, Field(json_schema_extra={"maxLength": MAX_SECRET_BYTES // 4, "pattern": "^[^\\u0000]*$"})]

    def __post_init__(self) -> None:
        if "\0" in self.value or len(self.value.encode()) > MAX_SECRET_BYTES:
            raise Invalid("value", "cannot be kept.", remedy=f"At most {MAX_SECRET_BYTES} bytes, no NUL.")


# --- users ------------------------------------------------------------------------------------------------------------


def _user(row: sa.Row[Any]) -> dict[str, Any]:
    return {"name": row.name, "is_admin": row.is_admin, "disabled": row.disabled, "created_at": when(row.created_at)}


@router.route("GET", "/v1/users", rule=Administrators(), answer=answers.Page[answers.User])
async def list_users(service: Serving, limit: Limit = 100, cursor: NameCursor = None) -> Response:
    """Every user, by name."""
    u = tables.users
    query = sa.select(u).where(u.c.name > (cursor or "")).order_by(u.c.name).limit(limit + 1)
    rows = await service.database.read(lambda connection: connection.execute(query).all())
    following = rows[limit - 1].name if len(rows) > limit else None
    return answer({"items": [_user(row) for row in rows[:limit]], "next_cursor": following})


@router.route("POST", "/v1/users", rule=Administrators(), body=NewUser, answer=answers.User, status=201, errors=[409])
async def put_user(request: Request, service: Serving, caller: Calling, key: IdempotencyKey = None) -> Response:
    """Make a user; for one that exists, enable it and set `is_admin`."""
    new = await read_body(request, NewUser)
    request_hash = await fingerprint(request)
    now = service.clock()

    def store(connection: sa.Connection) -> bytes:
        def make() -> dict[str, Any]:
            u = tables.users
            if new.name == caller.user and not new.is_admin:
                raise Conflict("You would no longer be an administrator.", remedy="Let another one do it.")
            found = connection.execute(
                u.update().where(u.c.name == new.name).values(is_admin=new.is_admin, disabled=False)
            )
            if found.rowcount == 0:
                connection.execute(
                    u.insert().values(name=new.name, is_admin=new.is_admin, disabled=False, created_at=now)
                )
            note(connection, now, caller.user, "user.put", new.name, {"is_admin": new.is_admin})
            return _user(connection.execute(sa.select(u).where(u.c.name == new.name)).one())

        return once(connection, now=now, user=caller.user, key=key, request_hash=request_hash, make=make)

    body = await service.database.write(store)
    service.gate.forget()
    return made(body)


@router.route("DELETE", "/v1/users/{user}", rule=Administrators(), status=204, errors=[409])
async def disable_user(service: Serving, caller: Calling, user: UserPath) -> Response:
    """Disable a user and revoke every token of theirs; their tasks and records stay."""
    now = service.clock()

    def change(connection: sa.Connection) -> None:
        u, t = tables.users, tables.tokens
        if user == caller.user:
            raise Conflict("You cannot disable yourself.", remedy="Let another administrator do it.")
        if connection.execute(u.update().where(u.c.name == user).values(disabled=True)).rowcount == 0:
            raise NotFound(f"There is no user {user!r}.")
        connection.execute(t.update().where(t.c.user == user, t.c.revoked_at.is_(None)).values(revoked_at=now))
        note(connection, now, caller.user, "user.disable", user)

    await service.database.write(change)
    service.gate.forget()
    return nothing()


# --- projects ---------------------------------------------------------------------------------------------------------


@router.route("GET", "/v1/projects", rule=Signed(None), answer=answers.Page[answers.Project])
async def list_projects(service: Serving, caller: Calling, limit: Limit = 100, cursor: NameCursor = None) -> Response:
    """One's projects, by name; all of them for administrators."""
    p = tables.projects
    query = sa.select(p).where(p.c.name > (cursor or "")).order_by(p.c.name).limit(limit + 1)
    if not caller.rules_all:
        query = query.where(p.c.name.in_(list(caller.projects)))
    rows = await service.database.read(lambda connection: connection.execute(query).all())
    items = [
        {
            "name": row.name,
            "role": caller.projects.get(row.name, ""),
            "home": row.home,
            "created_at": when(row.created_at),
        }
        for row in rows[:limit]
    ]
    return answer({"items": items, "next_cursor": rows[limit - 1].name if len(rows) > limit else None})


@router.route(
    "POST", "/v1/projects", rule=Administrators(), body=NewProject, answer=answers.Project, status=201, errors=[409]
)
async def create_project(request: Request, service: Serving, caller: Calling, key: IdempotencyKey = None) -> Response:
    """Make a project; whoever makes it manages it."""
    new = await read_body(request, NewProject)
    request_hash = await fingerprint(request)
    now = service.clock()

    def store(connection: sa.Connection) -> bytes:
        def make() -> dict[str, Any]:
            p = tables.projects
            if connection.execute(sa.select(p.c.name).where(p.c.name == new.name)).first() is not None:
                raise Conflict(f"There is a project {new.name} already.")
            _check_home(connection, new.home)
            connection.execute(p.insert().values(name=new.name, home=new.home, created_at=now))
            connection.execute(
                tables.members.insert().values(project=new.name, user=caller.user, role=Role.MANAGER.value)
            )
            note(connection, now, caller.user, "project.create", new.name)
            return {"name": new.name, "role": Role.MANAGER, "home": new.home, "created_at": when(now)}

        return once(connection, now=now, user=caller.user, key=key, request_hash=request_hash, make=make)

    body = await service.database.write(store)
    service.gate.forget()
    return made(body)


@router.route(
    "GET",
    "/v1/projects/{project}",
    rule=InProject(Scope.TASKS_READ),
    answer=answers.ProjectStanding,
)
async def show_project(service: Serving, project: ProjectPath) -> Response:
    """A project's share, and how much of it the project has used lately."""
    return answer(await service.database.read(_standing, project, service.clock(), service.settings.fair_half_life))


@router.route(
    "PATCH",
    "/v1/projects/{project}",
    rule=Administrators(),
    body=ProjectChange,
    answer=answers.ProjectStanding,
)
async def change_project(request: Request, service: Serving, caller: Calling, project: ProjectPath) -> Response:
    """Set a project's share (1 when it was never set; only the ratios between projects matter) and its home (see own users first in
    docs/placement.md)."""
    change = await read_body(request, ProjectChange)
    now = service.clock()

    def store(connection: sa.Connection) -> dict[str, Any]:
        p = tables.projects
        given = {"share": change.share, "home": change.home}
        values = {name: value for name, value in given.items() if value is not None}
        _check_home(connection, change.home or "")
        if connection.execute(p.update().where(p.c.name == project).values(values)).rowcount == 0:
            raise NotFound(f"There is no project {project!r}.")
        note(connection, now, caller.user, "project.change", project, values)
        return _standing(connection, project, now, service.settings.fair_half_life)

    return answer(await service.database.write(store))


def _check_home(connection: sa.Connection, home: str) -> None:
    """Invalid where a home is named that is no site, or left."""
    s = tables.sites.c
    known = sa.select(s.name).where(s.name == home).where(s.state != SiteState.LEFT.value)
    if home and connection.execute(known).first() is None:
        raise Invalid("home", f"there is no site {home!r}.", remedy="Name one of `isthmus site ls`.")


def _standing(connection: sa.Connection, project: str, now: float, half_life: float) -> dict[str, Any]:
    p, t = tables.projects.c, tables.tasks.c
    row = connection.execute(sa.select(p.created_at, p.home).where(p.name == project)).one_or_none()
    if row is None:
        raise NotFound(f"There is no project {project!r}.")
    waiting = sa.select(sa.func.count()).where(t.project == project).where(t.state == sa.text("'waiting'"))
    account, standing = standing_of(connection, now, half_life, project)
    return {
        "name": project,
        "created_at": when(row.created_at),
        "home": row.home,
        "share": account.share,
        "part": None if standing is None else standing.part,
        "of_share": None if standing is None else standing.of_share,
        "active_projects": 0 if standing is None else standing.of,
        "used_cpu_seconds": account.used,
        "promised_cpu_seconds": account.promised,
        "half_life_seconds": half_life,
        "waiting": connection.execute(waiting).scalar_one(),
    }


@router.route("DELETE", "/v1/projects/{project}", rule=Administrators(), status=204, errors=[409])
async def delete_project(service: Serving, caller: Calling, project: ProjectPath) -> Response:
    """Remove a project that never had a task, with its members, secrets and right to content."""
    now = service.clock()

    def change(connection: sa.Connection) -> None:
        t = tables.tasks
        if connection.execute(sa.select(t.c.id).where(t.c.project == project).limit(1)).first() is not None:
            raise Conflict("The project has tasks, whose records are kept.", remedy="Remove its members instead.")
        for held in (tables.datasets, tables.replicas):
            if connection.execute(sa.select(held.c.name).where(held.c.project == project).limit(1)).first() is not None:
                raise Conflict(
                    "The project has datasets, or copies that are leaving.",
                    remedy="Forget them first: `isthmus data rm`.",
                )
        if connection.execute(tables.projects.delete().where(tables.projects.c.name == project)).rowcount == 0:
            raise NotFound(f"There is no project {project!r}.")
        for table in (tables.members, tables.secrets, tables.blobs, tables.project_usage):
            connection.execute(table.delete().where(table.c.project == project))
        note(connection, now, caller.user, "project.delete", project)

    await service.database.write(change)
    service.gate.forget()
    return nothing()


_MANAGE = InProject(Scope.TASKS_WRITE, manage=True)
_SEE = InProject(Scope.TASKS_READ)


@router.route("GET", "/v1/projects/{project}/members", rule=_SEE, answer=answers.Page[answers.Member])
async def list_members(
    service: Serving, project: ProjectPath, limit: Limit = 100, cursor: NameCursor = None
) -> Response:
    """Who is in a project."""
    m = tables.members
    query = sa.select(m).where(m.c.project == project, m.c.user > (cursor or "")).order_by(m.c.user).limit(limit + 1)
    rows = await service.database.read(lambda connection: connection.execute(query).all())
    following = rows[limit - 1].user if len(rows) > limit else None
    return answer({"items": [{"user": row.user, "role": row.role} for row in rows[:limit]], "next_cursor": following})


@router.route(
    "POST",
    "/v1/projects/{project}/members",
    rule=_MANAGE,
    body=NewMember,
    answer=answers.Member,
    status=201,
    errors=[409],
)
async def put_member(
    request: Request, service: Serving, caller: Calling, project: ProjectPath, key: IdempotencyKey = None
) -> Response:
    """Add a user to a project, or change their role there."""
    new = await read_body(request, NewMember)
    request_hash = await fingerprint(request)
    now = service.clock()

    def store(connection: sa.Connection) -> bytes:
        def make() -> dict[str, Any]:
            m, u = tables.members, tables.users
            if connection.execute(sa.select(u.c.name).where(u.c.name == new.user)).first() is None:
                raise Invalid("user", f"there is no user {new.user!r}.", remedy="Ask an administrator to make it.")
            of = sa.and_(m.c.project == project, m.c.user == new.user)
            if connection.execute(m.update().where(of).values(role=new.role.value)).rowcount == 0:
                connection.execute(m.insert().values(project=project, user=new.user, role=new.role.value))
            note(connection, now, caller.user, "member.put", project, {"user": new.user, "role": new.role.value})
            return {"user": new.user, "role": new.role}

        return once(connection, now=now, user=caller.user, key=key, request_hash=request_hash, make=make)

    body = await service.database.write(store)
    service.gate.forget()
    return made(body)


@router.route("DELETE", "/v1/projects/{project}/members/{user}", rule=_MANAGE, status=204)
async def remove_member(service: Serving, caller: Calling, project: ProjectPath, user: UserPath) -> Response:
    """Take a user out of a project; their tasks there stay."""
    now = service.clock()

    def change(connection: sa.Connection) -> None:
        m = tables.members
        if connection.execute(m.delete().where(m.c.project == project, m.c.user == user)).rowcount == 0:
            raise NotFound(f"{user} is not in the project {project}.")
        note(connection, now, caller.user, "member.remove", project, {"user": user})

    await service.database.write(change)
    service.gate.forget()
    return nothing()


# --- secrets ----------------------------------------------------------------------------------------------------------

_KEEP = InProject(Scope.TASKS_WRITE)
SecretName = Annotated[str, Path(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,62}$")]


@router.route("GET", "/v1/projects/{project}/secrets", rule=_SEE, answer=answers.Page[answers.Secret])
async def list_secrets(
    service: Serving,
    project: ProjectPath,
    limit: Limit = 100,
    cursor: Annotated[str | None, Query(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,62}$")] = None,
) -> Response:
    """The names of a project's secrets."""
    s = tables.secrets
    query = (
        sa.select(s.c.name, s.c.created_by, s.c.created_at)
        .where(s.c.project == project, s.c.name > (cursor or ""))
        .order_by(s.c.name)
        .limit(limit + 1)
    )
    rows = await service.database.read(lambda connection: connection.execute(query).all())
    items = [
        {"name": row.name, "created_by": row.created_by, "created_at": when(row.created_at)} for row in rows[:limit]
    ]
    return answer({"items": items, "next_cursor": rows[limit - 1].name if len(rows) > limit else None})


@router.route("PUT", "/v1/projects/{project}/secrets/{name}", rule=_KEEP, body=SecretValue, status=204)
async def put_secret(
    request: Request, service: Serving, caller: Calling, project: ProjectPath, name: SecretName
) -> Response:
    """Keep a secret, sealed; tasks name it in `secrets`."""
    value = (await read_body(request, SecretValue)).value
    sealed = service.sealer.seal(value.encode(), secret_context(project, name))
    now = service.clock()

    def change(connection: sa.Connection) -> None:
        s = tables.secrets
        connection.execute(s.delete().where(s.c.project == project, s.c.name == name))
        connection.execute(
            s.insert().values(project=project, name=name, sealed=sealed, created_by=caller.user, created_at=now)
        )
        note(connection, now, caller.user, "secret.put", f"{project}/{name}")

    await service.database.write(change)
    return nothing()


@router.route("DELETE", "/v1/projects/{project}/secrets/{name}", rule=_KEEP, status=204)
async def delete_secret(service: Serving, caller: Calling, project: ProjectPath, name: SecretName) -> Response:
    """Forget a secret; tasks that name it and did not start yet will fail."""
    now = service.clock()

    def change(connection: sa.Connection) -> None:
        s = tables.secrets
        if connection.execute(s.delete().where(s.c.project == project, s.c.name == name)).rowcount == 0:
            raise NotFound(f"The project {project} has no secret {name!r}.")
        note(connection, now, caller.user, "secret.delete", f"{project}/{name}")

    await service.database.write(change)
    return nothing()
