"""Slurm through slurmrestd."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from isthmus.domain.errors import IsthmusError, Unavailable
from isthmus.domain.lifecycle import EndReason
from isthmus.domain.site import SiteDescription
from isthmus.sites.batch.rows import Answer, NativeJob, UsageAnswer
from isthmus.sites.batch.scheduler import Asking
from isthmus.sites.batch.strangers import Anonymous, bounded
from isthmus.sites.port import Job, Rejected, SubmitOutcome, Uncertain
from isthmus.sites.settings import option_features
from isthmus.sites.slurm.load import parse_jobs, parse_licences, parse_pools
from isthmus.sites.slurm.submission import check_native
from isthmus.sites.slurmrestd import documents
from isthmus.sites.slurmrestd.client import RestClient
from isthmus.sites.slurmrestd.requests import error_texts, read_submission, submission

MAX_NAMES_IN_URL = 100


class SlurmRest:
    """The questions and orders of `Scheduler` as HTTP requests; one request for each job that is submitted or ended,
    since slurmrestd has no bulk form of those."""

    def __init__(
        self,
        client: RestClient,
        *,
        own_account: str,
        accounting: bool = True,
        defaults: Mapping[str, str] | None = None,
        user_options: Collection[str] = (),
        gpu_gres: str = "gpu",
    ) -> None:
        """`own_account`: who jobs without an account run as; `user_options`: options that a job may bring of its own."""
        self._client = client
        self._own = own_account
        self._accounting = accounting
        self._defaults = dict(defaults or {})
        self._user_options = frozenset(user_options)
        self._gpu_gres = gpu_gres
        self._anonymous = Anonymous()

    @property
    def has_accounting(self) -> bool:
        """As the operator says."""
        return self._accounting

    async def queue(self, asking: Asking) -> tuple[Answer, float]:
        """All jobs that the controller knows: slurmrestd cannot select, so the selection is made here."""
        answer = documents.queue_answer(await self._client.get("slurm", "jobs"))
        keys = set(asking.keys)
        rows = tuple(row for row in answer.rows if row.name in keys)
        return Answer(rows=rows, complete=answer.complete, problem=answer.problem), time.time()

    async def records(self, asking: Asking) -> Answer:
        """The accounting, once."""
        return documents.record_answer(await self._records(asking))

    async def usage(self, asking: Asking) -> UsageAnswer:
        """The accounting, once; its documents hold the steps anyway."""
        return documents.usage_answer(await self._records(asking))

    async def by_id(self, native_ids: Sequence[str]) -> Sequence[NativeJob]:
        """Jobs in the queue with these ids."""
        wanted = set(native_ids)
        answer = documents.queue_answer(await self._client.get("slurm", "jobs"))
        return [row for row in answer.rows if row.native_id in wanted]

    async def submit(
        self, account: str, jobs: Sequence[Job], directories: Mapping[str, str]
    ) -> dict[str, SubmitOutcome]:
        """One request for each job."""
        outcomes = await asyncio.gather(*(self._submit(account, job, directories[job.key]) for job in jobs))
        return {job.key: outcome for job, outcome in zip(jobs, outcomes, strict=True)}

    async def cancel(self, account: str, jobs: Sequence[NativeJob]) -> None:
        """One request for each job; one that has ended is no error."""
        version = await self._client.version()
        who = account or self._own
        for job in jobs:
            path = f"/slurm/v0.0.{version}/job/{job.native_id}"
            status, document = await self._client.call("DELETE", path, account=who)
            text = "; ".join(error_texts(document))
            gone = "Invalid job id" in text or "already completing or completed" in text
            if status != 200 and not gone:
                raise Unavailable(f"{self._client.place} did not end a job (HTTP status {status}): {text[:300]}.")

    async def describe(self) -> SiteDescription:
        """Partitions, nodes, jobs and licences."""
        get = self._client.get
        partitions, nodes, jobs = await asyncio.gather(
            get("slurm", "partitions"), get("slurm", "nodes"), get("slurm", "jobs")
        )
        licences = await self._licences()
        release = documents.at(partitions, "meta", "Slurm", "release") or documents.at(
            partitions, "meta", "slurm", "release"
        )
        now = time.time()
        queue = documents.queue_text(jobs, now)
        notes = () if self._accounting else ("No accounting is asked: usage is counted by the job's wrapper.",)
        return SiteDescription(
            kind="slurmrestd",
            version=f"{release or 'unknown'} (v0.0.{await self._client.version()})",
            pools=parse_pools(
                documents.sinfo_text(nodes, partitions),
                queue,
                parse_licences(documents.licence_text(licences)),
                self._gpu_gres,
            ),
            features=frozenset({"multi-node", "licences", *(["accounting"] if self._accounting else [])})
            | option_features(self._user_options),
            notes=notes,
            queue=bounded(now, parse_jobs(queue, self._anonymous.hashed)),
        )

    async def close(self) -> None:
        """Close the HTTP connections."""
        await self._client.close()

    async def _licences(self) -> Any:
        try:
            return await self._client.get("slurm", "licenses")
        except Unavailable:
            return None  # interfaces before v0.0.38 do not have it

    async def _records(self, asking: Asking) -> Any:
        params = {"start_time": f"uts{int(time.time()) - asking.age_seconds}"}
        if len(asking.keys) <= MAX_NAMES_IN_URL:
            params["job_name"] = ",".join(asking.keys)
        return await self._client.get("slurmdb", "jobs", params)

    async def _submit(self, account: str, job: Job, directory: str) -> SubmitOutcome:
        wrong = check_native(job.native, self._user_options)
        if wrong:
            return Rejected(reason=EndReason.REJECTED_BY_SITE, message=wrong)
        try:
            version = await self._client.version()
            body = submission(job, directory, version, self._defaults, self._gpu_gres)
            status, document = await self._client.call(
                "POST", f"/slurm/v0.0.{version}/job/submit", account=account or self._own, body=body
            )
        except IsthmusError as error:
            return Uncertain(message=str(error))
        return read_submission(status, document)
