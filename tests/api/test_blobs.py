"""Content: uploads that resume, downloads in ranges, and nobody else's."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from isthmus.api.service import ApiSettings
from tests.api.conftest import CONTENT, CONTENT_HASH, House, open_house, problem_of, upload


def part(offset: int, length: int) -> dict[str, str]:
    """The headers of one part."""
    return {"Upload-Offset": str(offset), "Upload-Length": str(length)}


async def test_an_upload_is_resumed_where_it_broke_off(each_house: House, each_admin: httpx.AsyncClient) -> None:
    """Two parts make the blob; before, in between and after, HEAD and GET say where it is."""
    url = f"/v1/uploads/{CONTENT_HASH}"
    assert (await each_admin.head(url)).headers["upload-offset"] == "0"
    first = await each_admin.patch(url, headers=part(0, len(CONTENT)), content=CONTENT[:4])
    assert (first.status_code, first.headers["upload-offset"]) == (204, "4")
    assert (await each_admin.head(url)).headers["upload-offset"] == "4"
    assert (await each_admin.get(url)).json() == {"offset": 4, "complete": False}
    rest = await each_admin.patch(url, headers=part(4, len(CONTENT)), content=CONTENT[4:])
    assert rest.status_code == 201
    after = await each_admin.head(url)
    assert (after.headers["upload-offset"], after.headers["upload-length"]) == (str(len(CONTENT)),) * 2
    assert (await each_admin.get(f"/v1/blobs/{CONTENT_HASH}")).content == CONTENT
    again = await each_admin.patch(url, headers=part(0, len(CONTENT)), content=CONTENT)
    assert again.status_code == 201
    assert not list((each_house.state / "uploads").rglob(CONTENT_HASH))


async def test_a_connection_that_breaks_keeps_what_arrived(house: House, admin: httpx.AsyncClient) -> None:
    """The sender dies in the middle of a part: the bytes before are kept, and the rest completes the blob."""
    content = bytes(range(256)) * 16_384  # 4 MiB
    sha256 = hashlib.sha256(content).hexdigest()

    async def dying() -> AsyncIterator[bytes]:
        yield content[: 3 * 1024**2]
        raise ConnectionResetError("the sender died")

    with pytest.raises(ConnectionResetError):
        await house.service.uploads.append("default", sha256, offset=0, length=len(content), chunks=dying())
    offset = int((await admin.head(f"/v1/uploads/{sha256}")).headers["upload-offset"])
    assert offset == 3 * 1024**2
    rest = await admin.patch(f"/v1/uploads/{sha256}", headers=part(offset, len(content)), content=content[offset:])
    assert rest.status_code == 201


async def test_a_wrong_offset_is_told_the_right_one(admin: httpx.AsyncClient) -> None:
    """A part that does not go on where the upload is changes nothing."""
    url = f"/v1/uploads/{CONTENT_HASH}"
    await admin.patch(url, headers=part(0, len(CONTENT)), content=CONTENT[:4])
    for offset in (0, 3, 5):
        answer = await admin.patch(url, headers=part(offset, len(CONTENT)), content=CONTENT[offset:])
        assert problem_of(answer, 409)["code"] == "wrong_offset"
        assert answer.headers["upload-offset"] == "4"


async def test_corrupt_content_becomes_no_blob(house: House, admin: httpx.AsyncClient) -> None:
    """Content that does not hash to its name is refused and thrown away; the upload can start anew."""
    url = f"/v1/uploads/{CONTENT_HASH}"
    broken = CONTENT[:-2] + b"!\n"
    problem = problem_of(await admin.patch(url, headers=part(0, len(broken)), content=broken), 422)
    assert problem["code"] == "corrupt_upload"
    assert (await admin.head(url)).headers["upload-offset"] == "0"
    problem_of(await admin.get(f"/v1/blobs/{CONTENT_HASH}"), 404)
    assert await house.service.blobs.missing([CONTENT_HASH]) == {CONTENT_HASH}
    await upload(admin, CONTENT)


async def test_more_than_was_announced_is_refused(admin: httpx.AsyncClient) -> None:
    """The body may not go beyond Upload-Length, and both headers are needed."""
    url = f"/v1/uploads/{CONTENT_HASH}"
    problem_of(await admin.patch(url, headers=part(0, 3), content=CONTENT), 413)
    problem_of(await admin.patch(url, content=CONTENT), 422)
    problem_of(await admin.patch(f"/v1/uploads/{'x' * 64}", headers=part(0, 3), content=b"abc"), 422)


async def test_an_upload_has_a_limit(tmp_path: Path) -> None:
    """What is announced beyond the limit is refused before a byte is kept."""
    settings = ApiSettings(max_upload_bytes=10)
    async with open_house(tmp_path, f"sqlite:///{tmp_path}/isthmus.db", settings) as house:
        admin = house.client(house.admin)
        answer = await admin.patch(f"/v1/uploads/{CONTENT_HASH}", headers=part(0, 13), content=CONTENT)
        problem_of(answer, 413)
        assert not list((tmp_path / "uploads").rglob(CONTENT_HASH))


async def test_a_later_writer_takes_an_upload_over(house: House) -> None:
    """A half-open connection does not block its successor: it is told at its next chunk, and no byte is mixed."""
    content = bytes(range(256)) * 16_384
    sha256 = hashlib.sha256(content).hexdigest()
    uploads = house.service.uploads
    may_go_on = asyncio.Event()
    arrived = asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        yield content[: 1024**2]
        arrived.set()
        await may_go_on.wait()
        yield b"\xff" * 2 * 1024**2

    async def whole() -> AsyncIterator[bytes]:
        yield content[1024**2 :]

    first = asyncio.create_task(uploads.append("default", sha256, offset=0, length=len(content), chunks=stuck()))
    await arrived.wait()
    assert await uploads.append("default", sha256, offset=1024**2, length=len(content), chunks=whole()) == (
        len(content),
        True,
    )
    may_go_on.set()
    with pytest.raises(Exception, match="taken over"):
        await first
    assert await house.service.blobs.size(sha256) == len(content)
    assert uploads.offset("default", sha256) == 0


async def test_empty_content_is_content(admin: httpx.AsyncClient) -> None:
    """A file of no bytes is uploaded and read like any other."""
    sha256 = await upload(admin, b"")
    answer = await admin.get(f"/v1/blobs/{sha256}")
    assert (answer.status_code, answer.content) == (200, b"")


async def test_ranges_are_honoured(admin: httpx.AsyncClient) -> None:
    """One range gives that part; one outside gives 416; several, or nonsense, give the whole."""
    sha256 = await upload(admin, CONTENT)
    url = f"/v1/blobs/{sha256}"
    size = len(CONTENT)
    for wanted, start, stop in (
        ("bytes=0-0", 0, 1),
        ("bytes=2-5", 2, 6),
        ("bytes=6-", 6, size),
        ("bytes=-3", size - 3, size),
        ("bytes=-900", 0, size),
        ("bytes=1-900", 1, size),
    ):
        answer = await admin.get(url, headers={"Range": wanted})
        assert (answer.status_code, answer.content) == (206, CONTENT[start:stop]), wanted
        assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{size}"
    for wanted in ("bytes=0-1,3-4", "bytes=5-2", "lines=1-2", "bytes=-"):
        answer = await admin.get(url, headers={"Range": wanted})
        assert (answer.status_code, answer.content) == (200, CONTENT), wanted
    for wanted in (f"bytes={size}-", "bytes=-0"):
        problem_of(await admin.get(url, headers={"Range": wanted}), 416)


async def test_content_is_read_by_its_project_only(house: House, admin: httpx.AsyncClient) -> None:
    """Knowing a hash gives nothing: another project must upload the content to own it."""
    sha256 = await upload(admin, CONTENT)
    bo = house.client(house.person("bo", projects={"other": "member"}))
    problem_of(await bo.get(f"/v1/blobs/{sha256}"), 404)
    problem_of(await bo.get(f"/v1/blobs/{sha256}?project=other"), 404)
    asked = {"hashes": [sha256, "0" * 64, sha256]}
    assert (await bo.post("/v1/blobs:missing?project=other", json=asked)).json() == {"missing": [sha256, "0" * 64]}
    assert (await admin.post("/v1/blobs:missing", json=asked)).json() == {"missing": ["0" * 64]}
    assert (await bo.head(f"/v1/uploads/{sha256}?project=other")).headers["upload-offset"] == "0"
    await upload(bo, CONTENT, "other")
    assert (await bo.get(f"/v1/blobs/{sha256}?project=other")).content == CONTENT


async def test_a_lost_blob_can_be_sent_again(house: House, admin: httpx.AsyncClient) -> None:
    """Content whose file is gone counts as missing although the project owns it."""
    sha256 = await upload(admin, CONTENT)
    for path in (house.state / "blobs").rglob(sha256):
        path.unlink()
    assert (await admin.post("/v1/blobs:missing", json={"hashes": [sha256]})).json() == {"missing": [sha256]}
    problem_of(await admin.get(f"/v1/blobs/{sha256}"), 404)
    await upload(admin, CONTENT)
    assert (await admin.get(f"/v1/blobs/{sha256}")).content == CONTENT


async def test_forgotten_uploads_are_removed(house: House, admin: httpx.AsyncClient) -> None:
    """The purge removes what nobody went on with, and leaves what is young."""
    await admin.patch(f"/v1/uploads/{CONTENT_HASH}", headers=part(0, len(CONTENT)), content=CONTENT[:4])
    house.service.uploads.purge(3600)
    assert house.service.uploads.offset("default", CONTENT_HASH) == 4
    house.service.uploads.purge(-1)
    assert house.service.uploads.offset("default", CONTENT_HASH) == 0
