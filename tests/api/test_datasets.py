"""Datasets over HTTP: whose they are, what they name, and what an agent may read of them. On SQLite and PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx
import sqlalchemy as sa

from isthmus.domain.manifest import Manifest, ManifestFile
from isthmus.store import tables
from isthmus.trust.access import Role, Scope
from tests.api.conftest import CONTENT, CONTENT_HASH, House, problem_of, upload
from tests.api.test_network import body


async def _put(client: httpx.AsyncClient, project: str, name: str, **labels: object) -> httpx.Response:
    await upload(client, CONTENT, project)
    manifest = Manifest(files=(ManifestFile(path="a.txt", sha256=CONTENT_HASH, size_bytes=len(CONTENT)),))
    directory = await upload(client, manifest.dump(), project)
    return await client.post(
        "/v1/datasets", params={"project": project}, json={"name": name, "directory": directory, **labels}
    )


def _member(house: House, user: str, project: str, role: Role = Role.MEMBER) -> httpx.AsyncClient:
    return house.client(house.person(user, projects={project: role}))


async def test_versions_labels_and_pages(each_house: House, each_admin: httpx.AsyncClient) -> None:
    """A version says what it holds and where; its labels change by PATCH; lists are paged by name."""
    made = (await _put(each_admin, "default", "one")).json()
    assert (made["version"], made["files"], made["size_bytes"]) == (1, 1, len(CONTENT))
    assert [(copy["site"], copy["state"]) for copy in made["replicas"]] == [("@service", "whole")]
    assert (await _put(each_admin, "default", "one")).json()["version"] == 1
    assert (await _put(each_admin, "default", "two", sensitivity="open")).json()["sensitivity"] == "open"
    page = (await each_admin.get("/v1/datasets", params={"limit": 1})).json()
    assert ([row["name"] for row in page["items"]], page["next_cursor"]) == (["one"], "one")
    page = (await each_admin.get("/v1/datasets", params={"limit": 1, "cursor": "one"})).json()
    assert ([row["name"] for row in page["items"]], page["next_cursor"]) == (["two"], None)
    refused = await each_admin.patch("/v1/datasets/default/one", json={"regions": ["north"]})
    assert problem_of(refused, 422)["code"] == "data_may_not_leave"  # its copy is at a service without a region
    files = (await each_admin.get("/v1/datasets/default/one/files")).json()["items"]
    assert [(file["path"], file["sha256"]) for file in files] == [("a.txt", CONTENT_HASH)]
    assert (await each_admin.post("/v1/datasets/default/one:fetch", json={"site": "@service"})).json() == {
        "transfer": None
    }
    assert (await each_admin.delete("/v1/datasets/default/one")).status_code == 204
    problem_of(await each_admin.get("/v1/datasets/default/one"), 404)
    assert (await _put(each_admin, "default", "one")).json()["version"] == 1


async def test_nobody_sees_or_takes_another_projects_data(house: House) -> None:
    """Not by its name, not by a task, and not by knowing a hash of its content."""
    ann, bob = _member(house, "ann", "alpha"), _member(house, "bob", "beta")
    assert (await _put(ann, "alpha", "secret")).status_code == 201
    for path in ("/v1/datasets/alpha/secret", "/v1/datasets/alpha/secret/files", "/v1/datasets?project=alpha"):
        problem_of(await bob.get(path), 404)
    spec = {"command": ["true"], "inputs": [{"path": "in", "data": "alpha/secret"}]}
    assert problem_of(await bob.post("/v1/tasks?project=beta", json=spec), 422)["errors"][0]["field"] == "inputs.0.data"
    spec = {"command": ["true"], "outputs": [{"path": "out", "data": "alpha/secret"}]}
    problem_of(await bob.post("/v1/tasks?project=beta", json=spec), 422)
    manifest = Manifest(files=(ManifestFile(path="a.txt", sha256=CONTENT_HASH, size_bytes=len(CONTENT)),))
    directory = await upload(bob, manifest.dump(), "beta")
    stolen = await bob.post("/v1/datasets?project=beta", json={"name": "mine", "directory": directory})
    problem_of(stolen, 404)


async def test_an_output_stays_only_where_some_site_can_keep_it(
    each_house: House, each_admin: httpx.AsyncClient
) -> None:
    """Without a site that keeps data, outside of the dataset's regions, or against the task's own limits: refused when it is handed in."""
    house = each_house

    async def hand_in(**limits: object) -> httpx.Response:
        output = {"path": "out", "data": "default/made", "stays": True}
        spec = {"command": ["true"], "outputs": [output], "constraints": limits}
        return await each_admin.post("/v1/tasks?dry_run=true", json=spec)

    async def reason(**limits: object) -> str:
        [error] = problem_of(await hand_in(**limits), 422)["errors"]
        assert error["field"] == "outputs.0.data"
        return f"{error['cause']} {error['remedy']}"

    row = {"kind": "local", "mode": "agent", "state": "active", "config": "{}", "accounts": '{"*": ""}'}
    row |= {"created_by": "x", "created_at": 1.0}
    house.execute(tables.sites.insert().values(name="bare", region="north", **row))
    assert "no site where the task may run keeps data" in await reason()
    house.execute(tables.sites.insert().values(name="keeps", region="south", **row))
    house.execute(tables.data_servers.insert().values(site="keeps", address="", quota_bytes=0, seen_at=1.0))
    assert (await hand_in()).status_code == 200
    assert "let the task run at keeps" in await reason(sites_allow=["bare"])
    assert "let the task run at keeps" in await reason(regions_deny=["south"])
    fields = {"project": "default", "name": "made", "owner": "x", "created_at": 1.0, "updated_at": 1.0}
    house.execute(tables.datasets.insert().values(regions='["north"]', newest=0, made=0, **fields))
    assert "no site in north where the task may run keeps data" in await reason()
    output = {"path": "out", "data": "default/made"}
    sent = await each_admin.post("/v1/tasks?dry_run=true", json={"command": ["true"], "outputs": [output]})
    [error] = problem_of(sent, 422)["errors"]  # its dataset is bound to north, where the service is not
    assert "write @site" in error["remedy"]


async def test_only_owner_and_managers_change_and_forget(house: House) -> None:
    """Another member reads, and has copies made; labels and removal are the owner's and the managers'."""
    ann, cid = _member(house, "ann", "alpha"), _member(house, "cid", "alpha")
    boss = _member(house, "boss", "alpha", Role.MANAGER)
    await _put(ann, "alpha", "shared")
    assert (await cid.get("/v1/datasets/alpha/shared")).status_code == 200
    problem_of(await cid.patch("/v1/datasets/alpha/shared", json={"sensitivity": "x"}), 403)
    problem_of(await cid.delete("/v1/datasets/alpha/shared"), 403)
    assert (await boss.patch("/v1/datasets/alpha/shared", json={"sensitivity": "x"})).status_code == 200
    assert (await boss.delete("/v1/datasets/alpha/shared")).status_code == 204


async def test_a_site_that_has_no_account_for_one_takes_no_copy_of_ones_data(house: House) -> None:
    """Room at a site is for those that its operator let in."""
    ann = _member(house, "ann", "alpha")
    await _put(ann, "alpha", "big")
    house.execute(
        tables.sites.insert().values(
            name="s1",
            kind="local",
            mode="agent",
            state="active",
            config="{}",
            accounts='{"bob": ""}',
            created_by="x",
            created_at=1.0,
        )
    )
    problem_of(await ann.post("/v1/datasets/alpha/big:copy", json={"site": "s1"}), 403)
    problem_of(await ann.post("/v1/datasets/alpha/big:copy", json={"site": "s2"}), 404)
    house.execute(tables.sites.update().values(accounts='{"*": ""}'))
    assert (
        problem_of(await ann.post("/v1/datasets/alpha/big:copy", json={"site": "s1"}), 422)["code"]
        == "site_keeps_no_data"
    )


async def test_a_member_lets_only_copies_go_that_they_asked_for(house: House) -> None:
    """Not the owner's; the owner is told that it is the last one."""
    ann, cid = _member(house, "ann", "alpha"), _member(house, "cid", "alpha")
    await _put(ann, "alpha", "held")
    problem_of(await cid.delete("/v1/datasets/alpha/held?site=@service"), 403)
    assert problem_of(await ann.delete("/v1/datasets/alpha/held?site=@service"), 409)["code"] == "last_replica"


