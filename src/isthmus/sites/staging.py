"""Brings attempts to a site: their content into the cache, then their directories, many with each command."""

from __future__ import annotations

import asyncio
import io
import shlex
import tarfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final

from isthmus.data.port import BlobStore
from isthmus.domain.errors import Invalid, IsthmusError, NotFound, Refused, Unavailable
from isthmus.domain.ids import is_id, is_sha256
from isthmus.domain.lifecycle import EndReason
from isthmus.sites import scripts
from isthmus.sites.containers import Containers, absolute_folders, absolute_places, uses_absolute_paths
from isthmus.sites.fetching import Fetcher
from isthmus.sites.port import Job, JobFile, Rejected, Staged, StageOutcome, Uncertain
from isthmus.sites.roots import Root
from isthmus.sites.several import several
from isthmus.sites.transport import Carries, Transport
from isthmus.sites.wrapper import make_environment, make_script, make_secrets

_BATCH_JOBS: Final = 500
_SMALL_BYTES: Final = 4 * 1024 * 1024  # blobs up to this size travel many to a command
_BUNDLE_BYTES: Final = 32 * 1024 * 1024
_SLOWEST_BYTES_PER_SECOND: Final = 100_000  # below this a transfer is given up, and resumed by the next call


@dataclass(slots=True, kw_only=True)
class _Prepared:
    job: Job
    members: dict[str, bytes]
    blobs: set[str]
    fetches: list[JobFile] = field(default_factory=list)


