"""`isthmus top` against a real service: what it shows is what runs, and its keys do what they say."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from textual.widgets import DataTable, Input, Static

from isthmus.cli.top.app import Top
from isthmus.cli.top.dialogs import Confirm, Reading
from isthmus.cli.top.rows import bar, transfer_row
from isthmus.client.asynchronous import AsyncClient
from isthmus.client.config import find_profile
from isthmus.client.datasets import Transfer
from tests.cli.conftest import Ask

PATIENCE = 100.0


async def _until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not what():
            await asyncio.sleep(0.05)


def _cells(app: Top, name: str) -> list[list[str]]:
    table = app.query_one(f"#{name}", DataTable)
    return [[str(cell) for cell in table.get_row(key)] for key in table.rows]


async def test_it_follows_tasks_says_why_shows_the_log_and_cancels_after_asking(ask: Ask) -> None:
    """Two tasks: one that ends and wrote something, one that is cancelled by the key; a filter leaves the other out."""
    done = ask("run", "--name", "writes", "--json", "--", "sh", "-c", "echo seen on screen").document["id"]
    slow = ask("submit", "--name", "sleeps", "--json", "--", "sleep", "300").document["ids"][0]
    app = Top(AsyncClient(profile=find_profile(None, None, None)), filters={"project": ""})
    async with app.run_test(size=(140, 40)) as pilot:
        await _until(lambda: any(row[0] == slow and "running" in row[2] for row in _cells(app, "tasks")))
        assert "local" in [row[0] for row in _cells(app, "sites")]
        table = app.query_one("#tasks", DataTable)

        def put_cursor(task: str) -> None:
            table.move_cursor(row=[key.value for key in table.rows].index(task))

        put_cursor(done)
        await pilot.press("enter")
        await _until(
            lambda: isinstance(app.screen, Reading) and "chosen" in str(app.screen.query_one("#text", Static).content)
        )
        await pilot.press("escape")
        await pilot.press("w")
        await _until(lambda: isinstance(app.screen, Reading))
        await pilot.press("escape")
        await pilot.press("l")
        await _until(
            lambda: (
                isinstance(app.screen, Reading)
                and "seen on screen" in str(app.screen.query_one("#text", Static).content)
            )
        )
        await pilot.press("escape")

        put_cursor(slow)
        await pilot.press("c")
        await _until(lambda: isinstance(app.screen, Confirm))
        await pilot.press("n")
        await pilot.pause()
        assert ask("show", slow, "--json").document["state"] == "running"
        put_cursor(slow)
        await pilot.press("c")
        await _until(lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await _until(lambda: any(row[0] == slow and "cancelled" in row[2] for row in _cells(app, "tasks")))

        await pilot.press("slash")
        app.query_one("#filter", Input).value = "writes"
        await pilot.press("enter")
        await _until(lambda: all(row[1] == "writes" for row in _cells(app, "tasks")))
        assert done in [row[0] for row in _cells(app, "tasks")]


async def test_what_a_site_says_cannot_steer_the_terminal_and_a_service_that_is_gone_is_named() -> None:
    """Control characters are shown as such; without a service the first line says so and nothing breaks."""
    cells = transfer_row(Transfer(id="t", dataset="a\x1b[31mb\nc", size_bytes=100, done_bytes=50, bytes_per_second=5.0))
    assert str(cells[5]).endswith(" 50%")
    assert "\x1b" not in str(cells[1])
    assert "\n" not in str(cells[1])
    assert str(bar(0.5)).endswith(" 50%")
    assert str(bar(7.0)).endswith("100%")
    gone = AsyncClient(url="http://127.0.0.1:9", token="none", project="none")
    app = Top(gone, filters={})
    async with app.run_test():
        await _until(lambda: "does not answer" in str(app.query_one("#about", Static).content))
        assert app.query_one("#about", Static).has_class("trouble")


def test_without_a_terminal_it_says_what_to_use_instead(ask: Ask) -> None:
    """Piped, it is refused with the commands that answer programs; an unknown state is named."""
    assert "isthmus ls --json" in ask("top", code=64).err
    assert "Did you mean running?" in ask("top", "--state", "runnign", code=64).err
