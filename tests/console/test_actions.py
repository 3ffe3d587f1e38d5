"""What one does in the page: submit, cancel, filter, jump, drain; and what hostile text does: nothing."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.console.conftest import House, Open

pytestmark = pytest.mark.real
HOSTILE = "<img src=x onerror=window.pwned=1><script>window.pwned=1</script>"


def test_a_task_is_submitted_from_form_and_file(house: House, open_page: Open) -> None:
    """The form writes the file and the file fills the form; the API's word on a wrong field is shown; the plan comes first."""
    page = open_page("#/submit?template=plain")
    page.get_by_label("Name", exact=True).fill("from the form")
    page.get_by_label("Name", exact=True).blur()
    file = page.get_by_label("Task file (YAML)")
    expect(file).to_have_value(
        "name: from the form\ncommand: echo hello from $(hostname)\ncpus: 1\nmemory: 512M\ntime: 10m\n"
    )
    file.fill("name: from the file\ncommand: echo written in yaml\ncpus: 0\n")
    expect(page.get_by_label("Name", exact=True)).to_have_value("from the file")
    expect(page.get_by_role("alert")).to_contain_text("demand.cpus")
    file.fill("name: from the file\ncommand: echo written in yaml\nmemory: 64M\n")
    expect(page.locator("[data-plan='0']")).to_contain_text("/local")
    page.get_by_role("button", name="Submit", exact=True).click()
    expect(page.get_by_role("heading", name="from the file")).to_be_visible()
    expect(page.locator("[data-state=succeeded]").first).to_be_visible()


def test_what_is_copied_does_the_same(house: House, open_page: Open, tmp_path: Path) -> None:
    """The command and the Python text, run as they are, submit the task that the form has."""
    page = open_page("#/submit?template=sweep")
    page.get_by_label("Task file (YAML)").fill(
        'name: copied\ncommand: echo "it\'s" $HOME\ncpus: 1\nmemory: 64M\ntime: 5m\ntags: {a: b}\n'
    )
    page.get_by_text("As command and as Python").click()
    expect(page.locator("[data-copy=command]")).to_contain_text("--tag a=b")
    command = page.locator("[data-copy=command]").inner_text()
    program = page.locator("[data-copy=python]").inner_text()
    source = str(Path(__file__).parents[2] / "src")
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "PYTHONPATH": source,
        "ISTHMUS_URL": house.url,
        "ISTHMUS_TOKEN": house.token,
    }
    words = shlex.split(command)
    assert words[0] == "isthmus"
    for argv in ([sys.executable, "-m", "isthmus", *words[1:]], [sys.executable, "-c", program]):
        done = subprocess.run(
            argv, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
    made = house.client.get("/v1/tasks", params={"name": "copied"}).json()["items"]
    specs = [house.client.get(f"/v1/tasks/{one['id']}").json()["spec"] for one in made]
    assert len(specs) == 2
    assert specs[0] == specs[1]
    assert specs[0]["command"] == ["/bin/sh", "-c", 'echo "it\'s" $HOME']


def test_a_task_is_cancelled_only_after_a_question(house: House, open_page: Open) -> None:
    """The dialog names the task; leaving it changes nothing."""
    task = house.submit(name="long one", command=["sleep", "60"])
    page = open_page(f"#/tasks/{task['id']}")
    page.get_by_role("button", name="Cancel the task").click()
    page.get_by_role("button", name="Leave it as it is").click()
    assert house.client.get(f"/v1/tasks/{task['id']}").json()["cancel_requested"] is False
    page.get_by_role("button", name="Cancel the task").click()
    page.locator("dialog").get_by_role("button", name="Cancel the task").click()
    expect(page.locator(".head [data-state=cancelled]")).to_be_visible()


def test_filters_are_in_the_address_and_the_keyboard_goes_everywhere(house: House, open_page: Open) -> None:
    """A filter changes the link; the palette finds a task by its name; arrows and Enter open it."""
    one = house.submit(name="needle", command=["true"], hold=True)
    page = open_page("#/tasks")
    page.get_by_label("Name", exact=True).fill("needle")
    expect(page.locator("[data-id]")).to_have_count(1)
    expect(page).to_have_url(re.compile("name=needle"))
    page.reload()
    expect(page.locator("[data-id]")).to_have_count(1)
    page.get_by_label("Name", exact=True).fill("no such task")
    expect(page.get_by_text("No task matches.")).to_be_visible()
    page.keyboard.press("Control+k")
    page.get_by_role("combobox", name="Page, site, task").fill("needle")
    expect(page.locator("dialog [role=option]").first).to_contain_text("needle")
    expect(page.locator("dialog [role=option]").first).to_contain_text("task")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="needle")).to_be_visible()
    assert one["id"] in page.url
    page.get_by_role("button", name="Release").click()
    expect(page.locator(".head [data-state=succeeded]")).to_be_visible()


