"""Shows tasks in the three views of TES 1.1.

MINIMAL has id and state; FULL has all; BASIC all but executors' stdout and stderr, the content of inputs and the system
logs.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from isthmus.api.service import Service
from isthmus.api.tes.models import TesView
from isthmus.api.tes.rows import Record
from isthmus.api.tes.states import state_of
from isthmus.domain.errors import IsthmusError
from isthmus.domain.lifecycle import ATTEMPT_ENDED, AttemptState

HOST = "host"  # an operator's rule for images; see sites.containers


def show(record: Record, view: TesView) -> dict[str, Any]:
    """A task without its executors' output, which `add_output` adds for the view FULL."""
    shown: dict[str, Any] = {"id": record.row.id, "state": state_of(record.row).value}
    if view is TesView.MINIMAL:
        return shown
    document = orjson.loads(record.document or "{}")
    if view is TesView.BASIC:
        for item in document.get("inputs") or ():
            item.pop("content", None)
    return {**shown, **document, "logs": _logs(record, view), "creation_time": _time(record.row.created_at)}


async def add_output(service: Service, record: Record, shown: dict[str, Any], limit_bytes: int) -> None:
    """Put the end of each executor's streams into the logs of a task that `show` made in the view FULL."""
    executors = shown.get("executors") or []
    by_path = {row.path: row for row in record.outputs}
    for attempt, log in zip(record.attempts, shown["logs"], strict=False):
        steps = _steps(attempt)
        for index, executor_log in enumerate(log["logs"]):
            step = steps[index] if index < len(steps) else {}
            for stream in ("stdout", "stderr"):
                path = executors[index].get(stream) if index < len(executors) else None
                output = by_path.get(path) if path else None
                if output is not None and output.attempt == attempt.key:
                    text = await _end_of(service, output.sha256, 0, output.size_bytes, limit_bytes)
                else:
                    blob = getattr(attempt, f"{stream}_blob")
                    total = steps[-1].get(f"{stream}_to") if steps else None
                    text = await _part_of(service, blob, step, stream, total, limit_bytes)
                executor_log[stream] = text


def note_images(shown: dict[str, Any], record: Record, configurations: Mapping[str, str]) -> None:
    """Say in the system logs where an image was satisfied by the site's own system."""
    for attempt, log in zip(record.attempts, shown["logs"], strict=False):
        rules = orjson.loads(configurations.get(attempt.site, "{}")).get("images") or {}
        for image in dict.fromkeys(item["image"] for item in shown.get("executors") or ()):
            rule = next((value for glob, value in rules.items() if fnmatch.fnmatchcase(image, glob)), "")
            if rule == HOST:
                log["system_logs"].append(
                    f"Site {attempt.site} satisfies the image {image} with the host's own system, in a sandbox."
                )


def _logs(record: Record, view: TesView) -> list[dict[str, Any]]:
    """One entry for each try, oldest first; before the first, one that says what there is to say."""
    row = record.row
    warnings = orjson.loads(record.warnings)
    logs = [_log(record, attempt, view) for attempt in record.attempts]
    if not logs and (row.message or warnings or row.ended_at is not None):
        logs.append({"logs": [], "outputs": []})
    for log in logs:
        if view is TesView.FULL:
            log["system_logs"] = [*warnings, *log.get("system_logs", ())]
    if logs and view is TesView.FULL and row.message and row.message not in logs[-1]["system_logs"]:
        logs[-1]["system_logs"].append(row.message)
    return logs


def _log(record: Record, attempt: Any, view: TesView) -> dict[str, Any]:
    last = attempt.key == record.row.attempt
    metadata = {
        "site": attempt.site,
        "pool": attempt.pool,
        "attempt": attempt.key,
        "state": attempt.state,
        "native_id": attempt.native_id,
    }
    nodes = orjson.loads(attempt.observed or "{}").get("nodes")
    if nodes:
        metadata["host"] = ",".join(nodes)
    log: dict[str, Any] = {
        "logs": _executor_logs(attempt),
        "metadata": {name: value for name, value in metadata.items() if value},
        "outputs": [
            {"url": row.url, "path": row.path, "size_bytes": str(row.size_bytes)}
            for row in record.outputs
            if row.attempt == attempt.key and row.url
        ]
        if last
        else [],
    }
    for name, at in (("start_time", attempt.started_at), ("end_time", attempt.ended_at)):
        if at is not None:
            log[name] = _time(at)
    if view is TesView.FULL:
        log["system_logs"] = [
            text for text in (attempt.reason and f"It ended: {attempt.reason}.", attempt.message) if text
        ]
    return log


def _executor_logs(attempt: Any) -> list[dict[str, Any]]:
    steps = _steps(attempt)
    if steps:
        return [
            {
                "start_time": _time(step["started_at"]),
                "end_time": _time(step["ended_at"]),
                "exit_code": step["exit_code"],
            }
            for step in steps
        ]
    if attempt.exit_code is None or AttemptState(attempt.state) not in ATTEMPT_ENDED | {AttemptState.COLLECTING}:
        return []
    log: dict[str, Any] = {"exit_code": attempt.exit_code}
    if attempt.started_at is not None:
        log["start_time"] = _time(attempt.started_at)
    if attempt.ended_at is not None:
        log["end_time"] = _time(attempt.ended_at)
    return [log]


def _steps(attempt: Any) -> list[dict[str, Any]]:
    """The steps that ran (sites.port.StepResult), as the observation of the attempt keeps them."""
    steps: list[dict[str, Any]] = orjson.loads(attempt.observed or "{}").get("steps") or []
    return steps


async def _part_of(
    service: Service, blob: str, step: Mapping[str, Any], stream: str, total: int | None, limit_bytes: int
) -> str:
    """The end of one step's part of a stream; of a stream that was too long, only its own end was kept."""
    if not blob:
        return ""
    try:
        size = await service.blobs.size(blob)
    except IsthmusError:
        return ""
    if total is None:
        return await _end_of(service, blob, 0, size, limit_bytes)
    cut = max(0, total - size)
    start, end = max(0, step.get(f"{stream}_from", 0) - cut), max(0, step.get(f"{stream}_to", 0) - cut)
    return await _end_of(service, blob, start, end, limit_bytes)


async def _end_of(service: Service, blob: str, start: int, end: int, limit_bytes: int) -> str:
    start = max(start, end - limit_bytes)
    content = bytearray()
    if start < end:
        try:
            async for chunk in service.blobs.read(blob, start):
                content += chunk
                if len(content) >= end - start:
                    break
        except IsthmusError:
            return ""
    return bytes(content[: end - start]).decode("utf-8", "replace")


def _time(at: float) -> str:
    """RFC 3339, in UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
