"""How far ends at each site were from what their receipts foretold: the newest attempts, those that go on as far as they are known.

Tasks whose run time was known and tasks of which only the limit was are apart: their ends are far from their predictions in other
ways. The newer an end, the more it counts; ends at other sites count too, a quarter as much.

Kept in memory only; after a start it is learned again from the receipts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
import sqlalchemy as sa

from isthmus.domain.lifecycle import ATTEMPT_ENDED, AttemptState
from isthmus.domain.placement import Candidate, Snapshot, Spread, Why
from isthmus.forecasting.conformal import AdaptiveLevel
from isthmus.placement.spreading import Seen, parts_of, score, spread_of, widths
from isthmus.store import tables
from isthmus.store.database import Database
from isthmus.store.documents import adapter

NEWEST = 400  # attempts that are looked at, of those placed last and of those that ended last
FADES = 0.97  # what each newer end leaves of an older one's weight: about 33 count
ELSEWHERE = 0.25  # what an end at another site weighs
GOES_ON = (
    0.5  # what a task weighs that has not ended: the quick ones of its time are among those, and cannot be told yet
)
LEAST = 0.02  # less than this is left out
AGAIN_SECONDS = 2.0  # at most this often while tasks come
RATE = 0.01  # of the adaptive levels; outcomes come late, and a quicker one overshoots
_AT_ONCE = 200
Kind = tuple[str, bool]
"""Site (empty: one of which nothing is known), and whether the run time was known."""
_ENDED = frozenset(state.value for state in ATTEMPT_ENDED)


@dataclass(frozen=True, slots=True)
class Foretold:
    """What a receipt said of an end, in seconds from its decision: the sum of the parts, their widths, the interval if it had one."""

    middle: float
    below: float
    above: float
    low: float | None
    high: float | None
    kind: bool  # whether the run time was known


@dataclass(slots=True)
class Levels:
    """The levels at which a site's bounds are asked for."""

    low: AdaptiveLevel = field(default_factory=lambda: AdaptiveLevel(target=0.1, rate=RATE))
    high: AdaptiveLevel = field(default_factory=lambda: AdaptiveLevel(target=0.9, rate=RATE))

    def learn(self, foretold: Foretold, actual: float) -> None:
        """One more end."""
        if foretold.low is not None and foretold.high is not None:
            self.low = self.low.after(actual < foretold.low)
            self.high = self.high.after(actual <= foretold.high)


