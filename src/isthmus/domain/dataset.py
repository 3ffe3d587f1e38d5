"""Datasets: named content in versions, where copies of it lie, and how they move.

A version never changes: its manifest lists files with sizes and BLAKE3 hashes and is itself named by the BLAKE3 of its
canonical JSON. `labels.regions` are the regions that no copy may leave; without any a copy may be anywhere.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Final

from isthmus.domain.errors import Corrupt, Invalid
from isthmus.domain.ids import is_name

HOME: Final = "@service"  # where the service itself keeps content; no site can have this name
MAX_FILES: Final = 250_000
_BLAKE3 = re.compile(r"[0-9a-f]{64}")
_REF = re.compile(r"(?:(?P<project>[^/@:]+)/)?(?P<name>[^/@:]+)(?:@(?P<version>[0-9]{1,9}))?(?::(?P<path>.*))?")


def is_blake3(text: str) -> bool:
    """Whether the text has the form of a BLAKE3 hash in lower-case hexadecimal."""
    return _BLAKE3.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetRef:
    """A dataset as people write it: `[PROJECT/]NAME[@VERSION][:PATH]`; version 0 is the newest, no path is all of it."""

    project: str
    name: str
    version: int = 0
    path: str = ""

    def __post_init__(self) -> None:
        for what, value in (("project", self.project), ("name", self.name)):
            if not is_name(value):
                raise Invalid(
                    "data", f"{value[:80]!r} is not a {what}.", remedy="Use a-z, 0-9, . _ - as in climate/era5."
                )
        if self.path:
            check_path(self.path.rstrip("/") or self.path)

    @classmethod
    def parse(cls, text: str, project: str = "") -> DatasetRef:
        """Read `text`; `project` is the one meant where the text names none. Invalid where it is no dataset's name."""
        match = _REF.fullmatch(text)
        if match is None or not (match["project"] or project):
            raise Invalid(
                "data",
                f"{text[:120]!r} is not a dataset.",
                remedy="Write PROJECT/NAME, PROJECT/NAME@VERSION or PROJECT/NAME:PATH.",
            )
        return cls(
            project=match["project"] or project,
            name=match["name"],
            version=int(match["version"] or 0),
            path=match["path"] or "",
        )

    @property
    def dataset(self) -> str:
        """`PROJECT/NAME`."""
        return f"{self.project}/{self.name}"

    @property
    def versioned(self) -> str:
        """`PROJECT/NAME@VERSION`, the name of one content."""
        return f"{self.project}/{self.name}@{self.version}"

    def __str__(self) -> str:
        version = f"@{self.version}" if self.version else ""
        return f"{self.dataset}{version}{f':{self.path}' if self.path else ''}"


