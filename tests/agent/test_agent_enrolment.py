"""One agent is let in by one one-time token."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import httpx
import pytest

from isthmus.agent.config import read_site_config
from isthmus.agent.link import Backoff, make_client
from isthmus.agent.state import StateDirectory
from isthmus.domain.errors import Conflict, Invalid, Refused
from isthmus.trust.tokens import new_secret
from tests.agent.inprocess import job
from tests.agent.plane import ControlPlane
from tests.agent.process import agent_arguments, agent_process


async def _enrol(plane: ControlPlane, token: str, agent_token: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=plane.url) as client:
        return await client.post("/v1/agent/enrol", json={"token": token, "agent_token": agent_token})


async def _take(plane: ControlPlane, agent_token: str) -> int:
    async with httpx.AsyncClient(base_url=plane.url, headers={"Authorization": f"Bearer {agent_token}"}) as client:
        return (await client.post("/v1/agent/calls:take", json={"wait_seconds": 0.0})).status_code


async def test_a_one_time_token_works_once(plane: ControlPlane) -> None:
    """The same agent may ask again, because its answer may have been lost; any other is refused."""
    one_time, mine, other = plane.invite("alpha"), new_secret(), new_secret()
    first = await _enrol(plane, one_time, mine)
    assert (first.status_code, first.json()["site"]) == (200, "alpha")
    again = await _enrol(plane, one_time, mine)
    assert again.json() == first.json()
    assert (await _enrol(plane, one_time, other)).status_code == 401
    assert (await _take(plane, mine), await _take(plane, other)) == (200, 401)


async def test_of_many_at_once_one_is_let_in(plane: ControlPlane) -> None:
    """Concurrent uses of one token by different agents: exactly one gets a token."""
    one_time = plane.invite("alpha")
    tokens = [new_secret() for _ in range(8)]
    answers = await asyncio.gather(*(_enrol(plane, one_time, token) for token in tokens))
    assert sorted(answer.status_code for answer in answers) == [200] + [401] * 7
    assert sorted([await _take(plane, token) for token in tokens]) == [200] + [401] * 7


@pytest.mark.parametrize("agent_token", ["", "short", "ist_" + "x" * 10, "abc_" + "x" * 40, "ist_" + "ü" * 40])
async def test_a_weak_agent_token_is_refused(plane: ControlPlane, agent_token: str) -> None:
    """An agent must bring 32 bytes of chance; the one-time token is not used up by a try that fails."""
    one_time = plane.invite("alpha")
    assert (await _enrol(plane, one_time, agent_token)).status_code == 422
    assert (await _enrol(plane, one_time, new_secret())).status_code == 200


async def test_an_expired_or_unknown_token_is_refused(plane: ControlPlane) -> None:
    """401 for both."""
    assert (await _enrol(plane, plane.invite("alpha", life_seconds=-1.0), new_secret())).status_code == 401
    assert (await _enrol(plane, "ist_unknown", new_secret())).status_code == 401


async def test_a_new_agent_replaces_the_one_before(plane: ControlPlane) -> None:
    """Enrolling again revokes the earlier agent's token of this site, and of no other."""
    first, second, beta = new_secret(), new_secret(), new_secret()
    await _enrol(plane, plane.invite("alpha"), first)
    await _enrol(plane, plane.invite("beta"), beta)
    await _enrol(plane, plane.invite("alpha"), second)
    assert [await _take(plane, token) for token in (first, second, beta)] == [401, 200, 200]


async def test_a_site_without_agent_has_no_invitations(plane: ControlPlane) -> None:
    """Only a site with mode agent is enrolled at."""
    plane.join("direct", mode="direct")
    with pytest.raises(Conflict):
        plane.invite("direct")


async def test_the_command_enrols_once_and_keeps_its_token(plane: ControlPlane, tmp_path: Path) -> None:
    """It starts again without a new one-time token; its files are its owner's alone; SIGTERM ends it with 0."""
    root = tmp_path / "root"
    config = f"kind: local\nsettings: {{root: {root}}}\n"
    arguments = agent_arguments(tmp_path / "agent", plane.url, plane.invite("alpha"), config)
    async with agent_process(["isthmus.agent.main", *arguments], tmp_path / "log") as agent:
        await plane.connected("alpha")
        seen = plane.last_seen("alpha")
        assert seen is not None
        assert await agent.terminate() == 0
        (tmp_path / "agent" / "one-time").unlink()
        await agent.start()
        await plane.connected("alpha", since=seen)
        assert (await plane.site("alpha").describe()).kind == "local"
        token = (tmp_path / "agent" / "state" / "token").read_text().strip()
        assert token not in agent.log
        other = agent_arguments(tmp_path / "other", plane.url, "", config)
        other[other.index("--state") + 1] = str(tmp_path / "agent" / "state")
        async with agent_process(["isthmus.agent.main", *other], tmp_path / "other.log") as second:
            assert await second.ended() == 1
            assert "Another agent uses" in second.log
        assert await agent.terminate() == 0
    for path in (tmp_path / "agent" / "state").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


