"""Nodes and tasks as columns: what a node has, what a task asks of one node."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isthmus.domain.errors import Invalid

MILLI = 1000  # of one accelerator
MOST = 8  # accelerators in one node


@dataclass(frozen=True, slots=True, kw_only=True)
class Nodes:
    """One entry a node: CPU in thousandths of a core, memory in MiB, accelerators all of one model (a bit; 0: none)."""

    cpu_milli: NDArray[np.int64]
    memory_mib: NDArray[np.int64]
    accelerators: NDArray[np.int64]
    model: NDArray[np.int64]

    def __post_init__(self) -> None:
        _same_length(self.cpu_milli, self.memory_mib, self.accelerators, self.model)
        if ((self.accelerators < 0) | (self.accelerators > MOST)).any():
            raise Invalid("accelerators", f"A node has fewer than 0 or more than {MOST}.", remedy="Split it.")

    def __len__(self) -> int:
        return len(self.cpu_milli)

    def take(self, order: NDArray[np.int64]) -> Nodes:
        """The nodes at these places, in this order."""
        return Nodes(
            cpu_milli=self.cpu_milli[order],
            memory_mib=self.memory_mib[order],
            accelerators=self.accelerators[order],
            model=self.model[order],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tasks:
    """One entry a task, in order of arrival; each runs on one node, all of its accelerators together (a gang).

    `accelerator_milli` is what it uses of each of its `accelerators`: below 1000 a fraction, and then of one only.
    `models` has a bit for each model that it accepts; 0 accepts all.
    """

    cpu_milli: NDArray[np.int64]
    memory_mib: NDArray[np.int64]
    accelerators: NDArray[np.int64]
    accelerator_milli: NDArray[np.int64]
    models: NDArray[np.int64]

    def __post_init__(self) -> None:
        _same_length(self.cpu_milli, self.memory_mib, self.accelerators, self.accelerator_milli, self.models)
        count, milli = self.accelerators, self.accelerator_milli
        whole = (count >= 1) & (milli == MILLI)
        good = whole | ((count == 1) & (milli > 0) & (milli < MILLI)) | ((count == 0) & (milli == 0))
        if not good.all():
            raise Invalid(
                "accelerator_milli",
                f"{int((~good).sum())} tasks ask for neither whole accelerators nor a part of one.",
                remedy="Leave them out first.",
            )

    def __len__(self) -> int:
        return len(self.cpu_milli)

    def take(self, order: NDArray[np.int64]) -> Tasks:
        """The tasks at these places, in this order; a place may come more than once."""
        return Tasks(
            cpu_milli=self.cpu_milli[order],
            memory_mib=self.memory_mib[order],
            accelerators=self.accelerators[order],
            accelerator_milli=self.accelerator_milli[order],
            models=self.models[order],
        )

    @property
    def total_milli(self) -> NDArray[np.int64]:
        """What each task asks of accelerators in all, in thousandths of one."""
        return self.accelerators * self.accelerator_milli


def _same_length(*columns: NDArray[np.int64]) -> None:
    if len({len(column) for column in columns}) != 1:
        raise Invalid("columns", "The columns differ in length.", remedy="Give one entry of each.")
