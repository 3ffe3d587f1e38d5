"""An agent that is killed at any point submits no job twice; what it cannot know it answers as Uncertain."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from isthmus.agent.journal import Journal
from isthmus.domain.errors import Unavailable
from isthmus.engine.agentsite import AgentTimeouts
from isthmus.sites import wire
from isthmus.sites.port import SubmitOutcome, Submitted, Uncertain
from tests.agent.filesite import submissions
from tests.agent.inprocess import job, ref
from tests.agent.plane import ControlPlane, eventually
from tests.agent.process import agent_arguments, agent_process
from tests.agent.proxy import Weather, proxy

pytestmark = pytest.mark.fault


@pytest.mark.parametrize("point", ["before_run", "after_run", "after_journal", "after_send"])
async def test_a_killed_agent_submits_each_job_at_most_once(
    plane: ControlPlane, tmp_path: Path, key: str, point: str
) -> None:
    """Killed before the submission, after it, after its answer is on disk, after it is sent: once at most, and the answer
    is the truth or Uncertain; a job that the engine was told is submitted is there."""
    root = tmp_path / "site"
    arguments = agent_arguments(tmp_path / "agent", plane.url, plane.invite("alpha"), "kind: file\n")
    command = ["tests.agent.killable", str(root), point, *arguments]
    async with agent_process(command, tmp_path / "agent.log") as agent:
        await plane.connected("alpha")
        submitting = asyncio.create_task(plane.site("alpha").submit([job(key, secrets={"A": "hunter2-secret"})]))
        assert await agent.ended() == -9
        assert (root / "killed").exists()
        await agent.start()
        async with asyncio.timeout(90):
            outcome: SubmitOutcome = (await submitting)[key]
            found = (await plane.site("alpha").find([ref(key)]))[key]
        match point:
            case "before_run":
                assert (outcome, found) == (_uncertain(outcome), ())
            case "after_run":
                assert (outcome, found) == (_uncertain(outcome), ("1",))
            case _:
                assert (outcome, found) == (Submitted(native_id="1"), ("1",))
        assert len(submissions(root)) <= 1
        assert "hunter2-secret" not in agent.log
        assert await agent.terminate() == 0
    for path in (tmp_path / "agent").rglob("*"):
        assert path.is_dir() or b"hunter2-secret" not in path.read_bytes()


def _uncertain(outcome: SubmitOutcome) -> Uncertain:
    assert isinstance(outcome, Uncertain), outcome
    return outcome


async def test_answers_that_wait_on_disk_survive_a_kill(plane: ControlPlane, tmp_path: Path, key: str) -> None:
    """The link is cut, the job is submitted, the agent is killed and started again: the answer arrives with the link."""
    root = tmp_path / "site"
    async with proxy(plane.port) as way:
        arguments = agent_arguments(tmp_path / "agent", way.url, plane.invite("alpha"), "kind: file\n")
        command = ["tests.agent.killable", str(root), "after_journal", *arguments]
        async with agent_process(command, tmp_path / "agent.log") as agent:
            await plane.connected("alpha")
            submitting = asyncio.create_task(plane.site("alpha").submit([job(key)]))
            assert await agent.ended() == -9
            way.turn(Weather.CUT)
            await agent.start()
            await eventually(lambda: "is sent" in agent.log)
            assert not submitting.done()
            way.turn(Weather.FINE)
            async with asyncio.timeout(60):
                assert await submitting == {key: Submitted(native_id="1")}
    assert submissions(root) == [(key, "1")]


async def test_a_call_that_had_not_begun_is_delivered_to_the_next_start(
    plane: ControlPlane, tmp_path: Path, key: str
) -> None:
    """What the killed agent took and did not begin runs once after the start; nothing of it was on its disk but names."""
    root = tmp_path / "site"
    arguments = agent_arguments(tmp_path / "agent", plane.url, plane.invite("alpha"), "kind: file\n")
    command = ["tests.agent.killable", str(root), "never", *arguments]
    async with agent_process(command, tmp_path / "agent.log") as agent:
        await plane.connected("alpha")
        await agent.kill()
        submitting = asyncio.create_task(plane.site("alpha").submit([job(key)]))
        await eventually(lambda: len(plane.rows()) == 1)
        _mark_taken(plane)
        await agent.start()
        async with asyncio.timeout(60):
            assert await submitting == {key: Submitted(native_id="1")}
    assert submissions(root) == [(key, "1")]


def _mark_taken(plane: ControlPlane) -> None:
    """As if the agent had taken every call just before it was killed."""
    import sqlalchemy as sa

    from isthmus.store.tables import agent_calls, tokens

    def work(connection: sa.Connection) -> None:
        token = connection.execute(sa.select(tokens.c.id).where(tokens.c.site == "alpha")).scalar_one()
        connection.execute(agent_calls.update().values(state="taken", taken_by=token, taken_at=1e12))

    plane.database.write_now(work)


async def test_a_new_agent_does_not_run_what_another_may_have_begun(
    plane: ControlPlane, tmp_path: Path, key: str
) -> None:
    """An agent with a new state directory answers Uncertain for a submission that the lost one had taken."""
    root = tmp_path / "site"
    first = agent_arguments(tmp_path / "first", plane.url, plane.invite("alpha"), "kind: file\n")
    command = ["tests.agent.killable", str(root), "after_run", *first]
    async with agent_process(command, tmp_path / "first.log") as agent:
        await plane.connected("alpha")
        site = plane.site("alpha", AgentTimeouts(submit=120.0))
        submitting = asyncio.create_task(site.submit([job(key)]))
        assert await agent.ended() == -9
    plane.mailbox._settings = type(plane.mailbox._settings)(lease_seconds=0.5)
    second = agent_arguments(tmp_path / "second", plane.url, plane.invite("alpha"), "kind: file\n")
    command = ["tests.agent.killable", str(root), "never", *second]
    async with agent_process(command, tmp_path / "second.log"):
        async with asyncio.timeout(90):
            assert isinstance((await submitting)[key], Uncertain)
    assert submissions(root) == [(key, "1")]


async def test_the_journal_gives_back_the_first_answer(tmp_path: Path) -> None:
    """A second answer for a call changes nothing; an acknowledged one is kept for a late delivery."""
    journal = Journal(tmp_path / "journal.sqlite")
    try:
        await journal.take([("call", "submit", ("k",))])
        await journal.begin("call")
        await journal.answered("call", "one")
        await journal.answered("call", "two")
        assert [entry.answer for entry in await journal.untold()] == ["one"]
        await journal.told("call")
        assert await journal.untold() == []
        kept = await journal.entry("call")
        assert kept is not None
        assert (kept.state, kept.answer, kept.keys) == ("told", "one", ("k",))
    finally:
        await journal.close()


async def test_recovery_answers_for_begun_submissions_only(tmp_path: Path) -> None:
    """Taken calls and begun calls that may run again are forgotten; a begun submission is Uncertain for each key."""
    path = tmp_path / "journal.sqlite"
    journal = Journal(path)
    await journal.take([("a", "submit", ("k1", "k2")), ("b", "submit", ("k3",)), ("c", "stage", ("k4",))])
    await journal.begin("a")
    await journal.begin("c")
    await journal.close()
    journal = Journal(path)
    try:
        entries = await journal.recover()
        assert [entry.id for entry in entries] == ["a"]
        outcomes = wire.decode_answer("submit", entries[0].answer)
        assert {key: type(outcome) for key, outcome in outcomes.items()} == {"k1": Uncertain, "k2": Uncertain}
        assert await journal.entry("b") is None
        assert await journal.entry("c") is None
    finally:
        await journal.close()


async def test_a_submission_that_cannot_be_written_down_is_not_begun(
    tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk at the agent is Unavailable, not a submission that a crash would forget."""
    import time

    from isthmus.agent.link import Call
    from isthmus.agent.runner import Runner
    from isthmus.data.directory import DirectoryBlobStore
    from tests.agent.filesite import FileSite

    journal = Journal(tmp_path / "journal.sqlite")
    answers: dict[str, str] = {}
    site = FileSite(tmp_path / "site", DirectoryBlobStore(tmp_path / "blobs"))
    runner = Runner(site, journal, answers.__setitem__)

    async def full(*_: object) -> None:
        raise Unavailable("The disk is full.")

    for method in ("take", "begin", "answered"):
        monkeypatch.setattr(journal, method, full)
    try:
        later = time.monotonic() + 60
        submit = Call(id="s", method="submit", arguments=wire.Jobs(jobs=(job(key),)), deadline=later)
        look = Call(id="d", method="describe", arguments=wire.Nothing(), deadline=later)
        await runner.accept([submit, look, submit])
        await eventually(lambda: len(answers) == 2)
        with pytest.raises(Unavailable, match="full"):
            wire.decode_answer("submit", answers["s"])
        assert wire.decode_answer("describe", answers["d"]).kind == "file"
        assert submissions(tmp_path / "site") == []
    finally:
        await runner.stop(5.0)
        await journal.close()


async def test_a_delivery_again_gets_the_answer_again(tmp_path: Path, key: str) -> None:
    """A call id that was answered is not run again: while it runs it is dropped, later its journaled answer is sent."""
    import time

    from isthmus.agent.link import Call
    from isthmus.agent.runner import Runner
    from isthmus.data.directory import DirectoryBlobStore
    from tests.agent.filesite import FileSite

    journal = Journal(tmp_path / "journal.sqlite")
    answers: list[tuple[str, str]] = []
    site = FileSite(tmp_path / "site", DirectoryBlobStore(tmp_path / "blobs"))
    site.gate = asyncio.Event()
    runner = Runner(site, journal, lambda call_id, answer: answers.append((call_id, answer)))
    call = Call(id="s", method="submit", arguments=wire.Jobs(jobs=(job(key),)), deadline=time.monotonic() + 60)
    try:
        await runner.accept([call, call])
        await runner.accept([call])
        site.gate.set()
        await eventually(lambda: len(answers) == 1)
        await runner.accept([call])
        await journal.told("s")
        await runner.accept([call])
        assert len(answers) == 3
        assert len(set(answers)) == 1
        assert submissions(tmp_path / "site") == [(key, "1")]
    finally:
        await runner.stop(5.0)
        await journal.close()
