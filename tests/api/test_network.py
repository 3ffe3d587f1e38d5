"""The network over HTTP: who may declare it, what everybody sees, which paths there are."""

from __future__ import annotations

from typing import Any

import httpx

from isthmus.domain.network import Figure, Metric, Source
from isthmus.domain.networkfile import read_network
from isthmus.engine.declaring import Measured, record
from isthmus.trust.access import Scope
from tests.api.conftest import House, problem_of

FILE = {
    "name": "two-ways",
    "routers": {"r1": {"locator": "fc00:1::/32"}, "r2": {"locator": "fc00:2::/32"}, "r3": {}, "r4": {}},
    "sites": {"alpha": {"daemons": {"ssh": {}}, "prefixes": ["fd10:5::/64"]}, "beta": {}},
    "links": [
        {"ends": ["alpha", "r1"], "rate": "10 Gbit/s"},
        {"ends": ["beta", "r2"], "rate": "10 Gbit/s"},
        {"ends": ["r1", "r3"], "rate": "100 Mbit/s", "delay": "5 ms"},
        {"ends": ["r3", "r2"], "rate": "100 Mbit/s", "delay": "5 ms"},
        {"ends": ["r1", "r4"], "rate": "1 Gbit/s", "delay": "40 ms", "price_per_gb": "0.01"},
        {"ends": ["r4", "r2"], "rate": "1 Gbit/s", "delay": "40 ms", "price_per_gb": "0.01"},
    ],
}


def body() -> dict[str, Any]:
    """The declaration as the client sends it."""
    from isthmus.client.network import declare_network

    call = next(declare_network(read_network(FILE)))
    assert call.json is not None  # type: ignore[union-attr]
    found: dict[str, Any] = call.json  # type: ignore[union-attr]
    return found


async def test_operators_declare_the_network_and_everybody_sees_it(
    each_house: House, each_admin: httpx.AsyncClient
) -> None:
    """A dry run stores nothing; the same again changes nothing; others may look, and an administrator may let them write."""
    scopes = (Scope.NETWORK_OPERATE, Scope.TASKS_READ)
    token = each_house.person("bo", scopes=scopes)
    bo = each_house.client(token)
    problem_of(await bo.put("/v1/network", json=body()), 403)
    assert (await each_admin.put("/v1/network/operators/bo")).status_code == 204
    problem_of(await each_admin.put("/v1/network/operators/nobody"), 404)
    looked = await bo.put("/v1/network", params={"dry_run": True}, json=body())
    assert looked.status_code == 200, looked.text
    assert looked.json()["stored"] is False
    assert len(looked.json()["differences"]) == 12
    assert (await bo.get("/v1/network")).json()["nodes"] == []
    assert (await bo.put("/v1/network", json=body())).json()["stored"] is True
    assert (await bo.put("/v1/network", json=body())).json()["differences"] == []
    shown = (await each_house.client(each_house.person("eve")).get("/v1/network")).json()
    assert [node["name"] for node in shown["nodes"]] == ["alpha", "beta", "r1", "r2", "r3", "r4"]
    link = next(one for one in shown["links"] if (one["source"], one["target"]) == ("r3", "r1"))
    assert link["delay_seconds"]["value"] == 0.005
    assert link["delay_seconds"]["source"] == "declared"
    assert link["price_per_gb"] == "0"
    assert (await each_admin.delete("/v1/network/operators/bo")).status_code == 204
    problem_of(await bo.put("/v1/network", json=body()), 403)
    problem_of(await each_admin.delete("/v1/network/operators/bo"), 404)
    only_tasks = each_house.client(each_house.person("bo", scopes=(Scope.TASKS_WRITE,)))
    assert "network:operate" in problem_of(await only_tasks.put("/v1/network", json=body()), 403)["detail"]


async def test_a_wrong_declaration_is_refused_by_name(admin: httpx.AsyncClient) -> None:
    """The field is named, in the service's words."""
    wrong = body()
    wrong["links"][0]["ends"] = ["alpha", "r9"]
    assert problem_of(await admin.put("/v1/network", json=wrong), 422)["errors"][0]["cause"] == "There is no node r9."
    wrong = body()
    wrong["nodes"][0]["colour"] = "red"
    assert problem_of(await admin.put("/v1/network", json=wrong), 422)["errors"][0]["field"] == "nodes.0.colour"
    wrong = body()
    wrong["links"][2]["loss"] = 1.0
    assert "loss" in problem_of(await admin.put("/v1/network", json=wrong), 422)["errors"][0]["field"]


