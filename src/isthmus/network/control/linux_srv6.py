"""The kernel of this network namespace as one data plane: SRv6 policies, local segments, slices, marks.

Lives in the privileged daemon. What it was asked for is kept in a directory, written before the kernel is told, so that a kill at any
point is corrected by the next `reconcile`.
"""

from __future__ import annotations

import fcntl
import json
import socket
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from isthmus.domain.errors import Conflict, Corrupt, NotFound
from isthmus.network.control import desired, marks
from isthmus.network.control.desired import DesiredState, WeightedPath
from isthmus.network.control.libnftables import Nftables
from isthmus.network.control.port import Changes
from isthmus.network.control.routes import DEVICE, Routes, wanted_routes
from isthmus.network.control.slices import Slices

_FILE = "desired.json"
_NAME_IN_NAMESPACE = "\0isthmus.network.control"
"""An abstract socket name: the kernel lets each network namespace have it once, for as long as its holder lives."""


@dataclass(slots=True, kw_only=True)
class _Kept:
    """What is on disk: the state, the numbers of policies, and how the kernel showed our table when it was right."""

    state: DesiredState = field(default_factory=DesiredState)
    numbers: dict[str, int] = field(default_factory=dict)
    table_for: str = ""
    table_shown: str | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "state": desired.as_json(self.state),
            "numbers": self.numbers,
            "table_for": self.table_for,
            "table_shown": self.table_shown,
        }


class LinuxSrv6:
    """The data plane of this thread's network namespace; one object at a time."""

    def __init__(self, directory: Path) -> None:
        """Open the kernel's sockets and read what was asked for.

        Raises Conflict when another process has the directory or this network namespace, Corrupt when the file cannot be read.
        """
        self._file = directory / _FILE
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = (directory / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise Conflict(f"Another process keeps {directory}.", remedy="Stop it first.") from None
        self._only = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._only.bind(_NAME_IN_NAMESPACE)
        except OSError:
            self._only.close()
            self._lock.close()
            raise Conflict("Another daemon programs this network.", remedy="Stop it first.") from None
        self._netlink = IPRoute()
        self._nftables = Nftables()
        self._routes, self._slices = Routes(self._netlink), Slices(self._netlink)
        self._kept = self._load()

    def apply(self, state: DesiredState) -> Changes:
        """Make this the desired state and the kernel's."""
        self._kept.numbers = _numbered(state, self._kept.numbers)
        self._kept.state = state
        self._save()
        return self.reconcile()

    def set_paths(self, policy: str, paths: tuple[WeightedPath, ...]) -> Changes:
        """Replace the paths of one policy: one route, at once."""
        state = self._kept.state
        found = next((item for item in state.policies if item.name == policy), None)
        if found is None:
            raise NotFound(f"There is no policy {policy}.", remedy="Apply a state that has it first.")
        if found.paths == paths:
            return Changes()
        changed = replace(found, paths=paths)
        self._kept.state = replace(state, policies=tuple(changed if item is found else item for item in state.policies))
        self._save()
        only = DesiredState(policies=(changed,))
        (route,) = wanted_routes(only, self._kept.numbers)
        self._routes.replace(route)
        return Changes(made=1)

    def reconcile(self) -> Changes:
        """Compare the kernel with what was asked for, and correct it: first what is missing, then what is too much."""
        state, numbers = self._kept.state, self._kept.numbers
        changes = self._routes.make(state, numbers) + self._slices.make(state)
        changes += self._mark(state, numbers)
        return changes + self._routes.remove(state, numbers) + self._slices.remove(state)

    def state(self) -> DesiredState:
        """What was asked for last."""
        return self._kept.state

    def links(self) -> dict[str, bool]:
        """The interfaces that lead elsewhere, and whether each is up and has a carrier."""
        found = {}
        for link in self._netlink.get_links():
            name = link.get_attr("IFLA_IFNAME")
            if name != "lo" and not name.startswith(DEVICE[:-1]):
                found[name] = link["state"] == "up" and bool(link.get_attr("IFLA_CARRIER"))
        return found

    def close(self) -> None:
        """Close the sockets; the kernel goes on as it is."""
        self._netlink.close()
        self._nftables.close()
        self._only.close()
        self._lock.close()

    def _mark(self, state: DesiredState, numbers: dict[str, int]) -> Changes:
        wanted = marks.ruleset(state, numbers)
        shown = self._nftables.table(marks.FAMILY, marks.TABLE)
        if wanted == self._kept.table_for and shown == self._kept.table_shown:
            return Changes()
        self._nftables.run(wanted)
        now = self._nftables.table(marks.FAMILY, marks.TABLE)
        self._kept.table_for, self._kept.table_shown = wanted, now
        self._save()
        return Changes(made=int(now is not None), removed=int(now is None and shown is not None))

    def _load(self) -> _Kept:
        try:
            raw = json.loads(self._file.read_text(encoding="utf-8"))
            return _Kept(
                state=desired.read(raw["state"]),
                numbers={str(name): int(number) for name, number in raw["numbers"].items()},
                table_for=raw["table_for"],
                table_shown=raw["table_shown"],
            )
        except FileNotFoundError:
            return _Kept()
        except (ValueError, KeyError, TypeError) as error:
            raise Corrupt(
                f"{self._file} cannot be read: {error}.", remedy="Remove it and apply the state anew."
            ) from error

    def _save(self) -> None:
        # No fsync: what a power cut takes from this file it takes from the kernel too.
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps(self._kept.as_json()), encoding="utf-8")
        fresh.replace(self._file)


def _numbered(state: DesiredState, former: dict[str, int]) -> dict[str, int]:
    """Every policy keeps its number; a new one gets the lowest that is free."""
    names = [item.name for item in state.policies]
    kept = {name: former[name] for name in names if name in former}
    used, number = set(kept.values()), 1
    for name in names:
        if name not in kept:
            while number in used:
                number += 1
            kept[name] = number
            used.add(number)
    return kept
