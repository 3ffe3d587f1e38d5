"""Every error as `application/problem+json` (RFC 9457), with a code, a remedy and the fields that are wrong."""

from __future__ import annotations

import http
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from isthmus.domain.errors import Busy, Invalid, IsthmusError, Unauthenticated

log = logging.getLogger(__name__)
MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:isthmus:problem:"
_CODES = {
    400: "malformed",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media_type",
}
_REMEDIES = {
    404: "Check the address; docs/rest-api.md lists every call.",
    405: "Use one of the methods that the Allow header names.",
}


class TooLarge(IsthmusError):
    """The body is longer than this service takes."""

    code = "too_large"
    status = 413


class UnsupportedMediaType(IsthmusError):
    """The body is not of a type that this call reads."""

    code = "unsupported_media_type"
    status = 415


class RangeNotSatisfiable(IsthmusError):
    """The range lies outside the content."""

    code = "range_not_satisfiable"
    status = 416


class InvalidBody(IsthmusError):
    """Several fields are wrong."""

    code = "invalid"
    status = 422

    def __init__(self, errors: Sequence[Mapping[str, str]]) -> None:
        first = errors[0] if errors else {"field": "", "cause": "The input is wrong.", "remedy": ""}
        super().__init__(
            f"{first['field']}: {first['cause']}" if first["field"] else first["cause"], remedy=first["remedy"]
        )
        self.errors = errors


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    remedy: str = "",
    errors: Sequence[Mapping[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """One problem as an answer."""
    body: dict[str, Any] = {
        "type": TYPE_PREFIX + code,
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "remedy": remedy,
    }
    if errors:
        body["errors"] = list(errors)
    return Response(orjson.dumps(body), status_code=status, media_type=MEDIA_TYPE, headers=dict(headers or {}))


def of_error(error: IsthmusError, headers: Mapping[str, str] | None = None) -> Response:
    """The answer to an error of the domain's tree; of what is our own fault only the code is told."""
    extra = dict(headers or {})
    errors: Sequence[Mapping[str, str]] = ()
    match error:
        case Busy():
            extra["Retry-After"] = str(max(1, math.ceil(error.retry_after_seconds)))
        case Unauthenticated():
            extra["WWW-Authenticate"] = "Bearer"
        case Invalid():
            errors = [{"field": error.field, "cause": error.cause, "remedy": error.remedy}]
        case InvalidBody():
            errors = error.errors
        case _:
            pass
    if error.status == 503:
        extra["Retry-After"] = "5"
    return problem(error.status, error.code, error.cause, remedy=error.remedy, errors=errors, headers=extra)


def fields_of(error: ValidationError | RequestValidationError, *, skip: int = 0) -> list[dict[str, str]]:
    """The wrong fields, each with its full dotted path; `skip` leaves out leading parts of the path."""
    found = []
    for item in error.errors():
        path = [str(part) for part in item["loc"] if part != "[key]"][skip:]
        cause = (item.get("ctx") or {}).get("error")
        if isinstance(cause, Invalid):
            path += cause.field.split(".") if cause.field else []
            found.append({"field": ".".join(path), "cause": cause.cause, "remedy": cause.remedy})
        else:
            message = str(item["msg"])
            found.append(
                {
                    "field": ".".join(path),
                    "cause": message if message.endswith(".") else message + ".",
                    "remedy": _remedy(item),
                }
            )
        if len(found) == 100:
            break
    return found


def _remedy(item: Mapping[str, Any]) -> str:
    match item["type"]:
        case "unexpected_keyword_argument" | "extra_forbidden":
            return "Remove it, or check how it is written."
        case "missing":
            return "Give it."
        case "json_invalid":
            return "Send valid JSON."
        case _:
            return ""


def install(app: FastAPI) -> None:
    """Answer every error of the app as a problem."""

    @app.exception_handler(IsthmusError)
    async def _isthmus(request: Request, error: IsthmusError) -> Response:
        if error.status >= 500:
            log.warning("%s %s: %s: %s", request.method, request.url.path, error.code, error.cause)
        return of_error(error)

    @app.exception_handler(RequestValidationError)
    async def _validation(_request: Request, error: RequestValidationError) -> Response:
        return of_error(InvalidBody(fields_of(error, skip=1)))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = ", ".join(_allowed(request))
        code = _CODES.get(error.status_code, "error")
        return problem(
            error.status_code, code, str(error.detail), remedy=_REMEDIES.get(error.status_code, ""), headers=headers
        )

    @app.exception_handler(ClientDisconnect)
    async def _gone(_request: Request, _error: ClientDisconnect) -> Response:
        return problem(400, "malformed", "The connection ended before the body did.", remedy="Send it again.")


def _allowed(request: Request) -> list[str]:
    """Every method that some route takes at this path."""
    path = request.scope["path"]
    methods: set[str] = set()
    for route in request.app.routes:
        pattern = getattr(route, "path_regex", None)
        if pattern is not None and pattern.match(path):
            methods |= set(getattr(route, "methods", None) or ())
    return sorted(methods)
