"""The fewest deadlines that any plan misses after a failure: an integer programme, written apart from what it checks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import highspy
import numpy as np
from scipy.sparse import coo_array, csc_array, vstack

from isthmus.network.calendar import Calendar, Route
from isthmus.network.topology import Floats

_NODES = 20_000  # of the search tree; an end before the optimum still proves a bound


def fewest_missed(
    calendar: Calendar, failed: Collection[int], routes: Mapping[str, Sequence[Route]], now_slot: int, capacity: Floats
) -> int:
    """How many promises at least miss their deadline when all that is not sent yet is planned anew on links of `capacity` [M] bits/s.

    On the routes that a promise has, and those that `routes` adds, without the links `failed`; proven by HiGHS.
    """
    slots, lost = calendar.slots, set(failed)
    owner, flow, place, need, caps = [list[int]() for _ in range(3)] + [list[float](), list[tuple[int, int, float]]()]
    columns, unit = 0, float(capacity.max())
    for number, (key, booking) in enumerate(
        (key, one) for key, one in calendar.bookings.items() if one.rates[:, now_slot:].any()
    ):
        need.append(float(booking.rates[:, now_slot:].sum()) / unit)
        window = calendar.window(booking.transfer, now_slot)
        for route in dict.fromkeys([*booking.routes, *map(tuple, routes.get(key, ()))]):
            if lost.isdisjoint(route):
                for slot in window:
                    owner.append(number)
                    caps.append((number * slots + slot, columns, booking.transfer.rate_cap_bits_per_second / unit))
                    place += [link * slots + slot for link in route]
                    flow += [columns] * len(route)
                    columns += 1
    many = len(need)
    kept = columns + np.arange(many)
    carried = coo_array(
        (np.r_[np.ones(columns), -np.array(need)], (np.r_[owner, np.arange(many)], np.r_[np.arange(columns), kept])),
        shape=(many, columns + many),
    )
    full, load_row = np.unique(place, return_inverse=True)
    loads = coo_array((np.ones(len(flow)), (load_row, flow)), shape=(len(full), columns + many))
    keys, cap_row = np.unique([key for key, _, _ in caps], return_inverse=True)
    limit = np.zeros(len(keys))
    limit[cap_row] = [cap for _, _, cap in caps]
    capped = coo_array((np.ones(columns), (cap_row, np.arange(columns))), shape=(len(keys), columns + many))
    rows = csc_array(vstack([carried, loads, capped]))
    model = highspy.HighsLp()
    model.num_row_, model.num_col_ = rows.shape
    model.sense_ = highspy.ObjSense.kMaximize
    model.col_cost_ = np.r_[np.zeros(columns), np.ones(many)]
    model.col_lower_ = np.zeros(columns + many)
    model.col_upper_ = np.r_[np.full(columns, highspy.kHighsInf), np.ones(many)]
    model.row_lower_ = np.r_[np.zeros(many), np.full(len(full) + len(keys), -highspy.kHighsInf)]
    model.row_upper_ = np.r_[np.full(many, highspy.kHighsInf), capacity[np.array(full) // slots] / unit, limit]
    model.integrality_ = [highspy.HighsVarType.kContinuous] * columns + [highspy.HighsVarType.kInteger] * many
    model.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    model.a_matrix_.start_, model.a_matrix_.index_, model.a_matrix_.value_ = rows.indptr, rows.indices, rows.data
    solver = highspy.Highs()
    for option, value in {"output_flag": False, "threads": 1, "mip_max_nodes": _NODES}.items():
        solver.setOptionValue(option, value)
    solver.passModel(model)
    solver.run()
    return many - int(np.floor(float(solver.getInfo().mip_dual_bound) + 1e-6))
