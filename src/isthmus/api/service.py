"""What the handlers work with: the parts of the running service, handed to them by reference."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Protocol

import sqlalchemy as sa
from fastapi import Depends, Request

from isthmus.api.feed import Feed
from isthmus.api.limits import RateLimit
from isthmus.api.metrics import Audits, Metrics
from isthmus.api.twin_runs import TwinRuns
from isthmus.api.uploads import Uploads
from isthmus.data.port import BlobStore
from isthmus.domain.placement import Receipt
from isthmus.domain.task import TaskSpec
from isthmus.engine.home import Home
from isthmus.engine.verifying import Verifier
from isthmus.sites.port import Site
from isthmus.store.database import Database
from isthmus.trust.access import Caller
from isthmus.trust.oidc import SignIn
from isthmus.trust.passes import Passes
from isthmus.trust.sealing import Sealer
from isthmus.trust.tokens import Gate


class EngineFace(Protocol):
    """What the API needs of the engine."""

    @property
    def audits(self) -> Audits:
        """Of contested rounds."""
        ...

    @property
    def verifier(self) -> Verifier:
        """Checks copies of datasets."""
        ...

    def wake(self) -> None:
        """There is something new to do."""

    def site(self, name: str) -> Site:
        """The adapter of a site; NotFound when there is none."""
        ...

    def wake_sites(self) -> None:
        """A site joined, left or was changed."""

    def wake_routers(self) -> None:
        """A policy of the network was wanted or given up."""

    def check_possible(
        self, connection: sa.Connection, specs: Sequence[TaskSpec], user: str, input_bytes: Sequence[int]
    ) -> None:
        """Invalid for the first task whose deadline and budget nobody could keep."""

    async def end_all(self, name: str) -> bool:
        """Ask a site to end all that it has of ours; whether it took the order."""
        ...

    async def plan(
        self, specs: Sequence[TaskSpec], user: str, project: str, input_bytes: Sequence[int]
    ) -> tuple[Receipt, ...]:
        """What would be decided now, for each; stores nothing."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings:
    """Bounds of the API."""

    is_local: bool = True  # nobody reaches this service from another machine
    max_body_bytes: int = 64 * 1024**2
    max_upload_bytes: int = 1024**4
    rate_per_second: float = 200.0
    rate_burst: float = 1000.0
    open_metrics: bool = False
    max_subscribers: int = 1000
    event_poll_seconds: float = 0.25
    keepalive_seconds: float = 15.0
    housekeeping_seconds: float = 30.0
    upload_keep_seconds: float = 7 * 86400.0
    tes_files: tuple[Path, ...] = ()  # directories that file:// addresses of TES documents may lead into
    region: str = ""  # where the service itself keeps content
    fair_half_life: float = 86400.0  # as the engine has it
    tes_walltime_seconds: int = 86_400  # where a TES document asks for none


@dataclass(slots=True, kw_only=True)
class Service:
    """The running parts that requests are served from."""

    database: Database
    blobs: BlobStore
    engine: EngineFace
    sealer: Sealer
    state: Path
    sign_in: SignIn | None = None  # through an identity provider
    settings: ApiSettings = field(default_factory=ApiSettings)
    passes: Passes | None = None  # without: no site keeps data
    clock: Callable[[], float] = time.time
    gate: Gate = field(init=False)
    rates: RateLimit = field(init=False)
    strangers: RateLimit = field(init=False)
    feed: Feed = field(init=False)
    uploads: Uploads = field(init=False)
    metrics: Metrics = field(init=False)
    twin: TwinRuns = field(init=False)
    home: Home = field(init=False)

    def __post_init__(self) -> None:
        self.gate = Gate(self.database, self.clock)
        self.rates = RateLimit(self.settings.rate_per_second, self.settings.rate_burst)
        self.strangers = RateLimit(self.settings.rate_per_second, self.settings.rate_burst)
        self.feed = Feed(
            self.database,
            poll_seconds=self.settings.event_poll_seconds,
            max_subscribers=self.settings.max_subscribers,
        )
        self.uploads = Uploads(self.state / "uploads", self.blobs, max_bytes=self.settings.max_upload_bytes)
        self.metrics = Metrics()
        self.twin = TwinRuns(self.state / "twin")
        self.home = Home(self.database, self.blobs)


def service_of(request: Request) -> Service:
    """The service behind a request."""
    service: Service = request.app.state.service
    return service


def caller_of(request: Request) -> Caller:
    """The caller that the route's rule admitted."""
    caller: Caller = request.state.caller
    return caller


Serving = Annotated[Service, Depends(service_of)]
Calling = Annotated[Caller, Depends(caller_of)]
