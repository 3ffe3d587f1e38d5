"""Datasets in tasks: names become versions when a task is handed in, versions become files when it is staged, and what it
leaves becomes versions again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import orjson
import sqlalchemy as sa

from isthmus.data.lifecycle import faded
from isthmus.domain.dataset import HOME, DatasetFile, DatasetManifest, DatasetRef, Labels, ReplicaState, Tier
from isthmus.domain.errors import Conflict, Invalid, IsthmusError, NotFound, Refused, Unavailable
from isthmus.domain.task import Constraints, Input, Output, TaskSpec
from isthmus.domain.units import show_size
from isthmus.engine import datasets as intents
from isthmus.engine.delivering import below
from isthmus.engine.evicting import missing_at
from isthmus.engine.home import Home
from isthmus.sites.port import CollectedFile, JobFile
from isthmus.store import datasets, tables
from isthmus.store.database import Database
from isthmus.store.documents import load

_COLD_SECONDS = 600.0  # after that the site itself brings a cold copy back for a task, and says why it cannot


class Arriving(Unavailable):
    """A dataset that a task needs is on its way; nothing failed."""

    code = "data_arriving"


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A dataset version that a task left: written in the transaction of the task's end."""

    project: str
    name: str
    manifest: DatasetManifest
    manifest_hash: str
    manifest_sha256: str
    place: str = HOME  # that holds it


def refs_of(spec: TaskSpec) -> list[DatasetRef]:
    """The datasets that a task takes in, as its inputs name them."""
    return [DatasetRef.parse(item.data) for item in spec.inputs if item.data]


def kept_by(spec: TaskSpec) -> list[str]:
    """The datasets (`PROJECT/NAME`) that a task makes and leaves at the site where it runs."""
    return sorted({output.data for output in spec.outputs if output.stays})


def resolve(connection: sa.Connection, specs: Sequence[TaskSpec], home_region: str) -> list[TaskSpec]:
    """The specifications with every dataset's version written out. Invalid for a dataset that is not there, for an output that may not come
    to where the service is, because of what it is made from or what its dataset is bound to, and for one that no site could keep."""
    found = []
    made = _Made(connection, home_region)
    known: dict[tuple[str, str, int], Any] = {}
    for index, spec in enumerate(specs):
        if not any(item.data for item in spec.inputs) and not any(item.data for item in spec.outputs):
            found.append(spec)
            continue
        inputs: list[Input] = []
        limits: list[Labels] = []
        for place, item in enumerate(spec.inputs):
            if not item.data:
                inputs.append(item)
                continue
            ref = DatasetRef.parse(item.data)
            key = (ref.project, ref.name, ref.version)
            if key not in known:
                known[key] = datasets.version(connection, ref)
            row = known[key]
            if row is None:
                raise Invalid(
                    f"tasks.{index}.inputs.{place}.data",
                    f"there is no dataset {ref}.",
                    remedy="`isthmus data ls` shows them.",
                )
            limits.append(intents.labels_of(row))
            inputs.append(replace(item, data=str(replace(ref, version=row.version))))
        mixed = {one.data for one in spec.outputs if one.stays} & {one.data for one in spec.outputs if not one.stays}
        if mixed - {""}:
            name = min(mixed - {""})
            raise Invalid(
                f"tasks.{index}.outputs",
                f"some parts of {name} stay at the site and others do not.",
                remedy="Write @site after all of them, or after none.",
            )
        for place, output in enumerate(spec.outputs):
            field = f"tasks.{index}.outputs.{place}" + (".data" if output.data else "")
            if output.stays:
                made.check_kept(field, output.data, limits, spec.constraints)
            else:
                made.check_sent(field, output, limits)
        found.append(replace(spec, inputs=tuple(inputs)))
    return found


