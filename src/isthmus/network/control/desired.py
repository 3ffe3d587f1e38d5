"""What one router shall do: local segments, policies with the marks that select them, repairs, and slices of its interfaces.

Plain JSON on the wire; read here with every wrong field named. SIDs and behaviours are those of RFC 8986.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, TypeVar, cast

from isthmus.domain.errors import Invalid

MOST_POLICIES = 1000
MOST_SEGMENTS_IN_A_PATH = 8
MOST_PATHS_OF_A_POLICY = 16
MOST_WEIGHT = 256
MOST_REPAIRS = 2000
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Item = TypeVar("_Item")


class Behaviour(StrEnum):
    """What a router does with a packet whose destination is a SID of its own. (RFC 8986, section 4)"""

    END = "End"
    """Go on to the next segment."""
    END_DT6 = "End.DT6"
    """Take off the outer header and look the IPv6 packet up."""
    END_DX6 = "End.DX6"
    """Take off the outer header and send the IPv6 packet to a neighbour."""
    END_DX4 = "End.DX4"
    """Take off the outer header and send the IPv4 packet to a neighbour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSegment:
    """One SID of the router; `neighbour` is the address that End.DX4 and End.DX6 send to."""

    sid: str
    behaviour: Behaviour
    neighbour: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """The marks that select a policy, all of those given; without any, the destination alone does.

    `application_id` is the number in an IPv6 hop-by-hop or destination option of type 0x1e with four bytes, first in its header
    (the experimental type of RFC 4727: application-aware networking has no type of its own yet).
    """

    dscp: int | None = None
    flow_label: int | None = None
    application_id: int | None = None
    source: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is no mark."""
        return all(getattr(self, item.name) is None for item in fields(self))


NO_MARKS = Match()


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedPath:
    """Segments in the order of travel; of several paths each has flows in proportion to its weight, 1 to 256."""

    segments: tuple[str, ...]
    weight: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Packets to a destination, selected by marks, go over these paths; a flow (of its five-tuple) keeps to one of them.

    `dscp`, when given, is written into the outer header, so that slices on the way know the packet.
    """

    name: str
    destination: str
    paths: tuple[WeightedPath, ...]
    match: Match = NO_MARKS
    dscp: int | None = None

    @property
    def network(self) -> Network:
        """The destination."""
        return ipaddress.ip_network(self.destination)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """A share of an interface for packets with one DSCP, in the outer header where there is one.

    It has its rate for sure and may use what others leave; `priority` 0 to 7, 0 is served first.
    """

    name: str
    dscp: int
    rate_bits_per_second: float
    priority: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SlicedInterface:
    """An interface and its slices; what is in no slice is best effort and has what is left of the rate."""

    name: str
    rate_bits_per_second: float
    slices: tuple[Slice, ...]

    @property
    def left_bits_per_second(self) -> float:
        """What best effort has for sure."""
        return self.rate_bits_per_second - sum(item.rate_bits_per_second for item in self.slices)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """Where IPv6 packets to a destination go when no other route leads there any more: wrapped, over these segments, of which the last
    unwraps them."""

    destination: str
    segments: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredState:
    """All that Isthmus wants of one router; what is not named here is not there."""

    segments: tuple[LocalSegment, ...] = ()
    policies: tuple[Policy, ...] = ()
    interfaces: tuple[SlicedInterface, ...] = ()
    repairs: tuple[Repair, ...] = ()


def as_json(state: DesiredState) -> dict[str, Any]:
    """The state as `read` takes it."""
    return asdict(state)


def read(raw: object) -> DesiredState:
    """A state from JSON; raises Invalid, which names the field."""
    top = _mapping(raw, "", DesiredState)
    state = DesiredState(
        segments=_each(top.get("segments", ()), "segments", _segment),
        policies=_each(top.get("policies", ()), "policies", _policy),
        interfaces=_each(top.get("interfaces", ()), "interfaces", _interface),
        repairs=_each(top.get("repairs", ()), "repairs", _repair),
    )
    _unique([item.sid for item in state.segments], "segments", "SID")
    _unique([item.name for item in state.policies], "policies", "name")
    _unique([item.name for item in state.interfaces], "interfaces", "name")
    _unique([item.destination for item in state.repairs], "repairs", "destination")
    if len(state.repairs) > MOST_REPAIRS:
        raise Invalid("repairs", f"{len(state.repairs)} are too many.", remedy=f"Use at most {MOST_REPAIRS}.")
    if len(state.policies) > MOST_POLICIES:
        raise Invalid("policies", f"{len(state.policies)} are too many.", remedy=f"Use at most {MOST_POLICIES}.")
    return state


