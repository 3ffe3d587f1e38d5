"""Where the public networks lie: a folder that is never part of the project."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def networks() -> Path:
    """The folder of public networks; skips where this machine has none."""
    checkout = Path(__file__).resolve().parents[2]
    named = os.environ.get("ISTHMUS_SHARED_DATA")
    folder = (Path(named) if named else checkout.parent / "shared" / "data") / "networks"
    if not folder.is_dir():
        pytest.skip("no public networks: set ISTHMUS_SHARED_DATA, or put them in ../shared/data beside the checkout")
    return folder
