"""The network for applications by ALTO (RFC 7285, performance metrics of RFC 9439): maps of sites, costs between them, costs and properties of endpoints.

A PID is a site with its prefixes; `elsewhere` is everything else. Costs are of the way that packets take by themselves, measured where it is measured.
Like every face of the service it answers callers with a token only.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import orjson
from fastapi import Request, Response

from isthmus.api.routing import Router
from isthmus.api.service import Service, Serving
from isthmus.domain.network import LinkView, NetworkView, NodeKind, PairView
from isthmus.engine.networkview import read_network
from isthmus.store.database import Database
from isthmus.trust.access import Signed

router = Router("alto")
ELSEWHERE = "elsewhere"
_MAP = "sites"
_BASE = "application/alto-"
_PROPERTY = f"{_MAP}.pid"
METRICS = ("routingcost", "delay-ow", "delay-rt", "lossrate", "hopcount")
"""`routingcost` is the one-way delay in milliseconds; delays of RFC 9439 are in microseconds, the loss rate in per cent."""
_MOST = 1000
MOST_COSTS = 90_000
"""Of one answer: a map of 300 sites. Of larger networks there is no whole cost map, only filtered ones."""
_REMEMBERED = 32


class _Wrong(Exception):
    """An ALTO error (RFC 7285, section 8.5.2)."""

    def __init__(self, code: str, **more: object) -> None:
        super().__init__(code)
        self.meta = {"code": code, **more}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sites:
    """The network map with its tag, and the view that it was made of."""

    pids: Mapping[str, Mapping[str, list[str]]]
    tag: str
    view: NetworkView

    @property
    def vtag(self) -> dict[str, str]:
        return {"resource-id": _MAP, "tag": self.tag}

    def pid(self, address: str) -> str:
        """The PID of a typed address, by the longest prefix; Wrong when it is no address."""
        kind, _, text = address.partition(":")
        try:
            found = ipaddress.ip_address(text)
        except ValueError:
            raise _Wrong("E_INVALID_FIELD_VALUE", field="endpoints", value=address) from None
        if kind != f"ipv{found.version}":
            raise _Wrong("E_INVALID_FIELD_VALUE", field="endpoints", value=address)
        best, longest = ELSEWHERE, -1
        for name, families in self.pids.items():
            for prefix in families.get(kind, ()):
                network = ipaddress.ip_network(prefix)
                if found in network and network.prefixlen > longest:
                    best, longest = name, network.prefixlen
        return best


@router.route("GET", "/v1/alto/directory", rule=Signed(None), media=f"{_BASE}directory+json")
async def alto_directory(request: Request, service: Serving) -> Response:
    """What there is, and which costs (RFC 7285, section 9.2)."""
    base = str(request.base_url).rstrip("/") + "/v1/alto"
    names = [f"num-{metric}" for metric in METRICS]
    costs = {"cost-type-names": names}
    resources: dict[str, Any] = {
        _MAP: {"uri": f"{base}/networkmap", "media-type": f"{_BASE}networkmap+json"},
        "filtered-sites": {
            "uri": f"{base}/networkmap/filtered",
            "media-type": f"{_BASE}networkmap+json",
            "accepts": f"{_BASE}networkmapfilter+json",
            "uses": [_MAP],
        },
        "filtered-costs": {
            "uri": f"{base}/costmap/filtered",
            "media-type": f"{_BASE}costmap+json",
            "accepts": f"{_BASE}costmapfilter+json",
            "capabilities": {**costs, "cost-constraints": False},
            "uses": [_MAP],
        },
        "endpoint-costs": {
            "uri": f"{base}/endpointcost",
            "media-type": f"{_BASE}endpointcost+json",
            "accepts": f"{_BASE}endpointcostparams+json",
            "capabilities": {**costs, "cost-constraints": False},
        },
        "endpoint-properties": {
            "uri": f"{base}/endpointprop",
            "media-type": f"{_BASE}endpointprop+json",
            "accepts": f"{_BASE}endpointpropparams+json",
            "capabilities": {"prop-types": [_PROPERTY]},
            "uses": [_MAP],
        },
    }
    count = len((await _sites(service)).pids) - 1
    for metric in METRICS if count * count <= MOST_COSTS else ():
        resources[f"costs-{metric}"] = {
            "uri": f"{base}/costmap/{metric}",
            "media-type": f"{_BASE}costmap+json",
            "capabilities": {"cost-type-names": [f"num-{metric}"]},
            "uses": [_MAP],
        }
    types = {f"num-{metric}": {"cost-mode": "numerical", "cost-metric": metric} for metric in METRICS}
    meta = {"default-alto-network-map": _MAP, "cost-types": types}
    return _answer("directory", {"meta": meta, "resources": resources})


@router.route("GET", "/v1/alto/networkmap", rule=Signed(None), media=f"{_BASE}networkmap+json")
async def alto_network_map(service: Serving) -> Response:
    """The sites and their prefixes (section 11.2.1)."""
    sites = await _sites(service)
    return _answer("networkmap", {"meta": {"vtag": sites.vtag}, "network-map": sites.pids})


@router.route("POST", "/v1/alto/networkmap/filtered", rule=Signed(None), media=f"{_BASE}networkmap+json", errors=[400])
async def alto_filtered_network_map(request: Request, service: Serving) -> Response:
    """Some of them (section 11.3.1)."""

    async def make() -> Response:
        asked = await _asked(request)
        wanted = _texts(asked, "pids")
        sites = await _sites(service)
        pids = {name: value for name, value in sites.pids.items() if not wanted or name in wanted}
        return _answer("networkmap", {"meta": {"vtag": sites.vtag}, "network-map": pids})

    return await _or_error(make)


@router.route("GET", "/v1/alto/costmap/{metric}", rule=Signed(None), media=f"{_BASE}costmap+json", errors=[400, 404])
async def alto_cost_map(service: Serving, metric: str) -> Response:
    """The cost between every two sites (section 11.2.3)."""

    async def make() -> Response:
        if metric not in METRICS:
            raise _Wrong("E_INVALID_FIELD_VALUE", field="cost-metric", value=metric)
        sites = await _sites(service)
        names = [name for name in sites.pids if name != ELSEWHERE]
        return _answer("costmap", await _cost_map(service, sites, metric, names, names))

    return await _or_error(make)


@router.route("POST", "/v1/alto/costmap/filtered", rule=Signed(None), media=f"{_BASE}costmap+json", errors=[400])
async def alto_filtered_cost_map(request: Request, service: Serving) -> Response:
    """The cost between some (section 11.3.2)."""

    async def make() -> Response:
        asked = await _asked(request)
        metric = _metric(asked)
        sites = await _sites(service)
        names = [name for name in sites.pids if name != ELSEWHERE]
        pids = asked.get("pids", {})
        if not isinstance(pids, dict):
            raise _Wrong("E_INVALID_FIELD_TYPE", field="pids")
        chosen = [_texts(pids, side) or names for side in ("srcs", "dsts")]
        known = [[name for name in side if name in names] for side in chosen]
        return _answer("costmap", await _cost_map(service, sites, metric, known[0], known[1]))

    return await _or_error(make)


@router.route("POST", "/v1/alto/endpointcost", rule=Signed(None), media=f"{_BASE}endpointcost+json", errors=[400])
async def alto_endpoint_cost(request: Request, service: Serving) -> Response:
    """The cost between addresses (section 11.5.1)."""

    async def make() -> Response:
        asked = await _asked(request)
        metric = _metric(asked)
        ends = asked.get("endpoints")
        if not isinstance(ends, dict):
            raise _Wrong("E_MISSING_FIELD" if ends is None else "E_INVALID_FIELD_TYPE", field="endpoints")
        sources, targets = _texts(ends, "srcs"), _texts(ends, "dsts")
        if not sources or not targets:
            raise _Wrong("E_MISSING_FIELD", field="endpoints/srcs" if not sources else "endpoints/dsts")
        sites = await _sites(service)
        pids = {address: sites.pid(address) for address in (*sources, *targets)}
        if len(sources) * len(targets) > MOST_COSTS:
            raise _Wrong("E_INVALID_FIELD_VALUE", field="endpoints", value=f"over {MOST_COSTS} costs; ask for fewer")
        chosen = [sorted({pids[one] for one in side} - {ELSEWHERE}) for side in (sources, targets)]
        costs = await _known(service, sites.view, metric, *chosen)
        table = {
            source: {
                target: costs[pids[source], pids[target]] for target in targets if (pids[source], pids[target]) in costs
            }
            for source in sources
        }
        meta = {"cost-type": {"cost-mode": "numerical", "cost-metric": metric}}
        return _answer("endpointcost", {"meta": meta, "endpoint-cost-map": table})

    return await _or_error(make)


@router.route("POST", "/v1/alto/endpointprop", rule=Signed(None), media=f"{_BASE}endpointprop+json", errors=[400])
async def alto_endpoint_property(request: Request, service: Serving) -> Response:
    """The site of addresses (section 11.4.1)."""

    async def make() -> Response:
        asked = await _asked(request)
        wrong = [name for name in _texts(asked, "properties", needed=True) if name != _PROPERTY]
        if wrong:
            raise _Wrong("E_INVALID_FIELD_VALUE", field="properties", value=wrong[0])
        sites = await _sites(service)
        found = {address: {_PROPERTY: sites.pid(address)} for address in _texts(asked, "endpoints", needed=True)}
        meta = {"dependent-vtags": [sites.vtag]}
        return _answer("endpointprop", {"meta": meta, "endpoint-properties": found})

    return await _or_error(make)


async def _sites(service: Service) -> _Sites:
    view = await service.database.read(read_network, service.clock())
    pids: dict[str, dict[str, list[str]]] = {}
    for node in view.nodes:
        if node.kind is NodeKind.SITE and node.prefixes:
            families: dict[str, list[str]] = {}
            for prefix in node.prefixes:
                families.setdefault("ipv6" if ":" in prefix else "ipv4", []).append(prefix)
            pids[node.name] = families
    pids[ELSEWHERE] = {"ipv4": ["0.0.0.0/0"], "ipv6": ["::/0"]}
    tag = hashlib.sha256(orjson.dumps(pids, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]
    return _Sites(pids=pids, tag=tag, view=view)


async def _cost_map(
    service: Service, sites: _Sites, metric: str, sources: Sequence[str], targets: Sequence[str]
) -> dict[str, Any]:
    costs = await _known(service, sites.view, metric, sources, targets)
    meta = {
        "dependent-vtags": [sites.vtag],
        "cost-type": {"cost-mode": "numerical", "cost-metric": metric},
    }
    table = {one: {other: costs[one, other] for other in targets if (one, other) in costs} for one in sources}
    return {"meta": meta, "cost-map": table}


class _Remembered:
    """The costs of the network as it was asked for last, by metric: made anew when anything of it differs."""

    def __init__(self) -> None:
        self._of: object = None
        self._made: dict[tuple[str, frozenset[str], frozenset[str]], dict[tuple[str, str], float]] = {}

    def costs(
        self, view: NetworkView, metric: str, sources: frozenset[str], targets: frozenset[str]
    ) -> Mapping[tuple[str, str], float]:
        """The costs that are known, in the metric's unit."""
        known = (view.nodes, view.links, view.pairs)
        if known != self._of:
            self._of, self._made = known, {}
        key = (metric, sources, targets)
        made = self._made.get(key)
        if made is None:
            if len(self._made) >= _REMEMBERED:
                self._made = {}
            made = self._made[key] = _costs(view, metric, sources, targets)
        return made


