"""What must hold before tasks are stored: room for them, and the content, the secrets and the sites that they name.

Each check takes an open connection, reads, and raises Invalid that names the field, or Busy.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import sqlalchemy as sa

from isthmus.domain.errors import Busy, Invalid
from isthmus.domain.lifecycle import TASK_ENDED, TaskState
from isthmus.domain.site import SiteState
from isthmus.domain.task import TaskSpec
from isthmus.store import tables

_CHUNK = 500  # values in one IN list


def chunks(values: Iterable[str]) -> Iterable[list[str]]:
    """Parts of a list, each short enough for one IN of SQL."""
    listed = list(values)
    for start in range(0, len(listed), _CHUNK):
        yield listed[start : start + _CHUNK]


def check_room(connection: sa.Connection, project: str, more: int, max_waiting: int) -> None:
    """Busy when the project would have more unfinished tasks than it may."""
    alive = connection.execute(
        sa.select(sa.func.count())
        .select_from(tables.tasks)
        .where(tables.tasks.c.project == project)
        .where(tables.tasks.c.state.in_([s.value for s in TaskState if s not in TASK_ENDED]))
    ).scalar_one()
    if alive + more > max_waiting:
        raise Busy(
            f"Project {project} has {alive} unfinished tasks; {more} more would pass the limit of {max_waiting}.",
            remedy="Wait until some have ended.",
            retry_after_seconds=30.0,
        )


def check_blobs(
    connection: sa.Connection,
    project: str,
    specs: Sequence[TaskSpec],
    manifests: Mapping[str, frozenset[str]],
) -> None:
    """Every content that a task names must have been uploaded to the project."""
    wanted: dict[str, str] = {}
    for index, spec in enumerate(specs):
        for field, sha256 in _contents(spec, manifests):
            wanted.setdefault(sha256, f"tasks.{index}.{field}")
    known = _sizes(connection, project, wanted)
    for sha256, field in wanted.items():
        if sha256 not in known:
            raise Invalid(
                field, f"content {sha256} is not there.", remedy=f"Upload it to project {project} before submitting."
            )


def _contents(spec: TaskSpec, manifests: Mapping[str, frozenset[str]]) -> Iterator[tuple[str, str]]:
    """Field and hash of every content that a task takes from the store, manifests and what they name included."""
    if spec.workdir_manifest:
        for sha256 in (spec.workdir_manifest, *manifests.get(spec.workdir_manifest, ())):
            yield "workdir_manifest", sha256
    for place, item in enumerate(spec.inputs):
        if item.blob:
            inner = manifests.get(item.blob, frozenset()) if item.directory else frozenset()
            for sha256 in (item.blob, *inner):
                yield f"inputs.{place}.blob", sha256


def _sizes(connection: sa.Connection, project: str, hashes: Iterable[str]) -> dict[str, int]:
    """Bytes of each content that the project has."""
    b = tables.blobs.c
    found: dict[str, int] = {}
    for part in chunks(hashes):
        query = sa.select(b.sha256, b.size_bytes).where(b.project == project).where(b.sha256.in_(part))
        found.update((row.sha256, row.size_bytes) for row in connection.execute(query))
    return found


def input_bytes(
    connection: sa.Connection, project: str, specs: Sequence[TaskSpec], manifests: Mapping[str, frozenset[str]]
) -> list[int]:
    """For each task the bytes that the service itself brings to the site: uploads, each content once. What sites fetch from
    an address, and what is not there yet, does not count."""
    contents = [{sha256 for _, sha256 in _contents(spec, manifests)} for spec in specs]
    sizes = _sizes(connection, project, set().union(*contents))
    inline = [sum(len(item.content.encode()) for item in spec.inputs if item.content) for spec in specs]
    return [sum(sizes.get(sha256, 0) for sha256 in one) + text for one, text in zip(contents, inline, strict=True)]


def check_secrets(connection: sa.Connection, project: str, specs: Sequence[TaskSpec]) -> None:
    """Every secret that a task names must be stored in the project."""
    wanted = {name: index for index, spec in enumerate(specs) for name in spec.secrets.values()}
    if wanted:
        query = sa.select(tables.secrets.c.name).where(tables.secrets.c.project == project)
        known = set(connection.execute(query).scalars())
        for name, index in wanted.items():
            if name not in known:
                raise Invalid(
                    f"tasks.{index}.secrets",
                    f"project {project} has no secret {name!r}.",
                    remedy=f"Store it with `isthmus secret set {name}`.",
                )


def check_sites(connection: sa.Connection, specs: Sequence[TaskSpec]) -> None:
    """Every site that a task names must be joined; one that has left may still be denied."""
    wanted: dict[str, tuple[int, str]] = {}
    for index, spec in enumerate(specs):
        paths = [item.site_path.partition(":")[0] for item in spec.inputs if item.site_path]
        for field, names in (
            ("constraints.sites_allow", spec.constraints.sites_allow),
            ("constraints.sites_deny", spec.constraints.sites_deny),
            ("inputs.site_path", paths),
        ):
            for name in names:
                if field != "constraints.sites_deny" or name not in wanted:
                    wanted[name] = (index, field)
    if not wanted:
        return
    known = {row.name: row.state for row in connection.execute(sa.select(tables.sites.c.name, tables.sites.c.state))}
    joined = sorted(name for name, state in known.items() if state != SiteState.LEFT.value)
    for name, (index, field) in wanted.items():
        if name in joined or (name in known and field == "constraints.sites_deny"):
            continue
        near = difflib.get_close_matches(name, joined, n=1)
        listed = ", ".join(joined[:20]) or "none"
        raise Invalid(
            f"tasks.{index}.{field}",
            f"no site {name!r} is joined.",
            remedy=f"Did you mean {near[0]}?" if near else f"Sites: {listed}.",
        )
