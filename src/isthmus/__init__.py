"""Isthmus joins separate compute centres, and the networks between them, into one compute network."""

__version__ = "0.1.0"