class Stager:
    """Stages jobs of one site."""

    def __init__(self, transport: Transport, blobs: BlobStore, *, site: str) -> None:
        self._transport = transport
        self._blobs = blobs
        self._site = site
        self._fetcher = Fetcher(transport)
        self._uploading: dict[tuple[str, str], asyncio.Lock] = {}

    async def stage(
        self,
        jobs: Sequence[Job],
        root: Root,
        account: str,
        containers: Containers,
        *,
        grace_seconds: int,
        enforce_walltime: bool,
    ) -> dict[str, StageOutcome]:
        """Stage the jobs of one account; an outcome for each."""
        outcomes: dict[str, StageOutcome] = {}
        ready: list[_Prepared] = []
        for job in jobs:
            try:
                ready.append(self._prepare(job, root.path, containers, grace_seconds, enforce_walltime))
            except Refused as error:
                outcomes[job.key] = rejection(error)
        staged, missing = await self._survey(ready, root, account)
        outcomes |= {key: Staged() for key in staged}
        ready = [item for item in ready if item.job.key not in staged]
        wanted = {sha for item in ready for sha in item.blobs}
        failed = await self._upload({sha: have for sha, have in missing.items() if sha in wanted}, root, account)
        for item in ready:
            for sha in item.blobs & failed.keys():
                outcomes[item.job.key] = failed[sha]
        ready = [item for item in ready if item.job.key not in outcomes]
        for start in range(0, len(ready), _BATCH_JOBS):
            outcomes |= await self._place(ready[start : start + _BATCH_JOBS], root, account)
        return outcomes

    def _prepare(self, job: Job, root: str, containers: Containers, grace: int, enforce: bool) -> _Prepared:
        if not is_id(job.key):
            raise Invalid("key", f"{job.key[:80]!r} is not an attempt's key.")
        directory = f"{root}/attempts/{job.key}"
        script = make_script(
            job, directory=directory, containers=containers, grace_seconds=grace, enforce_walltime=enforce
        )
        members = {"job.sh": script, "env": make_environment(job, self._site)}
        if job.secrets:
            members["secrets"] = make_secrets(job)
        lines: list[str] = []
        if uses_absolute_paths(job):
            wanted = {*absolute_places(job), *absolute_folders(job)}
            lines.append(
                "mkdir -p " + " ".join(f'"$A/root"{shlex.quote(place)}' for place in sorted(wanted)) + " || exit 1"
            )
        in_container = any(step.image for step in job.steps)
        prepared = _Prepared(job=job, members=members, blobs=set())
        for item in job.files:
            self._add_file(prepared, lines, item, link=not in_container)
        members["files.sh"] = "\n".join([*lines, "exit 0\n"]).encode("utf-8", "surrogateescape")
        if prepared.fetches:
            members["fetch"] = b""
        return prepared

    def _add_file(self, prepared: _Prepared, lines: list[str], item: JobFile, *, link: bool) -> None:
        target = f'"$A"/{shlex.quote(place_below(item.path))}'
        mode = "755" if item.executable else "644"
        if item.blob:
            if not is_sha256(item.blob):
                raise Invalid("files.blob", f"{item.blob[:80]!r} is not a SHA-256.")
            prepared.blobs.add(item.blob)
            lines.append(f"blob {item.blob} {mode} {target}")
        elif item.url:
            prepared.fetches.append(item)
        elif item.path_at_site.startswith("/"):
            if "\n" in item.path_at_site or "\0" in item.path_at_site:
                raise Invalid("files.path_at_site", "holds a line break.", remedy="Rename the file.")
            lines.append(f"site {shlex.quote(item.path_at_site)} {mode} {target} {'link' if link else chr(39) * 2}")
        else:
            raise Invalid(f"files.{item.path}", "has no source.", remedy="Give blob, url or an absolute path_at_site.")

    async def _survey(self, ready: list[_Prepared], root: Root, account: str) -> tuple[set[str], dict[str, int]]:
        """Keys that are staged already, and blobs that are not in the cache, with the bytes that are."""
        if not ready:
            return set(), {}
        lines = [f"key {item.job.key}\n" for item in ready]
        lines += [f"blob {sha}\n" for sha in sorted({sha for item in ready for sha in item.blobs})]
        result = await self._transport.run(
            ["/bin/sh", "-c", scripts.SURVEY, "sh", root.path],
            stdin="".join(lines).encode(),
            timeout_seconds=60 + len(lines) / 50,
            account=account,
        )
        if result.exit_code != 0:
            raise Unavailable(f"{self._transport.place} does not say what is staged: {result.complaint}")
        staged: set[str] = set()
        missing: dict[str, int] = {}
        for line in result.text.splitlines():
            match line.split():
                case ["staged", key]:
                    staged.add(key)
                case ["missing", sha, have] if have.isdigit():
                    missing[sha] = int(have)
        return staged, missing

    async def _upload(self, missing: dict[str, int], root: Root, account: str) -> dict[str, StageOutcome]:
        """Bring blobs into the cache; returns what went wrong, by hash."""
        failed: dict[str, StageOutcome] = {}
        small: list[tuple[str, int]] = []
        large: list[str] = []

        async def sort(sha: str) -> None:
            try:
                size = await self._blobs.size(sha)
            except NotFound:
                failed[sha] = Rejected(reason=EndReason.INPUT_MISSING, message=f"No stored content has the hash {sha}.")
            except IsthmusError as error:
                failed[sha] = Uncertain(message=str(error))
            else:
                if size <= _SMALL_BYTES and not missing[sha]:
                    small.append((sha, size))
                else:
                    large.append(sha)

        await several(sort, missing)
        bundle: list[str] = []
        bundle_bytes = 0
        for sha, size in small:
            bundle.append(sha)
            bundle_bytes += size + 1024
            if bundle_bytes > _BUNDLE_BYTES:
                failed |= await self._send_bundle(bundle, root, account)
                bundle, bundle_bytes = [], 0
        if bundle:
            failed |= await self._send_bundle(bundle, root, account)
        sent = await asyncio.gather(*(self._send(sha, missing[sha], root, account) for sha in large))
        failed |= {sha: outcome for sha, outcome in zip(large, sent, strict=True) if outcome is not None}
        return failed

    async def _send_bundle(self, hashes: list[str], root: Root, account: str) -> dict[str, StageOutcome]:
        try:
            contents = dict(zip(hashes, await several(self._read, hashes), strict=True))
            result = await self._transport.run(
                ["/bin/sh", "-c", scripts.UNPACK_BLOBS, "sh", root.path],
                stdin=_tar(contents),
                timeout_seconds=60 + sum(map(len, contents.values())) / _SLOWEST_BYTES_PER_SECOND,
                account=account,
                carries=Carries.IN,
            )
        except IsthmusError as error:
            return {sha: Uncertain(message=str(error)) for sha in hashes}
        kept = set(result.text.split())
        why = result.complaint or "the content arrived damaged"
        return {
            sha: Uncertain(message=f"Content {sha} is not at the site: {why}.") for sha in hashes if sha not in kept
        }

    async def _read(self, sha: str) -> bytes:
        return b"".join([chunk async for chunk in self._blobs.read(sha)])

    async def _send(self, sha: str, have: int, root: Root, account: str) -> StageOutcome | None:
        """Stream one blob from the byte on that the site has; None when it is there whole."""
        async with self._uploading.setdefault((account, sha), asyncio.Lock()):
            try:
                size = await self._blobs.size(sha)
                for _ in range(3):  # what an earlier, broken transfer had on its way may still have arrived meanwhile
                    result = await self._transport.run(
                        ["/bin/sh", "-c", scripts.APPEND, "sh", root.path, sha, str(have), str(size)],
                        stdin=_content(self._blobs, sha, have),
                        timeout_seconds=120 + max(0, size - have) / _SLOWEST_BYTES_PER_SECOND,
                        account=account,
                        carries=Carries.IN,
                    )
                    stands = result.text.strip()
                    if result.exit_code != 9 or not stands.isdigit():
                        break
                    have = int(stands)
            except IsthmusError as error:
                return Uncertain(message=str(error))
        if result.exit_code == 0:
            return None
        whys = {7: "the stream broke off", 8: "it arrived damaged", 9: "another transfer is under way"}
        why = whys.get(result.exit_code, result.complaint)
        return Uncertain(message=f"Content {sha} is not at the site: {why}.")

    async def _place(self, ready: list[_Prepared], root: Root, account: str) -> dict[str, StageOutcome]:
        members = {f"{item.job.key}/work/": b"" for item in ready}
        members |= {f"{item.job.key}/{name}": content for item in ready for name, content in item.members.items()}
        files = sum(len(item.job.files) for item in ready)
        result = await self._transport.run(
            ["/bin/sh", "-c", scripts.UNPACK, "sh", root.path],
            stdin=_tar(members),
            timeout_seconds=120 + len(ready) / 10 + files / 5,
            account=account,
        )
        outcomes: dict[str, StageOutcome] = {
            item.job.key: Uncertain(message=f"The attempt's directory was not made: {result.complaint or 'no answer'}.")
            for item in ready
        }
        done: set[str] = set()
        for line in result.text.splitlines():
            word, _, rest = line.partition(" ")
            key, _, said = rest.partition(" ")
            if key not in outcomes:
                continue
            if word in ("done", "staged"):
                outcomes[key] = Staged()
                if word == "done":
                    done.add(key)
            elif word == "absent":
                outcomes[key] = Rejected(
                    reason=EndReason.INPUT_MISSING, message=f"{said.strip()} is not at the site, or not readable there."
                )
            elif word == "failed":
                outcomes[key] = Uncertain(message=f"The attempt's directory was not made: {said.strip()}")
        for item in ready:
            if item.fetches and item.job.key in done:
                directory = f"{root.path}/attempts/{item.job.key}"
                places = [(fetch, f"{directory}/{place_below(fetch.path)}") for fetch in item.fetches]
                outcomes[item.job.key] = await self._fetcher.fetch(places, root, item.job.key, account)
        return outcomes


def rejection(error: IsthmusError) -> Rejected:
    """A refusal of this site as the outcome of one job."""
    return Rejected(reason=EndReason.REJECTED_BY_SITE, message=str(error))


def place_below(path: str) -> str:
    """Where a task's path lies below the attempt's directory; Invalid when it would leave it."""
    pure = PurePosixPath(path)
    if not path or ".." in pure.parts or "\0" in path or "\n" in path or str(pure) in (".", "/"):
        raise Invalid("path", f"{path!r} is not a path of the task.", remedy="Use a path without `..`.")
    return f"root{pure}" if pure.is_absolute() else f"work/{pure}"


async def _content(blobs: BlobStore, sha: str, offset: int) -> AsyncIterator[bytes]:
    async for chunk in blobs.read(sha, offset):
        yield chunk


def _tar(members: dict[str, bytes]) -> bytes:
    """A tar of small files, mode 0600, and of directories (a name that ends in /), mode 0700."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mode = 0o600
            if name.endswith("/"):
                entry.type = tarfile.DIRTYPE
                entry.mode = 0o700
            entry.mtime = time.time()  # sites purge what looks old
            archive.addfile(entry, io.BytesIO(content))
    return target.getvalue()
