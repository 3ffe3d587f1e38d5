"""Forecast run times as a scheduler's estimates: the service's own model, learned along the log, strictly in time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isthmus.domain.errors import NotFound
from isthmus.forecasting.replay import Log
from isthmus.twin.schedulers.simulate import simulate


def forecast_estimates(log: Log, processors: int) -> NDArray[np.int64]:
    """Seconds for each job, from the jobs that had ended before it was submitted under EASY by the users' requests.

    A schedule made with these estimates ends jobs a little earlier or later than that one did. NotFound without LightGBM.
    """
    try:
        from isthmus.forecasting.replay import replay_run_times
        from isthmus.forecasting.runtime import RunTimeModel
    except (ImportError, OSError) as error:
        raise NotFound("Forecasts need LightGBM.", remedy="Install lightgbm, and the system's libgomp1.") from error
    return replay_run_times(log, simulate(log, processors, "easy"), RunTimeModel()).estimates()
