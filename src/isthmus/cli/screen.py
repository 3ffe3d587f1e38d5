"""How answers look: data on stdout, talk on stderr; tables that fit the terminal, plain text when piped."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from isthmus.cli.messages import _

# state -> (mark, colour): told apart by shape as well as by colour
MARKS = {
    "succeeded": ("✓", "green"),
    "failed": ("✗", "red"),
    "lost": ("✗", "red"),
    "cancelled": ("–", "bright_black"),
    "running": ("▶", "cyan"),
    "collecting": ("▼", "cyan"),
    "staging": ("▲", "blue"),
    "submitting": ("▲", "blue"),
    "placed": ("◆", "blue"),
    "queued": ("◔", "yellow"),
    "waiting": ("◌", "yellow"),
    "blocked": ("⧗", "yellow"),
    "held": ("‖", "magenta"),
    "unknown": ("?", "magenta"),
    "moving": ("▶", "cyan"),
    "planned": ("◌", "yellow"),
    "done": ("✓", "green"),
    "active": ("✓", "green"),
    "draining": ("▽", "yellow"),
    "left": ("–", "bright_black"),
}
PIPE_WIDTH = 100_000


def say(text: str) -> None:
    """Talk: to stderr, so that stdout holds data alone."""
    sys.stdout.flush()
    sys.stderr.write(clean(text) + "\n")
    sys.stderr.flush()


def suggest(text: str) -> None:
    """The next command that is likely wanted; only to a person."""
    if sys.stderr.isatty():
        say(_("next: {command}").format(command=text))


def put(text: str) -> None:
    """A line of data."""
    sys.stdout.write(text + "\n")


def put_json(value: Any) -> None:
    """Data for programs."""
    made = json.dumps(plain(value), ensure_ascii=False, indent=2 if sys.stdout.isatty() else None)
    # JSON escapes the control characters of ASCII only; C1 controls and signs that reorder text steer terminals too.
    sys.stdout.write("".join(s if s.isprintable() or s == "\n" else json.dumps(s)[1:-1] for s in made) + "\n")


def plain(value: Any) -> Any:
    """Anything as what JSON has; money as text, times in ISO 8601."""
    if is_dataclass(value) and not isinstance(value, type):
        return {key: plain(item) for key, item in asdict(value).items()}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Decimal | Path):
        return str(value)
    return value


def clean(text: object) -> str:
    """Text without control characters: what a site or a task says must not steer the terminal."""
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "�" for sign in str(text))


def one_line(text: object) -> str:
    """Text for a cell of a table: printable, and no line break that could look like another row."""
    return clean(text).replace("\n", " ").replace("\t", " ")


def console(stderr: bool = False) -> Any:
    """A rich console that is plain when piped."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(
        file=stream,
        width=None if stream.isatty() else PIPE_WIDTH,
        color_system=None if os.environ.get("NO_COLOR") else "auto",
        highlight=False,
        emoji=False,
    )


def money(amount: Decimal) -> str:
    """A charge without the zeros that say nothing, with at least two decimals."""
    text = f"{amount:f}".rstrip("0") if "." in f"{amount:f}" else f"{amount:f}."
    whole, _point, rest = text.partition(".")
    return f"{whole}.{rest.ljust(2, '0')}"


def state(name: str, more: str = "") -> Any:
    """A state with its mark, coloured, and what else is to say of it."""
    from rich.text import Text

    mark, colour = MARKS.get(name, ("·", "default"))
    return Text(f"{mark} {name}{more}", style=colour)


def table(headers: Sequence[str], rows: Sequence[Sequence[Any]], *, right: Sequence[int] = ()) -> None:
    """Rows under headers; cells are texts or rich Texts. Piped, columns are aligned and nothing is cut."""
    from rich.text import Text

    if not sys.stdout.isatty():
        _plain_table(headers, rows)
        return
    from rich.table import Table

    made = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    last = len(headers) - 1
    widest = max([len(headers[0]), *(len(str(row[0])) for row in rows)])
    for index, header in enumerate(headers):
        made.add_column(
            header,
            justify="right" if index in right else "left",
            no_wrap=index != last,  # the last one holds sentences
            overflow="fold" if index == last else "ellipsis",
            min_width=widest if index == 0 else None,  # what names a row is never cut
        )
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(one_line(cell)) for cell in row))
    console().print(made)


def _plain_table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    from rich.cells import cell_len

    lines = [[clean(header) for header in headers]]
    lines += [[one_line(cell) for cell in row] for row in rows]
    widths = [max(cell_len(line[index]) for line in lines) for index in range(len(headers))]
    for line in lines:
        padded = [cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True)]
        put("  ".join(padded).rstrip())


def pairs(rows: Sequence[tuple[str, Any]]) -> None:
    """Names and values below one another; empty values are left out."""
    shown = [(name, value) for name, value in rows if value not in (None, "", [], {}, ())]
    if not sys.stdout.isatty():
        width = max((len(name) for name, _value in shown), default=0)
        for name, value in shown:
            put(f"{name.ljust(width)}  {one_line(value)}")
        return
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in shown:
        made.add_row(name, value if isinstance(value, Text) else Text(one_line(value)))
    console().print(made)


def age(moment: datetime | None) -> str:
    """How long ago, for people."""
    from isthmus.domain.units import show_duration

    if moment is None:
        return ""
    return show_duration(max(0.0, (datetime.now(UTC) - moment.astimezone(UTC)).total_seconds()))


def span(start: datetime | None, end: datetime | None) -> str:
    """How long something took, or takes until now."""
    from isthmus.domain.units import show_duration

    if start is None:
        return ""
    return show_duration(max(0.0, ((end or datetime.now(UTC)) - start).total_seconds()))


def moment(at: datetime | None) -> str:
    """A time in the user's zone, which is shown."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z") if at else ""


def since(text: str) -> str:
    """`10m`, `2h`, `3d` ago, or a time, as the REST face takes it."""
    from datetime import timedelta

    from isthmus.domain.errors import Invalid
    from isthmus.domain.units import parse_duration

    if not text:
        return ""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        try:
            seconds = parse_duration(text, "since")
        except Invalid as error:
            raise Invalid("since", f"{text!r} is not a time.", remedy="Write 2h, 3d or 2026-11-26T18:00.") from error
        at = datetime.now(UTC) - timedelta(seconds=seconds)
    return (at if at.tzinfo else at.astimezone()).isoformat()
