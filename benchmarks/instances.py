"""Seeded instances of joint placement for benchmarks and tests of quality.

`federation`: sites of log-normal size (s = 0.8) at the first nodes of a random geometric network (nodes in the unit square, a
spanning tree and the shortest further links, log-normal capacities). Tasks ask for 1 to 64 processors (powers of two, each
0.75 times as frequent as the one before), 2 to 8 GiB for each, a fifth also for 1 to 8 devices at the sites that have them; walltimes are
log-normal (median 1 h, s = 1); three in five bring data (log-normal, s = 1.2) from one site; each has a deadline of 1.2 to 6
times its walltime, and being late costs twice its mean cost. Cost: money (processor and device
hours at the site's tariff, speed of the site), value of time (log-normal, s = 1) of wait, transfer and run, carbon. Capacities
are such that the demand of all tasks is `load` of what all pools have, and that the links carry `load` of what the tasks
would send to where each is cheapest if nothing were scarce. Being deferred costs three times the dearest option's value of time.
"""

from __future__ import annotations

import heapq
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from isthmus.placement.joint.problem import Floats, Ints, Paths, Problem


@dataclass(frozen=True)
class Network:
    """Undirected links between nodes: `ends` [L, 2], `seconds` [L] of latency, `capacity` [L] in any unit."""

    nodes: int
    ends: Ints
    seconds: Floats
    capacity: Floats


def random_network(nodes: int, links: int, seed: int) -> Network:
    """A connected geometric network: the shortest spanning tree, then the shortest links with a detour of more than twice."""
    rng = np.random.default_rng(seed)
    where = rng.random((nodes, 2))
    length = np.linalg.norm(where[:, None] - where[None], axis=2)
    chosen: set[tuple[int, int]] = set()
    inside = {0}
    while len(inside) < nodes:
        a, b = min(((a, b) for a in inside for b in range(nodes) if b not in inside), key=lambda ab: length[ab])
        chosen.add((min(a, b), max(a, b)))
        inside.add(b)
    degree = np.zeros(nodes, int)
    for a, b in chosen:
        degree[[a, b]] += 1
    rest = sorted((length[a, b] * (degree[a] + degree[b]), a, b) for a in range(nodes) for b in range(a))
    for _, a, b in rest:
        if len(chosen) == links:
            break
        chosen.add((min(a, b), max(a, b)))
    ends = np.array(sorted(chosen), np.int32)
    seconds = 0.02 * length[ends[:, 0], ends[:, 1]]
    return Network(nodes, ends, seconds, rng.lognormal(0.0, 0.5, len(ends)))


def read_network(path: Path) -> Network:
    """A network of ../shared/data/networks/teal (node-link JSON); the two directions of a link are one."""
    document = json.loads(path.read_text())
    number = {node["id"]: index for index, node in enumerate(document["nodes"])}
    found: dict[tuple[int, int], float] = {}
    for link in document["links"]:
        a, b = sorted((number[link["source"]], number[link["target"]]))
        found[a, b] = max(found.get((a, b), 0.0), float(link["capacity"]))
    return Network(
        len(number),
        np.array(sorted(found), np.int32),
        np.full(len(found), 0.01),
        np.array([found[e] for e in sorted(found)]),
    )


def shortest_paths(network: Network, source: int, target: int, count: int) -> list[list[int]]:
    """Up to `count` loopless paths in order of latency, as lists of links (Yen 1971)."""
    around: list[list[tuple[int, int]]] = [[] for _ in range(network.nodes)]
    for link, (a, b) in enumerate(network.ends.tolist()):
        around[a].append((b, link))
        around[b].append((a, link))
    seconds = network.seconds.tolist()

    def best(start: int, no_nodes: set[int], no_links: set[int]) -> tuple[float, list[int], list[int]] | None:
        heap: list[tuple[float, int]] = [(0.0, start)]
        far = {start: 0.0}
        via: dict[int, tuple[int, int]] = {}
        while heap:
            length, node = heapq.heappop(heap)
            if node == target:
                links, nodes = [], [target]
                while node != start:
                    node, link = via[node]
                    links.append(link)
                    nodes.append(node)
                return length, links[::-1], nodes[::-1]
            if length > far[node]:
                continue
            for other, link in around[node]:
                if other in no_nodes or link in no_links or length + seconds[link] >= far.get(other, np.inf):
                    continue
                far[other] = length + seconds[link]
                via[other] = (node, link)
                heapq.heappush(heap, (far[other], other))
        return None

    if source == target:
        return [[]]
    first = best(source, set(), set())
    if first is None:
        return []
    found = [(first[1], first[2])]
    waiting: list[tuple[float, list[int], list[int]]] = []
    while len(found) < count:
        links, nodes = found[-1]
        for spur in range(len(links)):
            taken = {known[0][spur] for known in found if known[0][:spur] == links[:spur] and len(known[0]) > spur}
            tail = best(nodes[spur], set(nodes[:spur]), taken)
            if tail is not None:
                whole = links[:spur] + tail[1]
                option = (sum(seconds[link] for link in whole), whole, nodes[:spur] + tail[2])
                if option not in waiting:
                    heapq.heappush(waiting, option)
        if not waiting:
            break
        _, links, nodes = heapq.heappop(waiting)
        found.append((links, nodes))
    return [links for links, _ in found]


