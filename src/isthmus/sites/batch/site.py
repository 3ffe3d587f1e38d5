"""A site behind a batch system: the workspace for files, a scheduler for jobs, and what joins the two.

Native job arrays are not used. An array's members are attempts of their own with keys of their own, and Slurm and Grid
Engine know one name for a whole array: a lost answer could not be traced to a member, and `singleton` would hold the
members behind one another. What arrays save, round trips, `sending` saves too.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from isthmus.domain.errors import IsthmusError, Unavailable
from isthmus.domain.ids import is_id
from isthmus.domain.site import SiteDescription
from isthmus.domain.usage import Usage
from isthmus.sites.batch.counting import usage_by_key
from isthmus.sites.batch.merge import by_key, native_ids, observe_one
from isthmus.sites.batch.rows import Answer, NativeJob, is_own
from isthmus.sites.batch.scheduler import Asking, Scheduler
from isthmus.sites.port import (
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
from isthmus.sites.traces import Trace
from isthmus.sites.transport import Transport
from isthmus.sites.workspace import Workspace

CLOCK_MARGIN_SECONDS = 3600  # how far the site's clock and ours may be apart
UNKNOWN_AGE_SECONDS = 30 * 86400
MAX_REMEMBERED = 20_000
_ULID_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


class BatchSite:
    """The port over a workspace and a scheduler. Kinds derive from it and only build the parts."""

    def __init__(
        self,
        name: str,
        *,
        transport: Transport,
        workspace: Workspace,
        scheduler: Scheduler,
        describe_seconds: float = 5.0,
    ) -> None:
        """`describe_seconds`: how long a description is used again, so that load queries stay few."""
        self.name = name
        self._transport = transport
        self._workspace = workspace
        self._scheduler = scheduler
        self._describe_seconds = describe_seconds
        self._described: tuple[float, SiteDescription] | None = None
        self._describing = asyncio.Lock()
        self._last_seen: OrderedDict[str, NativeJob] = OrderedDict()  # for usage where there is no accounting

    async def describe(self) -> SiteDescription:
        """Pools with their load; at most one round of queries in `describe_seconds`."""
        async with self._describing:
            now = time.monotonic()
            if self._described is None or now - self._described[0] >= self._describe_seconds:
                described = await self._scheduler.describe()
                features = described.features | await self._workspace.features()
                self._described = (now, replace(described, features=features))
            return self._described[1]

    async def stage(self, jobs: Sequence[Job]) -> Mapping[str, StageOutcome]:
        """See Site.stage."""
        return await self._workspace.stage(jobs)

    async def submit(self, jobs: Sequence[Job]) -> Mapping[str, SubmitOutcome]:
        """One command for each account and hundred jobs; each key has its own outcome whatever breaks."""
        outcomes: dict[str, SubmitOutcome] = {}
        groups: dict[str, list[Job]] = {}
        for job in jobs:
            groups.setdefault(job.account, []).append(job)
        for account, members in groups.items():
            try:
                directories = {job.key: await self._workspace.attempt_directory(account, job.key) for job in members}
            except IsthmusError as error:
                outcomes.update({job.key: Uncertain(message=str(error)) for job in members})
                continue
            outcomes.update(await self._scheduler.submit(account, members, directories))
        return outcomes

    async def find(self, refs: Sequence[JobRef]) -> Mapping[str, tuple[str, ...]]:
        """Ids of every key from queue and accounting; Unavailable when one of them did not answer for a key not found."""
        if not refs:
            return {}
        asking = self._asking(refs)
        queue, _ = await self._queue(asking)
        records = await self._records(asking)
        rows = by_key((*queue.rows, *(records.rows if records else ())), asking.keys)
        found = {key: native_ids(rows[key]) for key in asking.keys}
        whole = queue.complete and (records is None or records.complete)
        if not whole and not all(found.values()):
            problem = queue.problem or (records.problem if records is not None else "")
            raise Unavailable(f"The scheduler of {self.name} did not answer in full. {problem}".strip())
        return found

    async def observe(self, refs: Sequence[JobRef]) -> Mapping[str, Observation]:
        """One queue command, one command for each account's traces, and, only if those leave a question, one accounting
        command."""
        if not refs:
            return {}
        asking = self._asking(refs)
        queue, now = await self._queue(asking)
        traces = await self._traces(refs)
        queue_rows = by_key(queue.rows, asking.keys)
        self._remember(row for rows in queue_rows.values() for row in rows)
        accounting = self._scheduler.has_accounting

        def look(records: Answer | None, record_rows: Mapping[str, list[NativeJob]]) -> dict[str, Observation]:
            return {
                key: observe_one(
                    queue,
                    records,
                    traces.get(key),
                    queue_rows=queue_rows[key],
                    record_rows=record_rows.get(key, []),
                    now=now,
                    has_accounting=accounting,
                )
                for key in asking.keys
            }

        seen = look(None, {})
        if not accounting or all(_is_settled(key_seen, traces.get(key)) for key, key_seen in seen.items()):
            return seen
        records = await self._records(asking)
        accounting = self._scheduler.has_accounting  # a cluster without one is found out by asking
        if not accounting:
            return look(None, {})
        return look(records, by_key(records.rows if records else (), asking.keys))

    async def cancel(self, refs: Sequence[JobRef]) -> None:
        """Mark the attempts so that their wrappers do not start, then end every native job with one of the keys.

        A running job that makes room is left alone: its wrapper sees the mark within a second, under any scheduler."""
        if not refs:
            return
        await self._workspace.mark_cancelled(refs)
        asking = self._asking(refs)
        queue, _ = await self._queue(asking)
        gentle = {ref.key for ref in refs if ref.grace_seconds}
        rows = by_key(queue.rows, asking.keys)
        await self._cancel(
            row
            for key, found in rows.items()
            for row in found
            if key not in gentle or row.sighting is not Sighting.RUNNING
        )

    async def let_go(self, refs: Sequence[JobRef]) -> None:
        """See Site.let_go."""
        await self._workspace.let_go(refs)

    async def cancel_native(self, native_ids: Sequence[str]) -> None:
        """End jobs by id, each as the account that owns it; an id that the site has given to a job that is no attempt is
        left alone."""
        if native_ids:
            await self._cancel(row for row in await self._scheduler.by_id(native_ids) if is_id(row.name))

    async def logs(self, ref: JobRef, stream: LogStream, offset: int, limit: int) -> bytes:
        """See Site.logs."""
        return await self._workspace.log(ref, stream, offset, limit)

    async def collect(self, jobs: Sequence[Job]) -> Mapping[str, CollectOutcome]:
        """See Site.collect."""
        return await self._workspace.collect(jobs)

    async def usage(self, refs: Sequence[JobRef]) -> Mapping[str, Usage]:
        """The accounting's figures once they are final. Without accounting: the wrapper's count, with the processors that
        the queue showed as long as it, or this adapter, remembers the job, else those of its first node."""
        if not refs:
            return {}
        asking = self._asking(refs)
        if not self._scheduler.has_accounting:
            return await self._usage_without_accounting(refs, asking)
        answer = await self._scheduler.usage(asking)
        if not answer.complete and not answer.rows:
            raise Unavailable(f"The accounting of {self.name} does not answer. {answer.problem}".strip())
        rows = [row for row in answer.rows if is_own(row, asking.owners)]
        return usage_by_key(rows, asking.keys, self.usage_source)

    usage_source = "sacct"

    async def clean(self, refs: Sequence[JobRef]) -> None:
        """See Site.clean."""
        await self._workspace.clean(refs)

    async def close(self) -> None:
        """Let go of connections; jobs are not touched."""
        await self._scheduler.close()
        await self._workspace.close()
        await self._transport.close()

    def _asking(self, refs: Sequence[JobRef]) -> Asking:
        now = time.time()
        oldest = max((now - _born(ref) for ref in refs), default=0.0)
        owners = {ref.key: ref.account or self._transport.own_account for ref in refs}
        return Asking(owners=owners, age_seconds=int(max(0.0, oldest)) + CLOCK_MARGIN_SECONDS)

    async def _queue(self, asking: Asking) -> tuple[Answer, float]:
        answer, now = await self._scheduler.queue(asking)
        return _own(answer, asking), now

    async def _records(self, asking: Asking) -> Answer | None:
        if not self._scheduler.has_accounting:
            return None
        try:
            answer = await self._scheduler.records(asking)
            return _own(answer, asking) if self._scheduler.has_accounting else None
        except Unavailable as error:
            return Answer(complete=False, problem=str(error))

    async def _traces(self, refs: Sequence[JobRef]) -> Mapping[str, Trace]:
        try:
            return await self._workspace.traces(refs)
        except Unavailable:
            return {}  # then nothing is concluded from silence; live states of the queue still count

    async def _cancel(self, rows: Iterable[NativeJob]) -> None:
        groups: dict[str, dict[str, NativeJob]] = {}
        for row in rows:
            if row.sighting is not Sighting.ENDED and not row.gone:
                account = "" if row.user == self._transport.own_account else row.user
                groups.setdefault(account, {})[row.native_id] = row
        for account, jobs in groups.items():
            await self._scheduler.cancel(account, list(jobs.values()))

    def _remember(self, rows: Iterable[NativeJob]) -> None:
        if self._scheduler.has_accounting:
            return
        for row in rows:
            self._last_seen[row.name] = row
            self._last_seen.move_to_end(row.name)
        while len(self._last_seen) > MAX_REMEMBERED:
            self._last_seen.popitem(last=False)

    async def _usage_without_accounting(self, refs: Sequence[JobRef], asking: Asking) -> dict[str, Usage]:
        queue, _ = await self._queue(asking)
        self._remember(row for rows in by_key(queue.rows, asking.keys).values() for row in rows)
        traces = await self._traces(refs)
        found: dict[str, Usage] = {}
        for key in asking.keys:
            row, trace = self._last_seen.get(key), traces.get(key)
            if trace is None:
                continue
            cpus, native_id = (row.cpus, row.native_id) if row is not None and row.cpus else (trace.cpus, "")
            usage = trace.usage(cpus=cpus, native_id=native_id)
            if usage is not None:
                found[key] = usage
        return found


def _own(answer: Answer, asking: Asking) -> Answer:
    return replace(answer, rows=tuple(row for row in answer.rows if is_own(row, asking.owners)))


def _is_settled(seen: Observation, trace: Trace | None) -> bool:
    """Whether the accounting could not change this observation."""
    if seen.sighting in {Sighting.QUEUED, Sighting.RUNNING}:
        return True
    return seen.exit_code == 0 and trace is not None and trace.result is not None


def _born(ref: JobRef) -> float:
    """When the attempt was made: its key says so (by this system's clock), else its submission, else long ago."""
    if is_id(ref.key):
        number = 0
        for character in ref.key[:10]:
            number = number * 32 + _ULID_ALPHABET.index(character)
        return min(number / 1000, time.time())
    return ref.submitted_at or time.time() - UNKNOWN_AGE_SECONDS
