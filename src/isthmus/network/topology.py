"""The network as arrays: nodes, and directed links with capacity, latency, loss, price and IGP weight."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from isthmus.domain.errors import Invalid, NotFound

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One direction between two nodes. `loss` is the share of packets lost; `price_per_byte` in the federation's currency."""

    source: str
    target: str
    capacity_bits_per_second: float
    latency_seconds: float = 0.0
    loss: float = 0.0
    price_per_byte: float = 0.0
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Topology:
    """`nodes` names of N nodes; every other column has one entry for each of M links, parallel links are links of their own.

    Links out of node v are `out_links[out_start[v]:out_start[v + 1]]`, in the order of their indices.
    Invalid names the column and the first link that breaks an invariant.
    """

    nodes: tuple[str, ...]
    source: Integers
    target: Integers
    capacity_bits_per_second: Floats
    latency_seconds: Floats
    loss: Floats
    price_per_byte: Floats
    weight: Floats
    out_start: Integers = field(init=False, repr=False)
    out_links: Integers = field(init=False, repr=False)

    def __post_init__(self) -> None:
        count, ends = len(self.nodes), (self.source, self.target)
        if len(set(self.nodes)) != count:
            raise Invalid("nodes", "two nodes have one name.")
        columns = (
            "source",
            "target",
            "capacity_bits_per_second",
            "latency_seconds",
            "loss",
            "price_per_byte",
            "weight",
        )
        for name in columns:
            if getattr(self, name).shape != self.source.shape or self.source.ndim != 1:
                raise Invalid(name, "has not one entry a link.")
        _all("source", (self.source >= 0) & (self.source < count), "starts at no node")
        _all("target", (self.target >= 0) & (self.target < count), "ends at no node")
        _all("target", self.source != self.target, "ends where it starts")
        _all("capacity_bits_per_second", np.isfinite(self.capacity_bits_per_second), "has no finite capacity")
        _all("capacity_bits_per_second", self.capacity_bits_per_second > 0, "has no capacity")
        _all("latency_seconds", self.latency_seconds >= 0, "has a negative latency")
        _all("loss", (self.loss >= 0) & (self.loss < 1), "loses less than nothing, or all")
        _all("price_per_byte", self.price_per_byte >= 0, "has a negative price")
        _all("weight", (self.weight > 0) & np.isfinite(self.weight), "has no positive IGP weight")
        object.__setattr__(self, "out_links", np.argsort(ends[0], kind="stable"))
        object.__setattr__(self, "out_start", np.searchsorted(np.sort(ends[0]), np.arange(count + 1)))

    @classmethod
    def of(cls, nodes: Sequence[str], links: Iterable[Link]) -> Topology:
        """A topology of named nodes and links. NotFound names an end that is no node."""
        index, rows = {name: number for number, name in enumerate(nodes)}, list(links)
        for link in rows:
            for end in (link.source, link.target):
                if end not in index:
                    raise NotFound(f"There is no node {end!r}.")
        return cls(
            nodes=tuple(nodes),
            source=np.array([index[link.source] for link in rows], dtype=np.int64),
            target=np.array([index[link.target] for link in rows], dtype=np.int64),
            capacity_bits_per_second=np.array([link.capacity_bits_per_second for link in rows], dtype=np.float64),
            latency_seconds=np.array([link.latency_seconds for link in rows], dtype=np.float64),
            loss=np.array([link.loss for link in rows], dtype=np.float64),
            price_per_byte=np.array([link.price_per_byte for link in rows], dtype=np.float64),
            weight=np.array([link.weight for link in rows], dtype=np.float64),
        )

    @property
    def node_count(self) -> int:
        """N."""
        return len(self.nodes)

    @property
    def link_count(self) -> int:
        """M."""
        return len(self.source)

    def node(self, name: str) -> int:
        """The number of a node; NotFound."""
        try:
            return self.nodes.index(name)
        except ValueError:
            raise NotFound(f"There is no node {name!r}.") from None

    def links_out(self, node: int) -> Integers:
        """Indices of the links that leave a node."""
        return self.out_links[self.out_start[node] : self.out_start[node + 1]]

    def checked_demands(self, demands: Floats) -> Floats:
        """`demands` [N, N] in bits/s from row to column, with a zero diagonal. Invalid on a wrong shape or a negative entry."""
        if demands.shape != (self.node_count, self.node_count):
            raise Invalid("demands", f"shape {demands.shape} for {self.node_count} nodes.")
        if not np.isfinite(demands).all() or (demands < 0).any():
            raise Invalid("demands", "has an entry that is negative or not finite.")
        off = np.array(demands, dtype=np.float64)
        np.fill_diagonal(off, 0.0)
        return off


def _all(column: str, good: NDArray[np.bool_], what: str) -> None:
    if not good.all():
        raise Invalid(column, f"link {int(np.argmin(good))} {what}.")
