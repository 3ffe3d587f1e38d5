"""Datasets move between real agents on loopback, are used by tasks there, and leave again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from isthmus.client import datasets, operations
from isthmus.domain.errors import Conflict, Refused
from isthmus.domain.placement import Moved
from tests.data.centres import Centres, until


@pytest.fixture(scope="module")
def centres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Centres]:
    """A service in region north; alpha and beta there listen, gamma in the south cannot be dialled."""
    with Centres(tmp_path_factory.mktemp("centres"), region="north") as running:
        running.join("alpha", region="north")
        running.join("beta", region="north")
        running.join("gamma", region="south", listens=False)
        yield running


def _files() -> dict[str, bytes]:
    return {"big.bin": os.urandom(3_000_000), "deep/small.txt": os.urandom(20).hex().encode(), "empty": b""}


def test_a_copy_comes_from_the_service_then_directly_from_a_site(centres: Centres) -> None:
    """The first copy at a site comes through the service, the next from that site itself; both are byte for byte the same."""
    ref = centres.put("default/moving", _files())
    first = centres.copy(ref, "alpha")
    assert (first.source, first.through) == ("@service", "service")
    second = centres.copy(ref, "beta")
    assert (second.source, second.through) == ("alpha", "direct")
    assert second.done_bytes == second.size_bytes > 3_000_000
    assert centres.contents("alpha") & centres.contents("beta") >= {
        file.blake3 for file in centres.client().run(datasets.files(ref))
    }


def test_sites_that_cannot_be_dialled_get_data_through_the_service(centres: Centres, tmp_path: Path) -> None:
    """From gamma, which nobody can dial, to beta: the service gets it first, without being asked."""
    files = _files()
    ref = centres.put("default/hidden", files)
    centres.copy(ref, "gamma")
    # Only gamma holds it now: the service forgets its blobs.
    centres.execute("DELETE FROM replicas WHERE name = 'hidden' AND site = '@service'")
    hidden = {row["sha256"] for row in centres.rows("SELECT sha256 FROM contents")}
    for sha256 in hidden:
        (centres.state / "blobs" / sha256[:2] / sha256[2:4] / sha256).unlink(missing_ok=True)
    moved = centres.copy(ref, "beta")
    assert (moved.source, moved.through) == ("@service", "service")
    with centres.client() as client:
        client.run(datasets.get(ref, tmp_path))
        places = {copy.site for copy in client.run(datasets.dataset(ref)).replicas if copy.state == "whole"}
    assert {path: (tmp_path / path).read_bytes() for path in files} == files
    assert places == {"gamma", "beta", "@service"}


def test_a_task_gets_its_data_at_its_site_and_leaves_a_dataset(centres: Centres, tmp_path: Path) -> None:
    """The site brings its copy, cached; the task reads it there; what it leaves is a version with its origin."""
    ref = centres.put("default/wanted", {"a.txt": b"seven stones\n"})
    with centres.client() as client:
        handle = client.submit(
            command="cat in/a.txt in/a.txt > out.txt",
            inputs=["data:default/wanted=in"],
            outputs=["out.txt=data:default/doubled"],
            sites="alpha",
        )
        handle.result(timeout_seconds=90)
        made = client.run(datasets.dataset(ref.parse("default/doubled")))
        client.run(datasets.get(made.ref, tmp_path))
        copies = {copy.site: copy for copy in client.run(datasets.dataset(ref)).replicas}
    assert (tmp_path / "out.txt").read_bytes() == b"seven stones\n" * 2
    assert (made.made_by, made.made_from) == (handle.id, ["default/wanted@1"])
    assert (copies["alpha"].state, copies["alpha"].cached, copies["alpha"].uses) == ("whole", True, 1)


def test_what_moved_for_a_task_is_told_as_it_went(centres: Centres) -> None:
    """Its receipt names the way, the bytes and the streams that the receiving site counted, and its usage the bytes, once; a task that finds the
    data there moved nothing."""
    size = 5_000_000
    ref = centres.put("default/counted", {"a": os.urandom(size)})
    centres.copy(ref, "alpha")
    with centres.client() as client:

        def run() -> tuple[list[Moved], int]:
            task = client.submit(command="cat in/a > /dev/null", inputs=["data:default/counted=in"], sites="beta")
            task.result(timeout_seconds=90)
            (usage,) = until(lambda: client.run(operations.task_usage(task.id)))
            return list(task.why()[-1].actual_transfers), usage.moved_bytes

        (moved,), counted = run()
        assert (moved.source, moved.target, moved.through, moved.relay) == ("alpha", "beta", "direct", "")
        ((way,), whole) = moved.ways, moved.size_bytes
        assert (whole, way.path, way.relay, counted) == (size, (), "", size)
        assert size <= way.bytes < 1.1 * size
        assert way.streams >= 1
        assert moved.multipath == way.multipath
        assert run() == ([], 0)


def test_bound_data_stays_in_its_region_at_every_gate(centres: Centres) -> None:
    """No plan, no placement, and, with a forged plan, not even the sending site lets it out."""
    ref = centres.put("default/bound", _files(), regions=["north"])
    centres.copy(ref, "alpha")
    with centres.client() as client:
        with pytest.raises(Refused) as planned:
            client.run(datasets.copy(ref, "gamma"))
        assert planned.value.code == "data_may_not_leave"
        handle = client.submit(command="cat in/*", inputs=["data:default/bound=in"], sites="gamma")

        def why() -> list[str]:
            refused = [candidate.why for receipt in handle.why() for candidate in receipt.candidates]
            return [handle.refresh().message] if "may not leave" in handle.refresh().message else refused

        assert until(lambda: [word for word in why() if word == "data_may_not_leave" or "may not leave" in word])
        handle.cancel()
        with pytest.raises(Refused):
            client.run(datasets.label(ref, regions=["south"]))
        hashes = {file.blake3 for file in client.run(datasets.files(ref)) if file.size_bytes}
    # The control plane forgets the rule, and orders what must not be: the sending site still knows, and refuses the reader.
    centres.execute("UPDATE datasets SET regions = '[]' WHERE name = 'bound'")
    with pytest.raises(Conflict) as told:
        centres.copy(ref, "gamma")
    assert "may lie in north only; the reader is in south" in told.value.cause
    assert not hashes & centres.contents("gamma")


def test_a_copy_leaves_but_not_the_last_one(centres: Centres) -> None:
    """A dropped copy's content goes from the site, except what another version there names; the last copy stays."""
    shared = os.urandom(1000)
    one = centres.put("default/one", {"shared": shared, "own": os.urandom(1000)})
    two = centres.put("default/two", {"shared": shared})
    centres.copy(one, "beta")
    centres.copy(two, "beta")
    with centres.client() as client:
        own = {file.path: file.blake3 for file in client.run(datasets.files(one))}
        client.run(datasets.remove(one, site="beta"))
        until(lambda: own["own"] not in centres.contents("beta"))
        assert own["shared"] in centres.contents("beta")
        with pytest.raises(Conflict) as last:
            client.run(datasets.remove(one, site="@service"))
        assert last.value.code == "last_replica"
        client.run(datasets.remove(two))
        until(lambda: own["shared"] not in centres.contents("beta"))
