"""Puts the application together: routes behind rules, errors as problems, bounds, figures, and what runs beside."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from isthmus import __version__
from isthmus.api import (
    agent,
    agent_data,
    alto,
    audit,
    basemap,
    benchmarks,
    blobs,
    console,
    counts,
    dataset_places,
    dataset_uses,
    datasets,
    events,
    forecasts,
    health,
    holding,
    logs,
    network,
    people,
    reservations,
    signin,
    site_history,
    sites,
    slices,
    tasks,
    tokens,
    twin,
    usage,
    usage_export,
)
from isthmus.api.openapi import document
from isthmus.api.problems import TooLarge, install, problem
from isthmus.api.routing import Router
from isthmus.api.service import Service
from isthmus.api.tes import routes as tes

log = logging.getLogger(__name__)
access = logging.getLogger("isthmus.access")

ROUTERS: tuple[Router, ...] = (
    tasks.router,
    counts.router,
    holding.router,
    logs.router,
    blobs.router,
    datasets.router,
    dataset_uses.router,
    dataset_places.router,
    events.router,
    sites.router,
    site_history.router,
    benchmarks.router,
    forecasts.router,
    network.router,
    reservations.router,
    basemap.router,
    slices.router,
    alto.router,
    usage.router,
    usage_export.router,
    twin.router,
    people.router,
    tokens.router,
    signin.router,
    audit.router,
    agent.router,
    agent_data.router,
    tes.router,
    health.router,
    console.router,
)


def create_app(service: Service, routers: tuple[Router, ...] = ROUTERS) -> FastAPI:
    """The application over a service; its lifespan runs the event feed and the housekeeping, not the engine."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await service.feed.start()
        keeper = asyncio.create_task(_keep_house(service), name="housekeeping")
        try:
            yield
        finally:
            keeper.cancel()
            with suppress(asyncio.CancelledError):
                await keeper
            await service.feed.stop()
            await service.twin.close()
            with suppress(Exception):
                await service.gate.flush()
            if service.sign_in is not None:
                await service.sign_in.close()

    app = FastAPI(
        title="Isthmus",
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.service = service
    for router in routers:
        router.install(app)
    install(app)
    described: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not described:
            described.update(document(app, routers))
        return described

    app.openapi = openapi  # type: ignore[method-assign]
    app.add_middleware(Door, service=service)
    return app


async def _keep_house(service: Service) -> None:
    while True:
        await asyncio.sleep(service.settings.housekeeping_seconds)
        try:
            await service.gate.flush()
            await asyncio.to_thread(service.uploads.purge, service.settings.upload_keep_seconds)
        except Exception:
            log.exception("housekeeping failed and will be tried again")


class Door:
    """The outermost layer: bounds bodies, turns what nobody caught into a plain 500, counts and logs every answer.

    The log has the path without its query, the user's name, never a header or a body.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        status = 0
        whole = not (scope["path"].startswith("/v1/uploads/") and scope["method"] == "PATCH")
        limit = self._service.settings.max_body_bytes
        got = 0

        async def bounded() -> Message:
            nonlocal got
            message = await receive()
            if whole and message["type"] == "http.request":
                got += len(message.get("body", b""))
                if got > limit:
                    raise _too_large(limit)
            return message

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if whole and _announced(scope) > limit:
                error = _too_large(limit)
                refusal = problem(
                    error.status, error.code, error.cause, remedy=error.remedy, headers={"Connection": "close"}
                )
                await refusal(scope, receive, counted)
            else:
                await self._app(scope, bounded, counted)
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
            if status:
                raise  # half an answer is out: the connection must break, so that the caller sees it
            failed = problem(500, "error", "The service failed to answer.", remedy="Try again; its log has the cause.")
            await failed(scope, receive, counted)
        finally:
            seconds = time.monotonic() - began
            route = scope.get("route")
            self._service.metrics.seen(
                scope["method"] if route else "", getattr(route, "path_format", "none"), status, seconds
            )
            access.info(
                "%s %s %s %.1fms %s",
                scope["method"],
                scope["path"],
                status,
                seconds * 1000,
                scope.get("isthmus.user", "-"),
            )


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"A body may have {limit} bytes.", remedy="Send less at once; upload content as blobs.")


def _announced(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0
