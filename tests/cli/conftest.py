"""One real service for the tests of the command, and a way to call the command in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from isthmus.cli.main import call
from tests.client.service import RunningService


@pytest.fixture(scope="package")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A running service."""
    running = RunningService(tmp_path_factory.mktemp("cli") / "state")
    try:
        running.start()
        yield running
    finally:
        running.stop()


@dataclass(frozen=True)
class Told:
    """What a command line said, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Its answer as JSON."""
        return json.loads(self.out)


Ask = Callable[..., Told]


@pytest.fixture
def ask(
    service: RunningService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> Ask:
    """Call the command against the service, in an empty directory; a given `code` is asserted."""
    import os

    for name in list(os.environ):
        if name.startswith("ISTHMUS_"):
            monkeypatch.delenv(name)
    for name in ("ISTHMUS_STATE", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, service.environment[name])
    monkeypatch.chdir(tmp_path)

    def told(*words: str, code: int | None = 0) -> Told:
        capfd.readouterr()
        found = call(list(words))
        captured = capfd.readouterr()
        answer = Told(found, captured.out, captured.err)
        if code is not None:
            assert found == code, answer
        return answer

    return told
