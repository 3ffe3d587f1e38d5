"""Delivering contents to s3, http and file addresses, against real servers."""

from __future__ import annotations

import hashlib
import json
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from isthmus.data import s3 as s3_module
from isthmus.data.delivery import Delivery, allowed_path, is_public, show
from isthmus.data.directory import DirectoryBlobStore
from isthmus.data.s3 import S3, S3Account, read_account, split
from isthmus.domain.errors import Corrupt, Invalid, Refused, Unavailable
from isthmus.lab.s3 import S3Server


@pytest.fixture
def blobs(tmp_path: Path) -> DirectoryBlobStore:
    """An empty store."""
    return DirectoryBlobStore(tmp_path / "blobs")


@pytest.fixture
def account(s3_server: S3Server) -> Iterator[S3]:
    """The account of the S3 server."""
    made = S3(
        S3Account(
            endpoint_url=s3_server.endpoint,
            access_key=s3_server.access_key,
            secret_key=s3_server.secret_key,
            region=s3_server.region,
        )
    )
    yield made
    made.close()


@pytest.fixture
def bucket(s3_server: S3Server) -> str:
    """A fresh bucket."""
    name = f"delivery-{uuid.uuid4().hex[:12]}"
    client = s3_server.client()
    client.create_bucket(Bucket=name)
    client.close()
    return name


def fetch(server: S3Server, bucket: str, key: str) -> bytes:
    """What lies in the bucket."""
    client = server.client()
    try:
        body: bytes = client.get_object(Bucket=bucket, Key=key)["Body"].read()
        return body
    finally:
        client.close()


