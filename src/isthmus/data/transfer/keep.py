"""The contents of one site, by their BLAKE3, in one directory of one account.

    contents/ab/HASH    whole and verified; read-only
    pieces/ab/HASH      the hashes of its pieces, of a large one
    regions/ab/HASH     the only regions that it may lie in, one a line; no file: anywhere
    places/ab/HASH      of a content that is a link to a file of somebody's (inplace.py): how that was
    spoiled/HASH        what was found not to be what its name says
    incoming/           what is on its way, and which pieces of it are verified (arrival.py)

A content appears under its hash by one rename, after its bytes are on the disk.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import itertools
import os
import secrets
import stat
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Final

from isthmus.data.transfer import inplace, pieces
from isthmus.data.transfer.port import Content, is_blake3
from isthmus.domain.errors import Corrupt, Invalid, NotFound, Refused, Unavailable
from isthmus.domain.ids import is_name

_MODE: Final = 0o444
_COPY_BYTES: Final = 8 * 1024**2
_FEW, _LONG = 8, 20


class Keep:
    """One directory of contents; any number of processes may use it at once. Unavailable when the file system fails."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.incoming = path / "incoming"
        self._made: set[str] = set()
        self._ready_prefixes: set[str] = set()
        self._roots = {name: os.fspath(path / name) for name in ("contents", "pieces", "regions", "places")}
        try:
            for directory in (self.incoming, *(path / name for name in self._roots)):
                directory.mkdir(parents=True, exist_ok=True)
                # Jobs of other accounts pass through `contents` to what they were given, and cannot list what others have.
                directory.chmod(0o711 if directory.name == "contents" else 0o700)
        except OSError as error:
            raise failing(error, path) from None

    @property
    def contents(self) -> str:
        """The directory of whole contents."""
        return self._roots["contents"]

    def path_of(self, blake3: str) -> Path:
        """Where a content lies, whether or not it is there."""
        return Path(self.place("contents", blake3))

    def place(self, kind: str, blake3: str) -> str:
        """Where something of a content lies: kind is contents, pieces or regions."""
        if not is_blake3(blake3):
            raise Invalid("blake3", f"{blake3[:80]!r} is not a BLAKE3.", remedy="Give 64 hexadecimal digits.")
        return f"{self._roots[kind]}/{blake3[:2]}/{blake3}"

    def has(self, blake3: str) -> bool:
        """Whether the whole content is here."""
        try:
            found = os.lstat(self.place("contents", blake3))  # a Path for each of 100,000 costs more than the call
        except OSError:
            return False
        return not stat.S_ISLNK(found.st_mode) or inplace.is_same(self, blake3)

    def present(self, hashes: Iterable[str]) -> set[str]:
        """Those of the given hashes that are here. Many are looked up by directory, which costs a hundredth of a look for each."""
        by_directory: dict[str, set[str]] = {}
        for blake3 in hashes:
            by_directory.setdefault(blake3[:2], set()).add(blake3)
        found: set[str] = set()
        for name, wanted in by_directory.items():
            if len(wanted) < _FEW:
                found |= {blake3 for blake3 in wanted if self.has(blake3)}
                continue
            try:
                entries = os.scandir(f"{self._roots['contents']}/{name}")
            except FileNotFoundError:
                continue
            with entries:
                # A directory that holds far more than is asked for is not read through.
                read = list(itertools.islice(entries, _LONG * len(wanted)))
            if len(read) < _LONG * len(wanted):
                links = {entry.name for entry in read if entry.is_symlink()}  # files in place, which may have changed
                here = wanted.intersection(entry.name for entry in read)
                found |= {blake3 for blake3 in here if blake3 not in links or inplace.is_same(self, blake3)}
            else:
                found |= {blake3 for blake3 in wanted if self.has(blake3)}
        return found

    def missing(self, hashes: Iterable[str]) -> set[str]:
        """Those of the given hashes that are not here."""
        wanted = set(hashes)
        return wanted - self.present(wanted)

    def size(self, blake3: str) -> int:
        """Size in bytes; NotFound when it is not here."""
        try:
            return self.path_of(blake3).stat().st_size
        except FileNotFoundError:
            raise absent(blake3) from None

    def put_file(
        self,
        path: Path,
        *,
        regions: Collection[str] = (),
        expected: str | None = None,
        before: Callable[[str], None] | None = None,
    ) -> Content:
        """Take a copy of a file in; returns what it is. Corrupt when `expected` is given and is not its hash. `before` is called with its hash
        before it appears."""
        fresh = self.incoming / f"put-{secrets.token_hex(8)}"
        try:
            with path.open("rb") as source, fresh.open("wb+") as target:
                while chunk := source.read(_COPY_BYTES):
                    target.write(chunk)
                target.flush()
                size = target.tell()
                found, listed = pieces.hash_pieces(target.fileno(), size)
                if expected is not None and found != expected:
                    raise Corrupt(f"{path.name} has the BLAKE3 {found}, not {expected}.", remedy="Send it again.")
                os.fsync(target.fileno())
            if before is not None:
                before(found)
            self.limit(found, regions)
            if not pieces.is_small(size):
                self.write_pieces(found, listed)
            self.admit(os.fspath(fresh), found)
        except OSError as error:
            raise failing(error, self.path) from None
        finally:
            fresh.unlink(missing_ok=True)
        return Content(blake3=found, size_bytes=size, regions=self.regions_of(found))

    def admit(self, path: str, blake3: str, *, kind: str = "contents", is_read_only: bool = False) -> None:
        """Let a file that is verified and on the disk appear under its hash; OSError when that fails."""
        if not is_read_only:
            os.chmod(path, _MODE)  # noqa: PTH101
        os.replace(path, self._ready(kind, blake3))  # noqa: PTH105

    def admit_all(self, directory: str, hashes: Iterable[str], *, is_read_only: bool) -> None:
        """`admit` for many small contents that lie under their hashes in one directory of this keep."""
        source, target = os.open(directory, os.O_RDONLY), os.open(self._roots["contents"], os.O_RDONLY)
        try:
            for blake3 in hashes:
                if not is_read_only:
                    os.chmod(blake3, _MODE, dir_fd=source)
                if blake3[:2] not in self._ready_prefixes:
                    self._ready("contents", blake3)
                    self._ready_prefixes.add(blake3[:2])
                os.rename(blake3, f"{blake3[:2]}/{blake3}", src_dir_fd=source, dst_dir_fd=target)
        finally:
            os.close(source)
            os.close(target)

    def limit(self, blake3: str, regions: Collection[str]) -> None:
        """From now on the content may lie in these regions only, and in none that an earlier limit left out; without any, nothing
        changes. A limit that leaves no region lets the content go nowhere: Refused."""
        if not regions:
            return
        if wrong := [region for region in regions if not is_name(region)]:
            raise Invalid(
                "regions", f"{wrong[0][:80]!r} is no name.", remedy="Use small letters, digits, dots, dashes."
            )
        before = self.regions_of(blake3)
        after = sorted(set(before) & set(regions)) if before else sorted(set(regions))
        if not after:
            raise Refused(f"No region may hold {blake3}: its limits shut one another out.", code="region_limit")
        if after != list(before):
            self._write("regions", blake3, ("\n".join(after) + "\n").encode())

    def set_limit(self, blake3: str, regions: Collection[str]) -> None:
        """From now on the content may lie in these regions only (none: anywhere), whatever the limit was."""
        if regions:
            self._write("regions", blake3, ("\n".join(sorted(set(regions))) + "\n").encode())
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.place("regions", blake3))  # noqa: PTH108

    def limited_prefixes(self) -> set[str]:
        """The first two digits of all contents that have a limit; Unavailable when that cannot be read."""
        try:
            return set(os.listdir(self._roots["regions"]))  # noqa: PTH208
        except OSError as error:
            raise failing(error, self.path) from None

    def regions_of(self, blake3: str) -> tuple[str, ...]:
        """The only regions that a content may lie in; empty: anywhere. Unavailable when that cannot be read."""
        try:
            with open(self.place("regions", blake3), encoding="utf-8") as file:  # noqa: PTH123
                return tuple(file.read().split())
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise failing(error, self.path) from None

    def write_pieces(self, blake3: str, listed: bytes) -> None:
        """Keep the list of a content's pieces."""
        self._write("pieces", blake3, listed)

    def pieces_of(self, blake3: str) -> bytes:
        """The list of a content's pieces, made anew when there is none. NotFound when the content is not here; Corrupt when it has to be
        made and the content is not what its name says."""
        with contextlib.suppress(FileNotFoundError):
            return Path(self.place("pieces", blake3)).read_bytes()
        try:
            with self.path_of(blake3).open("rb") as file:
                found, listed = pieces.hash_pieces(file.fileno(), os.fstat(file.fileno()).st_size)
        except FileNotFoundError:
            raise absent(blake3) from None
        except OSError as error:
            raise failing(error, self.path) from None
        if found != blake3:
            raise _corrupt(blake3)
        self.write_pieces(blake3, listed)
        return listed

    def verify(self, blake3: str) -> None:
        """Read the content and compare; Corrupt when it is not what its name says, NotFound when it is not here."""
        try:
            with self.path_of(blake3).open("rb") as file:
                found, _listed = pieces.hash_pieces(file.fileno(), os.fstat(file.fileno()).st_size)
        except FileNotFoundError:
            raise absent(blake3) from None
        except OSError as error:
            raise failing(error, self.path) from None
        if found != blake3:
            raise _corrupt(blake3)

    def remove(self, blake3: str, *, place_too: bool = True) -> None:
        """Remove a content with its list; nothing happens when it is gone. Its limit stays until it comes again. A file in place stays; without
        `place_too` what is known of where it lies does too."""
        for kind in ("contents", "pieces", *(["places"] if place_too else [])):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.place(kind, blake3))  # noqa: PTH108

    def set_aside(self, blake3: str) -> None:
        """Take a content that is not what its name says out of use: under `spoiled` for a person to look at, a file in place where it is."""
        place = self.place("contents", blake3)
        with contextlib.suppress(OSError):
            if not stat.S_ISLNK(os.lstat(place).st_mode):
                directory = self.path / "spoiled"
                directory.mkdir(exist_ok=True, mode=0o700)
                os.replace(place, directory / blake3)  # noqa: PTH105
        self.remove(blake3)

    def note(self, kind: str, blake3: str, body: bytes) -> None:
        """Keep something beside a content."""
        self._write(kind, blake3, body)

    def flush(self) -> None:
        """Wait until all that was written to the file system is on the disk; OSError when that fails."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            if _libc.syncfs(descriptor):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        finally:
            os.close(descriptor)

    def _write(self, kind: str, blake3: str, body: bytes) -> None:
        fresh = f"{self.incoming}/{kind}-{secrets.token_hex(8)}"
        try:
            with open(fresh, "xb") as file:  # noqa: PTH123
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, self._ready(kind, blake3))  # noqa: PTH105
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(fresh)  # noqa: PTH108
            raise failing(error, self.path) from None

    def _ready(self, kind: str, blake3: str) -> str:
        place = self.place(kind, blake3)
        directory = place[: -len(blake3) - 1]
        if directory not in self._made:
            os.makedirs(directory, mode=0o711, exist_ok=True)  # noqa: PTH103
            self._made.add(directory)
        return place


_libc = ctypes.CDLL(None, use_errno=True)


def absent(blake3: str) -> NotFound:
    """The error for a content that is not here."""
    return NotFound(f"The content {blake3} is not at this site.")


def failing(error: OSError, path: Path) -> Unavailable:
    """The error for a file system that fails; its code tells a full one."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return Unavailable(
        f"The directory of contents {path} fails: {error.strerror or error}.",
        remedy="Make room there." if full else "",
        code="no_space" if full else None,
    )


def _corrupt(blake3: str) -> Corrupt:
    return Corrupt(f"The content {blake3} is not what its name says.", remedy="Remove it and fetch it again.")
