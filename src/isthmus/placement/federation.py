"""The federation's decision rules, as plain arithmetic: when a waiting task may run at another site than its home.

Every site keeps its own scheduler (EASY) for its own users. A task waits in its home's queue, where it keeps its place
and the head's reservation. Whenever another site has processors that its own pass left idle, the federation may fill
that hole with a task that waits elsewhere, as a guest:

1. `fits_hole`: a guest starts at once and delays no reservation of the site's own head task, by the rule of EASY.
   Nothing is sent to wait in a foreign queue, so a guess about a queue can harm nobody.
2. `order_of_guest`: of all that fit, the shortest by its estimate comes first, as it is gone soonest.
3. `is_open`: a row of rationality for each home. Its users' sum of bounded slowdowns is compared with that of the same
   tasks had the site stayed alone, which the twin replays behind the clock; a site in debt takes no guests until its
   own users have gained again from others.

In Slurm's terms guests run in a lower QOS: after all own tasks of a site, and without a reservation. The functions use
nothing but arithmetic, so that the twin compiles these very functions (numba) and the brain may call them.
"""

from __future__ import annotations

# What a home may owe: a starting credit in units of bounded slowdown, and a share of what it would suffer alone.
CREDIT = 200.0
TOLERANCE = 0.2


def fits_hole(width: int, seconds: int, free: int, head_waits: bool, limit: int, extra: int) -> bool:
    """Whether a guest of `width` processors, for `seconds` by its estimate, delays nobody who holds a reservation.

    `free`: idle processors; if the site's head task waits, its reservation is in `limit` seconds and leaves `extra`
    processors.
    """
    return width <= free and (not head_waits or seconds <= limit or width <= extra)


def order_of_guest(estimate_seconds: int, waited_seconds: int) -> float:
    """The least comes first: the shortest; of equals who waited longest."""
    return estimate_seconds - waited_seconds * 1e-9


def is_open(gained: float, alone: float, credit: float, tolerance: float) -> bool:
    """Whether a home takes guests: `gained` is the sum of bounded slowdowns alone minus that in the federation, over its
    own tasks known so far; `alone` the former. It may fall to -(credit + tolerance x alone)."""
    return gained + credit + tolerance * alone > 0.0
