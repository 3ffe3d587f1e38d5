"""Slurm through its commands, over any transport."""

from __future__ import annotations

import time
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
from isthmus.sites.port import Job, Rejected, Sighting, SubmitOutcome
from isthmus.sites.settings import option_features
from isthmus.sites.slurm import load, submission
from isthmus.sites.slurm.queue import ShowQueue, ShowRecords
from isthmus.sites.slurm.values import TIME_ENVIRONMENT
from isthmus.sites.transport import Transport

CONFIGURATION_SECONDS = 600.0
MAX_CANCEL = 500


class SlurmCommands:
    """squeue, sacct, sbatch, scancel, sinfo and scontrol; no answer that was cut off is taken for a whole one."""

    def __init__(
        self,
        transport: Transport,
        *,
        accounting: str = "auto",
        defaults: Mapping[str, str] | None = None,
        user_options: Collection[str] = (),
        gpu_gres: str = "gpu",
        bin_directory: str = "",
        timeout_seconds: float = 60.0,
        submit_timeout_seconds: int = 30,
        query_seconds: float = 0.0,
    ) -> None:
        """`accounting`: auto (as the cluster's configuration says), sacct or none. `defaults`: options of every job.
        `user_options`: those that a job may bring of its own. `query_seconds`: see `Pace`."""
        self._transport = transport
        self._accounting = accounting
        self._defaults = dict(defaults or {})
        self._user_options = frozenset(user_options)
        self._gpu_gres = gpu_gres
        self._bin = bin_directory.rstrip("/")
        self._timeout = timeout_seconds
        self._submit_timeout = submit_timeout_seconds
        self._configuration: tuple[float, load.Configuration] | None = None
        self._disabled = False
        self._pace = Pace(query_seconds)
        self._anonymous = Anonymous()

    @property
    def has_accounting(self) -> bool:
        """Whether sacct can be asked."""
        if self._accounting == "auto":
            return not self._disabled and (self._configuration is None or self._configuration[1].accounting)
        return self._accounting == "sacct"

    async def queue(self, asking: Asking) -> tuple[Answer, float]:
        """squeue, once. Unavailable when the controller does not answer."""
        command = ShowQueue(users=asking.accounts, names=asking.keys)
        asked, complaint = await self._one(command.argv())
        if asked.code != 0:
            raise Unavailable(f"squeue failed on {self._transport.place}: {complaint or asked.code}.")
        answer = command.parse(asked.text)
        own = self._transport.own_account
        others = own != "root" and any(account != own for account in asking.accounts)
        if others and (await self._configured()).private_jobs:
            answer = Answer(
                rows=answer.rows,
                complete=False,
                problem=f"The cluster hides other accounts' jobs from {own} (PrivateData): make it an operator there.",
            )
        return answer, asked.at

    async def records(self, asking: Asking) -> Answer:
        """sacct, once; an Answer that is not complete when the accounting does not answer."""
        command = ShowRecords(age_seconds=asking.age_seconds, users=asking.accounts, names=asking.keys)
        asked, complaint = await self._one(command.argv())
        answer = command.parse(asked.text)
        if asked.code != 0:
            self._disabled = self._disabled or "storage is disabled" in complaint
            return Answer(rows=answer.rows, complete=False, problem=f"sacct failed: {complaint or asked.code}.")
        return answer

    async def usage(self, asking: Asking) -> UsageAnswer:
        """sacct with steps, once."""
        command = ShowRecords(age_seconds=asking.age_seconds, users=asking.accounts, names=asking.keys, steps=True)
        asked, complaint = await self._one(command.argv())
        if asked.code != 0:
            return UsageAnswer(complete=False, problem=f"sacct failed: {complaint or asked.code}.")
        return command.parse_usage(asked.text)

    async def by_id(self, native_ids: Sequence[str]) -> Sequence[NativeJob]:
        """squeue of the ids; one that slurmctld forgot makes squeue fail when it stands alone."""
        command = ShowQueue(ids=list(native_ids))
        asked, complaint = await self._one(command.argv())
        if asked.code != 0 and "Invalid job id" not in complaint:
            raise Unavailable(f"squeue failed on {self._transport.place}: {complaint or asked.code}.")
        wanted = set(native_ids)
        return [row for row in command.parse(asked.text).rows if row.native_id in wanted]

    async def submit(
        self, account: str, jobs: Sequence[Job], directories: Mapping[str, str]
    ) -> dict[str, SubmitOutcome]:
        """sbatch for each job, many in one command."""
        outcomes: dict[str, SubmitOutcome] = {}
        commands: dict[str, list[str]] = {}
        for job in jobs:
            wrong = submission.check_native(job.native, self._user_options)
            if wrong:
                outcomes[job.key] = Rejected(reason=EndReason.REJECTED_BY_SITE, message=wrong)
                continue
            directory = directories[job.key]
            argv = submission.sbatch_argv(job, f"{directory}/job.sh", directory, self._defaults, self._gpu_gres)
            commands[job.key] = self._path(argv)
        sent = await send(
            self._transport,
            commands,
            submission.parse_sbatch,
            account=account,
            env={"LC_ALL": "C"},
            timeout_seconds=self._submit_timeout,
        )
        return outcomes | sent

    async def cancel(self, account: str, jobs: Sequence[NativeJob]) -> None:
        """scancel, some hundred ids at once.

        Slurm ends a job by a signal to one process after another, so a shell may go on to its next line before its turn
        comes. A running job's wrapper is therefore asked first: it ends all its processes at once and writes a result.
        """
        for start in range(0, len(jobs), MAX_CANCEL):
            some = jobs[start : start + MAX_CANCEL]
            running = [job.native_id for job in some if job.sighting is Sighting.RUNNING]
            commands = [submission.ask_to_end_argv(running), ["sleep", "1"]] if running else []
            commands.append(submission.scancel_argv([job.native_id for job in some]))
            talk = await self._tell(commands, account)
            if talk.answers[-1].code != 0 and "already completing or completed" not in talk.complaint:
                raise Unavailable(f"scancel failed on {self._transport.place}: {talk.complaint or 'no reason given'}.")

    async def describe(self) -> SiteDescription:
        """sinfo and squeue of all jobs, in one go over the transport; the configuration and the licences more rarely."""
        configuration = await self._configured()
        talk = await self._ask([load.SINFO, load.QUEUE])
        sinfo, queue = talk.answers
        if sinfo.code != 0 or queue.code != 0:
            raise Unavailable(f"sinfo or squeue failed on {self._transport.place}: {talk.complaint}.")
        features = {"multi-node", "licences", *option_features(self._user_options)}
        notes: tuple[str, ...] = ()
        if self.has_accounting:
            features.add("accounting")
        else:
            notes = ("The cluster keeps no accounting: usage is counted by the job's wrapper.",)
        return SiteDescription(
            kind="slurm",
            version=configuration.version,
            pools=load.parse_pools(sinfo.text, queue.text, configuration.licences, self._gpu_gres),
            features=frozenset(features),
            notes=notes,
            queue=bounded(queue.at, load.parse_jobs(queue.text, self._anonymous.hashed)),
        )

    async def close(self) -> None:
        """The transport is the site's to close."""

    async def _configured(self) -> load.Configuration:
        """The cluster's configuration and the licences that it owns, asked rarely."""
        kept = self._configuration
        if kept is not None and time.monotonic() - kept[0] < CONFIGURATION_SECONDS:
            return kept[1]
        talk = await self._ask([load.CONFIGURATION, load.LICENCES])
        shown, licences = talk.answers
        if shown.code != 0:
            raise Unavailable(f"scontrol failed on {self._transport.place}: {talk.complaint or shown.code}.")
        configuration = load.parse_configuration(shown.text, licences.text)
        self._configuration = (time.monotonic(), configuration)
        return configuration

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
            env=TIME_ENVIRONMENT,
            timeout_seconds=self._timeout,
            account=account,
        )

    def _path(self, argv: Sequence[str]) -> list[str]:
        plain = not self._bin or argv[0] == "sleep"
        return [argv[0] if plain else f"{self._bin}/{argv[0]}", *argv[1:]]
