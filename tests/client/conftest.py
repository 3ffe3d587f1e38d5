"""One real service for the tests of the client."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.client.service import RunningService


@pytest.fixture(scope="package")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A running service."""
    running = RunningService(tmp_path_factory.mktemp("client") / "state")
    try:
        running.start()
        yield running
    finally:
        running.stop()
