"""What the tests of the agent share."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from isthmus.domain.ids import make_id
from tests.agent.inprocess import Linked, linked
from tests.agent.plane import ControlPlane, control_plane


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    """A control plane with the agent sites `alpha` and `beta`."""
    async with control_plane(tmp_path / "plane") as running:
        running.join("alpha")
        running.join("beta")
        yield running


@pytest.fixture
async def pair(plane: ControlPlane, tmp_path: Path) -> AsyncIterator[Linked]:
    """An agent in this process that serves `alpha` over a link that can be cut."""
    async with linked(plane, "alpha", tmp_path / "agent") as running:
        yield running


@pytest.fixture
def key() -> str:
    """An attempt's key."""
    return make_id(int(time.time() * 1000), b"0123456789")
