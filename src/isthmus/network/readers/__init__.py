"""Readers of published networks and traffic matrices: the network's edge, which opens files."""

from isthmus.network.readers.repetita import Instance, read_instance, read_instances, read_optimum
from isthmus.network.readers.teal import read_teal_matrices, read_teal_topology

__all__ = [
    "Instance",
    "read_instance",
    "read_instances",
    "read_optimum",
    "read_teal_matrices",
    "read_teal_topology",
]
