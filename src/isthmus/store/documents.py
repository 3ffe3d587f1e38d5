"""Domain types to and from the JSON text that the tables keep."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import TypeAdapter

T = TypeVar("T")
_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}


def adapter(kind: Any) -> TypeAdapter[Any]:
    """The reader and writer of a domain type, built once."""
    found = _ADAPTERS.get(kind)
    if found is None:
        found = _ADAPTERS[kind] = TypeAdapter(kind)
    return found


def dump(value: Any) -> str:
    """JSON of a domain value, defaults left out."""
    return adapter(type(value)).dump_json(value, exclude_defaults=True).decode()


def load(kind: type[T], text: str | bytes) -> T:
    """A domain value from its JSON."""
    value: T = adapter(kind).validate_json(text)
    return value
