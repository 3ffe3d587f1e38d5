"""Brings files from a site into the blob store: directly, many small ones to a command, or a large one with resume."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Final

from isthmus.data.port import BlobStore
from isthmus.domain.errors import Corrupt, IsthmusError, Unavailable
from isthmus.sites import scripts
from isthmus.sites.several import several
from isthmus.sites.transport import Carries, Transport

_SMALL_BYTES: Final = 1024 * 1024
_BUNDLE_BYTES: Final = 16 * 1024 * 1024
_TRIES: Final = 3  # of one large file within one call; what arrived is kept, also for the next call


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFile:
    """A file at the site: `path` as the task names it, `place` where its content lies."""

    path: str
    place: str
    size_bytes: int
    executable: bool
    stays: bool = False
    regions: tuple[str, ...] = ()


class Bringer:
    """Brings files of one site."""

    def __init__(self, transport: Transport, blobs: BlobStore) -> None:
        self._transport = transport
        self._blobs = blobs
        self._spool: Path | None = None

    def to(self, blobs: BlobStore) -> Bringer:
        """One that brings into another store."""
        return Bringer(self._transport, blobs)

    async def bring(
        self, files: list[tuple[FoundFile, str]], wanted: set[str], account: str
    ) -> dict[str, IsthmusError]:
        """Bring each wanted content (by hash) once; returns what went wrong, by hash."""
        failed: dict[str, IsthmusError] = {}
        bundle: list[tuple[FoundFile, str]] = []
        bundle_bytes = 0
        left = set(wanted)
        direct = self._transport.is_local and account in ("", self._transport.own_account)
        for item, sha256 in files:
            if sha256 not in left:
                continue
            left.discard(sha256)
            try:
                if direct:  # only with the account's own rights: the job's user may put a link in the file's place
                    await self._blobs.put_file(Path(item.place), sha256)
                elif item.size_bytes > _SMALL_BYTES:
                    await self._bring_large(item, sha256, account)
                else:
                    bundle.append((item, sha256))
                    bundle_bytes += item.size_bytes
            except IsthmusError as error:
                failed[sha256] = error
            if bundle_bytes > _BUNDLE_BYTES:
                failed |= await self._bring_bundle(bundle, account)
                bundle, bundle_bytes = [], 0
        if bundle:
            failed |= await self._bring_bundle(bundle, account)
        return failed

    def close(self) -> None:
        """Drop what arrived of files whose transfer was not ended."""
        if self._spool is not None:
            shutil.rmtree(self._spool, ignore_errors=True)
            self._spool = None

    async def _bring_bundle(self, bundle: list[tuple[FoundFile, str]], account: str) -> dict[str, IsthmusError]:
        names = "\0".join(item.place for item, _ in bundle).encode("utf-8", "surrogateescape")
        try:
            result = await self._transport.run(
                scripts.READ_ALL, stdin=names, timeout_seconds=300, account=account, carries=Carries.OUT
            )
            if result.exit_code != 0 or len(result.stdout) != sum(item.size_bytes for item, _ in bundle):
                raise Unavailable(f"{self._transport.place} does not send the outputs, or they changed.")
        except IsthmusError as error:
            return {sha256: error for _, sha256 in bundle}
        failed: dict[str, IsthmusError] = {}
        ends = list(accumulate(item.size_bytes for item, _ in bundle))

        async def keep(number: int) -> None:
            item, sha256 = bundle[number]
            content = result.stdout[ends[number] - item.size_bytes : ends[number]]
            try:
                if hashlib.sha256(content).hexdigest() != sha256:
                    raise Corrupt(f"Output {item.path} is not what was hashed at the site.")
                await self._blobs.put_bytes(content)
            except IsthmusError as error:
                failed[sha256] = error

        await several(keep, range(len(bundle)))
        return failed

    async def _bring_large(self, item: FoundFile, sha256: str, account: str) -> None:
        if self._spool is None:
            self._spool = Path(tempfile.mkdtemp(prefix="isthmus-"))
        part = self._spool / sha256
        for turn in range(1, _TRIES + 1):
            have = part.stat().st_size if part.exists() else 0
            if have > item.size_bytes:
                part.unlink()
                have = 0
            try:
                with part.open("ab") as target:
                    command = ["tail", "-c", f"+{have + 1}", "--", item.place]
                    async with contextlib.aclosing(self._open(command, account)) as chunks:
                        async for chunk in chunks:
                            target.write(chunk)
                break
            except IsthmusError:
                if turn == _TRIES or part.stat().st_size == have:
                    raise
        try:
            await self._blobs.put_file(part, sha256)
        except Corrupt:
            part.unlink(missing_ok=True)
            raise
        part.unlink(missing_ok=True)

    def _open(self, command: list[str], account: str) -> AsyncGenerator[bytes, None]:
        return self._transport.stream(command, timeout_seconds=120, account=account, carries=Carries.OUT)