async def test_a_wrong_start_says_what_is_wrong(plane: ControlPlane, tmp_path: Path) -> None:
    """A setting that is wrong ends the command with 2 and names it; a used-up token with 1."""
    bad = agent_arguments(tmp_path / "bad", plane.url, plane.invite("alpha"), "kind: nosuch\n")
    async with agent_process(["isthmus.agent.main", *bad], tmp_path / "bad.log") as agent:
        assert await agent.ended() == 2
        assert "nosuch" in agent.log
    used = agent_arguments(tmp_path / "used", plane.url, "ist_used", "kind: local\n")
    async with agent_process(["isthmus.agent.main", *used], tmp_path / "used.log") as agent:
        assert await agent.ended() == 1
        assert "one-time token is not known" in agent.log


async def test_accounts_that_the_operator_does_not_allow_are_rejected(
    plane: ControlPlane, tmp_path: Path, key: str
) -> None:
    """The agent's own list holds whatever the control plane asks; the agent's own account is not special."""
    from isthmus.domain.errors import Refused as RefusedError
    from isthmus.sites.port import LogStream, Rejected, Staged
    from tests.agent.inprocess import ref

    config = f"kind: local\nsettings: {{root: {tmp_path / 'root'}}}\naccounts_allowed: [nobody-here]\n"
    arguments = agent_arguments(tmp_path / "agent", plane.url, plane.invite("alpha"), config)
    async with agent_process(["isthmus.agent.main", *arguments], tmp_path / "log"):
        await plane.connected("alpha")
        site = plane.site("alpha")
        for method in (site.stage, site.submit, site.collect):
            outcome = (await method([job(key)]))[key]
            assert isinstance(outcome, Rejected)
            assert "does not allow" in outcome.message
        with pytest.raises(RefusedError):
            await site.logs(ref(key), LogStream.STDOUT, 0, 10)
        await site.cancel([ref(key)])
        await site.clean([ref(key)])
    assert not (tmp_path / "root" / "attempts" / key).exists()
    assert Staged() not in [outcome]


def test_a_state_directory_that_others_may_read_is_refused(tmp_path: Path) -> None:
    """Mode 0700 or none."""
    tmp_path.chmod(0o755)
    with pytest.raises(Refused, match="chmod 700"):
        StateDirectory(tmp_path)


@pytest.mark.parametrize("url", ["http://example.org", "ftp://localhost", "example.org", "http://10.0.0.1:80"])
def test_plain_http_is_for_this_machine_only(url: str) -> None:
    """A token never travels readable."""
    with pytest.raises(Invalid, match="https"):
        make_client(url)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("[]", "site-config"),
        ("{", "site-config"),
        ("settings: {}", "site-config.kind"),
        ("kind: local\nsetings: {}", "site-config.setings"),
        ("kind: local\nsettings: 3", "site-config.settings"),
        ("kind: local\naccounts_allowed: root", "site-config.accounts_allowed"),
    ],
)
def test_a_wrong_site_config_is_named(tmp_path: Path, text: str, field: str) -> None:
    """Each mistake has its field."""
    path = tmp_path / "site.yaml"
    path.write_text(text)
    with pytest.raises(Invalid) as caught:
        read_site_config(path)
    assert caught.value.field == field


def test_pauses_grow_and_are_bounded() -> None:
    """From the first pause to the longest, with jitter below it, and back after a success."""
    backoff = Backoff(first_seconds=1.0, most_seconds=8.0)
    pauses = [backoff.next() for _ in range(20)]
    assert 0.5 <= pauses[0] <= 1.0
    assert all(4.0 <= pause <= 8.0 for pause in pauses[3:])
    backoff.succeeded()
    assert backoff.next() <= 1.0
