"""The calendar of links, whose transfers hold them, who used a dataset, and the operator's basemap, over HTTP."""

from __future__ import annotations

import json
from typing import Any

import httpx
import orjson
import pytest

from isthmus.store import tables
from isthmus.trust.access import Scope
from tests.api.conftest import House, problem_of
from tests.api.test_network import body

PATH = ["r3-r1>r1"]


def _transfer(
    house: House, key: str, project: str, *, links: list[str], stretches: list[tuple[float, float, float]]
) -> None:
    now = house.clock()
    parts = [{"begins": now + a, "ends": now + b, "bytes_per_second": rate} for a, b, rate in stretches]
    house.execute(
        tables.transfers.insert().values(
            id=f"01m8c494g6gkqz73913ayh9n{key}",
            project=project,
            name=f"data-{key}",
            version=1,
            source="alpha",
            target="beta",
            state="planned",
            links=orjson.dumps(links).decode(),
            stretches=orjson.dumps(parts).decode(),
            size_bytes=1000,
            ends_at=now + stretches[-1][1],
            task_id=f"01m8c494g6gkqz73913ayh9t{key}",
            created_by="ann",
            created_at=now,
            updated_at=now,
        )
    )


async def test_what_is_promised_of_a_link_is_told_to_all_and_whose_it_is_to_few(
    each_house: House, each_admin: httpx.AsyncClient
) -> None:
    """Overlapping promises add up step by step; a stranger sees the sum and the path, not the name."""
    assert (await each_admin.put("/v1/network", json=body())).status_code == 200
    link = next(
        one
        for one in (await each_admin.get("/v1/network")).json()["links"]
        if (one["source"], one["target"]) == ("alpha", "r1")
    )
    name = f"{link['link']}>r1"
    ann = each_house.client(each_house.person("ann", projects={"climate": "member"}))
    bob = each_house.client(each_house.person("bob", projects={"other": "member"}))
    nia = each_house.client(each_house.person("nia", scopes=(Scope.NETWORK_OPERATE, Scope.TASKS_READ)))
    assert (await each_admin.put("/v1/network/operators/nia")).status_code == 204
    _transfer(each_house, "a1", "climate", links=[name, "x>y"], stretches=[(-50, 100, 10.0)])
    _transfer(each_house, "a2", "climate", links=[name], stretches=[(60, 200, 5.0), (7200, 7300, 8.0)])
    _transfer(each_house, "a3", "climate", links=["alpha>beta"], stretches=[(0, 50, 4.0)])
    found = (await bob.get("/v1/network/reservations", params={"hours": 1})).json()
    row = next(one for one in found["links"] if (one["source"], one["target"]) == ("alpha", "r1"))
    now = each_house.clock()
    spans = [(_seconds(part["begins_at"]) - now, _seconds(part["ends_at"]) - now) for part in row["steps"]]
    assert spans == [(0, 60), (60, 100), (100, 200)]  # from now on, and not beyond the hour
    assert [part["bits_per_second"] for part in row["steps"]] == [80.0, 120.0, 40.0]
    assert row["capacity_bits_per_second"] == 1e10
    pair = next(one for one in found["links"] if one["link"] == "" and one["source"] == "alpha")
    assert (pair["target"], pair["capacity_bits_per_second"]) == ("beta", None)
    assert {
        (one["id"], one["project"], one["dataset"], one["task_id"], one["created_by"]) for one in found["transfers"]
    } == {(None, None, None, None, None)}
    assert "climate" not in json.dumps(found)
    assert found["transfers"][0]["links"] == [link["link"], "x"]
    assert found["transfers"][2]["links"] == []
    for knows in (ann, nia, each_admin):
        seen = (await knows.get("/v1/network/reservations")).json()
        assert [one["dataset"] for one in seen["transfers"]] == ["data-a1@1", "data-a2@1", "data-a3@1"]
        assert seen["transfers"][0]["task_id"].endswith("ta1")
    problem_of(
        await each_house.client(each_house.person("met", scopes=[Scope.METRICS])).get("/v1/network/reservations"), 403
    )
    problem_of(await bob.get("/v1/network/reservations", params={"hours": 0}), 422)


