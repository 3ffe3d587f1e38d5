"""The benchmark as one file that any Python 3.8 runs: a zip application of `isthmus.metering.bench` alone.

The same sources give the same bytes (fixed dates and order), so that a site keeps the file in its cache of contents.
"""

from __future__ import annotations

import io
import zipfile
from functools import cache
from importlib.resources import files

NAME = "isthmus-bench.pyz"
_DATE = (2020, 1, 1, 0, 0, 0)
_START = """import sys

if sys.version_info < (3, 8):
    sys.exit("isthmus bench needs Python 3.8 or later, this is %d.%d" % sys.version_info[:2])
from isthmus.metering.bench.__main__ import main

sys.exit(main())
"""


@cache
def bench_file() -> bytes:
    """The file's content."""
    sources = {"__main__.py": _START, "isthmus/__init__.py": "", "isthmus/metering/__init__.py": ""}
    for file in files("isthmus.metering.bench").iterdir():
        if file.name.endswith(".py"):
            sources[f"isthmus/metering/bench/{file.name}"] = file.read_text(encoding="utf-8")
    buffer = io.BytesIO(b"#!/usr/bin/env python3\n")
    buffer.seek(0, io.SEEK_END)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(sources):
            archive.writestr(zipfile.ZipInfo(name, _DATE), sources[name], zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
