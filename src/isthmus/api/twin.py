"""The twin for people of the web page: run a scenario with bounds, read its figures, take its report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from fastapi import Path, Request, Response
from pydantic import Field

from isthmus.api import answers
from isthmus.api.body import ID, answer, made, read_body, when
from isthmus.api.routing import Router
from isthmus.api.service import Calling, Serving
from isthmus.api.twin_runs import Run, RunState
from isthmus.domain.errors import Invalid, NotFound
from isthmus.domain.task import FORBID_UNKNOWN
from isthmus.trust.access import Scope, Signed

router = Router("twin")
MAX_TEXT = 262_144
RunPath = Annotated[str, Path(pattern=ID)]


@dataclass(frozen=True, slots=True, kw_only=True)
class TwinScenario:
    """A scenario's YAML (docs/twin.md), or the name of one that comes with Isthmus."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN
    scenario: Annotated[str, Field(json_schema_extra={"minLength": 1, "maxLength": MAX_TEXT})]

    def __post_init__(self) -> None:
        if not 1 <= len(self.scenario) <= MAX_TEXT or "\0" in self.scenario:
            raise Invalid("scenario", "is empty or too long.", remedy=f"Give 1 to {MAX_TEXT} characters.")


def _shown(run: Run) -> dict[str, Any]:
    return {
        "id": run.id,
        "name": run.name,
        "created_at": when(run.at),
        "state": run.state,
        "message": run.message,
        "figures": {name: value for name, value in run.figures.items() if isinstance(value, int | float)},
        "homes": run.figures.get("homes", []),
    }


@router.route(
    "POST", "/v1/twin/runs", rule=Signed(Scope.TASKS_WRITE), body=TwinScenario, answer=answers.TwinRun, status=201
)
async def start_twin_run(request: Request, service: Serving, caller: Calling) -> Response:
    """Run a scenario in a process of its own: at most 300 s, 6 GiB, 200,000 jobs; one at a time."""
    import orjson

    body = await read_body(request, TwinScenario)
    run = await service.twin.start(body.scenario, caller.user, service.clock())
    return made(orjson.dumps(_shown(run), option=orjson.OPT_UTC_Z))


@router.route("GET", "/v1/twin/runs", rule=Signed(Scope.TASKS_READ), answer=answers.Page[answers.TwinRun])
async def list_twin_runs(service: Serving, caller: Calling) -> Response:
    """One's runs, newest first; the service keeps the last 20, until it stops."""
    return answer({"items": [_shown(run) for run in service.twin.of(caller.user)], "next_cursor": None})


@router.route("GET", "/v1/twin/runs/{run_id}", rule=Signed(Scope.TASKS_READ), answer=answers.TwinRun)
async def get_twin_run(service: Serving, caller: Calling, run_id: RunPath) -> Response:
    """One run."""
    return answer(_shown(service.twin.one(run_id, caller.user)))


@router.route("GET", "/v1/twin/runs/{run_id}/report", rule=Signed(Scope.TASKS_READ), media="text/html")
async def get_twin_report(service: Serving, caller: Calling, run_id: RunPath) -> Response:
    """The report of a run that is done: one HTML file with pictures inside, as a download."""
    run = service.twin.one(run_id, caller.user)
    report = run.directory / "report.html"
    if run.state is not RunState.DONE or not report.is_file():
        raise NotFound("The run has no report.", remedy="Wait until it is done.")
    headers = {
        "Content-Disposition": f'attachment; filename="twin-{run.id}.html"',
        "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(report.read_bytes(), media_type="text/html; charset=utf-8", headers=headers)
