"""Datasets and transfers as steps: put a local directory, fetch one, copies, pins, progress; nothing here does I/O itself."""

from __future__ import annotations

import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from isthmus.client.operations import PAGE, every
from isthmus.client.records import Output, Page, _Shown, read
from isthmus.client.taskfile import moment
from isthmus.client.transfer import Progress, download, local_path, quiet, upload
from isthmus.client.wire import Pause, Steps, Together, Work, request, send
from isthmus.client.workdir import Directory, hash_bytes, hash_file, scan
from isthmus.domain.dataset import HOME, DatasetRef, TransferState, WayTaken
from isthmus.domain.errors import Conflict, NotFound
from isthmus.domain.manifest import Manifest, ManifestFile

HASHING_SECONDS = 3600.0  # the service reads all of a new version once
_LOOK_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True, repr=False)
class Replica(_Shown):
    """One copy of a version; `@service` is the service itself."""

    site: str
    state: str = ""
    tier: str = ""
    pinned: bool = False
    cached: bool = False
    in_place: bool = False
    size_bytes: int = 0
    uses: int = 0
    heat: float = 0.0
    used_at: datetime | None = None
    whole_at: datetime | None = None


@dataclass(frozen=True, kw_only=True, repr=False)
class Dataset(_Shown):
    """A version of a dataset. In a list, `places` are those that hold all of it; alone, `replicas` has more of them."""

    project: str
    name: str
    version: int = 0
    owner: str = ""
    sensitivity: str = ""
    regions: list[str] = field(default_factory=list)
    files: int = 0
    size_bytes: int = 0
    places: list[str] = field(default_factory=list)
    manifest: str = ""
    created_by: str = ""
    created_at: datetime | None = None
    updated_at: datetime | None = None
    made_by: str = ""
    made_from: list[str] = field(default_factory=list)
    versions: list[dict[str, Any]] = field(default_factory=list, repr=False)
    replicas: list[Replica] = field(default_factory=list)

    @property
    def ref(self) -> DatasetRef:
        """Its name with its version."""
        return DatasetRef(project=self.project, name=self.name, version=self.version)


@dataclass(frozen=True, kw_only=True, repr=False)
class DatasetFile(_Shown):
    """A file of a version; `sha256` is empty where the service itself does not hold it."""

    path: str
    size_bytes: int = 0
    blake3: str = ""
    sha256: str = ""
    executable: bool = False


@dataclass(frozen=True, kw_only=True, repr=False)
class Transfer(_Shown):
    """One movement of a version to a place."""

    id: str
    project: str = ""
    dataset: str = ""
    version: int = 0
    source: str = ""
    target: str = ""
    state: str = ""
    through: str = ""
    relay: str = ""
    multipath: bool = False
    ways: list[WayTaken] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    stretches: list[dict[str, Any]] = field(default_factory=list, repr=False)
    size_bytes: int = 0
    done_bytes: int = 0
    bytes_per_second: float = 0.0
    ends_at: datetime | None = None
    by: datetime | None = None
    late: bool = False
    task_id: str = ""
    created_by: str = ""
    message: str = ""
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def ended(self) -> bool:
        """Whether it moves no more."""
        return self.state in (TransferState.DONE, TransferState.FAILED, TransferState.CANCELLED)


@dataclass(frozen=True, kw_only=True, repr=False)
class CopyCheck(_Shown):
    """The check of one copy: `state` is reading, good, spoiled or failed; `wrong` names the first of `wrong_files` paths; `transfer`
    brings a spoiled copy again."""

    site: str
    state: str = ""
    done_bytes: int = 0
    size_bytes: int = 0
    bytes_per_second: float = 0.0
    seconds_left: float | None = None
    wrong: list[str] = field(default_factory=list)
    wrong_files: int = 0
    message: str = ""
    transfer: str = ""


Watch = Callable[[Transfer], None]


def unwatched(_transfer: Transfer) -> None:
    """Report nothing."""


