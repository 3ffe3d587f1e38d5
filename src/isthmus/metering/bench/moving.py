"""Storage and network: bytes per second to and from a directory, and over TCP to this node itself or to a peer."""

from __future__ import annotations

import os
import socket
import struct
import time

from isthmus.metering.bench import spread
from isthmus.metering.bench.limits import read

BLOCK = 4 * 1024**2
FILE_BYTES = 64 * 1024**2
SLICES = 10
_LENGTH = struct.Struct("!Q")


def storage(directory: str, seconds: float) -> dict[str, spread.Measure]:
    """Write (flushed to the device) and read (after the kernel was asked to forget the pages) of files of 64 MiB."""
    content = os.urandom(BLOCK)
    free = os.statvfs(directory)
    blocks = max(1, min(FILE_BYTES, free.f_bavail * free.f_frsize // 4) // BLOCK)
    path = os.path.join(directory, f".isthmus-bench-{os.getpid()}")
    size = float(blocks * BLOCK)
    by = f"{filesystem(directory)}, {blocks * BLOCK // 1024**2} MiB"

    def write() -> None:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            for _ in range(blocks):
                view = memoryview(content)
                while view:
                    view = view[os.write(handle, view) :]
            os.fsync(handle)
        finally:
            os.close(handle)

    def read_back() -> None:
        handle = os.open(path, os.O_RDONLY)
        try:
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            while os.read(handle, BLOCK):
                pass
        finally:
            os.close(handle)

    try:
        return {
            "storage_write_bytes_per_second": spread.summarise(spread.rates(write, size, seconds), by),
            "storage_read_bytes_per_second": spread.summarise(spread.rates(read_back, size, seconds), by),
        }
    finally:
        if os.path.exists(path):
            os.unlink(path)


def filesystem(directory: str) -> str:
    """The kind of file system that holds a directory."""
    best = ("", "file system not known")
    real = os.path.realpath(directory)
    for line in read("/proc/mounts").splitlines():
        words = line.split()
        if len(words) > 2:
            mount = words[1].replace("\\040", " ")
            inside = real == mount or real.startswith(mount.rstrip("/") + "/")
            if inside and len(mount) >= len(best[0]):
                best = (mount, words[2])
    return best[1]


def loopback(seconds: float) -> spread.Measure:
    """TCP from one process to another of this node: what the node's network stack can do, not its network."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        child = os.fork()
        if child == 0:
            code = 1
            try:
                serve_one(server)
                code = 0
            finally:
                os._exit(code)
        try:
            return spread.summarise(_send("127.0.0.1", port, seconds), "loopback")
        finally:
            os.waitpid(child, 0)


def peer(address: str, seconds: float) -> spread.Measure:
    """TCP to `HOST:PORT`, where `--serve PORT` of this program runs."""
    host, _colon, port = address.rpartition(":")
    return spread.summarise(_send(host.strip("[]"), int(port), seconds), f"peer {address}")


def serve(port: int) -> None:
    """Take connections until interrupted."""
    with socket.create_server(("", port)) as server:
        while True:
            serve_one(server)


def serve_one(server: socket.socket) -> None:
    """One connection: read chunks with their length before them, and answer each with its length."""
    connection, _address = server.accept()
    with connection:
        buffer = bytearray(BLOCK)
        while True:
            head = _exactly(connection, _LENGTH.size)
            if not head:
                return
            left = _LENGTH.unpack(head)[0]
            while left:
                got = connection.recv_into(buffer, min(left, BLOCK))
                if not got:
                    return
                left -= got
            connection.sendall(head)


def _exactly(connection: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        more = connection.recv(count - len(found))
        if not more:
            return b""
        found += more
    return found


def _send(host: str, port: int, seconds: float) -> list[float]:
    """Bytes per second, chunk by chunk; a chunk is as long as a slice of the time at the rate seen before."""
    block = bytes(1024**2)
    with socket.create_connection((host, port), timeout=30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        rate, _ = _chunk(connection, block, 4)
        found: list[float] = []
        end = time.perf_counter() + seconds
        while len(found) < spread.MIN_REPETITIONS or time.perf_counter() < end:
            count = max(1, min(4096, int(rate * seconds / SLICES / len(block))))
            rate, _ = _chunk(connection, block, count)
            found.append(rate)
        return found


def _chunk(connection: socket.socket, block: bytes, count: int) -> tuple[float, int]:
    begun = time.perf_counter()
    connection.sendall(_LENGTH.pack(count * len(block)))
    for _ in range(count):
        connection.sendall(block)
    if not _exactly(connection, _LENGTH.size):
        raise OSError("the peer closed the connection")
    return count * len(block) / (time.perf_counter() - begun), count
