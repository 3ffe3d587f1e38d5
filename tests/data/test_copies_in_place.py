"""Files become a dataset where they lie at a site, spoiled copies are found and come again, and missing content is told by the site."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from isthmus.agent.reading import Count, FilesAtSite, PlacesAllowed
from isthmus.client import datasets
from isthmus.data import outside
from isthmus.data.hashing import hash_bytes
from isthmus.data.transfer.keep import Keep
from isthmus.domain.dataset import DatasetRef, InPlace
from isthmus.domain.errors import Corrupt, IsthmusError, NotFound, Unavailable
from isthmus.lab.s3 import S3Server
from isthmus.lab.sshd import SshServer
from tests.data.centres import Centres, until


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where alpha lets files become datasets."""
    return tmp_path_factory.mktemp("shelf")


@pytest.fixture(scope="module")
def centres(tmp_path_factory: pytest.TempPathFactory, shelf: Path) -> Iterator[Centres]:
    """Alpha, whose files may become datasets where they lie, and beta; both listen, in region north."""
    with Centres(tmp_path_factory.mktemp("centres"), region="north") as running:
        running.join("alpha", region="north", more=("--data-in-place", str(shelf)))
        running.join("beta", region="north")
        yield running


def _register(centres: Centres, path: Path, name: str, **more: object) -> datasets.Dataset:
    with centres.client() as client:
        return client.run(datasets.register("alpha", str(path), DatasetRef.parse(name), **more))  # type: ignore[arg-type]


def _states(centres: Centres, ref: DatasetRef) -> dict[str, str]:
    with centres.client() as client:
        return {copy.site: copy.state for copy in client.run(datasets.dataset(ref)).replicas}


def test_files_become_a_dataset_where_they_lie(centres: Centres, shelf: Path) -> None:
    """Nothing is copied at the site, a task there and a copy elsewhere read it, and letting it go leaves the files alone."""
    files = {"big.bin": os.urandom(3_000_000), "deep/small.txt": b"eleven\n", "empty": b""}
    for path, content in files.items():
        (shelf / "run1" / path).parent.mkdir(parents=True, exist_ok=True)
        (shelf / "run1" / path).write_bytes(content)
    (shelf / "run1" / "link").symlink_to("/etc/passwd")
    made = _register(centres, shelf / "run1", "default/shelved")
    (copy,) = made.replicas
    assert (copy.site, copy.state, copy.in_place, copy.cached, made.files) == ("alpha", "whole", True, False, 3)
    kept = {path.name for path in (centres.root("alpha") / "contents").glob("??/*") if not path.is_symlink()}
    assert not kept & centres.contents("alpha")
    with centres.client() as client:
        again = client.run(datasets.register("alpha", str(shelf / "run1"), made.ref))
        task = client.submit(
            command="cat in/deep/small.txt > out.txt",
            inputs=["data:default/shelved=in"],
            outputs=["out.txt"],
            sites="alpha",
        )
        task.result(timeout_seconds=90)
        names = {file.path: file.blake3 for file in client.run(datasets.files(made.ref))}
    assert again.version == made.version == 1
    moved = centres.copy(made.ref, "beta")
    assert (moved.source, moved.through) == ("alpha", "direct")
    place = centres.root("beta") / "contents" / names["big.bin"][:2] / names["big.bin"]
    assert place.read_bytes() == files["big.bin"]
    with centres.client() as client:
        client.run(datasets.remove(made.ref, site="alpha"))
    until(lambda: "alpha" not in _states(centres, made.ref))
    assert not centres.contents("alpha") & set(names.values())
    assert {path: (shelf / "run1" / path).read_bytes() for path in files} == files


def test_only_files_that_the_operator_lets(centres: Centres, shelf: Path, tmp_path: Path) -> None:
    """Elsewhere, by a link out of there, by a relative path, or outside of the region: refused with the reason."""
    (tmp_path / "secret").write_bytes(b"of somebody else")
    (shelf / "out").symlink_to(tmp_path)
    for path, code in (
        (tmp_path / "secret", "place_not_allowed"),
        (shelf / "out" / "secret", "place_not_allowed"),
        (shelf / "nothing", "not_found"),
        (Path("relative"), "invalid"),
    ):
        with pytest.raises(IsthmusError) as refused:
            _register(centres, path, "default/never")
        assert refused.value.code == code, refused.value
    (shelf / "mine").write_bytes(b"x")
    with pytest.raises(IsthmusError) as bound:
        _register(centres, shelf / "mine", "default/never", regions=["south"])
    assert bound.value.code == "data_may_not_leave"