def _as_transfer(row: Any) -> Transfer:
    ways = [read(WayTaken, {**way, "path": tuple(way.get("path") or ())}) for way in row.get("ways") or ()]
    return read(Transfer, {**row, "ways": ways})


def _dataset(row: dict[str, Any]) -> Dataset:
    return read(Dataset, {**row, "replicas": [read(Replica, copy) for copy in row.get("replicas") or ()]})


def local_directory(path: Path) -> Directory:
    """What a local file or directory holds, as a directory; a file is a directory with it alone. Blocking."""
    if path.is_dir():
        return scan(path)
    content = hash_file(path)
    executable = bool(path.stat().st_mode & stat.S_IXUSR)
    file = ManifestFile(path=path.name, sha256=content.sha256, size_bytes=content.size_bytes, executable=executable)
    manifest = Manifest(files=(file,))
    own = hash_bytes(manifest.dump())
    return Directory(own.sha256, manifest, (content, own))


def put(
    path: Path,
    ref: DatasetRef,
    *,
    sensitivity: str | None = None,
    regions: Sequence[str] | None = None,
    pinned: bool = False,
    progress: Progress = quiet,
    say: Callable[[str], None] = lambda _: None,
) -> Steps[Dataset]:
    """Make a local file or directory the newest version of a dataset: what the service has already is not sent."""
    found: Directory = yield Work(lambda: local_directory(path))
    for note in found.notes:
        say(note)
    if not found.manifest.files:
        raise NotFound(
            f"{str(path)!r} holds no file.", remedy="Name a file or a directory with files.", code="no_files"
        )
    yield from upload(found.contents, project=ref.project, progress=progress)
    body: dict[str, Any] = {"name": ref.name, "directory": found.manifest_sha256, "pinned": pinned}
    if sensitivity is not None:
        body["sensitivity"] = sensitivity
    if regions is not None:
        body["regions"] = list(regions)
    call = request(
        "POST",
        "/v1/datasets",
        params={"project": ref.project},
        json=body,
        repeatable=True,
        timeout_seconds=HASHING_SECONDS,
    )
    return _dataset((yield from send(call)).document())


def register(
    site: str,
    path: str,
    ref: DatasetRef,
    *,
    sensitivity: str | None = None,
    regions: Sequence[str] | None = None,
    pinned: bool = False,
    progress: Callable[[int, int, float | None], None] = lambda _done, _whole, _left: None,
) -> Steps[Dataset]:
    """Make files that lie at a site the newest version of a dataset, without a copy; the site hashes them. `progress` is told bytes,
    all bytes and seconds that are left (None: not known)."""
    body: dict[str, Any] = {"name": ref.name, "site": site, "path": path, "pinned": pinned}
    if sensitivity is not None:
        body["sensitivity"] = sensitivity
    if regions is not None:
        body["regions"] = list(regions)
    pause = 0.2
    while True:
        call = request(
            "POST",
            "/v1/datasets:register",
            params={"project": ref.project},
            json=body,
            repeatable=True,
            timeout_seconds=120.0,
        )
        answer = (yield from send(call)).document()
        if answer.get("dataset"):
            return _dataset(answer["dataset"])
        progress(int(answer["done_bytes"]), int(answer["size_bytes"]), answer.get("seconds_left"))
        yield Pause(pause)
        pause = min(2.0, pause * 1.5)


def verify(
    ref: DatasetRef, *, site: str = "", watch: Callable[[list[CopyCheck]], None] = lambda _: None
) -> Steps[list[CopyCheck]]:
    """Have every whole copy of a version (or the one at a site) read and compared with its hashes; waits until all are."""
    found: dict[str, CopyCheck] = {}
    pause = 0.2
    todo = [site]
    while todo:
        for place in todo:
            body = {"site": place, "version": ref.version}
            call = request("POST", f"{_path(ref)}:verify", json=body, repeatable=True, timeout_seconds=120.0)
            for row in (yield from send(call)).document()["items"]:
                found[row["site"]] = read(CopyCheck, row)
        watch(list(found.values()))
        todo = [one.site for one in found.values() if one.state == "reading"]
        if todo:
            yield Pause(pause)
            pause = min(2.0, pause * 1.5)
    return [found[place] for place in sorted(found)]


