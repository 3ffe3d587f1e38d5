"""Energy, money and carbon of each job: power x PUE, at its site's tariff and grid intensity of each hour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isthmus.twin.scenario.model import Hourly, Site

Figures = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounts:
    """By job: kWh at the meter (PUE included), money in the tariff's unit, kg CO2. Idle processors are not counted."""

    energy_kwh: Figures
    cost: Figures
    carbon_kg: Figures


def account(
    sites: tuple[Site, ...],
    site: NDArray[np.int64],
    start: NDArray[np.int64],
    run: NDArray[np.int64],
    width: NDArray[np.int64],
) -> Accounts:
    """The accounts of jobs by site number, start and run time (seconds), and processors."""
    energy, cost, carbon = (np.zeros(len(site)) for _ in range(3))
    for number, place in enumerate(sites):
        mine = site == number
        begin, end = start[mine], start[mine] + run[mine]
        kilowatts = width[mine] * place.watts_per_processor * place.pue / 1000
        energy[mine] = kilowatts * (end - begin) / 3600
        cost[mine] = kilowatts * (hours_of(place.tariff, end) - hours_of(place.tariff, begin))
        carbon[mine] = kilowatts * (hours_of(place.intensity, end) - hours_of(place.intensity, begin)) / 1000
    return Accounts(energy_kwh=energy, cost=cost, carbon_kg=carbon)


def hours_of(series: Hourly, seconds: NDArray[np.int64]) -> Figures:
    """The integral of an hourly series, repeated for ever, from 0 to each time: value x hours."""
    sums = np.concatenate([[0.0], np.cumsum(series)])
    whole, rest = np.divmod(seconds / 3600, len(series))
    hour = np.minimum(rest.astype(np.int64), len(series) - 1)
    result: Figures = whole * sums[-1] + sums[hour] + (rest - hour) * series[hour]
    return result