async def test_an_agent_asks_about_its_own_transfers_only(house: House) -> None:
    """Another site's transfer is not there for it."""
    ann = _member(house, "ann", "alpha")
    await _put(ann, "alpha", "moving")
    for site in ("s1", "s2"):
        house.execute(
            tables.sites.insert().values(
                name=site,
                kind="local",
                mode="agent",
                state="active",
                config="{}",
                accounts='{"*": ""}',
                created_by="x",
                created_at=1.0,
            )
        )
        house.execute(tables.data_servers.insert().values(site=site, seen_at=1.0))
    transfer = (await ann.post("/v1/datasets/alpha/moving:copy", json={"site": "s1"})).json()["transfer"]
    again = (await ann.post("/v1/datasets/alpha/moving:copy", json={"site": "s1"})).json()["transfer"]
    assert (transfer["id"], transfer["state"]) == (again["id"], "planned")
    path = f"/v1/agent/transfers/{transfer['id']}/contents"
    own = house.client(house.person("op1", scopes=[Scope.AGENT], agent_site="s1"))
    other = house.client(house.person("op2", scopes=[Scope.AGENT], agent_site="s2"))
    problem_of(await own.get(path), 404)  # it has not begun
    house.execute(tables.transfers.update().values(state="moving", source="@service"))
    house.execute(tables.replicas.update().where(tables.replicas.c.site == "s1").values(state="arriving"))
    assert list((await own.get(path)).json()["contents"].values()) == [CONTENT_HASH]
    problem_of(await other.get(path), 404)
    problem_of(await own.post(path, json={"contents": {}}), 404)  # it receives, it does not send
    bob = _member(house, "bob", "beta")
    problem_of(await bob.get(f"/v1/transfers/{transfer['id']}", params={"project": "beta"}), 404)
    ended = await ann.post(f"/v1/transfers/{transfer['id']}:cancel", params={"project": "alpha"})
    assert ended.json()["state"] == "cancelled"
    (row,) = house.rows(sa.select(tables.replicas.c.state).where(tables.replicas.c.site == "s1"))
    assert row.state == "leaving"  # until the site has dropped what arrived


