"""Tables as text: lines of plain or .gz files, and rows turned into columns, each bad line counted and named."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from isthmus.twin.readers.swf import BadLine

Row = TypeVar("Row")
Fields = TypeVar("Fields")


def lines_of(path: Path) -> list[str]:
    """The lines of a file; what is not UTF-8 in it becomes a mark that no number reads as."""
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return content.decode("utf-8", "replace").splitlines()


def good_rows(
    rows: Iterable[Fields], read: Callable[[Fields], Row], first_line: int
) -> tuple[list[Row], tuple[BadLine, ...]]:
    """What `read` makes of each row, and a BadLine for each row on which it raises; the first row is `first_line`."""
    good: list[Row] = []
    bad: list[BadLine] = []
    for number, row in enumerate(rows, start=first_line):
        try:
            good.append(read(row))
        except (KeyError, TypeError, AttributeError) as error:
            bad.append(BadLine(number=number, cause=f"a field is missing: {error}"))
        except ValueError as error:
            bad.append(BadLine(number=number, cause=str(error)))
    return good, tuple(bad)
