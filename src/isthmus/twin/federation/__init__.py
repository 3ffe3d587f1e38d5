"""Many sites under one clock: arrivals at home sites, a router, transfers over shared links. Compiled; imports no I/O.

The router's decision rules are those of `isthmus.placement.federation`, compiled here and not written again.
"""

from isthmus.twin.federation.federate import Federation, Outcome, Router, SitePolicy, Workload, federate

__all__ = ["Federation", "Outcome", "Router", "SitePolicy", "Workload", "federate"]
