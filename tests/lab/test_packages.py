"""The installer does what is needed where it may, and says what it leaves out elsewhere."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from isthmus.lab import packages


def test_without_root_nothing_is_installed_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An ordinary caller gets the list of what is left out, and success."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert packages.install() == 0
    said = capsys.readouterr().out
    assert "not root" in said
    assert "slurm" in said


def test_every_feature_is_judged_and_an_absent_program_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason names the program and the remedy."""
    features = {"slurm", "gridengine", "sshd", "postgresql", "containers", "network", "browser"}
    assert set(packages.missing()) == features
    monkeypatch.setattr(packages, "find_program", lambda name: None if name == "sbatch" else f"/bin/{name}")
    reason = packages.missing()["slurm"]
    assert reason is not None
    assert "sbatch" in reason
    assert "isthmus.lab.packages" in reason


@pytest.mark.skipif(not packages.can_install(), reason="only root on Debian installs")
def test_a_package_that_is_not_there_is_seen() -> None:
    """dpkg-query tells the installed from the unknown."""
    assert packages._not_installed(["dpkg", "isthmus-no-such-package"]) == ["isthmus-no-such-package"]


def test_services_are_kept_from_starting_by_a_policy_that_is_removed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While packages are installed the policy says 101 (forbidden); afterwards there is none."""
    policy = tmp_path / "policy-rc.d"
    monkeypatch.setattr(packages, "POLICY", policy)
    with packages._no_services_started():
        assert subprocess.run([policy], check=False).returncode == 101
    assert not policy.exists()


def test_a_policy_of_the_machine_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy that was there before stays as it was."""
    policy = tmp_path / "policy-rc.d"
    policy.write_text("theirs")
    monkeypatch.setattr(packages, "POLICY", policy)
    with packages._no_services_started():
        pass
    assert policy.read_text() == "theirs"


def test_a_failing_command_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second try succeeds where the first failed."""
    monkeypatch.setattr(packages.time, "sleep", lambda seconds: None)
    mark = tmp_path / "tried"
    assert packages._retried(["sh", "-c", f"test -e {mark} || {{ touch {mark}; exit 1; }}"]) == 0
    assert packages._retried(["false"]) == 1