def test_hostile_text_is_only_text(house: House, furnished: dict[str, str], open_page: Open) -> None:
    """Markup in names, labels, messages and logs is shown as it was written and runs nothing."""
    task = house.submit(
        name=HOSTILE,
        command=["printf", "%s\n", HOSTILE],
        tags={HOSTILE: HOSTILE},
        description=HOSTILE,
        outputs=[{"path": "<b>x", "required": False}],
    )
    house.wait(task["id"])
    page = open_page(f"#/tasks?tag={HOSTILE.replace('&', '%26').replace('#', '%23')}:x")
    page.goto(f"{house.url}/#/tasks")
    expect(page.locator(f"[data-id='{task['id']}']")).to_contain_text("<script>window.pwned=1</script>")
    for tab in ("timeline", "logs", "why", "files", "cost", "spec"):
        page.goto(f"{house.url}/#/tasks/{task['id']}?tab={tab}")
        expect(page.get_by_role("tab", selected=True)).to_be_visible()
        if tab == "logs":
            expect(page.locator("pre.log")).to_contain_text(HOSTILE)
    assert house.client.patch("/v1/sites/gamma", json={"trust": HOSTILE}).status_code == 200
    house.centres.put("default/hostile", {"<img src=x onerror=window.pwned=1>.txt": b"x"}, sensitivity=HOSTILE[:60])
    for address, shown in (
        ("#/", "Overview"),
        ("#/sites", "gamma"),
        ("#/sites/gamma", HOSTILE),
        ("#/data", "hostile"),
        ("#/data/default/hostile", "onerror=window.pwned=1>.txt"),
        ("#/network?from=<img>&to=<script>", "Topology"),
    ):
        page.goto(f"{house.url}/{address}")
        expect(page.get_by_text(shown).first).to_be_visible()
    page.goto(f"{house.url}/#/tasks/{HOSTILE}")
    page.keyboard.press("Control+k")
    page.get_by_role("combobox", name="Page, site, task").fill(HOSTILE)
    expect(page.locator("dialog [role=option]").first).to_contain_text("onerror")
    assert page.evaluate("window.pwned") is None
    assert page.locator("img[src=x]").count() == 0
    for path, body in (
        ("/v1/users", {"name": HOSTILE}),
        ("/v1/projects", {"name": HOSTILE}),
        ("/v1/sites", {"name": HOSTILE, "kind": "local"}),
        ("/v1/datasets", {"name": HOSTILE, "directory": "0" * 64}),
    ):
        assert house.client.post(path, json=body).status_code == 422, path


def test_roles_decide_what_is_shown_and_the_api_decides_what_is_done(house: House, open_page: Open) -> None:
    """A reader sees no way to submit or to drain; a task of somebody else has no switches; the service refuses anyway."""
    task = house.submit(name="not yours", command=["true"], hold=True)
    reader = house.person("reader", scopes=["tasks:read"])
    page = open_page(f"#/tasks/{task['id']}", token=reader)
    expect(page.get_by_role("heading", name="not yours")).to_be_visible()
    assert page.get_by_role("link", name="Submit").count() == 0
    assert page.get_by_role("button", name="Cancel the task").count() == 0
    page.goto(f"{house.url}/#/sites/local")
    expect(page.get_by_role("heading", name="local")).to_be_visible()
    assert page.get_by_role("button", name="Drain").count() == 0
    for address in (f"/v1/tasks/{task['id']}:cancel", "/v1/sites/local:drain"):
        answer = house.client.post(address, headers={"Authorization": f"Bearer {reader}"})
        assert answer.status_code == 403


def test_a_site_is_drained_with_a_preview_and_resumed(house: House, open_page: Open) -> None:
    """The dialog says what is there; afterwards the page offers the way back."""
    page = open_page("#/sites/local")
    page.get_by_role("button", name="Drain").click()
    expect(page.locator("dialog")).to_contain_text("Tasks there")
    page.locator("dialog").get_by_role("button", name="Drain").click()
    expect(page.locator(".head [data-state=draining]")).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    expect(page.locator(".head [data-state=active]")).to_be_visible()


def test_usage_is_exported_exactly(house: House, open_page: Open) -> None:
    """The CSV has every record of the site, with its charge as it was stored."""
    task = house.submit(name="costs", command=["true"])
    house.wait(task["id"])
    page = open_page("#/sites/local")
    with page.expect_download() as coming:
        page.get_by_role("button", name="CSV").click()
    lines = Path(coming.value.path()).read_text().splitlines()
    assert lines[0].startswith("attempt,task_id,project,user,site")
    assert len(lines) > 1
    with page.expect_download() as coming:
        page.get_by_role("button", name="Parquet").click()
    assert Path(coming.value.path()).read_bytes()[:4] == b"PAR1"
