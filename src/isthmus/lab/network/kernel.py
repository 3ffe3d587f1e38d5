"""What the kernel is told about one node of an emulated network: interfaces, addresses, routes, rate, loss, delay queues.

Rate: a token bucket (tbf) at the sending end, with a plain FIFO inside, which a controller of slices may replace. Loss:
nftables at the receiving end. Delay: packets are queued to a process (NFQUEUE; see `delay`), since many kernels have no
netem. A packet is at most as long as the link's MTU: segmentation offload is off, as on a real wire, save on links that
are said to have it.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from isthmus.lab.errors import LabError
from isthmus.lab.namespaces import NAMESPACES, inside
from isthmus.lab.network.addressing import Route
from isthmus.lab.packages import find_program

TABLE = "isthmus_lab"
ROOT_HANDLE = 0x10000
_ROOT_PARENT = 0xFFFFFFFF
_PERMANENT = 0x80
_NO_DAD = 0x02
_QUEUE_SECONDS = 0.05
"""How long the FIFO before a rate is, at that rate: what keeps TCP from standing still and is no lake."""
_LEAST_QUEUE_BYTES = 64_000
_BURST_SECONDS = 0.002
_LONGEST_TRAIN = 70_000
"""64 KiB with the heads of its packets."""
_TCP_MEMORY = "4096 262144 134217728"
"""Windows that fill a long fat link, as on hosts that move data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DelayQueue:
    """A queue of one namespace: what comes in by an interface, or what leaves by it, waits there."""

    interface: str
    is_incoming: bool
    number: int


