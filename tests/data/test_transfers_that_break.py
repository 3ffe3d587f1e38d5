"""kill -9 of an agent and of the control plane in the middle of a transfer; a quota; a cold store: all with real processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from isthmus.client import datasets
from isthmus.client.sync import Client
from isthmus.domain.dataset import DatasetRef
from tests.data.centres import Centres, until

pytestmark = pytest.mark.fault
SIZE = 24_000_000
RATE = 4_000_000  # bytes a second, so that a transfer lasts long enough to be broken


@pytest.fixture(scope="module")
def centres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Centres]:
    """alpha and beta; beta has a quota and a cold store."""
    directory = tmp_path_factory.mktemp("broken")
    with Centres(directory) as running:
        running.join("alpha")
        running.join("beta", more=("--data-quota", "60M", "--data-cold", f"file://{directory / 'archive'}"))
        yield running


def _slowly(centres: Centres, name: str) -> tuple[DatasetRef, datasets.Transfer, dict[str, bytes]]:
    """A transfer from alpha to beta that is under way at a bounded rate."""
    files = {f"part{number}": os.urandom(SIZE // 6) for number in range(6)}
    ref = centres.put(name, files)
    centres.copy(ref, "alpha")
    with centres.client() as client:
        transfer = client.run(datasets.copy(ref, "beta", bytes_per_second=RATE))
    assert transfer is not None
    return ref, transfer, files


def _now(centres: Centres, transfer: datasets.Transfer) -> datasets.Transfer:
    with centres.client() as client:
        return client.run(datasets.one_transfer(transfer.id, project="default"))


def _finished(centres: Centres, transfer: datasets.Transfer) -> datasets.Transfer:
    with centres.client() as client:
        return client.run(datasets.wait(transfer))


def _whole_at_beta(centres: Centres, ref: DatasetRef) -> bool:
    with centres.client() as client:
        hashes = {file.blake3 for file in client.run(datasets.files(ref))}
    return hashes <= centres.contents("beta")


def test_a_killed_agent_goes_on_from_what_it_has(centres: Centres) -> None:
    """The receiving agent is killed in mid transfer; its successor gets the order anew, with a higher fence, and ends it."""
    ref, transfer, _files = _slowly(centres, "default/killed-agent")
    until(lambda: 0 < _now(centres, transfer).done_bytes < SIZE)
    agent = centres.agents["beta"]
    agent.end()
    before = _now(centres, transfer)
    assert before.state == "moving"
    agent.start()
    done = _finished(centres, transfer)
    (row,) = centres.rows("SELECT fence FROM transfers WHERE id = ?", transfer.id)
    assert (done.through, row["fence"]) == ("direct", 2)
    assert _whole_at_beta(centres, ref)


def test_a_killed_control_plane_finds_the_transfer_going_on(centres: Centres) -> None:
    """The service is killed in mid transfer; the agents go on; its successor asks, and orders nothing again."""
    ref, transfer, _files = _slowly(centres, "default/killed-service")
    until(lambda: 0 < _now(centres, transfer).done_bytes < SIZE)
    centres.service.end()
    centres.start_service()
    done = _finished(centres, transfer)
    (row,) = centres.rows("SELECT fence FROM transfers WHERE id = ?", transfer.id)
    assert (done.through, row["fence"]) == ("direct", 1)
    assert _whole_at_beta(centres, ref)


def test_a_full_site_lets_the_least_worth_go_and_chills_the_rest(centres: Centres, tmp_path: Path) -> None:
    """beta has room for two of them: a cached copy is dropped first, then one that somebody asked for goes cold, and comes back."""
    cached, kept = DatasetRef.parse("default/killed-agent"), DatasetRef.parse("default/killed-service")
    centres.execute("UPDATE replicas SET cached = 1 WHERE site = 'beta' AND name = 'killed-agent'")
    third = centres.put("default/third", {"x": os.urandom(SIZE)})
    centres.copy(third, "beta")
    with centres.client() as client:
        assert "beta" not in {copy.site for copy in client.run(datasets.dataset(cached)).replicas}
        client.run(datasets.pin(third, site="beta"))
    fourth = centres.put("default/fourth", {"x": os.urandom(SIZE)})
    centres.copy(fourth, "beta")
    with centres.client() as client:
        tiers = {copy.site: copy.tier for copy in client.run(datasets.dataset(kept)).replicas}
        assert tiers["beta"] == "cold"
        cold = client.run(datasets.files(kept))
        assert not {file.blake3 for file in cold} & centres.contents("beta")
        # A task at beta reads the cold copy: it is warm again.
        command = "cat in/* | wc -c > size"
        handle = client.submit(
            command=command, inputs=["data:default/killed-service=in"], outputs=["size"], sites="beta"
        )
        handle.result(timeout_seconds=90)
        (path,) = handle.fetch(tmp_path)
        assert int(path.read_text()) == SIZE
        assert _tier(client, kept) == "warm"
        # It came into room that was made for it, and the site is not over its quota.
        assert _tier(client, fourth) == "cold"
        warm = centres.rows("SELECT sum(size_bytes) AS whole FROM replicas WHERE site = 'beta' AND tier = 'warm'")
        assert warm[0]["whole"] <= 60_000_000
        # Read for a check it stays cold.
        assert [one.state for one in client.run(datasets.verify(fourth, site="beta"))] == ["good"]
        assert not {file.blake3 for file in client.run(datasets.files(fourth))} & centres.contents("beta")
        # Where nothing may go, it waits, and the task says so.
        client.run(datasets.pin(kept, site="beta"))
        waits = client.submit(command="cat in/* > /dev/null", inputs=["data:default/fourth=in"], sites="beta")
        until(lambda: "over the site's quota" in (waits.refresh().message or ""))
        assert _tier(client, fourth) == "cold"
        client.run(datasets.pin(kept, site="beta", pinned=False))
        waits.result(timeout_seconds=90)
        assert (_tier(client, kept), _tier(client, fourth)) == ("cold", "warm")


def _tier(client: Client, ref: DatasetRef) -> str:
    return {copy.site: copy.tier for copy in client.run(datasets.dataset(ref)).replicas}["beta"]


async def test_the_site_itself_lets_no_bound_content_into_a_cold_store_elsewhere(tmp_path: Path) -> None:
    """Whatever the service orders: the limit beside the content decides, at the end that would send it."""
    from isthmus.agent.keeping import Keeping
    from isthmus.agent.link import Link
    from isthmus.data.cold import ColdStore
    from isthmus.data.hashing import hash_bytes
    from isthmus.data.http import HttpBlobStore
    from isthmus.domain.dataset import DatasetFile, DatasetManifest
    from isthmus.domain.errors import Forbidden

    (tmp_path / "data").mkdir()
    (tmp_path / "content").write_bytes(b"of the north")
    cold = ColdStore(f"file://{tmp_path / 'cold'}")
    async with httpx.AsyncClient() as client:
        for region in ("south", ""):
            keeping = Keeping(tmp_path / "data", Link(client), HttpBlobStore(client), cold, cold_region=region)
            content = keeping.keep.put_file(tmp_path / "content", regions=["north"])
            manifest = DatasetManifest(files=(DatasetFile(path="a", size_bytes=12, blake3=content.blake3),)).dump()
            name = hash_bytes(manifest)
            (tmp_path / "data" / "manifests" / name).write_bytes(manifest)
            with pytest.raises(Forbidden):
                await keeping.data_chill([name])
            assert keeping.keep.has(content.blake3)
            assert not cold.has(content.blake3)
        keeping.cold_region = "north"
        await keeping.data_chill([name])
        assert cold.has(content.blake3)
