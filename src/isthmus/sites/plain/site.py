"""The adapter for a host without a batch system: the fork scheduler over a workspace."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final

from isthmus.data.port import BlobStore
from isthmus.domain.errors import Invalid, IsthmusError, Refused, Unavailable
from isthmus.domain.lifecycle import EndReason
from isthmus.domain.site import Pool, SiteDescription
from isthmus.domain.usage import Usage
from isthmus.sites.plain import scripts
from isthmus.sites.plain.devices import Devices
from isthmus.sites.port import (
    CollectOutcome,
    Job,
    JobRef,
    LogStream,
    Observation,
    Rejected,
    Sighting,
    StageOutcome,
    SubmitOutcome,
    Submitted,
    Uncertain,
)
from isthmus.sites.settings import Settings
from isthmus.sites.traces import Trace
from isthmus.sites.transport import TRANSPORT_HELP, Transport, open_transport
from isthmus.sites.workspace import WORKSPACE_HELP, Workspace, by_account, check_key, keys_of

_NATIVE = re.compile(r"[0-9]{1,20}\.[0-9]{1,20}")

_OWN_HELP: Final[dict[str, str]] = {
    "pool": "Name of the one pool (local).",
    "cpus": "Processors to offer (all that the host has).",
    "memory": "Memory to offer, e.g. 8G (all that the host has).",
    "gpus": "Accelerators to offer, from number 0 (those that nvidia-smi lists).",
    "gpu_kind": "Kind of the accelerators, e.g. a100 (from nvidia-smi).",
    "max_walltime_seconds": "Longest walltime to offer (no limit).",
    "limits": "How memory and processors are limited: cgroup, where it can be written; watch looks at memory and limits the processor time of each process (cgroup).",
}
_REMOTE_ONLY = ("host", "port", "user", "key_file", "known_hosts", "connect_timeout_seconds")


class _PlainSite:
    """What LocalSite and SshSite share: all but how the host is reached."""

    KIND: ClassVar[str]
    CONFIG_HELP: ClassVar[Mapping[str, str]]

    def __init__(self, name: str, config: Mapping[str, Any], blobs: BlobStore) -> None:
        settings = Settings(config, self.CONFIG_HELP)
        self._check(settings)
        self._settings = settings
        self._pool = settings.text("pool", "local")
        self._limits = settings.choice("limits", ("cgroup", "watch"), "cgroup")
        self._gpus_set = settings.integer("gpus", -1, least=0, most=1024) if settings.has("gpus") else None
        self._transport: Transport = open_transport(settings)
        self._workspace = Workspace(self._transport, blobs, settings, site=name, enforce_walltime=True)
        self._devices = Devices()

    def _check(self, settings: Settings) -> None:
        for key in ("cpus", "max_walltime_seconds"):
            if settings.has(key):
                settings.integer(key, 1, least=1)
        settings.size("memory", 0)
        settings.text("gpu_kind")

    async def describe(self) -> SiteDescription:
        """One pool: the host, with what the operator offers of it."""
        result = await self._transport.run(scripts.DESCRIBE)
        lines = [line.partition(" ") for line in result.text.splitlines()]
        facts = {word: rest for word, _, rest in lines}
        gpus = [rest for word, _, rest in lines if word == "gpu"]
        if result.exit_code != 0 or not facts.get("cpus", "").isdigit():
            raise Unavailable(f"{self._transport.place} does not describe itself: {result.complaint}")
        notes = [] if "setsid" in facts else ["setsid is missing at the host: jobs cannot be started."]
        try:
            tools = await self._workspace.tools()
        except Refused as error:
            tools = frozenset()
            notes.append(str(error))
        count = self._gpus_set if self._gpus_set is not None else len(gpus)
        self._devices.offer(count)
        kind, _, memory = gpus[0].rpartition(",") if gpus else ("", "", "0")
        features = {f"containers:{name}" for name in ("podman", "docker", "bwrap", "ch-run") if name in tools}
        if tools & {"curl", "wget"}:
            features |= {"fetch:http", "fetch:https"}
        if "cgroup" in facts and self._limits == "cgroup":
            features.add(f"limits:cgroup-{facts['cgroup']}")
        longest = self._settings.integer("max_walltime_seconds", 0)
        pool = Pool(
            name=self._pool,
            nodes=1,
            cpus_per_node=self._settings.integer("cpus", int(facts["cpus"])),
            memory_bytes_per_node=self._settings.size("memory", int(facts.get("memory", 1024**2)) * 1024),
            accelerators_per_node=count,
            accelerator_kind=self._settings.text("gpu_kind", _kind(kind)) if count else "",
            accelerator_memory_bytes=int(memory.strip() or 0) * 1024**2 if memory.strip().isdigit() else 0,
            max_walltime_seconds=longest or None,
            immediate=True,
            up="setsid" in facts,
        )
        return SiteDescription(
            kind=self.KIND,
            version=facts.get("system", ""),
            pools=(pool,),
            features=frozenset(features),
            notes=tuple(notes),
        )

    async def stage(self, jobs: Sequence[Job]) -> Mapping[str, StageOutcome]:
        """Make the attempts' directories; see Site."""
        return await self._workspace.stage(jobs)

    async def submit(self, jobs: Sequence[Job]) -> Mapping[str, SubmitOutcome]:
        """Start the wrappers, detached; a copy that is started twice runs once, by the claim."""
        outcomes: dict[str, SubmitOutcome] = {}
        for account, group in by_account(jobs).items():
            wanted = []
            for job in group:
                check_key(job.key)
                if job.pool != self._pool:
                    message = f"There is no pool {job.pool} here, only {self._pool}."
                    outcomes[job.key] = Rejected(reason=EndReason.REJECTED_BY_SITE, message=message)
                elif job.demand.nodes > 1:
                    message = "This site is one host and cannot give a job several nodes."
                    outcomes[job.key] = Rejected(reason=EndReason.REJECTED_BY_SITE, message=message)
                else:
                    wanted.append(job)
            if wanted:
                try:
                    outcomes |= await self._launch(wanted, account)
                except Refused as error:
                    outcomes |= {
                        job.key: Rejected(reason=EndReason.REJECTED_BY_SITE, message=str(error)) for job in wanted
                    }
                except IsthmusError as error:
                    outcomes |= {job.key: Uncertain(message=str(error)) for job in wanted}
        return outcomes

    async def _launch(self, jobs: list[Job], account: str) -> dict[str, SubmitOutcome]:
        outcomes: dict[str, SubmitOutcome] = {}
        root = await self._workspace.root(account)
        groups = await self._make_groups(jobs, account or self._transport.own_account)
        lines = []
        for job in jobs:
            devices = self._devices.take(job.key, job.demand.accelerators.count)
            if devices is None:
                message = f"{job.demand.accelerators.count} accelerators are not free here."
                outcomes[job.key] = Rejected(reason=EndReason.REJECTED_BY_SITE, message=message)
                continue
            gpus = ",".join(map(str, devices)) or "-"
            lines.append(f"{job.key}\t{gpus}\t{groups.get(job.key, '-')}\n")
        result = await self._transport.run(
            ["/bin/sh", "-c", scripts.LAUNCH, "sh", root],
            stdin="".join(lines).encode(),
            timeout_seconds=60 + len(lines) / 5,
            account=account,
        )
        for line in result.text.splitlines():
            match line.split():
                case ["started" | "running", key, native]:
                    outcomes[key] = Submitted(native_id=native)
                case ["unstaged", key]:
                    message = "The attempt is not staged at the site."
                    outcomes[key] = Rejected(reason=EndReason.REJECTED_BY_SITE, message=message)
        for job in jobs:
            outcomes.setdefault(job.key, Uncertain(message=f"It was not told to have started: {result.complaint}"))
        return outcomes

    async def _make_groups(self, jobs: list[Job], account: str) -> dict[str, str]:
        """Control groups for the jobs, where this account may make them; the wrapper watches memory otherwise."""
        if self._limits != "cgroup":
            return {}
        lines = [f"{job.key}\t{job.demand.memory_bytes}\t{job.demand.cpus_per_node}\t{account}\n" for job in jobs]
        result = await self._transport.run(
            ["/bin/sh", "-c", scripts.CGROUPS], stdin="".join(lines).encode(), timeout_seconds=60 + len(lines) / 5
        )
        made = (line.partition(" ") for line in result.text.splitlines())
        return {key: places for key, _, places in made if places}

    async def find(self, refs: Sequence[JobRef]) -> Mapping[str, tuple[str, ...]]:
        """The process that was started under each key; Unavailable where nobody can say."""
        traces = await self._workspace.traces(refs)
        found: dict[str, tuple[str, ...]] = {}
        for ref in refs:
            trace = traces.get(ref.key)
            if trace is None:
                raise Unavailable(f"Nothing is known of the attempts of {ref.account or 'the own account'} here.")
            native = _native_id(trace)
            found[ref.key] = (native,) if native else ()
        return found

    async def observe(self, refs: Sequence[JobRef]) -> Mapping[str, Observation]:
        """One script reads every claim, result and process; see Site."""
        traces = await self._workspace.traces(refs)
        await self._end_orphans([ref for ref in refs if ref.key in traces and traces[ref.key].orphaned])
        answers: dict[str, Observation] = {}
        for ref in refs:
            trace = traces.get(ref.key)
            answer = _observe(ref, trace)
            answers[ref.key] = answer
            if answer.sighting in (Sighting.ENDED, Sighting.ABSENT):
                self._devices.give_back(ref.key)
            elif trace is not None and trace.claim is not None:
                self._devices.note(ref.key, trace.claim.accelerators)
        return answers

    async def cancel(self, refs: Sequence[JobRef]) -> None:
        """TERM to the wrapper, which passes it on; KILL after the grace."""
        await self._workspace.mark_cancelled(refs)
        for grace in sorted({ref.grace_seconds for ref in refs}):
            await self._end([ref for ref in refs if ref.grace_seconds == grace], grace or self._workspace.grace_seconds)

    async def _end(self, refs: Sequence[JobRef], grace_seconds: int) -> None:
        for account, group in by_account(refs).items():
            root = await self._workspace.known_root(account)
            if root is None:
                continue
            result = await self._transport.run(
                ["/bin/sh", "-c", scripts.CANCEL, "sh", root, str(grace_seconds + 5)],
                stdin=keys_of(group),
                timeout_seconds=60 + len(group) / 10,
                account=account,
            )
            if result.exit_code != 0:
                raise Unavailable(f"{self._transport.place} did not pass on the cancellation: {result.complaint}")

    async def _end_orphans(self, refs: Sequence[JobRef]) -> None:
        for account, group in by_account(refs).items():
            root = await self._workspace.known_root(account)
            if root is not None:
                command = ["/bin/sh", "-c", scripts.END_ORPHANS, "sh", root]
                await self._transport.run(command, stdin=keys_of(group), account=account)

    async def let_go(self, refs: Sequence[JobRef]) -> None:
        """See Site.let_go."""
        await self._workspace.let_go(refs)

    async def cancel_native(self, native_ids: Sequence[str]) -> None:
        """Surplus copies end by themselves here: only the one with the claim runs. Checks the ids."""
        for native_id in native_ids:
            if _NATIVE.fullmatch(native_id) is None:
                raise Invalid("native_id", f"{native_id[:80]!r} is not one of this site's.")

    async def logs(self, ref: JobRef, stream: LogStream, offset: int, limit: int) -> bytes:
        """Part of a stream; see Site."""
        return await self._workspace.log(ref, stream, offset, limit)

    async def collect(self, jobs: Sequence[Job]) -> Mapping[str, CollectOutcome]:
        """Outputs and streams into the blob store; see Site."""
        return await self._workspace.collect(jobs)

    async def usage(self, refs: Sequence[JobRef]) -> Mapping[str, Usage]:
        """What the wrappers counted."""
        traces = await self._workspace.traces(refs)
        found: dict[str, Usage] = {}
        for key, trace in traces.items():
            usage = trace.usage(cpus=trace.cpus, native_id=_native_id(trace))
            if usage is not None:
                found[key] = usage
        return found

    async def clean(self, refs: Sequence[JobRef]) -> None:
        """Remove directories and control groups; see Site."""
        await self._workspace.clean(refs)
        for ref in refs:
            self._devices.give_back(ref.key)
        if self._limits == "cgroup":
            command = ["/bin/sh", "-c", scripts.REMOVE_CGROUPS]
            await self._transport.run(command, stdin=keys_of(refs), timeout_seconds=60 + len(refs) / 10)

    async def close(self) -> None:
        """Let go of the connection; see Site."""
        await self._workspace.close()
        await self._transport.close()