class _Made:
    """Checks what tasks are to make; what it reads of datasets and sites it reads once."""

    def __init__(self, connection: sa.Connection, home_region: str) -> None:
        self._connection = connection
        self._home_region = home_region
        self._known: dict[str, Labels] = {}
        self._sites: dict[str, str] | None = None

    def check_sent(self, field: str, output: Output, limits: Sequence[Labels]) -> None:
        """Invalid for an output that may not come to where the service is."""
        for labels in limits:
            if not labels.allow(self._home_region):
                name = f"What {output.data or output.path} is made from"
                error = intents.may_not_leave(name, labels.regions, HOME, self._home_region)
                raise Invalid(field, error.cause, remedy="Leave it out, or start the service in that region.")
        if output.url and (bound := next((one.regions for one in limits if one.regions), ())):
            name = f"What {output.path} is made from"
            error = intents.may_not_leave(name, bound, output.url, "")
            raise Invalid(field, error.cause, remedy="Leave url out, and fetch it from the service.")
        own = self._labels(output.data) if output.data else Labels()
        if not own.allow(self._home_region):
            error = intents.may_not_leave(output.data, own.regions, HOME, self._home_region)
            raise Invalid(field, error.cause, remedy="Let it stay where it is made: write @site after it.")

    def check_kept(self, field: str, name: str, limits: Sequence[Labels], constraints: Constraints) -> None:
        """Invalid for an output that no site where the task may run could keep."""
        labels = narrowed(self._labels(name), [one.regions for one in limits])
        if self._sites is None:
            self._sites = datasets.keeping_sites(self._connection)
        allowed = [site for site, region in self._sites.items() if labels.allow(region)]
        if any(_permits(constraints, site, self._sites[site]) for site in allowed):
            return
        where = f" in {', '.join(labels.regions)}" if labels.regions else ""
        raise Invalid(
            field,
            f"{name} cannot stay where it is made: no site{where} where the task may run keeps data.",
            remedy=f"Let it come to the service, without @site{f', or let the task run at {_some(allowed)}' if allowed else ''}.",
        )

    def _labels(self, name: str) -> Labels:
        if name not in self._known:
            d, ref = tables.datasets.c, DatasetRef.parse(name)
            query = tables.datasets.select().where(d.project == ref.project, d.name == ref.name)
            row = self._connection.execute(query).first()
            self._known[name] = intents.labels_of(row) if row is not None else Labels()
        return self._known[name]


def _permits(limits: Constraints, site: str, region: str) -> bool:
    """Whether a task's constraints let it run at a site."""
    sites = site not in limits.sites_deny and (not limits.sites_allow or site in limits.sites_allow)
    return sites and region not in limits.regions_deny and (not limits.regions_allow or region in limits.regions_allow)


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(sorted(names)[:5])}{' or others' if len(names) > 5 else ''}"


def task_rows(task_id: str, spec: TaskSpec) -> list[dict[str, Any]]:
    """Rows of `task_data` for a task whose versions are written out."""
    keys = {(ref.project, ref.name, ref.version) for ref in refs_of(spec)}
    return [{"task_id": task_id, "project": p, "name": n, "version": v} for p, n, v in sorted(keys)]


