"""Cold stores: one behaviour, over a directory, a real S3 server and a real SFTP server."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from isthmus.data.cold import ColdStore
from isthmus.data.transfer.keep import Keep
from isthmus.domain.errors import Corrupt, Invalid, NotFound
from isthmus.lab.s3 import S3Server
from isthmus.lab.sshd import SshServer

Damage = Callable[[str, bytes], None]


def _goes_out_and_comes_back(store: ColdStore, keep: Keep, source: Path, damage: Damage) -> None:
    """A content leaves the keep and comes back equal; again changes nothing; what was damaged is not let in."""
    content = os.urandom(3_000_000)
    source.write_bytes(content)
    blake3 = keep.put_file(source).blake3
    assert not store.has(blake3)
    store.put(keep, blake3)
    store.put(keep, blake3)
    assert store.has(blake3)
    keep.remove(blake3)
    store.get(keep, blake3)
    assert keep.path_of(blake3).read_bytes() == content
    keep.remove(blake3)
    store.check(keep, blake3)
    assert not keep.has(blake3)  # it was read, and stays cold
    damage(f"objects/{blake3[:2]}/{blake3[2:4]}/{blake3}", content[:-1] + b"x")
    with pytest.raises(Corrupt):
        store.get(keep, blake3)
    with pytest.raises(Corrupt):
        store.check(keep, blake3)
    assert not keep.has(blake3)
    assert not store.has(blake3)  # a good one is not stored beside one of its size
    store.remove(blake3)
    with pytest.raises(NotFound):
        store.get(keep, blake3)
    assert not list(keep.incoming.iterdir())


def test_a_directory(tmp_path: Path) -> None:
    """A slow file system."""
    cold = tmp_path / "cold"
    store = ColdStore(f"file://{cold}")
    _goes_out_and_comes_back(
        store, Keep(tmp_path / "keep"), tmp_path / "f", lambda p, c: (cold / p).write_bytes(c) and None
    )


@pytest.mark.real
def test_a_bucket(tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3, as SeaweedFS speaks it; credentials from the environment."""
    client = s3_server.client()
    client.create_bucket(Bucket="cold")
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT", s3_server.endpoint)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")

    def damage(path: str, content: bytes) -> None:
        client.put_object(Bucket="cold", Key=f"archive/{path}", Body=content)

    _goes_out_and_comes_back(ColdStore("s3://cold/archive"), Keep(tmp_path / "keep"), tmp_path / "f", damage)
    client.close()


@pytest.mark.real
def test_an_sftp_server(tmp_path: Path, ssh_server: SshServer) -> None:
    """SFTP, as OpenSSH speaks it."""
    cold = Path(ssh_server.run("mktemp -d").strip())
    url = f"sftp://{ssh_server.username}@{ssh_server.host}:{ssh_server.port}{cold}"
    store = ColdStore(url, client_keys=[str(ssh_server.client_key)], known_hosts=str(ssh_server.known_hosts))

    def damage(path: str, content: bytes) -> None:
        (cold / path).write_bytes(content)

    try:
        _goes_out_and_comes_back(store, Keep(tmp_path / "keep"), tmp_path / "f", damage)
    finally:
        ssh_server.run(f"rm -rf {cold}")


def test_what_is_no_store_is_named(tmp_path: Path) -> None:
    """Other schemes, and passwords in a URL."""
    for url in ("ftp://x/y", "sftp://me:secret@host/dir", "/plain"):
        with pytest.raises(Invalid):
            ColdStore(url)