AT_SITE = "@site"
"""In place of a region: wherever the site is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """What a dataset's owner says of it: `sensitivity` in a word of their own, `regions` that no copy of it may leave."""

    sensitivity: str = ""
    regions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.sensitivity) > 63:
            raise Invalid("sensitivity", "is too long.", remedy="Use at most 63 characters.")
        for region in self.regions:
            if not is_name(region):
                raise Invalid("regions", f"{region[:80]!r} is not a region.", remedy="Use a-z, 0-9, . _ - as sites do.")

    def allow(self, region: str) -> bool:
        """Whether a copy may be in this region. A place without a region is in none."""
        return not self.regions or region in self.regions


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetFile:
    """One file of a version; `path` is relative, with `/`, and stays inside."""

    path: str
    size_bytes: int
    blake3: str
    executable: bool = False

    def __post_init__(self) -> None:
        check_path(self.path)
        if not is_blake3(self.blake3):
            raise Invalid("blake3", f"{self.blake3[:80]!r} is not a BLAKE3 hash.", remedy="Give 64 hexadecimal digits.")
        if self.size_bytes < 0:
            raise Invalid("size_bytes", f"is {self.size_bytes}.", remedy="It must be 0 or more.")


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetManifest:
    """All files of a version, each path once."""

    files: tuple[DatasetFile, ...]

    def __post_init__(self) -> None:
        if len(self.files) > MAX_FILES:
            raise Invalid(
                "files", f"{len(self.files)} are too many.", remedy=f"At most {MAX_FILES} are kept; pack them."
            )
        if len({file.path for file in self.files}) != len(self.files):
            raise Invalid("files", "a path is named twice.", remedy="Name each path once.")

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.size_bytes for file in self.files)

    @property
    def contents(self) -> dict[str, int]:
        """Size by hash, each content once."""
        return {file.blake3: file.size_bytes for file in self.files}

    def below(self, path: str) -> list[tuple[str, DatasetFile]]:
        """What `path` names: the file itself under the name "", or each file below the directory under its path in there.
        No path is the whole; nothing where the version has no such path."""
        if not path:
            return [(file.path, file) for file in self.files]
        for file in self.files:
            if file.path == path:
                return [("", file)]
        prefix = path.rstrip("/") + "/"
        return [(file.path.removeprefix(prefix), file) for file in self.files if file.path.startswith(prefix)]

    def dump(self) -> bytes:
        """The canonical bytes; their BLAKE3 names the manifest."""
        rows = [
            {"blake3": file.blake3, "path": file.path, "size_bytes": file.size_bytes}
            | ({"executable": True} if file.executable else {})
            for file in sorted(self.files, key=lambda file: file.path)
        ]
        return json.dumps({"files": rows}, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    @classmethod
    def load(cls, content: bytes) -> DatasetManifest:
        """Read a manifest; Corrupt when the content is not one."""
        try:
            return cls(
                files=tuple(
                    DatasetFile(
                        path=str(row["path"]),
                        size_bytes=int(row["size_bytes"]),
                        blake3=str(row["blake3"]),
                        executable=bool(row.get("executable", False)),
                    )
                    for row in json.loads(content)["files"]
                )
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Corrupt(f"This is not the manifest of a dataset: {error}.", remedy="Fetch it again.") from error


def check_path(path: str) -> None:
    """Invalid for a path that does not stay inside its dataset."""
    pure = PurePosixPath(path)
    if not path or pure.is_absolute() or ".." in pure.parts or "\0" in path or "\n" in path:
        raise Invalid("path", f"{path[:200]!r} does not stay in the dataset.", remedy="Give a relative path.")


class ReplicaState(StrEnum):
    """Where one copy of a version is in its life."""

    PLANNED = "planned"
    ARRIVING = "arriving"
    WHOLE = "whole"
    LEAVING = "leaving"
    LOST = "lost"  # its site says that content is gone or damaged


class Tier(StrEnum):
    """How fast a copy is at hand: `warm` as files at the site, `cold` in its slow store."""

    WARM = "warm"
    COLD = "cold"


class TransferState(StrEnum):
    """Where one transfer is. A site that does not answer leaves it MOVING: nothing is known."""

    PLANNED = "planned"
    MOVING = "moving"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


TRANSFER_ENDED: Final = frozenset({TransferState.DONE, TransferState.FAILED, TransferState.CANCELLED})


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderWindow:
    """A time (seconds since 1970) in which a transfer may have a rate of payload."""

    begins: float
    ends: float
    bytes_per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderWay:
    """One way of a transfer: the marks of its packets, by which routers know its path (0 = none), and its share of the streams."""

    dscp: int = 0
    flow_label: int = 0
    share: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferOrder:
    """What the receiving site is told: which content, from where, under which rule, how fast. `fence` grows with every new
    order of one transfer: an older one is not obeyed. `source` empty: through the service."""

    id: str
    fence: int
    dataset: str  # PROJECT/NAME@VERSION
    manifest: str  # BLAKE3
    manifest_sha256: str
    size_bytes: int
    source: str = ""
    address: str = ""  # HOST:PORT of the source's data server
    ticket: str = ""  # shown to the sending end
    regions: tuple[str, ...] = ()
    bytes_per_second: float = 0.0  # 0 = as fast as it goes
    ways: tuple[OrderWay, ...] = ()  # without any: as packets go by themselves
    windows: tuple[OrderWindow, ...] = ()  # its rates over time, in order; without any it may go at any time
    relay: str = ""  # HOST:PORT of the relay that it goes through
    multipath: bool = False  # both ends have MPTCP
    is_receiving: bool = False  # the source may still be receiving it, and passes on what it has


@dataclass(frozen=True, slots=True, kw_only=True)
class InPlace:
    """Files that lie at a site and are to be a dataset there, where they are: read for somebody who is `account` there, by a path
    of the site. `regions` are the only ones that their content may lie in."""

    id: str
    path: str
    account: str = ""
    regions: tuple[str, ...] = ()


class Going(StrEnum):
    """How a site says that a transfer goes."""

    MOVING = "moving"
    DONE = "done"
    FAILED = "failed"  # may be tried again, and goes on from what is verified
    REFUSED = "refused"  # can never be: a rule forbids it
    ABSENT = "absent"  # the site knows nothing of it


@dataclass(frozen=True, slots=True, kw_only=True)
class WayCarried:
    """What came over one way of an order, as the receiving site counted it: bytes of payload, the most streams at once, whether they spoke
    MPTCP."""

    bytes: int
    streams: int
    multipath: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WayTaken:
    """One way that bytes of a transfer took in fact: the nodes of its path where routers led it (empty: as packets go by themselves), the site
    whose relay passed it on (empty: none), bytes of payload, the most streams at once, whether they spoke MPTCP."""

    path: tuple[str, ...] = ()
    relay: str = ""
    bytes: int = 0
    streams: int = 0
    multipath: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferProgress:
    """How far a transfer is at its site; `seconds_left` is None until there is something to tell it from."""

    going: Going
    done_bytes: int = 0
    bytes_per_second: float = 0.0
    seconds_left: float | None = None
    message: str = ""
    code: str = ""
    multipath: bool = False  # whether it went over MPTCP indeed
    ways: tuple[WayCarried, ...] = ()  # at the end, in the sequence of the order's ways


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How far a site is with reading files that it hashes, and what it found: of files in place the manifest (its BLAKE3, and the blob
    that has it), of a copy the paths whose content is missing or damaged (the first of `wrong_files`)."""

    going: Going
    done_bytes: int = 0
    size_bytes: int = 0
    bytes_per_second: float = 0.0
    seconds_left: float | None = None
    manifest: str = ""
    manifest_sha256: str = ""
    wrong: tuple[str, ...] = ()
    wrong_files: int = 0
    message: str = ""
    code: str = ""
