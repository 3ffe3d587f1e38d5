"""Carries one version to or from this site: from another site's data server, from the service, or to the service."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from isthmus.agent.link import Link
from isthmus.data.contents import contents_of
from isthmus.data.http import HttpBlobStore
from isthmus.data.transfer.forecast import PAYLOAD_SHARE
from isthmus.data.transfer.keep import Keep
from isthmus.data.transfer.port import Credentials, End, Endpoint, Order, Progress, Source, Way, Window
from isthmus.domain.dataset import DatasetManifest, Going, OrderWay, TransferOrder, TransferProgress, WayCarried
from isthmus.domain.errors import Corrupt, Forbidden, Refused, Unavailable

_AT_ONCE = 8
_LATE_SECONDS = 300.0
_REPORT_FILES = 1000
_REPORT_BYTES = 256 * 1024**2
Tell = Callable[[TransferProgress], None]


async def pull_directly(
    order: TransferOrder,
    manifest: DatasetManifest,
    keep: Keep,
    credentials: Credentials,
    *,
    stop: threading.Event,
    tell: Tell,
) -> None:
    """Fetch a version from the site that the order names. Refused by either end's rules, Unavailable to be tried again."""
    from isthmus.data.transfer.puller import pull

    wanted = Order(
        id=order.id,
        contents=contents_of(manifest, order.regions),
        sources=(
            Source(
                site=order.source,
                endpoint=_endpoint(order.address),
                is_receiving=order.is_receiving,
                ways=_ways(order),
            ),
        ),
        ticket=order.ticket,
        bytes_per_second=order.bytes_per_second or None,
    )

    def progressed(progress: Progress) -> None:
        left = None if progress.predicted_end is None else max(0.0, progress.predicted_end - time.time())
        tell(
            TransferProgress(
                going=Going.MOVING,
                done_bytes=progress.done_bytes,
                bytes_per_second=progress.bytes_per_second,
                seconds_left=left,
                multipath=progress.multipath,
            )
        )

    outcome = await asyncio.to_thread(pull, wanted, keep, credentials, on_progress=progressed, stop=stop)
    tell(
        TransferProgress(
            going=Going.MOVING,
            done_bytes=outcome.received_bytes + outcome.resumed_bytes,
            multipath=any(one.multipath for one in outcome.ways),
            ways=tuple(
                WayCarried(bytes=one.bytes, streams=one.streams, multipath=one.multipath)
                for one in sorted(outcome.ways, key=lambda one: one.way)
            ),
        )
    )
    if any(failure.code == "ticket_expired" for failure in outcome.failures) and not outcome.is_done:
        raise Unavailable("The ticket's time is over; the next order brings a new one.", code="ticket_expired")
    if outcome.end is End.REFUSED:
        raise Refused(outcome.cause)
    if not outcome.is_done:
        raise Unavailable(outcome.cause or f"The transfer ended: {outcome.end.value}.")


def _endpoint(address: str) -> Endpoint:
    host, _, port = address.rpartition(":")
    return Endpoint(host=host.strip("[]"), port=int(port))


def _ways(order: TransferOrder) -> tuple[Way, ...]:
    """Several ways share the windows by their shares."""
    ways = order.ways or (OrderWay(),)
    whole = sum(one.share for one in ways)
    return tuple(
        Way(
            dscp=one.dscp,
            flow_label=one.flow_label,
            share=one.share,
            relay=_endpoint(order.relay) if order.relay else None,
            multipath=order.multipath,
            windows=_windows(order, one.share / whole),
        )
        for one in ways
    )


def _windows(order: TransferOrder, share: float) -> tuple[Window, ...]:
    """The promised rates, with headers, and the last one for as long again, for what comes late."""
    found = [
        Window(start=one.begins, end=one.ends, bytes_per_second=share * one.bytes_per_second / PAYLOAD_SHARE)
        for one in order.windows
    ]
    if found:
        last = found[-1]
        longer = last.end + max(_LATE_SECONDS, last.end - found[0].start)
        found.append(Window(start=last.end, end=longer, bytes_per_second=last.bytes_per_second))
    return tuple(found)