async def test_paths_are_compared_by_what_is_free_now(house: House, admin: httpx.AsyncClient) -> None:
    """The fat path moves much sooner, the thin one little; what transfers saw, and a link that is down, change the order."""
    await admin.put("/v1/network", json=body())

    async def paths(**more: Any) -> list[dict[str, Any]]:
        got = await admin.get("/v1/network/paths", params={"source": "alpha", "target": "beta", **more})
        assert got.status_code == 200, got.text
        found: list[dict[str, Any]] = got.json()["paths"]
        return found

    fat, thin = await paths()
    assert (fat["nodes"][2], thin["nodes"][2]) == ("r4", "r3")
    assert fat["why"] == "moves it soonest, in 8.1s"
    assert fat["price_per_gb"] == "0.02"
    assert thin["taken_by_itself"]
    assert not fat["taken_by_itself"]
    assert thin["programmable"]
    assert not fat["programmable"]  # r4 has no locator: nothing holds packets to it
    assert "9.9 times as long; but cheaper by 0.02 for a GB; but 70 ms less delay" in thin["why"]
    assert (await paths(size_bytes=1000))[0]["nodes"][2] == "r3"
    now = house.clock()

    def measured(metric: Metric, value: float, source: Source) -> Measured:
        figure = Figure(value=value, error=0.0, measured_at=now, source=source)
        return Measured(source="r1", target="r4", link="r1-r4", metric=metric, figure=figure, since=now)

    house.service.database.write_now(record, [measured(Metric.AVAILABLE, 5e7, Source.TRANSFERS)])
    assert (await paths())[0]["nodes"][2] == "r3"
    house.service.database.write_now(record, [measured(Metric.UP, 0.0, Source.ROUTER)])
    first, second = await paths()
    assert first["why"] == "the only path that is whole"
    assert (second["why"], second["up"]) == ("a link is down", False)
    problem_of(await admin.get("/v1/network/paths", params={"source": "alpha", "target": "gamma"}), 404)
    assert (await paths(target="r3"))[0]["links"] == ["alpha-r1", "r1-r3"]


async def test_policies_are_wanted_listed_and_given_up(house: House, admin: httpx.AsyncClient) -> None:
    """Operators steer; a path that is none, a mark that is used and a name that is there are refused; giving up waits for the router."""
    declared = body()
    for node in declared["nodes"]:
        if node["name"] in ("r1", "r2"):
            node["control"] = {"socket": f"/run/{node['name']}.sock"}
        if node["name"] in ("r3", "r4"):
            node["locator"] = f"fc00:{node['name'][1]}::/32"
    assert (await admin.put("/v1/network", json=declared)).status_code == 200
    fat = {"nodes": ["alpha", "r1", "r4", "r2", "beta"]}
    bo = house.client(house.person("bo", scopes=(Scope.NETWORK_OPERATE,)))
    problem_of(await bo.put("/v1/network/policies/fat", json=fat), 403)
    made = await admin.put("/v1/network/policies/fat", json=fat)
    assert made.status_code == 201, made.text
    assert (made.json()["match"]["dscp"], made.json()["owner"]) == (1, "operator")
    assert made.json()["programmed_at"] is None
    problem_of(await admin.put("/v1/network/policies/fat", json=fat), 409)
    problem_of(await admin.put("/v1/network/policies/other", json={**fat, "dscp": 1}), 409)
    problem_of(await admin.put("/v1/network/policies/other", json={**fat, "dscp": 64}), 422)
    problem_of(await admin.put("/v1/network/policies/other", json={**fat, "from_prefix": "here"}), 422)
    for nodes in (["alpha", "beta"], ["alpha", "r1", "r2", "beta"], ["alpha", "r1", "r9", "beta"], ["r1", "r4", "r2"]):
        assert problem_of(await admin.put("/v1/network/policies/x", json={"nodes": nodes}), 422)["errors"][0]["field"]
    assert [one["name"] for one in (await bo.get("/v1/network/policies")).json()["items"]] == ["fat"]
    assert (await admin.delete("/v1/network/policies/fat")).status_code == 204
    (left,) = (await admin.get("/v1/network/policies")).json()["items"]
    assert left["wanted"] is False
    problem_of(await admin.delete("/v1/network/policies/none"), 404)


async def test_figures_of_links_are_there_for_prometheus(house: House, admin: httpx.AsyncClient) -> None:
    """Prometheus' own reader takes them: base units, labels for link and direction, the source of each figure; what is gone goes."""
    from prometheus_client.parser import text_string_to_metric_families

    await admin.put("/v1/network", json=body())
    figure = Figure(value=8e6, error=0.0, measured_at=house.clock() - 30, source=Source.TRANSFERS)
    seen = Measured(source="r1", target="r3", link="r1-r3", metric=Metric.AVAILABLE, figure=figure)
    house.service.database.write_now(record, [seen])

    async def samples() -> dict[tuple[str, str, str], tuple[float, dict[str, str]]]:
        text = (await admin.get("/metrics")).text
        return {
            (one.name, one.labels["source"], one.labels["target"]): (one.value, one.labels)
            for family in text_string_to_metric_families(text)
            for one in family.samples
            if one.name.startswith("isthmus_link_")
        }

    found = await samples()
    assert found["isthmus_link_available_bytes_per_second", "r1", "r3"] == (
        1e6,
        {"link": "r1-r3", "source": "r1", "target": "r3", "origin": "transfers"},
    )
    assert found["isthmus_link_delay_seconds", "r3", "r1"][0] == 0.005
    assert found["isthmus_link_capacity_bytes_per_second", "r1", "r4"][0] == 125e6
    assert found["isthmus_link_figure_age_seconds", "r1", "r3"][0] == 30
    assert ("isthmus_link_figure_age_seconds", "r3", "r1") not in found
    assert found["isthmus_link_up", "r1", "r3"][0] == 1
    await admin.put("/v1/network", json={"nodes": [], "links": []})
    assert await samples() == {}
