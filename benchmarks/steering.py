"""How real routers follow: `python -m benchmarks.steering [--json] [--quick]`, as root.

Two sites, four Linux routers in namespaces, two disjoint paths with links of 100 Mbit/s; each router has its daemon, and a service as people
run it makes them follow what is asked of it over HTTP. Path changes under 20,000 packets/s, by the request that the service makes of a daemon;
failures of links on the path of a policy until the first packet that arrives again, counted from before the link is cut, and until the policy has
its new path; the same for a link that silently drops, by probes beside the router, without the service; a slice of 60 Mbit/s while best effort
floods the link with 150 Mbit/s, and the same without slices.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.machine import describe, table
from benchmarks.serving import Service
from benchmarks.traffic import Flow, Running
from isthmus.client.network import declare_network
from isthmus.domain.networkfile import read_network
from isthmus.lab import namespaces
from isthmus.lab.network.network import EmulatedNetwork
from isthmus.lab.network.reading import read_text
from isthmus.lab.network.showing import declared, enter_command, show
from isthmus.lab.network.weather import Weather
from isthmus.network.control.client import RouterClient
from isthmus.network.control.desired import Match, WeightedPath
from isthmus.network.control.failover import Candidate, Failover, ProtectedPolicy
from isthmus.network.control.plan import Attachment, Fabric, Router, Steering, Way, policy_name
from isthmus.network.measurement.liveness import Liveness, ProbedPath
from isthmus.network.measurement.reflector import reflecting

NAME = f"s{os.getpid()}"
WAN = f"""
name: {NAME}
control: true
routers: [r1, r2, r3, r4]
sites: {{north: , south: }}
links:
  - {{ends: [north, r1]}}
  - {{ends: [south, r4]}}
  - {{ends: [r1, r2], rate: 100 Mbit/s}}
  - {{ends: [r2, r4], rate: 100 Mbit/s}}
  - {{ends: [r1, r3], rate: 100 Mbit/s}}
  - {{ends: [r3, r4], rate: 100 Mbit/s}}
"""
SOUTH, PREFIX = "fd10:6::1", "fd10:6::/64"
POLICY = policy_name("there", PREFIX)
PATHS = {name: (WeightedPath(segments=(f"fc00:{name[1]}::1", "fc00:4::d6")),) for name in ("r2", "r3")}
R2 = (Way(via=("r2",)),)
LABELS = {"r2": 2, "r3": 3}
"""Flow labels of the packets of measurement over each path."""
PACKETS_PER_SECOND = 20_000
SLICE, FLOOD = 60e6, 150e6
GOLD, STEERED, FLOODED = 46, 10, 12
PAYLOAD = 1400
FRAME = PAYLOAD + 8 + 40 + 40 + 8 + 2 * 16 - 16 + 14
"""UDP, inner and outer IPv6, a segment routing header of one segment (reduced), Ethernet."""


def main() -> None:
    """Measure, print the table, and with --json one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="a fifth of the rounds")
    arguments = parser.parse_args()
    machine = describe()
    os.setpriority(os.PRIO_PROCESS, 0, -15)  # as the routers' daemons; the senders and receivers inherit it
    rounds = 1 if arguments.quick else 5
    with EmulatedNetwork(read_text(WAN)):
        planes, fabric = _connect()
        _apply(planes, fabric)
        switch = _switch(planes["r1"], changes=40 * rounds)
        silent = _silent_failover(planes, failures=4 * rounds)
        with TemporaryDirectory() as directory, _serving(Path(directory), planes) as service:
            _steer(service)
            failover = _failover(service, failures=8 * rounds)
            _lead(service, "gold", GOLD)
            _lead(service, "flood", FLOODED)
            without = _slices(seconds=3.0 + rounds)
            _give_slice(service)
            with_slices = _slices(seconds=3.0 + rounds)
            left = _take_all_back(service, planes)
    figures = {
        "lost_on_switch": switch["lost"],
        "failover_p95_ms": failover["p95_ms"],
        "slice_share": with_slices["slice"],
        "best_effort_share": with_slices["best_effort"],
        "slice_share_without_slices": without["slice"],
        "flood_sent_of_150_mbit": with_slices["flood_sent"],
        "silent_failover_p95_ms": silent["p95_ms"],
        "switch": switch,
        "failover": failover,
        "silent_failover": silent,
        "left_behind": left,
        "machine": machine,
    }
    print(json.dumps(machine))
    print(table(_rows(figures)))
    if arguments.json:
        print(json.dumps(figures))


