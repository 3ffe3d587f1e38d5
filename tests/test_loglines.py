"""Log records cannot be forged by what others say."""

from __future__ import annotations

import logging

from isthmus.loglines import FORMAT, LineFormatter


def test_a_record_is_one_printable_line() -> None:
    """A line break or an escape code in a path or a name does not reach the log as such."""
    record = logging.LogRecord(
        "isthmus.access", logging.INFO, "x", 1, "%s %s", ("GET", "/v1/a\nFAKE \x1b[2J\u202e"), None
    )

    line = LineFormatter(FORMAT).format(record)

    assert line.endswith("GET /v1/a\\nFAKE \\x1b[2J\\u202e")


def test_a_traceback_is_indented() -> None:
    """The text of an exception cannot look like a record of its own."""
    try:
        raise ValueError("a\n2026-01-01 INFO isthmus: all is well")
    except ValueError as error:
        record = logging.LogRecord("isthmus", logging.ERROR, "x", 1, "failed", (), (type(error), error, None))

    assert all(line.startswith("  ") for line in LineFormatter(FORMAT).format(record).split("\n")[1:])
