"""How a route is declared: path, rule, what it takes and gives. There is no way to declare one without a rule."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Depends, FastAPI, Request
from starlette.convertors import Convertor, register_url_convertor

from isthmus.api.service import service_of
from isthmus.domain.errors import IsthmusError
from isthmus.trust.access import Anonymous, Asked, Figures, Rule

Handler = TypeVar("Handler", bound=Callable[..., Any])


class _Part(Convertor[str]):
    """A path parameter that ends at a slash or at the colon before a verb, so that `/v1/tasks/ID:cancel` is no task."""

    regex = "[^/:]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("part", _Part())


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One declared route."""

    method: str
    path: str
    rule: Rule
    handler: Callable[..., Any]
    answer: Any
    status: int
    body: Any
    media: str
    errors: Sequence[int]
    headers: Sequence[str]
    also: dict[int, str]
    other_answers: dict[int, Any]


class Router:
    """The routes of one subject."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.routes: list[Route] = []

    def route(
        self,
        method: str,
        path: str,
        *,
        rule: Rule,
        answer: Any = None,
        status: int = 200,
        body: Any = None,
        media: str = "application/json",
        errors: Sequence[int] = (),
        headers: Sequence[str] = (),
        also: dict[int, str] | None = None,
        other_answers: dict[int, Any] | None = None,
    ) -> Callable[[Handler], Handler]:
        """Declare a route: `answer` is the type of its answer (None: no JSON), `body` that of its request, `errors` the
        codes beyond those that follow from rule and parameters, `also` other codes of success with their meaning, `other_answers` the types of those that have another one."""

        def declare(handler: Handler) -> Handler:
            self.routes.append(
                Route(
                    method=method,
                    path=re.sub(r"\{(\w+)\}", r"{\1:part}", path),
                    rule=rule,
                    handler=handler,
                    answer=answer,
                    status=status,
                    body=body,
                    media=media,
                    errors=errors,
                    headers=headers,
                    also=also or {},
                    other_answers=other_answers or {},
                )
            )
            return handler

        return declare

    def install(self, app: FastAPI) -> None:
        """Add the routes to an app, each behind its rule."""
        for route in self.routes:
            app.add_api_route(
                route.path,
                route.handler,
                methods=[route.method],
                operation_id=route.handler.__name__,
                name=route.handler.__name__,
                tags=[self.subject],
                dependencies=[Depends(guard(route.rule))],
                status_code=route.status,
                response_model=None,
                summary=(route.handler.__doc__ or route.handler.__name__).strip().splitlines()[0],
                description=(route.handler.__doc__ or "").strip(),
            )


class Guard:
    """The rule of a route, as a dependency that runs before anything else of the call is looked at."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule

    async def __call__(self, request: Request) -> None:
        """Find the caller, count the call, ask the rule."""
        if isinstance(self.rule, Anonymous):
            return
        service = service_of(request)
        if isinstance(self.rule, Figures) and service.settings.open_metrics:
            return
        try:
            caller = await service.gate.caller(request.headers.get("authorization"))
        except IsthmusError:
            service.strangers.spend(request.client.host if request.client else "")
            raise
        service.rates.spend(caller.token_id)
        request.state.caller = caller
        request.scope["isthmus.user"] = caller.user
        parameters = {**request.query_params, **request.path_params}
        await self.rule.admit(Asked(caller=caller, parameters=parameters, database=service.database))


def guard(rule: Rule) -> Callable[[Request], Awaitable[None]]:
    """The dependency that enforces a rule."""
    return Guard(rule)