def _rows(figures: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    switch, failover = figures["switch"], figures["failover"]
    return [
        (
            f"packets lost in {switch['changes']} path changes ({switch['packets']:,} at {switch['per_second']:,.0f}/s)",
            str(switch["lost"]),
            "0",
            f"{switch['reordered']} came late",
        ),
        ("a path change through the daemon, p50 / p95", f"{switch['p50_ms']} / {switch['p95_ms']} ms", "", ""),
        (
            f"link failure to new path, p95 of {failover['failures']}",
            f"{failover['p95_ms']} ms",
            "<= 300 ms",
            f"p50 {failover['p50_ms']} ms, worst {failover['worst_ms']} ms",
        ),
        (
            f"the same, until the service has given the policy a path without the link, p95 of {failover['failures']}",
            f"{failover['moved_p95_ms']} ms",
            "",
            f"p50 {failover['moved_p50_ms']} ms",
        ),
        (
            f"a link that is up and carries nothing to new path, p95 of {figures['silent_failover']['failures']}",
            f"{figures['silent_failover']['p95_ms']} ms",
            "",
            f"p50 {figures['silent_failover']['p50_ms']} ms; 5 of 50 probes/s missing",
        ),
        (
            "a slice of 60 Mbit/s under a flood: share of its rate that arrives",
            f"{figures['slice_share']:.2%}",
            ">= 99 %",
            f"without slices {figures['slice_share_without_slices']:.2%}",
        ),
        ("the flood of 150 Mbit/s: share that arrives", f"{figures['best_effort_share']:.2%}", "collapses", ""),
        ("policies and slices left at routers after they were given up", str(figures["left_behind"]), "0", ""),
    ]


def _connect() -> tuple[dict[str, RouterClient], Fabric]:
    found = show(NAME)
    routers = [Router(name=router["name"], locator=router["locator"]) for router in found["routers"]]
    attachments = [
        Attachment(site="north", router="r1", prefixes=("fd10:5::/64",)),
        Attachment(site="south", router="r4", prefixes=(PREFIX,)),
    ]
    planes = {router["name"]: RouterClient(Path(router["control"])) for router in found["routers"]}
    return planes, Fabric(routers, attachments)


def _serving(directory: Path, planes: dict[str, RouterClient]) -> Service:
    sockets = [router["control"] for router in show(NAME)["routers"]]
    return Service(directory, options=[word for socket in sockets for word in ("--router", socket)])


def _steer(service: Service) -> None:
    """Declare the network and lead packets with a mark over r2, by calls as people make them."""
    call = next(declare_network(read_network(declared(NAME))))
    service.http.put("/v1/network", json=call.json).raise_for_status()  # type: ignore[union-attr]
    _lead(service, "there", STEERED)


def _lead(service: Service, name: str, dscp: int) -> None:
    asked = {"nodes": ["north", "r1", "r2", "r4", "south"], "dscp": dscp}
    service.http.put(f"/v1/network/policies/{name}", json=asked).raise_for_status()
    service.until(lambda: _policies(service)[name]["programmed_at"], 30)


def _policies(service: Service) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in service.http.get("/v1/network/policies").json()["items"]}


def _give_slice(service: Service) -> None:
    asked = {"bits_per_second": SLICE, "links": ["r1-r2", "r2-r4", "r1-r3", "r3-r4"], "dscp": GOLD}
    service.http.put("/v1/network/slices/gold", json=asked).raise_for_status()
    service.until(lambda: service.http.get("/v1/network/slices").json()["items"][0]["programmed_at"], 30)


