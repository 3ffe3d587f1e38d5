"""Log records as single lines of printable text, so that what a request, a task or a site said can neither forge a line of
the log nor steer the terminal that shows it."""

from __future__ import annotations

import logging
import sys
from typing import Final

FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def printable(text: str) -> str:
    """The text with every control character, line break and invisible sign written as an escape."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


class LineFormatter(logging.Formatter):
    """Formats the message as one printable line; a traceback follows on lines of its own, indented."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (the standard library's name)
        """The line without a traceback."""
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:  # noqa: N802
        """The traceback; each of its lines is indented, so that none looks like a record."""
        lines = super().formatException(ei).split("\n")  # type: ignore[arg-type]
        return "\n".join(f"  {printable(line)}" for line in lines)


def log_to_stderr(level: str) -> None:
    """Send the records of this process to standard error, from `level` on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(FORMAT))
    logging.basicConfig(level=level, handlers=[handler])
