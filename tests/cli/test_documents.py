"""The documents that messages point to have what they promise."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from isthmus.cli import exits
from isthmus.client import sbatch, taskfile
from isthmus.client.draft import check_spec

ROOT = Path(__file__).parents[2]


def test_every_code_that_a_user_can_meet_is_in_the_document() -> None:
    """Codes of the client, the command, the domain and the REST face."""
    known = set(re.findall(r"^### (\w+)$", (ROOT / "docs/errors.md").read_text(), re.MULTILINE))
    used: set[str] = set()
    for room in ("client", "cli", "domain", "api"):
        for path in (ROOT / "src/isthmus" / room).rglob("*.py"):
            used |= set(re.findall(r"""\bcode ?= ?"([a-z_]+)\"""", path.read_text()))
    assert used - known == set()


def test_every_exit_code_is_in_the_document() -> None:
    """Each constant has its line."""
    lines = set(re.findall(r"^\| (\d+) \|", (ROOT / "docs/cli.md").read_text(), re.MULTILINE))
    codes = {str(value) for name, value in vars(exits).items() if name.isupper() and isinstance(value, int)}
    assert codes == lines


def test_the_task_file_of_the_document_is_a_task(tmp_path: Path) -> None:
    """The example is read as it stands, and names most keys there are."""
    text = re.search(r"```yaml\n(.*?)```", (ROOT / "docs/cli.md").read_text(), re.DOTALL)
    assert text is not None
    (tmp_path / "data").mkdir()
    (tmp_path / "data/in.csv").touch()
    (tmp_path / "t.yaml").write_text(text[1])
    (draft,) = taskfile.read_file(tmp_path / "t.yaml")
    check_spec(draft.spec)
    assert draft.project == "climate"


@pytest.mark.parametrize("word", ["afterok", "partition", "qos", "constraint", "reservation", "hold"])
def test_the_options_that_the_document_names_are_carried(word: str) -> None:
    """No note for what the document says is carried."""
    value = {"afterok": "--dependency=afterok:x"}.get(word, f"--{word}=x" if word != "hold" else "--hold")
    assert not sbatch.translate(f"#!/bin/sh\n#SBATCH {value}\n").notes
