"""What Grid Engine's commands print as rows, what qsub is told, and what its answers mean."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.domain.lifecycle import EndReason
from isthmus.domain.task import Accelerators, Demand
from isthmus.sites.batch.counting import usage_by_key
from isthmus.sites.gridengine import accounting, load
from isthmus.sites.gridengine.queue import parse_queue, sighting_of
from isthmus.sites.gridengine.submission import Resources, check, parse_qsub, qsub_argv
from isthmus.sites.port import Full, Rejected, Sighting, Submitted, Uncertain
from tests.sites.attempts import make_job

VECTORS = Path(__file__).parents[2] / "vectors" / "gridengine"


def key(number: int) -> str:
    """The key of a vector's job."""
    return f"01kb00000000000000000000{number}"


def read(name: str) -> str:
    """A vector."""
    return (VECTORS / name).read_text(encoding="utf-8")


def test_the_queue_is_understood() -> None:
    """Running, waiting, held, broken and finished jobs of the recorded queue."""
    answer = parse_queue(read("qstat.xml"))
    assert answer.complete
    seen = {row.name[-2:]: row for row in answer.rows}
    assert (seen["64"].sighting, seen["64"].cpus, seen["64"].nodes) == (Sighting.RUNNING, 3, ("vm",))
    assert seen["65"].sighting is Sighting.QUEUED
    assert seen["66"].sighting is Sighting.QUEUED
    assert seen["68"].sighting is Sighting.QUEUED
    assert "error state" in seen["68"].message
    assert all(seen[number].gone for number in ("61", "62", "63", "67", "69"))


def test_the_accounting_is_understood() -> None:
    """Exit codes, the time limit and a deletion of the recorded accounting."""
    answer = accounting.parse_records(read("qacct.txt"))
    assert answer.complete
    ends = {row.name[-2:]: (row.reason, row.exit_code) for row in answer.rows}
    assert ends["61"] == (EndReason.EXIT_ZERO, 0)
    assert ends["62"] == (EndReason.EXIT_NONZERO, 3)
    assert ends["63"] == (EndReason.WALLTIME, None)
    assert ends["67"] == (EndReason.CANCELLED_AT_SITE, None)


def test_usage_is_what_qacct_says() -> None:
    """Slots, whole seconds, processor time, memory and devices."""
    usage = usage_by_key(accounting.parse_usage(read("qacct.txt"), "gpu").rows, [key(61), key(62), key(64)], "qacct")
    assert usage.keys() == {key(61), key(62)}
    used = usage[key(62)]
    assert (used.cpus, used.accelerators, used.source) == (2, 1, "qacct")
    assert used.allocated_cpu_seconds == 2 * used.elapsed_seconds
    assert 1024**2 < used.max_rss_bytes < 100 * 1024**2, "a shell takes a few MiB"


def test_load_is_understood() -> None:
    """The queue's slots, what running jobs hold of the devices, and what waits."""
    pools = load.parse_pools(read("qhost.xml"), read("qstat-load.xml"), "gpu", "a100", now=0.0)
    assert pools is not None
    (pool,) = pools
    assert (pool.name, pool.nodes, pool.cpus_per_node, pool.free_cpus, pool.up) == ("all.q", 1, 16, 13, True)
    assert (pool.accelerators_per_node, pool.accelerator_kind) == (4, "a100")
    assert pool.queued_jobs == 3
    assert pool.queued_cpu_seconds == 660.0


def test_the_visible_queue_has_rows() -> None:
    """What runs with its start, what waits with its submission, each with slots and limit; no queue named means any."""
    jobs = list(load.parse_jobs(read("qstat-load.xml"), ["all.q"], str.upper))
    running = [job for job in jobs if job.running]
    waiting = [job for job in jobs if not job.running]
    assert (len(running), len(waiting)) == (1, 3)
    assert (running[0].processors, running[0].limit_seconds, running[0].user) == (3, 600, "BATCHUSER")
    assert running[0].started_at is not None
    assert all(job.submitted_at is not None and job.pools == ("all.q",) for job in waiting)
    assert sum(job.processors * (job.limit_seconds or 0) for job in waiting) == 660


