"""Topology, paths, traffic engineering and the calendar of bandwidth: pure computation over arrays and frozen dataclasses.

Imports the domain only; reads no clock, draws no random numbers but from a seed passed in, does no I/O. `readers` is its edge:
the only part of it that opens files. Needs numpy, numba, scipy and highspy, so start-up code of the server imports it late.
"""
