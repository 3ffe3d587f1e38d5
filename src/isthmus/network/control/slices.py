"""Slices of an interface as classes of HTB: each has its rate for sure and borrows what others leave.

The tree hangs at the root of the interface, or inside a token bucket (tbf) that somebody else limits the interface with; any other
discipline that is not ours is left alone and the interface refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.rtnl.tcmsg import plugins

from isthmus.domain.errors import Refused
from isthmus.network.control.desired import DesiredState, SlicedInterface
from isthmus.network.control.marks import QDISC
from isthmus.network.control.port import Changes

_HANDLE = QDISC << 16
_ROOT = 0xFFFF_FFFF
_TOP, _FIRST_SLICE, _BEST_EFFORT = 1, 2, 0xFFF0
_LOWEST_PRIORITY = 7
_BURST_SECONDS = 0.002
_LEAST_BURST_BYTES = 4_000
_QUEUE_SECONDS, _PACKET_BYTES, _LEAST_QUEUE_PACKETS = 0.05, 1500, 50

# pyroute2 0.9 hangs a discipline that it does not know at the root, whatever the parent; bfifo has the words of pfifo.
plugins["bfifo"] = plugins["pfifo"]


@dataclass(frozen=True, slots=True)
class HtbClass:
    """One class in a form that can be compared; rates in bytes/s as the kernel has them."""

    minor: int
    rate: int
    ceiling: int
    priority: int


def wanted_classes(interface: SlicedInterface) -> list[HtbClass]:
    """The classes of an interface, the top first."""
    total = int(interface.rate_bits_per_second / 8)
    found = [HtbClass(_TOP, total, total, 0)]
    found += [
        HtbClass(_FIRST_SLICE + number, int(item.rate_bits_per_second / 8), total, item.priority)
        for number, item in enumerate(interface.slices)
    ]
    found.append(HtbClass(_BEST_EFFORT, int(interface.left_bits_per_second / 8), total, _LOWEST_PRIORITY))
    return found


class Slices:
    """The slices of ours in this network namespace."""

    def __init__(self, netlink: IPRoute) -> None:
        """Use a netlink socket of the namespace."""
        self._netlink = netlink

    def make(self, state: DesiredState) -> Changes:
        """Make or replace what is missing or different, remove classes that are too many; raises Refused."""
        made = removed = 0
        for interface in state.interfaces:
            index = self._index(interface.name)
            parent = self._parent(interface.name, index)
            if not self._ours(index):
                self._netlink.tc("replace", "htb", index, _HANDLE, parent=parent, default=_BEST_EFFORT)
                made += 1
            wanted, there = wanted_classes(interface), self._classes(index)
            for item in wanted:
                if there.get(item.minor) != item:
                    self._set_class(index, item, is_new=item.minor not in there, total=wanted[0].rate)
                    made += 1
            for minor in set(there) - {item.minor for item in wanted}:
                self._netlink.tc("del-class", index=index, handle=_HANDLE | minor, parent=_HANDLE | _TOP)
                removed += 1
        return Changes(made=made, removed=removed)

    def remove(self, state: DesiredState) -> Changes:
        """Remove our tree from interfaces that have no slices in the state."""
        wanted = {item.name for item in state.interfaces}
        removed = 0
        for discipline in self._netlink.get_qdiscs():
            if discipline["handle"] != _HANDLE or discipline.get_attr("TCA_KIND") != "htb":
                continue
            index = discipline["index"]
            if self._netlink.get_links(index)[0].get_attr("IFLA_IFNAME") in wanted:
                continue
            parent = discipline["parent"]
            self._netlink.tc("del", index=index, handle=_HANDLE, parent=parent)
            if parent != _ROOT:
                # An emptied token bucket drops everything: it gets the plain queue that it had.
                bucket = next(item for item in self._disciplines(index) if item["handle"] == parent & 0xFFFF_0000)
                limit = bucket.get_attr("TCA_OPTIONS").get_attr("TCA_TBF_PARMS")["limit"]
                self._netlink.tc("add", "bfifo", index, 0, parent=parent, limit=limit)
            removed += 1
        return Changes(removed=removed)

    def _set_class(self, index: int, item: HtbClass, *, is_new: bool, total: int) -> None:
        is_top = item.minor == _TOP
        burst = max(int(total * _BURST_SECONDS), _LEAST_BURST_BYTES)
        self._netlink.tc(
            "add-class" if is_new else "change-class",
            "htb",
            index,
            _HANDLE | item.minor,
            parent=_HANDLE if is_top else _HANDLE | _TOP,
            rate=item.rate,
            ceil=item.ceiling,
            prio=item.priority,
            burst=burst,
            cburst=burst,
            quantum=2 * _PACKET_BYTES,
            mtu=9216,
        )
        if is_new and not is_top:
            packets = max(int(total * _QUEUE_SECONDS / _PACKET_BYTES), _LEAST_QUEUE_PACKETS)
            self._netlink.tc("add", "pfifo", index, 0, parent=_HANDLE | item.minor, limit=packets)

    def _classes(self, index: int) -> dict[int, HtbClass]:
        found = {}
        for item in self._netlink.get_classes(index):
            if item["handle"] & 0xFFFF_0000 != _HANDLE or item.get_attr("TCA_KIND") != "htb":
                continue
            parameters = item.get_attr("TCA_OPTIONS").get_attr("TCA_HTB_PARMS")
            minor = item["handle"] & 0xFFFF
            found[minor] = HtbClass(minor, parameters["rate"], parameters["ceil"], parameters["prio"])
        return found

    def _ours(self, index: int) -> bool:
        return any(item["handle"] == _HANDLE for item in self._disciplines(index))

    def _parent(self, name: str, index: int) -> int:
        root = next((item for item in self._disciplines(index) if item["parent"] == _ROOT), None)
        if root is None or root["handle"] in (0, _HANDLE):
            return _ROOT
        if root.get_attr("TCA_KIND") == "tbf":
            return int(root["handle"]) | 1
        raise Refused(
            f"The interface {name} has a queueing discipline of somebody else, {root.get_attr('TCA_KIND')}.",
            remedy="Remove it, or take the interface out of the slices.",
        )

    def _disciplines(self, index: int) -> list[Any]:
        return [item for item in self._netlink.get_qdiscs(index) if item["index"] == index]

    def _index(self, name: str) -> int:
        found = self._netlink.link_lookup(ifname=name)
        if not found:
            raise Refused(f"There is no interface {name}.")
        return int(found[0])
