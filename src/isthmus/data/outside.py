"""Files in a bucket, on an SFTP server or at an address of the web that become a dataset where they are, through fsspec.

    s3://bucket/prefix        sftp://user@host:port/path        https://host/file (one file: the web has no lists)

They are read once to be hashed, and again when their content is needed at the site; they are never written. The keep has for each
`places/ab/HASH`: size and stamp (a line), then the address. Credentials come from where the libraries look for them.
"""

from __future__ import annotations

import posixpath
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from isthmus.data.cold import open_store
from isthmus.data.transfer import pieces
from isthmus.data.transfer.keep import Keep
from isthmus.domain.errors import Corrupt, Invalid, NotFound, Unavailable

KINDS = ("s3", "sftp", "http", "https")


def is_outside(path: str) -> bool:
    """Whether what was named is an address and not a path."""
    return path.partition("://")[0] in KINDS


@dataclass(frozen=True, slots=True, kw_only=True)
class OutsideFile:
    """A file below an address: its path there (empty: the address is the file), its own address, size and stamp."""

    path: str
    url: str
    size_bytes: int
    stamp: str


class Outside:
    """What lies at an address and below. All methods block. Unavailable when the store fails."""

    def __init__(self, url: str, **options: Any) -> None:
        if not is_outside(url) or ".." in url.split("/"):
            raise Invalid("path", f"{url[:200]!r} is no address.", remedy=f"Write {', '.join(KINDS)}://.")
        self._url = url.rstrip("/")
        self._files, self._root = open_store(self._url, options)

    def files(self) -> list[OutsideFile]:
        """All files, by path."""
        if urlsplit(self._url).scheme in ("http", "https"):
            return [self._file("", self._head())]
        try:
            own = self._files.info(self._root)
            if own.get("type") == "file":
                return [self._file("", own)]
        except FileNotFoundError:
            own = None
        except (OSError, RuntimeError, ValueError) as error:
            raise self._failing(error) from None
        try:
            found = self._files.find(self._root, detail=True)
        except FileNotFoundError:
            found = {}
        except (OSError, RuntimeError, ValueError) as error:
            raise self._failing(error) from None
        base = self._root.rstrip("/") + "/"
        files = [
            self._file(name.removeprefix(base), info)
            for name, info in sorted(found.items())
            if info.get("type") == "file" and name.startswith(base)
        ]
        if not files:
            raise NotFound(f"There is nothing at {self._url}.", remedy="Check the address.", code="no_files")
        return files

    def _head(self) -> dict[str, Any]:
        """What a server of the web says of the address; asked for by itself, since the file system would look for a list."""
        from obstore.store import HTTPStore

        place, _, name = self._url.rpartition("/")
        options: Any = {"allow_http": True} if self._url.startswith("http:") else {}
        try:
            return dict(HTTPStore.from_url(place, client_options=options).head(name))
        except FileNotFoundError:
            raise NotFound(f"There is no file at {self._url}.", remedy="Name one file: the web has no lists.") from None
        except (OSError, RuntimeError, ValueError) as error:
            raise self._failing(error) from None

    def fetch(self, file: str, target: Path) -> None:
        """Bring a file (by its path; empty: the address itself) here."""
        try:
            self._files.get_file(f"{self._root}/{file}" if file else self._root, str(target))
        except FileNotFoundError:
            raise NotFound(f"{self._url} has no {file or 'such file'} any more.") from None
        except (OSError, RuntimeError, ValueError) as error:
            raise self._failing(error) from None

    def _file(self, path: str, info: dict[str, Any]) -> OutsideFile:
        stamp = str(info.get("e_tag") or info.get("mtime") or info.get("last_modified") or "")
        url = f"{self._url}/{path}" if path else self._url
        return OutsideFile(path=path, url=url, size_bytes=int(info["size"]), stamp="".join(stamp.split()))

    def _failing(self, error: Exception) -> Unavailable:
        return Unavailable(f"{self._url} fails: {str(error)[:300] or type(error).__name__}.")


def note(keep: Keep, blake3: str, file: OutsideFile) -> None:
    """Remember where a content can be had from."""
    keep.note("places", blake3, f"{file.size_bytes} {file.stamp or '-'}\n{file.url}".encode())


def has(keep: Keep, blake3: str) -> bool:
    """Whether a content can be had from outside."""
    return bool(_url_of(keep, blake3))


def bring(keep: Keep, blake3: str) -> bool:
    """Bring a content in from where it was noted; False when it was not. NotFound when it is gone there, Corrupt when it changed."""
    url = _url_of(keep, blake3)
    if not url:
        return False
    with tempfile.TemporaryDirectory(dir=keep.incoming) as directory:
        part = Path(directory) / blake3
        Outside(url).fetch("", part)
        keep.put_file(part, regions=keep.regions_of(blake3), expected=blake3)
    return True


def check(keep: Keep, blake3: str) -> bool:
    """Read a content where it was noted and compare; it does not come in. False when it was not noted; NotFound when it is gone there, Corrupt
    when it changed."""
    url = _url_of(keep, blake3)
    if not url:
        return False
    found = hash_file(
        Outside(url), OutsideFile(path="", url=url, size_bytes=0, stamp=""), keep.incoming, lambda _: None
    )
    if found != blake3:
        raise Corrupt(f"{url} is not what it was: its BLAKE3 is {found}, not {blake3}.")
    return True


def _url_of(keep: Keep, blake3: str) -> str:
    try:
        text = Path(keep.place("places", blake3)).read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return ""
    url = text.partition("\n")[2]
    return url if is_outside(url) else ""


def hash_file(outside: Outside, file: OutsideFile, directory: Path, told: Any) -> str:
    """BLAKE3 of a file outside: it is brought to a passing place and read there."""
    import os

    with tempfile.TemporaryDirectory(dir=directory) as place:
        part = Path(place) / "part"
        outside.fetch(file.path, part)
        with part.open("rb") as opened:
            found, _ = pieces.hash_pieces(opened.fileno(), os.fstat(opened.fileno()).st_size, told)
    return found


def below(url: str, allowed: str) -> bool:
    """Whether an address is an allowed one or lies below it."""
    base = allowed.rstrip("/")
    return url.rstrip("/") == base or url.startswith(posixpath.join(base, ""))