def test_a_file_that_changed_makes_its_copy_lost_and_a_good_one_comes(
    centres: Centres, shelf: Path, tmp_path: Path
) -> None:
    """The task that needs it does not get the other content: the site says that it is missing, and it comes from beta again."""
    (shelf / "moody.txt").write_bytes(b"as it was\n")
    made = _register(centres, shelf / "moody.txt", "default/moody")
    centres.copy(made.ref, "beta")
    (shelf / "moody.txt").write_bytes(b"as it is now\n")
    with centres.client() as client:
        task = client.submit(
            command="cat in/moody.txt > out.txt", inputs=["data:default/moody=in"], outputs=["out.txt"], sites="alpha"
        )
        task.result(timeout_seconds=90)
        (fetched,) = task.fetch(tmp_path)
        (copy,) = [one for one in client.run(datasets.dataset(made.ref)).replicas if one.site == "alpha"]
    assert fetched.read_bytes() == b"as it was\n"
    assert (copy.state, copy.in_place) == ("whole", False)
    assert (shelf / "moody.txt").read_bytes() == b"as it is now\n"


def test_spoiled_copies_are_found_and_come_again(centres: Centres) -> None:
    """A flipped byte at a site and one at the service: each is named by its file, taken out of use, and whole again from the other."""
    ref = centres.put("default/checked", {"one": os.urandom(200_000), "two": os.urandom(2_000_000)})
    centres.copy(ref, "beta")
    with centres.client() as client:
        assert {one.site: one.state for one in client.run(datasets.verify(ref))} == {"beta": "good", "@service": "good"}
        names = {file.path: file for file in client.run(datasets.files(ref))}
        at_beta = centres.root("beta") / "contents" / names["two"].blake3[:2] / names["two"].blake3
        sha256 = names["one"].sha256
        here = centres.state / "blobs" / sha256[:2] / sha256[2:4] / sha256
        for place in (at_beta, here):
            content = bytearray(place.read_bytes())
            content[1000] ^= 1
            place.chmod(0o600)
            place.write_bytes(content)
            found = {one.site: one for one in client.run(datasets.verify(ref))}
            site = "beta" if place == at_beta else "@service"
            (other,) = found.keys() - {site}
            assert (found[site].state, found[site].wrong) == ("spoiled", ["two"] if site == "beta" else ["one"])
            assert found[other].state == "good"
            client.run(datasets.wait(client.run(datasets.one_transfer(found[site].transfer, project="default"))))
            assert {one.state for one in client.run(datasets.verify(ref))} == {"good"}
    assert (centres.root("beta") / "spoiled" / names["two"].blake3).exists()
    with centres.client() as client:
        kinds = [
            event.kind
            for event in client.events(project="default", last_id="0", follow=False)
            if event.kind == "replica.lost"
        ]
    assert len(kinds) >= 2


def test_what_a_task_makes_stays_at_its_site(centres: Centres, tmp_path: Path) -> None:
    """With @site the content is kept where the task ran and nowhere else; it is read there, moved when wanted, and dropped whole."""
    source = centres.put("default/seed", {"a": b"seven\n"}, regions=["north"])
    with centres.client() as client:
        first = client.submit(
            command="mkdir big && cat in/a in/a > big/out.txt && head -c 3000000 /dev/urandom > big/noise",
            inputs=["data:default/seed=in"],
            outputs=["big/=data:default/stayed@site"],
            sites="alpha",
        )
        first.result(timeout_seconds=90)
        made = client.run(datasets.dataset(DatasetRef.parse("default/stayed")))
        assert {copy.site: copy.state for copy in made.replicas} == {"alpha": "whole"}
        assert (made.made_by, made.made_from, made.regions) == (first.id, [source.versioned], ["north"])
        assert first.refresh().state == "succeeded"
        hashes = {file.blake3 for file in client.run(datasets.files(made.ref))}
        assert hashes <= centres.contents("alpha")
        second = client.submit(
            command="cat in/out.txt > out.txt", inputs=["data:default/stayed=in"], outputs=["out.txt"], sites="beta"
        )
        second.result(timeout_seconds=90)
        (fetched,) = second.fetch(tmp_path)
        assert fetched.read_bytes() == b"seven\nseven\n"
        page = client.run(datasets.transfers(project="default", dataset="stayed"))
        assert {(one.source, one.target) for one in page.items} == {("alpha", "beta")}
        client.run(datasets.remove(made.ref))
    until(lambda: not hashes & (centres.contents("alpha") | centres.contents("beta")))


