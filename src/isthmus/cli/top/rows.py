"""The rows of the three tables, made of the client's records; nothing here knows the screen's library."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from rich.text import Text

from isthmus.cli import screen
from isthmus.cli.messages import _
from isthmus.client.datasets import Transfer
from isthmus.client.records import Site, Task
from isthmus.domain.units import show_duration, show_size

BAR_CELLS = 12
Row = tuple[str | Text, ...]


def site_headers() -> tuple[str, ...]:
    """The columns of the sites."""
    return (_("SITE"), _("STATE"), _("ANSWERS"), _("BUSY"), _("CPUS"), _("FREE"), _("QUEUED"), _("GPUS"), _("REGION"))


def site_row(site: Site) -> Row:
    """A site: how it is, how busy its processors are, how many jobs wait there."""
    cpus = sum(int(pool.get("nodes", 1)) * int(pool.get("cpus_per_node", 1)) for pool in site.pools)
    gpus = sum(int(pool.get("nodes", 1)) * int(pool.get("accelerators_per_node") or 0) for pool in site.pools)
    told = [int(pool["free_cpus"]) for pool in site.pools if pool.get("free_cpus") is not None]
    queued = sum(int(pool.get("queued_jobs") or 0) for pool in site.pools)
    free = str(sum(told)) if told else ""
    answers = Text(_("yes"), style="green") if site.reachable else Text(_("no"), style="bold red")
    busy = bar(1 - sum(told) / cpus) if told and cpus else Text("")
    return (
        screen.one_line(site.name),
        screen.state(site.state),
        answers,
        busy,
        str(cpus),
        free,
        str(queued),
        str(gpus or ""),
        screen.one_line(site.region),
    )


def task_headers() -> tuple[str, ...]:
    """The columns of the tasks."""
    return (_("TASK"), _("NAME"), _("STATE"), _("SITE"), _("POOL"), _("USER"), _("AGE"), _("TIME"), _("EXIT"))


def task_row(task: Task) -> Row:
    """A task as `isthmus ls` shows it."""
    name = task.name + (f"[{task.array_index}]" if task.array_index is not None else "")
    place = "" if task.queue_position is None else f" #{task.queue_position}"
    return (
        task.id,
        screen.one_line(name),
        screen.state(task.state, place),
        screen.one_line(task.site),
        screen.one_line(task.pool),
        screen.one_line(task.user),
        screen.age(task.created_at),
        screen.span(task.started_at, task.ended_at),
        "" if task.exit_code is None else str(task.exit_code),
    )


def transfer_headers() -> tuple[str, ...]:
    """The columns of the transfers."""
    return (_("TRANSFER"), _("DATASET"), _("FROM"), _("TO"), _("STATE"), _("DONE"), _("SIZE"), _("RATE"), _("END"))


def transfer_row(transfer: Transfer) -> Row:
    """A transfer: what moves, from where to where, how far it is and when it is expected to end."""
    rate = round(transfer.bytes_per_second)
    return (
        transfer.id,
        screen.one_line(f"{transfer.dataset}@{transfer.version}"),
        screen.one_line(transfer.source),
        screen.one_line(transfer.target),
        screen.state(transfer.state),
        bar(transfer.done_bytes / transfer.size_bytes) if transfer.size_bytes else Text(""),
        show_size(transfer.size_bytes),
        f"{show_size(rate)}/s" if rate else "",
        _until(transfer.ends_at),
    )


def bar(share: float) -> Text:
    """A share of 0 to 1 as a bar with its percentage: told apart by length, coloured only when nearly full."""
    share = min(1.0, max(0.0, share))
    full = round(share * BAR_CELLS)
    colour = "red" if share >= 0.95 else "yellow" if share >= 0.8 else "green"
    text = Text("█" * full, style=colour)
    text.append("░" * (BAR_CELLS - full), style="bright_black")
    text.append(f" {share:4.0%}")
    return text


def summary(tasks: Sequence[Task]) -> str:
    """How many tasks are in which state, most first."""
    counts: dict[str, int] = {}
    for task in tasks:
        counts[task.state] = counts.get(task.state, 0) + 1
    parts = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {name}" for name, count in parts)


def _until(end: datetime | None) -> str:
    if end is None:
        return ""
    left = (end - datetime.now(UTC)).total_seconds()
    return _("in {time}").format(time=show_duration(max(0.0, left)))
