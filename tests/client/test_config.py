"""Where the service is and who asks; a token goes to the address it belongs to and no other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from isthmus.client.config import NotConfigured, Profile, find_profile
from isthmus.domain.errors import Refused


def _home(tmp_path: Path, config: str = "", *, url: str = "http://127.0.0.1:1") -> dict[str, str]:
    state = tmp_path / "state"
    state.mkdir()
    (state / "service.json").write_text(json.dumps({"url": url, "pid": 1}))
    token = state / "admin-token"
    token.write_text("local-token\n")
    token.chmod(0o600)
    if config:
        file = tmp_path / "config/isthmus/config.toml"
        file.parent.mkdir(parents=True)
        file.write_text(config)
        file.chmod(0o600)
    return {"HOME": str(tmp_path), "ISTHMUS_STATE": str(state), "XDG_CONFIG_HOME": str(tmp_path / "config")}


def test_the_local_service_is_found(tmp_path: Path) -> None:
    """Without any setting the service of this machine is meant, with its administrator's token."""
    profile = find_profile(environment=_home(tmp_path))
    assert (profile.url, profile.token, profile.project) == ("http://127.0.0.1:1", "local-token", "default")


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    """ISTHMUS_* before config.toml before the local service."""
    home = _home(tmp_path, 'url = "https://file.test/"\ntoken = "file-token"\nproject = "of-file"\n')
    assert find_profile(environment=home) == Profile(
        url="https://file.test",
        token="file-token",
        project="of-file",
        source=str(tmp_path / "config/isthmus/config.toml"),
    )
    given = {**home, "ISTHMUS_URL": "https://env.test", "ISTHMUS_TOKEN": "env-token", "ISTHMUS_PROJECT": "p"}
    assert find_profile(environment=given) == Profile(
        url="https://env.test", token="env-token", project="p", source="ISTHMUS_URL"
    )


def test_no_token_goes_to_another_address(tmp_path: Path) -> None:
    """Neither the local administrator's token nor that of the file is sent to an address that was named alone."""
    home = _home(tmp_path, 'url = "https://file.test"\ntoken = "file-token"\n')
    with pytest.raises(NotConfigured, match="no token"):
        find_profile(environment={**home, "ISTHMUS_URL": "https://elsewhere.test"})
    assert find_profile(environment={**home, "ISTHMUS_URL": "http://127.0.0.1:1/"}).token == "local-token"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_token_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    """As ssh does with keys."""
    home = _home(tmp_path)
    file = tmp_path / "token"
    file.write_text("t")
    file.chmod(mode)
    given = {**home, "ISTHMUS_URL": "https://x.test", "ISTHMUS_TOKEN_FILE": str(file)}
    with pytest.raises(Refused, match="read by others") as caught:
        find_profile(environment=given)
    assert "chmod 600" in caught.value.remedy
    file.chmod(0o600)
    assert find_profile(environment=given).token == "t"


def test_a_config_file_with_a_token_must_be_private(tmp_path: Path) -> None:
    """A token in the profile file is guarded like a token file."""
    home = _home(tmp_path, 'url = "https://file.test"\ntoken = "t"\n')
    (tmp_path / "config/isthmus/config.toml").chmod(0o644)
    with pytest.raises(Refused, match="read by others"):
        find_profile(environment=home)


def test_named_profiles(tmp_path: Path) -> None:
    """ISTHMUS_PROFILE chooses; a wrong name lists those there are."""
    home = _home(tmp_path, '[profiles.a]\nurl = "https://a.test"\ntoken = "ta"\n')
    assert find_profile(environment={**home, "ISTHMUS_PROFILE": "a"}).url == "https://a.test"
    with pytest.raises(NotConfigured, match="b"):
        find_profile(environment={**home, "ISTHMUS_PROFILE": "b"})


def test_nothing_known_is_said_with_what_to_do(tmp_path: Path) -> None:
    """Without any service the error says how to get one."""
    with pytest.raises(NotConfigured) as caught:
        find_profile(environment={"HOME": str(tmp_path)})
    assert "isthmus up" in caught.value.remedy


@pytest.mark.parametrize(
    ("url", "clear"),
    [("http://10.0.0.1:80", True), ("http://127.0.0.2", False), ("http://[::1]:1", False), ("https://h", False)],
)
def test_an_unencrypted_way_is_known(url: str, clear: bool) -> None:
    """http beyond this machine is in the clear."""
    assert Profile(url=url).in_the_clear is clear
