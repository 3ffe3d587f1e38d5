"""Forecasts of waiting at one pool by kind of job: how wide, how long at most. A few kinds stand for all."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from isthmus.domain.placement import Estimate

WIDTHS: Final = (1, 2, 3, *sorted(part << power for power in range(19) for part in (4, 6)))
LIMITS: Final = (300, 900, 1800, 3600, 7200, 14400, 28800, 43200, 86400, 172800, 259200, 604800, 2592000)
Kind = tuple[int, int]


def kind_of(processors: int, limit_seconds: int) -> Kind:
    """The kind that stands for jobs of so many processors and such a limit: the next wider and longer one."""
    width = WIDTHS[min(bisect_left(WIDTHS, processors), len(WIDTHS) - 1)]
    return width, LIMITS[min(bisect_left(LIMITS, limit_seconds), len(LIMITS) - 1)]


@dataclass(frozen=True, slots=True, eq=False)
class WaitTable:
    """The waits in seconds at one pool, from its queue as it was last seen, by kind of job."""

    by_kind: Mapping[Kind, Estimate]

    def of(self, processors: int, limit_seconds: int) -> Estimate | None:
        """The wait of such a job; None where it was not forecast."""
        return self.by_kind.get(kind_of(processors, limit_seconds))
