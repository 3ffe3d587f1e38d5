"""The engine works a site through mailbox and agent, also over a link that breaks."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx
import pytest

from isthmus.data.http import PIECE_BYTES
from isthmus.domain.errors import Busy, NotFound, Unavailable
from isthmus.domain.ids import make_id
from isthmus.engine.agentsite import AgentTimeouts
from isthmus.engine.clock import SystemClock
from isthmus.engine.mailbox import Mailbox, MailboxSettings
from isthmus.sites import wire
from isthmus.sites.port import Collected, Job, LogStream, Sighting, Staged, StageOutcome, Submitted, Uncertain
from tests.agent.filesite import calls, finish, output_of, submissions
from tests.agent.inprocess import Linked, job, linked, ref
from tests.agent.plane import ControlPlane, eventually
from tests.agent.proxy import Weather


async def test_a_job_runs_through_the_mailbox(pair: Linked, key: str) -> None:
    """Describe, stage with a blob, submit, find, observe, logs, collect, usage, clean: each answers what the site says."""
    content = os.urandom(3 * 1024 * 1024 + 17)
    sha256 = await pair.plane.blobs.put_bytes(content)
    one = job(key, blobs=(sha256,), secrets={"TOKEN": "hunter2-secret"})
    assert (await pair.site.describe()).pools[0].name == "all"
    assert await pair.site.stage([one]) == {key: Staged()}
    assert (pair.root / "staged" / key / "in0").read_bytes() == content
    assert await pair.site.find([ref(key)]) == {key: ()}
    assert await pair.site.submit([one]) == {key: Submitted(native_id="1")}
    assert await pair.site.find([ref(key)]) == {key: ("1",)}
    assert (await pair.site.observe([ref(key)]))[key].sighting is Sighting.RUNNING
    assert await pair.site.usage([ref(key)]) == {}
    assert await pair.site.logs(ref(key), LogStream.STDOUT, 20, 100) == (key.encode() + bytes(range(256)))[20:120]
    finish(pair.root, key)
    assert (await pair.site.observe([ref(key)]))[key].exit_code == 0
    outcome = (await pair.site.collect([one]))[key]
    assert isinstance(outcome, Collected)
    stored = b"".join([chunk async for chunk in pair.plane.blobs.read(outcome.files[0].sha256)])
    assert stored == output_of(key)
    assert (await pair.site.usage([ref(key)]))[key].cpu_seconds == 0.25
    await pair.site.cancel([ref(key)])
    await pair.site.cancel_native(["1"])
    await pair.site.clean([ref(key)])
    assert not (pair.root / "staged" / key).exists()
    assert pair.plane.rows() == []


async def test_secrets_are_sealed_in_the_store_and_absent_from_the_journal(
    pair: Linked, key: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A job's secret is readable neither in the control plane's store nor in the agent's journal nor in a log."""
    caplog.set_level("DEBUG", "isthmus")
    pair.adapter.gate = asyncio.Event()
    asking = asyncio.create_task(pair.site.submit([job(key, secrets={"TOKEN": "hunter2-secret"})]))
    await eventually(lambda: f"submit {key}" in calls(pair.root))
    assert len(pair.plane.rows()) == 1
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name.startswith("store.db") for path in files)
    for path in files:
        assert b"hunter2-secret" not in path.read_bytes(), path
    pair.adapter.gate.set()
    assert await asking == {key: Submitted(native_id="1")}
    assert "hunter2-secret" not in caplog.text


METHODS = {
    "describe": lambda site, key: site.describe(),
    "stage": lambda site, key: site.stage([job(key)]),
    "submit": lambda site, key: site.submit([job(key)]),
    "find": lambda site, key: site.find([ref(key)]),
    "observe": lambda site, key: site.observe([ref(key)]),
    "cancel": lambda site, key: site.cancel([ref(key)]),
    "let_go": lambda site, key: site.let_go([ref(key)]),
    "cancel_native": lambda site, key: site.cancel_native([key]),
    "logs": lambda site, key: site.logs(ref(key), LogStream.STDERR, 0, 10),
    "collect": lambda site, key: site.collect([job(key)]),
    "usage": lambda site, key: site.usage([ref(key)]),
    "clean": lambda site, key: site.clean([ref(key)]),
}


def test_every_method_is_cut_below() -> None:
    """The table above is whole; what is said about data and about the network has tests of its own."""
    of_the_network = {"measure", "ask_router"}
    assert set(METHODS) == {name for name in wire.METHODS if not name.startswith("data_")} - of_the_network


