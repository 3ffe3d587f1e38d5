"""What this site keeps of datasets: contents by hash, the manifests that name them, and the transfers under way."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from isthmus.agent.carrying import ThroughService, check_limit, pull_directly
from isthmus.agent.link import Link
from isthmus.agent.reading import Count, FilesAtSite, PlacesAllowed, Readings, check
from isthmus.agent.tries import Noted, Tries
from isthmus.data import outside
from isthmus.data.cold import ColdStore
from isthmus.data.hashing import hash_bytes
from isthmus.data.http import HttpBlobStore
from isthmus.data.transfer.keep import Keep
from isthmus.data.transfer.port import Credentials
from isthmus.domain.dataset import (
    AT_SITE,
    DatasetManifest,
    Going,
    InPlace,
    Reading,
    TransferOrder,
    TransferProgress,
    is_blake3,
)
from isthmus.domain.errors import Corrupt, Forbidden, Invalid, IsthmusError, NotFound, Refused, Unavailable
from isthmus.sites.port import Job, JobFile, Uncertain

log = logging.getLogger(__name__)
_REMEMBERED = 1000  # ended transfers
_SWEPT, _MOST_KEYS = 100, 10_000  # notes of tries looked at in one go, and tries asked about


@dataclass(slots=True)
class _Running:
    order: TransferOrder
    progress: TransferProgress
    stop: threading.Event = field(default_factory=threading.Event)
    task: asyncio.Task[None] | None = None


@dataclass(slots=True, kw_only=True)
class Standing:
    """What the control plane said of this site: its region and the service's, and the files of its certificate."""

    region: str = ""
    service_region: str = ""
    credentials: Credentials | None = None


