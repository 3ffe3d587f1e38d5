"""Tasks placed on nodes one by one, none ever ending: where each goes, and how full the accelerators get."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numba import njit
from numpy.typing import NDArray

from isthmus.domain.errors import Invalid
from isthmus.twin.packing.columns import Nodes, Tasks
from isthmus.twin.packing.mix import Mix, typical
from isthmus.twin.packing.place import choose, empty_site, occupy

# In the order of the numbers in `scores`.
Policy = Literal["random", "dot-product", "clustering", "packing", "best-fit", "fgd", "least-stranded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """Per task: its node (-1: none had room), the accelerators used (a bit each), and what is in use after it (milli)."""

    node: NDArray[np.int64]
    accelerators: NDArray[np.int64]
    used_milli: NDArray[np.int64]


def pack(nodes: Nodes, tasks: Tasks, policy: Policy, mix: Mix | None = None, seed: int = 0) -> Packed:
    """Place each task, in order of arrival, on the node that the policy scores highest, the first of equals.

    `mix` is the workload that fgd and least-stranded expect (default: these tasks'); `seed` is used by random only.
    """
    site, state, kind = empty_site(nodes, tasks, policy_number(policy), mix if mix is not None else typical(tasks))
    node, bits, used = _pack(site, state, kind, draws_of(policy, len(tasks), seed))
    return Packed(node=node, accelerators=bits, used_milli=used)


def policy_number(policy: Policy) -> int:
    """The policy's number in `scores`; Invalid where there is none of that name."""
    if policy not in get_args(Policy):
        raise Invalid("policy", f"{policy} is unknown.", remedy=f"Use one of {', '.join(get_args(Policy))}.")
    return get_args(Policy).index(policy)


def draws_of(policy: Policy, tasks: int, seed: int) -> NDArray[np.float64]:
    """Two numbers below 1 for each task, for its node and its accelerator; zeros where the policy draws none."""
    return np.random.default_rng(seed).random((tasks, 2)) if policy == "random" else np.zeros((tasks, 2))


@njit(cache=True)
def _pack(site, state, kind, draws):  # type: ignore[no-untyped-def]
    placed = np.full(len(kind), -1, np.int64)
    bits = np.zeros(len(kind), np.int64)
    used = np.zeros(len(kind), np.int64)
    total = 0
    for i in range(len(kind)):
        k = kind[i]
        n = choose(site, state, k, draws[i, 0])
        if n >= 0:
            bits[i] = occupy(site, state, k, n, draws[i, 1])
            placed[i] = n
            total += site.kinds[k, 2] * site.kinds[k, 3]
        used[i] = total
    return placed, bits, used
