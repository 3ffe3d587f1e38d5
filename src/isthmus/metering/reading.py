"""Reads the benchmark's document. It comes from a site, so nothing in it is believed before it is checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from isthmus.domain.capability import Capability, Figure, NodeCapability, Quantity
from isthmus.domain.errors import Corrupt, Invalid
from isthmus.metering.bench import FORMAT

MAX_BYTES = 1024**2
MAX_ACCELERATORS = 64
_NAME = 200
_KNOWN = frozenset(Quantity)


def read_document(content: bytes) -> NodeCapability:
    """A node's capability from the benchmark's JSON; Corrupt when it is no such document."""
    if len(content) > MAX_BYTES:
        raise Corrupt("The benchmark's document is too long.", remedy="Run the benchmark again.")
    try:
        document = json.loads(content)
        if document["format"] != FORMAT:
            raise Corrupt(
                f"The benchmark's document has the format {str(document['format'])[:40]!r}, not {FORMAT}.",
                remedy="Run the benchmark of this version.",
            )
        given = document["given"]
        return NodeCapability(
            node=_text(document["node"]),
            measured_at=_number(document["measured_at"]),
            seconds=_number(document["seconds"]),
            cpus=_count(given["cpus"]),
            processor=Capability(
                name=_text(document["processor"]),
                kind="cpu",
                memory_bytes=_count(given["memory_bytes"]),
                figures=_figures(document["figures"]),
            ),
            accelerators=tuple(_accelerator(one) for one in document["accelerators"][:MAX_ACCELERATORS]),
            left_out=_texts(document["left_out"]),
            libraries=_texts(document["libraries"]),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, Invalid) as error:
        raise Corrupt(
            f"The benchmark's document cannot be read ({type(error).__name__}: {str(error)[:120]}).",
            remedy="Run the benchmark again.",
        ) from error


def _accelerator(one: Mapping[str, Any]) -> Capability:
    return Capability(
        name=_text(one["name"]),
        kind=_text(one["kind"]),
        memory_bytes=_count(one["memory_bytes"]),
        figures=_figures(one["figures"]),
    )


def _figures(found: Mapping[str, Any]) -> dict[Quantity, Figure]:
    """What this version knows; a newer benchmark may measure more."""
    return {
        Quantity(name): Figure(
            median=_number(one["median"]),
            p10=_number(one["p10"]),
            p90=_number(one["p90"]),
            samples=_count(one["samples"]),
            rejected=_count(one["rejected"], least=0),
            by=_text(one.get("by", "")),
        )
        for name, one in found.items()
        if name in _KNOWN
    }


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{str(value)[:40]!r} is no number")
    return float(value)


def _count(value: Any, *, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**63:
        raise TypeError(f"{str(value)[:40]!r} is no count")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{str(value)[:40]!r} is no text")
    return "".join(sign for sign in value[:_NAME] if sign.isprintable())


def _texts(value: Mapping[str, Any]) -> dict[str, str]:
    return {_text(key): _text(one) for key, one in list(value.items())[:100]}