def _take_all_back(service: Service, planes: dict[str, RouterClient]) -> int:
    """Give everything up; what routers still have of it when the service says that it is gone."""
    for path in ("policies/there", "policies/gold", "policies/flood", "slices/gold"):
        service.http.delete(f"/v1/network/{path}").raise_for_status()
    for kind in ("policies", "slices"):
        service.until(lambda kind=kind: not service.http.get(f"/v1/network/{kind}").json()["items"], 30)
    states = [plane.state() for plane in planes.values()]
    return sum(len(state.policies) + len(state.interfaces) for state in states)


def _failover(service: Service, failures: int) -> dict[str, Any]:
    """Cut a link of the policy's path, wait until the service has moved it, and heal the link, many times."""
    weather = Weather(NAME)
    running = _flow(7002, 2000, 2.0 + failures * 2.6, 200, dscp=STEERED)
    time.sleep(1.0)
    cuts: list[float] = []
    heals: list[float] = []
    moved: list[float] = []
    for number in range(failures):
        over = _policies(service)["there"]["nodes"][2]
        # Near the ingress router and far from it in turn.
        link = (f"r1-{over}", f"{over}-r4")[number % 2]
        cuts.append(time.time())
        weather.fail(link)
        service.until(
            lambda over=over: (one := _policies(service)["there"])["nodes"][2] != over and one["programmed_at"],
            10,
            pause=0.02,
        )
        moved.append((time.time() - cuts[-1]) * 1e3)
        time.sleep(0.25)
        heals.append(time.time())
        weather.heal(link)
        time.sleep(0.7)
    result = running.result()
    outages = _outages(result["holes"], cuts, heals)
    return {
        "failures": len(cuts),
        "seen": sum(outage > 0 for outage in outages),
        "p50_ms": round(statistics.median(outages), 1),
        "p95_ms": round(_quantile(outages, 0.95), 1),
        "worst_ms": round(max(outages), 1),
        "moved_p50_ms": round(statistics.median(moved), 1),
        "moved_p95_ms": round(_quantile(moved, 0.95), 1),
        "lost": result["lost"],
        "sent": result["sent"],
    }


def _outages(holes: list[list[float]], cuts: list[float], heals: list[float]) -> list[float]:
    """From before each cut to the first packet behind the last hole that it made; 0 where it made none."""
    found = []
    for cut, healed in zip(cuts, heals, strict=True):
        behind = [after for *_numbers, before, after in holes if after > cut and before < healed]
        found.append((max(behind) - cut) * 1e3 if behind else 0.0)
    return found


def _apply(planes: dict[str, RouterClient], fabric: Fabric) -> None:
    steerings = [
        Steering(name="there", source="north", target="south", ways=R2),
        Steering(name="back", source="south", target="north", ways=R2),
        *(
            Steering(
                name=f"probe-{name}",
                source="north",
                target="south",
                ways=(Way(via=(name,)),),
                match=Match(flow_label=label),
            )
            for name, label in LABELS.items()
        ),
    ]
    for name, state in fabric.states(steerings).items():
        planes[name].apply(state)


def _flow(port: int, per_second: float, seconds: float, size: int, dscp: int = 0, burst: int = 1) -> Running:
    return Running(
        Flow(
            network=NAME,
            source="north",
            target="south",
            address=SOUTH,
            port=port,
            per_second=per_second,
            seconds=seconds,
            size=size,
            dscp=dscp,
            burst=burst,
        )
    )


def _switch(plane: RouterClient, changes: int) -> dict[str, Any]:
    seconds = 2.0 + changes * 0.035
    here = plane.state()
    states = {
        name: replace(
            here, policies=tuple(replace(one, paths=paths) if one.name == POLICY else one for one in here.policies)
        )
        for name, paths in PATHS.items()
    }
    running = _flow(7001, PACKETS_PER_SECOND, seconds, 100)
    time.sleep(0.8)
    took = []
    for number in range(changes):
        begun = time.perf_counter()
        plane.apply(states["r3" if number % 2 == 0 else "r2"])
        took.append((time.perf_counter() - begun) * 1e3)
        time.sleep(0.018)
    result = running.result()
    return {
        "changes": changes,
        "packets": result["sent"],
        "per_second": result["sent"] / result["seconds"],
        "lost": result["lost"],
        "reordered": result["reordered"],
        "p50_ms": round(statistics.median(took), 1),
        "p95_ms": round(_quantile(took, 0.95), 1),
    }


