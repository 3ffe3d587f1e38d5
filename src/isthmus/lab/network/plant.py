"""The plant: all namespaces of one topology as the kernel has them, built once and changed as conditions change."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from isthmus.lab.network.addressing import Addressing
from isthmus.lab.network.kernel import DelayQueue, Node
from isthmus.lab.network.places import interface_to, namespace_of
from isthmus.lab.network.topology import Link, Topology


def is_delayed(link: Link) -> bool:
    """Whether a link's packets go through the delay process."""
    return link.delay_seconds > 0


class Plant:
    """Opens a node's netlink socket when it is first needed; used as a context."""

    def __init__(self, topology: Topology) -> None:
        """Touch nothing yet."""
        self.topology = topology
        self.addressing = Addressing(topology)
        self._nodes: dict[str, Node] = {}

    def node(self, name: str) -> Node:
        """The node of that name, whose namespace is there."""
        if name not in self._nodes:
            self._nodes[name] = Node(namespace_of(self.topology, name))
        return self._nodes[name]

    def build(self) -> None:
        """Join the namespaces, which are empty: interfaces, addresses, neighbours, routes, rates, losses."""
        for name in self.topology.nodes:
            node = self.node(name)
            node.prepare(forwards=name in self.topology.routers)
            if name in self.topology.routers:
                node.add_address("lo", self.addressing.router_address(name), 128)
            else:
                node.add_address("lo", self.addressing.site_address(name), 128)
                node.add_address("lo", self.addressing.site_address4(name), 32)
        for link in self.topology.links:
            one, other = link.ends
            self.node(one).join(
                interface_to(other), self.node(other), interface_to(one), link.mtu_bytes, offload=link.offload
            )
            self.connect(link)
        self.route(self.topology.nodes)
        for link in self.topology.links:
            self.set_rate(link)
        lossy = {end for link in self.topology.links if link.loss > 0 for end in link.ends}
        self.set_losses(self.topology.links, lossy)

    def connect(self, link: Link) -> None:
        """Bring a link up with its addresses and neighbours; its routes are another step."""
        for end in link.ends:
            self.node(end).set_up(interface_to(link.other(end)), up=True)
        for end in link.ends:
            other = link.other(end)
            node, interface = self.node(end), interface_to(other)
            node.add_address(interface, self.addressing.link_address(end, other), 64)
            node.add_neighbour(
                interface,
                self.addressing.link_address(other, end),
                self.node(other).hardware_address(interface_to(end)),
            )

    def disconnect(self, link: Link) -> None:
        """Take a link down at both ends; its routes go with it."""
        for end in link.ends:
            self.node(end).set_up(interface_to(link.other(end)), up=False)

    def route(self, nodes: Iterable[str], *, avoid: Collection[str] = (), down: Collection[str] = ()) -> None:
        """Enter the shortest paths that avoid some links at these nodes, and remove what leads nowhere.

        Links named in `down` cannot be entered: the routes over them are left out.
        """
        gone = {link.ends for link in self.topology.links if link.name in down}
        for name in nodes:
            node = self.node(name)
            is_site = name not in self.topology.routers
            source = self.addressing.site_address(name) if is_site else self.addressing.router_address(name)
            source4 = self.addressing.site_address4(name) if is_site else None
            wanted = self.addressing.routes(name, avoid)
            prefixes = {route.prefix for route in wanted}
            for prefix in node.routed():
                if prefix not in prefixes:
                    node.drop_route(prefix)
            for route in wanted:
                if not gone & {(name, route.neighbour), (route.neighbour, name)}:
                    node.set_route(route, interface_to(route.neighbour), source, source4)

    def set_rate(self, link: Link) -> None:
        """Give both ends of a link its rate."""
        for end in link.ends:
            interface = interface_to(link.other(end))
            if link.rate_bits_per_second is None:
                self.node(end).clear_rate(interface)
            else:
                self.node(end).set_rate(interface, link.rate_bits_per_second, trains=link.offload)

    def set_losses(self, links: Iterable[Link], nodes: Iterable[str]) -> None:
        """Give these nodes the losses of their links, which are given as they are now."""
        now = list(links)
        for name in nodes:
            self.node(name).set_losses({interface_to(link.other(name)): link.loss for link in now if name in link.ends})

    def queue(self) -> None:
        """Lead the packets of delayed links to the delay process, which has the queues already."""
        for name, queues in self._queues().items():
            self.node(name).set_queues(queue for queue, _link in queues)

    def write_delays(self, file: Path, links: Iterable[Link]) -> None:
        """Write the file that the delay process reads; the links are given as they are now."""
        now = {link.name: link for link in links}
        entries = [
            {
                "namespace": namespace_of(self.topology, name),
                "queue": queue.number,
                "delay_seconds": now[link].delay_seconds,
                "jitter_seconds": now[link].jitter_seconds,
            }
            for name, queues in self._queues().items()
            for queue, link in queues
        ]
        fresh = file.with_suffix(".new")
        fresh.write_text(json.dumps(entries), encoding="utf-8")
        fresh.replace(file)

    def _queues(self) -> dict[str, list[tuple[DelayQueue, str]]]:
        """Node -> its queues with the names of their links.

        Packets wait at routers, not at sites: there the kernel stamps a packet's time before it would wait on its way in, and
        after it has waited on its way out, so that a delay could not be measured.
        """
        found: dict[str, list[tuple[DelayQueue, str]]] = {}
        for link in self.topology.links:
            if not is_delayed(link):
                continue
            for sender, receiver in (link.ends, link.ends[::-1]):
                at_sender = receiver not in self.topology.routers and sender in self.topology.routers
                node, neighbour = (sender, receiver) if at_sender else (receiver, sender)
                queues = found.setdefault(node, [])
                queue = DelayQueue(interface=interface_to(neighbour), is_incoming=not at_sender, number=len(queues))
                queues.append((queue, link.name))
        return found

    def close(self) -> None:
        """Close the sockets; the namespaces stay."""
        for node in self._nodes.values():
            node.close()
        self._nodes.clear()

    def __enter__(self) -> Self:
        """Return the plant."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the sockets."""
        self.close()
