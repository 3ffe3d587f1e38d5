"""The ways that bytes of a transfer took in fact, in its row: what the receiving site counted, beside the paths that the order named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

import orjson

from isthmus.domain.dataset import WayCarried, WayTaken

_MOST = 32  # of earlier orders


def read(text: str) -> tuple[WayTaken, ...]:
    """Those that carried something, alike ones of several orders as one."""
    found: dict[tuple[tuple[str, ...], str], WayTaken] = {}
    for one in _load(text):
        if one.bytes <= 0:
            continue
        key = one.path, one.relay
        known = found.get(key, replace(one, bytes=0))
        found[key] = replace(
            known,
            bytes=known.bytes + one.bytes,
            streams=max(known.streams, one.streams),
            multipath=known.multipath or one.multipath,
        )
    return tuple(found.values())


def ordered(text: str, paths: Sequence[Sequence[str]], relay: str) -> str:
    """With the ways of a new order at the end (no paths: one way, as packets go); of earlier ones stay those that carried something."""
    fresh = [WayTaken(path=tuple(path), relay=relay) for path in paths or ((),)]
    return _dump([*read(text)[-_MOST:], *fresh])


def carried(text: str, ways: Sequence[WayCarried]) -> str:
    """With what the site counted of its order's ways, which are the last ones."""
    known = _load(text)
    if not ways or len(ways) > len(known):
        return text
    first = len(known) - len(ways)
    told = [
        replace(one, bytes=way.bytes, streams=way.streams, multipath=way.multipath)
        for one, way in zip(known[first:], ways, strict=True)
    ]
    return _dump([*known[:first], *told])


def moved(text: str, number: int, path: Sequence[str]) -> str:
    """With a way of the order under way on another path: a failure took its policy there."""
    known = _load(text)
    first = next((place for place, one in enumerate(known) if not one.bytes), len(known))
    return _dump(
        [replace(one, path=tuple(path)) if place == first + number else one for place, one in enumerate(known)]
    )


def _load(text: str) -> list[WayTaken]:
    return [WayTaken(**{**one, "path": tuple(one["path"])}) for one in orjson.loads(text)]


def _dump(ways: Sequence[WayTaken]) -> str:
    return orjson.dumps([asdict(one) for one in ways]).decode()