@pytest.mark.parametrize("weather", [Weather.CUT, Weather.HOLD, Weather.DEAF])
@pytest.mark.parametrize("method", sorted(METHODS))
async def test_a_link_that_is_cut_during_a_call_loses_nothing(
    pair: Linked, key: str, method: str, weather: Weather
) -> None:
    """The method runs once at the site while the link is cut, its answer waits there, and arrives when the link is back."""
    pair.adapter.gate = asyncio.Event()
    asking = asyncio.create_task(METHODS[method](pair.site, key))
    await eventually(lambda: any(line.startswith(method) for line in calls(pair.root)))
    pair.proxy.turn(weather)
    pair.adapter.gate.set()
    if method != "collect":  # which needs the link itself, to send
        await until_untold(pair, True)
    if weather is not Weather.DEAF:  # which lets the answer through, and loses its acknowledgement
        assert not asking.done()
    pair.proxy.turn(Weather.FINE)
    async with asyncio.timeout(60):
        await asking
    assert len([line for line in calls(pair.root) if line.startswith(method)]) == 1
    if method == "submit":
        assert submissions(pair.root) == [(key, "1")]


async def until_untold(pair: Linked, untold: bool) -> None:
    """Wait until the agent has (or has not) an answer on disk that nobody acknowledged."""
    for _ in range(3000):
        if bool(await pair.journal.untold()) is untold:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("the journal stayed as it was")


async def test_a_delivery_whose_response_is_lost_comes_again(pair: Linked, key: str) -> None:
    """A call that the agent took but never got is delivered again, and runs once."""
    pair.proxy.turn(Weather.DEAF)
    asking = asyncio.create_task(pair.site.submit([job(key)]))
    await eventually(lambda: [row.state for row in pair.plane.rows()] == ["taken"])
    await eventually(lambda: pair.proxy.lost > 0)
    assert submissions(pair.root) == []
    pair.proxy.turn(Weather.FINE)
    async with asyncio.timeout(60):
        assert await asking == {key: Submitted(native_id="1")}
    assert submissions(pair.root) == [(key, "1")]


async def test_an_agent_that_is_away_too_long_leaves_the_engine_knowing_nothing(
    plane: ControlPlane, tmp_path: Path, key: str
) -> None:
    """A call that nobody fetches is Unavailable after its time-out, and is never delivered after that."""
    async with linked(plane, "alpha", tmp_path / "agent", timeouts=AgentTimeouts(submit=1.0)) as pair:
        pair.proxy.turn(Weather.CUT)
        with pytest.raises(Unavailable, match="within 1 s"):
            await pair.site.submit([job(key)])
        assert plane.rows() == []
        pair.proxy.turn(Weather.FINE)
        await pair.site.describe()
        assert submissions(pair.root) == []


async def test_a_call_that_expires_on_its_way_does_not_begin(plane: ControlPlane, tmp_path: Path, key: str) -> None:
    """A submission that the link holds back until after its time-out is dropped by the agent."""
    async with linked(plane, "alpha", tmp_path / "agent", timeouts=AgentTimeouts(submit=1.0)) as pair:
        pair.proxy.turn(Weather.HOLD)
        asking = asyncio.create_task(pair.site.submit([job(key)]))
        with pytest.raises(Unavailable, match="within 1 s"):
            await asking
        pair.proxy.weather = Weather.FINE  # what was held arrives now
        pair.proxy.turn(Weather.FINE)
        await pair.site.describe()
        assert submissions(pair.root) == []


async def test_an_agent_that_never_called_is_unavailable_at_once(plane: ControlPlane) -> None:
    """Nothing is put into the mailbox of a site whose agent is not connected."""
    with pytest.raises(Unavailable, match="not connected"):
        await plane.site("beta").describe()
    assert plane.rows() == []


async def test_a_late_answer_is_taken_and_ignored(pair: Linked, key: str) -> None:
    """An answer to a call that has expired is acknowledged, so that the agent forgets it."""
    pair.adapter.gate = asyncio.Event()
    site = pair.plane.site("alpha", AgentTimeouts(submit=1.0))
    with pytest.raises(Unavailable, match="did not answer"):
        await site.submit([job(key)])
    pair.adapter.gate.set()
    await eventually(lambda: submissions(pair.root) == [(key, "1")])
    await until_untold(pair, False)