def _seconds(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()


async def test_who_used_a_dataset_is_told_within_ones_projects(
    each_house: House, each_admin: httpx.AsyncClient
) -> None:
    """Readers and makers, newest first and by the page, with what they made; tasks of other projects stay hidden."""
    ann = each_house.client(each_house.person("ann", projects={"climate": "member", "wide": "member"}))
    bob = each_house.client(each_house.person("bob", projects={"climate": "member"}))
    now = each_house.clock()
    each_house.execute(
        tables.datasets.insert().values(
            project="climate",
            name="ice",
            owner="ann",
            sensitivity="internal",
            regions="[]",
            newest=2,
            created_at=now,
            updated_at=now,
        )
    )

    async def submitted(project: str, name: str) -> str:
        each_house.clock.now += 1.0
        answer = await ann.post("/v1/tasks", params={"project": project}, json={"command": ["a"], "name": name})
        return str(answer.json()["id"])

    made = await submitted("climate", "maker")
    read = await submitted("climate", "reader")
    far = await submitted("wide", "elsewhere")
    rows = [("ice", 1, ""), ("ice", 2, made), ("means", 1, read)]
    each_house.execute(
        tables.dataset_versions.insert(),
        [
            {"project": "climate", "name": name, "version": number, "manifest": "0" * 64, "manifest_sha256": "0" * 64}
            | {"files": 1, "size_bytes": 1, "created_by": "ann", "task_id": task, "created_at": now}
            for name, number, task in rows
        ],
    )
    each_house.execute(
        tables.task_data.insert(),
        [
            {"task_id": task, "project": "climate", "name": "ice", "version": number}
            for task, number in ((read, 1), (read, 2), (far, 2))
        ],
    )

    async def lines(client: httpx.AsyncClient, **query: Any) -> list[tuple[str, list[int], list[str]]]:
        page = (await client.get("/v1/datasets/climate/ice/uses", params=query)).json()
        return [(one["name"], one["read"], one["made"]) for one in page["items"]]

    everything = [("elsewhere", [2], []), ("reader", [1, 2], ["climate/means@1"]), ("maker", [], ["climate/ice@2"])]
    assert await lines(ann) == everything
    assert await lines(bob) == everything[1:]
    assert await lines(ann, version=1) == [everything[1]]
    first = (await ann.get("/v1/datasets/climate/ice/uses", params={"limit": 1})).json()
    assert first["next_cursor"] == far
    assert await lines(ann, limit=1, cursor=first["next_cursor"]) == [everything[1]]
    assert (await lines(each_admin))[0][0] == "elsewhere"
    problem_of(await ann.get("/v1/datasets/climate/none/uses"), 404)
    stranger = each_house.client(each_house.person("eve", projects={"wide": "member"}))
    problem_of(await stranger.get("/v1/datasets/climate/ice/uses"), 404)


async def test_an_operators_basemap_is_served_as_an_image_that_runs_nothing(
    house: House, admin: httpx.AsyncClient
) -> None:
    """The network's answer has its edges; one that cannot be used is left out, and its address says why."""
    problem_of(await admin.get("/v1/network/basemap"), 404)
    assert (await admin.get("/v1/network")).json()["basemap"] is None
    edges = {"west": 73, "south": 18, "east": 135, "north": 53.5}
    picture = b'<svg xmlns="http://www.w3.org/2000/svg"/>'
    (house.state / "land.svg").write_bytes(picture)
    (house.state / "basemap.json").write_text(json.dumps({"picture": "land.svg", **edges, "credit": "us"}))
    assert (await admin.get("/v1/network")).json()["basemap"] == {**edges, "credit": "us"}
    answer = await house.client(house.person("bo")).get("/v1/network/basemap")
    assert (answer.content, answer.headers["content-type"]) == (picture, "image/svg+xml")
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "document",
    [
        "no json",
        '{"west": 1}',
        '{"picture": "../key", "west": 0, "south": 0, "east": 1, "north": 1}',
        '{"picture": "gone.png", "west": 0, "south": 0, "east": 1, "north": 1}',
        '{"picture": "land.png", "west": 2, "south": 0, "east": 1, "north": 1}',
        '{"picture": "land.png", "west": 0, "south": 0, "east": 1, "north": 100}',
    ],
)
async def test_a_basemap_that_cannot_be_used_is_named_and_left_out(
    house: House, admin: httpx.AsyncClient, document: str
) -> None:
    """Its fault is told where it is asked for; the network is answered all the same. Nothing outside the directory is read."""
    (house.state / "land.png").write_bytes(b"png")
    (house.state / "basemap.json").write_text(document)
    problem_of(await admin.get("/v1/network/basemap"), 422)
    assert (await admin.get("/v1/network")).json()["basemap"] is None
