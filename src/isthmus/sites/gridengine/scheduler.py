"""Grid Engine through its commands, over any transport."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from isthmus.domain.errors import Unavailable
from isthmus.domain.lifecycle import EndReason
from isthmus.domain.site import SiteDescription
from isthmus.sites.batch.asking import Asked, Talk, ask
from isthmus.sites.batch.pace import Pace
from isthmus.sites.batch.rows import Answer, NativeJob, UsageAnswer
from isthmus.sites.batch.scheduler import Asking
from isthmus.sites.batch.sending import send
from isthmus.sites.batch.strangers import Anonymous, bounded
from isthmus.sites.gridengine import accounting, load, submission
from isthmus.sites.gridengine.queue import PREFIX, parse_queue, qstat_argv
from isthmus.sites.port import Job, Rejected, SubmitOutcome
from isthmus.sites.settings import option_features
from isthmus.sites.transport import Transport

ENVIRONMENT = {"TZ": "UTC0", "LC_ALL": "C", "SGE_LONG_JOB_NAMES": "1"}
MAX_DELETED = 500


class GridEngineCommands:
    """qsub, qstat, qacct, qdel and qhost; no answer that was cut off is taken for a whole one."""

    def __init__(
        self,
        transport: Transport,
        *,
        resources: submission.Resources,
        defaults: Mapping[str, str] | None = None,
        user_options: Collection[str] = (),
        gpu_kind: str = "",
        bin_directory: str = "",
        timeout_seconds: float = 60.0,
        submit_timeout_seconds: int = 30,
        query_seconds: float = 0.0,
    ) -> None:
        """`defaults`: options of every job; `user_options`: those that a job may bring of its own. `query_seconds`: see
        `Pace`."""
        self._transport = transport
        self._resources = resources
        self._defaults = dict(defaults or {})
        self._user_options = frozenset(user_options)
        self._gpu_kind = gpu_kind
        self._bin = bin_directory.rstrip("/")
        self._timeout = timeout_seconds
        self._submit_timeout = submit_timeout_seconds
        self._pace = Pace(query_seconds)
        self._anonymous = Anonymous()

    @property
    def has_accounting(self) -> bool:
        """Always: the accounting is a file of the cell."""
        return True

    async def queue(self, asking: Asking) -> tuple[Answer, float]:
        """qstat, once. Unavailable when the master does not answer."""
        asked, complaint = await self._one(qstat_argv(asking.accounts))
        if asked.code != 0:
            raise Unavailable(f"qstat failed on {self._transport.place}: {complaint or asked.code}.")
        return parse_queue(asked.text), asked.at

    async def records(self, asking: Asking) -> Answer:
        """qacct, once. A job appears there some seconds after its end."""
        asked, complaint = await self._accounting(asking)
        answer = accounting.parse_records(asked.text)
        if asked.code != 0 and not accounting.nothing_found(complaint):
            return Answer(rows=answer.rows, complete=False, problem=f"qacct failed: {complaint or asked.code}.")
        return answer

    async def usage(self, asking: Asking) -> UsageAnswer:
        """qacct, once."""
        asked, complaint = await self._accounting(asking)
        if asked.code != 0 and not accounting.nothing_found(complaint):
            return UsageAnswer(complete=False, problem=f"qacct failed: {complaint or asked.code}.")
        return accounting.parse_usage(asked.text, self._resources.gpu)

    async def by_id(self, native_ids: Sequence[str]) -> Sequence[NativeJob]:
        """Jobs of Isthmus in the queue with these ids."""
        asked, complaint = await self._one(qstat_argv(["*"]))
        if asked.code != 0:
            raise Unavailable(f"qstat failed on {self._transport.place}: {complaint or asked.code}.")
        wanted = set(native_ids)
        return [row for row in parse_queue(asked.text).rows if row.native_id in wanted]

    async def submit(
        self, account: str, jobs: Sequence[Job], directories: Mapping[str, str]
    ) -> dict[str, SubmitOutcome]:
        """qsub for each job, many in one command."""
        outcomes: dict[str, SubmitOutcome] = {}
        commands: dict[str, list[str]] = {}
        for job in jobs:
            wrong = submission.check(job, self._resources, self._user_options)
            if wrong:
                outcomes[job.key] = Rejected(reason=EndReason.REJECTED_BY_SITE, message=wrong)
                continue
            directory = directories[job.key]
            argv = submission.qsub_argv(job, f"{directory}/job.sh", directory, self._resources, self._defaults)
            commands[job.key] = self._path(argv)
        sent = await send(
            self._transport,
            commands,
            submission.parse_qsub,
            account=account,
            env={"LC_ALL": "C"},
            timeout_seconds=self._submit_timeout,
        )
        return outcomes | sent

    async def cancel(self, account: str, jobs: Sequence[NativeJob]) -> None:
        """qdel, some hundred ids at once."""
        for start in range(0, len(jobs), MAX_DELETED):
            argv = ["qdel", ",".join(job.native_id for job in jobs[start : start + MAX_DELETED])]
            talk = await self._tell([argv], account)
            asked, complaint = talk.answers[0], talk.complaint
            said = f"{asked.text} {complaint}"
            if asked.code != 0 and "does not exist" not in said and "registered the job" not in said:
                raise Unavailable(f"qdel failed on {self._transport.place}: {complaint or asked.code}.")

    async def describe(self) -> SiteDescription:
        """qhost and qstat of all jobs, in one go over the transport."""
        talk = await self._ask(load.commands(self._resources.gpu))
        hosts, jobs = talk.answers
        pools = None
        if hosts.code == 0 and jobs.code == 0:
            pools = load.parse_pools(hosts.text, jobs.text, self._resources.gpu, self._gpu_kind, hosts.at)
        if pools is None:
            raise Unavailable(f"qhost or qstat failed on {self._transport.place}: {talk.complaint or 'no document'}.")
        features = {"accounting", *(["multi-node"] if self._resources.nodes_environment else [])}
        features |= option_features(self._user_options)
        rows = load.parse_jobs(jobs.text, (pool.name for pool in pools), self._anonymous.hashed)
        return SiteDescription(
            kind="gridengine", pools=pools, features=frozenset(features), queue=bounded(hosts.at, rows)
        )

    async def close(self) -> None:
        """The transport is the site's to close."""

    async def _accounting(self, asking: Asking) -> tuple[Asked, str]:
        names = [f"{PREFIX}{key}" for key in asking.keys]
        return await self._one(accounting.qacct_argv(asking.accounts, names, asking.age_seconds))

    async def _one(self, argv: Sequence[str]) -> tuple[Asked, str]:
        talk = await self._ask([argv])
        return talk.answers[0], talk.complaint

    async def _ask(self, commands: Sequence[Sequence[str]]) -> Talk:
        await self._pace.take(len(commands))
        return await self._tell(commands)

    async def _tell(self, commands: Sequence[Sequence[str]], account: str = "") -> Talk:
        return await ask(
            self._transport,
            [self._path(argv) for argv in commands],
            env=ENVIRONMENT,
            timeout_seconds=self._timeout,
            account=account,
        )

    def _path(self, argv: Sequence[str]) -> list[str]:
        return [f"{self._bin}/{argv[0]}" if self._bin else argv[0], *argv[1:]]
