"""The port of a data plane: what the rest of Isthmus may ask of a router, whatever it is made of.

An implementation keeps what it was told over its own restart, changes nothing that is right already, touches nothing that
it did not make, and replaces a path without losing a packet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from isthmus.network.control.desired import DesiredState, WeightedPath


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """How many things of the data plane were made or replaced, and removed; both are 0 when all was right."""

    made: int = 0
    removed: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.made + self.removed

    def __add__(self, other: Changes) -> Changes:
        """The sum."""
        return Changes(made=self.made + other.made, removed=self.removed + other.removed)


class Watch(Protocol):
    """The interfaces now, and again whenever one changes; the iteration ends when the router does not answer any more."""

    def __iter__(self) -> Iterator[Mapping[str, bool]]:
        """Interface -> whether it is up and has a carrier."""
        ...

    def close(self) -> None:
        """End the iteration, from any thread."""
        ...


class DataPlane(Protocol):
    """One router. Every call raises Unavailable when the router does not answer, and Refused or Invalid when it will not."""

    def apply(self, state: DesiredState) -> Changes:
        """Make the router do this, and nothing else of ours."""
        ...

    def set_paths(self, policy: str, paths: tuple[WeightedPath, ...]) -> Changes:
        """Give one policy other paths, at once and without loss; raises NotFound when there is no such policy."""
        ...

    def reconcile(self) -> Changes:
        """Compare what is with what was asked for last, and correct it."""
        ...

    def state(self) -> DesiredState:
        """What was asked for last."""
        ...

    def links(self) -> Mapping[str, bool]:
        """The interfaces, and whether each is up and has a carrier."""
        ...

    def watch(self) -> Watch:
        """Follow the interfaces."""
        ...


def from_json(raw: Mapping[str, Any]) -> Changes:
    """Changes as they come over the wire."""
    return Changes(made=int(raw["made"]), removed=int(raw["removed"]))
