"""What tries leave at a site is known by whom it came of, until it is swept."""

from __future__ import annotations

import hashlib
from pathlib import Path

import httpx

from isthmus.agent.shelf import SiteBlobs
from isthmus.agent.tries import Tries
from isthmus.data.hashing import hash_bytes
from isthmus.data.transfer.keep import Keep


async def test_a_content_that_two_tries_left_is_wanted_for_each(tmp_path: Path) -> None:
    """The second finds it there, brings nothing, and is noted all the same: sweeping the first must not take it away."""
    async with httpx.AsyncClient() as client:
        blobs = SiteBlobs(client)
        blobs.keep, blobs.tries = Keep(tmp_path), Tries(tmp_path / "tries")
        content = b"the same\n"
        sha256, blake3 = hashlib.sha256(content).hexdigest(), hash_bytes(content)
        first = blobs.staying({sha256: ()}, ["one"])
        assert await first.missing([sha256]) == {sha256}
        await first.put_bytes(content)
        [noted] = blobs.tries.read()
        assert (noted.keys, noted.contents) == ({"one"}, {blake3})
        second = blobs.staying({sha256: ()}, ["two"])
        assert await second.missing([sha256]) == set()
        assert blobs.tries.wanted(without=[noted.path]) == {blake3}


def test_a_note_that_was_torn_or_swept(tmp_path: Path) -> None:
    """Half a line names nothing; what is noted after a sweep is noted with its tries again; nothing makes no note."""
    tries = Tries(tmp_path / "tries")
    note = tries.note(["one", "two"])
    note([])
    assert tries.read() == []
    note([hash_bytes(b"a")])
    [noted] = tries.read()
    with noted.path.open("a") as file:
        file.write(hash_bytes(b"b")[:20])
    assert noted.again().contents == {hash_bytes(b"a")}
    noted.path.unlink()
    note([hash_bytes(b"c")])
    [again] = tries.read()
    assert (again.keys, again.contents) == ({"one", "two"}, {hash_bytes(b"c")})
