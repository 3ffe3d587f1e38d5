"""ALTO in the form of RFC 7285's own examples: directory, maps, filtered maps, endpoint services, errors, tags."""

from __future__ import annotations

import copy
from typing import Any

import httpx
import pytest

from isthmus.client.network import declare_network
from isthmus.domain.network import Figure, Metric, Source
from isthmus.domain.networkfile import read_network
from isthmus.engine.declaring import Measured, record
from tests.api.conftest import House, problem_of

# The prefixes of the examples in RFC 7285, section 11.2.1.7: three PIDs.
FILE = {
    "routers": ["r1"],
    "sites": {
        "pid1": {"prefixes": ["192.0.2.0/24", "198.51.100.0/25"]},
        "pid2": {"prefixes": ["198.51.100.128/25"]},
        "pid3": {"prefixes": ["2001:db8::/32"]},
    },
    "links": [
        {"ends": ["pid1", "r1"], "delay": "1 ms"},
        {"ends": ["pid2", "r1"], "delay": "4 ms", "loss": 0.01},
        {"ends": ["pid3", "r1"], "delay": "9 ms"},
    ],
}
ROUTING = {"cost-mode": "numerical", "cost-metric": "routingcost"}


@pytest.fixture
async def alto(admin: httpx.AsyncClient) -> httpx.AsyncClient:
    """A client of a service that knows the network."""
    await declare(admin, FILE)
    return admin


async def declare(admin: httpx.AsyncClient, file: dict[str, Any]) -> None:
    body = next(declare_network(read_network(file))).json  # type: ignore[union-attr]
    assert (await admin.put("/v1/network", json=body)).status_code == 200