def datasets(*, project: str, limit: int = PAGE, cursor: str = "") -> Steps[Page[Dataset]]:
    """A page of a project's datasets, by name."""
    params = {"project": project, "limit": limit, "cursor": cursor}
    answer = yield from send(request("GET", "/v1/datasets", params=params))
    return Page([_dataset(row) for row in answer.items()], answer.document().get("next_cursor"))


def all_datasets(*, project: str) -> Steps[list[Dataset]]:
    """All datasets of a project."""
    return (yield from every("/v1/datasets", _dataset, {"project": project}))


def dataset(ref: DatasetRef) -> Steps[Dataset]:
    """One version of a dataset (0: the newest), with its copies."""
    call = request("GET", _path(ref), params={"version": ref.version})
    return _dataset((yield from send(call)).document())


def files(ref: DatasetRef) -> Steps[list[DatasetFile]]:
    """The files of a version, by path; of those below `ref.path` only."""
    found = yield from every(f"{_path(ref)}/files", lambda row: read(DatasetFile, row), {"version": ref.version})
    if not ref.path:
        return found
    below = ref.path.rstrip("/") + "/"
    named = [file for file in found if file.path == ref.path or file.path.startswith(below)]
    if not named:
        raise NotFound(
            f"There is no {ref.path} in {ref.dataset}.", remedy=f"`isthmus data show {ref.dataset} --files`."
        )
    return named


def copy(
    ref: DatasetRef,
    site: str,
    *,
    pinned: bool = False,
    bytes_per_second: float = 0.0,
    by: datetime | str | None = None,
) -> Steps[Transfer | None]:
    """Have a copy at a site as well; the transfer that brings it, None when it is there. It takes at most `bytes_per_second`. `by`: see
    `copies`."""
    [transfer] = yield from copies(ref, [site], pinned=pinned, bytes_per_second=bytes_per_second, by=by)
    return transfer


def copies(
    ref: DatasetRef,
    sites: Sequence[str],
    *,
    pinned: bool = False,
    bytes_per_second: float = 0.0,
    by: datetime | str | None = None,
) -> Steps[list[Transfer | None]]:
    """Have copies at all of several sites, or an error and none; the transfer to each, None where it is already.

    `by` (a time, text like 2026-12-01T18:00, or +6h) is when they have to be whole there: promised, or Refused with code `misses_deadline` and
    the soonest end that can be."""
    body: dict[str, Any] = {"site": sites[0], "version": ref.version, "pinned": pinned}
    if len(sites) > 1:
        body["others"] = list(sites[1:])
    if bytes_per_second:
        body["bytes_per_second"] = bytes_per_second
    if by is not None:
        body["by"] = moment(by, "by")
    call = request("POST", f"{_path(ref)}:copy", json=body, repeatable=True)
    document = (yield from send(call)).document()
    return [_as_transfer(row) if row else None for row in (document["transfer"], *document["others"])]


def _transfer(document: dict[str, Any]) -> Transfer | None:
    return _as_transfer(document["transfer"]) if document.get("transfer") else None