@given(st.text())
def test_garbage_is_never_a_complete_answer(text: str) -> None:
    """Nothing crashes, and what is no document is not an empty queue."""
    assert not parse_queue(text).complete
    accounting.parse_records(text)
    accounting.parse_usage(text, "gpu")
    assert load.parse_pools(text, text, "gpu", "", 0.0) is None
    assert list(load.parse_jobs(text, ["q"], str)) == []
    assert isinstance(parse_qsub(0, text), Submitted | Uncertain)


def test_a_document_with_entities_is_refused() -> None:
    """qstat writes none; one that does is not read."""
    assert not parse_queue('<!DOCTYPE x [<!ENTITY a "b">]><job_info>&a;</job_info>').complete


def test_records_without_an_end_are_not_whole() -> None:
    """A cut-off block makes the answer incomplete."""
    text = read("qacct.txt")
    assert not accounting.parse_records(text[: text.index("exit_status")]).complete


@pytest.mark.parametrize(
    ("state", "sighting"),
    [
        ("r", Sighting.RUNNING),
        ("t", Sighting.RUNNING),
        ("dr", Sighting.RUNNING),
        ("Rr", Sighting.RUNNING),
        ("S", Sighting.RUNNING),
        ("qw", Sighting.QUEUED),
        ("hqw", Sighting.QUEUED),
        ("Eqw", Sighting.QUEUED),
        ("Rq", Sighting.UNSEEN),
        ("z", Sighting.UNSEEN),
    ],
)
def test_states(state: str, sighting: Sighting) -> None:
    """The letters of a state."""
    assert sighting_of(state) is sighting


def test_a_limit_on_jobs_in_the_cell_is_full() -> None:
    """The master would take the job once others have ended."""
    text = "Unable to run job: job rejected: Only 2 jobs are allowed per user (current job count: 2).\nExiting."
    assert isinstance(parse_qsub(1, text), Full)


@pytest.mark.parametrize(
    "text",
    [
        'Unable to run job: Job was rejected because job requests unknown queue "nope.q"\nExiting.',
        'Unable to run job: unknown resource "frob"\nExiting.',
        'Unable to run job: job rejected: the requested parallel environment "nope" does not exist\nExiting.',
        "Unable to run job: error: no suitable queues\nExiting.",
    ],
)
def test_a_clear_no_is_rejected(text: str) -> None:
    """The master looked at the job and refused it."""
    assert isinstance(parse_qsub(1, text), Rejected)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (1, 'Unable to run job: unable to send message to qmaster using port 1 on host "vm": got send error\nExiting.'),
        (1, "error: commlib error: got select error (Connection refused)"),
        (124, ""),
        (0, "Your job has been submitted"),
    ],
)
def test_anything_else_is_uncertain(code: int, text: str) -> None:
    """A dead master, a time-out, an answer without a number."""
    assert isinstance(parse_qsub(code, text), Uncertain)


def test_demand_becomes_options() -> None:
    """Slots, devices, memory for each slot, time and the key; several nodes only where the cell has a way."""
    demand = Demand(cpus=4, memory_bytes=10 * 1024**3, walltime_seconds=90, accelerators=Accelerators(count=2))
    job = make_job("true", pool="all.q", demand=demand, native={"project": "phys"})
    argv = qsub_argv(job, "/r/job.sh", "/r", Resources(memory="h_vmem"), {})
    line = " ".join(argv)
    assert f"-N isth-{job.key} -ac isthmus={job.key} -hold_jid isth-{job.key} -r n" in line
    assert "-q all.q -pe smp 4 -l h_rt=90,h_vmem=2560M,gpu=2 -P phys /r/job.sh" in line
    wide = make_job("true", pool="all.q", demand=Demand(nodes=2))
    assert "pe_nodes" in check(wide, Resources())
    assert not check(wide, Resources(nodes_environment="mpi"))
    assert check(make_job("true", pool="all.q", native={"wrap": "x"}), Resources())