def ok(answer: httpx.Response, kind: str) -> dict[str, Any]:
    """The document, checked to be of its media type."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == f"application/alto-{kind}+json"
    found: dict[str, Any] = answer.json()
    return found


async def test_the_directory_leads_to_every_resource(house: House, alto: httpx.AsyncClient) -> None:
    """Each resource has address and media type; what it uses and which costs it can are names that the directory has."""
    found = ok(await alto.get("/v1/alto/directory"), "directory")
    assert found["meta"]["default-alto-network-map"] == "sites"
    assert found["meta"]["cost-types"]["num-routingcost"] == ROUTING
    for name, resource in found["resources"].items():
        assert resource["media-type"].startswith("application/alto-"), name
        assert set(resource.get("uses", [])) <= found["resources"].keys()
        capabilities = resource.get("capabilities", {})
        assert set(capabilities.get("cost-type-names", [])) <= found["meta"]["cost-types"].keys()
        if "accepts" not in resource:
            got = await alto.get(resource["uri"])
            assert got.headers["content-type"] == resource["media-type"], name
    problem_of(await house.client(None).get("/v1/alto/directory"), 401)


async def test_maps_carry_tags_that_follow_the_network(alto: httpx.AsyncClient) -> None:
    """The network map as in 11.2.1.7; the cost map depends on its tag (11.2.3.7); another prefix is another tag, another delay is not."""
    network = ok(await alto.get("/v1/alto/networkmap"), "networkmap")
    assert network["network-map"] == {
        "pid1": {"ipv4": ["192.0.2.0/24", "198.51.100.0/25"]},
        "pid2": {"ipv4": ["198.51.100.128/25"]},
        "pid3": {"ipv6": ["2001:db8::/32"]},
        "elsewhere": {"ipv4": ["0.0.0.0/0"], "ipv6": ["::/0"]},
    }
    tag = network["meta"]["vtag"]
    costs = ok(await alto.get("/v1/alto/costmap/routingcost"), "costmap")
    assert costs["meta"] == {"dependent-vtags": [tag], "cost-type": ROUTING}
    assert costs["cost-map"]["pid1"] == {"pid1": 0, "pid2": 5, "pid3": 10}
    slower = copy.deepcopy(FILE)
    slower["links"][0]["delay"] = "2 ms"  # type: ignore[index]
    await declare(alto, slower)
    assert (await alto.get("/v1/alto/networkmap")).json()["meta"]["vtag"] == tag
    slower["sites"]["pid2"]["prefixes"].append("203.0.113.0/24")  # type: ignore[index]
    await declare(alto, slower)
    assert (await alto.get("/v1/alto/networkmap")).json()["meta"]["vtag"]["tag"] != tag["tag"]


async def test_filters_and_endpoints(house: House, alto: httpx.AsyncClient) -> None:
    """Some PIDs (11.3.1, 11.3.2), costs of addresses (11.5.1), their property (11.4.1); what was measured stands before what was declared."""
    some = ok(await alto.post("/v1/alto/networkmap/filtered", json={"pids": ["pid1", "pid9"]}), "networkmap")
    assert list(some["network-map"]) == ["pid1"]
    asked: dict[str, Any] = {"cost-type": ROUTING, "pids": {"srcs": ["pid1"], "dsts": ["pid2", "pid3"]}}
    costs = ok(await alto.post("/v1/alto/costmap/filtered", json=asked), "costmap")
    assert costs["cost-map"] == {"pid1": {"pid2": 5, "pid3": 10}}
    figure = Figure(value=0.007, error=0.0, measured_at=house.clock(), source=Source.STAMP)
    pair = Measured(source="pid1", target="pid2", link="", metric=Metric.ONE_WAY_DELAY, figure=figure)
    house.service.database.write_now(record, [pair])
    ends = {"srcs": ["ipv4:192.0.2.2"], "dsts": ["ipv4:198.51.100.200", "ipv6:2001:db8::7", "ipv4:203.0.113.45"]}
    for metric, expected in (("delay-ow", [7000, 10000]), ("hopcount", [2, 2]), ("lossrate", [1, 0])):
        kind = {"cost-mode": "numerical", "cost-metric": metric}
        got = ok(await alto.post("/v1/alto/endpointcost", json={"cost-type": kind, "endpoints": ends}), "endpointcost")
        assert got["endpoint-cost-map"] == {"ipv4:192.0.2.2": dict(zip(ends["dsts"], expected, strict=False))}
    asked = {"properties": ["sites.pid"], "endpoints": ["ipv4:198.51.100.1", "ipv4:203.0.113.45"]}
    found = ok(await alto.post("/v1/alto/endpointprop", json=asked), "endpointprop")
    assert found["endpoint-properties"] == {
        "ipv4:198.51.100.1": {"sites.pid": "pid1"},
        "ipv4:203.0.113.45": {"sites.pid": "elsewhere"},
    }


@pytest.mark.parametrize(
    ("path", "body", "meta"),
    [
        ("networkmap/filtered", b"{", {"code": "E_SYNTAX"}),
        ("networkmap/filtered", b'{"pids": "pid1"}', {"code": "E_INVALID_FIELD_TYPE", "field": "pids"}),
        ("costmap/filtered", b"{}", {"code": "E_MISSING_FIELD", "field": "cost-type"}),
        (
            "costmap/filtered",
            b'{"cost-type": {"cost-mode": "ordinal", "cost-metric": "routingcost"}}',
            {"code": "E_INVALID_FIELD_VALUE", "field": "cost-type/cost-mode", "value": "ordinal"},
        ),
        ("endpointprop", b'{"properties": ["priv:x"], "endpoints": []}', {"code": "E_INVALID_FIELD_VALUE"}),
        (
            "endpointcost",
            b'{"cost-type": {"cost-mode": "numerical", "cost-metric": "hopcount"}, "endpoints": {"srcs": ["ipv4:x"], "dsts": ["ipv4:192.0.2.1"]}}',
            {"code": "E_INVALID_FIELD_VALUE", "value": "ipv4:x"},
        ),
    ],
)
async def test_errors_are_those_of_the_standard(
    alto: httpx.AsyncClient, path: str, body: bytes, meta: dict[str, str]
) -> None:
    """400 with application/alto-error+json, the code and the field (section 8.5)."""
    answer = await alto.post(f"/v1/alto/{path}", content=body)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/alto-error+json"
    assert answer.json()["meta"].items() >= meta.items()