def get(ref: DatasetRef, directory: Path, *, progress: Progress = quiet, watch: Watch = unwatched) -> Steps[list[Path]]:
    """Fetch a version, or what `ref.path` names in it, below a directory here: first to the service where it is not there, then
    from it. Goes on where an earlier try stopped; every file is checked by hash."""
    if not ref.version:
        newest = yield from dataset(ref)
        ref = replace(ref, version=newest.version)
    call = request("POST", f"{_path(ref)}:fetch", json={"site": HOME, "version": ref.version}, repeatable=True)
    transfer = _transfer((yield from send(call)).document())
    if transfer is not None:
        yield from wait(transfer, watch=watch)
        yield from send(call)
    wanted = yield from files(ref)
    whole = sum(file.size_bytes for file in wanted)
    each = [0] * len(wanted)

    def told(index: int) -> Progress:
        def tell(done: int, _size: int) -> None:
            each[index] = done
            progress(sum(each), whole)

        return tell

    steps = []
    for index, file in enumerate(wanted):
        output = Output(path=file.path, sha256=file.sha256, size_bytes=file.size_bytes, executable=file.executable)
        steps.append(download(output, local_path(file.path, directory), project=ref.project, progress=told(index)))
    paths: list[Path] = yield Together(tuple(steps))
    return paths


def wait(transfer: Transfer, *, watch: Watch = unwatched) -> Steps[Transfer]:
    """Wait until a transfer is over; Conflict when it did not bring the version."""
    pause = 0.1
    while True:
        watch(transfer)
        if transfer.ended:
            break
        yield Pause(pause)
        pause = min(_LOOK_SECONDS, pause * 1.5)
        transfer = yield from one_transfer(transfer.id, project=transfer.project)
    if transfer.state != TransferState.DONE:
        said = "failed" if transfer.state == TransferState.FAILED else "was cancelled"
        raise Conflict(
            f"The transfer {said}: {transfer.message or 'nobody said why.'}",
            remedy=f"`isthmus data show {transfer.project}/{transfer.dataset}` shows its copies.",
            code=f"transfer_{transfer.state}",
        )
    return transfer


def one_transfer(transfer_id: str, *, project: str) -> Steps[Transfer]:
    """A transfer as it is now."""
    call = request("GET", f"/v1/transfers/{transfer_id}", params={"project": project})
    return _as_transfer((yield from send(call)).document())


def transfers(
    *, project: str, dataset: str = "", open_only: bool = False, limit: int = 100, cursor: str = ""
) -> Steps[Page[Transfer]]:
    """A page of transfers of a project's datasets, newest first."""
    params = {"project": project, "dataset": dataset, "open": open_only, "limit": limit, "cursor": cursor}
    answer = yield from send(request("GET", "/v1/transfers", params=params))
    return Page([_as_transfer(row) for row in answer.items()], answer.document().get("next_cursor"))


def cancel_transfer(transfer_id: str, *, project: str) -> Steps[Transfer]:
    """End a transfer."""
    call = request("POST", f"/v1/transfers/{transfer_id}:cancel", params={"project": project}, repeatable=True)
    return _as_transfer((yield from send(call)).document())


def pin(ref: DatasetRef, *, site: str = "", pinned: bool = True) -> Steps[Dataset]:
    """Keep copies from eviction, or let them go again."""
    verb = "pin" if pinned else "unpin"
    call = request("POST", f"{_path(ref)}:{verb}", json={"site": site, "version": ref.version}, repeatable=True)
    return _dataset((yield from send(call)).document())


def label(ref: DatasetRef, *, sensitivity: str | None = None, regions: Sequence[str] | None = None) -> Steps[Dataset]:
    """Set labels; what is None stays as it is."""
    body: dict[str, Any] = {}
    if sensitivity is not None:
        body["sensitivity"] = sensitivity
    if regions is not None:
        body["regions"] = list(regions)
    return _dataset((yield from send(request("PATCH", _path(ref), json=body, repeatable=True))).document())


def remove(ref: DatasetRef, *, site: str = "") -> Steps[None]:
    """Let the copy at a site go; without one, forget the version (0: all of the dataset)."""
    yield from send(request("DELETE", _path(ref), params={"version": ref.version, "site": site}, repeatable=True))


def _path(ref: DatasetRef) -> str:
    return f"/v1/datasets/{ref.project}/{ref.name}"
