"""Bounds and refusals: rates, bodies, unknown paths and methods, failures of our own."""

from __future__ import annotations

import logging
from pathlib import Path

import httpx
import pytest

from isthmus.api.limits import RateLimit
from isthmus.api.service import ApiSettings
from isthmus.domain.errors import Busy, Unavailable
from tests.api.conftest import House, open_house, problem_of


def test_a_bucket_refills_at_its_rate() -> None:
    """After its burst a key waits; others do not; after the time it was told, it may go on."""
    now = 0.0
    limit = RateLimit(rate=2, burst=3, clock=lambda: now)
    for _ in range(3):
        limit.spend("a")
    with pytest.raises(Busy) as refused:
        limit.spend("a")
    limit.spend("b")
    now = refused.value.retry_after_seconds
    limit.spend("a")
    with pytest.raises(Busy):
        limit.spend("a")


async def test_too_many_calls_are_told_when_to_come_back(tmp_path: Path) -> None:
    """429 with Retry-After, for this token only; a batch is one call."""
    settings = ApiSettings(rate_per_second=0.001, rate_burst=2)
    async with open_house(tmp_path, f"sqlite:///{tmp_path}/isthmus.db", settings) as house:
        admin = house.client(house.admin)
        assert (await admin.post("/v1/tasks:batch", json={"tasks": [{"command": ["a"]}] * 50})).status_code == 201
        assert (await admin.get("/v1/me")).status_code == 200
        answer = await admin.get("/v1/me")
        assert problem_of(answer, 429)["code"] == "busy"
        assert int(answer.headers["retry-after"]) >= 1
        assert (await house.client(house.person("bo")).get("/v1/me")).status_code == 200
        assert (await admin.get("/v1/health")).status_code == 200
        for _ in range(2):
            problem_of(await house.client("ist_wrong").get("/v1/me"), 401)
        problem_of(await house.client("ist_wrong").get("/v1/me"), 429)


async def test_a_body_has_a_limit_announced_or_not(tmp_path: Path) -> None:
    """A long body is refused whether its length is announced or it just keeps coming."""
    settings = ApiSettings(max_body_bytes=1000)
    async with open_house(tmp_path, f"sqlite:///{tmp_path}/isthmus.db", settings) as house:
        admin = house.client(house.admin)
        long = b'{"command": ["' + b"a" * 2000 + b'"]}'
        headers = {"content-type": "application/json"}
        problem_of(await admin.post("/v1/tasks", content=long, headers=headers), 413)

        async def drip():  # type: ignore[no-untyped-def]
            for start in range(0, len(long), 100):
                yield long[start : start + 100]

        problem_of(await admin.post("/v1/tasks", content=drip(), headers=headers), 413)
        assert (await admin.post("/v1/tasks", json={"command": ["a"]})).status_code == 201


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/v1/tasks/", 404),
        ("DELETE", "/v1/tasks", 405),
        ("GET", "/v1/tasks/01m8c494fxg2w6a05ptvvey797:cancel", 405),
        ("POST", "/v1/tasks/01m8c494fxg2w6a05ptvvey797:explode", 404),
        ("GET", "/v1/tasks/short", 404),
        ("GET", "/v1/tasks?limit=0", 422),
        ("GET", "/v1/tasks?limit=1001", 422),
        ("GET", "/v1/tasks?state=odd", 422),
        ("GET", "/v1/tasks?cursor=%27", 422),
        ("GET", "/v1/tasks?tag=novalue", 422),
        ("GET", "/v1/tasks?name=%00", 422),
        ("GET", "/v1/sites/absent", 404),
        ("POST", "/v1/sites/absent:drain", 404),
    ],
)
async def test_every_refusal_is_a_problem(admin: httpx.AsyncClient, method: str, path: str, status: int) -> None:
    """Whatever is wrong with a call, the answer has the one form."""
    answer = await admin.request(method, path)
    problem = problem_of(answer, status)
    if status == 405:
        assert answer.headers["allow"]
    if status == 422:
        assert problem["errors"][0]["field"]


async def test_allow_names_every_method_of_the_path(admin: httpx.AsyncClient) -> None:
    """405 tells all that the path takes, over all routes."""
    answer = await admin.delete(f"/v1/uploads/{'0' * 64}")
    assert answer.headers["allow"] == "GET, HEAD, PATCH"


async def test_a_failure_of_our_own_tells_nothing_of_itself(
    house: House, admin: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unexpected error is a plain 500; its text is in the log only."""

    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("innermost detail")

    monkeypatch.setattr(house.service.database, "read", broken)
    answer = await admin.get("/v1/version")
    assert answer.status_code == 200
    answer = await admin.get("/v1/health")
    assert "innermost" not in problem_of(answer, 500)["detail"]
    assert "innermost detail" in caplog.text


async def test_a_store_that_does_not_answer_is_503(
    house: House, admin: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Health and calls say that a part is missing and when to come back."""

    async def gone(*_: object, **__: object) -> None:
        raise Unavailable("The store does not answer.")

    monkeypatch.setattr(house.service.database, "read", gone)
    for path in ("/v1/health", "/v1/me"):
        answer = await admin.get(path)
        problem_of(answer, 503)
        assert answer.headers["retry-after"]


async def test_the_access_log_has_no_secret(
    house: House, admin: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """A line has method, path, status, user; no query, no header, no body."""
    caplog.set_level(logging.DEBUG)
    await admin.get("/v1/tasks?name=from-the-query")
    await admin.put("/v1/projects/default/secrets/K", json={"value": "from-the-body"})
    text = "\n".join(record.getMessage() for record in caplog.records if not record.name.startswith("httpx"))
    assert "GET /v1/tasks 200" in text
    assert "admin" in text
    for secret in ("from-the-query", "from-the-body", house.admin):
        assert secret not in text


async def test_figures_need_their_scope_unless_opened(tmp_path: Path, house: House, admin: httpx.AsyncClient) -> None:
    """Tasks by state and latencies are there; without the scope they are not, unless the operator opened them."""
    await admin.post("/v1/tasks", json={"command": ["a"]})
    text = (await admin.get("/metrics")).text
    assert 'isthmus_tasks{state="waiting"} 1.0' in text
    assert "isthmus_queue_length 1.0" in text
    assert 'isthmus_http_seconds_count{method="POST",route="/v1/tasks"} 1.0' in text
    problem_of(await house.client(house.person("bo")).get("/metrics"), 403)
    problem_of(await house.client(None).get("/metrics"), 401)
    (tmp_path / "open").mkdir()
    settings = ApiSettings(open_metrics=True)
    async with open_house(tmp_path / "open", f"sqlite:///{tmp_path}/open/isthmus.db", settings) as opened:
        assert (await opened.client(None).get("/metrics")).status_code == 200
