"""The OpenAPI document, made from the declared routes: every code that a call can answer, every schema, no more."""

from __future__ import annotations

import http
from collections.abc import Sequence
from typing import Any, Literal

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from isthmus import __version__
from isthmus.api.answers import Problem
from isthmus.api.problems import MEDIA_TYPE
from isthmus.api.routing import Route, Router
from isthmus.api.schemas import add_invariants
from isthmus.trust.access import Anonymous

_HEADERS = {
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "string", "pattern": "^[0-9]+$"}},
    "WWW-Authenticate": {"description": "Bearer.", "schema": {"type": "string"}},
    "Allow": {"description": "What the path takes.", "schema": {"type": "string"}},
    "Upload-Offset": {"description": "Bytes that are there.", "schema": {"type": "string", "pattern": "^[0-9]+$"}},
    "Upload-Length": {"description": "Bytes of the whole.", "schema": {"type": "string", "pattern": "^[0-9]+$"}},
    "X-Next-Offset": {"description": "Where to go on.", "schema": {"type": "string", "pattern": "^[0-9]+$"}},
    "X-Log-Complete": {"description": "Whether no more will come.", "schema": {"enum": ["true", "false"]}},
    "X-Attempt": {"description": "Whose log it is; empty: none yet.", "schema": {"type": "string"}},
    "Content-Length": {"description": "Bytes of the whole.", "schema": {"type": "string", "pattern": "^[0-9]+$"}},
    "Content-Range": {"description": "Which part of the content this is.", "schema": {"type": "string"}},
    "Location": {"description": "Where the browser goes.", "schema": {"type": "string"}},
    "Set-Cookie": {"description": "Ties the sign-in to this browser.", "schema": {"type": "string"}},
    "Accept-Ranges": {"description": "bytes.", "schema": {"type": "string"}},
}
_OF_CODE = {401: ["WWW-Authenticate"], 405: ["Allow"], 429: ["Retry-After"], 503: ["Retry-After"]}


def document(app: FastAPI, routers: Sequence[Router]) -> dict[str, Any]:
    """The document of all routes of the app."""
    base = get_openapi(
        title="Isthmus",
        version=__version__,
        summary="Joins separate compute centres into one.",
        routes=app.routes,
    )
    routes = [route for router in routers for route in router.routes]
    wanted: dict[tuple[str, str | int], tuple[Any, Literal["validation", "serialization"], TypeAdapter[Any]]] = {
        ("problem", "answer"): (("problem", "answer"), "serialization", TypeAdapter(Problem))
    }
    for route in routes:
        name = route.handler.__name__
        if route.answer is not None:
            wanted[name, "answer"] = ((name, "answer"), "serialization", TypeAdapter(route.answer))
        for status, other in route.other_answers.items():
            wanted[name, status] = ((name, status), "serialization", TypeAdapter(other))
        if route.body is not None:
            wanted[name, "body"] = ((name, "body"), "validation", TypeAdapter(route.body))
    schemas, rest = TypeAdapter.json_schemas(list(wanted.values()), ref_template="#/components/schemas/{model}")
    problem = schemas[("problem", "answer"), "serialization"]
    for route in routes:
        path = route.path.replace(":part}", "}")
        operation = base["paths"][path][route.method.lower()]
        name = route.handler.__name__
        answer = schemas.get(((name, "answer"), "serialization"))
        others = {status: schemas[(name, status), "serialization"] for status in route.other_answers}
        operation["responses"] = _responses(route, answer, others, problem, bool(operation.get("parameters")))
        operation["security"] = [] if isinstance(route.rule, Anonymous) else [{"token": []}]
        if route.body is not None:
            body = schemas[(name, "body"), "validation"]
            operation["requestBody"] = {"required": True, "content": {route.media: {"schema": body}}}
        elif route.media != "application/json" and route.method in ("PATCH", "PUT", "POST"):
            operation["requestBody"] = {
                "required": False,
                "content": {route.media: {"schema": {"type": "string", "format": "binary"}}},
            }
    found = {**base.get("components", {}).get("schemas", {}), **rest.get("$defs", {})}
    for unused in ("HTTPValidationError", "ValidationError"):  # every error is a Problem
        found.pop(unused, None)
    add_invariants(found)
    base["components"] = {
        "schemas": found,
        "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
    }
    return base


def _responses(route: Route, answer: Any, others: dict[int, Any], problem: Any, has_parameters: bool) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, meaning in {route.status: "Done.", **route.also}.items():
        entry: dict[str, Any] = {"description": meaning}
        if status in (200, 201, 206) and route.method != "HEAD":
            schema = others.get(status, answer)
            if schema is not None:
                entry["content"] = {"application/json": {"schema": schema}}
            elif route.media != "application/json" and route.method == "GET":
                entry["content"] = {route.media: {"schema": {"type": "string"}}}
        names = [name for name in route.headers if status == 206 or name != "Content-Range"]
        if names:
            entry["headers"] = {name: _HEADERS[name] for name in names}
        responses[str(status)] = entry
    codes = {405, 500, *route.errors}
    if not isinstance(route.rule, Anonymous):
        codes |= {401, 403, 429, 503}
    if has_parameters or route.body is not None:
        codes.add(422)
    if "{" in route.path or has_parameters:
        codes.add(404)
    if route.body is not None:
        codes |= {400, 413, 415}
    for code in sorted(codes):
        entry = {"description": http.HTTPStatus(code).phrase}
        if route.method != "HEAD":
            entry["content"] = {MEDIA_TYPE: {"schema": problem}}
        if code in _OF_CODE:
            entry["headers"] = {name: _HEADERS[name] for name in _OF_CODE[code]}
        responses[str(code)] = entry
    return responses


def described() -> dict[str, Any]:
    """The document of the routes that the service has, without a service; for those who make clients from it."""
    from isthmus.api.app import ROUTERS

    app = FastAPI(openapi_url=None)
    for router in ROUTERS:
        router.install(app)
    return document(app, ROUTERS)


if __name__ == "__main__":
    import json

    print(json.dumps(described(), indent=1, sort_keys=True))
