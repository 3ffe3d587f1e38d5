"""Collects jobs' outputs and streams: lists and hashes them at the site, many jobs with each command, and brings what
the store lacks."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

from isthmus.data.port import BlobStore, OutputKeeper
from isthmus.domain.errors import Invalid, IsthmusError, Unavailable
from isthmus.domain.lifecycle import EndReason
from isthmus.sites import scripts
from isthmus.sites.bringing import Bringer, FoundFile
from isthmus.sites.matching import fits, literal_start, matches
from isthmus.sites.port import (
    MAX_LOG_BYTES,
    Collected,
    CollectedFile,
    CollectOutcome,
    Job,
    LogStream,
    Rejected,
    Uncertain,
)
from isthmus.sites.staging import place_below
from isthmus.sites.transport import CommandFailed, Transport

_BATCH_JOBS: Final = 200
_HASHED_BYTES_PER_SECOND: Final = 20_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """What lies at a place: `kind` f, d or l (a link), and for a link where it leads (empty: out of the directory)."""

    kind: str
    size_bytes: int
    mode: int
    leads_to: str = ""


@dataclass(slots=True, kw_only=True)
class _Wanted:
    """What one job's collection will hold."""

    files: dict[str, FoundFile] = field(default_factory=dict)
    streams: dict[LogStream, FoundFile] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    @property
    def all(self) -> list[FoundFile]:
        return [*self.files.values(), *self.streams.values()]


