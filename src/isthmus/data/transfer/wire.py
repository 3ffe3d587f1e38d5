"""What puller and server say to one another over one TLS connection.

The puller greets, shows the list of contents where the server asks for it, and then asks for ranges, any number ahead; the server answers
in the sequence of the questions. Every message has a head of one byte of kind and four of length (big-endian); the bytes of contents follow
a DATA head without further marks.

    puller                                   server
    HELLO   JSON                             READY, or SHOW: the list of contents is not known
    LIST    40 bytes for each content        READY (a short list follows HELLO at once, asked for or not)
    PIECES  index                            ANSWER 32 bytes for each piece
    RANGE   index, offset, length            DATA, then as many bytes
    BUNDLE  first index, count               DATA, then the contents end to end
    RATE    bytes per second, 0: no bound    (nothing)
                                             WAIT: not here yet, the answer comes later; LATER: ask again; NO: JSON, why not
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
from enum import IntEnum
from typing import Any, Final

from isthmus.data.transfer.pieces import SMALL_BYTES
from isthmus.domain.errors import Unavailable

VERSION: Final = 1
HEAD: Final = struct.Struct(">BI")
RANGE: Final = struct.Struct(">IQI")
BUNDLE: Final = struct.Struct(">II")
INDEX: Final = struct.Struct(">I")
RATE: Final = struct.Struct(">Q")
LONGEST_QUESTION: Final = 11 * 1024**2  # a list of contents
LONGEST_ANSWER: Final = 64 * 1024**2
WAIT_SECONDS: Final = 1.0
"""How often a server that waits says so."""
MOST_FILES: Final = 512
MOST_BUNDLE_BYTES: Final = SMALL_BYTES


class Kind(IntEnum):
    """Of a message."""

    HELLO = 1
    LIST = 2
    PIECES = 3
    RANGE = 4
    BUNDLE = 5
    RATE = 6
    READY = 16
    SHOW = 17
    ANSWER = 18
    DATA = 19
    WAIT = 20
    LATER = 21
    NO = 22
    LIMITS = 23
    """JSON {hash: [regions]}: limits of what the next DATA holds."""


Connection = socket.socket | ssl.SSLSocket


class Closed(Unavailable):
    """The other end closed the connection, or spoke something else."""

    def __init__(self, cause: str = "The other end closed the connection.") -> None:
        super().__init__(cause)


def send(connection: Connection, kind: Kind, body: bytes = b"") -> None:
    """Send one message."""
    connection.sendall(HEAD.pack(kind, len(body)) + body)


def send_json(connection: Connection, kind: Kind, fields: dict[str, Any]) -> None:
    """Send one message whose body is JSON."""
    send(connection, kind, json.dumps(fields, separators=(",", ":")).encode())


def receive_head(connection: Connection) -> tuple[Kind, int]:
    """Kind and length of the next message; Closed when there is none."""
    head = memoryview(bytearray(HEAD.size))
    fill(connection, head)
    return read_head(head)


def read_head(head: memoryview) -> tuple[Kind, int]:
    """Kind and length in a head; Closed when the kind is not known."""
    kind, length = HEAD.unpack(head)
    try:
        return Kind(kind), length
    except ValueError:
        raise Closed(f"The other end sent a message of the unknown kind {kind}.") from None


def receive_body(connection: Connection, length: int, most: int) -> bytes:
    """The body of a message; Closed when it is longer than it may be."""
    if length > most:
        raise Closed(f"The other end announced {length} bytes where at most {most} are right.")
    body = bytearray(length)
    fill(connection, memoryview(body))
    return bytes(body)


def read_json(body: bytes) -> dict[str, Any]:
    """The fields in a JSON body; Closed when it holds none."""
    try:
        fields = json.loads(body)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise Closed("The other end sent what is not JSON.")
    return fields


def fill(connection: Connection, buffer: memoryview) -> None:
    """Receive until the buffer is full; Closed when the other end closes before."""
    done = 0
    while done < len(buffer):
        got = connection.recv_into(buffer[done:])
        if got == 0:
            raise Closed
        done += got
