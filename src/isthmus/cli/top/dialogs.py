"""What lies over the tables: a question with yes and no, and a text to read."""

from __future__ import annotations

import contextlib
import io
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Footer, Static

from isthmus.cli import screen
from isthmus.cli.messages import _
from isthmus.client import operations
from isthmus.client.asynchronous import AsyncClient
from isthmus.client.records import Task
from isthmus.domain.errors import IsthmusError

LOG_BYTES = 64 * 1024  # of the end of a stream
MOST_PIECES = 64  # of a megabyte


class Confirm(ModalScreen[bool]):
    """A question; y is yes, everything else is no."""

    CSS = """
    Confirm { align: center middle; }
    #question { width: auto; max-width: 80; height: auto; border: round $warning; padding: 1 2; background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        ("y", "answer(True)", _("Yes")),
        ("n,escape,q", "answer(False)", _("No")),
    ]

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        """The question and its keys."""
        with Vertical(id="question"):
            yield Static(Text(self._question))
            yield Static(Text(_("y: yes    n: no")))

    def action_answer(self, yes: bool) -> None:
        """Close with the answer."""
        self.dismiss(yes)


class Reading(ModalScreen[None]):
    """The decision about a task, or the end of its output; Escape closes it."""

    CSS = """
    Reading { align: center middle; }
    #page { width: 95%; height: 90%; border: round $primary; padding: 0 1; background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [("escape,q", "dismiss", _("Close"))]

    def __init__(self, title: str, client: AsyncClient, task: Task, what: str) -> None:
        super().__init__()
        self._title = title
        self._client = client
        self._task_read = task
        self._what = what

    def compose(self) -> ComposeResult:
        """A page that scrolls."""
        with VerticalScroll(id="page"):
            yield Static(Text(_("...")), id="text")
        yield Footer()

    async def on_mount(self) -> None:
        """Fetch the text."""
        page = self.query_one("#page")
        page.border_title = Text(screen.one_line(self._title)).markup
        page.focus()
        self.run_worker(self._fetch())

    async def _fetch(self) -> None:
        try:
            text = await (self._why() if self._what == "why" else self._log())
        except IsthmusError as error:
            text = Text(str(error), style="red")
        self.query_one("#text", Static).update(text)

    async def _why(self) -> Text:
        from isthmus.cli.plans import show_receipt

        found = await self._client.run(operations.receipts(self._task_read.id))
        if not found:
            return Text(_("No round of placement has looked at it yet."))
        told = io.StringIO()
        with contextlib.redirect_stdout(told):
            show_receipt(max(found, key=lambda receipt: receipt.decided_at), wide=True)
        return Text(told.getvalue(), no_wrap=True)

    async def _log(self) -> Text:
        chunks = []
        for stream in ("stdout", "stderr"):
            data, offset = b"", 0
            for _piece in range(MOST_PIECES):
                chunk = await self._client.run(operations.logs(self._task_read.id, stream=stream, offset=offset))
                data, offset = (data + chunk.data)[-LOG_BYTES:], chunk.next_offset
                if not chunk.data or chunk.complete:
                    break
            if data:
                chunks.append(f"── {stream}\n{screen.clean(data.decode(errors='replace'))}")
        return Text("\n".join(chunks) or _("Nothing yet."))