class DataFiles:
    """Turns a task's datasets into files at its attempt's site: what the site keeps itself, or blobs of the service."""

    def __init__(self, database: Database, home: Home, home_region: str, now: Callable[[], float]) -> None:
        self._database = database
        self._home = home
        self._region = home_region
        self._now = now
        self.wake: Callable[[], None] = lambda: None

    async def files(self, attempt: Any, item: Input) -> list[JobFile]:
        """The files of one input. Arriving while the content is on its way, which is planned here if nobody did; Refused where
        it can never be."""
        ref = DatasetRef.parse(item.data)
        try:
            row, kept, tier = await self._database.read(_at_site, ref, attempt.site, self._region)
            manifest = await self._home.manifest(row.manifest, row.manifest_sha256)
            wanted = manifest.below(ref.path)
            if not wanted:
                raise Refused(
                    f"There is no {ref.path} in {ref.versioned}.", remedy=f"`isthmus data show {ref} --files`."
                )
            contents = {file.blake3 for _, file in wanted}
            if kept is not None:
                if kept != ReplicaState.WHOLE:
                    raise await self._bring(ref, attempt, attempt.site)
                if tier == Tier.COLD and self._now() - attempt.created_at < _COLD_SECONDS:
                    raise await self._comes_back(row, attempt)
                return [
                    JobFile(path=path, kept=file.blake3, size_bytes=file.size_bytes, executable=file.executable)
                    for path, file in _placed(item.path, wanted)
                ]
            held = await self._home.sha256_of(contents)
            if held.keys() != contents:
                raise await self._bring(ref, attempt, HOME)
        except NotFound as error:
            raise Refused(error.cause, remedy=error.remedy) from error
        except Conflict as error:
            if error.code == "no_whole_replica":
                raise Refused(error.cause, remedy=error.remedy) from error
            raise Unavailable(error.cause) from error
        return [
            JobFile(path=path, blob=held[file.blake3], size_bytes=file.size_bytes, executable=file.executable)
            for path, file in _placed(item.path, wanted)
        ]

    async def _comes_back(self, row: Any, attempt: Any) -> Arriving:
        """A cold copy at the site: it comes back when there is room for it."""
        name, own = f"{row.project}/{row.name}@{row.version}", (row.project, row.name, row.version)
        missing = await self._database.read(missing_at, self._now(), attempt.site, own, row.size_bytes)
        self.wake()
        if missing:
            said = f"waits for room there: {show_size(missing)} over the site's quota."
            return Arriving(f"{name} is cold at {attempt.site}, and {said}")
        return Arriving(f"{name} comes back from the cold store of {attempt.site}.")

    async def stay(self, attempt: Any, dataset: str) -> tuple[str, ...]:
        """The only regions that an output may lie in that stays at its attempt's site (empty: anywhere). Refused where the site keeps
        no data, or may not have it."""

        def read(connection: sa.Connection) -> tuple[str, ...]:
            if not intents.keeps_data(connection, attempt.site):
                raise Refused(
                    f"{attempt.site} keeps no data, so {dataset} cannot stay there.",
                    remedy="Let it come to the service: leave @site out.",
                    code="site_keeps_no_data",
                )
            ref = DatasetRef.parse(dataset)
            labels = labels_made(connection, attempt.task_id, ref.project, ref.name)
            region = intents.region_of(connection, attempt.site, self._region)
            if not labels.allow(region):
                raise intents.may_not_leave(dataset, labels.regions, attempt.site, region)
            return labels.regions

        return await self._database.read(read)

    async def _bring(self, ref: DatasetRef, attempt: Any, target: str) -> IsthmusError:
        """Arriving, with the transfer planned if it was not; what failed since the attempt began is Unavailable, so that its tries
        count and another site is taken in the end."""
        key = (ref.project, ref.name, ref.version, target)

        def look(connection: sa.Connection) -> tuple[Any | None, str | None]:
            return datasets.open_transfer(connection, *key), datasets.failed_transfer(
                connection, *key, attempt.created_at
            )

        def plan(connection: sa.Connection) -> str:
            return intents.plan_transfer(
                connection,
                now=self._now(),
                user=attempt.user,
                ref=ref,
                target=target,
                home_region=self._region,
                cached=True,
                task_id=attempt.task_id,
            )

        shown, failed = await self._database.read(look)
        if shown is None and failed is not None:
            return Unavailable(f"{ref.versioned} could not be brought to {target}: {failed}")
        if shown is None:
            await self._database.write(plan)
            self.wake()
            shown, _ = await self._database.read(look)
        if shown is None:
            return Arriving(f"{ref.versioned} has just arrived.")
        said = f": {shown.message}" if shown.message else "."
        source = "" if not shown.source else " from the service" if shown.source == HOME else f" from {shown.source}"
        done, whole = show_size(shown.done_bytes), show_size(shown.size_bytes)
        return Arriving(f"{ref.versioned} is on its way{source}, {done} of {whole}{said}")


def _at_site(connection: sa.Connection, ref: DatasetRef, site: str, home_region: str) -> tuple[Any, str | None, str]:
    """The version's row, the state of the copy at the site (empty when there is none, None when the site keeps no data), and its tier.
    Refused when the site is outside the version's regions."""
    row = intents.need_version(connection, ref)
    labels = intents.labels_of(row)
    region = intents.region_of(connection, site, home_region)
    if not labels.allow(region):
        raise intents.may_not_leave(ref.dataset, labels.regions, site, region)
    servers = tables.data_servers.c
    keeps = connection.execute(sa.select(servers.site).where(servers.site == site)).first() is not None
    if not keeps:
        return row, None, ""
    r = tables.replicas.c
    copy = connection.execute(
        sa.select(r.state, r.tier).where(
            r.project == ref.project, r.name == ref.name, r.version == ref.version, r.site == site
        )
    ).first()
    return row, copy.state if copy is not None else "", copy.tier if copy is not None else ""


def _placed(path: str, wanted: Sequence[tuple[str, DatasetFile]]) -> list[tuple[str, DatasetFile]]:
    if len(wanted) == 1 and wanted[0][0] == "":
        return [(path, wanted[0][1])]
    return [(str(PurePosixPath(path) / inner), file) for inner, file in wanted]


