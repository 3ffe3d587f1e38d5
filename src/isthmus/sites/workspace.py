"""The attempts' directories at a site (layout: docs/architecture.md), in bulk, over any transport and account."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from typing import Final, TypeVar

from isthmus.data.port import BlobStore
from isthmus.domain.errors import Invalid, Refused, Unavailable
from isthmus.domain.ids import is_id
from isthmus.sites import scripts
from isthmus.sites.collecting import Collector
from isthmus.sites.containers import NETWORKS, RUNTIMES, Containers, check_images
from isthmus.sites.port import CollectOutcome, Job, JobRef, LogStream, StageOutcome, Uncertain
from isthmus.sites.roots import Root, Roots
from isthmus.sites.settings import Settings
from isthmus.sites.staging import Stager, rejection
from isthmus.sites.traces import Trace, parse_traces
from isthmus.sites.transport import CommandResult, Transport

_SWEEP_SECONDS: Final = 6 * 3600.0

WORKSPACE_HELP: Final[dict[str, str]] = {
    "root": "Directory at the site for attempts and cached content; ~ and {account} are filled in (~/.isthmus).",
    "images": 'How container images are satisfied: {"GLOB": "host" | "pull" | "/path/at/site"}, first match wins.',
    "binds": "Paths at the site, separated by colons, that every container sees read-only at the same place (none).",
    "network": "Network of containers: none or host (none).",
    "runtime_flags": "Extra words after podman or docker, e.g. --cgroup-manager cgroupfs.",
    "cache_days": "Days that content at the site is kept after its last use (30; 0: for ever).",
    "grace_seconds": "Seconds between TERM and KILL when a job is cancelled or over its time (10).",
}

_Keyed = TypeVar("_Keyed", Job, JobRef)


class Workspace:
    """All that is the same for every scheduler: directories, wrapper, inputs, claims, results, logs, outputs."""

    def __init__(
        self, transport: Transport, blobs: BlobStore, settings: Settings, *, site: str, enforce_walltime: bool = False
    ) -> None:
        """`enforce_walltime`: the wrapper itself ends a job that is over its time (the fork scheduler has no other)."""
        root = settings.text("root", "~/.isthmus")
        if not root.startswith(("/", "~/")) or ".." in root.split("/"):
            raise Invalid("root", f"{root!r} is not an absolute path.", remedy="Write /path or ~/path.")
        self._transport = transport
        self._switches = settings.text("switch_account", "none") != "none"
        self._roots = Roots(transport, root, shared=settings.text("switch_account", "none") != "none")
        self._images = check_images(settings.mapping("images"))
        self._binds = _paths("binds", settings.text("binds"))
        self._network = settings.choice("network", NETWORKS, "none")
        self._flags = tuple(shlex.split(settings.text("runtime_flags")))
        self.grace_seconds = settings.integer("grace_seconds", 10, least=1, most=3600)
        self._cache_days = settings.integer("cache_days", 30, most=36500)
        self._swept: dict[str, float] = {}
        self._enforce = enforce_walltime
        self._stager = Stager(transport, blobs, site=site)
        self._collector = Collector(transport, blobs)

    async def root(self, account: str) -> str:
        """Absolute path of the account's root at the site; made when needed. Refused when it cannot be made."""
        return (await self._roots.make(account)).path

    async def known_root(self, account: str) -> str | None:
        """The account's root if there is one; nothing is made."""
        root = await self._roots.look(account)
        return None if root is None else root.path

    async def attempt_directory(self, account: str, key: str) -> str:
        """Absolute path of an attempt's directory; the job's script is `job.sh` in it, for scheduler output use
        `scheduler.out` in it. Invalid for a key that is none."""
        return f"{await self.root(account)}/attempts/{check_key(key)}"

    async def tools(self, account: str = "") -> frozenset[str]:
        """Programs found at the site, of those that the workspace can use (curl, podman, bwrap, ...)."""
        return frozenset((await self._roots.make(account)).tools)

    async def features(self) -> frozenset[str]:
        """What those programs let the site do, in the words of SiteDescription.features; empty when the root of the own
        account cannot be made."""
        try:
            tools = await self.tools()
        except Refused:
            return frozenset()
        found = {f"containers:{name}" for name in RUNTIMES if name in tools}
        return frozenset(found | ({"fetch:http", "fetch:https"} if tools & {"curl", "wget"} else set()))

    async def stage(self, jobs: Sequence[Job]) -> dict[str, StageOutcome]:
        """What Site.stage promises. An attempt that is staged already is left alone."""
        outcomes: dict[str, StageOutcome] = {}
        for account, group in by_account(jobs).items():
            try:
                self._check_account(account)
                root = await self._roots.make(account)
            except Refused as error:
                outcomes |= {job.key: rejection(error) for job in group}
                continue
            containers = self._containers(root)
            outcomes |= await self._stager.stage(
                group, root, account, containers, grace_seconds=self.grace_seconds, enforce_walltime=self._enforce
            )
        return outcomes

    def _check_account(self, account: str) -> None:
        """Refused for root where jobs run as other accounts: whoever maps users must not thereby become root."""
        if self._switches and (account or self._transport.own_account) == "root":
            raise Refused(
                "No user's job runs as root at a site that acts as other accounts (switch_account).",
                remedy="Map the user to an ordinary account.",
                code="account_root",
            )

    async def traces(self, refs: Sequence[JobRef]) -> dict[str, Trace]:
        """Claims and results of many attempts with one command for each account; a Trace for every key. Unavailable
        when the root does not answer or is not the one it was. A key whose account never staged anything here has no
        entry: nothing is known of it."""
        found: dict[str, Trace] = {}
        for account, group in by_account(refs).items():
            root = await self._look(account)
            if root is None:
                continue
            result = await self._run(
                ["/bin/sh", "-c", scripts.TRACES, "sh", root.path, root.mark],
                stdin=keys_of(group),
                timeout_seconds=60 + len(group) / 50,
                account=account,
            )
            if result.exit_code != 0:
                raise Unavailable(f"{self._transport.place} does not say what its attempts left: {result.complaint}")
            found |= parse_traces(result.text, self._transport.place)
        return found

    async def mark_cancelled(self, refs: Sequence[JobRef]) -> None:
        """Note that the user cancelled, or that it makes room, so that the wrapper says so when it is ended, and does not start
        if it has not."""
        gentle = [ref for ref in refs if ref.grace_seconds]
        hard = [ref for ref in refs if not ref.grace_seconds]
        if hard:
            await self._for_each_root(hard, scripts.MARK_CANCELLED)
        if gentle:
            await self._for_each_root(gentle, scripts.MARK_PREEMPTED)

    async def let_go(self, refs: Sequence[JobRef]) -> None:
        """What Site.let_go promises."""
        await self._for_each_root(refs, scripts.LET_GO)

    async def log(self, ref: JobRef, stream: LogStream, offset: int, limit: int) -> bytes:
        """What Site.logs promises."""
        root = await self._look(ref.account)
        if root is None or limit <= 0:
            return b""
        path = f"{root.path}/attempts/{check_key(ref.key)}/{stream.value}"
        command = ["/bin/sh", "-c", scripts.LOG, "sh", path, str(max(0, offset) + 1), str(limit)]
        result = await self._run(command, account=ref.account)
        if result.exit_code != 0:
            raise Unavailable(f"{self._transport.place} does not give the job's {stream.value}: {result.complaint}")
        return result.stdout

    async def collect(self, jobs: Sequence[Job]) -> dict[str, CollectOutcome]:
        """What Site.collect promises."""
        outcomes: dict[str, CollectOutcome] = {}
        for account, group in by_account(jobs).items():
            for job in group:
                check_key(job.key)
            root = await self._look(account)
            if root is None:
                why = Uncertain(message=f"There is no root of {account or 'the own account'} at the site.")
                outcomes |= {job.key: why for job in group}
            else:
                outcomes |= await self._collector.collect(group, root.path, account)
        return outcomes

    async def clean(self, refs: Sequence[JobRef]) -> None:
        """What Site.clean promises."""
        await self._for_each_root(refs, scripts.CLEAN)
        for account in by_account(refs):
            await self._sweep(account)

    async def close(self) -> None:
        """Let go of local scratch space; the transport is the adapter's to close."""
        self._collector.close()

    async def _for_each_root(self, refs: Sequence[JobRef], script: str) -> None:
        for account, group in by_account(refs).items():
            root = await self._look(account)
            if root is None:
                continue
            result = await self._run(
                ["/bin/sh", "-c", script, "sh", root.path],
                stdin=keys_of(group),
                timeout_seconds=60 + len(group),
                account=account,
            )
            if result.exit_code != 0:
                raise Unavailable(f"{self._transport.place} does not reach its attempts: {result.complaint}")

    async def _sweep(self, account: str) -> None:
        """Once in a while, drop content that no job used for long, and what killed commands left."""
        root = await self._look(account)
        last = self._swept.get(account)
        if root is None or (last is not None and time.monotonic() - last < _SWEEP_SECONDS):
            return
        self._swept[account] = time.monotonic()
        await self._run(
            ["/bin/sh", "-c", scripts.SWEEP, "sh", root.path, str(self._cache_days)],
            timeout_seconds=600,
            account=account,
        )

    async def _look(self, account: str) -> Root | None:
        try:
            return await self._roots.look(account)
        except Refused as error:
            raise Unavailable(str(error), code=error.code) from None

    async def _run(
        self, command: Sequence[str], *, account: str, stdin: bytes | None = None, timeout_seconds: float = 60.0
    ) -> CommandResult:
        """Run a command about attempts that exist: that it is refused now (an account was removed, switching turned off)
        says nothing of them, so that it is Unavailable like any other failure to ask."""
        try:
            return await self._transport.run(command, stdin=stdin, timeout_seconds=timeout_seconds, account=account)
        except Refused as error:
            raise Unavailable(str(error), code=error.code) from None

    def _containers(self, root: Root) -> Containers:
        runtimes = {name: path for name, path in root.tools.items() if name in RUNTIMES}
        return Containers(
            images=self._images,
            runtimes=runtimes,
            network=self._network,
            runtime_flags=self._flags,
            binds=self._binds,
        )


def _paths(key: str, text: str) -> tuple[str, ...]:
    paths = tuple(path for path in text.split(":") if path)
    for path in paths:
        if not path.startswith("/") or path == "/" or ".." in path.split("/"):
            raise Invalid(key, f"{path!r} is not an absolute path.", remedy="Write /path:/other.")
    return paths


def check_key(key: str) -> str:
    """The key, unchanged; Invalid when it is none, so that nothing else ever reaches a shell or a path."""
    if not is_id(key):
        raise Invalid("key", f"{key[:80]!r} is not an attempt's key.")
    return key


def keys_of(items: Sequence[Job] | Sequence[JobRef]) -> bytes:
    """The keys, one a line."""
    return "".join(f"{check_key(item.key)}\n" for item in items).encode()


def by_account(items: Sequence[_Keyed]) -> dict[str, list[_Keyed]]:
    """Jobs or references by their account."""
    groups: dict[str, list[_Keyed]] = {}
    for item in items:
        groups.setdefault(item.account, []).append(item)
    return groups
