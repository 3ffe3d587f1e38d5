"""Packing of tasks on nodes: CPU, memory, and accelerators by model, in whole (gangs) or in part; compiled.

The policies of FGD (Weng et al., ATC 2023) and one of our own. Imports nothing but the domain's errors and the
schedulers' heap.
"""

from isthmus.twin.packing.columns import Nodes, Tasks
from isthmus.twin.packing.mix import Mix, typical
from isthmus.twin.packing.pack import Packed, Policy, pack
from isthmus.twin.packing.replay import NodeOutage, Replayed, replay

__all__ = ["Mix", "NodeOutage", "Nodes", "Packed", "Policy", "Replayed", "Tasks", "pack", "replay", "typical"]
