"""The answers about datasets and transfers as types, for the OpenAPI document and its readers."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from isthmus.api.answers import Hash, Id, _Answer
from isthmus.domain.dataset import ReplicaState, Tier, TransferState, WayTaken
from isthmus.domain.lifecycle import TaskState


class DatasetRow(_Answer):
    """A dataset in a list: its newest version, and the places that hold all of that."""

    project: str
    name: str
    version: int
    owner: str
    sensitivity: str
    regions: list[str]
    files: int
    size_bytes: int
    places: list[str]
    created_at: datetime
    updated_at: datetime


class DatasetVersion(_Answer):
    """One version; `made_by` is the task that made it, if one did."""

    version: int
    files: int
    size_bytes: int
    created_by: str
    made_by: str
    created_at: datetime


class Replica(_Answer):
    """One copy; `@service` is the service itself. `cached`: it came for a task's sake and goes when the site needs room.
    `in_place`: it is somebody's own files, where they lie."""

    site: str
    state: ReplicaState
    tier: Tier
    pinned: bool
    cached: bool
    in_place: bool
    size_bytes: int
    uses: int
    heat: float
    used_at: datetime | None
    whole_at: datetime | None


class Dataset(_Answer):
    """A version of a dataset with its copies and its origin; `manifest` is the BLAKE3 that names its content."""

    project: str
    name: str
    version: int
    owner: str
    sensitivity: str
    regions: list[str]
    files: int
    size_bytes: int
    manifest: Hash
    manifest_sha256: Hash
    created_by: str
    created_at: datetime
    made_by: str
    made_from: list[str]
    versions: list[DatasetVersion]
    replicas: list[Replica]


class DatasetUse(_Answer):
    """A task that read versions of a dataset or made one; `made` names everything that it made."""

    task_id: Id
    name: str
    project: str
    user: str
    state: TaskState
    site: str
    read: list[int]
    made: list[str]
    created_at: datetime
    ended_at: datetime | None


class DatasetFile(_Answer):
    """A file of a version; `sha256` is empty where the service itself does not hold it."""

    path: str
    size_bytes: int
    blake3: Hash
    sha256: str
    executable: bool


class Transfer(_Answer):
    """One movement of a version to a place. `through` is `direct` from site to site, `relay` (through that of the site `relay`), or `service`;
    `multipath`: it goes over MPTCP. `by`: when it was promised to be over; `late`: it was not, or is not expected to be. `ways`: those that it took in fact, known at its end; `links` the path that it was promised."""

    id: Id
    project: str
    dataset: str
    version: int
    source: str
    target: str
    state: TransferState
    through: str
    relay: str
    multipath: bool
    ways: list[WayTaken]
    links: list[str]
    stretches: list[dict[str, Any]]
    size_bytes: int
    done_bytes: int
    bytes_per_second: float
    ends_at: datetime | None
    by: datetime | None
    late: bool
    task_id: str
    created_by: str
    message: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


class Fetched(_Answer):
    """The transfer that was planned or is on its way; null when nothing needs to move."""

    transfer: Transfer | None


class Copied(Fetched):
    """The transfer to the first place, and those to the others in their order; null for a place that has it."""

    others: list[Transfer | None]


class Registered(_Answer):
    """How far a site is with hashing files where they lie, and the dataset at the end; null until then."""

    dataset: Dataset | None
    done_bytes: int
    size_bytes: int
    bytes_per_second: float
    seconds_left: float | None


class CopyCheck(_Answer):
    """How far the check of one copy is. `wrong`: the first paths whose content is missing or damaged, of `wrong_files`; `transfer`: what
    brings the copy again, empty where nothing does."""

    site: str
    state: Literal["reading", "good", "spoiled", "failed"]
    done_bytes: int
    size_bytes: int
    bytes_per_second: float
    seconds_left: float | None
    wrong: list[str]
    wrong_files: int
    message: str
    transfer: str


class Checks(_Answer):
    """The checks of a version's copies."""

    items: list[CopyCheck]
