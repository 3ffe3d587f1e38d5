"""The data server of a site: hands contents of its keep to other sites that show a ticket. Runs as an ordinary user.

One thread for each connection (`talk`).
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from isthmus.data.transfer import sockets, wire
from isthmus.data.transfer.keep import Keep
from isthmus.data.transfer.listening import Guest, Listener
from isthmus.data.transfer.port import Credentials
from isthmus.data.transfer.sessions import Sessions
from isthmus.data.transfer.talk import Served, Talk
from isthmus.domain.errors import Refused

_log = logging.getLogger(__name__)
_HANDSHAKE_SECONDS: Final = 10.0
_IDLE_SECONDS: Final = 90.0

OnServed = Callable[[Served], None]


class Server:
    """Listens from `start` to `stop`, or as a context. `host` empty: on all addresses; `port` 0: a free one, told by `port`.

    Refused when the certificate does not load, Unavailable when the address cannot be had.
    """

    def __init__(
        self,
        keep: Keep,
        credentials: Credentials,
        *,
        ticket_keys: Sequence[Ed25519PublicKey],
        host: str = "",
        port: int = 0,
        congestion_control: str = "bbr",
        multipath: bool = False,
        most_connections: int = 512,
        on_served: OnServed | None = None,
    ) -> None:
        self.keep = keep
        self.ticket_keys = tuple(ticket_keys)
        self.congestion_control = congestion_control
        self.sessions = Sessions()
        self.site = site_of(credentials)
        self.on_served = on_served
        self._context = sockets.server_context(credentials)
        self._multipath = multipath
        self._listener = Listener("data server", self._serve, host=host, port=port, most_connections=most_connections)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._listener.port

    def start(self) -> Self:
        """Listen."""
        self._listener.start(multipath=self._multipath)
        return self

    def stop(self) -> None:
        """End all connections."""
        self._listener.stop()

    def _serve(self, guest: Guest) -> None:
        talk = None
        try:
            plain = guest.connection
            plain.settimeout(_HANDSHAKE_SECONDS)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # Before the handshake: an algorithm that starts later starts slowly.
            used = sockets.control_congestion(plain, self.congestion_control)
            secured = self._context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
            guest.became(secured)
            secured.do_handshake()
            guest.greeted()
            secured.settimeout(_IDLE_SECONDS)
            talk = Talk(self, secured, used)
            talk.run()
        except (OSError, wire.Closed):
            pass  # the other end went away; it knows why
        except Exception:
            _log.exception("a transfer connection ended by a defect")
        finally:
            if talk is not None:
                talk.end()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def site_of(credentials: Credentials) -> str:
    """The site that a certificate names; Refused when it cannot be read or names none."""
    try:
        read = x509.load_pem_x509_certificate(credentials.certificate.read_bytes())
        names = read.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (OSError, ValueError, x509.ExtensionNotFound) as error:
        raise Refused(
            f"The certificate {credentials.certificate} cannot be read: {error}.", code="certificate"
        ) from None
    for uri in uris:
        if uri.startswith("isthmus:site:"):
            return uri.removeprefix("isthmus:site:")
    raise Refused(f"The certificate {credentials.certificate} names no site.", code="certificate")