class LocalSite(_PlainSite):
    """This host, without a batch system."""

    KIND = "local"
    CONFIG_HELP = (
        {key: text for key, text in TRANSPORT_HELP.items() if key not in _REMOTE_ONLY} | WORKSPACE_HELP | _OWN_HELP
    )


class SshSite(_PlainSite):
    """One host over ssh, without a batch system."""

    KIND = "ssh"
    CONFIG_HELP = TRANSPORT_HELP | WORKSPACE_HELP | _OWN_HELP

    def _check(self, settings: Settings) -> None:
        super()._check(settings)
        if not settings.text("host"):
            raise Invalid("host", "is missing.", remedy="Name the host to reach over ssh.")


def _observe(ref: JobRef, trace: Trace | None) -> Observation:
    if trace is None:
        return Observation(sighting=Sighting.UNSEEN, message="Nothing was ever staged for this account here.")
    native = _native_id(trace)
    ids = (native,) if native else ()
    ended = trace.ended
    if ended is not None:
        return _with_ids(ended, ids)
    claim = trace.claim
    if claim is not None and trace.alive is False and not trace.orphaned:
        return Observation(
            sighting=Sighting.ENDED,
            native_ids=ids,
            reason=EndReason.CANCELLED_BY_USER if trace.cancelled else EndReason.NODE_FAILED,
            message="The wrapper is gone without a result: it was killed, or the host went down.",
            started_at=claim.claimed_at,
            claim_fence=claim.fence,
            nodes=(claim.host,) if claim.host else (),
        )
    if claim is not None:
        return Observation(
            sighting=Sighting.RUNNING,
            native_ids=ids,
            started_at=claim.claimed_at,
            claim_fence=claim.fence,
            nodes=(claim.host,) if claim.host else (),
        )
    if trace.launched and trace.alive is not False:
        return Observation(sighting=Sighting.QUEUED, native_ids=ids)
    if not trace.directory and (ref.native_id or ref.submitted_at):
        return Observation(
            sighting=Sighting.UNSEEN, message="The attempt's directory is gone: its claim cannot be asked."
        )
    return Observation(sighting=Sighting.ABSENT)


def _with_ids(seen: Observation, ids: tuple[str, ...]) -> Observation:
    return replace(seen, native_ids=ids)


def _native_id(trace: Trace) -> str:
    if trace.claim is not None and trace.claim.pid:
        return f"{trace.claim.pid}.{trace.claim.start_ticks}"
    words = dict(word.split("=", 1) for word in trace.launched.split() if "=" in word)
    return f"{words['pid']}.{words.get('start', '0')}" if "pid" in words and trace.alive is not False else ""


def _kind(name: str) -> str:
    """`NVIDIA A100-SXM4-80GB` as `a100`."""
    words = re.findall(r"[a-z0-9]+", name.lower().replace("nvidia", "").replace("tesla", "").replace("geforce", ""))
    return words[0] if words else ""
