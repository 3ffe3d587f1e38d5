"""Reads `application/problem+json` back into the tree of errors, by code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from isthmus.domain import errors

_BY_CODE: dict[str, type[errors.IsthmusError]] = {
    kind.code: kind
    for kind in (
        errors.Refused,
        errors.Forbidden,
        errors.Unauthenticated,
        errors.NotFound,
        errors.Conflict,
        errors.Unavailable,
        errors.Corrupt,
    )
}
_BY_STATUS: dict[int, type[errors.IsthmusError]] = {
    400: errors.Refused,
    401: errors.Unauthenticated,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    410: errors.NotFound,
    412: errors.Conflict,
    413: errors.Refused,
    415: errors.Refused,
    422: errors.Refused,
    502: errors.Unavailable,
    503: errors.Unavailable,
    504: errors.Unavailable,
}


def raise_for(status: int, headers: Mapping[str, str], body: bytes) -> NoReturn:
    """Raise the error that an answer stands for. All wrong fields are in the error's `fields`, a list of Invalid."""
    raise read_problem(status, headers, body)


def read_problem(status: int, headers: Mapping[str, str], body: bytes) -> errors.IsthmusError:
    """The error that an answer with this status and body stands for."""
    problem = _document(body)
    code = str(problem.get("code") or "")
    cause = str(problem.get("detail") or problem.get("title") or f"The service answered with status {status}.")
    remedy = str(problem.get("remedy") or "")
    fields = [
        errors.Invalid(str(item.get("field", "")), str(item.get("cause", "")), remedy=str(item.get("remedy", "")))
        for item in problem.get("errors") or []
        if isinstance(item, dict)
    ]
    found: errors.IsthmusError
    if fields:
        first = fields[0]
        found = errors.Invalid(first.field, first.cause, remedy=first.remedy)
        found.code = code or found.code
    elif status == 429 or code == errors.Busy.code:
        found = errors.Busy(cause, remedy=remedy, retry_after_seconds=_seconds(headers.get("retry-after", "")))
    elif code == errors.Invalid.code:
        found = errors.Invalid(str(problem.get("field") or "request"), cause, remedy=remedy)
    else:
        kind = _BY_CODE.get(code) or _BY_STATUS.get(status) or errors.IsthmusError
        found = kind(cause, remedy=remedy, code=code or None)
    found.__dict__["fields"] = fields
    return found


def _document(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 1.0