def path_table(network: Network, sources: list[int], targets: list[int], count: int, price: float) -> Paths:
    """Candidate paths between nodes; a unit of volume costs `price` for each second of latency beyond the first path's."""
    cost = np.full((len(sources), len(targets), count), np.inf)
    start, links = [0], []
    for n, source in enumerate(sources):
        for s, target in enumerate(targets):
            found = shortest_paths(network, source, target, count)
            for k in range(count):
                if k < len(found):
                    cost[n, s, k] = price * network.seconds[found[k]].sum()
                    links.extend(found[k])
                start.append(len(links))
    return Paths(cost=cost, start=np.array(start, np.int32), links=np.array(links, np.int32))


@dataclass(frozen=True)
class World:
    """What stays from round to round: network, paths, and of each site size, speed, tariff, wait, carbon, devices."""

    network: Network
    paths: Paths
    size: Floats
    speed: Floats
    tariff: Floats
    wait_hours: Floats
    carbon: Floats
    devices: Floats


def make_world(sites: int, network: Network, seed: int, path_count: int = 3) -> World:
    """Sites at the first nodes of the network."""
    rng = np.random.default_rng(seed)
    nodes = list(range(sites))
    return World(
        network=network,
        paths=path_table(network, nodes, nodes, path_count, price=1.0),
        size=rng.lognormal(0.0, 0.8, sites),
        speed=rng.uniform(0.6, 1.6, sites),
        tariff=rng.lognormal(np.log(0.03), 0.5, sites),
        wait_hours=rng.exponential(0.3, sites),
        carbon=rng.uniform(0.02, 0.7, sites),
        devices=rng.random(sites) < 0.5,
    )


