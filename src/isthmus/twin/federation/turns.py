"""Whose turn it is in a round, under the twin's clock: the service's fair share (`placement.fairshare`), each home a project.

What the service keeps in its store is here two numbers a home: processor seconds used, decaying, and promised to live attempts.
"""

from __future__ import annotations

from collections.abc import Sequence

from isthmus.domain.placement import WaitingTask
from isthmus.placement.fairshare import Account, Leads, decayed, in_turn

HALF_LIFE, WEIGHT = 86400.0, 1.0  # the service's own (engine.settings)
_FORGOTTEN = 1.0  # processor seconds
Turn = tuple[int, int, WaitingTask]  # submission in seconds, job, task


class Turns:
    """The accounts of all homes; all have the same share."""

    def __init__(self, homes: int) -> None:
        self._used = [(0.0, 0)] * homes  # processor seconds, as of when
        self._promised = [0.0] * homes

    def promise(self, home: int, processor_seconds: float) -> None:
        """More (or, below 0, less) is promised to a home's live attempts."""
        self._promised[home] += processor_seconds

    def use(self, home: int, processor_seconds: float, now: int) -> None:
        """An attempt has used so much."""
        used, at = self._used[home]
        self._used[home] = decayed(used, now - at, HALF_LIFE) + processor_seconds, max(now, at)

    def in_order(self, waiting: dict[int, list[Turn]], now: int, processors: float) -> Sequence[Turn]:
        """The tasks that wait, by home, in the order of service."""
        queues = {_name(home): sorted(turns, key=lambda turn: turn[:2]) for home, turns in waiting.items()}
        if len(queues) < 2:
            return [turn for turns in queues.values() for turn in turns]
        leads = Leads(self._accounts(waiting, now), processors)
        return list(
            in_turn(
                {name: iter(turns) for name, turns in queues.items()},
                leads,
                rank=lambda turn: turn[0],
                cost=lambda turn: _cost(turn[2]),
                weight=WEIGHT,
            )
        )

    def _accounts(self, waiting: dict[int, list[Turn]], now: int) -> dict[str, Account]:
        found = {}
        for home, ((used, at), promised) in enumerate(zip(self._used, self._promised, strict=True)):
            left = decayed(used, now - at, HALF_LIFE)
            if left >= _FORGOTTEN or promised > 0 or home in waiting:
                found[_name(home)] = Account(used=left, promised=max(0.0, promised))
        return found


def _name(home: int) -> str:
    return f"{home:06}"


def _cost(task: WaitingTask) -> float:
    seconds = task.run.seconds if task.run is not None else task.demand.walltime_seconds
    return task.demand.cpus_per_node * task.demand.nodes * seconds
