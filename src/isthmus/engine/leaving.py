"""A site drains, resumes, leaves: what each would hit, and the change itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from isthmus.domain.errors import Conflict, NotFound
from isthmus.domain.lifecycle import ATTEMPT_ENDED, AttemptState, EndReason
from isthmus.domain.site import SiteState
from isthmus.engine.datasets import site_left
from isthmus.engine.leases import Lease
from isthmus.engine.transitions import Move, apply
from isthmus.store import events, tables

_ENDED = [state.value for state in ATTEMPT_ENDED]
_A = AttemptState


@dataclass(frozen=True, slots=True, kw_only=True)
class Impact:
    """What a site holds now: attempts that would be waited for, and (`unaccounted`) those that have ended, but whose usage
    is not known or whose files are not removed there yet."""

    placed: int = 0
    queued: int = 0
    running: int = 0
    unknown: int = 0
    collecting: int = 0
    unaccounted: int = 0

    @property
    def live(self) -> int:
        """Attempts that have not ended."""
        return self.placed + self.queued + self.running + self.unknown + self.collecting


def impact(connection: sa.Connection, site: str) -> Impact:
    """Count what the site holds."""
    _row(connection, site)
    a = tables.attempts.c
    query = sa.select(a.state, sa.func.count()).where(a.site == site).where(a.state.notin_(_ENDED)).group_by(a.state)
    counts = {row[0]: row[1] for row in connection.execute(query)}
    is_owed = sa.or_(a.usage_state == "due", a.clean_state == "due")
    owed = sa.select(sa.func.count()).select_from(tables.attempts).where(a.site == site).where(is_owed)
    return Impact(
        placed=sum(counts.get(s, 0) for s in (_A.PLACED, _A.STAGING, _A.SUBMITTING)),
        queued=counts.get(_A.QUEUED, 0),
        running=counts.get(_A.RUNNING, 0),
        unknown=counts.get(_A.UNKNOWN, 0),
        collecting=counts.get(_A.COLLECTING, 0),
        unaccounted=connection.execute(owed).scalar_one(),
    )


def drain(connection: sa.Connection, *, now: float, site: str, by: str) -> None:
    """Nothing new goes there; what it has ends in peace."""
    row = _row(connection, site)
    if row.state == SiteState.LEFT:
        raise Conflict(f"Site {site} has left.", remedy="Join it again.")
    _set(connection, now, site, SiteState.DRAINING, by)


def stop_new(connection: sa.Connection, *, now: float, site: str, by: str) -> None:
    """Before the jobs of a site that leaves by force are asked to end: nothing may follow them."""
    if _row(connection, site).state == SiteState.ACTIVE:
        _set(connection, now, site, SiteState.DRAINING, by)


def resume(connection: sa.Connection, *, now: float, site: str, by: str) -> None:
    """New work may go there again."""
    row = _row(connection, site)
    if row.state == SiteState.LEFT:
        raise Conflict(f"Site {site} has left.", remedy="Join it again.")
    _set(connection, now, site, SiteState.ACTIVE, by)


def leave(connection: sa.Connection, *, now: float, site: str, by: str, force: bool = False) -> Impact:
    """The site leaves. Refused while it holds work, unless `force`: then its live attempts are given up (LOST), their
    tasks go elsewhere, and whatever still runs there can no longer report.

    Giving up is the operator's word that nothing there will come back: only he can give it.
    """
    row = _row(connection, site)
    held = impact(connection, site)
    if row.state == SiteState.LEFT and not (force and held.live):
        return held
    if held.live and not force:
        raise Conflict(
            f"Site {site} still holds {held.live} attempts ({held.running} running, {held.unknown} unknown).",
            remedy="Drain it and wait, or use force if it is gone for good.",
        )
    if held.live:
        _give_up(connection, now, site)
    if force:
        connection.execute(
            tables.attempts.update()
            .where(tables.attempts.c.site == site)
            .where(sa.or_(tables.attempts.c.usage_state == "due", tables.attempts.c.clean_state == "due"))
            .values(
                usage_state=sa.case(
                    (tables.attempts.c.usage_state == "due", "lost"), else_=tables.attempts.c.usage_state
                ),
                clean_state="none",
            )
        )
    elif held.unaccounted:
        raise Conflict(
            f"{held.unaccounted} attempts of site {site} are not accounted, or their files not removed there, yet.",
            remedy="Wait for it, or use force to go without.",
        )
    site_left(connection, now, site)
    _set(connection, now, site, SiteState.LEFT, by)
    return held


def _give_up(connection: sa.Connection, now: float, site: str) -> None:
    """Take the site's lease from whoever works there, so that nothing it still says is heard, then end its attempts."""
    name = f"site:{site}"
    row = connection.execute(tables.leases.select().where(tables.leases.c.name == name).with_for_update()).first()
    token = row.token + 1 if row is not None else 1
    if row is None:
        connection.execute(tables.leases.insert().values(name=name, owner="", token=token, until=0.0))
    else:
        connection.execute(
            tables.leases.update().where(tables.leases.c.name == name).values(owner="", token=token, until=0.0)
        )
    query = (
        sa.select(tables.attempts.c.key)
        .where(tables.attempts.c.site == site)
        .where(tables.attempts.c.state.notin_(_ENDED))
    )
    message = f"Site {site} left by force; what it had is given up."
    moves = [
        Move(key=key, to=_A.LOST, reason=EndReason.GIVEN_UP, message=message)
        for key in connection.execute(query).scalars()
    ]
    apply(connection, now, Lease(name, token), moves)


def live_attempts(connection: sa.Connection, site: str) -> list[Any]:
    """The rows of attempts at a site that have not ended."""
    a = tables.attempts.c
    return list(connection.execute(tables.attempts.select().where(a.site == site).where(a.state.notin_(_ENDED))))


def _row(connection: sa.Connection, site: str) -> Any:
    row = connection.execute(tables.sites.select().where(tables.sites.c.name == site).with_for_update()).first()
    if row is None:
        raise NotFound(f"There is no site {site}.", remedy="`isthmus site ls` shows the sites.")
    return row


def _set(connection: sa.Connection, now: float, site: str, state: SiteState, by: str) -> None:
    connection.execute(tables.sites.update().where(tables.sites.c.name == site).values(state=state.value))
    events.add(connection, [events.event(now, f"site.{state.value}", site=site, body={"by": by})])
