"""A site's cold store: contents by BLAKE3 in a bucket, a slow directory or on an SFTP server, through fsspec.

    file:///archive/isthmus        s3://bucket/prefix        sftp://user@host:port/path

Credentials come from where the libraries look for them (environment, ~/.aws, ~/.ssh), never from the URL.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from isthmus.data.transfer import pieces
from isthmus.data.transfer.keep import Keep
from isthmus.domain.errors import Corrupt, Invalid, NotFound, Unavailable

KINDS = ("file", "s3", "sftp")


class ColdStore:
    """Contents that were moved out of a keep. All methods block. Unavailable when the store fails."""

    def __init__(self, url: str, **options: Any) -> None:
        if urlsplit(url).scheme not in KINDS:
            raise Invalid(
                "cold",
                f"{url[:200]!r} is no store.",
                remedy="Write file:///DIR, s3://BUCKET/PREFIX or sftp://HOST/DIR.",
            )
        self._files, self._root = open_store(url, options)
        self._url = url

    def put(self, keep: Keep, blake3: str) -> None:
        """Store a content of the keep; one that is there with the right size is left alone."""
        place = self._place(blake3)
        try:
            if self._size(place) == keep.size(blake3):
                return
            self._files.makedirs(posixpath.dirname(place), exist_ok=True)
            fresh = f"{place}.new"
            self._files.put_file(str(keep.path_of(blake3)), fresh)
            self._files.mv(fresh, place)
        except (OSError, RuntimeError) as error:
            raise self._failing(error) from None

    def get(self, keep: Keep, blake3: str, regions: tuple[str, ...] = ()) -> None:
        """Bring a content back into the keep; NotFound when it is not here, Corrupt when it is not what its name says."""
        with self._fetched(keep, blake3) as part:
            keep.put_file(part, regions=regions, expected=blake3)

    def check(self, keep: Keep, blake3: str) -> None:
        """Read a content and compare, in a passing place: it stays cold. NotFound when it is not here; Corrupt, and then removed here, when it
        is not what its name says."""
        with self._fetched(keep, blake3) as part, part.open("rb") as file:
            found, _ = pieces.hash_pieces(file.fileno(), os.fstat(file.fileno()).st_size)
        if found != blake3:
            self.remove(blake3)  # a good one of this size would not take its place
            raise Corrupt(f"The content {blake3} in the cold store is not what its name says.")

    @contextlib.contextmanager
    def _fetched(self, keep: Keep, blake3: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=keep.incoming) as directory:
            part = Path(directory) / blake3
            try:
                self._files.get_file(self._place(blake3), str(part))
            except FileNotFoundError:
                raise NotFound(f"The content {blake3} is not in the cold store.") from None
            except (OSError, RuntimeError) as error:
                raise self._failing(error) from None
            yield part

    def has(self, blake3: str) -> bool:
        """Whether it is here."""
        try:
            return bool(self._files.exists(self._place(blake3)))
        except (OSError, RuntimeError) as error:
            raise self._failing(error) from None

    def remove(self, blake3: str) -> None:
        """Remove a content; nothing happens when it is gone."""
        try:
            self._files.rm_file(self._place(blake3))
        except FileNotFoundError:
            pass
        except (OSError, RuntimeError) as error:
            raise self._failing(error) from None

    def _size(self, place: str) -> int:
        try:
            return int(self._files.info(place)["size"])
        except FileNotFoundError:
            return -1

    def _place(self, blake3: str) -> str:
        return f"{self._root}/objects/{blake3[:2]}/{blake3[2:4]}/{blake3}"

    def _failing(self, error: Exception) -> Unavailable:
        return Unavailable(f"The cold store {self._url} fails: {str(error)[:300] or type(error).__name__}.")


def open_store(url: str, options: dict[str, Any]) -> tuple[Any, str]:
    """The file system of a URL (file, s3, sftp, http, https), and the path in it."""
    parts = urlsplit(url)
    if parts.password or parts.query or parts.fragment:
        raise Invalid(
            "cold", f"{url[:200]!r} is no store.", remedy="Write it without a password; keys are in files of their own."
        )
    if parts.scheme in ("http", "https"):
        import obstore.fsspec

        make: Any = obstore.fsspec.FsspecStore  # its types name no store of the web
        plain = {"client_options": {"allow_http": True}} if parts.scheme == "http" else {}
        return make(parts.scheme, **{**plain, **options}), url.rstrip("/")
    path = parts.path.rstrip("/")
    if parts.scheme == "file":
        import fsspec

        return fsspec.filesystem("file"), path
    if parts.scheme == "s3":
        from obstore.fsspec import FsspecStore

        return FsspecStore("s3", **options), f"{parts.netloc}{path}"
    known = {"username": parts.username, "port": parts.port}
    given = {name: value for name, value in known.items() if value is not None}
    # An empty list of known hosts stands for ~/.ssh/known_hosts; left out, the library would take any host key.
    return _Sftp(parts.hostname or "", **{"known_hosts": (), **given, **options}), path


class _Sftp:
    """The methods of an SFTP file system. A connection that was lost is made anew, once for each call; what SSH itself refuses (a host key
    that is not known, a key that is not taken) is a ConnectionError."""

    def __init__(self, host: str, **options: Any) -> None:
        self._host, self._options = host, options
        self._files: Any = None

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            import asyncssh
            from sshfs import SSHFileSystem

            is_fresh = False
            while True:
                try:
                    if self._files is None:
                        is_fresh = True
                        self._files = SSHFileSystem(self._host, skip_instance_cache=True, **self._options)
                    return getattr(self._files, name)(*args, **more)
                except (asyncssh.Error, ConnectionError) as error:
                    self._files = None
                    if is_fresh:
                        raise ConnectionError(str(error) or type(error).__name__) from None

        return call