def read_paths(raw: object, where: str = "paths") -> tuple[WeightedPath, ...]:
    """The paths of a policy from JSON; raises Invalid."""
    paths = _each(raw, where, _path)
    if not 1 <= len(paths) <= MOST_PATHS_OF_A_POLICY:
        raise Invalid(
            where, f"{len(paths)} paths are too few or too many.", remedy=f"Use 1 to {MOST_PATHS_OF_A_POLICY}."
        )
    _unique([" ".join(path.segments) for path in paths], where, "path")
    return paths


def _path(raw: object, where: str) -> WeightedPath:
    item = _mapping(raw, where, WeightedPath)
    segments = _each(item.get("segments", ()), f"{where}.segments", lambda value, place: _address(value, place, 6))
    if not 1 <= len(segments) <= MOST_SEGMENTS_IN_A_PATH:
        raise Invalid(
            f"{where}.segments", f"{len(segments)} segments are no path.", remedy=f"Use 1 to {MOST_SEGMENTS_IN_A_PATH}."
        )
    weight = _number(item.get("weight", 1), f"{where}.weight", MOST_WEIGHT)
    if not weight:
        raise Invalid(f"{where}.weight", f"{weight!r} is no weight.", remedy=f"Use 1 to {MOST_WEIGHT}.")
    return WeightedPath(segments=segments, weight=weight)


def _segment(raw: object, where: str) -> LocalSegment:
    item = _mapping(raw, where, LocalSegment)
    try:
        behaviour = Behaviour(item.get("behaviour", ""))
    except ValueError:
        known = ", ".join(Behaviour)
        raise Invalid(
            f"{where}.behaviour", f"{item.get('behaviour')!r} is not known.", remedy=f"Known are {known}."
        ) from None
    neighbour = item.get("neighbour")
    version = {Behaviour.END_DX4: 4, Behaviour.END_DX6: 6}.get(behaviour)
    if (neighbour is not None) != (version is not None):
        raise Invalid(f"{where}.neighbour", "It belongs to End.DX4 and End.DX6, and to no other.")
    if version is not None:
        neighbour = _address(neighbour, f"{where}.neighbour", version)
    return LocalSegment(sid=_address(item.get("sid"), f"{where}.sid", 6), behaviour=behaviour, neighbour=neighbour)


def _policy(raw: object, where: str) -> Policy:
    item = _mapping(raw, where, Policy)
    destination = _network(item.get("destination"), f"{where}.destination")
    paths = read_paths(item.get("paths", ()), f"{where}.paths")
    if any(ipaddress.ip_address(sid) in destination for path in paths for sid in path.segments):
        raise Invalid(f"{where}.paths", "A segment lies in the destination: packets would go round and round.")
    match = _match(item.get("match"), f"{where}.match", destination)
    return Policy(
        name=_name(item.get("name"), f"{where}.name"),
        destination=str(destination),
        paths=paths,
        match=match,
        dscp=_number(item.get("dscp"), f"{where}.dscp", 63),
    )


def _repair(raw: object, where: str) -> Repair:
    item = _mapping(raw, where, Repair)
    destination = _network(item.get("destination"), f"{where}.destination")
    path = _path({"segments": item.get("segments", ())}, where)
    if destination.version != 6:
        raise Invalid(f"{where}.destination", "Only IPv6 is repaired.", remedy="IPv4 is, inside of a policy.")
    if any(ipaddress.ip_address(sid) in destination for sid in path.segments):
        raise Invalid(f"{where}.segments", "A segment lies in the destination: packets would go round and round.")
    return Repair(destination=str(destination), segments=path.segments)


