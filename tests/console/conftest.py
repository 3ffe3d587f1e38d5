"""One real service with real work, one real browser, for all tests of the web page."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from tests.client.service import RunningService
from tests.conftest import require
from tests.console.browsing import chromium

ENDED = {"succeeded", "failed", "cancelled"}
PATIENCE = 60.0
expect.set_options(timeout=20_000)


def _is_complaint(line: ConsoleMessage) -> bool:
    """An error that is not the browser's note of a refusal by the API, which the page shows in its own words."""
    return line.type == "error" and not line.text.startswith("Failed to load resource")


@dataclass(frozen=True)
class House:
    """The service as the tests see it beside the browser."""

    url: str
    token: str
    client: httpx.Client

    def submit(self, **spec: Any) -> dict[str, Any]:
        """Hand in a task."""
        answer = self.client.post("/v1/tasks", json=spec)
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def wait(self, task_id: str) -> dict[str, Any]:
        """The task once it has ended."""
        deadline = time.monotonic() + PATIENCE
        while True:
            found: dict[str, Any] = self.client.get(f"/v1/tasks/{task_id}").json()
            if found["state"] in ENDED:
                return found
            assert time.monotonic() < deadline, found
            time.sleep(0.1)

    def person(self, name: str, **token: Any) -> str:
        """A user who is a member of the default project; answers a token of theirs."""
        assert self.client.post("/v1/users", json={"name": name}).status_code == 201
        member = {"user": name, "role": "member"}
        assert self.client.post("/v1/projects/default/members", json=member).status_code < 300
        wanted = {"scopes": ["tasks:write"], "user": name, **token}
        answer = self.client.post("/v1/tokens", json=wanted)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["token"])


@pytest.fixture(scope="package")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A running service whose site is this machine."""
    running = RunningService(tmp_path_factory.mktemp("console") / "state")
    try:
        running.start()
        profile = running.profile
        headers = {"Authorization": f"Bearer {profile.token}"}
        with httpx.Client(base_url=profile.url, headers=headers, timeout=30.0) as client:
            yield House(profile.url, profile.token, client)
    finally:
        running.stop()


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """A real browser."""
    require("browser")
    with chromium() as opened:
        yield opened


Open = Callable[..., Page]


@pytest.fixture
def open_page(house: House, browser: Browser) -> Iterator[Open]:
    """Opens the page, signed in; whatever the browser complains of while a test runs fails the test."""
    complaints: list[str] = []
    contexts = []

    def opened(
        hash_: str = "#/",
        *,
        token: str | None = None,
        url: str = "",
        sign_in: bool = True,
        quiet: bool = True,
        **options: Any,
    ) -> Page:
        options = {
            "viewport": {"width": 1280, "height": 860},
            "locale": "en-GB",
            "timezone_id": "Asia/Shanghai",
            **options,
        }
        context = browser.new_context(**options)
        contexts.append(context)
        context.set_default_timeout(20_000)
        if sign_in:
            context.add_init_script(f"sessionStorage.setItem('isthmus.token', '{token or house.token}')")
        page = context.new_page()
        if quiet:
            page.on("console", lambda line: complaints.append(line.text) if _is_complaint(line) else None)
            page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{url or house.url}/{hash_}")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []
