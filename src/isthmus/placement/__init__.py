"""The brain: snapshot + waiting tasks -> placements + receipts. Pure: no clock, no randomness, no I/O; imports the domain only.

Its numeric core, `joint`, works on arrays and is imported by a contested round, never when the service starts.
"""

from isthmus.placement.offer import impossible
from isthmus.placement.plans import best_plans
from isthmus.placement.round import Decision, decide

__all__ = ["Decision", "best_plans", "decide", "impossible"]