async def test_labels_are_not_lifted_by_another_members_version(house: House) -> None:
    """A new version with other labels is the owner's to make; without labels it keeps them."""
    ann, cid = _member(house, "ann", "alpha"), _member(house, "cid", "alpha")
    await _put(ann, "alpha", "bound", sensitivity="secret")
    problem_of(await _put(cid, "alpha", "bound", sensitivity="open"), 403)
    problem_of(await _put(cid, "alpha", "bound", regions=["north"]), 403)
    kept = await _put(cid, "alpha", "bound")
    assert (kept.status_code, kept.json()["sensitivity"]) == (201, "secret")


async def test_a_size_that_is_not_the_contents_is_refused(house: House) -> None:
    """What a version says of itself decides who has to make room for it."""
    ann = _member(house, "ann", "alpha")
    await upload(ann, CONTENT, "alpha")
    for size in (len(CONTENT) + 10**12, 0):
        manifest = Manifest(files=(ManifestFile(path="a.txt", sha256=CONTENT_HASH, size_bytes=size),))
        directory = await upload(ann, manifest.dump(), "alpha")
        lied = await ann.post("/v1/datasets?project=alpha", json={"name": "lies", "directory": directory})
        assert problem_of(lied, 422)["errors"][0]["field"] == "directory"


async def test_a_project_with_datasets_is_not_deleted(house: House, admin: httpx.AsyncClient) -> None:
    """Else they would be those of the next project of that name."""
    ann = _member(house, "ann", "alpha")
    await _put(ann, "alpha", "one")
    problem_of(await admin.delete("/v1/projects/alpha"), 409)
    assert (await ann.delete("/v1/datasets/alpha/one")).status_code == 204
    assert (await admin.delete("/v1/projects/alpha")).status_code == 204


