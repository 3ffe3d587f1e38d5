"""Many sites under one clock: arrivals at home sites, a router, transfers over shared links. Compiled; imports no I/O.

The router's decision rules are those of `isthmus.placement.federation`, compiled here and not written again.
"""

from isthmus.twin.federation.federate import Ended, Federation, Outcome, Router, SitePolicy, Stream, Workload, federate

__all__ = ["Ended", "Federation", "Outcome", "Router", "SitePolicy", "Stream", "Workload", "federate"]
