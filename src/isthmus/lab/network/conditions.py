"""What is wrong with an emulated network just now: failed links and nodes, brown-outs. Kept in the lab's directory."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from isthmus.lab.network.topology import Link, Topology

_FILE = "conditions.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Brownout:
    """What a link has instead of its own figures; None leaves the link's own."""

    rate_bits_per_second: float | None = None
    delay_seconds: float | None = None
    loss: float | None = None


@dataclass(slots=True, kw_only=True)
class Conditions:
    """Failures and brown-outs by name; a healthy network has none."""

    failed_links: set[str] = field(default_factory=set)
    failed_nodes: set[str] = field(default_factory=set)
    brownouts: dict[str, Brownout] = field(default_factory=dict)
    routed_around: set[str] = field(default_factory=set)
    """The links that the shortest paths avoid; others that fail are not avoided before the network is routed anew."""

    def down(self, topology: Topology) -> set[str]:
        """The names of the links that carry nothing: failed themselves, or at a failed node."""
        return {
            link.name
            for link in topology.links
            if link.name in self.failed_links or self.failed_nodes.intersection(link.ends)
        }

    def effective(self, link: Link) -> Link:
        """The link as it is now, brown-out included."""
        brownout = self.brownouts.get(link.name)
        if brownout is None:
            return link
        changed = {name: value for name, value in asdict(brownout).items() if value is not None}
        if "delay_seconds" in changed:
            changed["jitter_seconds"] = min(link.jitter_seconds, changed["delay_seconds"])
        return replace(link, **changed)


@contextmanager
def changing(directory: Path) -> Iterator[Conditions]:
    """The conditions of a lab, to change: one process at a time; they are written when the block ends well."""
    with (directory / "conditions.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        conditions = read(directory)
        yield conditions
        fresh = directory / f"{_FILE}.new"
        fresh.write_text(
            json.dumps(
                {
                    "failed_links": sorted(conditions.failed_links),
                    "failed_nodes": sorted(conditions.failed_nodes),
                    "routed_around": sorted(conditions.routed_around),
                    "brownouts": {name: asdict(item) for name, item in conditions.brownouts.items()},
                }
            ),
            encoding="utf-8",
        )
        fresh.replace(directory / _FILE)


def read(directory: Path) -> Conditions:
    """The conditions of a lab."""
    try:
        raw = json.loads((directory / _FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Conditions()
    return Conditions(
        failed_links=set(raw["failed_links"]),
        failed_nodes=set(raw["failed_nodes"]),
        routed_around=set(raw["routed_around"]),
        brownouts={name: Brownout(**item) for name, item in raw["brownouts"].items()},
    )
