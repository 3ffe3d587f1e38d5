"""What forecasts are measured against: the mean of the last two run times, and what the user requested."""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

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
