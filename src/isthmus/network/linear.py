"""A linear programme in HiGHS (Huangfu, Hall, 2018): minimise cost @ x, within bounds of columns and rows; it keeps its basis."""

from __future__ import annotations

from dataclasses import dataclass

import highspy
import numpy as np
from scipy.sparse import csc_array, csr_array

from isthmus.domain.errors import Refused, Unavailable
from isthmus.network.topology import Floats, Integers

INFINITY = float(highspy.kHighsInf)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Solution:
    """An optimal basic solution: `values` of columns, and `duals` of rows (change of the objective with the row's bound)."""

    objective: float
    values: Floats
    duals: Floats


class LinearProgramme:
    """One model that can grow and be solved again from its last basis. Single-threaded, deterministic."""

    def __init__(
        self, cost: Floats, lower: Floats, upper: Floats, rows: csc_array, row_lower: Floats, row_upper: Floats
    ) -> None:
        self._highs = highspy.Highs()
        for option, value in {"output_flag": False, "threads": 1, "random_seed": 1}.items():
            self._highs.setOptionValue(option, value)
        model = highspy.HighsLp()
        model.num_row_, model.num_col_ = rows.shape
        model.col_cost_, model.col_lower_, model.col_upper_ = cost, lower, upper
        model.row_lower_, model.row_upper_ = row_lower, row_upper
        model.a_matrix_.format_ = highspy.MatrixFormat.kColwise
        model.a_matrix_.start_, model.a_matrix_.index_ = rows.indptr, rows.indices
        model.a_matrix_.value_ = rows.data
        self._highs.passModel(model)

    def option(self, name: str, value: str | float | bool) -> None:
        """Sets an option of HiGHS by its own name."""
        self._highs.setOptionValue(name, value)

    def bound_rows(self, rows: Integers, lower: Floats, upper: Floats) -> None:
        """Gives rows new bounds."""
        # the library's stubs lack this method
        self._highs.changeRowsBounds(len(rows), rows.astype(np.int32), lower, upper)  # type: ignore[attr-defined]

    def add_columns(self, cost: Floats, lower: Floats, upper: Floats, columns: csc_array) -> None:
        """Adds columns with their entries in the rows that are there."""
        start, index = columns.indptr[:-1].astype(np.int32), columns.indices.astype(np.int32)
        self._highs.addCols(len(cost), cost, lower, upper, columns.nnz, start, index, columns.data)

    def add_rows(self, lower: Floats, upper: Floats, rows: csr_array) -> None:
        """Adds rows with their entries in the columns that are there."""
        start, index = rows.indptr[:-1].astype(np.int32), rows.indices.astype(np.int32)
        self._highs.addRows(len(lower), lower, upper, rows.nnz, start, index, rows.data)

    def solve(self) -> Solution:
        """The optimum. Refused when nothing satisfies the rows; Unavailable when HiGHS gives up."""
        self._highs.run()
        status = self._highs.getModelStatus()
        if status == highspy.HighsModelStatus.kInfeasible:
            raise Refused("No values satisfy all rows.")
        if status != highspy.HighsModelStatus.kOptimal:
            raise Unavailable(f"HiGHS ended with {self._highs.modelStatusToString(status)}.")
        found = self._highs.getSolution()
        return Solution(
            objective=float(self._highs.getObjectiveValue()),
            values=np.array(found.col_value),
            duals=np.array(found.row_dual),
        )
