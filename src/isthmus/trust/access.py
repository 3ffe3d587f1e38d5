"""Who a caller is, and the rules that a route can carry. A route without a rule cannot be made; see `api.routing`.

A rule says whether a caller may make a call, from the call's parameters and the rows they name. What a caller may not even
know of is NotFound, what may be known but not done is Forbidden.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import sqlalchemy as sa

from isthmus.domain.errors import Forbidden, NotFound
from isthmus.store import tables
from isthmus.store.database import Database

DEFAULT_PROJECT = "default"


class Scope(StrEnum):
    """What a token is good for, whatever its user may do."""

    TASKS_READ = "tasks:read"
    TASKS_WRITE = "tasks:write"
    SITES_OPERATE = "sites:operate"
    NETWORK_OPERATE = "network:operate"
    METRICS = "metrics"
    ADMIN = "admin"
    AGENT = "agent"


_HOLDS: Mapping[Scope, frozenset[Scope]] = {
    Scope.TASKS_WRITE: frozenset({Scope.TASKS_WRITE, Scope.TASKS_READ}),
    Scope.ADMIN: frozenset(Scope) - {Scope.AGENT},
}


class Role(StrEnum):
    """What a user is in a project."""

    MEMBER = "member"
    MANAGER = "manager"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls, as the store knew it when the token was last looked up."""

    user: str
    token_id: str
    is_admin: bool
    scopes: frozenset[Scope]
    projects: Mapping[str, str] = field(default_factory=dict)  # project -> role
    sites: frozenset[str] = frozenset()  # operated
    operates_network: bool = False
    agent_site: str = ""
    expires_at: float | None = None

    @property
    def rules_all(self) -> bool:
        """Whether nothing is hidden from the caller: an administrator with a token that says so."""
        return self.is_admin and Scope.ADMIN in self.scopes

    def has(self, scope: Scope) -> bool:
        """Whether the token is good for this scope, itself or by one that holds it."""
        return scope in self.all_scopes

    @property
    def all_scopes(self) -> frozenset[Scope]:
        """The token's scopes with all that they hold."""
        return frozenset().union(*(_HOLDS.get(scope, frozenset({scope})) for scope in self.scopes))

    def need(self, scope: Scope) -> None:
        """Forbidden when the token lacks the scope."""
        if not self.has(scope):
            raise Forbidden(f"The token lacks the scope {scope}.", remedy="Use a token that has it.")

    def sees_project(self, project: str) -> bool:
        """Whether the project's tasks may be known to the caller."""
        return self.rules_all or project in self.projects

    def manages(self, project: str) -> bool:
        """Whether the caller may change the project's members and others' tasks in it."""
        return self.rules_all or self.projects.get(project) == Role.MANAGER

    def operates(self, site: str) -> bool:
        """Whether the caller runs this site."""
        return self.rules_all or site in self.sites

    def need_project(self, project: str) -> None:
        """NotFound when the project is not for the caller's eyes, or is not there."""
        if not self.sees_project(project):
            raise NotFound(f"There is no project {project!r} for you.", remedy="See `isthmus whoami` for yours.")

    def need_task(self, project: str, owner: str, *, change: bool) -> None:
        """NotFound for a task that the caller may not see, Forbidden for one that they may see but not change."""
        if not self.sees_project(project):
            raise NotFound("There is no such task for you.")
        if change and owner != self.user and not self.manages(project):
            raise Forbidden("The task is another user's.", remedy="Ask its user or a manager of the project.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One call that a rule judges: who calls (None: without a token), the call's parameters, the store."""

    caller: Caller | None
    parameters: Mapping[str, str]
    database: Database

    @property
    def known(self) -> Caller:
        """The caller, on a route that needs one."""
        assert self.caller is not None
        return self.caller


class Rule(Protocol):
    """One access rule."""

    async def admit(self, asked: Asked, /) -> None:
        """Return when the call may go on; otherwise raise Forbidden or NotFound. `caller` is None without a token, and
        only an `Anonymous` route is called then."""
        ...


@dataclass(frozen=True, slots=True)
class Anonymous:
    """Anybody, without a token."""

    async def admit(self, _asked: Asked, /) -> None:
        """Admit."""


@dataclass(frozen=True, slots=True)
class Signed:
    """Every caller with the scope (None: any token but an agent's); the handler answers only what they may see."""

    scope: Scope | None

    async def admit(self, asked: Asked, /) -> None:
        """Check the scope."""
        known = asked.known
        if self.scope is not None:
            known.need(self.scope)
        elif known.agent_site:
            raise Forbidden("An agent's token is good for the agent's calls only.")


@dataclass(frozen=True, slots=True)
class Figures(Signed):
    """Callers with the scope metrics; anybody when the operator opened the figures."""

    scope: Scope | None = Scope.METRICS


@dataclass(frozen=True, slots=True)
class InProject:
    """Members of the project that the parameter `project` names; `manage` wants a manager."""

    scope: Scope
    manage: bool = False

    async def admit(self, asked: Asked, /) -> None:
        """Check scope and membership, and that the project exists."""
        known = asked.known
        known.need(self.scope)
        project = asked.parameters.get("project", DEFAULT_PROJECT)
        known.need_project(project)
        if self.manage and not known.manages(project):
            raise Forbidden(f"You do not manage the project {project}.", remedy="Ask one of its managers.")
        if project not in known.projects and not await asked.database.read(_exists, tables.projects, project):
            raise NotFound(f"There is no project {project!r}.")


@dataclass(frozen=True, slots=True)
class OfTask:
    """Those who may see the task `task_id`; `change` wants its user or a manager of its project."""

    scope: Scope
    change: bool = False

    async def admit(self, asked: Asked, /) -> None:
        """Check the scope, then the task's project and user."""
        known = asked.known
        known.need(self.scope)
        owner = await asked.database.read(_task_owner, asked.parameters["task_id"])
        if owner is None:
            raise NotFound("There is no such task for you.")
        known.need_task(owner[0], owner[1], change=self.change)


@dataclass(frozen=True, slots=True)
class OfSite:
    """Operators of the site that the parameter `site` names."""

    async def admit(self, asked: Asked, /) -> None:
        """Check scope and operatorship, and that the site exists."""
        known = asked.known
        known.need(Scope.SITES_OPERATE)
        site = asked.parameters["site"]
        if not await asked.database.read(_exists, tables.sites, site):
            raise NotFound(f"There is no site {site!r}.")
        if not known.operates(site):
            raise Forbidden(f"You do not operate the site {site}.", remedy="Ask an administrator to make you operator.")


@dataclass(frozen=True, slots=True)
class NetworkOperators:
    """Operators of the network, and administrators."""

    async def admit(self, asked: Asked, /) -> None:
        """Check scope and operatorship."""
        known = asked.known
        known.need(Scope.NETWORK_OPERATE)
        if not (known.operates_network or known.rules_all):
            raise Forbidden("You do not operate the network.", remedy="Ask an administrator to make you operator.")


@dataclass(frozen=True, slots=True)
class Administrators:
    """Administrators, with a token that has the scope admin."""

    async def admit(self, asked: Asked, /) -> None:
        """Check both."""
        known = asked.known
        known.need(Scope.ADMIN)
        if not known.is_admin:
            raise Forbidden("Only administrators may do this.")


@dataclass(frozen=True, slots=True)
class Agents:
    """The agent of a site; `caller.agent_site` says which."""

    async def admit(self, asked: Asked, /) -> None:
        """Check that the token is an agent's."""
        known = asked.known
        known.need(Scope.AGENT)
        if not known.agent_site:
            raise Forbidden("The token is not an agent's.", remedy="Enrol the agent again.")


def _exists(connection: sa.Connection, table: sa.Table, name: str) -> bool:
    return connection.execute(sa.select(sa.literal(1)).where(table.c.name == name)).first() is not None


def _task_owner(connection: sa.Connection, task_id: str) -> tuple[str, str] | None:
    row = connection.execute(
        sa.select(tables.tasks.c.project, tables.tasks.c.user).where(tables.tasks.c.id == task_id)
    ).first()
    return None if row is None else (row.project, row.user)
