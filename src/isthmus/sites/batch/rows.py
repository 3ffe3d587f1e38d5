"""Rows of a batch system's queue and accounting, in words that all batch kinds share."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from isthmus.domain.lifecycle import EndReason
from isthmus.sites.port import Sighting

MAX_HOSTS = 65_536
_RANGE = re.compile(r"(?P<head>[^\[\],]*)\[(?P<ranges>[0-9,-]+)\](?P<tail>[^\[\],]*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeJob:
    """One job as its queue or accounting shows it; `name` is the attempt's key.

    `sighting` UNSEEN marks a state that says nothing. Times are seconds since 1970 by the site's clock.
    """

    native_id: str
    name: str
    user: str = ""
    state: str = ""
    sighting: Sighting = Sighting.UNSEEN
    reason: EndReason | None = None
    exit_code: int | None = None
    signal: int = 0
    message: str = ""
    submitted_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    nodes: tuple[str, ...] = ()
    cpus: int = 0
    elapsed_seconds: int = 0
    gone: bool = False  # the queue says that it is over, but not how
    superseded: bool = False  # an earlier start of a job that its site put back into the queue

    @property
    def order(self) -> tuple[float, str]:
        """Sorts native ids by number, lowest first."""
        return native_order(self.native_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """What the accounting counted for one allocation, or (`step` not empty) for one step of it."""

    native_id: str
    name: str
    user: str = ""
    step: str = ""
    state: str = ""
    final: bool = False
    submitted_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    elapsed_seconds: int = 0
    cpus: int = 0
    allocated_cpu_seconds: int = 0
    cpu_seconds: float = 0.0
    max_rss_bytes: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    nodes: int = 1
    accelerators: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one source said. `complete` is false when a part of it could not be understood or is missing: then a job
    that is not among the rows may still exist."""

    rows: tuple[NativeJob, ...] = ()
    complete: bool = True
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageAnswer:
    """Usage rows, with the same meaning of `complete`."""

    rows: tuple[UsageRow, ...] = field(default=())
    complete: bool = True
    problem: str = ""


def is_own(row: NativeJob | UsageRow, owners: Mapping[str, str]) -> bool:
    """Whether a row is of one of the keys and of that key's account.

    Anybody at a site may give a job of his own the name of an attempt; it must not be seen, ended or billed as one. A row
    without a user, or with the bare number of one, is taken as it is.
    """
    owner = owners.get(row.name)
    return owner is not None and (not row.user or row.user.isdigit() or row.user == owner)


def native_order(native_id: str) -> tuple[float, str]:
    """Sort key of a native id: by its leading number, then by its text."""
    digits = re.match(r"\d{1,18}", native_id)
    return (float(digits[0]) if digits else math.inf, native_id)


def expand_hosts(text: str) -> tuple[str, ...]:
    """Host names from `n[1-3,07],gpu1`; what is no host list (`None assigned`, `(null)`) gives none."""
    text = text.strip()
    if not text or text.startswith("(") or text.lower() in {"none assigned", "none", "n/a"}:
        return ()
    hosts: list[str] = []
    for part in re.findall(r"[^,\[\]]*(?:\[[^\]]*\][^,\[\]]*)*", text):
        if part:
            hosts.extend(_expand(part))
        if len(hosts) > MAX_HOSTS:
            break
    return tuple(hosts[:MAX_HOSTS])


def _expand(text: str) -> Iterable[str]:
    match = _RANGE.search(text)
    if match is None:
        yield text
        return
    before, after = text[: match.start()], match["tail"] + text[match.end() :]
    made = 0
    for piece in match["ranges"].split(","):
        first, dash, last = piece.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            continue
        for number in range(int(first), int(last if dash else first) + 1):
            made += 1
            if made > MAX_HOSTS:
                return
            yield from _expand(f"{before}{match['head']}{number:0{len(first)}d}{after}")
