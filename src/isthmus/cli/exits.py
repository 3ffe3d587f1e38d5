"""What each exit code means, and how an error is told: what, why, how to go on, and a code to look up."""

from __future__ import annotations

import json
import sys
from typing import Any

from isthmus.cli.messages import _
from isthmus.domain import errors

OK = 0
USAGE = 64
BAD_DATA = 65
NO_SUCH_THING = 66
UNAVAILABLE = 69
INTERNAL = 70
CONFLICT = 73
TRY_AGAIN = 75
FORBIDDEN = 77
NOT_CONFIGURED = 78
STILL_RUNNING = 124
TASK_FAILED = 125
INTERRUPTED = 130

_BY_CODE = {"not_configured": NOT_CONFIGURED, "token_file_open": NOT_CONFIGURED, "still_running": STILL_RUNNING}
_BY_KIND: tuple[tuple[type[errors.IsthmusError], int], ...] = (
    (errors.Refused, BAD_DATA),
    (errors.Forbidden, FORBIDDEN),
    (errors.Unauthenticated, FORBIDDEN),
    (errors.NotFound, NO_SUCH_THING),
    (errors.Conflict, CONFLICT),
    (errors.Busy, TRY_AGAIN),
    (errors.Unavailable, UNAVAILABLE),
)


def code_of(error: errors.IsthmusError) -> int:
    """The exit code of an error."""
    if error.code in _BY_CODE:
        return _BY_CODE[error.code]
    return next((code for kind, code in _BY_KIND if isinstance(error, kind)), INTERNAL)


def of_task(task: Any) -> int:
    """The exit code of an ended task: its own, or 125 when it failed without one."""
    if task.succeeded:
        return OK
    if task.exit_code:
        return int(task.exit_code) & 0xFF or TASK_FAILED
    return TASK_FAILED


def tell(error: errors.IsthmusError, *, as_json: bool) -> None:
    """Say on stderr what is wrong, why, and what to do."""
    fields: list[errors.Invalid] = error.__dict__.get("fields", [])
    if as_json:
        body = {
            "code": error.code,
            "cause": error.cause,
            "remedy": error.remedy,
            "errors": [{"field": item.field, "cause": item.cause, "remedy": item.remedy} for item in fields],
        }
        if isinstance(error, errors.Invalid):
            body["field"] = error.field
        sys.stderr.write(json.dumps({"error": body}, ensure_ascii=False) + "\n")
        return
    several = fields if len(fields) > 1 else [error]
    for item in several:
        cause = f"{item.field}: {item.cause}" if isinstance(item, errors.Invalid) else item.cause
        sys.stderr.write(_("error: {cause}").format(cause=cause) + "\n")
        if item.remedy:
            sys.stderr.write(_("  try: {remedy}").format(remedy=item.remedy) + "\n")
    sys.stderr.write(_("  code: {code} (docs/errors.md#{code})").format(code=error.code) + "\n")
