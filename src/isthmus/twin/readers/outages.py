"""Outages of a site from CSV: `begin_seconds,finish_seconds,processors,drain` on the log's clock; drain 0 or 1, and may be left out."""

from __future__ import annotations

import csv
from pathlib import Path

from isthmus.domain.errors import Invalid
from isthmus.twin.readers.columns import lines_of
from isthmus.twin.schedulers.outages import Outage

COLUMNS = ("begin_seconds", "finish_seconds", "processors")


def read_outages(path: Path) -> tuple[Outage, ...]:
    """The outages of a file, plain or .gz. Invalid names the first line that is wrong: an outage is never left out."""
    reader = csv.DictReader(lines_of(path))
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or [])]
    if missing:
        raise Invalid("outages", f"{path.name} has no {', '.join(missing)}.", remedy="Begin it with begin_seconds,finish_seconds,processors,drain.")  # fmt: skip
    found = []
    for row in reader:
        try:
            begin, finish, processors = (int(row[name]) for name in COLUMNS)
            drain = {"": False, "0": False, "1": True}[(row.get("drain") or "").strip()]
            found.append(Outage(begin_seconds=begin, finish_seconds=finish, processors=processors, drain=drain))
        except (ValueError, TypeError, KeyError, Invalid) as error:
            raise Invalid("outages", f"{path.name}, line {reader.line_num}: {error}", remedy="Give whole numbers, a later finish, a processor or more.") from error  # fmt: skip
    return tuple(found)
