"""Makes what a site needs to run an attempt out of what the user asked for: files, environment, opened secrets.

Nothing made here is stored: secrets are opened for the moment of staging only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Protocol

import sqlalchemy as sa

from isthmus.data.port import BlobStore
from isthmus.domain.errors import Corrupt, Refused, Unavailable
from isthmus.domain.lifecycle import EndReason
from isthmus.domain.manifest import MAX_FILES, Manifest
from isthmus.domain.task import TaskSpec
from isthmus.engine.taskdata import DataFiles
from isthmus.sites.port import Job, JobFile, JobOutput, JobRef
from isthmus.store import tables
from isthmus.store.database import Database
from isthmus.store.documents import load

Unseal = Callable[[bytes, str], bytes]
_MAX_MANIFEST_BYTES = MAX_FILES * 512
_CHUNK = 500


class Presigner(Protocol):
    """Turns an s3:// address into an https:// one that works for a while without credentials."""

    def __call__(self, url: str, method: str) -> str: ...

    async def below(self, url: str) -> list[tuple[str, str]]:
        """What lies below an s3:// address that stands for a directory: (relative path, s3:// address) of each object."""
        ...


def reference(row: Any) -> JobRef:
    """Enough of an attempt's row to ask its site about it."""
    return JobRef(
        key=row.key,
        account=row.account,
        pool=row.pool,
        native_id=row.native_id,
        submitted_at=row.submitted_at or 0.0,
        fence=row.fence,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _GangView:
    """What a part needs to know of its gang: the sites of all parts, in their order."""

    parts: int
    hold_seconds: int
    sites: tuple[str, ...]


class JobMaker:
    """Builds jobs in bulk; remembers the directory manifests it read last."""

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        unseal: Unseal,
        presign: Presigner | None = None,
        data: DataFiles | None = None,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._unseal = unseal
        self._presign = presign
        self._data = data
        self._manifests: dict[str, Manifest] = {}

    async def make(self, attempts: Sequence[Any], *, staging: bool) -> dict[str, Job | Refused | Unavailable]:
        """A job for each attempt row, or the reason why it can never be made, or cannot now; only for staging with files
        and secrets."""
        tasks = await self._database.read(_load_tasks, [row.task_id for row in attempts])
        restarted = [task.id for task in tasks.values() if task.restarts] if staging else []
        saved = await self._database.read(_load_checkpoints, restarted) if restarted else {}
        in_gangs = sorted({task.gang for task in tasks.values() if task.gang})
        gangs = await self._database.read(_load_gangs, in_gangs) if in_gangs else {}
        sealed: dict[tuple[str, str], bytes] | None = None
        if staging:
            sealed = await self._database.read(_load_secrets, {task.project for task in tasks.values()})
        jobs: dict[str, Job | Refused | Unavailable] = {}
        for row in attempts:
            task = tasks[row.task_id]
            try:
                jobs[row.key] = await self._make(row, task, sealed, saved.get(task.id, ()), gangs.get(task.gang))
            except (Refused, Unavailable) as error:
                jobs[row.key] = error
        return jobs

    async def _make(
        self,
        row: Any,
        task: Any,
        sealed: Mapping[tuple[str, str], bytes] | None,
        saved: Sequence[JobFile],
        gang: _GangView | None,
    ) -> Job:
        spec = load(TaskSpec, task.spec)
        env = dict(spec.env)
        if task.array_index is not None:
            env["ISTHMUS_ARRAY_INDEX"] = str(task.array_index)
            env["ISTHMUS_ARRAY_ID"] = task.array_id
        if spec.preemptible:
            env["ISTHMUS_RESTART"] = str(task.restarts)
        if gang is not None:
            env["ISTHMUS_PART"] = str(task.part)
            env["ISTHMUS_PARTS"] = str(gang.parts)
            env["ISTHMUS_PEERS"] = ",".join(gang.sites)
        files = [] if sealed is None else await self._files(row, spec)
        kept = {file.path for file in saved}  # what it saved takes the place of what it was given
        return Job(
            key=row.key,
            fence=row.fence,
            task_id=row.task_id,
            name=task.name,
            pool=row.pool,
            account=row.account,
            demand=spec.demand,
            steps=spec.steps,
            env=env,
            secrets={} if sealed is None else self._open(task.project, spec.secrets, sealed),
            files=(*(file for file in files if file.path not in kept), *saved),
            outputs=await self._outputs(row, spec),
            signal=spec.checkpoint_signal if spec.preemptible else "",
            grace_seconds=spec.checkpoint_grace_seconds if spec.preemptible else 0,
            hold_seconds=0 if gang is None else gang.hold_seconds,
            volumes=spec.volumes,
            native=dict(spec.backend_parameters),
        )

    async def _outputs(self, row: Any, spec: TaskSpec) -> tuple[JobOutput, ...]:
        """What is fetched when an attempt has ended. Of one that failed nothing stays at the site."""
        if row.reason == EndReason.PREEMPTED or not any(output.stays for output in spec.outputs):
            return _outputs(row, spec)
        if self._data is None:
            raise Unavailable("This control plane keeps no datasets.")
        found = []
        for output in spec.outputs:
            if output.stays and row.reason and row.reason != EndReason.EXIT_ZERO:
                continue
            regions = await self._data.stay(row, output.data) if output.stays else ()
            found.append(
                JobOutput(
                    path=output.path,
                    directory=output.directory,
                    required=output.required,
                    stays=output.stays,
                    regions=regions,
                )
            )
        return tuple(found)

    def _open(self, project: str, wanted: Mapping[str, str], sealed: Mapping[tuple[str, str], bytes]) -> dict[str, str]:
        opened: dict[str, str] = {}
        for variable, name in wanted.items():
            content = sealed.get((project, name))
            if content is None:
                raise Refused(f"The secret {name!r} of project {project} is gone.", remedy="Store it again.")
            opened[variable] = self._unseal(content, f"secret:{project}/{name}").decode()
        return opened

    async def _files(self, row: Any, spec: TaskSpec) -> list[JobFile]:
        files: list[JobFile] = []
        if spec.workdir_manifest:
            files.extend(await self._directory(spec.workdir_manifest, ""))
        for item in spec.inputs:
            if item.content is not None:
                sha256 = await self._blobs.put_bytes(item.content.encode())
                files.append(JobFile(path=item.path, blob=sha256, executable=item.executable))
            elif item.blob and item.directory:
                files.extend(await self._directory(item.blob, item.path))
            elif item.blob:
                files.append(JobFile(path=item.path, blob=item.blob, executable=item.executable))
            elif item.data:
                if self._data is None:
                    raise Unavailable("This control plane keeps no datasets.")
                files.extend(await self._data.files(row, item))
            elif item.site_path:
                site, _, path = item.site_path.partition(":")
                if site != row.site:
                    raise Refused(f"{item.site_path} is not at site {row.site}.")
                files.append(JobFile(path=item.path, path_at_site=path, executable=item.executable))
            elif item.directory:
                files.extend([JobFile(path=p, url=u) for p, u in await self._objects(item.url, item.path)])
            else:
                files.append(JobFile(path=item.path, url=self._reachable(item.url), executable=item.executable))
        return files

    async def _objects(self, url: str, below: str) -> list[tuple[str, str]]:
        if not url.startswith("s3://"):
            raise Refused(f"{url} cannot be fetched as a directory.", remedy="Only s3:// and uploaded ones can.")
        self._reachable(f"{url.rstrip('/')}/x")
        assert self._presign is not None
        found = await self._presign.below(url)
        return [(str(PurePosixPath(below) / path), self._reachable(address)) for path, address in found]

    def _reachable(self, url: str) -> str:
        if not url.startswith("s3://"):
            return url
        if self._presign is None:
            raise Refused(
                "This control plane has no S3 account, so an s3:// address cannot be fetched.",
                remedy="Ask its operator to set one, or use an https:// address.",
            )
        return self._presign(url, "GET")

    async def _directory(self, sha256: str, below: str) -> list[JobFile]:
        manifest = self._manifests.get(sha256)
        if manifest is None:
            manifest = await read_manifest(self._blobs, sha256)
            if len(self._manifests) >= 64:
                self._manifests.pop(next(iter(self._manifests)))
            self._manifests[sha256] = manifest
        return [
            JobFile(
                path=str(PurePosixPath(below) / file.path) if below else file.path,
                blob=file.sha256,
                size_bytes=file.size_bytes,
                executable=file.executable,
            )
            for file in manifest.files
        ]


async def read_manifest(blobs: BlobStore, sha256: str) -> Manifest:
    """The directory manifest of that hash; Refused when the content is not one."""
    content = bytearray()
    async for chunk in blobs.read(sha256):
        content.extend(chunk)
        if len(content) > _MAX_MANIFEST_BYTES:
            raise Refused(f"{sha256} is too long for a manifest of a directory.")
    try:
        return Manifest.load(bytes(content))
    except Corrupt as error:
        raise Refused(error.cause, remedy=error.remedy) from error


def _load_tasks(connection: sa.Connection, ids: Sequence[str]) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    listed = sorted(set(ids))
    for start in range(0, len(listed), _CHUNK):
        query = tables.tasks.select().where(tables.tasks.c.id.in_(listed[start : start + _CHUNK]))
        rows.update((row.id, row) for row in connection.execute(query))
    return rows


def _outputs(row: Any, spec: TaskSpec) -> tuple[JobOutput, ...]:
    """What is fetched when an attempt has ended: its outputs, or what it saved when it made room."""
    if row.reason == EndReason.PREEMPTED:
        return tuple(
            JobOutput(path=path.rstrip("/"), directory=path.endswith("/"), required=False) for path in spec.checkpoint
        )
    return tuple(
        JobOutput(path=output.path, directory=output.directory, required=output.required) for output in spec.outputs
    )


def _load_checkpoints(connection: sa.Connection, ids: Sequence[str]) -> dict[str, list[JobFile]]:
    c = tables.checkpoints
    found: dict[str, list[JobFile]] = {}
    for start in range(0, len(ids), _CHUNK):
        for row in connection.execute(c.select().where(c.c.task_id.in_(ids[start : start + _CHUNK]))):
            file = JobFile(path=row.path, blob=row.sha256, size_bytes=row.size_bytes, executable=row.executable)
            found.setdefault(row.task_id, []).append(file)
    return found


def _load_gangs(connection: sa.Connection, ids: Sequence[str]) -> dict[str, _GangView]:
    g, t = tables.gangs.c, tables.tasks.c
    found: dict[str, _GangView] = {}
    for start in range(0, len(ids), _CHUNK):
        part = ids[start : start + _CHUNK]
        sites: dict[str, list[str]] = {}
        members = sa.select(t.gang, t.site).where(t.gang.in_(part)).where(sa.text("gang <> ''"))
        for row in connection.execute(members.order_by(t.gang, t.part)):
            sites.setdefault(row.gang, []).append(row.site)
        for row in connection.execute(sa.select(g.id, g.parts, g.hold_seconds).where(g.id.in_(part))):
            found[row.id] = _GangView(
                parts=row.parts, hold_seconds=row.hold_seconds, sites=tuple(sites.get(row.id, ()))
            )
    return found


def _load_secrets(connection: sa.Connection, projects: set[str]) -> dict[tuple[str, str], bytes]:
    query = tables.secrets.select().where(tables.secrets.c.project.in_(sorted(projects)))
    return {(row.project, row.name): row.sealed for row in connection.execute(query)}
