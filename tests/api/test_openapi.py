"""The OpenAPI document is exact: schemathesis makes requests from it, and finds nothing that it does not say."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from isthmus.api.app import ROUTERS
from isthmus.api.service import ApiSettings
from tests.api.conftest import CONTENT, House, open_house, upload
from tests.api.test_events import served

# What a schema cannot say: an input's path given twice, content that must have been uploaded, what fits the disk, that
# a whole number is not written as 1.0, that the lengths in a pack add up, that a time is a whole hour, that SECRET is the name of a
# secret here and of no dataset, that a project's home is a site.
BEYOND_A_SCHEMA = (
    "submit_task",
    "submit_batch",
    "cancel_tasks",
    "append_upload",
    "store_pack",
    "join_site",
    "change_site",
    "put_member",
    "create_token",
    "declare_network",
    "start_twin_run",
    "bring_carbon",
    "put_policy",
    "list_dataset_uses",
    "put_slice",
    "create_project",
    "change_project",
)
# Streams that do not end, what would end the session's own rights, and faces with suites of their own.
LEFT_OUT = ("stream_events", "revoke_token", "put_user", "disable_user")


def config(parameters: dict[str, str]) -> str:
    """Schemathesis' settings: things that exist, and the operations whose input has more rules than a schema has."""
    lines = ["[parameters]", *(f'"path.{name}" = "{value}"' for name, value in parameters.items())]
    for name in BEYOND_A_SCHEMA:
        lines += [
            "[[operations]]",
            f'include-operation-id = "{name}"',
            "checks.positive_data_acceptance.enabled = false",
        ]
    return "\n".join(lines)


async def furnish(house: House) -> dict[str, str]:
    """Make one of each thing that a path may name."""
    admin = house.client(house.admin)
    task = (await admin.post("/v1/tasks", json={"command": ["a"], "hold": True})).json()["id"]
    await admin.post("/v1/projects", json={"name": "p"})
    house.person("bo", projects={"p": "member"})
    joined = await admin.post(
        "/v1/sites", json={"name": "s", "kind": "local", "mode": "agent", "config": {"root": "/nowhere"}}
    )
    assert joined.status_code == 201, joined.text
    return {
        "task_id": task,
        "project": "p",
        "user": "bo",
        "site": "s",
        "name": "SECRET",
        "sha256": await upload(admin, CONTENT),
    }


@pytest.mark.timeout(600)
async def test_requests_made_from_the_document_find_nothing_undocumented(tmp_path: Path) -> None:
    """No undocumented code, no answer beside its schema, no wrong input accepted, no right one refused, no 5xx."""
    settings = ApiSettings(rate_per_second=1e6, rate_burst=1e6)
    async with open_house(tmp_path, f"sqlite:///{tmp_path}/isthmus.db", settings) as house, served(house) as url:
        house.clock.now = time.time()
        (tmp_path / "schemathesis.toml").write_text(config(await furnish(house)))
        (tmp_path / "openapi.json").write_text(json.dumps(house.app.openapi()))
        left_out = [word for name in LEFT_OUT for word in ("--exclude-operation-id", name)]
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).parent / "schemathesis"),
            *("--config-file", "schemathesis.toml", "run", "openapi.json", "--url", url),
            *("-H", f"Authorization: Bearer {house.admin}"),
            *("--phases", "coverage,fuzzing", "--max-examples", "3", "--seed", "1", "--workers", "1"),
            *(
                "--exclude-path-regex",
                "^/(ga4gh|v1/agent|v1/alto)",
                "--request-timeout",
                "30",
                "--no-color",
                "--suppress-health-check",
                "all",
            ),
            *left_out,
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, output.decode()[-20_000:]


async def test_every_route_is_in_the_document_with_its_refusals(house: House) -> None:
    """Operation ids are the Python names; whatever needs a token declares 401, 403 and 429 as problems."""
    document = house.app.openapi()
    found = {op["operationId"]: op for methods in document["paths"].values() for op in methods.values()}
    assert set(found) == {route.handler.__name__ for router in ROUTERS for route in router.routes}
    for name, operation in found.items():
        if operation["security"]:
            assert {"401", "403", "429", "500"} <= operation["responses"].keys(), name
    text = json.dumps(document)
    for reference in {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}:
        assert reference in document["components"]["schemas"]
    assert "HTTPValidationError" not in text


@pytest.mark.parametrize(
    ("kind", "field", "good", "bad"),
    [
        ("TaskSpec", "priority", 1000, 1001),
        ("TaskSpec", "max_attempts", 1, 0),
        ("Demand", "cpus", 1, 0),
        ("Demand", "memory_bytes", 1024**2, 1024**2 - 1),
        ("Accelerators", "kind", "a100", "A 100"),
        ("Array", "size", 10_000, 10_001),
        ("Input", "path", "a/b", ""),
        ("Output", "url", "s3://bucket/key", "ftp://host/x"),
    ],
)
async def test_the_schema_says_what_the_domain_checks(
    house: House, admin: httpx.AsyncClient, kind: str, field: str, good: Any, bad: Any
) -> None:
    """At each limit the schema and the domain agree, on both sides."""
    from jsonschema import Draft202012Validator

    schemas = house.app.openapi()["components"]["schemas"]
    names = (f"isthmus__domain__task__{kind}-Input", f"isthmus__domain__task__{kind}", f"{kind}-Input", kind)
    schema = schemas[next(name for name in names if name in schemas)]["properties"][field]
    assert Draft202012Validator(schema).is_valid(good)
    assert not Draft202012Validator(schema).is_valid(bad)
    for value, status in ((good, 201), (bad, 422)):
        spec: dict[str, Any] = {"command": ["a"], "hold": True}
        match kind:
            case "TaskSpec":
                spec[field] = value
            case "Demand":
                spec["demand"] = {field: value}
            case "Accelerators":
                spec["demand"] = {"accelerators": {field: value}}
            case "Array":
                spec["array"] = {field: value}
            case "Input":
                spec["inputs"] = [{"content": "x", field: value}]
            case _:
                spec["outputs"] = [{"path": "x", field: value}]
        answer = await admin.post("/v1/tasks", json=spec)
        assert answer.status_code == status, answer.text
