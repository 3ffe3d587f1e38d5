"""What is given away of links now and later: windows of transfers that were promised, and slices."""

from __future__ import annotations

from dataclasses import replace

import sqlalchemy as sa

from isthmus.domain.roads import Reserved
from isthmus.engine.roads import promises
from isthmus.engine.slicing import sliced_rates, slices


def read_reserved(connection: sa.Connection, now: float, *, project: str = "") -> Reserved:
    """As it is in the store at `now`. For transfers of a `project` its slice is not given away: of it is held what others were promised in
    there."""
    held, _ = promises(connection, now)
    own = {f"{one.name}/" for one in slices(connection) if project and one.project == project}
    inside = [
        replace(one, link=one.link.partition("/")[2]) for one in held for prefix in own if one.link.startswith(prefix)
    ]
    return Reserved(held=(*held, *inside), slices=sliced_rates(connection, without=project))
