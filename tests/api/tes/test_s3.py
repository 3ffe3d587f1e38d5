"""Inputs and outputs at s3:// addresses, on a real S3 server."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from isthmus.lab.s3 import S3Server
from tests.api.tes.serving import Http


@pytest.fixture
def store(s3_server: S3Server) -> Iterator[Any]:
    """The server's own client."""
    client = s3_server.client()
    yield client
    client.close()


@pytest.fixture
def bucket(store: Any) -> str:
    """A fresh bucket."""
    name = f"tes-{uuid.uuid4().hex[:12]}"
    store.create_bucket(Bucket=name)
    return name


def test_objects_and_directories(http: Http, store: Any, bucket: str) -> None:
    """Objects and whole prefixes are fetched; files, directories and wildcards are put."""
    for key, body in {"in/a.txt": b"a", "in/deep/b c.txt": b"b", "other/x": b"x"}.items():
        store.put_object(Bucket=bucket, Key=key, Body=body)
    script = (
        "find /data -type f | sort > /out/found; mkdir -p /out/d/e /out/w;"
        "cat /data/in/a.txt '/data/in/deep/b c.txt' /data/x > /out/d/e/all; echo 1 > /out/w/1.sam"
    )
    shown = http.run(
        {
            "inputs": [
                {"url": f"s3://{bucket}/in/", "path": "/data/in", "type": "DIRECTORY"},
                {"url": f"s3://{bucket}/other/x", "path": "/data/x"},
            ],
            "volumes": ["/out"],
            "executors": [{"image": "alpine", "command": ["sh", "-c", script]}],
            "outputs": [
                {"path": "/out/found", "url": f"s3://{bucket}/out/found.txt"},
                {"path": "/out/d", "url": f"s3://{bucket}/out/d", "type": "DIRECTORY"},
                {"path": "/out/w/*.sam", "path_prefix": "/out/w", "url": f"s3://{bucket}/out/w/"},
            ],
        }
    )

    def read(key: str) -> bytes:
        body: bytes = store.get_object(Bucket=bucket, Key=key)["Body"].read()
        return body

    assert read("out/found.txt") == b"/data/in/a.txt\n/data/in/deep/b c.txt\n/data/x\n"
    assert (read("out/d/e/all"), read("out/w/1.sam")) == (b"abx", b"1\n")
    urls = {item["url"] for item in shown["logs"][0]["outputs"]}
    assert urls == {f"s3://{bucket}/out/found.txt", f"s3://{bucket}/out/d/e/all", f"s3://{bucket}/out/w/1.sam"}


@pytest.mark.parametrize(("key", "kind"), [("not-there", "FILE"), ("nothing-below", "DIRECTORY")])
def test_absent_objects(http: Http, bucket: str, key: str, kind: str) -> None:
    """An object that is not there ends the task as a system's error that names it."""
    shown = http.run(
        {
            "inputs": [{"url": f"s3://{bucket}/{key}", "path": "/data/x", "type": kind}],
            "executors": [{"image": "alpine", "command": ["true"]}],
        },
        "SYSTEM_ERROR",
    )
    assert any(key in line for log in shown["logs"] for line in log["system_logs"])


def test_bucket_that_cannot_be(http: Http) -> None:
    """An output whose bucket cannot exist ends the task as a system's error, and no secret is told."""
    shown = http.run(
        {
            "executors": [{"image": "alpine", "command": ["sh", "-c", "echo x > /out/x"]}],
            "volumes": ["/out"],
            "outputs": [{"path": "/out/x", "url": "s3://un!likely/x"}],
        },
        "SYSTEM_ERROR",
    )
    text = str(shown)
    assert "s3://un!likely/x" in text
    assert "Signature" not in text