async def test_a_region_is_said_by_administrators_and_not_against_what_lies_there(
    house: House, admin: httpx.AsyncClient
) -> None:
    """The region of a site is what its certificate attests: no operator sets it, and nobody while a copy there forbids it."""
    ann = _member(house, "ann", "alpha")
    await _put(ann, "alpha", "bound")
    house.execute(tables.datasets.update().values(regions='["north"]'))
    house.execute(
        tables.sites.insert().values(
            name="s1",
            kind="local",
            mode="agent",
            region="north",
            state="active",
            config="{}",
            accounts="{}",
            created_by="x",
            created_at=1.0,
        )
    )
    replica = {"project": "alpha", "name": "bound", "version": 1, "site": "s1", "manifest": "m", "state": "whole"}
    house.execute(tables.replicas.insert().values(**replica, size_bytes=1, heat_at=1.0, created_at=1.0))
    house.execute(tables.site_operators.insert().values(site="s1", user="ann"))
    problem_of(await ann.patch("/v1/sites/s1", json={"region": "south"}), 403)
    refused = problem_of(await admin.patch("/v1/sites/s1", json={"region": "south"}), 409)
    assert refused["code"] == "data_may_not_leave"
    house.execute(tables.replicas.delete().where(tables.replicas.c.site == "s1"))
    assert (await admin.patch("/v1/sites/s1", json={"region": "south"})).status_code == 200


async def test_a_copy_by_a_time_is_promised_or_refused_with_the_soonest(
    each_house: House, each_admin: httpx.AsyncClient
) -> None:
    """A time that is over, or without zone, or too soon is refused, and nothing stored; what is promised is among the reservations."""
    house, now = each_house, each_house.clock()
    assert (await each_admin.put("/v1/network", json=body())).status_code == 200
    await _put(each_admin, "default", "field")
    row: dict[str, object] = {
        "kind": "local",
        "mode": "agent",
        "state": "active",
        "config": "{}",
        "accounts": '{"*": ""}',
    }
    row |= {"created_by": "x", "created_at": 1.0, "last_seen_at": now}
    for site in ("alpha", "beta"):
        house.execute(tables.sites.insert().values(name=site, **row))
        house.execute(tables.data_servers.insert().values(site=site, address=f"{site}:1", seen_at=now))

    async def copy(seconds: float, **wanted: object) -> httpx.Response:
        by = datetime.fromtimestamp(now + seconds, UTC).isoformat()
        return await each_admin.post("/v1/datasets/default/field:copy", json={"site": "beta", "by": by, **wanted})

    told = problem_of(await copy(3600), 422)
    assert told["code"] == "no_declared_path"  # only the service has it
    house.execute(tables.replicas.update().values(site="alpha"))
    house.execute(tables.replicas.update().values(size_bytes=10**9))
    house.execute(tables.dataset_versions.update().values(size_bytes=10**9))
    assert problem_of(await copy(-1), 422)["errors"][0]["field"] == "by"
    assert problem_of(await copy(1, by="2027-12-01T18:00:00"), 422)["errors"][0]["field"] == "by"
    assert problem_of(await copy(3600, others=["beta"]), 422)["errors"][0]["field"] == "others"
    told = problem_of(await copy(10), 422)
    assert (told["code"], "the soonest end that can be promised is" in told["detail"]) == ("misses_deadline", True)
    problem_of(await copy(3600, others=["nowhere"]), 404)
    assert (await each_admin.get("/v1/transfers")).json()["items"] == []
    promised = (await copy(60)).json()
    transfer = promised["transfer"]
    assert promised["others"] == []
    assert (transfer["source"], transfer["late"], len(transfer["stretches"])) == ("alpha", False, 1)
    assert datetime.fromisoformat(transfer["by"]).timestamp() == now + 60
    found = (await each_admin.get("/v1/network/reservations")).json()
    assert [one["id"] for one in found["transfers"]] == [transfer["id"]]
    [held] = [one for one in found["links"] if (one["source"], one["target"]) == ("r4", "r2")]
    assert [step["bits_per_second"] for step in held["steps"]] == [0.95e9]
    house.execute(tables.transfers.update().values(ends_at=now + 61))
    shown = (await each_admin.get(f"/v1/transfers/{transfer['id']}")).json()
    assert shown["late"] is True
