"""The authority of sites: what it issues is taken by TLS on both sides, and says who a site is."""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path

import pytest

from isthmus.domain.errors import Invalid, Refused
from isthmus.trust.authority import Authority, Issued, make_request


def context(side: ssl._SSLMethod, issued: Issued, directory: Path, key: bytes | None = None) -> ssl.SSLContext:
    """One side of a connection that shows its certificate and wants the other's."""
    pem = directory / f"{id(issued)}.pem"
    pem.write_bytes((key or issued.key or b"") + issued.certificate)
    made = ssl.SSLContext(side)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_REQUIRED
    made.load_cert_chain(pem)
    made.load_verify_locations(cadata=issued.authority.decode())
    return made


def names(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[str, ...]:
    """The names in the client's certificate, as the server sees them after a handshake."""
    one, other = socket.socketpair()
    thread = threading.Thread(target=lambda: client.wrap_socket(one).recv(1))
    thread.start()
    with other, server.wrap_socket(other, server_side=True) as secured:
        secured.sendall(b"x")
        certificate = secured.getpeercert()
    thread.join(5)
    one.close()
    assert certificate
    return tuple(str(value) for _kind, value in certificate["subjectAltName"])  # type: ignore[index,misc]


def test_two_sites_know_each_other(tmp_path: Path) -> None:
    """Name and region come through; one site made its own key, which the authority never saw."""
    authority = Authority.open(tmp_path / "authority")
    north = authority.issue("north", region="cn-east")
    key, request = make_request("anything")
    south = Authority.open(tmp_path / "authority").issue("south", request=request)
    assert south.key is None
    server = context(ssl.PROTOCOL_TLS_SERVER, south, tmp_path, key)
    assert names(server, context(ssl.PROTOCOL_TLS_CLIENT, north, tmp_path)) == (
        "isthmus:site:north",
        "isthmus:region:cn-east",
    )


def test_a_site_of_another_authority_is_a_stranger(tmp_path: Path) -> None:
    """Its handshake fails."""
    ours, theirs = Authority.open(tmp_path / "a"), Authority.open(tmp_path / "b")
    stranger = theirs.issue("north")
    fooled = Issued(certificate=stranger.certificate, key=stranger.key, authority=ours.certificate)
    one, other = socket.socketpair()
    client = context(ssl.PROTOCOL_TLS_CLIENT, fooled, tmp_path)

    def connect() -> None:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            client.wrap_socket(one).recv(1)
        one.close()

    thread = threading.Thread(target=connect)
    thread.start()
    with other, pytest.raises(ssl.SSLError):
        context(ssl.PROTOCOL_TLS_SERVER, ours.issue("south"), tmp_path).wrap_socket(other, server_side=True)
    thread.join(5)


def test_what_is_asked_for_is_checked(tmp_path: Path) -> None:
    """Names that are none, and requests that are none."""
    authority = Authority.open(tmp_path / "authority")
    with pytest.raises(Invalid, match="no name"):
        authority.issue("North Pole")
    with pytest.raises(Invalid, match="no name"):
        authority.issue("north", region="a/b")
    with pytest.raises(Invalid, match="no request"):
        authority.issue("north", request=b"garbage")


def test_its_keys_are_its_own(tmp_path: Path) -> None:
    """Files of mode 0600 in a directory that others may not read."""
    Authority.open(tmp_path / "authority")
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "authority").iterdir()} == {0o600}
    (tmp_path / "authority").chmod(0o755)
    with pytest.raises(Refused, match="Others may read"):
        Authority.open(tmp_path / "authority")