def count_use_of(connection: sa.Connection, now: float, site: str, task_ids: Sequence[str]) -> None:
    """Write that these tasks, staged at a site, took their datasets in: the copies that served them are warmer now."""
    x, r = tables.task_data.c, tables.replicas.c
    used: Counter[tuple[str, str, int]] = Counter()
    for start in range(0, len(task_ids), datasets.CHUNK):
        query = sa.select(x.project, x.name, x.version).where(x.task_id.in_(task_ids[start : start + datasets.CHUNK]))
        used.update((row.project, row.name, row.version) for row in connection.execute(query))
    for (project, name, number), count in sorted(used.items()):
        where = [r.project == project, r.name == name, r.version == number, r.state == ReplicaState.WHOLE.value]
        rows = connection.execute(tables.replicas.select().where(*where, r.site.in_([site, HOME])).with_for_update())
        copies = {row.site: row for row in rows}
        row = copies.get(site) or copies.get(HOME)
        if row is not None:
            heat = faded(row.heat, row.heat_at, now) + count
            values = {"heat": heat, "heat_at": now, "used_at": now, "uses": row.uses + count, "tier": "warm"}
            connection.execute(tables.replicas.update().where(*where, r.site == row.site).values(**values))


async def made_by(home: Home, spec_text: str, files: Sequence[CollectedFile], site: str) -> list[Made]:
    """The dataset versions that a task's collected files make, by its outputs with `data`. Of a dataset all outputs stay, or none."""
    if '"data"' not in spec_text:
        return []
    spec = load(TaskSpec, spec_text)
    parts: dict[str, dict[str, CollectedFile]] = {}
    for output in spec.outputs:
        if not output.data:
            continue
        own = parts.setdefault(output.data, {})
        for file in files:
            inner = below(output, file.path)
            if inner is not None:
                own[inner or PurePosixPath(file.path).name] = file
    found = []
    for name, members in parts.items():
        stays = any(file.kept for file in members.values())
        if stays and not all(file.kept for file in members.values()):
            raise Refused(
                f"Of {name} some outputs stay at the site and others do not.", remedy="Let all stay, or none."
            )
        hashes = {file.sha256: file.kept for file in members.values()}
        if not stays:
            hashes = await home.blake3_of({file.sha256: file.size_bytes for file in members.values()})
        manifest = DatasetManifest(
            files=tuple(
                DatasetFile(
                    path=path, size_bytes=file.size_bytes, blake3=hashes[file.sha256], executable=file.executable
                )
                for path, file in sorted(members.items())
            )
        )
        manifest_hash, sha256 = await home.keep_manifest(manifest)
        ref = DatasetRef.parse(name)
        found.append(
            Made(
                project=ref.project,
                name=ref.name,
                manifest=manifest,
                manifest_hash=manifest_hash,
                manifest_sha256=sha256,
                place=site if stays else HOME,
            )
        )
    return found


def check_made(connection: sa.Connection, task_id: str, made: Made, home_region: str) -> Labels:
    """The labels of a version that a task left. Refused when they do not let it be where it is."""
    labels = labels_made(connection, task_id, made.project, made.name)
    region = intents.region_of(connection, made.place, home_region)
    if not labels.allow(region):
        raise intents.may_not_leave(f"{made.project}/{made.name}", labels.regions, made.place, region)
    return labels


def labels_made(connection: sa.Connection, task_id: str, project: str, name: str) -> Labels:
    """The labels of what a task makes: its dataset's, narrowed by the regions of what it is made from."""
    x, d = tables.task_data.c, tables.datasets.c
    regions = (
        sa.select(d.regions)
        .join(tables.task_data, sa.and_(x.project == d.project, x.name == d.name))
        .where(x.task_id == task_id)
    )
    row = connection.execute(tables.datasets.select().where(d.project == project, d.name == name)).first()
    known = intents.labels_of(row) if row is not None else Labels()
    return narrowed(known, [tuple(orjson.loads(text)) for text in connection.execute(regions).scalars()])


def store_made(connection: sa.Connection, now: float, user: str, task_id: str, made: Made, home_region: str) -> None:
    """Write a version that a task left, in the transaction of the task's end."""
    intents.add_version(
        connection,
        now=now,
        user=user,
        project=made.project,
        name=made.name,
        manifest=made.manifest,
        manifest_hash=made.manifest_hash,
        manifest_sha256=made.manifest_sha256,
        place=made.place,
        home_region=home_region,
        labels=check_made(connection, task_id, made, home_region),
        task_id=task_id,
    )


def narrowed(labels: Labels, regions: Sequence[tuple[str, ...]]) -> Labels:
    """Labels that allow only what they and all of the inputs' regions allow."""
    for own in regions:
        if not own:
            continue
        both = set(own) & set(labels.regions) if labels.regions else set(own)
        labels = replace(labels, regions=tuple(sorted(both)) or ("nowhere",))
    return labels
