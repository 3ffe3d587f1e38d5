"""Packing of tasks on nodes: CPU, memory, and accelerators by model, in whole (gangs) or in part; compiled.

The policies of FGD (Weng et al., ATC 2023) and one of our own. Imports nothing but the domain's errors.
"""

from isthmus.twin.packing.columns import Nodes, Tasks
from isthmus.twin.packing.mix import Mix, typical
from isthmus.twin.packing.pack import Packed, Policy, pack

__all__ = ["Mix", "Nodes", "Packed", "Policy", "Tasks", "pack", "typical"]
