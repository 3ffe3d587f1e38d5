"""Measures what nodes and accelerators do, and turns it into capabilities, one unit, grades and predicted speeds.

Owns the benchmark (`bench`, which runs at a site and imports nothing else of Isthmus), the aggregation of node measurements
into a pool's capability, the Isthmus unit, and the prediction of a task's speed from its class profile. All but `bench` is
pure: no clock, no randomness, no I/O. Must never import a room of the server, the client or a site.
"""