def test_what_a_failed_task_left_is_swept_and_no_good_copy(centres: Centres) -> None:
    """Another output was missing, so no version came of it: what only that try left goes, also after the agent was killed; what a version
    there has too stays, and goes with that version."""
    with centres.client() as client:
        good = client.submit(
            command="mkdir big && echo shared > big/shared && echo own > big/own",
            outputs=["big/=data:default/good@site"],
            sites="alpha",
        )
        good.result(timeout_seconds=90)
        made = client.run(datasets.dataset(DatasetRef.parse("default/good")))
        bad = client.submit(
            command="mkdir big && echo shared > big/shared && echo left > big/left",
            outputs=["big/=data:default/bad@site", "missing.txt"],
            sites="alpha",
            max_attempts=1,
        )
        assert until(lambda: bad.refresh().state == "failed", 90)
        assert bad.refresh().reason == "output_missing"
        shared, left = (hash_bytes(f"{word}\n".encode()) for word in ("shared", "left"))
        assert {shared, left} <= centres.contents("alpha")
        agent = centres.agents["alpha"]
        agent.end()
        agent.start()
        until(lambda: left not in centres.contents("alpha"))
        assert not list((centres.root("alpha") / "tries").iterdir())
        assert {file.blake3 for file in client.run(datasets.files(made.ref))} <= centres.contents("alpha")
        assert [one.state for one in client.run(datasets.verify(made.ref))] == ["good"]
        client.run(datasets.remove(made.ref))
        until(lambda: shared not in centres.contents("alpha"))


