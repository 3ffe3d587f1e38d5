"""Ended jobs by user, and the last of everybody: bounded, in the order in which they ended."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.forecasting.candidates import COLUMNS
from isthmus.forecasting.packing import pack, unpack


class Rows:
    """A table that grows up to `limit` rows and then forgets the older half."""

    def __init__(self, limit: int, rows: NDArray[np.float64] | None = None) -> None:
        """Begin empty, or with `rows`."""
        self.limit = limit
        self.count = 0 if rows is None else len(rows)
        self.table = np.empty((max(8, self.count), len(COLUMNS)))
        if rows is not None:
            self.table[: self.count] = rows

    def add(self, row: NDArray[np.float64]) -> None:
        """Append one row."""
        if self.count == self.limit:
            keep = self.limit // 2
            self.table[:keep] = self.table[self.count - keep : self.count].copy()
            self.count = keep
        if self.count == len(self.table):
            self.table = np.concatenate([self.table, np.empty_like(self.table)])[: self.limit]
        self.table[self.count] = row
        self.count += 1


class Histories:
    """The rows of each user, the least recently active user forgotten first, and the last rows of all."""

    def __init__(self, users: int, jobs: int, everybody: int) -> None:
        """At most `jobs` rows for each of `users` users, and `everybody` rows of all together."""
        self._users: OrderedDict[str, Rows] = OrderedDict()
        self._most, self._jobs = users, jobs
        self.everybody = Rows(everybody)
        self._nobody = Rows(1)

    def of(self, user: str) -> Rows:
        """The rows of a user; empty for one who is not known."""
        return self._users.get(user, self._nobody)

    def add(self, user: str, row: NDArray[np.float64]) -> None:
        """Append one ended job."""
        rows = self._users.get(user)
        if rows is None:
            rows = self._users[user] = Rows(self._jobs)
            if len(self._users) > self._most:
                self._users.popitem(last=False)
        self._users.move_to_end(user)
        rows.add(row)
        self.everybody.add(row)

    def state(self) -> dict[str, Any]:
        """All rows, as JSON values."""
        return {
            "users": {user: pack(rows.table[: rows.count]) for user, rows in self._users.items()},
            "everybody": pack(self.everybody.table[: self.everybody.count]),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state given by `state`."""
        for user, rows in state["users"].items():
            self._users[user] = Rows(self._jobs, unpack(rows))
        self.everybody = Rows(self.everybody.limit, unpack(state["everybody"]))
