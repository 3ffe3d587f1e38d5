"""What forecasts are measured against: the mean of the last two run times, and what the user requested."""

from __future__ import annotations

import heapq
from collections.abc import Callable

import numpy as np
from numba import njit
from numpy.typing import NDArray

from isthmus.domain.errors import Refused
from isthmus.forecasting.replay import Log


def accuracy(run_seconds: NDArray[np.int64], predicted: NDArray[np.float64]) -> NDArray[np.float64]:
    """min/max of the run time and its prediction, of each job (Tsafrir, Etsion, Feitelson, TPDS 2007); 1 = exact."""
    near: NDArray[np.float64] = np.minimum(run_seconds, predicted) / np.maximum(run_seconds, predicted)
    return near


def last_two(log: Log, waits: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean run time of the last two ended jobs of the same user and request, else of the user, else the request.

    At most the request; in seconds, one entry a job. The predictor of the same TPDS paper, in the variant that gives
    .570, .577 and .597 on KTH, CTC and SDSC-SP2 under EASY.
    """
    columns = (log.submit_seconds, log.run_seconds, log.requested_seconds, log.user, waits)
    jobs = list(zip(*(column.tolist() for column in columns), strict=True))
    ends: list[tuple[int, int]] = []
    last: dict[tuple[int, ...], list[int]] = {}
    predicted = np.empty(len(jobs))
    for i, (submit, run, requested, user, wait) in enumerate(jobs):
        while ends and ends[0][0] <= submit:
            _, j = heapq.heappop(ends)
            for key in ((jobs[j][3], jobs[j][2]), (jobs[j][3],)):
                last[key] = [*last.get(key, [])[-1:], jobs[j][1]]
        two = last.get((user, requested)) or last.get((user,)) or [requested]
        predicted[i] = min(requested, sum(two) / len(two))
        heapq.heappush(ends, (submit + wait + run, i))
    return predicted


def easy_plus_plus(
    log: Log, waits: NDArray[np.int64], schedule: Callable[[NDArray[np.int64]], NDArray[np.int64]], rounds: int = 500
) -> NDArray[np.int64]:
    """Waits in seconds of EASY++ (the same TPDS paper), whose predictions hang on its own past.

    `schedule` gives waits for estimates, by shortest job backfilled first, with a prediction that proves too short
    corrected to the request. Predictions and waits are worked out in turn, from any `waits`, until they agree: each
    round is right for longer than the one before. Refused: they do not agree after so many rounds.
    """
    user = np.unique(log.user, return_inverse=True)[1].astype(np.int64)
    for _ in range(rounds):
        estimates = _last_two_of_user(log.submit_seconds, log.run_seconds, log.requested_seconds, user, waits)
        again = schedule(estimates)
        if np.array_equal(again, waits):
            return waits
        waits = again
    raise Refused(f"predictions and waits do not agree after {rounds} rounds.", remedy="Allow more rounds.")


@njit(cache=True)
def _last_two_of_user(submit, run, request, user, waits):  # type: ignore[no-untyped-def]
    jobs = len(submit)
    ended = np.argsort(submit + waits + run, kind="mergesort")
    last = np.full(jobs, -1, np.int64)
    before = np.full(jobs, -1, np.int64)
    estimate = request.copy()
    k = 0
    for i in range(jobs):
        while k < jobs and submit[ended[k]] + waits[ended[k]] + run[ended[k]] < submit[i]:
            j = ended[k]
            before[user[j]] = last[user[j]]
            last[user[j]] = run[j]
            k += 1
        if before[user[i]] >= 0:
            estimate[i] = max(1, min(request[i], (last[user[i]] + before[user[i]]) // 2))
    return estimate