class Collector:
    """Collects at one site."""

    def __init__(self, transport: Transport, blobs: BlobStore) -> None:
        self._transport = transport
        self._blobs = blobs
        self._bringer = Bringer(transport, blobs)

    async def collect(self, jobs: Sequence[Job], root: str, account: str) -> dict[str, CollectOutcome]:
        """The outputs of one account's jobs; an outcome for each. Unavailable when the site does not answer."""
        outcomes: dict[str, CollectOutcome] = {}
        for start in range(0, len(jobs), _BATCH_JOBS):
            batch = jobs[start : start + _BATCH_JOBS]
            try:
                outcomes |= await self._batch(batch, root, account)
            except CommandFailed:  # one job's files may be the cause: find out whose
                for job in batch:
                    try:
                        outcomes |= await self._batch([job], root, account)
                    except CommandFailed as error:
                        outcomes[job.key] = Uncertain(message=str(error))
        return outcomes

    def close(self) -> None:
        """Drop scratch space."""
        self._bringer.close()

    async def _batch(self, jobs: Sequence[Job], root: str, account: str) -> dict[str, CollectOutcome]:
        outcomes: dict[str, CollectOutcome] = {}
        bases: dict[str, set[str]] = {}
        for job in jobs:
            directory = f"{root}/attempts/{job.key}"
            try:
                below = {literal_start(place_below(output.path)) for output in job.outputs}
            except Invalid as error:
                outcomes[job.key] = Rejected(reason=EndReason.OUTPUT_MISSING, message=str(error))
                continue
            bases[job.key] = {f"{directory}/{path}" for path in {*below, "job.sh", *LogStream}}
        entries = await self._list(sorted(set().union(*bases.values())), account)
        prefix = f"{root}/attempts/"
        await self._follow(entries, prefix, account)
        by_key: dict[str, dict[str, _Entry]] = {}
        for place, entry in entries.items():
            by_key.setdefault(_key_of(place, prefix), {})[place] = entry
        wanted: dict[str, _Wanted] = {}
        for job in jobs:
            if job.key not in bases:
                continue
            directory = f"{root}/attempts/{job.key}"
            outcome = _want(job, directory, by_key.get(job.key, {}))
            if isinstance(outcome, _Wanted):
                wanted[job.key] = outcome
            else:
                outcomes[job.key] = outcome
        await self._shorten(wanted, account)
        hashes = await self._hash([item for want in wanted.values() for item in want.all], account)
        pairs = [(item, hashes[item.place]) for want in wanted.values() for item in want.all if item.place in hashes]
        keys = {key for key, want in wanted.items() if any(item.stays for item in want.all)}
        kept, failed = await self._keep([pair for pair in pairs if pair[0].stays], keys, account)
        sent = [pair for pair in pairs if not pair[0].stays]
        absent = await self._blobs.missing({sha256 for _, sha256 in sent})
        failed |= await self._bringer.bring(sent, absent, account)
        for key, want in wanted.items():
            outcomes[key] = _outcome(want, hashes, failed, kept)
        return outcomes

    async def _keep(
        self, pairs: list[tuple[FoundFile, str]], keys: Collection[str], account: str
    ) -> tuple[dict[str, str], dict[str, IsthmusError]]:
        """Keep files at the site; SHA-256 -> BLAKE3, and what went wrong, by SHA-256."""
        if not pairs:
            return {}, {}
        if not isinstance(self._blobs, OutputKeeper):
            error = Unavailable("This site keeps no data, so nothing can stay there.")
            return {}, {sha256: error for _, sha256 in pairs}
        try:
            store = self._blobs.staying({sha256: item.regions for item, sha256 in pairs}, keys)
        except IsthmusError as error:
            return {}, {sha256: error for _, sha256 in pairs}
        bringer = self._bringer.to(store)
        try:
            failed = await bringer.bring(pairs, await store.missing({sha256 for _, sha256 in pairs}), account)
        finally:
            bringer.close()
        return {sha256: found for _, sha256 in pairs if (found := self._blobs.kept(sha256))}, failed

    async def _list(self, bases: list[str], account: str) -> dict[str, _Entry]:
        if not bases:
            return {}
        result = await self._transport.run(
            scripts.LIST, stdin=_joined(bases), timeout_seconds=120 + len(bases) / 10, account=account
        )
        if result.exit_code != 0:
            raise CommandFailed(f"{self._transport.place} does not list the outputs: {result.complaint}", result)
        entries = {}
        for record in result.stdout.decode("utf-8", "surrogateescape").split("\0")[:-1]:
            kind, size, mode, place = record.split("\t", 3)
            entries[place] = _Entry(kind=kind, size_bytes=int(size), mode=int(mode, 8))
        return entries

    async def _follow(self, entries: dict[str, _Entry], prefix: str, account: str) -> None:
        """Find where links lead: those within the attempt's own directories count as what they lead to."""
        links = [place for place, entry in entries.items() if entry.kind == "l"]
        if not links:
            return
        result = await self._transport.run(
            scripts.RESOLVE, stdin=_joined(links), timeout_seconds=60 + len(links) / 10, account=account
        )
        ends = result.stdout.decode("utf-8", "surrogateescape").split("\0")[:-1]
        if len(ends) != len(links):
            raise Unavailable(f"{self._transport.place} does not resolve the outputs' links: {result.complaint}")
        inside = {
            link: end
            for link, end in zip(links, ends, strict=True)
            if any(end.startswith(f"{prefix}{_key_of(link, prefix)}/{part}/") for part in ("work", "root"))
        }
        targets = await self._list(sorted(set(inside.values())), account)
        for link, end in inside.items():
            target = targets.get(end)
            if target is not None and target.kind == "f":
                entries[link] = _Entry(kind="l", size_bytes=target.size_bytes, mode=target.mode, leads_to=end)

    async def _shorten(self, wanted: dict[str, _Wanted], account: str) -> None:
        """Of a stream that is too long, keep its end."""
        long = [
            (want, stream, item)
            for want in wanted.values()
            for stream, item in want.streams.items()
            if item.size_bytes > MAX_LOG_BYTES
        ]
        if not long:
            return
        result = await self._transport.run(
            ["/bin/sh", "-c", scripts.SHORTEN, "sh", str(MAX_LOG_BYTES)],
            stdin=_joined([item.place for _, _, item in long]),
            timeout_seconds=60 + 30 * len(long),
            account=account,
        )
        if result.exit_code != 0:
            raise Unavailable(f"{self._transport.place} does not shorten the logs: {result.complaint}")
        for want, stream, item in long:
            want.streams[stream] = FoundFile(
                path=item.path, place=f"{item.place}.end", size_bytes=MAX_LOG_BYTES, executable=False
            )

    async def _hash(self, files: list[FoundFile], account: str) -> dict[str, str]:
        """Hashes by place; a file that cannot be read has none."""
        places = sorted({item.place for item in files})
        if not places:
            return {}
        total = sum(item.size_bytes for item in files)
        result = await self._transport.run(
            scripts.HASH,
            stdin=_joined(places),
            timeout_seconds=60 + len(places) / 20 + total / _HASHED_BYTES_PER_SECOND,
            account=account,
        )
        records = result.stdout.decode("utf-8", "surrogateescape").split("\0")[:-1]
        if not records and result.exit_code != 0:
            raise Unavailable(f"{self._transport.place} does not hash the outputs: {result.complaint}")
        return {record[66:]: record[:64] for record in records}


