"""A site behind an agent, as the engine sees it: every method of the port is a call in the mailbox.

An answer is checked before it is believed: keys that were not asked for are dropped, keys that were left out become the
answer that promises least, and a `find` that leaves a key out is Unavailable. An answer that cannot be read is Unavailable too.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from isthmus.domain.dataset import InPlace, Reading, TransferOrder, TransferProgress
from isthmus.domain.errors import Busy, Unavailable
from isthmus.domain.site import SiteDescription
from isthmus.domain.usage import Usage
from isthmus.engine.mailbox import Mailbox
from isthmus.network.measurement.probing import Probes, Told
from isthmus.sites import wire
from isthmus.sites.port import (
    Collected,
    CollectOutcome,
    Job,
    JobRef,
    LogStream,
    Observation,
    Sighting,
    StageOutcome,
    SubmitOutcome,
    Uncertain,
)

T = TypeVar("T")
log = logging.getLogger(__name__)
Unproven = Callable[[str, Collection[str]], Awaitable[set[str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentTimeouts:
    """How long the answer to each method is waited for, in seconds."""

    describe: float = 60.0
    stage: float = 600.0
    submit: float = 180.0
    find: float = 60.0
    observe: float = 60.0
    cancel: float = 60.0
    let_go: float = 60.0
    cancel_native: float = 60.0
    logs: float = 30.0
    collect: float = 600.0
    usage: float = 60.0
    clean: float = 120.0
    measure: float = 90.0
    ask_router: float = 20.0
    data_pull: float = 60.0
    data_send: float = 60.0
    data_status: float = 30.0
    data_drop: float = 300.0
    data_chill: float = 3600.0
    data_warm: float = 3600.0
    data_limit: float = 300.0
    data_verify: float = 60.0
    data_register: float = 60.0


class AgentSite:
    """Implements `sites.port.Site` over the mailbox. `unproven(site, hashes)` answers those of the hashes whose content the
    site's agent never showed to have; a collected file among them is not believed."""

    def __init__(
        self, name: str, mailbox: Mailbox, *, unproven: Unproven | None = None, timeouts: AgentTimeouts | None = None
    ) -> None:
        self.name = name
        self._mailbox = mailbox
        self._unproven = unproven
        self._timeouts = timeouts or AgentTimeouts()

    async def describe(self) -> SiteDescription:
        """Pools with their load now, as the agent's adapter sees them."""
        found: SiteDescription = await self._ask("describe", wire.Nothing())
        return found

    async def stage(self, jobs: Sequence[Job]) -> Mapping[str, StageOutcome]:
        """Have the agent stage the jobs; it reads their blobs over its blob routes."""
        answer: dict[str, StageOutcome] = await self._ask("stage", wire.Jobs(jobs=tuple(jobs)))
        return _complete([job.key for job in jobs], answer, _unanswered)

    async def submit(self, jobs: Sequence[Job]) -> Mapping[str, SubmitOutcome]:
        """Have the agent submit the jobs; Uncertain where it was interrupted."""
        answer: dict[str, SubmitOutcome] = await self._ask("submit", wire.Jobs(jobs=tuple(jobs)))
        return _complete([job.key for job in jobs], answer, _unanswered)

    async def find(self, refs: Sequence[JobRef]) -> Mapping[str, tuple[str, ...]]:
        """All native ids under each key; Unavailable when the answer leaves a key out."""
        answer: dict[str, tuple[str, ...]] = await self._ask("find", wire.Refs(refs=tuple(refs)))
        if any(ref.key not in answer for ref in refs):
            raise Unavailable(f"The agent of {self.name} did not answer for every job.")
        return {ref.key: answer[ref.key] for ref in refs}

    async def observe(self, refs: Sequence[JobRef]) -> Mapping[str, Observation]:
        """One look at every job; UNSEEN for a key that the answer leaves out."""
        answer: dict[str, Observation] = await self._ask("observe", wire.Refs(refs=tuple(refs)))
        return _complete([ref.key for ref in refs], answer, _unseen)

    async def cancel(self, refs: Sequence[JobRef]) -> None:
        """Ask that the jobs end."""
        await self._ask("cancel", wire.Refs(refs=tuple(refs)))

    async def let_go(self, refs: Sequence[JobRef]) -> None:
        """Let held jobs start."""
        await self._ask("let_go", wire.Refs(refs=tuple(refs)))

    async def cancel_native(self, native_ids: Sequence[str]) -> None:
        """End single native jobs."""
        await self._ask("cancel_native", wire.NativeIds(native_ids=tuple(native_ids)))

    async def logs(self, ref: JobRef, stream: LogStream, offset: int, limit: int) -> bytes:
        """A piece of a stream: at most `limit` bytes, and at most what one answer carries."""
        limit = min(limit, wire.MAX_LOG_PIECE_BYTES)
        piece: bytes = await self._ask("logs", wire.LogPiece(ref=ref, stream=stream, offset=offset, limit=limit))
        return piece[:limit]

    async def collect(self, jobs: Sequence[Job]) -> Mapping[str, CollectOutcome]:
        """Have the agent put the jobs' outputs into the blob store; Uncertain for one whose content it did not show to have."""
        answer: dict[str, CollectOutcome] = await self._ask("collect", wire.Jobs(jobs=tuple(jobs)))
        complete = _complete([job.key for job in jobs], answer, _unanswered)
        if self._unproven is None:
            return complete
        claimed = {key: _hashes(outcome) for key, outcome in complete.items() if isinstance(outcome, Collected)}
        unproven = await self._unproven(self.name, set().union(*claimed.values()))
        for key, hashes in claimed.items():
            if hashes & unproven:
                log.warning("site %s: outputs of %s were named but never sent", self.name, key)
                complete[key] = Uncertain(message="The agent named outputs whose content it did not send.")
        return complete

    async def usage(self, refs: Sequence[JobRef]) -> Mapping[str, Usage]:
        """Final usage, for those jobs that the site's accounting knows all of."""
        answer: dict[str, Usage] = await self._ask("usage", wire.Refs(refs=tuple(refs)))
        return {ref.key: answer[ref.key] for ref in refs if ref.key in answer}

    async def clean(self, refs: Sequence[JobRef]) -> None:
        """Remove the jobs' directories at the site."""
        await self._ask("clean", wire.Refs(refs=tuple(refs)))

    async def measure(self, asked: Probes) -> tuple[Told, ...]:
        """Have the agent measure paths; Forbidden where its operator does not let it."""
        found: tuple[Told, ...] = await self._ask("measure", asked)
        names = {probe.name for probe in asked.probes}
        return tuple(one for one in found if one.name in names)

    async def ask_router(self, socket: str, request: dict[str, Any]) -> dict[str, Any]:
        """Have the agent pass a request to a router's daemon at its machine."""
        found: dict[str, Any] = await self._ask("ask_router", wire.RouterAsked(socket=socket, request=request))
        return found

    async def data_pull(self, orders: Sequence[TransferOrder]) -> Mapping[str, TransferProgress]:
        """Have the agent fetch versions."""
        return await self._progress("data_pull", wire.Orders(orders=tuple(orders)), [order.id for order in orders])

    async def data_send(self, orders: Sequence[TransferOrder]) -> Mapping[str, TransferProgress]:
        """Have the agent send versions to the service."""
        return await self._progress("data_send", wire.Orders(orders=tuple(orders)), [order.id for order in orders])

    async def data_status(self, ids: Sequence[str]) -> Mapping[str, TransferProgress]:
        """How far transfers are at the agent."""
        return await self._progress("data_status", wire.Ids(ids=tuple(ids)), ids)

    async def data_drop(self, manifests: Sequence[str]) -> None:
        """Have the agent let versions go."""
        await self._ask("data_drop", wire.Manifests(manifests=tuple(manifests)))

    async def data_chill(self, manifests: Sequence[str]) -> None:
        """Have the agent move versions to its cold store."""
        await self._ask("data_chill", wire.Manifests(manifests=tuple(manifests)))

    async def data_warm(self, manifests: Sequence[str]) -> None:
        """Have the agent bring versions back from its cold store."""
        await self._ask("data_warm", wire.Manifests(manifests=tuple(manifests)))

    async def data_limit(self, limits: Mapping[str, tuple[str, ...]]) -> None:
        """Tell the agent where versions may lie."""
        await self._ask("data_limit", wire.Limits(limits=dict(limits)))

    async def data_verify(self, manifests: Sequence[str]) -> Mapping[str, Reading]:
        """Have the agent read versions and compare."""
        found: dict[str, Reading] = await self._ask("data_verify", wire.Manifests(manifests=tuple(manifests)))
        return found

    async def data_register(self, asked: Sequence[InPlace]) -> Mapping[str, Reading]:
        """Have the agent take in files where they lie."""
        found: dict[str, Reading] = await self._ask("data_register", wire.FilesInPlace(asked=tuple(asked)))
        return found

    async def _progress(
        self, method: str, arguments: wire.Arguments, ids: Sequence[str]
    ) -> Mapping[str, TransferProgress]:
        answer: dict[str, TransferProgress] = await self._ask(method, arguments)
        return {transfer: answer[transfer] for transfer in ids if transfer in answer}

    async def close(self) -> None:
        """Nothing to let go of: the mailbox is the process's, the agent its own."""

    async def _ask(self, method: str, arguments: wire.Arguments) -> Any:
        timeout: float = getattr(self._timeouts, method)
        try:
            text = await self._mailbox.ask(self.name, method, wire.encode_arguments(arguments), timeout)
        except Busy as error:
            if method == "logs":
                raise  # a person asks, and is told when to come back
            raise Unavailable(error.cause, remedy=error.remedy) from error
        try:
            return wire.decode_answer(method, text)
        except wire.Unreadable as error:
            raise Unavailable(
                f"The agent of {self.name} answered {method} with something that cannot be read.", remedy=error.remedy
            ) from error


def _complete(keys: Sequence[str], answer: Mapping[str, T], missing: Callable[[], T]) -> dict[str, T]:
    return {key: answer[key] if key in answer else missing() for key in keys}


def _unanswered() -> Uncertain:
    return Uncertain(message="The agent did not answer for this job.")


def _unseen() -> Observation:
    return Observation(sighting=Sighting.UNSEEN, message="The agent did not answer for this job.")


def _hashes(outcome: Collected) -> set[str]:
    streams = [stream for stream in (outcome.stdout, outcome.stderr) if stream is not None]
    return {file.sha256 for file in (*outcome.files, *streams) if not file.kept}
