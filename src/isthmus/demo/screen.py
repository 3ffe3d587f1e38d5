"""How the demonstration talks: headings, commands as one would type them, tables; plain lines when piped."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from isthmus.client.records import Task

WIDE = 160


class Screen:
    """Where the story is told."""

    def __init__(self) -> None:
        terminal = sys.stdout.isatty()
        self.console = Console(highlight=False, emoji=False, width=None if terminal else WIDE)
        self._short: dict[str, str] = {}

    @property
    def terminal(self) -> bool:
        """Whether a person looks on."""
        return self.console.is_terminal

    def shorten(self, text: str, name: str) -> None:
        """Show `$NAME` for a text from now on."""
        self._short[text] = name

    def brief(self, text: str) -> str:
        """A text with the long paths shortened."""
        for long, name in self._short.items():
            text = text.replace(long, f"${name}")
        return text

    def heading(self, text: str) -> None:
        """A part of the story begins."""
        self.console.print()
        self.console.print(Text(f"── {text}", style="bold"))

    def say(self, text: str, style: str = "") -> None:
        """A line."""
        self.console.print(Text(self.brief(text), style=style), soft_wrap=True)

    def exact(self, text: str) -> None:
        """A line with its paths as they are."""
        self.console.print(Text(text, style="cyan"), soft_wrap=True)

    def typed(self, argv: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """A command as one would type it."""
        words = [f"{name}={value}" for name, value in (environment or {}).items()] + [_quoted(word) for word in argv]
        self.say(f"$ {' '.join(words)}", "cyan")

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[object]], right: Sequence[int] = ()) -> None:
        """Rows under headers."""
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
        for index, header in enumerate(headers):
            table.add_column(header, justify="right" if index in right else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(self.brief(str(cell))) for cell in row))
        self.console.print(table)


def _quoted(word: str) -> str:
    quoted = shlex.quote(word)
    return f'"{word}"' if quoted != word and not set(word) & set('"$`\\!') and "'" not in word else quoted


class Board:
    """Live progress: a line for each name of task with how many are in which state."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._live = Live(console=screen.console, refresh_per_second=8, transient=True) if screen.terminal else None
        self._told: dict[str, str] = {}

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def show(self, tasks: Sequence[Task]) -> None:
        """The tasks as they are now."""
        lines = progress(tasks)
        if self._live:
            table = Table.grid(padding=(0, 2))
            for name, line in lines.items():
                table.add_row(Text(name, style="bold"), Text(line))
            self._live.update(table)
            return
        for name, line in lines.items():
            if self._told.get(name) != line:
                self._told[name] = line
                self._screen.say(f"  {name}: {line}")


def progress(tasks: Sequence[Task]) -> dict[str, str]:
    """For each name of task a line: how many ended, and where the others are."""
    groups: dict[str, list[Task]] = {}
    for task in tasks:
        groups.setdefault(task.name, []).append(task)
    lines = {}
    for name, group in sorted(groups.items()):
        counts: Counter[str] = Counter()
        for task in group:
            counts[task.state if task.ended or not task.site else f"{task.state} at {task.site}"] += 1
        if len(group) == 1:
            (lines[name],) = counts
        else:
            lines[name] = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    return lines