_remembered: WeakKeyDictionary[Database, _Remembered] = WeakKeyDictionary()


async def _known(
    service: Service, view: NetworkView, metric: str, sources: Sequence[str], targets: Sequence[str]
) -> Mapping[tuple[str, str], float]:
    """Wrong when so many are asked for that it would keep the service busy."""
    if len(sources) * len(targets) > MOST_COSTS:
        raise _Wrong(
            "E_INVALID_FIELD_VALUE",
            field="pids",
            value=f"{len(sources)} x {len(targets)} costs; at most {MOST_COSTS}: filter",
        )
    remembered = _remembered.setdefault(service.database, _Remembered())
    return await asyncio.to_thread(remembered.costs, view, metric, frozenset(sources), frozenset(targets))


def _costs(
    view: NetworkView, metric: str, sources: Collection[str], targets: Collection[str]
) -> dict[tuple[str, str], float]:
    from isthmus.network.candidates import own_ways

    ways = own_ways(view, sources, targets)
    pairs = {(pair.source, pair.target): pair for pair in view.pairs}
    found: dict[tuple[str, str], float] = {}
    for source in sources:
        for target in targets:
            key = (source, target)
            value = 0.0 if source == target else _cost(metric, pairs.get(key), ways.get(key))
            if value is not None:
                found[key] = round(value, 6)
    return found


