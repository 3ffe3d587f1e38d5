"""What is given away of links now and later: windows of transfers that were promised, and slices."""

from __future__ import annotations

import sqlalchemy as sa

from isthmus.domain.roads import Reserved
from isthmus.engine.roads import promises
from isthmus.engine.slicing import sliced_rates


def read_reserved(connection: sa.Connection, now: float) -> Reserved:
    """As it is in the store at `now`."""
    held, _ = promises(connection, now)
    return Reserved(held=held, slices=sliced_rates(connection))
