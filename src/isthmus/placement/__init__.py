"""The brain: snapshot + waiting tasks -> placements + receipts. Pure: no clock, no randomness, no I/O; imports domain only."""

from isthmus.placement.offer import impossible
from isthmus.placement.round import Decision, decide

__all__ = ["Decision", "decide", "impossible"]
