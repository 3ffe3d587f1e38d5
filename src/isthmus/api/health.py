"""The service about itself: health, version, figures, its OpenAPI document."""

from __future__ import annotations

import sqlalchemy as sa
from fastapi import Request, Response

from isthmus import __version__
from isthmus.api import answers
from isthmus.api.body import answer
from isthmus.api.routing import Router
from isthmus.api.service import Serving
from isthmus.trust.access import Anonymous, Figures, Signed

router = Router("service")


@router.route("GET", "/v1/health", rule=Anonymous(), answer=answers.Health, errors=[503])
async def health(service: Serving) -> Response:
    """Whether the service answers and its store does; 503 otherwise."""
    await service.database.read(lambda connection: connection.execute(sa.text("SELECT 1")).scalar_one())
    return answer({"status": "ok"})


@router.route("GET", "/v1/version", rule=Anonymous(), answer=answers.Version)
async def version() -> Response:
    """The version of the service."""
    return answer({"version": __version__})


@router.route("GET", "/v1/openapi.json", rule=Signed(None), answer=dict[str, object])
async def openapi(request: Request) -> Response:
    """This document."""
    return answer(request.app.openapi())


@router.route("GET", "/metrics", rule=Figures(), media="text/plain")
async def metrics(service: Serving) -> Response:
    """Figures for Prometheus."""
    text = await service.metrics.text(
        service.database, service.feed.subscribers, service.clock(), service.engine.audits
    )
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")
