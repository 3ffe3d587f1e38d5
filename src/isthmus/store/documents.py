"""Domain types to and from the JSON text that the tables keep."""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter

T = TypeVar("T")


@cache
def adapter(kind: Hashable) -> TypeAdapter[Any]:
    """The reader and writer of a domain type, built once."""
    return TypeAdapter(kind)


def dump(value: Any) -> str:
    """JSON of a domain value, defaults left out."""
    return adapter(type(value)).dump_json(value, exclude_defaults=True).decode()


def load(kind: type[T], text: str | bytes) -> T:
    """A domain value from its JSON."""
    value: T = adapter(kind).validate_json(text)
    return value
