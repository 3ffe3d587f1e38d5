"""How far ends at each site were from what their receipts foretold: the newest attempts, those that go on as far as they are known.

Tasks whose run time was known and tasks of which only the limit was are apart: their ends are far from their predictions in other
ways. A site where too few have ended takes the figures of all sites.

Kept in memory only; after a start it is learned again from the receipts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
import sqlalchemy as sa

from isthmus.domain.lifecycle import ATTEMPT_ENDED, AttemptState
from isthmus.domain.placement import Candidate, Snapshot, Spread, Why
from isthmus.forecasting.conformal import AdaptiveLevel
from isthmus.placement.spreading import COLD, COLD_DECLARED, FEW, parts_of, quantile, score, widths
from isthmus.store import tables
from isthmus.store.database import Database
from isthmus.store.documents import adapter

NEWEST = 400  # attempts that are looked at, of all sites
MOST = 24  # of one site: a burst is another world than the calm before it
AGAIN_SECONDS = 2.0  # at most this often while tasks come
RATE = 0.01  # of the adaptive levels; outcomes come late, and a quicker one overshoots
_AT_ONCE = 200
Kind = tuple[str, bool]
"""Site (empty: all of them), and whether the run time was known."""
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
        rows = await self._database.read(_newest)
        done = Counter(row.site for row in rows if row.state == AttemptState.SUCCEEDED.value)
        if any(done[row.site] < FEW for row in rows):  # so many are under way that few of the newest have ended
            few = {row.site for row in rows if done[row.site] < FEW}
            last = await self._database.read(_ended_last)
            rows = [row for row in rows if row.site not in few] + [row for row in last if row.site in few]
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
        return self._known.get((site, kind)) or self._known.get(("", kind)) or (COLD if kind else COLD_DECLARED)

    def _learn(self, rows: Sequence[Any], now: float) -> None:
        found: dict[Kind, list[tuple[float, bool]]] = {}
        ended = [row for row in rows if row.ended_at is not None and row.state in _ENDED]
        for row in sorted(ended, key=lambda row: (row.ended_at, row.key)):
            foretold = self._foretold.get(row.key)
            if foretold is not None and row.key not in self._counted and row.state == AttemptState.SUCCEEDED.value:
                self._levels.setdefault((row.site, foretold.kind), Levels()).learn(
                    foretold, row.ended_at - row.created_at
                )
            self._counted.add(row.key)
        for row in rows:
            foretold = self._foretold.get(row.key)
            done = row.state == AttemptState.SUCCEEDED.value and row.ended_at is not None
            if foretold is None or not (done or row.state not in _ENDED):
                continue
            actual = (row.ended_at if done else max(now, row.created_at)) - row.created_at
            one = (score(actual, foretold.middle, foretold.below, foretold.above), done)
            for which in (row.site, ""):
                of = found.setdefault((which, foretold.kind), [])
                if len(of) < MOST:
                    of.append(one)
        self._known |= {
            which: spread_of(known, self._levels.get(which, Levels()))
            for which, known in found.items()
            if sum(done for _, done in known) >= FEW
        }


def spread_of(known: Sequence[tuple[float, bool]], levels: Levels) -> Spread:
    """The next interval of a site."""
    middle = quantile(known, 0.5)
    return Spread(
        low=min(middle, quantile(known, levels.low.value)),
        middle=middle,
        high=max(middle, quantile(known, levels.high.value)),
        source="learned",
    )


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
