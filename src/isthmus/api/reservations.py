"""The calendar of the network: what is promised of each link and until when, and whose transfers hold it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Annotated, Any

import orjson
import sqlalchemy as sa
from fastapi import Query, Response

from isthmus.api import answers
from isthmus.api.body import answer, when
from isthmus.api.routing import Router
from isthmus.api.service import Calling, Serving
from isthmus.domain.network import LinkView
from isthmus.domain.roads import Held
from isthmus.engine import roads
from isthmus.engine.networkview import read_network
from isthmus.store import datasets, tables
from isthmus.trust.access import Caller, Scope, Signed

router = Router("network")
MOST_TRANSFERS = 1000


@router.route("GET", "/v1/network/reservations", rule=Signed(Scope.TASKS_READ), answer=answers.NetReservations)
async def list_reservations(
    service: Serving, caller: Calling, hours: Annotated[float, Query(ge=0.01, le=24 * 31)] = 24.0
) -> Response:
    """What is promised of each link in the next `hours`, and the transfers that hold it. Everybody sees how much is held; whose a
    transfer is and what it moves is told to members of its project and to operators of the network."""
    now = service.clock()
    until = now + hours * 3600.0

    def read(connection: sa.Connection) -> dict[str, Any]:
        held, _ = roads.promises(connection, now)
        view = read_network(connection, now)
        rows = connection.execute(
            tables.transfers.select()
            .where(datasets.OPEN, tables.transfers.c.source != "")
            .order_by(tables.transfers.c.id)
            .limit(MOST_TRANSFERS + 1)
        ).all()
        return {
            "now": when(now),
            "until": when(until),
            "links": calendar(view.links, held, now, until),
            "transfers": [_transfer(row, caller) for row in rows[:MOST_TRANSFERS]],
            "complete": len(rows) <= MOST_TRANSFERS,
        }

    return answer(await service.database.read(read))


def calendar(links: Iterable[LinkView], held: Iterable[Held], now: float, until: float) -> list[dict[str, Any]]:
    """Each direction of a link that is declared or held, with its capacity and what is held of it in steps of time."""
    parts: dict[str, list[Held]] = {}
    for one in held:
        name = one.link.rpartition("/")[2]  # what was promised in a slice is held of the link all the same
        parts.setdefault(name, []).append(one)
    found = []
    for link in links:
        name = f"{link.link.name}>{link.target}"
        shown = {"link": link.link.name, "source": link.source, "target": link.target}
        steps = _steps(parts.pop(name, []), now, until)
        found.append({**shown, "capacity_bits_per_second": link.capacity_bits_per_second, "steps": steps})
    for name, rest in sorted(parts.items()):  # pairs of sites between which no path is declared
        source, _, target = name.partition(">")
        shown = {"link": "", "source": source, "target": target}
        found.append({**shown, "capacity_bits_per_second": None, "steps": _steps(rest, now, until)})
    return found


def _steps(held: Sequence[Held], now: float, until: float) -> list[dict[str, Any]]:
    """The sum of what is held, as stretches of one rate each; times in which nothing is held are left out."""
    inside = [(max(one.begins, now), min(one.ends, until), one.bytes_per_second * 8) for one in held]
    inside = [part for part in inside if part[0] < part[1]]
    edges = sorted({edge for begins, ends, _ in inside for edge in (begins, ends)})
    steps: list[dict[str, Any]] = []
    for begins, ends in pairwise(edges):
        rate = sum(bits for first, last, bits in inside if first <= begins and ends <= last)
        if rate > 0:
            steps.append({"begins_at": when(begins), "ends_at": when(ends), "bits_per_second": rate})
    return steps


def _transfer(row: Any, caller: Caller) -> dict[str, Any]:
    known = caller.sees_project(row.project) or caller.operates_network
    stretches = orjson.loads(row.stretches)
    begins = [when(part["begins"]) for part in stretches]
    return {
        "id": row.id if known else None,
        "project": row.project if known else None,
        "dataset": f"{row.name}@{row.version}" if known else None,
        "task_id": (row.task_id or None) if known else None,
        "created_by": row.created_by if known else None,
        "source": row.source,
        "target": row.target,
        "links": [
            link.rpartition("/")[2].partition(">")[0] for link in orjson.loads(row.links) if not _is_pair(link, row)
        ],
        "state": row.state,
        "size_bytes": row.size_bytes,
        "done_bytes": row.done_bytes,
        "bytes_per_second": row.bytes_per_second or max((part["bytes_per_second"] for part in stretches), default=0.0),
        "begins_at": min((one for one in begins if one is not None), default=when(row.started_at)),
        "ends_at": when(row.ends_at),
    }


def _is_pair(link: str, row: Any) -> bool:
    """Whether the name stands for whatever way packets take from the source to the target."""
    return link == f"{row.source}>{row.target}"
