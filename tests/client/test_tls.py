"""TLS against a real server: the authority that is named is trusted, no other, and the name of the host counts."""

from __future__ import annotations

import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from isthmus.agent.link import make_client
from isthmus.client import Client
from isthmus.client.config import Profile
from isthmus.domain.errors import IsthmusError


def _certificate(directory: Path, name: str, subject: str) -> tuple[Path, Path]:
    """A certificate that is its own authority, and its key."""
    directory.mkdir()
    certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    words += ["-days", "2", "-subj", "/CN=isthmus-test", "-addext", f"subjectAltName={subject}"]
    subprocess.run([*words, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    return certificate, key


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b'{"items": [], "next_cursor": null}'
        self.server.seen.append(self.headers.get("Authorization", ""))  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    def __init__(self, certificate: Path, key: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[str] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that refuses the certificate breaks the connection, as it should."""


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Any]:
    """Start a TLS server whose certificate is for a subject; answers it and the certificate."""
    running: list[tuple[_Server, threading.Thread]] = []

    def start(subject: str) -> tuple[_Server, Path]:
        certificate, key = _certificate(tmp_path / f"tls{len(running)}", "server", subject)
        server = _Server(certificate, key)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        running.append((server, thread))
        return server, certificate

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()


def _profile(server: _Server, ca_file: Path | None) -> Profile:
    url = f"https://127.0.0.1:{server.server_port}"
    return Profile(url=url, token="secret-token", ca_file=str(ca_file or ""))


def test_the_client_trusts_the_named_authority_only(serve: Any, tmp_path: Path) -> None:
    """With the authority's file the call arrives; without it, or with another, not even the token leaves."""
    server, certificate = serve("IP:127.0.0.1")
    other, _ = _certificate(tmp_path / "other", "other", "IP:127.0.0.1")
    for ca_file in (None, other):
        with Client(profile=_profile(server, ca_file)) as client, pytest.raises(IsthmusError) as caught:
            client.sites()
        assert "secret-token" not in str(caught.value)
    assert server.seen == []

    with Client(profile=_profile(server, certificate)) as client:
        client.sites()
    assert server.seen == ["Bearer secret-token"]


def test_the_name_of_the_host_counts(serve: Any) -> None:
    """A certificate of a trusted authority for another host is refused."""
    server, certificate = serve("DNS:elsewhere.test")
    with Client(profile=_profile(server, certificate)) as client, pytest.raises(IsthmusError):
        client.sites()
    assert server.seen == []


async def test_the_agent_trusts_the_named_authority_only(serve: Any) -> None:
    """The agent's --ca-file is what its connection is checked with."""
    server, certificate = serve("IP:127.0.0.1")
    url = f"https://127.0.0.1:{server.server_port}"
    async with make_client(url, token="secret-token") as client:
        with pytest.raises(httpx.ConnectError):
            await client.get("/v1/me")
    assert server.seen == []
    async with make_client(url, token="secret-token", ca_file=certificate) as client:
        assert (await client.get("/v1/me")).status_code == 200
    assert server.seen == ["Bearer secret-token"]
