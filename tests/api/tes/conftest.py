"""A real server with the local site, whose images are this host's own system in a sandbox, and an S3 account."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from isthmus.lab.s3 import S3Server
from tests.api.tes.serving import Http, TesServer, join_site


@pytest.fixture(scope="session")
def tes_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server keeps its things."""
    return tmp_path_factory.mktemp("tes")


@pytest.fixture(scope="session")
def tes_files(tes_directory: Path) -> Path:
    """The directory that file:// addresses may lead into."""
    files = tes_directory / "files"
    files.mkdir()
    return files


@pytest.fixture(scope="session")
def tes_server(tes_directory: Path, tes_files: Path, s3_server: S3Server) -> Iterator[TesServer]:
    """The server, with an S3 account and one site."""
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    state = tes_directory / "state"
    state.mkdir(mode=0o700)
    account = state / "s3.json"
    account.touch(mode=0o600)
    account.write_text(
        json.dumps(
            {
                "endpoint_url": s3_server.endpoint,
                "access_key": s3_server.access_key,
                "secret_key": s3_server.secret_key,
                "region": s3_server.region,
            }
        )
    )
    server = TesServer(state, tes_files)
    try:
        server.start()
        join_site(server, tes_directory / "site")
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def http(tes_server: TesServer) -> Iterator[Http]:
    """Plain HTTP with the administrator's token."""
    with httpx.Client(headers={"Authorization": f"Bearer {tes_server.token}"}, timeout=60, trust_env=False) as client:
        yield Http(tes_server, client)
