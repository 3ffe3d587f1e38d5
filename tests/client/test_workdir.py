"""A working directory becomes a manifest of exactly the files that belong to it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.client.workdir import hash_bytes, hash_file, scan
from isthmus.domain.errors import NotFound, Refused
from isthmus.domain.manifest import Manifest, ManifestFile


def _paths(root: Path) -> list[str]:
    return [file.path for file in scan(root).manifest.files]


def _write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_every_file_is_named_with_its_hash_and_mode(tmp_path: Path) -> None:
    """A manifest holds each file's path, SHA-256, size and whether it can be executed."""
    _write(tmp_path, {"a.txt": "one", "bin/run": "two"})
    (tmp_path / "bin/run").chmod(0o755)
    files = {file.path: file for file in scan(tmp_path).manifest.files}
    assert files["a.txt"].sha256 == hashlib.sha256(b"one").hexdigest()
    assert files["a.txt"].size_bytes == 3
    assert (files["a.txt"].executable, files["bin/run"].executable) == (False, True)


def test_ignore_files_of_every_level_are_honoured(tmp_path: Path) -> None:
    """.gitignore leaves out, a deeper one decides for its directory, .isthmusignore may take back."""
    _write(
        tmp_path,
        {
            ".gitignore": "*.log\n/build/\ndata/\n",
            ".isthmusignore": "!keep.log\n*.tmp\n",
            "keep.log": "",
            "drop.log": "",
            "x.tmp": "",
            "build/o": "",
            "sub/build/o": "",
            "sub/.gitignore": "!wanted.log\nsecret\n",
            "sub/wanted.log": "",
            "sub/secret": "",
            "data/big": "",
            ".git/HEAD": "ref",
        },
    )
    assert _paths(tmp_path) == [
        ".gitignore",
        ".isthmusignore",
        "keep.log",
        "sub/.gitignore",
        "sub/build/o",
        "sub/wanted.log",
    ]


def test_a_link_inside_is_followed(tmp_path: Path) -> None:
    """Links to files and directories that stay inside are carried as what they point to."""
    _write(tmp_path, {"real/a": "content"})
    (tmp_path / "link").symlink_to("real/a")
    (tmp_path / "again").symlink_to("real", target_is_directory=True)
    assert _paths(tmp_path) == ["again/a", "link", "real/a"]


@pytest.mark.parametrize(
    ("target", "code"), [("/etc/hostname", "link_leads_out"), ("../x", "link_leads_out"), ("gone", "link_broken")]
)
def test_a_link_that_leads_out_or_nowhere_is_refused(tmp_path: Path, target: str, code: str) -> None:
    """Nothing outside the directory is ever sent through a link."""
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "x").write_text("outside")
    (root / "link").symlink_to(target)
    with pytest.raises(Refused, match="link") as caught:
        scan(root)
    assert caught.value.code == code
    (root / ".isthmusignore").write_text("link\n")
    assert _paths(root) == [".isthmusignore"]


def test_a_loop_of_links_is_refused(tmp_path: Path) -> None:
    """A link to a directory above it does not make the walk endless."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "up").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(Refused) as caught:
        scan(tmp_path)
    assert caught.value.code == "link_loop"


def test_pipes_are_left_out_and_named(tmp_path: Path) -> None:
    """What is no file is left out, and the user is told."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").mkdir()
    found = scan(tmp_path)
    assert found.manifest == Manifest(directories=("empty",))
    assert "pipe" in found.notes[0]


def test_equal_directories_have_equal_manifests(tmp_path: Path) -> None:
    """The order in which files were made does not matter."""
    _write(tmp_path / "one", {"b": "2", "a": "1"})
    _write(tmp_path / "two", {"a": "1", "b": "2"})
    assert scan(tmp_path / "one").manifest_sha256 == scan(tmp_path / "two").manifest_sha256
    _write(tmp_path / "two", {"b": "3"})
    assert scan(tmp_path / "one").manifest_sha256 != scan(tmp_path / "two").manifest_sha256


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    """A wrong path is NotFound with the path in it."""
    with pytest.raises(NotFound, match="nowhere"):
        scan(tmp_path / "nowhere")
    with pytest.raises(NotFound, match="nowhere"):
        hash_file(tmp_path / "nowhere")


_names = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"), min_size=1, max_size=8).filter(
    lambda name: name not in (".", "..")
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(_names, st.tuples(st.binary(max_size=8), st.booleans()), max_size=6))
def test_a_manifest_reads_back_what_it_wrote(files: dict[str, tuple[bytes, bool]]) -> None:
    """dump and load are inverse, whatever the names."""
    manifest = Manifest(
        files=tuple(
            ManifestFile(path=name, sha256=hash_bytes(data).sha256, size_bytes=len(data), executable=executable)
            for name, (data, executable) in sorted(files.items())
        )
    )
    assert Manifest.load(manifest.dump()) == manifest
