"""Reads what lies at this site to hash it, in the background: files that become datasets where they are, and copies that are checked."""

from __future__ import annotations

import asyncio
import getpass
import logging
import os
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from isthmus.data import outside
from isthmus.data.transfer import inplace, pieces
from isthmus.data.transfer.keep import Keep
from isthmus.domain.dataset import MAX_FILES, DatasetFile, DatasetManifest, Going, InPlace, Reading
from isthmus.domain.errors import Conflict, Forbidden, Invalid, IsthmusError, NotFound, Refused, Unavailable

log = logging.getLogger(__name__)
_REMEMBERED = 500_000  # files that were hashed by this process
_NAMED = 100  # wrong paths in an answer
_TOLD = 1000  # readings that ended and were not asked for


class Stopped(Exception):
    """The agent ends."""


@dataclass(slots=True)
class Count:
    """Bytes read so far, of how many, since when."""

    whole: int = 0
    done: int = 0
    began: float = field(default_factory=time.monotonic)
    stop: threading.Event = field(default_factory=threading.Event)

    def add(self, size: int) -> None:
        """Some more were read. Stopped when the agent ends."""
        self.done += size
        if self.stop.is_set():
            raise Stopped

    def shown(self) -> Reading:
        """How far it is."""
        rate = self.done / max(time.monotonic() - self.began, 1e-3)
        left = (self.whole - self.done) / rate if rate > 0 and self.whole else None
        return Reading(
            going=Going.MOVING,
            done_bytes=self.done,
            size_bytes=self.whole,
            bytes_per_second=rate,
            seconds_left=left,
        )


Work = Callable[[Count], Reading]


class Readings:
    """Readings under way by name; each is begun once, and its end is told once."""

    def __init__(self) -> None:
        self._running: OrderedDict[str, tuple[asyncio.Task[Reading], Count]] = OrderedDict()
        self._room = asyncio.Semaphore(1)  # one after the other: they are bound by the disk

    @property
    def busy(self) -> bool:
        """Whether anything is read now."""
        return any(not task.done() for task, _ in self._running.values())

    def ask(self, name: str, work: Work) -> Reading:
        """How far a reading is, begun now when it was not; at its end what came of it, and then it is forgotten."""
        known = self._running.get(name)
        if known is None:
            while len(self._running) >= _TOLD:
                oldest = next((one for one, (task, _) in self._running.items() if task.done()), None)
                if oldest is None:
                    raise Unavailable("Too much is being read here.", remedy="Wait.")
                del self._running[oldest]
            count = Count()
            known = asyncio.create_task(self._run(work, count), name=f"reading {name}"), count
            self._running[name] = known
        task, count = known
        if not task.done():
            return count.shown()
        del self._running[name]
        return task.result()

    async def close(self) -> None:
        """End all; they begin anew when they are asked for again."""
        for task, count in self._running.values():
            count.stop.set()
            if not task.done():
                await asyncio.gather(task, return_exceptions=True)

    async def _run(self, work: Work, count: Count) -> Reading:
        try:
            async with self._room:
                count.began = time.monotonic()
                return await asyncio.to_thread(work, count)
        except (Refused, Forbidden, Invalid, NotFound, Conflict) as error:
            return replace(count.shown(), going=Going.REFUSED, message=str(error), code=error.code)
        except IsthmusError as error:
            return replace(count.shown(), going=Going.FAILED, message=str(error), code=error.code)
        except Stopped:
            return replace(count.shown(), going=Going.FAILED, message="The agent stops.", code="unavailable")
        except OSError as error:
            message = f"It cannot be read: {error.strerror or error}."
            return replace(count.shown(), going=Going.FAILED, message=message, code="unavailable")
        except Exception as error:
            log.exception("a reading broke")
            return replace(
                count.shown(), going=Going.FAILED, message=f"It broke: {type(error).__name__}.", code="error"
            )