class Node:
    """One namespace and its netlink socket."""

    def __init__(self, namespace: str) -> None:
        """Open the socket in the namespace, which is there already."""
        self.namespace = namespace
        with inside(namespace):
            self._netlink = IPRoute()
        self._indexes: dict[str, int] = {}

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    def prepare(self, *, forwards: bool) -> None:
        """Set what the whole namespace needs: addresses at once, segment routing, forwarding, windows; loopback up."""
        settings = {
            "net/ipv4/ip_forward": "1" if forwards else "0",
            "net/ipv6/conf/all/forwarding": "1" if forwards else "0",
            "net/ipv4/tcp_rmem": _TCP_MEMORY,
            "net/ipv4/tcp_wmem": _TCP_MEMORY,
            "net/ipv4/fib_multipath_hash_policy": "1",
            "net/ipv6/fib_multipath_hash_policy": "1",
            "net/ipv6/flowlabel_reflect": "1",
        }
        for scope in ("all", "default", "lo"):
            settings |= {
                f"net/ipv6/conf/{scope}/accept_dad": "0",
                f"net/ipv6/conf/{scope}/accept_ra": "0",
                f"net/ipv6/conf/{scope}/seg6_enabled": "1",
                f"net/ipv6/conf/{scope}/keep_addr_on_down": "1",
                f"net/ipv6/conf/{scope}/ignore_routes_with_linkdown": "1",
                f"net/ipv4/conf/{scope}/rp_filter": "0",
            }
        with inside(self.namespace):
            for name, value in settings.items():
                Path("/proc/sys", name).write_text(value, encoding="ascii")
        self.set_up("lo", up=True)

    def index(self, interface: str) -> int:
        """The number of an interface; raises LabError when there is none of that name."""
        if interface not in self._indexes:
            found = self._netlink.link_lookup(ifname=interface)
            if not found:
                raise LabError(f"there is no interface {interface} in {self.namespace}")
            self._indexes[interface] = found[0]
        return self._indexes[interface]

    def join(self, interface: str, other: Node, other_interface: str, mtu_bytes: int, *, offload: bool) -> None:
        """Make a pair of interfaces, one here and one in the other node; `offload`: packets may cross it in trains."""
        trains = {} if offload else {"gso_max_segs": 1}
        with (NAMESPACES / other.namespace).open() as handle:
            self._netlink.link(
                "add",
                ifname=interface,
                kind="veth",
                mtu=mtu_bytes,
                peer={"ifname": other_interface, "mtu": mtu_bytes, "net_ns_fd": handle.fileno(), **trains},
                **trains,
            )
        if trains:
            for node, name in ((self, interface), (other, other_interface)):
                node._netlink.link("set", index=node.index(name), **trains)

    def set_up(self, interface: str, *, up: bool) -> None:
        """Bring an interface up, or down."""
        self._netlink.link("set", index=self.index(interface), state="up" if up else "down")

    def add_address(self, interface: str, address: str, length: int) -> None:
        """Give an interface an address; nothing happens when it has it."""
        flags = {"flags": _NO_DAD} if ":" in address else {}
        self._netlink.addr("replace", index=self.index(interface), address=address, prefixlen=length, **flags)

    def hardware_address(self, interface: str) -> str:
        """The Ethernet address of an interface."""
        found: str = self._netlink.get_links(self.index(interface))[0].get_attr("IFLA_ADDRESS")
        return found

    def add_neighbour(self, interface: str, address: str, hardware_address: str) -> None:
        """Know a neighbour for good: its discovery would cost the first packets of a link with delay."""
        self._netlink.neigh(
            "replace", dst=address, lladdr=hardware_address, ifindex=self.index(interface), state=_PERMANENT
        )

    def set_route(self, route: Route, interface: str, source: str | None, source4: str | None) -> None:
        """Enter a route to a neighbour; IPv4 goes by the neighbour's IPv6 address (RFC 5549)."""
        arguments: dict[str, Any] = {"dst": route.prefix, "oif": self.index(interface)}
        if ":" in route.prefix:
            arguments |= {"family": socket.AF_INET6, "gateway": route.gateway}
            preferred = source
        else:
            arguments["via"] = {"family": socket.AF_INET6, "addr": route.gateway}
            preferred = source4
        if preferred:
            arguments["prefsrc"] = preferred
        self._netlink.route("replace", **arguments)

    def routed(self) -> list[str]:
        """The prefixes that the main table leads to another node."""
        found = []
        for family in (socket.AF_INET, socket.AF_INET6):
            for route in self._netlink.get_routes(family=family, table=254):
                via = route.get_attr("RTA_GATEWAY") or route.get_attr("RTA_VIA")
                if via:
                    found.append(f"{route.get_attr('RTA_DST')}/{route['dst_len']}")
        return found

    def drop_route(self, prefix: str) -> None:
        """Remove a route of the main table."""
        family = socket.AF_INET6 if ":" in prefix else socket.AF_INET
        self._netlink.route("del", dst=prefix, family=family, table=254)

    def set_rate(self, interface: str, bits_per_second: float, *, trains: bool = False) -> None:
        """Let an interface send no faster than this, line rate of Ethernet frames; what is inside the bucket stays."""
        rate = max(1, int(bits_per_second / 8))
        shown = self._netlink.get_links(self.index(interface))[0].get_attr("IFLA_MTU") + 14
        self._netlink.tc(
            "replace",
            "tbf",
            self.index(interface),
            ROOT_HANDLE,
            rate=rate,
            burst=max(int(rate * _BURST_SECONDS), 3 * shown, _LONGEST_TRAIN if trains else 0),
            limit=max(int(rate * _QUEUE_SECONDS), _LEAST_QUEUE_BYTES),
            mtu=0,
        )

    def clear_rate(self, interface: str) -> None:
        """Let an interface send as fast as it can; nothing happens when it does."""
        if any(
            queue["index"] == self.index(interface) and queue["handle"] == ROOT_HANDLE
            for queue in self._netlink.get_qdiscs()
        ):
            self._netlink.tc("del", index=self.index(interface), handle=ROOT_HANDLE, parent=_ROOT_PARENT)

    def set_losses(self, losses: Mapping[str, float]) -> None:
        """Drop a share of the packets that come in by each interface; those not named lose none."""
        rules = [
            f'  iifname "{interface}" numgen random mod 1000000 < {round(share * 1_000_000)} drop\n'
            for interface, share in losses.items()
            if share > 0
        ]
        table = f"table inet {TABLE}"
        ruleset = f"add {table}\ndelete {table}\n"
        if rules:
            chain = "type filter hook prerouting priority -400; policy accept;"
            ruleset += f"{table} {{\n chain loss {{\n  {chain}\n{''.join(rules)} }}\n}}\n"
        self._feed(["nft", "-f", "-"], ruleset)

    def set_queues(self, queues: Iterable[DelayQueue]) -> None:
        """Queue what comes in by, or leaves by, some interfaces for the delay process."""
        # By iptables: its NFQUEUE target is there in kernels that lack the queue statement of nftables.
        rules: dict[bool, str] = {True: "", False: ""}
        for queue in queues:
            chain = "PREROUTING -i" if queue.is_incoming else "POSTROUTING -o"
            words = f"-A {chain} {queue.interface} -j NFQUEUE --queue-num {queue.number} --queue-bypass\n"
            rules[queue.is_incoming] += words
        for program in ("iptables-legacy-restore", "ip6tables-legacy-restore"):
            self._feed([program], f"*raw\n{rules[True]}COMMIT\n*mangle\n{rules[False]}COMMIT\n")

    def _feed(self, argv: list[str], text: str) -> None:
        program = find_program(argv[0])
        if program is None:
            raise LabError(f"{argv[0]} is not installed", "Run: python -m isthmus.lab.packages")
        with inside(self.namespace):
            # A child starts in the network namespace of the thread that starts it.
            child = subprocess.Popen(
                [program, *argv[1:]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        said, _nothing = child.communicate(text, timeout=60)
        if child.returncode:
            raise LabError(f"{argv[0]} failed in {self.namespace}: {said.strip()[-500:]}")
