"""One linear programme for many transfers: rates on routes in slots that carry all volumes, and move what was promised least."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array, csc_array, vstack

from isthmus.network.calendar import Route, Transfer
from isthmus.network.linear import INFINITY, LinearProgramme
from isthmus.network.topology import Floats

_SHORT = 1e3  # against 1 for volume that moves
_LATE = 0.01  # from the first slot to the last


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Wish:
    """What one transfer still needs: `volume` in bits within `window`; `before` [routes, slots] in bits/s is its promise."""

    transfer: Transfer
    volume: float
    window: range
    routes: tuple[Route, ...]
    before: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """Rates [routes, slots] in bits/s for each wish, in their order, and the bits that found no place."""

    rates: tuple[Floats, ...]
    short: Floats


def plan(wishes: Sequence[Wish], room: Floats, slot_seconds: float) -> Plan:
    """Rates for all `wishes` within `room` [M, slots] bits/s.

    The smallest sum of missing shares of volumes first, then least volume moved away from `before`, then early slots. Exact
    for the first where everything fits: then nothing is missing.
    """
    slots, scale = room.shape[1], float(room.max(initial=0.0)) or 1.0
    grid = _Grid(wishes, slots)
    count, many = len(grid.owner), len(wishes)
    before = (
        np.array([wishes[w].before[r, t] for w, r, t in zip(grid.owner, grid.route, grid.slot, strict=True)]) / scale
    )
    kept = np.flatnonzero(before > 0)  # what stays as promised has columns of its own, so that the rest counts as moved
    cap = np.array([one.transfer.rate_cap_bits_per_second for one in wishes])[grid.owner] / scale
    capped = np.flatnonzero(np.isfinite(cap))
    full, load_row = np.unique(grid.load_row, return_inverse=True)
    keys, cap_row = np.unique(grid.owner[capped] * slots + grid.slot[capped], return_inverse=True)
    limit = np.zeros(len(keys))
    limit[cap_row] = cap[capped]
    volume = np.array([one.volume for one in wishes]) / (slot_seconds * scale)
    missing = _SHORT * np.clip(volume.mean() / np.maximum(volume, 1e-200), 0.1, 100.0)
    short, stay = count + np.arange(many), count + many + np.arange(len(kept))
    width = count + many + len(kept)
    sums = coo_array(
        (np.ones(count + many), (np.r_[grid.owner, np.arange(many)], np.r_[np.arange(count), short])),
        shape=(many, width),
    )
    loads = coo_array((np.ones(len(load_row)), (load_row, grid.load_column)), shape=(len(full), width))
    caps = coo_array((np.ones(len(capped)), (cap_row, capped)), shape=(len(keys), width))
    sign, each = np.r_[np.ones(len(kept)), -np.ones(len(kept))], np.arange(len(kept))
    stays = coo_array((sign, (np.r_[each, each], np.r_[kept, stay])), shape=(len(kept), width))
    none = np.full(len(full) + len(keys), -INFINITY)
    found = LinearProgramme(
        np.r_[grid.slot * (_LATE / slots), missing, np.full(len(kept), -1.0)],
        np.zeros(width),
        np.r_[np.full(count, INFINITY), volume, before[kept]],
        csc_array(vstack([sums, loads, caps, stays])),
        np.r_[volume, none, np.zeros(len(kept))],
        np.r_[volume, room.ravel()[full] / scale, limit, np.full(len(kept), INFINITY)],
    ).solve()
    values = np.maximum(found.values[:count], 0.0) * scale
    used = np.bincount(load_row, values[grid.load_column], minlength=len(full))
    over = np.maximum(
        used / np.maximum(room.ravel()[full], 1e-200), 1.0
    )  # the solver has a tolerance, the calendar none
    np.minimum.at(values, grid.load_column, values[grid.load_column] / over[load_row])
    values[values < 1e-12 * scale] = 0.0
    rates = tuple(np.zeros_like(one.before) for one in wishes)
    for w, r, t, rate in zip(grid.owner, grid.route, grid.slot, values, strict=True):
        rates[w][r, t] = rate
    return Plan(rates=rates, short=np.maximum(found.values[short], 0.0) * scale * slot_seconds)


class _Grid:
    """A column for each wish, route and slot: whose it is, and which (link, slot) it loads."""

    def __init__(self, wishes: Sequence[Wish], slots: int) -> None:
        none = np.empty(0, dtype=np.int64)
        parts, loads, count = [(none, none, none)], [(none, none)], 0
        for number, wish in enumerate(wishes):
            times = np.arange(wish.window.start, wish.window.stop)
            for place, route in enumerate(wish.routes):
                parts.append((np.full(len(times), number), np.full(len(times), place), times))
                rows = np.array(route, dtype=np.int64)[:, None] * slots + times
                loads.append((rows.ravel(), np.tile(count + np.arange(len(times)), len(route))))
                count += len(times)
        self.owner, self.route, self.slot = (np.concatenate(column) for column in zip(*parts, strict=True))
        self.load_row, self.load_column = (np.concatenate(column) for column in zip(*loads, strict=True))