class Keeping:
    """Implements `data.port.DataKeeper` at the site. Obeys the higher fence of two orders of one transfer."""

    def __init__(
        self,
        root: Path,
        link: Link,
        blobs: HttpBlobStore,
        cold: ColdStore | None = None,
        places: PlacesAllowed | None = None,
        *,
        cold_region: str = AT_SITE,
    ) -> None:
        self.keep = Keep(root)
        self.standing = Standing()
        self.lost: set[str] = set()  # manifests of versions of which content is missing here; the service is to be told
        self.found_lost = asyncio.Event()
        self._link = link
        self._readings = Readings()
        self._files = FilesAtSite(self.keep, places or PlacesAllowed())
        self._manifests = root / "manifests"
        self._manifests.mkdir(exist_ok=True, mode=0o700)
        self.tries = Tries(root / "tries")
        self._naming = asyncio.Lock()  # while a manifest is written, and while what no manifest names is removed
        self._blobs = blobs
        self._cold = cold
        self.cold_region = cold_region
        self._service = ThroughService(self.keep, link, blobs)
        self._running: dict[str, _Running] = {}

    async def data_pull(self, orders: Sequence[TransferOrder]) -> Mapping[str, TransferProgress]:
        """Begin, or go on, to fetch versions."""
        return {order.id: await self._start(order, sends=False) for order in orders}

    async def data_send(self, orders: Sequence[TransferOrder]) -> Mapping[str, TransferProgress]:
        """Begin, or go on, to send versions to the service."""
        return {order.id: await self._start(order, sends=True) for order in orders}

    async def data_status(self, ids: Sequence[str]) -> Mapping[str, TransferProgress]:
        """How far transfers are."""
        unknown = TransferProgress(going=Going.ABSENT)
        return {one: self._running[one].progress if one in self._running else unknown for one in ids}

    async def data_drop(self, manifests: Sequence[str]) -> None:
        """Let versions go, with every content that no other version here names."""
        for running in list(self._running.values()):
            if running.order.manifest in manifests:
                await self._stop(running)
                self._running.pop(running.order.id, None)
        for manifest in manifests:
            try:
                await self._known_manifest(manifest)
            except IsthmusError as error:
                log.info("a version that goes is not known: %s", error)
        await asyncio.to_thread(self._drop, manifests)

    async def data_chill(self, manifests: Sequence[str]) -> None:
        """Move versions to the cold store; what a version that stays warm names too stays."""
        for manifest in manifests:
            await self._known_manifest(manifest)
        await asyncio.to_thread(self._chill, manifests)

    async def data_warm(self, manifests: Sequence[str]) -> None:
        """Bring versions back from the cold store."""
        for manifest in manifests:
            contents = (await self._known_manifest(manifest)).contents
            await asyncio.to_thread(self._warm, contents)
            (self._manifests / f"{manifest}.cold").unlink(missing_ok=True)

    async def data_limit(self, limits: Mapping[str, tuple[str, ...]]) -> None:
        """Versions may lie in these regions only, from now on."""
        for manifest in limits:
            await self._known_manifest(manifest)
        await asyncio.to_thread(self._limit_anew, limits)

    async def data_verify(self, manifests: Sequence[str]) -> Mapping[str, Reading]:
        """How far copies are read, and at the end the paths whose content is missing or damaged."""
        return {one: self._readings.ask(one, await self._checking(one)) for one in manifests}

    async def data_register(self, asked: Sequence[InPlace]) -> Mapping[str, Reading]:
        """How far files in place are read, and at the end their manifest, which the service has by then."""
        return {one.id: await self._register(one) for one in asked}

    async def _checking(self, manifest: str) -> Callable[[Count], Reading]:
        known = await self._known_manifest(manifest)
        return lambda count: check(self.keep, known, count, self._check_cold)

    async def _register(self, asked: InPlace) -> Reading:
        if asked.regions and self.standing.region not in asked.regions:
            raise Refused(
                f"{asked.path} may lie in {', '.join(asked.regions)} only, and this site is not there.",
                code="data_may_not_leave",
            )

        def work(count: Count) -> Reading:
            content = self._files.take(asked, count).dump()
            found = hash_bytes(content)
            self._write_manifest(found, content)
            if asked.regions:
                self._note_limit(found, asked.regions)
            return replace(count.shown(), going=Going.DONE, manifest=found, seconds_left=None)

        told = self._readings.ask(f"in place {asked.id}", work)
        if told.going is not Going.DONE:
            return told
        return replace(
            told, manifest_sha256=await self._blobs.put_bytes((self._manifests / told.manifest).read_bytes())
        )

    async def close(self) -> None:
        """Stop transfers; they go on when they are ordered again."""
        await self._readings.close()
        await asyncio.gather(*(self._stop(running) for running in self._running.values()))

    async def sweep(self) -> int:
        """Remove outputs that were to stay here, of tries that are over and made no version of them; answers how many contents. Not while
        anything moves or is read here: it may name the same."""
        if self._readings.busy or any(one.task is not None and not one.task.done() for one in self._running.values()):
            return 0
        notes = await asyncio.to_thread(self.tries.read, _SWEPT)
        keys = sorted(set().union(*(note.keys for note in notes)))[:_MOST_KEYS]
        if not keys:
            return 0
        ended, manifests = await self._link.tries(keys)
        for manifest in manifests:  # from now on they say what is wanted
            await self._known_manifest(manifest)
        due = [note for note in notes if note.keys <= ended]
        async with self._naming:
            return await asyncio.to_thread(self._sweep, due) if due else 0

    def free_bytes(self) -> int:
        """Free room of the file system."""
        found = os.statvfs(self.keep.path)
        return found.f_bavail * found.f_frsize

    async def localise(self, jobs: Sequence[Job]) -> tuple[list[Job], dict[str, Uncertain]]:
        """Jobs whose kept files point to this site's own copies, and those for which one is not here."""
        ready: list[Job] = []
        lacking: dict[str, Uncertain] = {}
        for job in jobs:
            kept = {file.kept for file in job.files if file.kept}
            try:
                await asyncio.to_thread(self._warm, kept)
            except IsthmusError as error:
                if isinstance(error, NotFound | Corrupt):
                    await asyncio.to_thread(self._lose, kept)
                lacking[job.key] = Uncertain(message=str(error))
                continue
            ready.append(replace(job, files=tuple(self._local(file) for file in job.files)) if kept else job)
        return ready, lacking

    def _local(self, file: JobFile) -> JobFile:
        return replace(file, kept="", path_at_site=str(self.keep.path_of(file.kept))) if file.kept else file

    # --- transfers --------------------------------------------------------------------------------------------------

    async def _start(self, order: TransferOrder, *, sends: bool) -> TransferProgress:
        known = self._running.get(order.id)
        if known is not None and known.order.fence >= order.fence:
            return known.progress
        if known is not None:
            await self._stop(known)
        while len(self._running) >= _REMEMBERED:
            ended = next((one for one, item in self._running.items() if item.task is None or item.task.done()), None)
            if ended is None:
                raise Unavailable("Too many transfers are under way here.", remedy="Wait.")
            del self._running[ended]
        running = _Running(order, TransferProgress(going=Going.MOVING))
        self._running[order.id] = running
        running.task = asyncio.create_task(self._carry(running, sends), name=f"transfer {order.id}")
        return running.progress

    async def _stop(self, running: _Running) -> None:
        running.stop.set()
        if running.task is not None and not running.task.done():
            if not running.order.address:
                running.task.cancel()
            await asyncio.gather(running.task, return_exceptions=True)

    async def _carry(self, running: _Running, sends: bool) -> None:
        order = running.order

        def tell(progress: TransferProgress) -> None:
            if running.progress.going is Going.MOVING:
                running.progress = progress

        going, message, code = Going.FAILED, "", ""
        try:
            manifest = await self._manifest(order)
            await self._move(running, manifest, sends, tell)
            going = Going.DONE
            running.progress = replace(running.progress, going=going, done_bytes=order.size_bytes, seconds_left=None)
            log.info("transfer %s of %s is done", order.id, order.dataset)
            return
        except (Refused, Forbidden) as error:
            going, message, code = Going.REFUSED, str(error), error.code
        except IsthmusError as error:
            message, code = str(error), error.code
        except BaseExceptionGroup as group:
            inner = next((error for error in group.exceptions if isinstance(error, IsthmusError)), None)
            going = Going.REFUSED if isinstance(inner, Refused | Forbidden) else Going.FAILED
            message, code = (str(inner), inner.code) if inner else (f"It broke: {group.exceptions[0]!r}"[:300], "error")
        except Exception as error:
            log.exception("transfer %s broke", order.id)
            message, code = f"It broke: {type(error).__name__}.", "error"
        running.progress = replace(running.progress, going=going, seconds_left=None, message=message, code=code)
        log.warning("transfer %s of %s: %s", order.id, order.dataset, message)

    async def _move(self, running: _Running, manifest: DatasetManifest, sends: bool, tell) -> None:  # type: ignore[no-untyped-def]
        order = running.order
        if sends:
            lacking = await asyncio.to_thread(self.keep.missing, manifest.contents)
            await asyncio.to_thread(self._warm, lacking)
            await self._service.send(order, manifest, tell, service_region=self.standing.service_region)
            return
        if order.regions and self.standing.region not in order.regions:
            raise Refused(
                f"{order.dataset} may lie in {', '.join(order.regions)} only, and this site is not there.",
                code="data_may_not_leave",
            )
        await asyncio.to_thread(self._limit, order.manifest, manifest, order.regions)
        if order.address:
            if self.standing.credentials is None:
                raise Unavailable("This site has no certificate yet.", remedy="Wait until it has announced itself.")
            await pull_directly(order, manifest, self.keep, self.standing.credentials, stop=running.stop, tell=tell)
        else:
            await self._service.pull(order, manifest, tell)
        if lacking := await asyncio.to_thread(self.keep.missing, manifest.contents):
            raise Unavailable(f"{len(lacking)} contents did not arrive.")

    def _limit(self, name: str, manifest: DatasetManifest, regions: Collection[str]) -> None:
        """Contents carry their limit before the first byte of them is here."""
        if regions:
            self._note_limit(name, regions)
            for blake3 in manifest.contents:
                self.keep.limit(blake3, regions)

    def _note_limit(self, name: str, regions: Collection[str]) -> None:
        place = self._manifests / f"{name}.regions"
        if regions:
            place.write_text("\n".join(sorted(regions)))
        else:
            place.unlink(missing_ok=True)

    def _limit_anew(self, limits: Mapping[str, tuple[str, ...]]) -> None:
        """A content that several versions here name may lie only where all of them may."""
        for name, regions in limits.items():
            self._note_limit(name, regions)
        others: dict[str, set[str]] = {}
        for path in self._manifests.glob("*.regions"):
            allowed = set(path.read_text().split())
            for blake3 in self._read_manifest(path.name.removesuffix(".regions")).contents:
                others[blake3] = others[blake3] & allowed if blake3 in others else allowed
        for name in limits:
            for blake3 in self._read_manifest(name).contents:
                found = others.get(blake3)
                self.keep.set_limit(blake3, ["nowhere"] if found is not None and not found else found or ())

    # --- manifests --------------------------------------------------------------------------------------------------

    async def _manifest(self, order: TransferOrder) -> DatasetManifest:
        """The manifest of an order, fetched from the service when it is not here."""
        if not is_blake3(order.manifest):
            raise Invalid("manifest", "is no BLAKE3.")
        try:
            return self._read_manifest(order.manifest)
        except NotFound:
            pass
        content = b"".join([chunk async for chunk in self._blobs.read(order.manifest_sha256)])
        if hash_bytes(content) != order.manifest:
            raise Corrupt(f"The manifest of {order.dataset} is not what its name says.")
        found = DatasetManifest.load(content)
        async with self._naming:
            self._write_manifest(order.manifest, content)
        return found

    async def _known_manifest(self, manifest: str) -> DatasetManifest:
        """A manifest of a version that is here, fetched from the service when it is lost."""
        try:
            return self._read_manifest(manifest)
        except NotFound:
            content = await self._link.manifest(manifest)
            if hash_bytes(content) != manifest:
                raise Corrupt("A manifest is not what its name says.") from None
            self._write_manifest(manifest, content)
            return DatasetManifest.load(content)

    def _write_manifest(self, manifest: str, content: bytes) -> None:
        fresh = self._manifests / f"{manifest}.new"
        fresh.write_bytes(content)
        fresh.replace(self._manifests / manifest)

    def _lose(self, contents: Collection[str]) -> None:
        """Remember whose content is missing, so that the service learns it."""
        missing = self.keep.missing(contents)
        for path in self._manifests.iterdir():
            if not is_blake3(path.name):
                continue
            try:
                if missing & self._read_manifest(path.name).contents.keys():
                    self.lost.add(path.name)
            except NotFound:
                self.lost.add(path.name)
        self.found_lost.set()

    def _read_manifest(self, manifest: str) -> DatasetManifest:
        if not is_blake3(manifest):  # it becomes part of a path
            raise NotFound("What was named is no manifest.")
        try:
            content = (self._manifests / manifest).read_bytes()
        except FileNotFoundError:
            raise NotFound(f"No version with the manifest {manifest} is here.") from None
        if hash_bytes(content) != manifest:
            (self._manifests / manifest).unlink(missing_ok=True)
            raise NotFound(f"The manifest {manifest} here was damaged.")
        return DatasetManifest.load(content)

    def _contents_besides(
        self, manifests: Collection[str], *, warm_only: bool = False, swept: Collection[Path] = ()
    ) -> set[str]:
        """What other versions here name, or tries that may become versions (their notes, without those that are `swept`)."""
        found = self.tries.wanted(without=swept)
        for path in self._manifests.iterdir():
            if not is_blake3(path.name) or path.name in manifests:
                continue
            if warm_only and path.with_name(f"{path.name}.cold").exists():
                continue
            try:
                found |= self._read_manifest(path.name).contents.keys()
            except NotFound:
                continue
        return found

    def _drop(self, manifests: Sequence[str]) -> None:
        with self.tries.lock:
            self._drop_alone(manifests)

    def _drop_alone(self, manifests: Sequence[str]) -> None:
        others = self._contents_besides(manifests)
        for manifest in manifests:
            try:
                contents = self._read_manifest(manifest).contents
            except NotFound:
                continue
            for blake3 in contents.keys() - others:
                self.keep.remove(blake3)
                (self.keep.incoming / f"service-{blake3}").unlink(missing_ok=True)
                if self._cold is not None:
                    self._cold.remove(blake3)
            (self._manifests / manifest).unlink(missing_ok=True)
            (self._manifests / f"{manifest}.cold").unlink(missing_ok=True)
            (self._manifests / f"{manifest}.regions").unlink(missing_ok=True)

    def _sweep(self, due: Sequence[Noted]) -> int:
        with self.tries.lock:
            paths = {note.path for note in due}
            wanted = self._contents_besides((), swept=paths)
            left = {blake3 for note in due for blake3 in note.again().contents} - wanted
            for blake3 in left:
                self.keep.remove(blake3)
            for path in paths:
                path.unlink()
            return len(left)

    def _chill(self, manifests: Sequence[str]) -> None:
        warm = self._contents_besides(manifests, warm_only=True)
        region = self.standing.region if self.cold_region == AT_SITE else self.cold_region
        for manifest in manifests:
            contents = self._read_manifest(manifest).contents
            for blake3 in contents:
                if outside.has(self.keep, blake3):
                    continue  # it is there already
                if self._cold is None:
                    raise Refused("This site has no cold store.", remedy="Start its agent with --data-cold.")
                if self.keep.has(blake3):
                    check_limit(self.keep, blake3, region)
                    self._cold.put(self.keep, blake3)
                elif not self._cold.has(blake3):
                    raise NotFound(f"The content {blake3} is neither warm nor cold here.")
            (self._manifests / f"{manifest}.cold").touch()
            for blake3 in contents.keys() - warm:
                self.keep.remove(blake3, place_too=not outside.has(self.keep, blake3))

    def _check_cold(self, blake3: str) -> None:
        """Read and compare a content that is not in the keep, where it is; it stays there. NotFound where it is nowhere."""
        if outside.check(self.keep, blake3):
            return
        if self._cold is None:
            raise NotFound(f"The content {blake3} is not at this site.")
        self._cold.check(self.keep, blake3)

    def _warm(self, contents: Collection[str]) -> None:
        """Have contents in the keep, from the cold store where they are there; NotFound names one that is nowhere."""
        for blake3 in contents:
            if self.keep.has(blake3) or outside.bring(self.keep, blake3):
                continue
            if self._cold is None:
                raise NotFound(f"The content {blake3} is not at this site.")
            self._cold.get(self.keep, blake3, self.keep.regions_of(blake3))