class Taker(ThreadingHTTPServer):
    """An HTTP server that keeps what is put, and answers `status`."""

    def __init__(self) -> None:
        self.status = 201
        self.taken: dict[str, bytes] = {}
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    def do_PUT(self) -> None:
        server = self.server
        assert isinstance(server, Taker)
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        if len(body) == length and server.status < 300:
            server.taken[self.path] = body
        self.send_response(server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def taker() -> Iterator[Taker]:
    """A running server that takes PUT."""
    server = Taker()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


async def test_s3_small_and_again(blobs: DirectoryBlobStore, account: S3, bucket: str, s3_server: S3Server) -> None:
    """A small content arrives whole; delivering it again changes nothing; another content replaces it."""
    delivery = Delivery(s3=account)
    for content in (b"one", b"one", b"", b"two"):
        await delivery.deliver(blobs, await blobs.put_bytes(content), f"s3://{bucket}/a/b c.txt")
        assert fetch(s3_server, bucket, "a/b c.txt") == content


async def test_s3_in_parts(
    blobs: DirectoryBlobStore,
    account: S3,
    bucket: str,
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A large content travels in parts and arrives whole; a damaged one leaves nothing."""
    monkeypatch.setattr(s3_module, "SMALL_BYTES", 5 * 1024**2)
    content = b"".join(hashlib.sha256(str(number).encode()).digest() for number in range(360_000))
    sha256 = await blobs.put_bytes(content)
    await account.put(blobs, sha256, f"s3://{bucket}/large")
    assert fetch(s3_server, bucket, "large") == content
    with blobs.path_of(sha256).open("r+b") as file:
        file.seek(6 * 1024**2)
        file.write(b"damage")
    with pytest.raises(Corrupt):
        await account.put(blobs, sha256, f"s3://{bucket}/damaged")
    client = s3_server.client()
    try:
        names = [item["Key"] for item in client.list_objects_v2(Bucket=bucket)["Contents"]]
    finally:
        client.close()
    assert names == ["large"]


async def test_s3_refusals(blobs: DirectoryBlobStore, account: S3, bucket: str, s3_server: S3Server) -> None:
    """What can never work is Refused; a store that does not answer is Unavailable."""
    sha256 = await blobs.put_bytes(b"x")
    for url in (f"s3://{bucket}", f"s3://{bucket}/", "s3://un!likely/x"):
        with pytest.raises(Refused):
            await account.put(blobs, sha256, url)
    with pytest.raises(Refused):
        await Delivery().deliver(blobs, sha256, f"s3://{bucket}/x")
    stranger = S3(S3Account(endpoint_url=s3_server.endpoint, access_key=s3_server.access_key, secret_key="no"))
    with pytest.raises(Refused):
        await stranger.put(blobs, sha256, f"s3://{bucket}/x")
    stranger.close()
    nowhere = S3(S3Account(endpoint_url="http://127.0.0.1:9", access_key="a", secret_key="b"))
    with pytest.raises(Unavailable):
        await nowhere.put(blobs, sha256, "s3://bucket/x")
    nowhere.close()


async def test_s3_signing_and_listing(blobs: DirectoryBlobStore, account: S3, bucket: str) -> None:
    """A signed address names the object and no secret; a directory lists what lies below it."""
    for key in ("d/a", "d/e/b", "dd/c"):
        await account.put(blobs, await blobs.put_bytes(key.encode()), f"s3://{bucket}/{key}")
    assert await account.below(f"s3://{bucket}/d") == [
        ("a", f"s3://{bucket}/d/a"),
        ("e/b", f"s3://{bucket}/d/e/b"),
    ]
    with pytest.raises(Refused):
        await account.below(f"s3://{bucket}/none")
    assert f"/{bucket}/d/a?" in account(f"s3://{bucket}/d/a", "GET")
    with pytest.raises(Invalid):
        split("https://x/y")


async def test_http(blobs: DirectoryBlobStore, taker: Taker) -> None:
    """PUT delivers; refusals that will stay are Refused, those that pass are Unavailable; queries are not told."""
    delivery = Delivery(origins=[f"http://127.0.0.1:{taker.server_port}"])
    sha256 = await blobs.put_bytes(b"content")
    url = f"http://127.0.0.1:{taker.server_port}/x?key=secret"
    await delivery.deliver(blobs, sha256, url)
    assert taker.taken == {"/x?key=secret": b"content"}
    for status, error in ((403, Refused), (302, Refused), (429, Unavailable), (503, Unavailable)):
        taker.status = status
        with pytest.raises(error) as caught:
            await delivery.deliver(blobs, sha256, url)
        assert "secret" not in str(caught.value)
    with pytest.raises(Unavailable):
        await Delivery(origins=["http://127.0.0.1:9"]).deliver(blobs, sha256, "http://127.0.0.1:9/x")
    with pytest.raises(Refused):
        await delivery.deliver(blobs, sha256, "gopher://x/y")
    assert show("https://user:word@host:1/a?b=c") == "https://host:1/a"


async def test_http_damaged(blobs: DirectoryBlobStore, taker: Taker) -> None:
    """A damaged content is never put whole."""
    sha256 = await blobs.put_bytes(b"content" * 400_000)
    with blobs.path_of(sha256).open("r+b") as file:
        file.write(b"damage")
    with pytest.raises(Corrupt):
        await Delivery(origins=[f"http://127.0.0.1:{taker.server_port}"]).deliver(
            blobs, sha256, f"http://127.0.0.1:{taker.server_port}/x"
        )
    assert taker.taken == {}


async def test_file(blobs: DirectoryBlobStore, tmp_path: Path) -> None:
    """A file appears whole below an allowed directory, replaces an older one, and nothing else is left beside it."""
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    delivery = Delivery(directories=[allowed])
    for content in (b"one", b"two"):
        await delivery.deliver(blobs, await blobs.put_bytes(content), f"file://{allowed}/a/b%20c")
        assert (allowed / "a/b c").read_bytes() == content
    assert [path.name for path in (allowed / "a").iterdir()] == ["b c"]
    sha256 = await blobs.put_bytes(b"x")
    (allowed / "dir").mkdir()
    (allowed / "out").symlink_to(tmp_path)
    for url in (
        f"file://{tmp_path}/x",
        f"file://{allowed}/../x",
        f"file://{allowed}/out/x",
        f"file://{allowed}/dir",
        f"file://{allowed}/a/b%20c/x",
        f"file://elsewhere{allowed}/x",
    ):
        with pytest.raises(Refused):
            await delivery.deliver(blobs, sha256, url)
    assert not (tmp_path / "x").exists()
    with pytest.raises(Refused):
        allowed_path(f"file://{allowed}/x", [])


async def test_file_damaged(blobs: DirectoryBlobStore, tmp_path: Path) -> None:
    """A damaged content leaves no file, not even a part of one."""
    sha256 = await blobs.put_bytes(b"content")
    blobs.path_of(sha256).write_bytes(b"damaged")
    target = tmp_path / "out"
    target.mkdir()
    with pytest.raises(Corrupt):
        await Delivery(directories=[target]).deliver(blobs, sha256, f"file://{target}/x")
    assert list(target.iterdir()) == []


def test_account_file(tmp_path: Path) -> None:
    """The account is read from a file that only its owner reads; anything else is refused without telling the secret."""
    path = tmp_path / "s3.json"
    assert read_account(path) is None
    path.write_text(json.dumps({"access_key": "a", "secret_key": "hush", "endpoint_url": "http://x"}))
    path.chmod(0o644)
    with pytest.raises(Refused, match="read by others"):
        read_account(path)
    path.chmod(0o600)
    account = read_account(path)
    assert account is not None
    assert (account.access_key, account.region) == ("a", "us-east-1")
    assert "hush" not in repr(account)
    for body in ("[]", "{", '{"access_key": "a"}', '{"access_key": "a", "secret_key": "hush", "more": "x"}'):
        path.write_text(body)
        with pytest.raises(Refused) as caught:
            read_account(path)
        assert "hush" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "127.1"])
async def test_http_reaches_nothing_inside(blobs: DirectoryBlobStore, taker: Taker, host: str) -> None:
    """Without the operator's word no user can make the service call its own host."""
    sha256 = await blobs.put_bytes(b"content")

    with pytest.raises(Refused, match="not on the public internet"):
        await Delivery().deliver(blobs, sha256, f"http://{host}:{taker.server_port}/x")

    assert taker.taken == {}


def test_what_is_public() -> None:
    """Private, shared, link-local and disguised addresses are not public."""
    inside = [
        "10.0.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "fe80::1%eth0",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "224.0.0.1",
    ]
    assert not any(is_public(address) for address in inside)
    assert all(is_public(address) for address in ("1.1.1.1", "2606:4700::1111"))