def _cost(metric: str, pair: PairView | None, way: tuple[LinkView, ...] | None) -> float | None:
    delays = [link.delay_seconds.value for link in way or () if link.delay_seconds is not None]
    delay = pair.delay_seconds.value if pair and pair.delay_seconds else sum(delays) if delays else None
    match metric:
        case "routingcost":
            return None if delay is None else delay * 1e3
        case "delay-ow":
            return None if delay is None else delay * 1e6
        case "delay-rt":
            two_way = pair.two_way_delay_seconds if pair else None
            return two_way.value * 1e6 if two_way else None if delay is None else 2 * delay * 1e6
        case "lossrate":
            if pair and pair.loss:
                return pair.loss.value * 100
            kept = math.prod(1 - (link.loss.value if link.loss else 0.0) for link in way or ())
            return (1 - kept) * 100 if way else None
        case _:
            return len(way) if way else None


async def _asked(request: Request) -> dict[str, Any]:
    try:
        document = orjson.loads(await request.body())
    except orjson.JSONDecodeError:
        raise _Wrong("E_SYNTAX", **{"syntax-error": "The body is not JSON."}) from None
    if not isinstance(document, dict):
        raise _Wrong("E_SYNTAX", **{"syntax-error": "The body is not an object."})
    return document


def _metric(asked: Mapping[str, Any]) -> str:
    kind = asked.get("cost-type")
    if kind is None:
        raise _Wrong("E_MISSING_FIELD", field="cost-type")
    if not isinstance(kind, dict):
        raise _Wrong("E_INVALID_FIELD_TYPE", field="cost-type")
    for name, known in (("cost-mode", ("numerical",)), ("cost-metric", METRICS)):
        if name not in kind:
            raise _Wrong("E_MISSING_FIELD", field=f"cost-type/{name}")
        if kind[name] not in known:
            raise _Wrong("E_INVALID_FIELD_VALUE", field=f"cost-type/{name}", value=str(kind[name])[:200])
    return str(kind["cost-metric"])


def _texts(asked: Mapping[str, Any], name: str, *, needed: bool = False) -> list[str]:
    value = asked.get(name)
    if value is None:
        if needed:
            raise _Wrong("E_MISSING_FIELD", field=name)
        return []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _Wrong("E_INVALID_FIELD_TYPE", field=name)
    if len(value) > _MOST:
        raise _Wrong("E_INVALID_FIELD_VALUE", field=name, value=f"{len(value)} entries; at most {_MOST}")
    return value


async def _or_error(make: Callable[[], Any]) -> Response:
    try:
        answer: Response = await make()
    except _Wrong as error:
        return Response(orjson.dumps({"meta": error.meta}), status_code=400, media_type=f"{_BASE}error+json")
    return answer


def _answer(kind: str, document: object) -> Response:
    return Response(orjson.dumps(document), media_type=f"{_BASE}{kind}+json")