async def test_nobody_is_told_that_a_job_is_not_there_while_it_is_submitted(pair: Linked, key: str) -> None:
    """While a submission is under way, `find` is Unavailable and `observe` says UNSEEN; of other jobs they speak."""
    other = make_id(1, b"0123456789")
    pair.adapter.gate = asyncio.Event()
    submitting = asyncio.create_task(pair.site.submit([job(key)]))
    await eventually(lambda: f"submit {key}" in calls(pair.root))
    looks = [
        asyncio.create_task(pair.site.find([ref(key)])),
        asyncio.create_task(pair.site.observe([ref(key), ref(other)])),
        asyncio.create_task(pair.site.find([ref(other)])),
    ]
    await eventually(lambda: len(calls(pair.root)) == 4)
    before = (await pair.journal.untold(), submissions(pair.root))
    assert before == ([], [])
    gate, pair.adapter.gate = pair.adapter.gate, None
    more = await asyncio.gather(
        pair.site.find([ref(key)]), pair.site.observe([ref(key), ref(other)]), return_exceptions=True
    )
    assert isinstance(more[0], Unavailable)
    assert not isinstance(more[1], BaseException)
    assert more[1][key].sighting is Sighting.UNSEEN
    assert more[1][other].sighting is Sighting.ABSENT
    gate.set()
    assert await submitting == {key: Submitted(native_id="1")}
    await asyncio.gather(*looks, return_exceptions=True)
    assert (await pair.site.find([ref(key)]))[key] == ("1",)


async def test_two_changes_of_one_job_never_run_at_once(pair: Linked, key: str) -> None:
    """A second stage of the same job waits for the first; another job's does not."""
    other = make_id(1, b"0123456789")
    pair.adapter.gate = asyncio.Event()
    first = asyncio.create_task(pair.site.stage([job(key)]))
    await eventually(lambda: len(calls(pair.root)) == 1)
    second = asyncio.create_task(pair.site.stage([job(key)]))
    await eventually(lambda: [row.state for row in pair.plane.rows()] == ["taken", "taken"])
    third = asyncio.create_task(pair.site.stage([job(other)]))
    await eventually(lambda: len(calls(pair.root)) == 2)
    assert calls(pair.root) == [f"stage {key}", f"stage {other}"]
    pair.adapter.gate.set()
    await asyncio.gather(first, second, third)
    assert len(calls(pair.root)) == 3


