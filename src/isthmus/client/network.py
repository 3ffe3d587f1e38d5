"""Every call of the REST face about the network, as steps; nothing here does I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from isthmus.client.operations import every
from isthmus.client.wire import Steps, request, send
from isthmus.domain.network import DeclaredNetwork, NetLink, NetNode

Document = dict[str, Any]


def network() -> Steps[Document]:
    """The network as it is known now: nodes, links and pairs of sites with their figures."""
    return _object((yield from send(request("GET", "/v1/network"))).document())


def declare_network(declared: DeclaredNetwork, *, dry_run: bool = False) -> Steps[Document]:
    """Make this what is declared of the network; answers what differs from before."""
    body = {"nodes": [_node(node) for node in declared.nodes], "links": [_link(link) for link in declared.links]}
    params = {"dry_run": True} if dry_run else None
    return _object((yield from send(request("PUT", "/v1/network", params=params, json=body))).document())


def paths(source: str, target: str, *, size_bytes: int = 10**9, limit: int = 4) -> Steps[Document]:
    """The paths from one node to another, the one that moves `size_bytes` soonest first."""
    params = {"source": source, "target": target, "size_bytes": size_bytes, "limit": limit}
    return _object((yield from send(request("GET", "/v1/network/paths", params=params))).document())


def policies() -> Steps[list[Document]]:
    """The policies of transfers, tasks and operators."""
    return (yield from every("/v1/network/policies", dict, paged=False))


def steer(
    name: str,
    nodes: Sequence[str],
    *,
    dscp: int | None = None,
    flow_label: int | None = None,
    application_id: int | None = None,
    from_prefix: str | None = None,
) -> Steps[Document]:
    """Let packets with these marks go over these nodes; without marks the service chooses one."""
    marks = {"dscp": dscp, "flow_label": flow_label, "application_id": application_id, "from_prefix": from_prefix}
    body = {"nodes": list(nodes), **{key: value for key, value in marks.items() if value is not None}}
    call = request("PUT", f"/v1/network/policies/{quote(name, safe='')}", json=body, repeatable=False)
    return _object((yield from send(call)).document())


def unsteer(name: str) -> Steps[None]:
    """Give a policy up."""
    yield from send(request("DELETE", f"/v1/network/policies/{quote(name, safe='')}"))


def slices() -> Steps[list[Document]]:
    """The slices, and whether routers have them."""
    return (yield from every("/v1/network/slices", dict, paged=False))


def add_slice(
    name: str, links: Sequence[str], *, bits_per_second: float, project: str | None = None, dscp: int | None = None
) -> Steps[Document]:
    """Give a rate of these links, both ways, to a project's transfers or to packets with a DSCP."""
    body: Document = {"links": list(links), "bits_per_second": bits_per_second}
    body |= {key: value for key, value in (("project", project), ("dscp", dscp)) if value is not None}
    call = request("PUT", f"/v1/network/slices/{quote(name, safe='')}", json=body, repeatable=False)
    return _object((yield from send(call)).document())


def remove_slice(name: str) -> Steps[None]:
    """Give a slice up."""
    yield from send(request("DELETE", f"/v1/network/slices/{quote(name, safe='')}"))


def add_operator(user: str) -> Steps[None]:
    """Make a user operator of the network."""
    yield from send(request("PUT", f"/v1/network/operators/{quote(user, safe='')}"))


def remove_operator(user: str) -> Steps[None]:
    """Take the network from an operator."""
    yield from send(request("DELETE", f"/v1/network/operators/{quote(user, safe='')}"))


def _object(document: Any) -> Document:
    return document if isinstance(document, dict) else {}


def _node(node: NetNode) -> Document:
    found: Document = {
        "name": node.name,
        "kind": node.kind.value,
        "address": node.address,
        "address4": node.address4,
        "port": node.port,
    }
    found |= {"prefixes": list(node.prefixes), "locator": node.locator}
    if node.control is not None:
        found["control"] = {"socket": node.control.socket, "agent": node.control.agent}
    return found


def _link(link: NetLink) -> Document:
    return {
        "name": link.name,
        "ends": list(link.ends),
        "capacity_bits_per_second": link.capacity_bits_per_second,
        "delay_seconds": link.delay_seconds,
        "jitter_seconds": link.jitter_seconds,
        "loss": link.loss,
        "mtu_bytes": link.mtu_bytes,
        "price_per_gb": str(link.price_per_gb),
        "interfaces": list(link.interfaces),
    }
