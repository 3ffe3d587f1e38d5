"""Operators' mistakes in settings are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from isthmus.data.directory import DirectoryBlobStore
from isthmus.domain.errors import Invalid
from isthmus.sites.plain import LocalSite, SshSite


@pytest.mark.parametrize(
    ("config", "field", "hint"),
    [
        ({"rooot": "/x"}, "rooot", "root"),
        ({"max_command": 3}, "max_command", "max_commands"),
        ({"host": "h"}, "host", ""),
        ({"cpus": 0}, "cpus", "from 1"),
        ({"cpus": True}, "cpus", "whole number"),
        ({"memory": "lots"}, "memory", "8G"),
        ({"root": "relative/path"}, "root", "/path"),
        ({"root": "/a/../b"}, "root", "/path"),
        ({"switch_account": "su"}, "switch_account", "runuser"),
        ({"images": {"*": "magic"}}, "images.*", "host, pull"),
        ({"images": ["x"]}, "images", "name"),
        ({"network": "bridge"}, "network", "none, host"),
        ({"env": {"not a name": "x"}}, "env.not a name", "letters"),
        ({"grace_seconds": 0}, "grace_seconds", "from 1"),
    ],
)
def test_a_wrong_setting_is_named_with_what_would_be_right(
    config: dict[str, Any], field: str, hint: str, tmp_path: Path
) -> None:
    """Invalid says which key, and the nearest known key or the allowed values."""
    with pytest.raises(Invalid) as caught:
        LocalSite("here", config, DirectoryBlobStore(tmp_path))
    assert caught.value.field == field
    assert hint in caught.value.remedy


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({}, "host"),
        ({"host": "h"}, "user"),
        ({"host": "h", "user": "u", "known_hosts": "/no/such"}, "known_hosts"),
        ({"host": "h", "user": "u", "known_hosts": __file__, "key_file": "/no/such"}, "key_file"),
        ({"host": "h", "user": "u", "known_hosts": __file__, "port": 70000}, "port"),
    ],
)
def test_an_ssh_site_needs_its_settings(config: dict[str, Any], field: str, tmp_path: Path) -> None:
    """Host, user, and files that exist; a host key is never taken on trust."""
    with pytest.raises(Invalid) as caught:
        SshSite("there", config, DirectoryBlobStore(tmp_path))
    assert caught.value.field == field


def test_every_setting_is_explained() -> None:
    """Each key has one sentence of help."""
    for kind in (LocalSite, SshSite):
        assert {
            "root",
            "cpus",
            "memory",
            "images",
            "network",
            "max_commands",
            "switch_account",
        } <= kind.CONFIG_HELP.keys()
        assert all(text.endswith(".") for text in kind.CONFIG_HELP.values())
    assert {"host", "port", "user", "key_file", "known_hosts"} <= SshSite.CONFIG_HELP.keys()