async def test_outputs_are_collected_while_inputs_are_staged(
    pair: Linked, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many stagings are under way and wait, a collection has a lane of its own."""
    gate, staged = asyncio.Event(), pair.adapter.stage

    async def slow(jobs: Sequence[Job]) -> Mapping[str, StageOutcome]:
        await gate.wait()
        return await staged(jobs)

    monkeypatch.setattr(pair.adapter, "stage", slow)
    staging = [asyncio.create_task(pair.site.stage([job(make_id(1, b"%010d" % one))])) for one in range(8)]
    await eventually(lambda: len(pair.plane.rows()) == len(staging))
    async with asyncio.timeout(60):
        (pair.root / "staged" / key).mkdir()
        assert isinstance((await pair.site.collect([job(key)]))[key], Collected)
    assert not any(one.done() for one in staging)
    gate.set()
    await asyncio.gather(*staging)


async def test_a_full_mailbox_is_busy(plane: ControlPlane, tmp_path: Path, key: str) -> None:
    """More open calls than the bound are refused with nothing stored: Unavailable to the engine, as the port says, Busy to a
    reader of logs, which have a smaller bound of their own."""
    small = MailboxSettings(max_open=3, max_open_logs=1)
    async with linked(plane, "alpha", tmp_path / "agent") as pair:
        plane.mailbox._settings = small
        pair.adapter.gate = asyncio.Event()
        asked = [asyncio.create_task(pair.site.logs(ref(key), LogStream.STDOUT, 0, 1))]
        await eventually(lambda: len(plane.rows()) == 1)
        with pytest.raises(Busy):
            await pair.site.logs(ref(key), LogStream.STDOUT, 0, 1)
        asked += [asyncio.create_task(pair.site.describe()) for _ in range(2)]
        await eventually(lambda: len(plane.rows()) == 3)
        with pytest.raises(Unavailable, match="Too many calls"):
            await pair.site.describe()
        pair.adapter.gate.set()
        await asyncio.gather(*asked)
        await pair.site.describe()


async def test_a_caller_that_gives_up_takes_its_call_back(pair: Linked, key: str) -> None:
    """A cancelled wait withdraws a call that nobody fetched."""
    pair.proxy.turn(Weather.CUT)
    asking = asyncio.create_task(pair.site.submit([job(key)]))
    await eventually(lambda: len(pair.plane.rows()) == 1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await eventually(lambda: pair.plane.rows() == [])


async def test_a_call_from_another_process_is_served(pair: Linked, key: str) -> None:
    """Two control planes over one store: the one asks, the agent calls at the other."""
    other = Mailbox(pair.plane.database, pair.plane.service.sealer, SystemClock())
    try:
        answer = await other.ask("alpha", "submit", wire.encode_arguments(wire.Jobs(jobs=(job(key),))), 60.0)
        assert wire.decode_answer("submit", answer) == {key: Submitted(native_id="1")}
    finally:
        await other.close()
    await eventually(lambda: pair.plane.rows() == [])


async def test_an_adapter_that_breaks_does_not_break_the_agent(
    pair: Linked, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in the adapter is Unavailable at the engine, without its text; errors of ours keep their class."""

    async def broken(jobs: object) -> None:
        raise ValueError("hunter2")

    async def lost(refs: object) -> None:
        raise NotFound("No such pool.")

    monkeypatch.setattr(pair.adapter, "stage", broken)
    monkeypatch.setattr(pair.adapter, "clean", lost)
    with pytest.raises(Unavailable, match="ValueError") as caught:
        await pair.site.stage([job(key)])
    assert "hunter2" not in str(caught.value)
    with pytest.raises(NotFound, match="No such pool"):
        await pair.site.clean([ref(key)])
    assert (await pair.site.describe()).kind == "file"


async def test_an_answer_that_leaves_a_job_out_promises_nothing(
    pair: Linked, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Missing keys are Uncertain, UNSEEN, or Unavailable for `find`; keys that nobody asked for are dropped."""

    async def none(_: object) -> dict[str, object]:
        return {}

    async def strange(_: object) -> dict[str, object]:
        return {"strange": Submitted(native_id="9")}

    monkeypatch.setattr(pair.adapter, "submit", strange)
    for method in ("find", "observe", "collect"):
        monkeypatch.setattr(pair.adapter, method, none)
    assert isinstance((await pair.site.submit([job(key)]))[key], Uncertain)
    assert (await pair.site.observe([ref(key)]))[key].sighting is Sighting.UNSEEN
    assert isinstance((await pair.site.collect([job(key)]))[key], Uncertain)
    with pytest.raises(Unavailable):
        await pair.site.find([ref(key)])


async def test_outputs_whose_content_was_never_sent_are_not_believed(
    pair: Linked, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent cannot make another's content its task's output by naming its hash."""
    sha256 = await pair.plane.blobs.put_bytes(b"somebody else's result")

    async def claim(_: object) -> dict[str, object]:
        from isthmus.sites.port import CollectedFile

        return {key: Collected(files=(CollectedFile(path="out", sha256=sha256, size_bytes=22),))}

    monkeypatch.setattr(pair.adapter, "collect", claim)
    assert isinstance((await pair.site.collect([job(key)]))[key], Uncertain)


async def test_large_content_survives_a_link_that_breaks_again_and_again(pair: Linked, key: str) -> None:
    """Staging and collecting of content beyond one piece go on after each break, and hashes are right."""
    content = os.urandom(PIECE_BYTES * 2 + 1234)
    sha256 = await pair.plane.blobs.put_bytes(content)
    one = job(key, blobs=(sha256,))

    async def rain() -> None:
        for _ in range(6):
            await asyncio.sleep(0.1)
            pair.proxy.turn(Weather.CUT)
            await asyncio.sleep(0.1)
            pair.proxy.turn(Weather.FINE)

    raining = asyncio.create_task(rain())
    async with asyncio.timeout(120):
        assert await pair.site.stage([one]) == {key: Staged()}
    staged = pair.root / "staged" / key / "in0"
    assert hashlib.sha256(staged.read_bytes()).hexdigest() == sha256
    await raining
    raining = asyncio.create_task(rain())
    async with asyncio.timeout(120):
        outcome = (await pair.site.collect([one]))[key]
    await raining
    assert isinstance(outcome, Collected)
    assert await pair.plane.blobs.missing([outcome.files[0].sha256]) == set()


async def test_content_is_only_given_to_the_site_whose_call_needs_it(pair: Linked, key: str, tmp_path: Path) -> None:
    """Another site's agent, and the same agent once the call is over, are told that the content is not there."""
    sha256 = await pair.plane.blobs.put_bytes(b"inputs of alpha")
    path = f"/v1/agent/blobs/{sha256}"
    async with linked(pair.plane, "beta", tmp_path / "beta") as other:
        pair.adapter.gate = asyncio.Event()
        staging = asyncio.create_task(pair.site.stage([job(key, blobs=(sha256,))]))
        await eventually(lambda: len(calls(pair.root)) == 1)
        assert (await pair.client.get(path)).content == b"inputs of alpha"
        part = await pair.client.get(path, headers={"Range": "bytes=7-8"})
        assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"of", "bytes 7-8/15")
        assert (await pair.client.get(path, headers={"Range": "bytes=15-"})).status_code == 416
        assert (await other.client.get(path)).status_code == 404
        assert (await other.client.head(path)).status_code == 404
        missing = await other.client.post("/v1/agent/blobs:missing", json={"hashes": [sha256]})
        assert missing.json() == {"missing": [sha256]}
        upload = {"Upload-Offset": "0", "Upload-Length": "1"}
        refused = await pair.client.patch(f"/v1/agent/uploads/{sha256}", content=b"x", headers=upload)
        assert refused.status_code == 403
        pair.adapter.gate.set()
        await staging
        assert (await pair.client.get(path)).status_code == 404


async def test_content_that_does_not_hash_to_its_name_is_refused(pair: Linked, key: str, tmp_path: Path) -> None:
    """A wrong upload leaves nothing behind, and the right one goes through after it."""
    from isthmus.data.http import HttpBlobStore
    from isthmus.domain.errors import Corrupt

    store = HttpBlobStore(pair.client)
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_bytes(b"right" * 1000)
    wrong.write_bytes(b"wrong" * 1000)
    sha256 = hashlib.sha256(right.read_bytes()).hexdigest()
    pair.adapter.gate = asyncio.Event()
    collecting = asyncio.create_task(pair.site.collect([job(key)]))
    await eventually(lambda: len(calls(pair.root)) == 1)
    with pytest.raises(Corrupt):
        await store.put_file(wrong, sha256)
    assert await pair.plane.blobs.missing([sha256]) == {sha256}
    await store.put_file(right, sha256)
    await store.put_file(right, sha256)
    assert await store.size(sha256) == 5000
    assert await store.missing([sha256]) == set()
    empty = await store.put_bytes(b"")
    assert [chunk async for chunk in store.read(empty)] == []
    pair.adapter.gate.set()
    assert isinstance((await collecting)[key], Collected)


async def test_calls_need_an_agents_token(plane: ControlPlane) -> None:
    """Without a token 401, with a person's token 403."""
    admin = (plane.service.state / "admin-token").read_text().strip()
    async with httpx.AsyncClient(base_url=plane.url) as client:
        nobody = await client.post("/v1/agent/calls:take", json={})
        person = await client.post("/v1/agent/calls:take", json={}, headers={"Authorization": f"Bearer {admin}"})
    assert (nobody.status_code, person.status_code) == (401, 403)


async def test_an_agent_cannot_answer_for_another_site(pair: Linked, key: str, tmp_path: Path) -> None:
    """Its token sees neither the calls of another site nor may it answer them."""
    async with linked(pair.plane, "beta", tmp_path / "beta") as other:
        pair.adapter.gate = asyncio.Event()
        asking = asyncio.create_task(pair.site.submit([job(key)]))
        await eventually(lambda: f"submit {key}" in calls(pair.root))
        call_id = pair.plane.rows()[0].id
        forged = wire.encode_result("submit", {key: Submitted(native_id="666")})
        answered = await other.client.post(f"/v1/agent/calls/{call_id}/answer", content=forged)
        assert answered.status_code == 404
        taken = await other.client.post("/v1/agent/calls:take", json={"wait_seconds": 0.0})
        assert taken.json() == {"calls": []}
        pair.adapter.gate.set()
        assert await asking == {key: Submitted(native_id="1")}


async def test_a_site_that_left_is_not_served(pair: Linked) -> None:
    """The agent of a site that left is told so."""
    import sqlalchemy as sa

    from isthmus.store import tables

    def leave(connection: sa.Connection) -> None:
        connection.execute(tables.sites.update().where(tables.sites.c.name == "alpha").values(state="left"))

    pair.plane.database.write_now(leave)
    taken = await pair.client.post("/v1/agent/calls:take", json={"wait_seconds": 0.0})
    assert taken.status_code == 403


async def test_stopping_does_not_wait_for_long_polls(plane: ControlPlane, tmp_path: Path) -> None:
    """A control plane that stops answers its agents at once."""
    async with linked(plane, "alpha", tmp_path / "agent") as pair:
        taking = asyncio.create_task(pair.client.post("/v1/agent/calls:take", json={}, timeout=60))
        await eventually(lambda: len(plane.mailbox._takers.get("alpha", ())) == 2)
        plane.mailbox.end_takes()
        assert (await taking).json() == {"calls": []}