class Ends:
    """`refresh` reads how attempts go on; `into` tells a snapshot."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._foretold: dict[str, Foretold | None] = {}
        self._counted: set[str] = set()
        self._levels: dict[Kind, Levels] = {}
        self._known: dict[Kind, Spread] = {}
        self._read_at = 0.0

    async def refresh(self, now: float, gap: float = 0.0) -> None:
        """Learn anew from the newest attempts, unless that was done less than `gap` seconds ago."""
        if 0 <= now - self._read_at < gap:
            return
        self._read_at = now
        found = [*await self._database.read(_newest), *await self._database.read(_ended_last)]
        rows = list({row.key: row for row in found}.values())
        unknown = [row.key for row in rows if row.key not in self._foretold]
        if unknown:
            self._foretold |= await self._database.read(_receipts, unknown)
        self._learn(rows, now)
        kept = {row.key for row in rows}
        self._foretold = {key: one for key, one in self._foretold.items() if key in kept}
        self._counted &= kept

    def into(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot with what is known of each site."""
        return replace(
            snapshot,
            pools=tuple(
                replace(view, spread=self._of(view.site, True), spread_declared=self._of(view.site, False))
                for view in snapshot.pools
            ),
        )

    def _of(self, site: str, kind: bool) -> Spread:
        return self._known.get((site, kind)) or self._known.get(("", kind)) or spread_of((), declared=not kind)

    def _learn(self, rows: Sequence[Any], now: float) -> None:
        ended = [row for row in rows if row.ended_at is not None and row.state in _ENDED]
        ended.sort(key=lambda row: (row.ended_at, row.key))
        for row in ended:
            foretold = self._foretold.get(row.key)
            if foretold is not None and row.key not in self._counted and row.state == AttemptState.SUCCEEDED.value:
                self._levels.setdefault((row.site, foretold.kind), Levels()).learn(
                    foretold, row.ended_at - row.created_at
                )
            self._counted.add(row.key)
        done = self._figures([row for row in reversed(ended) if row.state == AttemptState.SUCCEEDED.value], now)
        live = self._figures([row for row in rows if row.state not in _ENDED], now)
        kinds = {(site, kind) for site in ("", *(one[0][0] for one in (*done, *live))) for kind in (True, False)}
        self._known = {which: self._spread(which, done, live) for which in kinds}

    def _figures(self, rows: Sequence[Any], now: float) -> list[tuple[Kind, float]]:
        """How far each came so far, in widths."""
        found = []
        for row in rows:
            one = self._foretold.get(row.key)
            if one is not None:
                until = max(now, row.created_at) if row.ended_at is None else row.ended_at
                found.append(((row.site, one.kind), score(until - row.created_at, one.middle, one.below, one.above)))
        return found

    def _spread(self, which: Kind, done: Sequence[tuple[Kind, float]], live: Sequence[tuple[Kind, float]]) -> Spread:
        """The next interval of a site; `done` begins with what ended last."""
        known, later = [], 0.0  # the weight of what ended later
        for (site, kind), figure in done:
            if kind != which[1]:
                continue
            own, fresh = 1.0 if site == which[0] else ELSEWHERE, FADES**later
            if fresh < LEAST:
                break
            known.append(Seen(figure, weight=own * fresh))
            later += own
        known += [Seen(figure, ended=False, weight=GOES_ON) for there, figure in live if there == which]
        levels = self._levels.get(which, Levels())
        first = FADES**later
        return spread_of(known, declared=not which[1], first=first, low=levels.low.value, high=levels.high.value)


def _foretold(body: str) -> Foretold | None:
    chosen = next((c for c in orjson.loads(body).get("candidates", ()) if c.get("why") == Why.CHOSEN.value), None)
    if chosen is None:
        return None
    one = adapter(Candidate).validate_python(chosen)
    if one.finish_seconds is None:
        return None
    middle, below, above = widths(list(parts_of(one).values()))
    finish = one.finish
    known = one.run is not None and one.run.source != "declared"
    return Foretold(middle, below, above, finish.p10 if finish else None, finish.p90 if finish else None, known)


def _receipts(connection: sa.Connection, keys: Sequence[str]) -> dict[str, Foretold | None]:
    a, r = tables.attempts.c, tables.receipts
    found: dict[str, Foretold | None] = dict.fromkeys(keys)
    for start in range(0, len(keys), _AT_ONCE):
        query = (
            sa.select(r.c.attempt, r.c.body)
            .join(tables.attempts, sa.and_(r.c.task_id == a.task_id, r.c.attempt == a.key))
            .where(a.key.in_(keys[start : start + _AT_ONCE]))
        )
        found |= {row.attempt: _foretold(row.body) for row in connection.execute(query)}
    return found


def _newest(connection: sa.Connection) -> list[Any]:
    """The attempts that were placed last, whatever has become of them."""
    return list(connection.execute(_attempts(tables.attempts).order_by(tables.attempts.c.key.desc()).limit(NEWEST)))


def _ended_last(connection: sa.Connection) -> list[Any]:
    """The attempts that were accounted last."""
    u = tables.usage_records
    query = _attempts(tables.attempts.join(u, u.c.attempt == tables.attempts.c.key))
    return list(connection.execute(query.order_by(u.c.created_at.desc(), u.c.attempt.desc()).limit(NEWEST)))


def _attempts(source: sa.FromClause) -> sa.Select[Any]:
    a, t = tables.attempts.c, tables.tasks.c
    mine = sa.and_(t.id == a.task_id, t.attempt == a.key)
    return sa.select(a.key, a.site, a.state, a.created_at, t.ended_at).select_from(source.outerjoin(tables.tasks, mine))
