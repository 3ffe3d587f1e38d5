"""Data on its way as the pages show it: paths, reservations, who uses what, files from and to the browser; and runs of the twin."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.console.conftest import House, Open
from tests.console.test_pages import pictured

pytestmark = pytest.mark.real


def test_a_transfer_is_on_its_path_in_the_overview_and_in_the_calendar(
    house: House, furnished: dict[str, str], open_page: Open, tmp_path: Path
) -> None:
    """The list beside the map names what moves and for which task; the calendar has the links that it holds, and no others."""
    page = open_page("#/")
    flow = page.locator("[data-flows] tbody tr").first
    expect(flow).to_contain_text("era5@1")
    expect(flow).to_contain_text("gamma → beta")
    expect(flow.get_by_role("link", name=furnished["moves"])).to_be_visible()
    expect(page.locator("svg g.flow")).to_have_count(3)
    expect(page.locator("image.basemap")).to_have_count(1)
    assert page.evaluate("window.pwned") is None
    pictured(page, "overview", tmp_path)
    page.goto(f"{house.url}/#/network?from=gamma&to=beta&span=minutes")
    booked = page.locator("[data-booked]")
    expect(booked).to_have_count(3)
    assert {row.get_attribute("data-booked") for row in booked.all()} == {"gamma>r1", "r1>r2", "r2>beta"}
    expect(page.locator("[data-booked='r2>beta']")).to_contain_text("/ 2 Mbit/s")
    expect(page.get_by_role("row", name="gamma → r1 → r2 → beta").get_by_role("link", name="era5@1")).to_be_visible()
    pictured(page, "network", tmp_path)
    page.get_by_role("link", name="era5@1").first.click()
    expect(page.locator("svg text.ink", has_text="↳ era5@1")).to_be_visible()


def test_slices_are_shown_with_their_state(
    house: House, furnished: dict[str, str], open_page: Open, tmp_path: Path
) -> None:
    """Rate, links, whose it is and its mark; whether routers have it, else why not; in Chinese as well. Without any it says so."""
    page = open_page("#/network")
    expect(page.get_by_text("There is no slice.")).to_be_visible()
    columns = "name, project, dscp, bits_per_second, links, wanted, error, programmed_at, created_by, created_at"
    for row in (  # as they are kept; no router of this network obeys, so that nobody changes them
        """'weather', 'climate', 46, 2e8, '["r1-r2","r2-beta"]', 1, '', 1.0, 'op', 1.0""",
        """'control', '', 32, 5e6, '["r1-r2"]', 1, 'r1 does not answer.', NULL, 'op', 1.0""",
    ):
        house.centres.execute(f"INSERT INTO net_slices ({columns}) VALUES ({row})")
    try:
        page.reload()
        weather, control = page.locator("[data-slice=weather]"), page.locator("[data-slice=control]")
        for text in ("200 Mbit/s", "r1-r2, r2-beta", "climate", "46"):
            expect(weather).to_contain_text(text)
        expect(weather.locator("[data-state=up]")).to_be_visible()
        for text in ("5 Mbit/s", "packets with the mark", "r1 does not answer."):
            expect(control).to_contain_text(text)
        expect(control.locator("[data-state=failed]")).to_be_visible()
        pictured(page, "slices", tmp_path)
        page.evaluate("localStorage.setItem('isthmus.language', 'zh-CN')")
        page.reload()
        expect(page.get_by_role("heading", name="切片：确保可用的链路速率")).to_be_visible()
        expect(control).to_contain_text("带该标记的报文")
    finally:
        house.centres.execute("DELETE FROM net_slices")


def test_whose_a_transfer_is_stays_within_its_project(house: House, furnished: dict[str, str], open_page: Open) -> None:
    """Somebody of no project sees that the links are held, and not by what or whom."""
    stranger = house.person("stranger", member=False, scopes=["tasks:read"])
    page = open_page("#/network", token=stranger)
    expect(page.locator("[data-booked='r1>r2']")).to_be_visible()
    expect(page.locator("td", has_text="another project's").first).to_be_visible()
    assert page.get_by_text("era5").count() == 0
    assert page.get_by_text(furnished["moves"]).count() == 0


def test_a_dataset_says_who_used_it_for_what(furnished: dict[str, str], open_page: Open) -> None:
    """The tasks that read a version, and what they made of it; from there to what was made, and back to what it is made from."""
    page = open_page("#/data/default/ice")
    expect(page.get_by_role("link", name="grid search, best of four")).to_be_visible()
    expect(page.get_by_role("row", name="means of the core")).to_contain_text("@1")
    page.get_by_role("link", name="default/means@1").click()
    expect(page.get_by_role("heading", name="means")).to_be_visible()
    expect(page.get_by_role("link", name="default/ice@1")).to_be_visible()


def test_a_file_goes_from_the_browser_into_a_task_and_back(house: House, open_page: Open, tmp_path: Path) -> None:
    """A chosen file becomes an input; what the task leaves of it is downloaded, byte for byte."""
    source = tmp_path / "stones.txt"
    source.write_bytes(b"seven stones\n\xff\x00")
    page = open_page("#/submit")
    page.get_by_label("Input files from this device").set_input_files(source)
    expect(page.locator("[data-given='stones.txt']")).to_be_visible()
    file = page.get_by_label("Task file (YAML)")
    file.fill(
        file.input_value().replace("echo hello from $(hostname)", "cp stones.txt out.bin") + "outputs: [out.bin]\n"
    )
    expect(page.locator("[data-plan='0']")).to_be_visible()
    page.get_by_role("button", name="Submit", exact=True).click()
    expect(page.locator(".head [data-state=succeeded]")).to_be_visible()
    page.get_by_role("tab", name="Files").click()
    outputs = page.locator(".card", has=page.get_by_role("heading", name="Outputs"))
    with page.expect_download() as coming:
        outputs.get_by_role("button", name="Download").click()
    assert coming.value.suggested_filename == "out.bin"
    assert Path(coming.value.path()).read_bytes() == source.read_bytes()


def test_two_runs_of_the_twin_are_compared(open_page: Open, tmp_path: Path) -> None:
    """A scenario runs, another runs; their figures stand side by side with the change, and the report has its pictures."""
    page = open_page("#/twin")
    scenario = page.get_by_label("Scenario (YAML)")
    small = scenario.input_value().replace("days: 2.0", "days: 0.5")
    for name in ("first", "second"):
        scenario.fill(small.replace("name: two sites", f"name: {name}").replace("seed: 1", f"seed: {len(name)}"))
        page.get_by_role("button", name="Run", exact=True).click()
        expect(page.get_by_role("row", name=name).locator("[data-state=done]")).to_be_visible(timeout=120_000)
    expect(page.get_by_role("columnheader", name="Change")).to_be_visible()
    energy = page.get_by_role("cell", name="energy (kWh)", exact=True)
    expect(page.locator("tr", has=energy)).to_contain_text("%")
    page.get_by_role("row", name="second").get_by_role("button", name="Report").click()
    expect(page.locator("img.plot").first).to_be_visible()
    pictured(page, "twin", tmp_path)
