"""What a pull does when it is killed, when a stream goes silent, and when the disk is full."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from isthmus.data.transfer import stream
from isthmus.data.transfer.arrival import Arrival
from isthmus.data.transfer.keep import Keep
from isthmus.data.transfer.port import Credentials, End, Endpoint, Order, Source
from isthmus.data.transfer.puller import pull
from tests.data.transfer.conftest import MIB, World

pytestmark = pytest.mark.fault


def _pull(order: Order, keep: Path, credentials: Credentials) -> None:
    pull(order, Keep(keep), credentials)


@pytest.mark.parametrize("kind", ["large", "small"])
def test_a_killed_pull_goes_on_from_what_is_verified(world: World, kind: str) -> None:
    """SIGKILL at half; of all that crosses the network at most 2 % is sent again."""
    world.serve("north")
    if kind == "large":
        contents, rate = [world.put_random("north", 96 * MIB)], 48.0 * MIB
    else:
        contents, rate = world.put_many("north", [os.urandom(4000) for _ in range(4000)]), 8.0 * MIB
    total = sum(content.size_bytes for content in contents)
    order = world.order(contents, world.source("north"), bytes_per_second=rate)
    keep = world.keep("south")
    child = multiprocessing.get_context("spawn").Process(
        target=_pull, args=(order, keep.path, world.credentials("south"))
    )
    child.start()
    assert child.pid

    def here() -> int:
        marks = keep.incoming / f"{contents[0].blake3}.have"
        if kind == "large":
            return marks.read_bytes().count(1) * 256 * 1024 if marks.exists() else 0
        return visible() + sum(len(list(place.iterdir())) for place in keep.incoming.glob("*/")) * 4000

    def visible() -> int:
        return sum(content.size_bytes for content in contents if keep.has(content.blake3))

    deadline = time.monotonic() + 60
    while here() < total // 2 and time.monotonic() < deadline:
        assert child.is_alive()
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    before = visible()
    assert before < total
    outcome = world.pull(world.order(contents, world.source("north")))
    assert outcome.end is End.DONE
    assert world.whole("south", contents)
    assert before + outcome.resumed_bytes >= total // 2
    deadline = time.monotonic() + 10
    while len(world.served) < 8 and time.monotonic() < deadline:
        time.sleep(0.01)
    # What the sender handed to its kernel and the killed process never read is not counted as sent again.
    assert outcome.received_bytes + outcome.resumed_bytes + before <= 1.02 * total
    assert not list(keep.incoming.iterdir())


def test_a_mark_is_not_believed(world: World) -> None:
    """Pieces that a broken disk changed are fetched anew."""
    world.serve("north")
    content = world.put_random("north", 8 * MIB)
    keep = world.keep("south")
    arrival = Arrival(keep, content)
    arrival.receive_list(world.keep("north").pieces_of(content.blake3))
    arrival.close()
    keep.incoming.joinpath(f"{content.blake3}.have").write_bytes(bytes([1]) * arrival.count)
    outcome = world.pull(world.order([content], world.source("north")))
    assert outcome.end is End.DONE
    assert outcome.resumed_bytes == 0
    assert world.whole("south", [content])


class Silencer:
    """Passes bytes on between a puller and a server; the first connection goes silent after some bytes, and stays open."""

    def __init__(self, port: int, after_bytes: int) -> None:
        self._target, self._after = port, after_bytes
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """End it."""
        for one in (self._listening, *self._open):
            one.close()

    def _accept(self) -> None:
        number = 0
        while True:
            try:
                near = self._listening.accept()[0]
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            self._open += [near, far]
            threading.Thread(target=self._pass_on, args=(near, far, None), daemon=True).start()
            limit = self._after if number == 0 else None
            threading.Thread(target=self._pass_on, args=(far, near, limit), daemon=True).start()
            number += 1

    @staticmethod
    def _pass_on(source: socket.socket, target: socket.socket, limit: int | None) -> None:
        passed = 0
        try:
            while data := source.recv(65536):
                if limit is not None and passed > limit:
                    time.sleep(60)
                target.sendall(data)
                passed += len(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return


def test_a_silent_stream_is_found_and_replaced(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it owed comes by others; the pull does not wait for it."""
    assert stream.STALL_SECONDS <= 10
    monkeypatch.setattr(stream, "STALL_SECONDS", 0.5)
    world.serve("north")
    content = world.put_random("north", 24 * MIB)
    with closing(Silencer(world.servers["north"].port, 2 * MIB)) as silencer:
        source = Source(site="north", endpoint=Endpoint(host="127.0.0.1", port=silencer.port))
        outcome = world.pull(world.order([content], source, bytes_per_second=12.0 * MIB))
    assert outcome.end is End.DONE
    assert outcome.stalled == 1
    assert world.whole("south", [content])
    assert outcome.resent_bytes < 0.1 * content.size_bytes


@pytest.fixture
def little(tmp_path: Path) -> Iterator[Path]:
    """A file system of 80 MiB."""
    if os.geteuid():
        pytest.skip("mounting takes root")
    place = tmp_path / "little"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m", "none", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_a_disk_without_room_is_told_before_anything_is_sent(world: World, little: Path) -> None:
    """Nothing of the order is asked for."""
    world.serve("north")
    content = world.put_random("north", 30 * MIB)
    outcome = pull(world.order([content], world.source("north")), Keep(little), world.credentials("south"))
    assert outcome.end is End.NO_SPACE
    assert outcome.received_bytes == 0
    assert "has room for" in outcome.cause


def test_a_disk_that_fills_up_ends_the_pull_and_keeps_what_was_verified(world: World, little: Path) -> None:
    """When there is room again it goes on."""
    world.serve("north")
    contents = world.put_many("north", [os.urandom(100_000) for _ in range(120)])
    keep = Keep(little)
    order = world.order(contents, world.source("north"), bytes_per_second=8.0 * MIB)
    hog = little / "hog"

    def fill(*_told: object) -> None:
        if not hog.exists():
            with hog.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, 75 * MIB)

    outcome = pull(order, keep, world.credentials("south"), on_progress=fill)
    assert outcome.end is End.NO_SPACE
    hog.unlink()
    again = pull(order, keep, world.credentials("south"))
    assert again.end is End.DONE
    assert again.resumed_bytes + outcome.contents_done * 100_000 > 0
    for content in contents:
        keep.verify(content.blake3)
