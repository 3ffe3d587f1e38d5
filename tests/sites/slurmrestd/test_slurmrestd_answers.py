"""slurmrestd's documents of two versions as rows, what is sent to it, and what its errors mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.domain.errors import Unavailable
from isthmus.domain.lifecycle import EndReason
from isthmus.domain.task import Accelerators, Demand
from isthmus.sites.batch.counting import usage_by_key
from isthmus.sites.batch.merge import combine
from isthmus.sites.port import Rejected, Sighting, Submitted, Uncertain
from isthmus.sites.slurm.load import parse_jobs, parse_pools
from isthmus.sites.slurmrestd import documents
from isthmus.sites.slurmrestd.client import RestClient
from isthmus.sites.slurmrestd.requests import error_texts, read_submission, submission
from isthmus.sites.slurmrestd.token import TokenSource
from tests.sites.attempts import make_job

VECTORS = Path(__file__).parents[2] / "vectors" / "slurm"
SECRET = "eyJhbGciOi.secret.token"


def key(number: int) -> str:
    """The key of a vector's job."""
    return f"01kb00000000000000000000{number}"


def read(name: str) -> Any:
    """A vector."""
    return json.loads((VECTORS / name).read_text(encoding="utf-8"))


def test_documents_of_22_05_say_what_the_commands_say() -> None:
    """Recorded at one moment, queue and accounting over HTTP agree with squeue and sacct on every state."""
    queue = documents.queue_answer(read("22.05/rest-jobs.json"))
    assert queue.complete
    rows = {row.native_id: row for row in queue.rows}
    assert (rows["29"].reason, rows["29"].exit_code) == (EndReason.EXIT_NONZERO, 3)
    assert (rows["30"].reason, rows["30"].signal) == (EndReason.SIGNALLED, 9)
    assert rows["31"].reason is EndReason.WALLTIME
    assert (rows["33"].sighting, rows["33"].nodes, rows["33"].cpus) == (Sighting.RUNNING, ("hand-c1", "hand-c2"), 12)
    assert (rows["34"].sighting, rows["34"].started_at) == (Sighting.QUEUED, None)
    assert rows["35"].reason is EndReason.CANCELLED_AT_SITE
    records = documents.record_answer(read("22.05/rest-accounting.json"))
    assert records.complete
    failed = [row for row in records.rows if row.native_id == "29"]
    assert combine([rows["29"]], failed)[0].exit_code == 3, "22.05 shows 0 in the accounting of a job that failed"


def test_usage_of_22_05_is_the_accounting() -> None:
    """The same job as in sacct's text: the same seconds and bytes."""
    usage = usage_by_key(documents.usage_answer(read("22.05/rest-accounting.json")).rows, [key(15), key(16)], "sacct")
    assert usage.keys() == {key(15)}
    used = usage[key(15)]
    assert (used.elapsed_seconds, used.allocated_cpu_seconds, used.max_rss_bytes) == (13, 52, 324194304)
    assert used.cpu_seconds == pytest.approx(0.523, abs=0.001)
    assert (used.cpus, used.accelerators, used.native_state) == (4, 2, "COMPLETED")


def test_documents_of_23_11_are_understood() -> None:
    """Numbers as objects, states as lists, exit codes as objects."""
    rows = {row.native_id: row for row in documents.queue_answer(read("23.11/rest-jobs.json")).rows}
    assert (rows["501"].reason, rows["501"].cpus, rows["501"].started_at) == (EndReason.EXIT_ZERO, 4, 1711534808.0)
    assert (rows["502"].reason, rows["502"].exit_code) == (EndReason.EXIT_NONZERO, 3)
    assert (rows["503"].sighting, rows["503"].message) == (Sighting.QUEUED, "Priority")
    assert rows["504"].state == "COMPLETING"
    assert rows["505"].sighting is Sighting.UNSEEN
    assert (rows["506"].reason, rows["506"].signal) == (EndReason.SIGNALLED, 9)
    document = read("23.11/rest-accounting.json")
    assert {row.native_id: row.reason for row in documents.record_answer(document).rows}[
        "502"
    ] is EndReason.EXIT_NONZERO
    usage = usage_by_key(documents.usage_answer(document).rows, [key(51), key(57)], "sacct")
    assert usage.keys() == {key(51)}
    used = usage[key(51)]
    assert (used.cpu_seconds, used.max_rss_bytes, used.accelerators) == (82.517, 1300000768, 2)
    assert (used.read_bytes, used.written_bytes) == (3145728, 1048576)
    nothing = documents.record_answer(read("23.11/rest-nothing.json"))
    assert nothing.complete
    assert nothing.rows == ()