class PlacesAllowed:
    """The directories whose files may become datasets where they lie, as the site's operator named them; `{account}` in one stands
    for the local account of the one who asks, which is one of `accounts` (None: any)."""

    def __init__(self, directories: Sequence[str] = (), accounts: Collection[str] | None = None) -> None:
        self._directories = tuple(directories)
        self._accounts = accounts

    def _account(self, asked: InPlace) -> str:
        if self._accounts is not None and asked.account not in self._accounts:
            raise Forbidden(
                f"This site does nothing for the local account {asked.account or 'of its agent'}.",
                remedy="Ask its operator, whose accounts_allowed says for whom.",
            )
        return asked.account or getpass.getuser()

    def check_url(self, asked: InPlace) -> None:
        """Forbidden for an address that does not lie below a permitted one."""
        account = self._account(asked)
        named = [one.replace("{account}", account) for one in self._directories if outside.is_outside(one)]
        if not any(outside.below(asked.path, one) for one in named):
            raise self._not_here(asked)

    def _not_here(self, asked: InPlace) -> Forbidden:
        told = ", ".join(self._directories) or "none"
        return Forbidden(
            f"{asked.path} does not lie where files may become datasets at this site ({told}).",
            remedy="Its operator names directories by --data-in-place, or send it: isthmus data put ./FILES NAME.",
            code="place_not_allowed",
        )

    def find(self, asked: InPlace) -> tuple[Path, Path]:
        """The allowed directory, links resolved, and the path below it. Forbidden elsewhere, NotFound for nothing."""
        path = Path(asked.path)
        if not path.is_absolute() or ".." in path.parts or "\0" in asked.path or "\n" in asked.path:
            raise Invalid("path", f"{asked.path[:200]!r} is no absolute path.", remedy="Write SITE:/absolute/path.")
        account = self._account(asked)
        real = Path(os.path.realpath(path))
        for directory in self._directories:
            if outside.is_outside(directory):
                continue
            allowed = Path(os.path.realpath(directory.replace("{account}", account)))
            if real == allowed or real.is_relative_to(allowed):
                if not real.exists():
                    raise NotFound(f"There is no {asked.path} at the site.", remedy="Check the path.")
                return allowed, real.relative_to(allowed)
        raise self._not_here(asked)


class FilesAtSite:
    """Takes files in where they lie: hashed, named by a link in the keep, not copied."""

    def __init__(self, keep: Keep, allowed: PlacesAllowed) -> None:
        self._keep = keep
        self._allowed = allowed
        self._known: OrderedDict[tuple[str, int, int, int], str] = OrderedDict()

    def take(self, asked: InPlace, count: Count) -> DatasetManifest:
        """Hash all files and have them as contents. Blocking. Conflict when one changes meanwhile."""
        if outside.is_outside(asked.path):
            return self._take_outside(asked, count)
        root, below = self._allowed.find(asked)
        found = list(_files(root, below))
        if not found:
            raise NotFound(
                f"{asked.path} holds no file.", remedy="Name a file or a directory with files.", code="no_files"
            )
        if len(found) > MAX_FILES:
            raise Invalid("path", f"{asked.path} has more than {MAX_FILES} files.", remedy="Pack them.")
        count.whole = sum(seen.st_size for _, seen in found)
        files = []
        for path, seen in found:
            blake3 = self._hash(root, below / path if path else below, seen, count)
            self._keep.limit(blake3, asked.regions)
            inplace.refer(self._keep, blake3, str(root / below / path if path else root / below), seen)
            name = str(path) if path else below.name or root.name
            executable = bool(seen.st_mode & stat.S_IXUSR)
            files.append(DatasetFile(path=name, size_bytes=seen.st_size, blake3=blake3, executable=executable))
        return DatasetManifest(files=tuple(sorted(files, key=lambda one: one.path)))

    def _take_outside(self, asked: InPlace, count: Count) -> DatasetManifest:
        """The same of files in a bucket, on a server: their content comes into the keep when it is needed."""
        self._allowed.check_url(asked)
        place = outside.Outside(asked.path)
        found = place.files()
        if len(found) > MAX_FILES:
            raise Invalid("path", f"{asked.path} has more than {MAX_FILES} files.", remedy="Pack them.")
        count.whole = sum(file.size_bytes for file in found)
        files = []
        for file in found:
            blake3 = outside.hash_file(place, file, self._keep.incoming, count.add)
            self._keep.limit(blake3, asked.regions)
            if not self._keep.has(blake3):
                outside.note(self._keep, blake3, file)
            name = file.path or PurePosixPath(asked.path).name
            files.append(DatasetFile(path=name, size_bytes=file.size_bytes, blake3=blake3))
        return DatasetManifest(files=tuple(files))

    def _hash(self, root: Path, below: Path, seen: os.stat_result, count: Count) -> str:
        key = (str(root / below), seen.st_size, seen.st_mtime_ns, seen.st_ino)
        known = self._known.get(key)
        if known is not None:
            count.add(seen.st_size)
            return known
        descriptor = _open(root, below)
        try:
            found, listed = pieces.hash_pieces(descriptor, seen.st_size, told=count.add)
            after = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        if (after.st_size, after.st_mtime_ns, after.st_ino) != key[1:]:
            raise Conflict(f"{root / below} changes while it is read.", remedy="Put it again when it is at rest.")
        if not pieces.is_small(seen.st_size):
            self._keep.write_pieces(found, listed)
        self._known[key] = found
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return found


