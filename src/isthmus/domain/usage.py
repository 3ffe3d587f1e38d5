"""Usage: what one attempt used, as the site's own accounting says, exactly once for each attempt."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What an attempt used. Times are seconds since 1970 by the site's clock; `source` says who counted
    (`sacct`, `qacct`, `wrapper`)."""

    source: str
    started_at: float | None
    ended_at: float | None
    elapsed_seconds: int
    cpus: int
    cpu_seconds: float
    allocated_cpu_seconds: int
    max_rss_bytes: int
    nodes: int = 1
    accelerators: int = 0
    native_id: str = ""
    native_state: str = ""
    read_bytes: int = 0
    written_bytes: int = 0