def _want(job: Job, directory: str, entries: dict[str, _Entry]) -> _Wanted | CollectOutcome:
    """Match one job's declared outputs with what lies in its directory."""
    if f"{directory}/job.sh" not in entries:
        return Uncertain(message="The attempt's directory is not at the site.")
    want = _Wanted()
    for stream in LogStream:
        entry = entries.get(f"{directory}/{stream}")
        if entry is not None and entry.kind == "f":
            want.streams[stream] = FoundFile(
                path=stream.value, place=f"{directory}/{stream}", size_bytes=entry.size_bytes, executable=False
            )
    for output in job.outputs:
        pattern = f"{directory}/{place_below(output.path)}"
        literal = entries.get(pattern)
        if literal is not None and literal.kind == "l" and not literal.leads_to and not output.directory:
            message = f"Output {output.path} is a link that leads to no file of the task's directory."
            return Rejected(reason=EndReason.OUTPUT_MISSING, message=message)
        found = [place for place, entry in entries.items() if _is_file(entry) and matches(output, pattern, place)]
        for place in found:
            entry = entries[place]
            path = _path_of(place, directory)
            want.files[path] = FoundFile(
                path=path,
                place=entry.leads_to or place,
                size_bytes=entry.size_bytes,
                executable=bool(entry.mode & 0o100),
                stays=output.stays,
                regions=output.regions,
            )
        empty = output.directory and any(entry.kind == "d" and fits(pattern, place) for place, entry in entries.items())
        if not found and not empty and output.required:
            want.missing.append(output.path)
    return want


def _outcome(
    want: _Wanted, hashes: dict[str, str], failed: dict[str, IsthmusError], kept: dict[str, str]
) -> CollectOutcome:
    collected: dict[str, CollectedFile] = {}
    for item in want.all:
        sha256 = hashes.get(item.place)
        if sha256 is None:
            return Uncertain(message=f"Output {item.path} cannot be read at the site.")
        if sha256 in failed or (item.stays and sha256 not in kept):
            if sha256 not in failed:
                return Uncertain(message=f"Output {item.path} is not kept at the site yet.")
            return Uncertain(message=f"Output {item.path} did not arrive: {failed[sha256]}")
        collected[item.place] = CollectedFile(
            path=item.path, sha256=sha256, size_bytes=item.size_bytes, executable=item.executable
        )
    streams = {stream: collected[item.place] for stream, item in want.streams.items()}
    files = []
    for path in sorted(want.files):
        item = want.files[path]
        files.append(
            CollectedFile(
                path=path,
                sha256=hashes[item.place],
                size_bytes=item.size_bytes,
                executable=item.executable,
                kept=kept[hashes[item.place]] if item.stays else "",
            )
        )
    return Collected(
        files=tuple(files),
        missing=tuple(want.missing),
        stdout=streams.get(LogStream.STDOUT),
        stderr=streams.get(LogStream.STDERR),
    )


def _is_file(entry: _Entry) -> bool:
    return entry.kind == "f" or bool(entry.leads_to)


def _key_of(place: str, prefix: str) -> str:
    """The key of the attempt that a place below `ROOT/attempts/` belongs to."""
    return place[len(prefix) :].partition("/")[0]


def _path_of(place: str, directory: str) -> str:
    below = place[len(directory) + 1 :]
    return below.removeprefix("work/") if below.startswith("work/") else below.removeprefix("root")


def _joined(places: Sequence[str]) -> bytes:
    return "\0".join(places).encode("utf-8", "surrogateescape")
