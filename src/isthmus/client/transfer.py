"""Moves content: uploads by hash that resume and send only what is missing, downloads that resume and are checked."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath

from isthmus.client.records import Output
from isthmus.client.wire import Steps, Together, Work, request, send
from isthmus.client.workdir import Content
from isthmus.domain.errors import Corrupt, NotFound, Refused, Unavailable

PIECE_BYTES = 8 * 1024 * 1024
HASHES_PER_CALL = 1000
SMALL_BYTES = 64 * 1024  # contents up to this size travel many to a call,
FEWEST_PACKED = 8  # when there are at least so many of them
MAX_STALLS = 5
Progress = Callable[[int, int], None]  # bytes done, bytes in all


def quiet(_done: int, _whole: int) -> None:
    """Report nothing."""


def missing(hashes: Sequence[str], *, project: str) -> Steps[set[str]]:
    """Those of the hashes that the service does not hold for the project."""
    found: set[str] = set()
    for start in range(0, len(hashes), HASHES_PER_CALL):
        body = {"hashes": list(hashes[start : start + HASHES_PER_CALL])}
        call = request("POST", "/v1/blobs:missing", params={"project": project}, json=body, repeatable=True)
        found |= set((yield from send(call)).field("missing"))
    return found


def upload(contents: Sequence[Content], *, project: str, progress: Progress = quiet) -> Steps[int]:
    """Bring content to the service; what it has already is not sent. Answers the bytes that were sent."""
    by_hash = {content.sha256: content for content in contents}
    wanted = yield from missing(list(by_hash), project=project)
    todo = [by_hash[sha256] for sha256 in by_hash if sha256 in wanted]
    whole = sum(content.size_bytes for content in todo)
    done = 0

    def moved(count: int) -> None:
        nonlocal done
        done += count
        progress(done, whole)

    if not todo:
        return 0
    progress(0, whole)
    small = [content for content in todo if content.size_bytes <= SMALL_BYTES]
    steps: list[Steps[None]] = []
    if len(small) >= FEWEST_PACKED:
        todo = [content for content in todo if content.size_bytes > SMALL_BYTES]
        steps = [_upload_pack(pack, project, moved) for pack in _packs(small)]
    yield Together((*steps, *(_upload_one(content, project, moved) for content in todo)))
    return whole


def _packs(contents: Sequence[Content]) -> Iterator[list[Content]]:
    pack: list[Content] = []
    size_bytes = 0
    for content in contents:
        if pack and (size_bytes + content.size_bytes > PIECE_BYTES or len(pack) == HASHES_PER_CALL):
            yield pack
            pack, size_bytes = [], 0
        pack.append(content)
        size_bytes += content.size_bytes
    yield pack


def _upload_pack(contents: Sequence[Content], project: str, moved: Callable[[int], None]) -> Steps[None]:
    """Send many small contents with one call; Corrupt when one of them is no longer what was hashed."""
    pieces: list[bytes] = yield Work(lambda: [_read(content, 0) for content in contents])
    for content, piece in zip(contents, pieces, strict=True):
        if hashlib.sha256(piece).hexdigest() != content.sha256:
            raise Corrupt(
                f"{content.source!s} changed while it was sent.",
                remedy="Submit again when nothing writes to it.",
                code="file_changed",
            )
    body = b"".join(len(piece).to_bytes(4, "big") + piece for piece in pieces)
    headers = {"Content-Type": "application/octet-stream"}
    call = request(
        "POST", "/v1/blobs:pack", params={"project": project}, content=body, headers=headers, repeatable=True
    )
    yield from send(call)
    moved(sum(map(len, pieces)))


def _upload_one(content: Content, project: str, moved: Callable[[int], None]) -> Steps[None]:
    path, params = f"/v1/uploads/{content.sha256}", {"project": project}
    offset = yield from _offset(path, params)
    moved(min(offset, content.size_bytes))
    stalls = 0
    while True:
        piece = yield Work(partial(_read, content, offset))
        if not piece and offset < content.size_bytes:
            raise Corrupt(
                f"{content.source!s} became shorter while it was sent.",
                remedy="Submit again when nothing writes to it.",
                code="file_changed",
            )
        headers = {
            "Upload-Offset": str(offset),
            "Upload-Length": str(content.size_bytes),
            "Content-Type": "application/offset+octet-stream",
        }
        call = request("PATCH", path, params=params, content=piece, headers=headers, repeatable=True)
        answer = yield from send(call, accept=frozenset({409}))
        if answer.status == 201:
            moved(len(piece))
            return
        if (
            answer.status == 409
        ):  # the service is elsewhere than we think: an answer was lost, or somebody sends the same
            if not (yield from missing([content.sha256], project=project)):
                return
            now = yield from _offset(path, params)
        else:
            now = int(answer.headers.get("upload-offset", offset + len(piece)))
        stalls = stalls + 1 if now <= offset else 0
        if stalls > MAX_STALLS:
            raise Unavailable("An upload does not get on.", remedy="Try again; it goes on where it stopped.")
        moved(max(now - offset, 0))
        offset = now


def _offset(path: str, params: dict[str, str]) -> Steps[int]:
    answer = yield from send(request("HEAD", path, params=params), accept=frozenset({404}))
    text = answer.headers.get("upload-offset", "0")
    return int(text) if answer.status < 400 and text.isdigit() else 0


def _read(content: Content, offset: int) -> bytes:
    """The next piece of what was hashed: what was written behind it since, as into a log, is not part of it."""
    if isinstance(content.source, bytes):
        return content.source[offset : offset + PIECE_BYTES]
    with content.source.open("rb") as file:
        file.seek(offset)
        return file.read(min(PIECE_BYTES, content.size_bytes - offset))


def download(output: Output, to: Path, *, project: str, progress: Progress = quiet) -> Steps[Path]:
    """Fetch content into the file `to`: resumes an earlier try, checks the hash, then takes the name at once.

    A file that is there already with the right content is left alone. Corrupt when the content is wrong.
    """
    if (yield Work(lambda: _has(to, output))):
        progress(output.size_bytes, output.size_bytes)
        return to
    part = to.with_name(f".{to.name[:100]}.{output.sha256[:16]}.part")
    digest, offset = yield Work(lambda: _start(part, output.size_bytes))
    while offset < output.size_bytes:
        end = min(offset + PIECE_BYTES, output.size_bytes) - 1
        headers = {"Range": f"bytes={offset}-{end}", "Accept-Encoding": "identity"}
        call = request("GET", f"/v1/blobs/{output.sha256}", params={"project": project}, headers=headers)
        answer = yield from send(call)
        if answer.status != 206:
            digest, offset = hashlib.sha256(), 0
        if not answer.body:
            raise Unavailable("The service sent nothing.", remedy="Try again; it goes on where it stopped.")
        yield Work(partial(_write, part, offset, answer.body))
        digest.update(answer.body)
        offset += len(answer.body)
        progress(min(offset, output.size_bytes), output.size_bytes)
    yield Work(lambda: _finish(part, to, digest.hexdigest(), output))
    return to


def _has(to: Path, output: Output) -> bool:
    if to.is_dir():
        raise Refused(f"{str(to)!r} is a directory.", remedy="Give a file's name, or move the directory away.")
    if not to.is_file() or to.stat().st_size != output.size_bytes:
        return False
    return _hash(to).hexdigest() == output.sha256


def _start(part: Path, size_bytes: int) -> tuple[hashlib._Hash, int]:
    part.parent.mkdir(parents=True, exist_ok=True)
    if part.is_file() and part.stat().st_size <= size_bytes:
        return _hash(part), part.stat().st_size
    part.unlink(missing_ok=True)
    part.touch()
    return hashlib.sha256(), 0


def _hash(path: Path) -> hashlib._Hash:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256")


def _write(part: Path, offset: int, body: bytes) -> None:
    with part.open("r+b") as file:
        file.seek(offset)
        file.write(body)
        file.truncate()


def _finish(part: Path, to: Path, found: str, output: Output) -> None:
    if found != output.sha256:
        with suppress(OSError):
            part.unlink()
        raise Corrupt(
            f"{output.path} arrived with another content than the task left.", remedy="Fetch it again.", code="corrupt"
        )
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.chmod(0o755 if output.executable else 0o644)
    part.replace(to)


def local_path(output_path: str, directory: Path) -> Path:
    """Where an output belongs under a local directory; Refused when its path would leave it."""
    pure = PurePosixPath(output_path)
    parts = [part for part in pure.parts if part not in ("/", ".")]
    if not parts or ".." in parts or "\0" in output_path:
        raise Refused(f"The output's path {output_path!r} leaves the directory.", remedy="Fetch it by hand with --to.")
    return directory.joinpath(*parts)


def fetch(outputs: Sequence[tuple[Output, Path]], *, project: str, progress: Progress = quiet) -> Steps[list[Path]]:
    """Fetch outputs to their places; NotFound when there are none."""
    if not outputs:
        raise NotFound("The task left no outputs.", remedy="Declare them with --out PATH.", code="no_outputs")
    whole = sum(output.size_bytes for output, _ in outputs)
    each = [0] * len(outputs)

    def told(index: int) -> Progress:
        def tell(done: int, _size: int) -> None:
            each[index] = done
            progress(sum(each), whole)

        return tell

    steps = tuple(download(output, to, project=project, progress=told(i)) for i, (output, to) in enumerate(outputs))
    paths: list[Path] = yield Together(steps)
    return paths
