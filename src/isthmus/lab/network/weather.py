"""Failures, partitions and brown-outs of a network that runs, and their end."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable

from isthmus.domain.errors import NotFound
from isthmus.lab.errors import LabError
from isthmus.lab.namespaces import processes_in
from isthmus.lab.network import conditions as conditions_file
from isthmus.lab.network.conditions import Brownout, Conditions, changing
from isthmus.lab.network.places import DELAY_PROCESS, DELAYS, directory_of, namespace_of, read_topology
from isthmus.lab.network.plant import Plant, is_delayed
from isthmus.lab.network.possible import check_root
from isthmus.lab.proc import send_signal
from isthmus.lab.processes import State


class Weather:
    """Makes a running network worse and better, from any process of root."""

    def __init__(self, name: str) -> None:
        """Find the network; raises NotFound when there is none of that name, Forbidden without root."""
        check_root()
        self.directory = directory_of(name)
        self.topology = read_topology(self.directory)

    def fail(self, name: str) -> None:
        """Cut a link, or take a node down: all its links, and its processes stand still. Raises NotFound."""
        is_link = self._find(name)

        def change(conditions: Conditions) -> None:
            (conditions.failed_links if is_link else conditions.failed_nodes).add(name)

        self._change(change)

    def partition(self, nodes: Iterable[str]) -> list[str]:
        """Cut all links between these nodes and the others; return their names. Raises NotFound."""
        group = set(nodes)
        for node in group:
            if node not in self.topology.nodes:
                raise self._not_found(node)
        cut = [link.name for link in self.topology.links if len(group.intersection(link.ends)) == 1]
        self._change(lambda conditions: conditions.failed_links.update(cut))
        return cut

    def heal(self, name: str | None = None) -> None:
        """End the failure or brown-out of a link or a node; without a name, all of them. Raises NotFound."""
        if name is not None:
            self._find(name)

        def change(conditions: Conditions) -> None:
            if name is None:
                conditions.failed_links.clear()
                conditions.failed_nodes.clear()
                conditions.brownouts.clear()
            else:
                conditions.failed_links.discard(name)
                conditions.failed_nodes.discard(name)
                conditions.brownouts.pop(name, None)

        self._change(change)

    def brown_out(self, name: str, brownout: Brownout) -> None:
        """Give a link worse figures than its own until it is healed. Raises NotFound, LabError."""
        link = self.topology.link(name)
        if link is None:
            raise self._not_found(name)
        if brownout.delay_seconds is not None and not is_delayed(link):
            raise LabError(
                f"the link {name} was built without a delay, and cannot get one now",
                "Give it a small delay in the topology, such as 1 ms",
            )
        if brownout.loss and link.offload:
            raise LabError(
                f"the link {name} carries trains of packets, and a loss would take whole ones", "Let the next link lose"
            )
        self._change(lambda conditions: conditions.brownouts.update({name: brownout}))

    def reroute(self) -> None:
        """Let the shortest paths avoid what has failed, as routing protocols would some time later."""

        def change(conditions: Conditions) -> None:
            conditions.routed_around = conditions.down(self.topology)

        self._change(change)

    def _change(self, change: Callable[[Conditions], object]) -> None:
        with changing(self.directory) as conditions, Plant(self.topology) as plant:
            before = conditions_file.read(self.directory)
            change(conditions)
            self._apply(plant, before, conditions)

    def _apply(self, plant: Plant, before: Conditions, after: Conditions) -> None:
        for node in before.failed_nodes ^ after.failed_nodes:
            number = signal.SIGSTOP if node in after.failed_nodes else signal.SIGCONT
            for member in processes_in(namespace_of(self.topology, node)):
                send_signal(member, number)
        down_before, down = before.down(self.topology), after.down(self.topology)
        risen: set[str] = set()
        for link in self.topology.links:
            if link.name in down - down_before:
                plant.disconnect(link)
            elif link.name in down_before - down:
                plant.connect(link)
                risen.update(link.ends)
        if before.routed_around != after.routed_around:
            risen = set(self.topology.nodes)
        plant.route(sorted(risen), avoid=after.routed_around, down=down)
        self._worsen(plant, before, after)

    def _worsen(self, plant: Plant, before: Conditions, after: Conditions) -> None:
        pairs = [(before.effective(link), after.effective(link)) for link in self.topology.links]
        now = [new for _old, new in pairs]
        changed = [(old, new) for old, new in pairs if old != new]
        for old, new in changed:
            if old.rate_bits_per_second != new.rate_bits_per_second:
                plant.set_rate(new)
        plant.set_losses(now, {end for old, new in changed if old.loss != new.loss for end in new.ends})
        if any(old.delay_seconds != new.delay_seconds for old, new in changed):
            plant.write_delays(self.directory / DELAYS, now)
            delayer = State.read(self.directory).processes.get(DELAY_PROCESS)
            if delayer is not None:
                send_signal(delayer, signal.SIGHUP)

    def _find(self, name: str) -> bool:
        """Whether the name is a link's; raises NotFound when it is no node's either."""
        if self.topology.link(name) is not None:
            return True
        if name in self.topology.nodes:
            return False
        raise self._not_found(name)

    def _not_found(self, name: str) -> NotFound:
        known = ", ".join([*(link.name for link in self.topology.links), *self.topology.nodes])
        return NotFound(f"The network has no {name}.", remedy=f"It has: {known}.")