def _silent_failover(planes: dict[str, RouterClient], failures: int) -> dict[str, Any]:
    """Let r2 drop silently what comes in, and end that again, many times."""
    weather = Weather(NAME)
    ends = {
        (end, f"to-{link.other(end)}"): link.name
        for link in weather.topology.links
        for end in link.ends
        if end in planes
    }
    moved = threading.Semaphore(0)
    links = {name: frozenset({name, f"r1-{name}", f"{name}-r4"}) for name in PATHS}
    candidates = tuple(Candidate(paths=PATHS[name], links=links[name]) for name in ("r2", "r3"))
    policy = ProtectedPolicy(router="r1", policy=POLICY, candidates=candidates)
    planes["r1"].set_paths(POLICY, PATHS["r2"])
    cuts: list[float] = []
    heals: list[float] = []

    def told(_policy: ProtectedPolicy, _path: Candidate) -> None:
        moved.release()

    with ExitStack() as stack:
        failover = stack.enter_context(Failover(planes, ends, [policy], told=told, wait_to_restore_seconds=0.5))
        _probe(stack, failover)
        running = _flow(7002, 2000, 2.0 + failures * 2.2, 200)
        time.sleep(1.0)
        for _ in range(failures):
            cuts.append(time.time())
            _silence(True)
            moved.acquire(timeout=10)
            time.sleep(0.25)
            heals.append(time.time())
            _silence(False)
            moved.acquire(timeout=10)
            time.sleep(0.25)
        result = running.result()
    outages = _outages(result["holes"], cuts, heals)
    return {
        "failures": len(cuts),
        "seen": sum(outage > 0 for outage in outages),
        "p50_ms": round(statistics.median(outages), 1),
        "p95_ms": round(_quantile(outages, 0.95), 1),
        "worst_ms": round(max(outages), 1),
        "lost": result["lost"],
        "sent": result["sent"],
    }


def _probe(stack: ExitStack, failover: Failover) -> None:
    """Packets of measurement over each path, from north to a reflector at south, until the stack ends."""
    spaces = {site["name"]: site["namespace"] for site in show(NAME)["sites"]}
    with namespaces.inside(spaces["south"]):
        stack.enter_context(reflecting(["fd10::/16"], wait_seconds=0.02))
    with namespaces.inside(spaces["north"]):
        probed = [ProbedPath(name=name, target=SOUTH, flow_label=label) for name, label in LABELS.items()]
        liveness = Liveness(probed, lambda name, alive: failover.report(name, is_whole=alive))
    stack.enter_context(liveness)


def _silence(silent: bool) -> None:
    """Let r2 drop what comes from r1, while its links stay up; or end that."""
    hook = "type filter hook prerouting priority -300;"
    text = f'table ip6 hole {{ chain c {{ {hook} iifname "to-r1" drop; }}; }}' if silent else "delete table ip6 hole"
    subprocess.run(enter_command(NAME, "r2", ["nft", text]), check=True)


def _slices(seconds: float) -> dict[str, float]:
    """What arrives of the slice's flow and of the flood, in the tenths of a second in which both are sent."""
    slow, fast = SLICE / 8 / FRAME, FLOOD / 8 / FRAME
    flood = _flow(7004, fast, seconds + 2.0, PAYLOAD, dscp=FLOODED)
    time.sleep(0.5)
    gold = _flow(7003, slow, seconds, PAYLOAD, dscp=GOLD)
    results = gold.result(), flood.result()
    gold_by, flood_by = ({int(key): value for key, value in result["by_tenth"].items()} for result in results)
    # Without the first half second, in which queues fill, and the last tenths.
    span = range(min(gold_by) + 5, max(gold_by) - 2)
    return {
        "slice": sum(gold_by.get(tenth, 0) for tenth in span) / (len(span) * slow / 10),
        "best_effort": sum(flood_by.get(tenth, 0) for tenth in span) / (len(span) * fast / 10),
        "flood_sent": results[1]["sent"] / results[1]["seconds"] / fast,
    }


def _quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


if __name__ == "__main__":
    main()
