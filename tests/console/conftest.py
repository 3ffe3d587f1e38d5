"""One real service with real centres and real work, one real browser, for all tests of the web page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from tests.conftest import require
from tests.console import world
from tests.console.browsing import chromium
from tests.data.centres import Centres

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
    centres: Centres

    def submit(self, **spec: Any) -> dict[str, Any]:
        """Hand in a task."""
        answer = self.client.post("/v1/tasks", json=spec)
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def wait(self, task_id: str) -> dict[str, Any]:
        """The task once it has ended."""
        return world.ended(self.client, task_id)

    def person(self, name: str, *, member: bool = True, **token: Any) -> str:
        """A user, of the default project unless they are of none; answers a token of theirs."""
        assert self.client.post("/v1/users", json={"name": name}).status_code == 201
        if member:
            joins = {"user": name, "role": "member"}
            assert self.client.post("/v1/projects/default/members", json=joins).status_code < 300
        wanted = {"scopes": ["tasks:write"], "user": name, **token}
        answer = self.client.post("/v1/tokens", json=wanted)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["token"])


@pytest.fixture(scope="package")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A running service with this machine as a site, and two centres behind agents that keep data."""
    centres = Centres(tmp_path_factory.mktemp("console"))
    with centres, world.client_of(centres) as client:
        world.start(centres, client)
        token = (centres.state / "admin-token").read_text().strip()
        yield House(str(client.base_url).rstrip("/"), token, client, centres)


@pytest.fixture(scope="package")
def furnished(house: House) -> dict[str, str]:
    """Prices, a network, datasets, tasks that ended well and badly, run, wait and move data; their ids."""
    return world.furnish(house.centres, house.client)


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