def federation(world: World, tasks: int, seed: int, load: float = 0.85, buckets: int = 1) -> Problem:
    """One round of tasks; the same world and another seed is the next round. `buckets` of half an hour, or none."""
    rng = np.random.default_rng(seed)
    sites = len(world.size)
    cpus = 2.0 ** rng.choice(7, tasks, p=0.75 ** np.arange(7) / (0.75 ** np.arange(7)).sum())
    memory = cpus * rng.uniform(2.0, 8.0, tasks)
    devices = np.where(rng.random(tasks) < 0.2, 2.0 ** rng.integers(0, 4, tasks), 0.0)
    hours = np.clip(rng.lognormal(0.0, 1.0, tasks), 0.05, 24.0)
    value = rng.lognormal(0.0, 1.0, tasks)
    volume = np.where(rng.random(tasks) < 0.6, rng.lognormal(0.0, 1.2, tasks), 0.0)
    source = np.where(volume > 0, rng.choice(sites, tasks, p=world.size / world.size.sum()), -1).astype(np.int32)

    run = hours[:, None] / world.speed
    money = (cpus[:, None] + 20 * devices[:, None]) * world.tariff * run
    carbon = (0.01 * cpus[:, None] + 0.3 * devices[:, None]) * run * world.carbon * 0.1
    noise = rng.uniform(0.9, 1.1, (tasks, sites))  # each task suits some machines better than others
    cost = (money + carbon + value[:, None] * (world.wait_hours + run)) * noise
    possible = (devices[:, None] == 0) | world.devices[None, :].astype(bool)
    demand = np.stack([cpus, memory, devices], axis=1)
    duration = np.ones((tasks, sites), np.int16)
    lead = np.zeros((tasks, sites), np.int16)
    window = np.ones((tasks, sites), np.int16)
    allowed = rng.uniform(1.2, 6.0, tasks) * hours + 0.3
    due = np.where(world.wait_hours + run <= allowed[:, None], 0, -1).astype(np.int16)
    defer = 3.0 * (money + carbon + value[:, None] * (world.wait_hours + run)).max(axis=1)
    late = 2.0 * cost.mean(axis=1)
    if buckets > 1:
        duration = np.clip(np.ceil(run * 2), 1, buckets).astype(np.int16)
        moving = np.clip(np.ceil(volume / 4.0), 1, 3).astype(np.int16)
        window = np.repeat(moving[:, None], sites, axis=1)
        local = (source[:, None] == np.arange(sites)) | (source < 0)[:, None]
        lead = np.where(local, 0, window).astype(np.int16)
        slack = rng.integers(0, 2 * buckets, tasks)
        due = np.clip(slack[:, None] - lead, 0, buckets).astype(np.int16)
    cost = np.where(possible, cost, np.inf)

    share = world.size[:, None] * np.stack([np.ones(sites), np.ones(sites), world.devices.astype(float)], axis=1)
    share /= share.sum(axis=0)
    work = demand if buckets == 1 else demand * duration.mean(axis=1)[:, None] / buckets
    capacity = np.repeat((share * work.sum(axis=0) / load)[:, :, None], buckets, axis=2)
    capacity = np.maximum(capacity, 64.0 * (share > 0)[:, :, None])

    flow = np.zeros(len(world.network.capacity))
    cheapest = np.argmin(cost, axis=1)
    for t in np.flatnonzero(source >= 0):
        flow[world.paths.of(source[t], cheapest[t], 0)] += volume[t]
    link = world.network.capacity / world.network.capacity.sum() * flow.sum() / load / buckets
    return Problem(
        cost=cost,
        demand=demand,
        capacity=capacity,
        duration=duration,
        lead=lead,
        window=window,
        volume=volume,
        source=source,
        paths=world.paths,
        link_capacity=np.repeat(link[:, None], buckets, axis=1),
        delay_cost=0.5 * value,
        due=due,
        late_cost=late,
        defer_cost=defer,
        home=np.full(tasks, -1, np.int32),
        alone=np.zeros(0),
    )


def offloading(
    network: Network, sites: int, tasks: int, seed: int, load: float, weights: Floats | None = None
) -> Problem:
    """Tasks with data at any node (by `weights` [nodes]), each with 2 to 4 candidate sites; maximise the admitted demand.

    Sites lie at random nodes, with log-normal speed and wait. The demand of all is 0.85 of the processors; their data over the
    shortest paths to the nearest candidates would be `load` of what all links carry. Being refused costs 100 for each
    unit of data, which outweighs all else.
    """
    rng = np.random.default_rng(seed)
    where = rng.permutation(network.nodes)[:sites].tolist()
    paths = path_table(network, list(range(network.nodes)), where, 3, price=0.01)
    source = rng.choice(network.nodes, tasks, p=weights).astype(np.int32)
    volume = rng.lognormal(0.0, 1.0, tasks)
    cpus = 2.0 ** rng.integers(0, 6, tasks)
    hours = rng.lognormal(0.0, 0.8, tasks)
    cost = rng.exponential(0.3, sites) + hours[:, None] / rng.lognormal(0.0, 0.4, sites)
    allowed = np.argsort(rng.random((tasks, sites)), axis=1) < rng.integers(2, 5, tasks)[:, None]
    hops = np.array([[len(paths.of(n, s, 0)) for s in range(sites)] for n in range(network.nodes)])
    nearest = np.where(allowed, hops[source], 99).min(axis=1)
    size = rng.lognormal(0.0, 0.5, sites)
    flat = (tasks, sites)
    return Problem(
        cost=np.where(allowed, cost, np.inf),
        demand=cpus[:, None],
        capacity=(size / size.sum() * cpus.sum() / 0.85)[:, None, None],
        duration=np.ones(flat, np.int16),
        lead=np.zeros(flat, np.int16),
        window=np.ones(flat, np.int16),
        volume=volume,
        source=source,
        paths=paths,
        link_capacity=(network.capacity / network.capacity.sum() * (volume * nearest).sum() / load)[:, None],
        delay_cost=np.zeros(tasks),
        due=np.zeros(flat, np.int16),
        late_cost=np.zeros(tasks),
        defer_cost=100.0 * volume,
        home=np.full(tasks, -1, np.int32),
        alone=np.zeros(0),
    )
