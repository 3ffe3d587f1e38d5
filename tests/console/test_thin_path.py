"""Sign in, see tasks move live, read one: in a real browser, against a real service with real work."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.client.service import RunningService
from tests.console.browsing import DoorBetween
from tests.console.conftest import House, Open
from tests.identity.provider import running_provider

pytestmark = pytest.mark.real


def test_one_signs_in_by_token_and_out_again(house: House, open_page: Open) -> None:
    """A wrong token is refused in words; the right one opens the page; signing out forgets it."""
    page = open_page(sign_in=False, quiet=False)
    page.get_by_label("Token").fill("ist_wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("token")
    page.get_by_label("Token").fill(house.token)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("[data-pulse=live]")).to_be_visible()
    page.reload()
    expect(page.locator("[data-pulse=live]")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Token")).to_be_visible()
    assert (
        page.evaluate("sessionStorage.length + [...Object.keys(localStorage)].filter(k => k.includes('token')).length")
        == 0
    )


def test_a_task_is_seen_from_its_submission_to_its_end_without_a_reload(house: House, open_page: Open) -> None:
    """The row appears, its state changes by events alone, and its page has the log that it printed."""
    page = open_page("#/tasks")
    expect(page.locator("[data-pulse=live]")).to_be_visible()
    task = house.submit(name="seen live", command=["sh", "-c", "echo seven stones; sleep 1"])
    row = page.locator(f"[data-id='{task['id']}']")
    expect(row).to_be_visible()
    house.wait(task["id"])
    expect(row.locator("[data-state=succeeded]")).to_be_visible()
    row.click()
    page.get_by_role("tab", name="Logs").click()
    expect(page.locator("pre.log")).to_contain_text("seven stones")
    page.get_by_role("tab", name="Why").click()
    expect(page.get_by_text("Chosen:")).to_be_visible()


def test_the_stream_resumes_where_it_was_cut(house: House, open_page: Open) -> None:
    """While the service cannot be reached the page says so; afterwards it has what happened meanwhile, without a reload."""
    door = DoorBetween(int(house.url.rpartition(":")[2]))
    try:
        page = open_page("#/tasks", url=door.url, quiet=False)
        expect(page.locator("[data-pulse=live]")).to_be_visible()
        first = house.submit(name="before the cut", command=["true"])
        expect(page.locator(f"[data-id='{first['id']}'] [data-state=succeeded]")).to_be_visible()
        resumed = []
        page.on(
            "request",
            lambda request: (
                resumed.append(request.headers.get("last-event-id")) if "/v1/events" in request.url else None
            ),
        )
        door.shut()
        expect(page.locator("[data-pulse=waiting]")).to_be_visible()
        second = house.submit(name="behind the cut", command=["true"])
        house.wait(second["id"])
        door.open()
        expect(page.locator(f"[data-id='{second['id']}'] [data-state=succeeded]")).to_be_visible()
        assert resumed
        assert all(number is not None and int(number) > 0 for number in resumed)
    finally:
        door.close()


@pytest.mark.filterwarnings("ignore")  # the stand-in's own
def test_one_signs_in_through_an_identity_provider(browser: Browser, tmp_path: Path) -> None:
    """The button leads to the provider and back into the page; who is no user is told so; the address keeps nothing."""
    with running_provider({"ada": "ada", "stranger": "stranger"}) as issuer:
        state = tmp_path / "state"
        state.mkdir(mode=0o700)
        settings = state / "oidc.json"
        settings.touch(mode=0o600)
        settings.write_text(
            json.dumps({"issuer": issuer, "client_id": "isthmus", "client_secret": "s", "name": "University"})
        )
        service = RunningService(state)
        try:
            service.start()
            profile = service.profile
            headers = {"Authorization": f"Bearer {profile.token}"}
            httpx.post(f"{profile.url}/v1/users", json={"name": "ada"}, headers=headers).raise_for_status()
            for person, known in (("stranger", False), ("ada", True)):
                page = browser.new_page()
                page.goto(profile.url)
                page.get_by_role("link", name="Sign in with University").click()
                page.get_by_role("textbox").first.fill(person)
                page.get_by_role("button").first.click()
                if known:
                    expect(page.locator("[data-pulse=live]")).to_be_visible()
                else:
                    expect(page.get_by_role("alert")).to_contain_text("no user here")
                assert "sign-in" not in page.url
                page.close()
        finally:
            service.stop()


def test_ten_thousand_tasks_scroll_with_few_rows_in_the_document(house: House, open_page: Open) -> None:
    """All can be reached; only those in view are in the document, and new pages come as one scrolls."""
    answer = house.client.post(
        "/v1/tasks", json={"name": "many", "command": ["true"], "hold": True, "array": {"size": 10_000}}
    )
    assert answer.status_code == 201, answer.text
    page = open_page(f"#/tasks?array_id={answer.json()['array_id']}")
    expect(page.locator("[data-id]").first).to_be_visible()
    frames = page.evaluate(
        """async () => {
            const port = document.querySelector('.window'); const gaps = []; let last = performance.now(); let most = 0;
            for (let n = 0; n < 240 && port.scrollTop + port.clientHeight < 10000 * 40 - 1; n += 1) {
                port.scrollTop += 2400;
                await new Promise(requestAnimationFrame);
                most = Math.max(most, document.querySelectorAll('[data-id]').length);
                const now = performance.now(); gaps.push(now - last); last = now;
                if (port.scrollTop + port.clientHeight >= port.scrollHeight - 1) await new Promise(done => setTimeout(done, 60));
            }
            return { most, reached: port.scrollTop, gaps: gaps.length };
        }"""
    )
    assert frames["most"] < 80
    assert frames["reached"] > 40_000
