"""The invariants of the domain's types as JSON schema, where a schema can say them.

The domain checks itself in plain Python, so pydantic sees types only. What is said here is for the readers of the OpenAPI
document and for programs that make requests from it; the check is and stays the domain's.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import Field

from isthmus.api.body import ID, NAME, SHA256
from isthmus.domain.manifest import MAX_FILES
from isthmus.domain.task import MAX_ARRAY, MAX_INLINE_BYTES

ENV_NAME = "^[A-Za-z_][A-Za-z0-9_]*$"
_TEXT = {
    "maxLength": MAX_INLINE_BYTES // 4,
    "pattern": "^[^\\u0000]*$",
}  # bytes are limited; a character has up to four
_PATH = {"minLength": 1, "maxLength": 4096, "pattern": "^[^\\u0000\\n]+$"}
_MAYBE_PATH = {"maxLength": 4096, "pattern": "^[^\\u0000\\n]*$"}
_ADDRESS = {"pattern": "^((https?|s3)://[^\\s]+)?$"}
_DATASET = "^([a-z0-9][a-z0-9._-]{0,62}/[a-z0-9][a-z0-9._-]{0,62})?$"
_DATA = "^([a-z0-9][a-z0-9._-]{0,62}/[a-z0-9][a-z0-9._-]{0,62}(@[0-9]{1,9})?)?$"  # and :PATH
_ENVIRONMENT = {"propertyNames": {"pattern": ENV_NAME}, "additionalProperties": {"type": "string", **_TEXT}}
_MAYBE_HASH = {"pattern": "^([0-9a-f]{64})?$"}


def _given(*names: str) -> list[dict[str, Any]]:
    return [{"required": [name], "properties": {name: {"minLength": 1}}} for name in names]


_INVARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "Accelerators": {
        "count": {"minimum": 0},
        "memory_bytes": {"minimum": 0},
        "kind": {"pattern": "^([a-z0-9][a-z0-9._-]{0,62})?$"},
    },
    "Demand": {
        "nodes": {"minimum": 1, "maximum": 10**8},
        "tasks_per_node": {"minimum": 1, "maximum": 10**8},
        "cpus": {"minimum": 1, "maximum": 10**8},
        "walltime_seconds": {"minimum": 1, "maximum": 10**8},
        "memory_bytes": {"minimum": 1024**2},
        "disk_bytes": {"minimum": 0},
        "licences": {"additionalProperties": {"type": "integer", "minimum": 1}},
    },
    "Executor": {
        "command": {"items": {"type": "string", **_TEXT}},
        "image": {"maxLength": 1024, "pattern": "^[^\\u0000]*$"},
        "env": _ENVIRONMENT,
        **dict.fromkeys(("workdir", "stdin", "stdout", "stderr"), _MAYBE_PATH),
    },
    "Input": {"path": _PATH, "blob": _MAYBE_HASH, "url": _ADDRESS, "data": {"pattern": _DATA}},
    "Output": {"path": _PATH, "url": _ADDRESS, "data": {"pattern": _DATASET}},
    "Array": {"size": {"minimum": 1, "maximum": MAX_ARRAY}, "values": {"propertyNames": {"pattern": ENV_NAME}}},
    "TaskSpec": {
        "name": {"maxLength": 255, "pattern": "^[^\\u0000]*$"},
        "description": {"maxLength": 65_536, "pattern": "^[^\\u0000]*$"},
        "command": {"items": {"type": "string", **_TEXT}},
        "image": {"maxLength": 1024, "pattern": "^[^\\u0000]*$"},
        **dict.fromkeys(("stdin", "stdout", "stderr"), _MAYBE_PATH),
        "workdir_manifest": _MAYBE_HASH,
        "volumes": {"items": {"type": "string", **_PATH}},
        "env": _ENVIRONMENT,
        "secrets": _ENVIRONMENT,
        "priority": {"minimum": -1000, "maximum": 1000},
        "max_attempts": {"minimum": 1, "maximum": 20},
        "tags": {
            "propertyNames": {"maxLength": 255, "pattern": "^[^\\u0000]*$"},
            "additionalProperties": {"type": "string", "maxLength": 4096, "pattern": "^[^\\u0000]*$"},
        },
    },
    "ManifestFile": {"path": _PATH, "sha256": {"pattern": SHA256}, "size_bytes": {"minimum": 0}},
    "Manifest": {"files": {"maxItems": MAX_FILES}},
}
_WHOLE: dict[str, dict[str, Any]] = {
    "Executor": {"anyOf": [{"required": ["command"], "properties": {"command": {"minItems": 1}}}, *_given("image")]},
    "TaskSpec": {
        "oneOf": [
            {
                "properties": {"executors": {"maxItems": 0}},
                "anyOf": [{"required": ["command"], "properties": {"command": {"minItems": 1}}}, *_given("image")],
            },
            {
                "required": ["executors"],
                "properties": {"executors": {"minItems": 1}, "command": {"maxItems": 0}, "image": {"maxLength": 0}},
            },
        ]
    },
    "Input": {
        "oneOf": [
            *_given("blob", "url", "site_path", "data"),
            {"required": ["content"], "properties": {"content": {"type": "string"}}},
        ]
    },
}


# pydantic's name of a schema: the type's, behind its module where two have the same, before its direction where they differ.
_SCHEMA_NAME = re.compile(r"(?:isthmus__domain__[a-z]+__)?([A-Za-z0-9]+)(?:-Input|-Output)?")


def add_invariants(schemas: dict[str, Any]) -> None:
    """Complete the schemas of the domain's request types, in place."""
    for title, schema in schemas.items():
        match = _SCHEMA_NAME.fullmatch(title)
        if match is None or match[1] not in _INVARIANTS:
            continue
        for name, extra in _INVARIANTS[match[1]].items():
            schema["properties"][name] = {**schema["properties"][name], **extra}
        schema.update(_WHOLE.get(match[1], {}))


# For the bodies of this face: said in the schema, checked by the type itself, with its own words.
NameText = Annotated[str, Field(json_schema_extra={"pattern": NAME})]
HomeText = Annotated[str, Field(json_schema_extra={"pattern": f"^({NAME[1:-1]})?$"})]
IdText = Annotated[str, Field(json_schema_extra={"pattern": ID})]
HashText = Annotated[str, Field(json_schema_extra={"pattern": SHA256})]
