"""What paths that share links say of each link, where they say it: network tomography by least squares. Pure.

Delays of links add up along a path. Paths from sites to other sites and to routers on the way make equations; a link's delay is told only
where they determine it (its unit vector lies in the row space; Castro et al., "Network tomography", 2004). Others keep what was declared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Sum:
    """A measured path: the names of its links, the sum over them, and the error of that sum."""

    links: tuple[str, ...]
    value: float
    error: float


def attribute(sums: Sequence[Sum]) -> Mapping[str, tuple[float, float]]:
    """For each link that the sums determine its value, not below 0, and its error (as that of the sums carries over)."""
    names = sorted({name for one in sums for name in one.links})
    if not names:
        return {}
    column = {name: place for place, name in enumerate(names)}
    matrix = np.zeros((len(sums), len(names)))
    for row, one in enumerate(sums):
        for name in one.links:
            matrix[row, column[name]] += 1.0
    weight = 1.0 / np.maximum(np.array([one.error for one in sums]), 1e-9)
    inverse = np.linalg.pinv(matrix * weight[:, None], rcond=1e-9)  # of weighted rows: a better sum counts more
    values = inverse @ (np.array([one.value for one in sums]) * weight)
    told = np.abs(np.linalg.pinv(matrix) @ matrix - np.eye(len(names))).max(axis=1) < _TOLERANCE
    errors = np.sqrt((inverse**2).sum(axis=1))
    return {
        name: (max(0.0, float(values[place])), float(errors[place])) for place, name in enumerate(names) if told[place]
    }