def test_load_of_both_versions() -> None:
    """Nodes and partitions become the same pools as with sinfo."""
    text = documents.sinfo_text(read("22.05/rest-nodes.json"), read("22.05/rest-partitions.json"))
    cpu, gpu = parse_pools(text, documents.queue_text(read("22.05/rest-jobs.json"), 1795704225.0), {})
    assert (cpu.nodes, cpu.cpus_per_node, cpu.memory_bytes_per_node) == (2, 64, 256000 * 1024**2)
    assert (cpu.queued_jobs, cpu.running_cpu_seconds_left) == (5, 12 * 1794.0)
    assert (gpu.accelerators_per_node, gpu.accelerator_kind, gpu.max_walltime_seconds) == (4, "a100", 3600)
    text = documents.sinfo_text(read("23.11/rest-nodes.json"), read("23.11/rest-partitions.json"))
    (pool,) = parse_pools(text, "", {})
    assert (pool.nodes, pool.free_cpus, pool.free_nodes, pool.up) == (4, 124, 1, True)
    assert (pool.max_walltime_seconds, pool.accelerators_per_node) == (11520 * 60, 4)


def test_the_visible_queue_of_both_versions() -> None:
    """Documents become the same rows as squeue's lines; ended jobs are none."""
    rows = list(parse_jobs(documents.queue_text(read("22.05/rest-jobs.json"), 1795704225.0), str.upper))
    assert [row.running for row in rows].count(False) == 5
    (running,) = (row for row in rows if row.running)
    assert (running.processors, running.limit_seconds, running.pools) == (12, 1800, ("cpu",))
    assert running.started_at is not None
    assert all(row.submitted_at is not None and row.user for row in rows)
    listed = read("23.11/rest-jobs.json")["jobs"]
    live = [job for job in listed if job["job_state"][0] in {"PENDING", "RUNNING"}]
    rows = list(parse_jobs(documents.queue_text({"jobs": listed}, 1711534908.0), str))
    assert {row.id for row in rows} == {str(job["job_id"]) for job in live}


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["jobs", "errors", "job_id", "name", "job_state", "state", "current", "time", "tres", "steps"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(_JSON)
def test_garbage_is_never_a_complete_answer(document: Any) -> None:
    """Any JSON at all: nothing crashes, and only a list of whole jobs is a complete answer."""
    for answer in (documents.queue_answer(document), documents.record_answer(document)):
        listed = documents.entries(document, "jobs")
        assert answer.complete == (listed is not None and len(answer.rows) == len(listed))
    documents.usage_answer(document)
    documents.sinfo_text(document, document)
    list(parse_jobs(documents.queue_text(document, 0.0), str))
    documents.licence_text(document)
    error_texts(document)
    assert isinstance(read_submission(500, document), Rejected | Uncertain)


def test_a_refusal_is_told_from_doubt() -> None:
    """Slurm's own error numbers are a no; a broken connection behind slurmrestd, or no document, is doubt."""
    refused = read_submission(500, read("22.05/rest-refused.json"))
    assert isinstance(refused, Rejected)
    assert "partition" in refused.message
    lost = {"errors": [{"error_code": 5005, "error": "Zero Bytes were transmitted or received"}]}
    for status, document in ((500, lost), (500, None), (200, {}), (502, "gateway"), (200, {"job_id": 0, "errors": []})):
        assert isinstance(read_submission(status, document), Uncertain)
    assert read_submission(200, {"job_id": 5, "errors": []}) == Submitted(native_id="5")
    assert read_submission(200, {"result": {"job_id": 6}, "errors": []}) == Submitted(native_id="6")


def test_demand_becomes_a_document_of_either_form() -> None:
    """Old interfaces take plain numbers and an object of variables, new ones number objects and a list."""
    demand = Demand(nodes=2, cpus=4, memory_bytes=1024**3, walltime_seconds=90, accelerators=Accelerators(count=2))
    job = make_job("true", pool="gpu", account="ada", demand=demand, native={"constraint": "ib"})
    old = submission(job, "/r", 38, {"account": "phys"}, "gpu")
    assert (old["job"]["nodes"], old["job"]["memory_per_node"], old["job"]["time_limit"]) == ([2, 2], 1024, 2)
    assert (old["job"]["gres"], old["job"]["constraints"], old["job"]["account"]) == ("gpu:2", "ib", "phys")
    assert old["job"]["environment"]["USER"] == "ada"
    assert "/r/job.sh" in old["script"]
    new = submission(job, "/r", 41, {}, "gpu")
    assert new["job"]["memory_per_node"] == {"set": True, "number": 1024}
    assert (new["job"]["tres_per_node"], new["job"]["nodes"]) == ("gres/gpu:2", "2-2")
    assert "PATH=/usr/local/bin:/usr/bin:/bin" in new["job"]["environment"]
    assert new["job"]["script"] == old["script"]
    for body in (old, new):
        named = (body["job"]["name"], body["job"]["comment"], body["job"]["dependency"], body["job"]["requeue"])
        assert named == (job.key, job.key, "singleton", False)


def client(tmp_path: Path, answer: Any, *, mode: int = 0o600) -> RestClient:
    """A client whose requests are answered by a function, with a token in a file."""
    path = tmp_path / "token"
    path.write_text(f"SLURM_JWT={SECRET}\n", encoding="ascii")
    path.chmod(mode)
    return RestClient(
        "http://slurm.test:6820", TokenSource(path=str(path)), user="root", transport=httpx.MockTransport(answer)
    )


async def test_the_newest_shared_version_is_spoken(tmp_path: Path) -> None:
    """Of what the server offers, the newest that is known here; none is Unavailable."""
    offered = ["/slurm/v0.0.38/jobs", "/slurm/v0.0.40/jobs", "/slurm/v0.0.99/jobs", "/slurmdb/v0.0.41/jobs"]
    rest = client(tmp_path, lambda _: httpx.Response(200, json={"paths": {key_0: {} for key_0 in offered}}))
    assert await rest.version() == 40
    await rest.close()
    rest = client(tmp_path, lambda _: httpx.Response(200, json={"paths": {"/slurm/v0.0.99/jobs": {}}}))
    with pytest.raises(Unavailable):
        await rest.version()
    await rest.close()


@pytest.mark.parametrize(
    ("status", "document"),
    [
        (500, read("22.05/rest-bad-token.json")),
        (401, "Authentication failure"),
        (200, {"errors": [{"error_number": 1007, "error": "Protocol authentication error"}], "jobs": []}),
    ],
)
async def test_a_bad_token_is_unavailable_and_never_told(tmp_path: Path, status: int, document: Any) -> None:
    """However a server of whatever version says it, even with status 200 and an empty list of jobs."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/openapi/v3":
            return httpx.Response(200, json={"paths": {"/slurm/v0.0.38/jobs": {}}})
        assert request.headers["X-SLURM-USER-TOKEN"] == SECRET
        return httpx.Response(status, json=document)

    rest = client(tmp_path, answer)
    with pytest.raises(Unavailable) as caught:
        await rest.get("slurm", "jobs")
    assert "token" in str(caught.value)
    assert SECRET not in str(caught.value)
    await rest.close()


async def test_a_token_file_open_to_others_is_refused(tmp_path: Path) -> None:
    """The file must be its owner's alone."""
    rest = client(tmp_path, lambda _: httpx.Response(200, json={}), mode=0o644)
    with pytest.raises(Unavailable, match="open to other accounts"):
        await rest.version()
    await rest.close()


async def test_a_token_command_is_asked_for_each_account(tmp_path: Path) -> None:
    """`{account}` is filled in, the answer kept, and asked anew once it was refused; failures name no token."""
    count = tmp_path / "count"
    source = TokenSource(command=["/bin/sh", "-c", f'echo x >>{count}; echo "SLURM_JWT=tok.$0.en"', "{account}"])
    assert [await source.token("ada"), await source.token("ada"), await source.token("bob")] == [
        "tok.ada.en",
        "tok.ada.en",
        "tok.bob.en",
    ]
    assert count.read_text() == "x\nx\n"
    source.forget()
    await source.token("ada")
    assert count.read_text() == "x\nx\nx\n"
    for command in (["false"], ["no-such-program"], ["echo", "two words"]):
        with pytest.raises(Unavailable):
            await TokenSource(command=command).token("ada")
