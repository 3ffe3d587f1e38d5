"""Uploads send only what is missing and resume; downloads resume, are checked, and appear whole or not at all."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import httpx
import pytest

from isthmus.client import Client, transfer
from isthmus.client.config import Profile
from isthmus.client.records import Output
from isthmus.client.workdir import Content, hash_bytes, hash_file
from isthmus.domain.errors import Corrupt, Refused

PROFILE = Profile(url="http://isthmus.test", token="t")


class Blobs:
    """A store of blobs over HTTP, with faults on demand: `lose` answers after they were carried out, `break_after` bytes."""

    def __init__(self) -> None:
        self.whole: dict[str, bytes] = {}
        self.parts: dict[str, bytes] = {}
        self.received = 0
        self.lose = 0
        self.ranges: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        sha256 = request.url.path.rsplit("/", 1)[-1]
        if request.url.path == "/v1/blobs:missing":
            hashes = json.loads(request.content)["hashes"]
            return httpx.Response(200, json={"missing": [one for one in hashes if one not in self.whole]})
        if request.method == "HEAD":
            return httpx.Response(200, headers={"Upload-Offset": str(len(self.parts.get(sha256, b"")))})
        if request.method == "PATCH":
            return self._patch(sha256, request)
        start, _, end = request.headers["Range"].removeprefix("bytes=").partition("-")
        self.ranges.append(request.headers["Range"])
        return httpx.Response(206, content=self.whole[sha256][int(start) : int(end) + 1])

    def _patch(self, sha256: str, request: httpx.Request) -> httpx.Response:
        have = self.parts.get(sha256, b"")
        if int(request.headers["Upload-Offset"]) != len(have):
            return httpx.Response(409, headers={"Upload-Offset": str(len(have))}, json={"code": "conflict"})
        self.parts[sha256] = have + request.content
        self.received += len(request.content)
        done = len(self.parts[sha256]) == int(request.headers["Upload-Length"])
        if done:
            content = self.parts.pop(sha256)
            if hashlib.sha256(content).hexdigest() != sha256:
                return httpx.Response(422, json={"code": "corrupt", "detail": "hash"})
            self.whole[sha256] = content
        if self.lose:
            self.lose -= 1
            raise httpx.ReadError("cut")
        return (
            httpx.Response(201)
            if done
            else httpx.Response(204, headers={"Upload-Offset": str(len(self.parts[sha256]))})
        )


@pytest.fixture
def blobs(monkeypatch: pytest.MonkeyPatch) -> Blobs:
    """A store, and pieces of ten bytes."""
    monkeypatch.setattr(transfer, "PIECE_BYTES", 10)
    monkeypatch.setattr("isthmus.client.wire.FIRST_PAUSE_SECONDS", 0.001)
    return Blobs()


def _upload(blobs: Blobs, *contents: Content) -> int:
    with Client(profile=PROFILE, transport=httpx.MockTransport(blobs)) as client:
        return client.run(transfer.upload(contents, project="p"))


def _download(blobs: Blobs, output: Output, to: Path) -> Path:
    with Client(profile=PROFILE, transport=httpx.MockTransport(blobs)) as client:
        return client.run(transfer.download(output, to, project="p"))


def _output(content: bytes, path: str = "out") -> Output:
    return Output(path=path, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))


@pytest.mark.parametrize("content", [b"", b"x", b"0123456789", bytes(range(256)) * 3])
def test_content_arrives(blobs: Blobs, tmp_path: Path, content: bytes) -> None:
    """Empty, one piece, many pieces; from a file or from memory."""
    (tmp_path / "f").write_bytes(content)
    assert _upload(blobs, hash_file(tmp_path / "f")) == len(content)
    assert blobs.whole == {hashlib.sha256(content).hexdigest(): content}


def test_what_is_there_is_not_sent_again(blobs: Blobs) -> None:
    """The second time nothing goes over the wire, however often the content is named."""
    same = hash_bytes(b"same")
    assert _upload(blobs, same, same) == 4
    assert _upload(blobs, same) == 0
    assert blobs.received == 4


def test_an_upload_goes_on_where_it_stopped(blobs: Blobs) -> None:
    """Bytes that arrived in an earlier try are not sent again."""
    content = hash_bytes(b"0123456789abcdefghij-end")
    blobs.parts[content.sha256] = b"0123456789abcde"
    _upload(blobs, content)
    assert blobs.received == 9
    assert content.sha256 in blobs.whole


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_lost_answers_do_no_harm(blobs: Blobs, lost: int) -> None:
    """A piece whose answer is lost is not appended twice, the last one included."""
    content = hash_bytes(b"0123456789abcdefghij-end")
    blobs.lose = lost
    _upload(blobs, content)
    assert content.sha256 in blobs.whole
    assert blobs.received == 24


def test_a_file_that_changes_meanwhile_is_an_error(blobs: Blobs, tmp_path: Path) -> None:
    """Content that no longer is what was hashed is never taken for it."""
    file = tmp_path / "f"
    file.write_bytes(b"0123456789abcdef")
    content = hash_file(file)
    file.write_bytes(b"0123")
    with pytest.raises(Corrupt):
        _upload(blobs, content)
    assert not blobs.whole


@pytest.mark.parametrize("size", [7, 10, 33])
def test_a_file_that_grows_meanwhile_is_sent_as_it_was_hashed(blobs: Blobs, tmp_path: Path, size: int) -> None:
    """What is appended behind, as to a log, does not keep a file from being sent."""
    path = tmp_path / "run.log"
    path.write_bytes(b"x" * size)
    content = hash_file(path)
    path.write_bytes(b"x" * size + b"one more line")
    _upload(blobs, content)
    assert blobs.whole == {content.sha256: b"x" * size}


def test_a_download_is_whole_and_executable(blobs: Blobs, tmp_path: Path) -> None:
    """Content, mode, directories on the way, and no partial file left."""
    content = b"0123456789abcdefghij-end"
    output = Output(path="bin/x", sha256=hashlib.sha256(content).hexdigest(), size_bytes=24, executable=True)
    blobs.whole[output.sha256] = content
    to = _download(blobs, output, tmp_path / "bin/x")
    assert to.read_bytes() == content
    assert to.stat().st_mode & 0o777 == 0o755
    assert [path.name for path in to.parent.iterdir()] == ["x"]


def test_a_download_goes_on_where_it_stopped(blobs: Blobs, tmp_path: Path) -> None:
    """What an earlier try left is kept, and what is there already is not fetched."""
    content = b"0123456789abcdefghij-end"
    output = _output(content)
    blobs.whole[output.sha256] = content
    (tmp_path / f".out.{output.sha256[:16]}.part").write_bytes(content[:12])
    _download(blobs, output, tmp_path / "out")
    assert blobs.ranges == ["bytes=12-21", "bytes=22-23"]
    _download(blobs, output, tmp_path / "out")
    assert len(blobs.ranges) == 2


def test_wrong_content_never_takes_the_name(blobs: Blobs, tmp_path: Path) -> None:
    """A wrong hash is Corrupt, the earlier file stays, and the next try begins anew."""
    output = _output(b"right")
    blobs.whole[output.sha256] = b"wrong"
    (tmp_path / "out").write_bytes(b"earlier")
    with pytest.raises(Corrupt):
        _download(blobs, output, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out").read_bytes() == b"earlier"


@pytest.mark.parametrize("path", ["../x", "/../x", "a/../../x", "", "/"])
def test_an_output_does_not_leave_the_directory(tmp_path: Path, path: str) -> None:
    """A path that a service answers cannot write elsewhere."""
    with pytest.raises(Refused):
        transfer.local_path(path, tmp_path)
    assert transfer.local_path("/abs/x", tmp_path) == tmp_path / "abs/x"
