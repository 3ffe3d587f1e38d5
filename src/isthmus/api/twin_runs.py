"""Scenarios run by the twin for people of the web page: each in a process of its own, with bounds, one at a time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import orjson
import yaml

from isthmus.domain.errors import Busy, Invalid, NotFound
from isthmus.domain.ids import make_id

LONGEST_SECONDS = 300.0
MEMORY_BYTES = 6 * 1024**3
MOST_JOBS = 200_000
MOST_SITES = 200
KEPT = 20
PACKAGED = ("east-data-west-compute",)
_ANSWER_BYTES = 4 * 1024**2
_CHILD = (
    "import resource, sys;"
    f"resource.setrlimit(resource.RLIMIT_CPU, ({int(LONGEST_SECONDS)}, {int(LONGEST_SECONDS)}));"
    f"resource.setrlimit(resource.RLIMIT_AS, ({MEMORY_BYTES}, {MEMORY_BYTES}));"
    "from isthmus.cli.main import call; sys.exit(call(sys.argv[1:]))"
)


class RunState(StrEnum):
    """Where a run is."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(slots=True, eq=False)
class Run:
    """One run of a scenario; `figures` once it is done, `message` when it failed."""

    id: str
    user: str
    name: str
    at: float
    directory: Path
    state: RunState = RunState.RUNNING
    message: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None


class TwinRuns:
    """The runs of this process, newest last; they end with it."""

    def __init__(self, directory: Path, longest_seconds: float = LONGEST_SECONDS) -> None:
        self._directory = directory
        self._longest_seconds = longest_seconds
        self._runs: dict[str, Run] = {}

    async def start(self, scenario: str, user: str, now: float) -> Run:
        """Run a scenario: its YAML, or the name of one that comes with Isthmus. Busy while another one runs."""
        self._need_quiet()
        packaged = scenario in PACKAGED
        name = scenario if packaged else await asyncio.to_thread(check, scenario)
        self._need_quiet()
        key = make_id(int(now * 1000), os.urandom(10))
        directory = self._directory / key
        directory.mkdir(parents=True)
        place = scenario
        if not packaged:
            place = str(directory / "scenario.yaml")
            Path(place).write_text(scenario, "utf-8")
        run = Run(id=key, user=user, name=name, at=now, directory=directory)
        self._runs[key] = run
        for old in [one for one in self._runs.values() if one.user == user][:-KEPT]:
            self._drop(old)
        run.task = asyncio.create_task(self._work(run, place), name="twin run")
        return run

    def _need_quiet(self) -> None:
        if any(run.state is RunState.RUNNING for run in self._runs.values()):
            raise Busy("The twin runs another scenario.", remedy="Try again when it is done.", retry_after_seconds=10)

    def of(self, user: str) -> list[Run]:
        """A user's runs, newest first."""
        return [run for run in reversed(self._runs.values()) if run.user == user]

    def one(self, key: str, user: str) -> Run:
        """One of a user's runs; NotFound otherwise."""
        run = self._runs.get(key)
        if run is None or run.user != user:
            raise NotFound("There is no such run for you.", remedy="Runs end with the service; start it again.")
        return run

    async def close(self) -> None:
        """End what runs, forget all."""
        for run in list(self._runs.values()):
            if run.task is not None:
                run.task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await run.task
            self._drop(run)

    def _drop(self, run: Run) -> None:
        self._runs.pop(run.id, None)
        shutil.rmtree(run.directory, ignore_errors=True)

    async def _work(self, run: Run, place: str) -> None:
        words = ["twin", "run", place, "--json", "--html-out", str(run.directory / "report.html")]
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG", "TMPDIR") if name in os.environ}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-c", _CHILD, *words),
            cwd=run.directory,
            env={**kept, "HOME": str(run.directory), "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(self._longest_seconds):
                out, err = await process.communicate()
            if process.returncode == 0 and len(out) <= _ANSWER_BYTES:
                run.figures, run.state = orjson.loads(out), RunState.DONE
            else:
                said = err.decode(errors="replace").strip()[-1000:]
                run.message, run.state = said or f"It ended with status {process.returncode}.", RunState.FAILED
        except TimeoutError:
            run.message, run.state = f"It took longer than {self._longest_seconds:g} s.", RunState.FAILED
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
            if run.state is RunState.RUNNING:
                run.message, run.state = "The service was stopped.", RunState.FAILED


def check(text: str) -> str:
    """The name of a scenario that may be run here: it reads no file of the service, and is not larger than the bounds."""
    try:
        document = yaml.load(text, _Plain)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as error:
        raise Invalid("scenario", f"is no YAML: {str(error)[:200]}", remedy="See docs/twin.md.") from None
    if not isinstance(document, dict):
        raise Invalid("scenario", "is neither a mapping nor a known name.", remedy=f"Known: {', '.join(PACKAGED)}.")
    sites, work = document.get("sites"), document.get("workload")
    if not isinstance(sites, list) or not 1 <= len(sites) <= MOST_SITES:
        raise Invalid("scenario.sites", "is no list of sites.", remedy=f"Give 1 to {MOST_SITES}.")
    if not isinstance(work, list) or not work:
        raise Invalid("scenario.workload", "is no list.", remedy="Give at least one home with synthetic jobs.")
    jobs = 0.0
    for index, one in enumerate(work):
        where = f"scenario.workload.{index}"
        if not isinstance(one, dict) or not isinstance(one.get("synthetic"), dict) or one.get("swf") is not None:
            raise Invalid(where, "is not synthetic.", remedy="Logs are read by the command isthmus twin only.")
        if one["synthetic"].get("like") is not None:
            raise Invalid(f"{where}.like", "names a file.", remedy="Logs are read by the command isthmus twin only.")
        jobs += _number(one["synthetic"], "jobs_per_day", where) * _number(one["synthetic"], "days", where)
    jobs *= max(1.0, _number(document, "arrivals", "scenario", 1.0))
    if not jobs <= MOST_JOBS:
        raise Invalid("scenario.workload", f"makes {jobs:.0f} jobs.", remedy=f"At most {MOST_JOBS} run here.")
    name = document.get("name", "scenario")
    if not isinstance(name, str) or not name:
        raise Invalid("scenario.name", "is no text.", remedy="Give it a name.")
    return name[:200]


class _Plain(yaml.SafeLoader):
    """YAML without aliases: a few hundred bytes of them can stand for any amount of memory."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """The next node."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not taken here")
        return super().compose_node(parent, index)


def _number(document: Mapping[str, Any], name: str, where: str, default: float | None = None) -> float:
    value: object = document.get(name, default)
    if isinstance(value, dict):  # {value: ..., source: ...}
        value = value.get("value")
    try:
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0
    except OverflowError:
        number = 0.0
    if not number > 0:
        raise Invalid(f"{where}.{name}", "is not a number over 0.", remedy="Write a number.")
    return number
