"""Usage of one attempt from the accounting's rows, exactly as the accounting counts it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from isthmus.domain.usage import Usage
from isthmus.sites.batch.rows import UsageRow, native_order


def usage_by_key(rows: Iterable[UsageRow], keys: Iterable[str], source: str) -> dict[str, Usage]:
    """Usage of every key whose rows are all final; keys that are not there, or not final, are left out."""
    jobs: dict[str, dict[str, list[UsageRow]]] = {key: {} for key in keys}
    for row in rows:
        if row.name in jobs:
            jobs[row.name].setdefault(row.native_id, []).append(row)
    found: dict[str, Usage] = {}
    for key, copies in jobs.items():
        usage = _usage(copies, source)
        if usage is not None:
            found[key] = usage
    return found


def _usage(copies: dict[str, list[UsageRow]], source: str) -> Usage | None:
    """Of several jobs with one key only one ran the command, so the one that ran longest counts (then the lowest)."""
    if not copies or not all(row.final for rows in copies.values() for row in rows):
        return None
    ordered = sorted(copies, key=native_order)
    native_id = max(ordered, key=lambda name: sum(row.elapsed_seconds for row in copies[name] if not row.step))
    rows = copies[native_id]
    starts = [row for row in rows if not row.step]
    if not starts:
        return None
    return _add(native_id, starts, rows, source)


def _add(native_id: str, starts: Sequence[UsageRow], rows: Sequence[UsageRow], source: str) -> Usage:
    """All starts of one job together: one that was put back into the queue used the site more than once."""
    last = max(starts, key=lambda row: row.ended_at or 0.0)
    begun = [row.started_at for row in starts if row.started_at is not None]
    return Usage(
        source=source,
        started_at=min(begun) if begun else None,
        ended_at=last.ended_at,
        elapsed_seconds=sum(row.elapsed_seconds for row in starts),
        cpus=max(row.cpus for row in starts),
        cpu_seconds=sum(row.cpu_seconds for row in starts),
        allocated_cpu_seconds=sum(row.allocated_cpu_seconds for row in starts),
        max_rss_bytes=max(row.max_rss_bytes for row in rows),
        nodes=max(row.nodes for row in starts),
        accelerators=max(row.accelerators for row in starts),
        native_id=native_id,
        native_state=last.state,
        read_bytes=max(row.read_bytes for row in rows),
        written_bytes=max(row.written_bytes for row in rows),
    )
