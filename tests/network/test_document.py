"""The example of the document runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest


def test_the_example_admits_its_transfer(capsys: pytest.CaptureFixture[str]) -> None:
    """The program of docs/traffic-engineering.md prints what its comment says."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "traffic-engineering.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    (said,) = re.findall(r"finish_seconds\(.*# (\S+)$", program, re.M)
    exec(compile(program, "docs/traffic-engineering.md", "exec"), {})  # noqa: S102
    assert capsys.readouterr().out.strip() == said