def _open(root: Path, below: Path, flags: int = 0) -> int:
    """Open what lies below an allowed directory, following no link on the way, so that nobody leads the agent elsewhere meanwhile."""
    at = os.open(root, os.O_RDONLY | os.O_CLOEXEC)
    parts = PurePosixPath(below).parts
    try:
        for number, part in enumerate(parts, 1):
            kind = flags | os.O_NONBLOCK if number == len(parts) else os.O_DIRECTORY
            inner = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | kind, dir_fd=at)
            os.close(at)
            at = inner
    except OSError:
        os.close(at)
        raise
    return at


def _files(root: Path, below: Path) -> Iterator[tuple[Path | None, os.stat_result]]:
    """Regular files by their path below what was asked for (None: it is one itself). Links are left out."""
    top = _open(root, below)
    try:
        seen = os.fstat(top)
        if stat.S_ISREG(seen.st_mode):
            yield None, seen
            return
        if not stat.S_ISDIR(seen.st_mode):
            raise Invalid("path", f"{root / below} is neither a file nor a directory.", remedy="Name one.")
        for directory, _, names, descriptor in os.fwalk(".", dir_fd=top, onerror=_raise):
            for name in sorted(names):
                found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                if stat.S_ISREG(found.st_mode):
                    yield Path(directory) / name, found
    finally:
        os.close(top)


def _raise(error: OSError) -> None:
    raise error


def check(keep: Keep, manifest: DatasetManifest, count: Count, check_cold: Callable[[str], None]) -> Reading:
    """Read a copy and compare; what is not what its name says is set aside. What is not in the keep is read by `check_cold`. Blocking."""
    from isthmus.domain.errors import Corrupt

    count.whole = sum(manifest.contents.values())
    bad: set[str] = set()
    for blake3, size in manifest.contents.items():
        try:
            if keep.has(blake3):
                keep.verify(blake3)
            else:
                check_cold(blake3)
        except NotFound:
            bad.add(blake3)
        except Corrupt:
            bad.add(blake3)
            keep.set_aside(blake3)
        count.add(size)
    wrong = [file.path for file in manifest.files if file.blake3 in bad]
    return replace(
        count.shown(), going=Going.DONE, wrong=tuple(wrong[:_NAMED]), wrong_files=len(wrong), seconds_left=None
    )
