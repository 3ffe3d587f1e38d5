"""The application of `isthmus top`: three tables that follow the event stream, and what can be done to a task."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.widgets import DataTable, Footer, Input, Static

from isthmus.cli.messages import _
from isthmus.cli.top import rows
from isthmus.cli.top.dialogs import Confirm, Reading
from isthmus.client import administration, datasets, operations
from isthmus.client.asynchronous import AsyncClient
from isthmus.client.records import Task
from isthmus.client.wire import Steps
from isthmus.domain.errors import IsthmusError

MOST_TASKS = 500
LEAST_SECONDS = 0.5  # between two looks, however many events come
QUIET_SECONDS = 10.0  # after which everything is looked at without an event: loads change by themselves


class Top(App[None]):
    """Sites, tasks and transfers of one service, kept up to date by its events."""

    CSS = """
    #about { height: auto; max-height: 3; background: $panel; padding: 0 1; }
    #sites { height: auto; max-height: 30%; }
    #tasks { height: 1fr; }
    #transfers { height: auto; max-height: 25%; }
    #about.trouble { background: $error; color: $text; text-style: bold; }
    .title { height: 1; padding: 0 1; text-style: bold; }
    #filter { display: none; }
    #filter.open { display: block; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        ("q", "quit", _("End")),
        ("w", "why", _("Why")),  # and Enter, which the table takes for itself
        ("l", "log", _("Log")),
        ("c", "cancel", _("Cancel")),
        ("h", "hold", _("Hold")),
        ("r", "release", _("Release")),
        ("slash", "filter", _("Filter")),
        ("space", "pause", _("Stand still")),
    ]
    ENABLE_COMMAND_PALETTE = False

    def __init__(self, client: AsyncClient, *, filters: Mapping[str, Any]) -> None:
        super().__init__()
        self._client = client
        self._asked = dict(filters)
        self._changed = asyncio.Event()
        self._paused = False
        self._trouble = ""
        self._tasks: list[Task] = []

    def compose(self) -> ComposeResult:
        """One line about the service, three tables, the keys."""
        yield Static(id="about")
        with Vertical():
            for name, title in (("sites", _("Sites")), ("tasks", _("Tasks")), ("transfers", _("Transfers"))):
                yield Static(title, classes="title", id=f"{name}-title")
                yield DataTable(id=name, cursor_type="row", zebra_stripes=True)
            yield Input(placeholder=_("Part of a task's name; Enter applies it, empty shows all"), id="filter")
        yield Footer()

    def on_mount(self) -> None:
        """Begin to follow."""
        for name, headers in (
            ("sites", rows.site_headers()),
            ("tasks", rows.task_headers()),
            ("transfers", rows.transfer_headers()),
        ):
            table = self._table(name)
            for header in headers:
                table.add_column(header, key=header)
        self._table("tasks").focus()
        self.query_one("#about", Static).update(f"{self._client.profile.url}  {_('asks the service')} ...")
        self.run_worker(self._listen(), exclusive=False)
        self.run_worker(self._follow(), exclusive=False)

    async def on_unmount(self) -> None:
        """Let go of the connection."""
        await self._client.close()

    async def _listen(self) -> None:
        """Note that something happened; what it was is looked up in bulk."""
        while True:
            with contextlib.suppress(IsthmusError):
                async for _event in self._client.events(project=self._asked.get("project", "")):
                    self._changed.set()
            await asyncio.sleep(LEAST_SECONDS)

    async def _follow(self) -> None:
        while True:
            self._changed.clear()
            if not self._paused:
                await self._look()
            await asyncio.sleep(LEAST_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(QUIET_SECONDS):
                    await self._changed.wait()

    async def _look(self) -> None:
        try:
            sites = await self._client.run(administration.sites())
            self._tasks = [task async for task in self._client.tasks(limit=MOST_TASKS, **self._asked)]
            project = self._asked.get("project") or self._client.profile.project
            transfers = (await self._client.run(datasets.transfers(project=project, open_only=True))).items
        except IsthmusError as error:
            self._trouble = str(error)
        else:
            self._trouble = ""
            self._fill("sites", [(site.name, rows.site_row(site)) for site in sites])
            self._fill("tasks", [(task.id, rows.task_row(task)) for task in self._tasks])
            self._fill("transfers", [(one.id, rows.transfer_row(one)) for one in transfers])
            self.query_one("#tasks-title", Static).update(f"{_('Tasks')}: {rows.summary(self._tasks) or _('none')}")
            for name in ("transfers", "transfers-title"):
                self.query_one(f"#{name}").display = bool(transfers)
        self._tell()

    def _tell(self) -> None:
        about = [self._client.profile.url, datetime.now().astimezone().strftime("%H:%M:%S %Z")]
        if self._paused:
            about.append(_("stands still: space goes on"))
        if name := self._asked.get("name"):
            about.append(_("only {name}").format(name=name))
        if self._trouble:
            about.append(self._trouble)
        line = self.query_one("#about", Static)
        line.set_class(bool(self._trouble), "trouble")
        line.update("  ".join(about).replace("[", r"\["))

    def _table(self, name: str) -> DataTable[Any]:
        return self.query_one(f"#{name}", DataTable)

    def _fill(self, name: str, wanted: Sequence[tuple[str, rows.Row]]) -> None:
        """Put rows into a table: cell by cell where the same rows are there, so that nothing jumps under the cursor."""
        table = self._table(name)
        if [key.value for key in table.rows] == [key for key, _row in wanted]:
            for key, row in wanted:
                for column, cell in zip(table.columns, row, strict=True):
                    if table.get_cell(key, column) != cell:
                        table.update_cell(key, column, cell, update_width=True)
            return
        at = self._chosen(name)
        table.clear()
        for key, row in wanted:
            table.add_row(*row, key=key)
        keys = [key for key, _row in wanted]
        if at in keys:
            table.move_cursor(row=keys.index(at))

    def _chosen(self, name: str) -> str:
        table = self._table(name)
        if not table.row_count:
            return ""
        return str(table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value)

    def _under_cursor(self) -> Task | None:
        chosen = self._chosen("tasks")
        return next((task for task in self._tasks if task.id == chosen), None)

    # --- keys ---------------------------------------------------------------------------------------------------------

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Enter in a table."""
        if event.data_table.id == "tasks":
            self.action_why()

    def action_why(self) -> None:
        """The decision about the task under the cursor, as `isthmus why` tells it."""
        self._read("why", _("Why"))

    def action_log(self) -> None:
        """The end of the task's output."""
        self._read("logs", _("Log"))

    def _read(self, verb: str, title: str) -> None:
        task = self._under_cursor()
        if task is not None:
            self.push_screen(Reading(f"{title}: {task.name or task.id}", self._client, task, verb))

    def action_pause(self) -> None:
        """Stand still, or go on."""
        self._paused = not self._paused
        self._changed.set()
        self._tell()

    def action_filter(self) -> None:
        """Ask for a part of the name."""
        field = self.query_one("#filter", Input)
        field.add_class("open")
        field.focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Show what fits."""
        self._asked["name"] = event.value.strip()
        event.input.remove_class("open")
        self._table("tasks").focus()
        self._changed.set()

    def action_cancel(self) -> None:
        """Cancel the task under the cursor, after asking."""
        task = self._under_cursor()
        if task is None or task.ended:
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self._do(operations.cancel, task)

        name = f"{task.name} ({task.id})" if task.name else task.id
        self.push_screen(Confirm(_("End {task}?").format(task=name)), answered)

    def action_hold(self) -> None:
        """Keep the task under the cursor from starting."""
        self._intend(operations.hold)

    def action_release(self) -> None:
        """Let it go."""
        self._intend(operations.release)

    def _intend(self, ask: Callable[[str], Steps[Task]]) -> None:
        task = self._under_cursor()
        if task is not None:
            self._do(ask, task)

    def _do(self, ask: Callable[[str], Steps[Task]], task: Task) -> None:
        async def work() -> None:
            try:
                done = await self._client.run(ask(task.id))
            except IsthmusError as error:
                self.notify(str(error), severity="error", markup=False)
            else:
                self.notify(f"{done.name or done.id}: {done.state}", markup=False)
                self._changed.set()

        self.run_worker(work(), exclusive=False)