@pytest.mark.real
def test_a_bucket_is_a_dataset_where_it_is(
    tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Objects are hashed in the bucket and come into the keep when they are needed; what changed there counts as missing."""
    client = s3_server.client()
    client.create_bucket(Bucket="shelf")
    files = {"a.bin": os.urandom(2_000_000), "deep/b.txt": b"in a bucket\n"}
    for key, content in files.items():
        client.put_object(Bucket="shelf", Key=f"era/{key}", Body=content)
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT", s3_server.endpoint)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    keep = Keep(tmp_path / "keep")
    reader = FilesAtSite(keep, PlacesAllowed(["s3://shelf/era"]))
    made = reader.take(InPlace(id="1", path="s3://shelf/era/"), Count())
    assert {file.path: file.size_bytes for file in made.files} == {path: len(body) for path, body in files.items()}
    for file in made.files:
        assert not keep.has(file.blake3)
        assert outside.bring(keep, file.blake3)
        assert keep.path_of(file.blake3).read_bytes() == files[file.path]
        keep.remove(file.blake3, place_too=False)
    client.put_object(Bucket="shelf", Key="era/deep/b.txt", Body=b"other words\n")
    with pytest.raises(Corrupt):
        outside.bring(keep, next(file.blake3 for file in made.files if file.path == "deep/b.txt"))
    for path in ("s3://shelf/other", "s3://shelf/era2", "s3://shelf/era/../other"):
        with pytest.raises(IsthmusError):
            reader.take(InPlace(id="2", path=path), Count())
    client.close()


@pytest.mark.real
def test_a_bucket_that_two_sites_read_moves_between_neither(tmp_path: Path, s3_server: S3Server) -> None:
    """Registered at both it is one version with a copy at each; a task takes it from the bucket itself, and no transfer is planned."""
    client = s3_server.client()
    client.create_bucket(Bucket="both")
    client.put_object(Bucket="both", Key="era/a.txt", Body=b"in a bucket\n")
    client.close()
    access = {**s3_server.environment, "AWS_ENDPOINT": s3_server.endpoint, "AWS_ALLOW_HTTP": "true"}
    with Centres(tmp_path) as centres:
        for site in ("alpha", "beta"):
            centres.join(site, more=("--data-in-place", "s3://both/era"), environment=access)
        with centres.client() as session:
            ref = DatasetRef.parse("default/bucket")
            for site in ("alpha", "beta"):
                made = session.run(datasets.register(site, "s3://both/era", ref))
                assert made.version == 1
            assert {(copy.site, copy.state, copy.tier) for copy in made.replicas} == {
                ("alpha", "whole", "cold"),
                ("beta", "whole", "cold"),
            }
            task = session.submit(
                command="cp in/a.txt out.txt", inputs=["data:default/bucket=in"], outputs=["out.txt"], sites="beta"
            )
            task.result(timeout_seconds=90)
            (fetched,) = task.fetch(tmp_path)
            assert fetched.read_bytes() == b"in a bucket\n"
            assert session.run(datasets.transfers(project="default", dataset="bucket")).items == []
            (file,) = session.run(datasets.files(made.ref))
        assert file.blake3 in centres.contents("beta")
        assert file.blake3 not in centres.contents("alpha")


@pytest.mark.real
def test_files_on_an_sftp_server_are_a_dataset_where_they_are(
    tmp_path: Path, ssh_server: SshServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As OpenSSH serves them, with the account's own key and known hosts: hashed there, brought in when needed, checked without coming in;
    what changed there or is not let is refused, and so is a server whose key nobody knows."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    shutil.copy(ssh_server.client_key, home / ".ssh" / "id_ed25519")
    shutil.copy(ssh_server.known_hosts, home / ".ssh" / "known_hosts")
    monkeypatch.setenv("HOME", str(home))
    there = Path(ssh_server.run("mktemp -d").strip())
    try:
        files = {"a.bin": os.urandom(2_000_000), "deep/b.txt": b"over sftp\n", "empty": b""}
        for path, content in files.items():
            (there / "era" / path).parent.mkdir(parents=True, exist_ok=True)
            (there / "era" / path).write_bytes(content)
        server = f"sftp://{ssh_server.username}@{ssh_server.host}:{ssh_server.port}"
        keep = Keep(tmp_path / "keep")
        reader = FilesAtSite(keep, PlacesAllowed([f"{server}{there}/era"]))
        made = reader.take(InPlace(id="1", path=f"{server}{there}/era/"), Count())
        assert {file.path: file.size_bytes for file in made.files} == {path: len(body) for path, body in files.items()}
        for file in made.files:
            assert file.blake3 == hash_bytes(files[file.path])
            assert outside.check(keep, file.blake3)
            assert not keep.has(file.blake3)
            assert outside.bring(keep, file.blake3)
            assert keep.path_of(file.blake3).read_bytes() == files[file.path]
            keep.remove(file.blake3, place_too=False)
        (one,) = reader.take(InPlace(id="2", path=f"{server}{there}/era/deep/b.txt"), Count()).files
        assert (one.path, one.size_bytes) == ("b.txt", 10)
        changed = next(file.blake3 for file in made.files if file.path == "deep/b.txt")
        (there / "era" / "deep" / "b.txt").write_bytes(b"other text")
        for look in (outside.bring, outside.check):
            with pytest.raises(Corrupt):
                look(keep, changed)
        (there / "era" / "deep" / "b.txt").unlink()
        with pytest.raises(NotFound):
            outside.bring(keep, changed)
        for path, code in (
            (f"{server}{there}/era/nothing", "no_files"),
            (f"{server}{there}/elsewhere", "place_not_allowed"),
            (f"{server}/etc/passwd", "place_not_allowed"),
        ):
            with pytest.raises(IsthmusError) as refused:
                reader.take(InPlace(id="3", path=path), Count())
            assert refused.value.code == code, path
        assert not list(keep.incoming.iterdir())
        again = outside.Outside(f"{server}{there}/era")
        assert [file.path for file in again.files()] == ["a.bin", "empty"]
        ssh_server.kill()
        with pytest.raises(Unavailable):
            again.files()
        ssh_server.start()
        assert [file.path for file in again.files()] == ["a.bin", "empty"]  # over a new connection
        (home / ".ssh" / "known_hosts").write_text("")
        with pytest.raises(Unavailable):
            reader.take(InPlace(id="4", path=f"{server}{there}/era"), Count())
    finally:
        shutil.rmtree(there)


def test_a_file_of_the_web_is_a_dataset_where_it_is(tmp_path: Path) -> None:
    """Over HTTP, one file; a directory is told that the web has no lists."""
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "table.csv").write_bytes(b"1,2,3\n")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "web"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        keep = Keep(tmp_path / "keep")
        reader = FilesAtSite(keep, PlacesAllowed([url]))
        (file,) = reader.take(InPlace(id="1", path=f"{url}/table.csv"), Count()).files
        assert outside.bring(keep, file.blake3)
        assert (file.path, keep.path_of(file.blake3).read_bytes()) == ("table.csv", b"1,2,3\n")
        with pytest.raises(IsthmusError):
            reader.take(InPlace(id="2", path=f"{url}/nothing"), Count())
        server.shutdown()


def test_sites_learn_a_label_that_changed(centres: Centres) -> None:
    """A copy that was made before the label is held back by its own site, also where the control plane forgets; lifted, it goes."""
    ref = centres.put("default/later", {"one": os.urandom(1000)})
    centres.copy(ref, "alpha")
    with centres.client() as client:
        client.run(datasets.label(ref, regions=["north"]))
        (file,) = client.run(datasets.files(ref))
        limit = centres.root("alpha") / "regions" / file.blake3[:2] / file.blake3
        until(limit.exists)
        assert limit.read_text().split() == ["north"]
        client.run(datasets.label(ref, regions=[]))
        until(lambda: not limit.exists())
