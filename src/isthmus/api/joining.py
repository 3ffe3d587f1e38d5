"""What an operator says of a site when it joins or changes, checked, and the row that is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

import orjson
import sqlalchemy as sa

from isthmus.api.audit import note
from isthmus.api.schemas import NameText
from isthmus.domain.errors import Conflict, Invalid
from isthmus.domain.hours import read_hours
from isthmus.domain.ids import is_name
from isthmus.domain.site import SiteState
from isthmus.domain.task import FORBID_UNKNOWN
from isthmus.sites import registry
from isthmus.sites.transport.port import is_account
from isthmus.store import events, tables

_BY_HOUR = {"cpu_hour", "accelerator_hour", "carbon_grams_per_kwh", "load"}
_SHARES = {"preemptible_share", "load"}
_PRICES = _SHARES | {"cpu_hour", "accelerator_hour", "cpu_watts", "accelerator_watts", "pue", "carbon_grams_per_kwh"}
Accounts = dict[str, str]
Prices = dict[str, dict[str, str]]


class Mode(StrEnum):
    """Who talks to the scheduler: this service, or an agent at the site that dials out."""

    DIRECT = "direct"
    AGENT = "agent"


def _check_label(field_name: str, value: str) -> None:
    if len(value) > 255 or "\0" in value:
        raise Invalid(field_name, "cannot be kept.", remedy="Give at most 255 characters, no NUL.")


def _check_accounts(accounts: Mapping[str, str]) -> None:
    for user, account in accounts.items():
        if user != "*" and not is_name(user):
            raise Invalid(f"accounts.{user}", "is not a user.", remedy='Name users, or "*" for everybody else.')
        if account and not is_account(account):
            raise Invalid(f"accounts.{user}", "is not an account.", remedy="Name a local account of the site.")


def _check_prices(prices: Prices) -> None:
    for pool, price in prices.items():
        for name, amount in price.items():
            if name not in _PRICES:
                raise Invalid(f"prices.{pool}.{name}", "is no price.", remedy=f"Use {', '.join(sorted(_PRICES))}.")
            try:
                hours = read_hours(amount)
            except Invalid as error:
                raise Invalid(f"prices.{pool}.{name}", error.cause, remedy=error.remedy) from error
            if len(hours.values) > 1 and name not in _BY_HOUR:
                raise Invalid(f"prices.{pool}.{name}", "is one amount for all hours.", remedy="Give one.")
            if name in _SHARES and max(hours.values) > 1:
                raise Invalid(f"prices.{pool}.{name}", "is a part of the whole.", remedy="Give 0 to 1.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """A site to join. `accounts`: user to local account, "*" = everybody else; `prices`: pool or "*" to amounts as text."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN
    name: NameText
    kind: str
    mode: Mode = Mode.DIRECT
    region: str = ""
    trust: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    accounts: Accounts = field(default_factory=dict)
    prices: Prices = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise Invalid("name", f"{self.name[:80]!r} is not a site name.", remedy="Use a-z, 0-9, . _ -, at most 63.")
        if self.kind not in registry.kinds():
            raise Invalid(
                "kind",
                f"no kind of site is called {self.kind[:80]!r}.",
                remedy=f"Installed: {', '.join(registry.kinds())}.",
            )
        _check_label("region", self.region)
        _check_label("trust", self.trust)
        _check_accounts(self.accounts)
        _check_prices(self.prices)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What changes at a site; null: stays as it is. `config` and `trust` are for administrators."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN
    region: str | None = None
    trust: str | None = None
    config: dict[str, Any] | None = None
    accounts: Accounts | None = None
    prices: Prices | None = None

    def __post_init__(self) -> None:
        _check_label("region", self.region or "")
        _check_label("trust", self.trust or "")
        _check_accounts(self.accounts or {})
        _check_prices(self.prices or {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """Whether to leave although attempts are at the site: they are given up."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN
    force: bool = False


def insert_site(connection: sa.Connection, join: Join, *, user: str, now: float) -> None:
    """Store a site with its first operator; Conflict when one of that name is there and did not leave."""
    s, o = tables.sites, tables.site_operators
    old = connection.execute(sa.select(s.c.state, s.c.version).where(s.c.name == join.name)).first()
    if old is not None and old.state != SiteState.LEFT:
        raise Conflict(
            f"There is a site {join.name} already.",
            remedy=f"Change it: `isthmus site set {join.name}`; or choose another name.",
        )
    values = {
        "name": join.name,
        "kind": join.kind,
        "mode": join.mode.value,
        "region": join.region,
        "trust": join.trust,
        "state": SiteState.ACTIVE.value,
        "config": orjson.dumps(join.config).decode(),
        "accounts": orjson.dumps(join.accounts).decode(),
        "prices": orjson.dumps(join.prices).decode(),
        "created_by": user,
        "created_at": now,
        "description": "",
        "described_at": None,
        "last_seen_at": None,
        "agent_version": "",
        "agent_clock_offset": None,
        "error": "",
        "version": 1 if old is None else old.version + 1,
    }
    if old is None:
        connection.execute(s.insert().values(values))
    else:
        connection.execute(s.update().where(s.c.name == join.name).values(values))
        # What joins again may be another machine: measure and learn anew.
        t = tables
        for table in (
            t.benchmarks,
            t.capabilities,
            t.site_queues,
            t.queue_history,
            t.outcomes,
            t.models,
            t.carbon_series,
            t.site_hours,
            t.site_ahead,
        ):
            connection.execute(table.delete().where(table.c.site == join.name))
    connection.execute(o.delete().where(o.c.site == join.name, o.c.user == user))
    connection.execute(o.insert().values(site=join.name, user=user))
    events.add(connection, [events.event(now, "site.active", site=join.name, body={"by": user})])
    note(connection, now, user, "site.join", join.name, {"kind": join.kind, "mode": join.mode.value})