def _match(raw: object, where: str, destination: Network) -> Match:
    item = _mapping({} if raw is None else raw, where, Match)
    source = item.get("source")
    if source is not None:
        network = _network(source, f"{where}.source")
        if network.version != destination.version:
            raise Invalid(f"{where}.source", "It is not of the family of the destination.")
        source = str(network)
    match = Match(
        dscp=_number(item.get("dscp"), f"{where}.dscp", 63),
        flow_label=_number(item.get("flow_label"), f"{where}.flow_label", 0xFFFFF),
        application_id=_number(item.get("application_id"), f"{where}.application_id", 0xFFFFFFFF),
        source=source,
    )
    if destination.version == 4 and (match.flow_label is not None or match.application_id is not None):
        raise Invalid(where, "IPv4 has neither flow labels nor options of this kind.", remedy="Use dscp or source.")
    return match


def _interface(raw: object, where: str) -> SlicedInterface:
    item = _mapping(raw, where, SlicedInterface)
    slices = _each(item.get("slices", ()), f"{where}.slices", _slice)
    _unique([str(part.dscp) for part in slices], f"{where}.slices", "DSCP")
    found = SlicedInterface(
        name=_name(item.get("name"), f"{where}.name"),
        rate_bits_per_second=_rate(item.get("rate_bits_per_second"), f"{where}.rate_bits_per_second"),
        slices=slices,
    )
    if found.left_bits_per_second < 0.01 * found.rate_bits_per_second:
        raise Invalid(
            f"{where}.slices",
            "They have more than 99 % of the rate.",
            remedy="Leave 1 % for best effort, routing included.",
        )
    return found


def _slice(raw: object, where: str) -> Slice:
    item = _mapping(raw, where, Slice)
    dscp, priority = (
        _number(item.get("dscp"), f"{where}.dscp", 63),
        _number(item.get("priority", 1), f"{where}.priority", 7),
    )
    if dscp is None or priority is None:
        raise Invalid(f"{where}.dscp", "It is missing.", remedy="A slice is known by its DSCP.")
    return Slice(
        name=_name(item.get("name"), f"{where}.name"),
        dscp=dscp,
        rate_bits_per_second=_rate(item.get("rate_bits_per_second"), f"{where}.rate_bits_per_second"),
        priority=priority,
    )


def _mapping(raw: object, where: str, kind: type) -> Mapping[str, Any]:
    if not isinstance(raw, dict):
        raise Invalid(where or "state", f"{type(raw).__name__} is not an object.")
    known = {item.name for item in fields(kind)}
    for key in raw:
        if key not in known:
            raise Invalid(f"{where}.{key}" if where else str(key), "There is no such field.", remedy=f"{sorted(known)}")
    return cast("Mapping[str, Any]", raw)


def _each(raw: object, where: str, take: Callable[[object, str], _Item]) -> tuple[_Item, ...]:
    if not isinstance(raw, Sequence) or isinstance(raw, str):
        raise Invalid(where, f"{type(raw).__name__} is not a list.")
    return tuple(take(item, f"{where}.{index}") for index, item in enumerate(raw))


def _name(value: object, where: str) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= 64 or not all(c.isalnum() or c in "-_.:" for c in value):
        raise Invalid(where, f"{value!r} is not a name.", remedy="Use 1 to 64 letters, digits and -_.:")
    return value


def _number(value: object, where: str, most: int) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise Invalid(where, f"{value!r} is not a number from 0 to {most}.")
    return value


def _rate(value: object, where: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 8e3 <= value <= 30e9:
        raise Invalid(where, f"{value!r} is not a rate in bit/s.", remedy="8e3 to 30e9.")
    return float(value)


def _address(value: object, where: str, version: int) -> str:
    try:
        found = ipaddress.ip_address(str(value))
    except ValueError:
        found = None
    if found is None or found.version != version:
        raise Invalid(where, f"{value!r} is not an IPv{version} address.")
    return str(found)


def _network(value: object, where: str) -> Network:
    try:
        return ipaddress.ip_network(str(value))
    except ValueError:
        raise Invalid(where, f"{value!r} is not a prefix.", remedy="Such as fd10:5::/64, without host bits.") from None


def _unique(names: Sequence[str], where: str, what: str) -> None:
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            raise Invalid(f"{where}.{index}", f"The {what} {name} is there twice.")
        seen.add(name)
