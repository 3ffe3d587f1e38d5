"""A simulated world for the engine: virtual time, scripted sites, a nemesis driven by one seed, and an oracle.

The engine under test is the real one, on a real SQLite file. Only time, the network and the sites are simulated.
`python -m tests.world --seed N` replays one history; `--seeds A-B` runs many.
"""
