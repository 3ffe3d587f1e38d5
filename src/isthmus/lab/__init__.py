"""Real compute centres on one machine, started and removed again: for the demo, the tests and the benchmarks.

This room owns the daemons it starts and nothing else: every process is known by pid and start time, every
account and directory it makes is recorded, and `clean` removes exactly those after a crash. Everything listens
on loopback. It must never import another room of isthmus but the errors of `domain`: the lab is what the
product is tried against.
"""
