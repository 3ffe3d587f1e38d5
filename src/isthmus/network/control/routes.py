"""Local segments and policies as routes of the kernel (SRv6, RFC 8986), each in a table of ours, with our protocol number."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from isthmus.network.control.desired import Behaviour, DesiredState
from isthmus.network.control.marks import MARK_MASK, mark_of
from isthmus.network.control.port import Changes

PROTOCOL = 157
"""Who entered a route or a rule: this number is on all of ours, and what has another is never touched."""
DEVICE, _PEER = "isthmus-sr0", "isthmus-sr1"
"""Routes with segments need an interface that is always up and is not loopback: a pair of our own, over which nothing goes."""
_GATEWAY = "fe80::1"
"""A neighbour that is not there, on our own interface: the kernel wants one for each of several paths, and never asks for it."""
_SEGMENTS_TABLE = 40_000
_RULE_PRIORITY = 1_000
_REPAIR_TABLE = 49_999
_REPAIR_PRIORITY = 33_000
"""Behind the main table and the default one: only what these have no route for comes here."""
_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_SEG6, _SEG6_LOCAL = 5, 7
_ACTIONS = {1: "End", 5: "End.DX6", 6: "End.DX4", 7: "End.DT6"}
_MAIN = 254
_MODE = "encap.red"
_MODES = {"inline": 0, "encap": 1, "l2encap": 2, _MODE: 3}

# pyroute2 0.9 knows the first two modes of <linux/seg6_iptunnel.h> only, and takes an unknown one for `encap`.
_header = rtmsg.seg6_encap_info.ipv6_sr_hdr
_header.encapmodes = _MODES
_header.r_encapmodes = {number: name for name, number in _MODES.items()}


@dataclass(frozen=True, slots=True)
class SegmentRoute:
    """One route of ours, in a form that can be compared: table, prefix, and what is done.

    Either the action of a local segment with its neighbour, if any, or weighted paths in some order of their own.
    """

    table: int
    prefix: str
    action: str
    neighbour: str | None = None
    paths: tuple[tuple[int, tuple[str, ...]], ...] = ()

    @property
    def family(self) -> socket.AddressFamily:
        """Of the prefix."""
        return socket.AF_INET6 if ":" in self.prefix else socket.AF_INET


@dataclass(frozen=True, slots=True)
class MarkRule:
    """One rule of ours: packets with a mark (0: all) look into a table."""

    family: int
    priority: int
    table: int
    mark: int


def wanted_routes(state: DesiredState, numbers: Mapping[str, int]) -> set[SegmentRoute]:
    """The routes of a state."""
    found = {
        SegmentRoute(_SEGMENTS_TABLE, f"{item.sid}/128", item.behaviour.value, item.neighbour)
        for item in state.segments
    }
    found |= {
        SegmentRoute(_REPAIR_TABLE, item.destination, _MODE, paths=((1, item.segments),)) for item in state.repairs
    }
    return found | {
        SegmentRoute(
            _SEGMENTS_TABLE + numbers[policy.name],
            policy.destination,
            _MODE,
            paths=tuple(sorted((path.weight if len(policy.paths) > 1 else 1, path.segments) for path in policy.paths)),
        )
        for policy in state.policies
    }


def wanted_rules(state: DesiredState, numbers: Mapping[str, int]) -> set[MarkRule]:
    """The rules of a state."""
    found = {
        MarkRule(
            socket.AF_INET6 if policy.network.version == 6 else socket.AF_INET,
            _RULE_PRIORITY + 1,
            _SEGMENTS_TABLE + numbers[policy.name],
            mark_of(numbers[policy.name]),
        )
        for policy in state.policies
    }
    if state.segments:
        found.add(MarkRule(socket.AF_INET6, _RULE_PRIORITY, _SEGMENTS_TABLE, 0))
    if state.repairs:
        found.add(MarkRule(socket.AF_INET6, _REPAIR_PRIORITY, _REPAIR_TABLE, 0))
    return found


class Routes:
    """The routes and rules of ours in this network namespace."""

    def __init__(self, netlink: IPRoute) -> None:
        """Use a netlink socket of the namespace."""
        self._netlink = netlink

    def make(self, state: DesiredState, numbers: Mapping[str, int]) -> Changes:
        """Make or replace what is missing or different; remove nothing. A replaced route loses no packet."""
        needed = bool(state.segments or state.policies or state.repairs)
        made = int(needed and self._make_device())
        routes, rules = self._routes(), self._rules()
        for route in sorted(wanted_routes(state, numbers) - routes, key=repr):
            self.replace(route)
            made += 1
        for rule in sorted(wanted_rules(state, numbers) - rules, key=repr):
            self._change_rule("add", rule)
            made += 1
        return Changes(made=made)

    def remove(self, state: DesiredState, numbers: Mapping[str, int]) -> Changes:
        """Remove what is ours and not of the state."""
        removed = 0
        for rule in sorted(self._rules() - wanted_rules(state, numbers), key=repr):
            self._change_rule("del", rule)
            removed += 1
        for route in sorted(self._routes() - wanted_routes(state, numbers), key=repr):
            self._netlink.route("del", dst=route.prefix, family=route.family, table=route.table, proto=PROTOCOL)
            removed += 1
        if not state.segments and not state.policies and not state.repairs:
            removed += self._remove_device()
        return Changes(removed=removed)

    def replace(self, route: SegmentRoute) -> None:
        """Enter one route in the place of the one to the same prefix in the same table, if any."""
        device = self._netlink.link_lookup(ifname=DEVICE)[0]
        where: dict[str, Any]
        if route.action != _MODE:
            where = {"oif": device, "encap": _local(route)}
        elif len(route.paths) == 1:
            ((_weight, segments),) = route.paths
            where = {"oif": device, "encap": {"type": "seg6", "mode": _MODE, "segs": list(reversed(segments))}}
            if route.family == socket.AF_INET6:
                where["gateway"] = _GATEWAY
        else:
            gateway = [["RTA_GATEWAY", _GATEWAY]] if route.family == socket.AF_INET6 else []
            where = {
                "multipath": [
                    {"oif": device, "hops": weight - 1, "flags": 0, "attrs": [*gateway, *_path(segments)]}
                    for weight, segments in route.paths
                ]
            }
        self._netlink.route(
            "replace", dst=route.prefix, family=route.family, table=route.table, proto=PROTOCOL, **where
        )

    def _routes(self) -> set[SegmentRoute]:
        return {
            _as_route(message)
            for family in _FAMILIES
            for message in self._netlink.get_routes(family=family, proto=PROTOCOL)
            if message["proto"] == PROTOCOL
        }

    def _rules(self) -> set[MarkRule]:
        return {
            MarkRule(
                family,
                message.get_attr("FRA_PRIORITY") or 0,
                message.get_attr("FRA_TABLE") or message["table"],
                message.get_attr("FRA_FWMARK") or 0,
            )
            for family in _FAMILIES
            for message in self._netlink.get_rules(family=family)
            if message.get_attr("FRA_PROTOCOL") == PROTOCOL
        }

    def _change_rule(self, command: str, rule: MarkRule) -> None:
        marks = {"fwmark": rule.mark, "fwmask": MARK_MASK} if rule.mark else {}
        self._netlink.rule(
            command, family=rule.family, priority=rule.priority, table=rule.table, protocol=PROTOCOL, **marks
        )

    def _make_device(self) -> bool:
        if self._netlink.link_lookup(ifname=DEVICE):
            return False
        self._netlink.link("add", ifname=DEVICE, kind="veth", peer=_PEER)
        for name in (DEVICE, _PEER):
            self._netlink.link("set", index=self._netlink.link_lookup(ifname=name)[0], state="up")
        return True

    def _remove_device(self) -> bool:
        found = self._netlink.link_lookup(ifname=DEVICE)
        with contextlib.suppress(NetlinkError):
            if found:
                self._netlink.link("del", index=found[0])
        return bool(found)


def _local(route: SegmentRoute) -> dict[str, Any]:
    encapsulation: dict[str, Any] = {"type": "seg6local", "action": route.action}
    if route.action == Behaviour.END_DT6:
        encapsulation["table"] = _MAIN
    elif route.action == Behaviour.END_DX4:
        encapsulation["nh4"] = route.neighbour
    elif route.action == Behaviour.END_DX6:
        encapsulation["nh6"] = route.neighbour
    return encapsulation


def _path(segments: tuple[str, ...]) -> list[list[Any]]:
    # On the wire the last segment comes first (RFC 8754, section 2).
    header = {"mode": _MODE, "segs": list(reversed(segments))}
    return [["RTA_ENCAP_TYPE", _SEG6], ["RTA_ENCAP", {"attrs": [["SEG6_IPTUNNEL_SRH", header]]}]]


def _as_route(message: Any) -> SegmentRoute:
    prefix = str(ipaddress.ip_network(f"{message.get_attr('RTA_DST')}/{message['dst_len']}"))
    table = message.get_attr("RTA_TABLE") or message["table"]
    encapsulation = message.get_attr("RTA_ENCAP")
    if message.get_attr("RTA_ENCAP_TYPE") == _SEG6_LOCAL and encapsulation is not None:
        action = _ACTIONS.get(encapsulation.get_attr("SEG6_LOCAL_ACTION"), "?")
        neighbour = encapsulation.get_attr("SEG6_LOCAL_NH4") or encapsulation.get_attr("SEG6_LOCAL_NH6")
        return SegmentRoute(table, prefix, action, neighbour)
    hops = message.get_attr("RTA_MULTIPATH") or [message]
    try:
        paths = [(hop["hops"] + 1 if hop is not message else 1, _segments(hop)) for hop in hops]
    except AttributeError:  # a hop without segments: not as we make it
        return SegmentRoute(table, prefix, "?")
    return SegmentRoute(table, prefix, _MODE, paths=tuple(sorted(paths)))


def _segments(hop: Any) -> tuple[str, ...]:
    header = hop.get_attr("RTA_ENCAP").get_attr("SEG6_IPTUNNEL_SRH")
    return (*(["?"] if header["mode"] != _MODE else []), *reversed(header["segs"]))
