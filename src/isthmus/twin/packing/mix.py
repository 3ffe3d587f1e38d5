"""The mix of a workload: its kinds of task by how often they come, most frequent first (FGD's typical pods)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isthmus.twin.packing.columns import MILLI, Tasks


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """Kinds of task with their shares, which sum to 1; columns as in Tasks, memory left out."""

    cpu_milli: NDArray[np.int64]
    accelerators: NDArray[np.int64]
    accelerator_milli: NDArray[np.int64]
    models: NDArray[np.int64]
    share: NDArray[np.float64]

    @property
    def cpu_each(self) -> float:
        """Thousandths of a core that the mix asks for beside each accelerator, its tasks without one included."""
        accelerators = float((self.share * self.accelerators * self.accelerator_milli).sum()) / MILLI
        cpu = float((self.share * self.cpu_milli).sum())
        return cpu / accelerators if cpu > 0 and accelerators > 0 else 1.0


def typical(tasks: Tasks, covered: float = 0.95) -> Mix:
    """The most frequent kinds that together make up `covered` of the tasks (Weng et al., ATC 2023)."""
    rows = zip(
        tasks.cpu_milli.tolist(),
        tasks.accelerator_milli.tolist(),
        tasks.accelerators.tolist(),
        tasks.models.tolist(),
        strict=True,
    )
    kinds = sorted(((count, kind) for kind, count in Counter(rows).items()), reverse=True)
    total = len(tasks)
    taken = 0
    seen = 0
    while seen < covered * total and taken < len(kinds):
        seen += kinds[taken][0]
        taken += 1
    columns = np.array([kind for _, kind in kinds[:taken]], dtype=np.int64).reshape(-1, 4)
    share = np.array([count / total / (seen / total) for count, _ in kinds[:taken]], dtype=np.float64)
    cpu, milli, count, models = (np.ascontiguousarray(columns[:, i]) for i in range(4))
    return Mix(cpu_milli=cpu, accelerators=count, accelerator_milli=milli, models=models, share=share)
