"""What the privileged daemon may be asked: nothing but what its configuration names."""

from __future__ import annotations

import ipaddress
import json
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

from isthmus.domain.errors import Forbidden, Invalid
from isthmus.network.control.desired import DesiredState, Network, WeightedPath


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """The configuration; a list that is left out is empty, and what it would allow is refused."""

    socket: Path
    state: Path
    users: tuple[int, ...] = ()
    """Numbers of the accounts that may ask."""
    locators: tuple[Network, ...] = ()
    """Where the router's own SIDs come from."""
    segments: tuple[Network, ...] = ()
    """Where the SIDs of a path come from."""
    destinations: tuple[Network, ...] = ()
    """What policies may lead; End.DX4 and End.DX6 send there only."""
    interfaces: tuple[str, ...] = ()
    """What may be sliced."""

    def check(self, state: DesiredState) -> None:
        """Raise Forbidden, which names the field, when the state asks for more."""
        for index, segment in enumerate(state.segments):
            self._within(f"{segment.sid}/128", self.locators, f"segments.{index}.sid", "locators")
            if segment.neighbour is not None:
                self._within(segment.neighbour, self.destinations, f"segments.{index}.neighbour", "destinations")
        for index, policy in enumerate(state.policies):
            self._within(policy.destination, self.destinations, f"policies.{index}.destination", "destinations")
            self.check_paths(policy.paths, f"policies.{index}.paths")
        for index, repair in enumerate(state.repairs):
            spaces = (*self.segments, *self.destinations)
            self._within(repair.destination, spaces, f"repairs.{index}.destination", "segments or destinations")
            for sid in repair.segments:
                self._within(f"{sid}/128", self.segments, f"repairs.{index}.segments", "segments")
        for index, interface in enumerate(state.interfaces):
            if interface.name not in self.interfaces:
                raise Forbidden(f"interfaces.{index}.name: {interface.name} is not among the permitted interfaces.")

    def check_paths(self, paths: Iterable[WeightedPath], where: str = "paths") -> None:
        """Raise Forbidden when a segment of a path lies outside."""
        for path in paths:
            for sid in path.segments:
                self._within(f"{sid}/128", self.segments, where, "segments")

    @staticmethod
    def _within(text: str, allowed: Iterable[Network], where: str, what: str) -> None:
        network = ipaddress.ip_network(text)
        for space in allowed:
            if (
                network.version == space.version
                and network.prefixlen >= space.prefixlen
                and network.network_address in space
            ):
                return
        raise Forbidden(f"{where}: {text} is not within the permitted {what}.")


def read_permit(file: Path) -> Permit:
    """The configuration from JSON; raises Forbidden when others may write the file, Invalid when a field is wrong."""
    found = file.stat()
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Forbidden(f"{file} can be changed by others.", remedy=f"chown root {file}; chmod 644 {file}")
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Invalid("configuration", f"{file} is not JSON: {error}.") from None
    known = {item.name for item in fields(Permit)}
    for key in raw:
        if key not in known:
            raise Invalid(key, "There is no such field.", remedy=f"Known are {', '.join(sorted(known))}.")
    try:
        return Permit(
            socket=Path(raw["socket"]),
            state=Path(raw["state"]),
            users=tuple(int(number) for number in raw.get("users", ())),
            interfaces=tuple(str(name) for name in raw.get("interfaces", ())),
            locators=tuple(ipaddress.ip_network(text) for text in raw.get("locators", ())),
            segments=tuple(ipaddress.ip_network(text) for text in raw.get("segments", ())),
            destinations=tuple(ipaddress.ip_network(text) for text in raw.get("destinations", ())),
        )
    except KeyError as error:
        raise Invalid(str(error.args[0]), "It is missing.", remedy="Name a path.") from None
    except (TypeError, ValueError) as error:
        raise Invalid("configuration", f"{error}.") from None