class ThroughService:
    """Moves versions through the service's content store."""

    def __init__(self, keep: Keep, link: Link, blobs: HttpBlobStore) -> None:
        self._keep = keep
        self._link = link
        self._blobs = blobs

    async def pull(self, order: TransferOrder, manifest: DatasetManifest, tell: Tell) -> None:
        """Fetch what is missing of a version; each content is hashed before it is admitted."""
        missing = await asyncio.to_thread(self._keep.missing, manifest.contents)
        held = await self._held(order.id) if missing else {}
        if lacking := missing - held.keys():
            raise Unavailable(f"The service does not hold {len(lacking)} contents of {order.dataset}.")
        count = _Count(
            manifest.size_bytes, sum(size for one, size in manifest.contents.items() if one not in missing), tell
        )
        room = asyncio.Semaphore(_AT_ONCE)

        async def one(blake3: str) -> None:
            async with room:
                await self._fetch(blake3, held[blake3], order.regions, count)

        async with asyncio.TaskGroup() as group:
            for blake3 in sorted(missing):
                group.create_task(one(blake3))

    async def _fetch(self, blake3: str, sha256: str, regions: tuple[str, ...], count: _Count) -> None:
        part = self._keep.incoming / f"service-{blake3}"
        offset = part.stat().st_size if part.exists() else 0
        count.add(offset)
        with part.open("ab") as file:
            async for chunk in self._blobs.read(sha256, offset):
                await asyncio.to_thread(file.write, chunk)
                count.add(len(chunk))
        try:
            await asyncio.to_thread(self._keep.put_file, part, regions=regions, expected=blake3)
        finally:
            part.unlink(missing_ok=True)

    async def send(self, order: TransferOrder, manifest: DatasetManifest, tell: Tell, *, service_region: str) -> None:
        """Send what the service does not hold of a version. Forbidden when a content's own limit does not let it be there."""
        held = await self._held(order.id)
        todo = {blake3: size for blake3, size in manifest.contents.items() if blake3 not in held}
        count = _Count(manifest.size_bytes, manifest.size_bytes - sum(todo.values()), tell)
        room = asyncio.Semaphore(_AT_ONCE)
        sent: dict[str, str] = {}

        async def one(blake3: str) -> None:
            async with room:
                await asyncio.to_thread(check_limit, self._keep, blake3, service_region)
                path = self._keep.path_of(blake3)
                sha256 = await asyncio.to_thread(_sha256, path)
                await self._blobs.put_file(path, sha256)
                sent[blake3] = sha256
                count.add(todo[blake3])

        batch: list[str] = []
        size = 0
        for blake3 in sorted(todo):
            batch.append(blake3)
            size += todo[blake3]
            if len(batch) == _REPORT_FILES or size >= _REPORT_BYTES:
                await self._report(order.id, batch, one, sent)
                batch, size = [], 0
        await self._report(order.id, batch, one, sent)

    async def _report(
        self, transfer: str, batch: list[str], one: Callable[[str], object], sent: dict[str, str]
    ) -> None:
        if not batch:
            return
        async with asyncio.TaskGroup() as group:
            for blake3 in batch:
                group.create_task(one(blake3))  # type: ignore[arg-type]
        wrong = await self._link.report_contents(transfer, {blake3: sent.pop(blake3) for blake3 in batch})
        if wrong:
            raise Corrupt(f"{len(wrong)} contents here are not what their names say, such as {wrong[0]}.")

    async def _held(self, transfer: str) -> Mapping[str, str]:
        return await self._link.contents(transfer)


def check_limit(keep: Keep, blake3: str, region: str) -> None:
    """The rule at the sending end: Forbidden unless the content's own limit lets it be in a region."""
    regions = keep.regions_of(blake3)
    if regions and region not in regions:
        raise Forbidden(
            f"{blake3} may lie in {', '.join(regions)} only, and the reader is in {region or 'no region that is known'}.",
            code="data_may_not_leave",
        )


class _Count:
    """Counts what moved and tells how it goes."""

    def __init__(self, whole: int, done: int, tell: Tell) -> None:
        self._whole, self._done, self._tell = whole, done, tell
        self._begun, self._first = time.monotonic(), done
        self._told = 0.0

    def add(self, size: int) -> None:
        self._done += size
        now = time.monotonic()
        if now - self._told < 0.5:
            return
        self._told = now
        rate = (self._done - self._first) / max(now - self._begun, 1e-3)
        left = (self._whole - self._done) / rate if rate > 0 else None
        self._tell(
            TransferProgress(going=Going.MOVING, done_bytes=self._done, bytes_per_second=rate, seconds_left=left)
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
