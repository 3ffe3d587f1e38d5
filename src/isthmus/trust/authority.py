"""The authority that names sites to one another: ordinary X.509, a root of its own and certificates of sites for TLS.

A site's certificate carries its name and its region as URIs in the subject's alternative name: `isthmus:site:NAME` and
`isthmus:region:REGION`. Whoever holds it is that site for data servers and pullers of other sites, so it is short-lived and given anew.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from isthmus.domain.errors import Corrupt, Invalid, Refused
from isthmus.domain.ids import is_name

_EARLY = timedelta(minutes=5)  # clocks of sites differ
_ROOT_DAYS = 3650


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """PEM files of one site; the key is None where the site made its own."""

    certificate: bytes
    key: bytes | None
    authority: bytes


class Authority:
    """Issues certificates, and holds the key that signs transfer tickets. All its files are below one directory of mode 0700."""

    def __init__(
        self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, ticket_key: Ed25519PrivateKey
    ) -> None:
        self._key = key
        self._root = certificate
        self.ticket_key = ticket_key

    @classmethod
    def open(cls, directory: Path, *, now: datetime | None = None) -> Authority:
        """The authority of a directory, made when there is none. Refused when others may read it, Corrupt when it does not open."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if directory.stat().st_mode & 0o077:
            raise Refused(
                f"Others may read the directory {directory.name} of the authority.", remedy="Run chmod 700 on it."
            )
        root, key, ticket = (directory / name for name in ("authority.pem", "authority.key", "tickets.key"))
        if not root.exists():  # written last
            fresh = ec.generate_private_key(ec.SECP256R1())
            _write(key, _private(fresh))
            _write(ticket, _private(Ed25519PrivateKey.generate()))
            _write(root, _make_root(fresh, now or datetime.now(UTC)).public_bytes(serialization.Encoding.PEM))
        try:
            signing = serialization.load_pem_private_key(key.read_bytes(), None)
            tickets = serialization.load_pem_private_key(ticket.read_bytes(), None)
            certificate = x509.load_pem_x509_certificate(root.read_bytes())
        except (OSError, ValueError) as error:
            raise Corrupt(
                f"The authority's files do not open: {error}.", remedy="Restore them from your backup."
            ) from None
        if not isinstance(signing, ec.EllipticCurvePrivateKey) or not isinstance(tickets, Ed25519PrivateKey):
            raise Corrupt("The authority's keys are of another kind.", remedy="Restore them from your backup.")
        return cls(signing, certificate, tickets)

    @property
    def certificate(self) -> bytes:
        """The root's certificate as PEM."""
        return self._root.public_bytes(serialization.Encoding.PEM)

    @property
    def ticket_public_key(self) -> bytes:
        """What data servers check tickets with, as PEM."""
        public = self.ticket_key.public_key()
        return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    def issue(
        self,
        site: str,
        *,
        region: str = "",
        days: float = 30.0,
        request: bytes | None = None,
        now: datetime | None = None,
    ) -> Issued:
        """A certificate for a site. `request`: a PEM signing request, so that the key never leaves the site; what it asks for besides
        its key is not looked at. Without one a key is made. Invalid when the name, the region or the request is not right."""
        for field, value in (("site", site), ("region", region or "none")):
            if not is_name(value):
                raise Invalid(
                    field, f"{value[:80]!r} is no name.", remedy="Use small letters, digits, dots and dashes."
                )
        key: ec.EllipticCurvePrivateKey | None = None
        if request is None:
            key = ec.generate_private_key(ec.SECP256R1())
            public: ec.EllipticCurvePublicKey = key.public_key()
        else:
            public = _requested(request)
        begin = now or datetime.now(UTC)
        uris = [f"isthmus:site:{site}"] + ([f"isthmus:region:{region}"] if region else [])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, site)]))
            .issuer_name(self._root.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin - _EARLY)
            .not_valid_after(min(begin + timedelta(days=days), self._root.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris]), critical=False
            )
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Issued(
            certificate=certificate.public_bytes(serialization.Encoding.PEM),
            key=_private(key) if key is not None else None,
            authority=self.certificate,
        )


def make_request(site: str) -> tuple[bytes, bytes]:
    """A fresh key and the request for its certificate, both PEM: made at the site, which sends the request alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, site)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return _private(key), request.public_bytes(serialization.Encoding.PEM)


def read_ticket_key(pem: bytes) -> Ed25519PublicKey:
    """The key that tickets are checked with; Invalid when the text holds none."""
    try:
        key = serialization.load_pem_public_key(pem)
    except ValueError:
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise Invalid(
            "ticket_key", "The text holds no Ed25519 key.", remedy="Take the one that the control plane gives."
        )
    return key


def _requested(request: bytes) -> ec.EllipticCurvePublicKey:
    try:
        read = x509.load_pem_x509_csr(request)
        public = read.public_key()
        if read.is_signature_valid and isinstance(public, ec.EllipticCurvePublicKey) and public.key_size >= 256:
            return public
    except ValueError:
        pass
    raise Invalid("request", "It is no request for a key on P-256 or above.", remedy="Make it with make_request.")


def _make_root(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Isthmus sites")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLY)
        .not_valid_after(now + timedelta(days=_ROOT_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _private(key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all, readable by the owner alone."""
    fresh = path.with_name(f"{path.name}.new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
