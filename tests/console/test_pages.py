"""Each page with real content: nothing serious for axe in light and dark, on a laptop and a phone, in both languages; its picture."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import axe_playwright_python
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.console.conftest import Open

pytestmark = pytest.mark.real
AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
GREATEST_BYTES = 120_000


def judged(page: Page) -> None:
    """No serious or critical finding of axe on the page as it is."""
    page.evaluate(AXE)
    found: list[dict[str, Any]] = page.evaluate(
        "axe.run(document, {resultTypes: ['violations']}).then(r => r.violations)"
    )
    serious = [
        (one["id"], [node["html"][:200] for node in one["nodes"][:3]])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
    assert serious == []


def pictured(page: Page, name: str, where: Path) -> None:
    """Keep the page's picture; in the docs when ISTHMUS_PICTURES is set."""
    path = where / f"console-{name}.png"
    page.screenshot(path=path, full_page=True)
    with Image.open(path) as image:
        image.quantize(96).save(path, optimize=True)
    assert path.stat().st_size <= GREATEST_BYTES
    if os.environ.get("ISTHMUS_PICTURES"):
        shutil.copy(path, PICTURES / path.name)


PAGES = {
    "overview": ("#/", "Capacity, queues, prices"),
    "tasks": ("#/tasks", "grid search, best of four"),
    "submit": ("#/submit", "The best plans now"),
    "sites": ("#/sites", "beta"),
    "site": ("#/sites/local", "Who is whom there"),
    "site-beta": ("#/sites/beta", "right to a second"),
    "twin": ("#/twin", "Run the national scenario"),
    "data": ("#/data/default/ice", "core.csv"),
    "datasets": ("#/data", "era5"),
    "network": ("#/network?from=gamma&to=beta&span=minutes", "Links as measured"),
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_shows_its_content_and_is_accessible(
    name: str, furnished: dict[str, str], open_page: Open, tmp_path: Path
) -> None:
    """In light, then in dark."""
    address, text = PAGES[name]
    page = open_page(address)
    expect(page.get_by_text(text).first).to_be_visible()
    expect(page.locator(".bone")).to_have_count(0)
    if name == "submit":
        expect(page.locator("[data-plan='0']")).to_contain_text("/local")
    judged(page)
    if name not in ("overview", "network", "twin"):  # pictured while something moves, and with runs
        pictured(page, name, tmp_path)
    page.get_by_role("button", name="Light or dark").click()
    judged(page)


@pytest.mark.parametrize("tab", ["timeline", "logs", "why", "files", "cost", "spec"])
def test_every_part_of_a_task_is_accessible(
    tab: str, furnished: dict[str, str], open_page: Open, tmp_path: Path
) -> None:
    """The parts of a task that ended well; pictures of how it went and why."""
    page = open_page(f"#/tasks/{furnished['good']}?tab={tab}")
    expect(page.get_by_role("tab", selected=True)).to_be_visible()
    seen = {
        "timeline": "Attempts over time",
        "logs": "epoch 3",
        "why": "Chosen",
        "files": "answer.txt",
        "cost": "Predicted",
        "spec": "Command",
    }
    expect(page.get_by_text(seen[tab]).first).to_be_visible()
    judged(page)
    if tab in ("timeline", "why", "files", "cost"):
        pictured(page, f"task-{tab}", tmp_path)


def test_a_phone_and_chinese_are_served(furnished: dict[str, str], open_page: Open, tmp_path: Path) -> None:
    """On a small screen nothing is wider than it; the words are Chinese for who prefers them; the zone is named."""
    page = open_page("#/", viewport={"width": 390, "height": 844}, locale="zh-CN", is_mobile=True, has_touch=True)
    expect(page.get_by_role("heading", name="概览")).to_be_visible()
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    expect(page.get_by_text("UTC+08:00")).to_be_visible()
    for address in ("#/", "#/tasks", "#/submit", "#/sites/local", "#/network", f"#/tasks/{furnished['good']}"):
        page.goto(page.url.partition("#")[0] + address)
        expect(page.locator("main h1").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth + 1"), address
    judged(page)
    page.goto(page.url.partition("#")[0] + "#/")
    expect(page.get_by_text("容量、队列、价格")).to_be_visible()
    pictured(page, "phone-zh", tmp_path)


def test_the_sign_in_page_is_accessible(open_page: Open) -> None:
    """Before one is signed in."""
    page = open_page(sign_in=False)
    expect(page.get_by_label("Token")).to_be_visible()
    judged(page)
