"""What a stranger or a careless start could do to a real service, and cannot."""

from __future__ import annotations

import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from isthmus.domain.errors import Invalid
from isthmus.server import parse
from tests.client.service import RunningService


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A running service, whose state directory could be read by everybody before it started."""
    state = tmp_path_factory.mktemp("boundaries") / "state"
    state.mkdir(mode=0o755)
    running = RunningService(state)
    try:
        running.start()
        yield running
    finally:
        running.stop()


@pytest.fixture
def call(service: RunningService) -> Iterator[Any]:
    """Call the service with a token (the administrator's unless another is given)."""
    with httpx.Client(base_url=service.profile.url, trust_env=False, timeout=60) as client:

        def ask(method: str, path: str, body: Any = None, token: str = "") -> httpx.Response:
            headers = {"Authorization": f"Bearer {token or service.profile.token}"}
            return client.request(method, path, json=body, headers=headers)

        yield ask


def test_the_state_is_closed_to_others(service: RunningService) -> None:
    """A state directory that others could read is closed at the start; so is everything in it."""
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (service.state, *service.state.iterdir())]
    assert not any(mode & 0o077 for mode in modes)


def test_a_token_does_not_outlive_its_maker(call: Any) -> None:
    """Naming oneself as the user of a new token is no way around the end of one's own."""
    call("POST", "/v1/users", {"name": "ada"})
    short = call("POST", "/v1/tokens", {"user": "ada", "scopes": ["tasks:write"], "expires_in_seconds": 600}).json()

    made = call("POST", "/v1/tokens", {"user": "ada", "scopes": ["tasks:write"]}, short["token"]).json()

    assert made["expires_at"] == short["expires_at"]


def test_a_path_forges_no_log_line(call: Any, service: RunningService) -> None:
    """A line break in the path of a request stays within its own record."""
    call("GET", "/v1/x%0AFORGED%1b[2J")
    deadline = time.monotonic() + 30  # the record follows the answer
    while "FORGED" not in (log := (service.state.parent / "server.log").read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "x\\nFORGED\\x1b[2J" in log
    assert not any(line.startswith("FORGED") for line in log.splitlines())


@pytest.mark.parametrize("account", ["root;id", "-x", "#0", "a b", "$(id)", "..", "a/b"])
def test_an_account_is_a_name(call: Any, account: str) -> None:
    """What is not the name of an account is refused when it is mapped."""
    assert call("PATCH", "/v1/sites/local", {"accounts": {"*": account}}).status_code == 422


@pytest.mark.parametrize(
    "wrong",
    [{"image": "--volume=/:/host"}, {"image": "a b"}, {"demand": {"licences": {"a:1,b": 1}}}, {"stdout": "../claim"}],
)
def test_names_that_would_be_options_are_refused(call: Any, wrong: dict[str, Any]) -> None:
    """What becomes a word of a command line at a site cannot be another option."""
    assert call("POST", "/v1/tasks", {"command": ["true"], **wrong}).status_code == 422


def test_tes_files_never_hold_the_state(tmp_path: Path) -> None:
    """The directory of the key and of everybody's content cannot be opened to file:// addresses."""
    for directory, state in ((tmp_path, tmp_path / "state"), (tmp_path / "s" / "x", tmp_path / "s")):
        directory.mkdir(parents=True, exist_ok=True)
        with pytest.raises(Invalid, match="state directory"):
            parse(["--state", str(state), "--tes-files", str(directory)])


def test_the_audit_is_searched_by_administrators_only(call: Any) -> None:
    """Changes of people and sites are found by who, what and to whom, page by page; others do not see them."""
    call("POST", "/v1/users", {"name": "eve"})
    token = call("POST", "/v1/tokens", {"user": "eve", "scopes": ["tasks:write"]}).json()["token"]

    found = call("GET", "/v1/audit?action=user.put&subject=eve").json()
    page = call("GET", "/v1/audit?limit=1").json()
    rest = call("GET", f"/v1/audit?cursor={page['next_cursor']}").json()

    assert [(item["user"], item["subject"]) for item in found["items"]] == [("admin", "eve")]
    assert page["items"][0]["action"] == "token.create"
    assert rest["items"][0]["seq"] < page["items"][0]["seq"]
    assert token not in str(page)
    assert call("GET", "/v1/audit", token=token).status_code == 403
