"""What Slurm's commands print, of two versions, as rows; what sbatch is told; and what its answers mean."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.domain.lifecycle import EndReason
from isthmus.domain.task import Accelerators, Demand
from isthmus.sites.batch.counting import usage_by_key
from isthmus.sites.batch.rows import expand_hosts
from isthmus.sites.port import Full, Rejected, Sighting, Submitted, Uncertain
from isthmus.sites.slurm import load, values
from isthmus.sites.slurm.queue import ShowQueue, ShowRecords
from isthmus.sites.slurm.scheduler import SlurmCommands
from isthmus.sites.slurm.states import ENDED, QUEUED, RUNNING, sighting_of, state_word
from isthmus.sites.slurm.submission import check_native, parse_sbatch, sbatch_argv
from isthmus.sites.transport import ScriptedTransport
from tests.sites.attempts import make_job

VECTORS = Path(__file__).parents[2] / "vectors" / "slurm"
GIB = 1024**3
QUEUE = ShowQueue(users=["batchuser"])
RECORDS = ShowRecords(age_seconds=3600)


def key(number: int) -> str:
    """The key of a vector's job."""
    return f"01kb00000000000000000000{number}"


def read(name: str) -> str:
    """A vector."""
    return (VECTORS / name).read_text(encoding="utf-8")


def test_the_queue_of_22_05_is_understood() -> None:
    """Every state of the recorded queue has its meaning, and a forecast is not taken for a start."""
    answer = QUEUE.parse(read("22.05/squeue.txt"))
    assert answer.complete
    seen = {(row.name, row.native_id): row for row in answer.rows}
    assert len(seen) == 14
    meaning = {name[-2:]: (row.sighting, row.reason) for (name, _), row in seen.items()}
    assert meaning == {
        "11": (Sighting.ENDED, EndReason.EXIT_ZERO),
        "12": (Sighting.ENDED, EndReason.EXIT_NONZERO),
        "13": (Sighting.ENDED, EndReason.NODE_FAILED),
        "14": (Sighting.ENDED, EndReason.WALLTIME),
        "15": (Sighting.ENDED, EndReason.EXIT_ZERO),
        "16": (Sighting.RUNNING, None),
        "17": (Sighting.QUEUED, None),
        "18": (Sighting.ENDED, EndReason.CANCELLED_AT_SITE),
        "19": (Sighting.QUEUED, None),
        "20": (Sighting.ENDED, EndReason.REJECTED_BY_SITE),
        "21": (Sighting.QUEUED, None),
        "22": (Sighting.QUEUED, None),
        "23": (Sighting.ENDED, EndReason.CANCELLED_AT_SITE),
    }
    waiting, running = seen[key(17), "34"], seen[key(16), "33"]
    assert (waiting.started_at, waiting.message) == (None, "Resources")
    assert (running.started_at, running.ended_at, running.cpus) == (1795704219.0, None, 12)
    assert running.nodes == ("hand-c1", "hand-c2")
    assert seen[key(15), "32"].elapsed_seconds == 13


def test_the_accounting_of_22_05_is_understood() -> None:
    """Exit codes, signals, cancellations and waiting jobs of the recorded accounting."""
    answer = RECORDS.parse(read("22.05/sacct.txt"))
    assert answer.complete
    rows = {row.native_id: row for row in answer.rows}
    assert (rows["29"].reason, rows["29"].exit_code) == (EndReason.EXIT_NONZERO, 3)
    assert (rows["30"].reason, rows["30"].signal) == (EndReason.SIGNALLED, 9)
    assert (rows["31"].reason, rows["31"].elapsed_seconds) == (EndReason.WALLTIME, 67)
    assert (rows["35"].reason, rows["35"].started_at, rows["35"].nodes) == (EndReason.CANCELLED_AT_SITE, None, ())
    assert rows["34"].sighting is Sighting.QUEUED
    assert RECORDS.parse(read("22.05/sacct-steps.txt")).rows == tuple(
        row for row in RECORDS.parse(read("22.05/sacct-steps.txt")).rows if "." not in row.native_id
    )


def test_usage_of_22_05_is_the_accounting_to_the_byte() -> None:
    """The job with two GPUs: whole seconds, processor time, the largest step's memory."""
    answer = RECORDS.parse_usage(read("22.05/sacct-steps.txt"))
    assert answer.complete
    usage = usage_by_key(answer.rows, [key(15), key(16), key(17), key(18)], "sacct")
    assert usage.keys() == {key(15), key(18)}, "what runs or waits has no final usage"
    used = usage[key(15)]
    assert (used.elapsed_seconds, used.allocated_cpu_seconds, used.cpu_seconds) == (13, 52, 0.523)
    assert (used.max_rss_bytes, used.cpus, used.nodes, used.accelerators) == (324194304, 4, 1, 2)
    assert (used.native_id, used.native_state) == ("32", "COMPLETED")
    assert (usage[key(18)].elapsed_seconds, usage[key(18)].started_at) == (0, None)


def test_the_queue_of_23_11_is_understood() -> None:
    """States that 22.05 does not know, host lists with gaps, and a word that nobody knows."""
    rows = {row.native_id: row for row in QUEUE.parse(read("23.11/squeue.txt")).rows}
    assert rows["502"].reason is EndReason.OUT_OF_MEMORY
    assert rows["502"].nodes == ("cma2-02", "cma2-03", "cma2-04", "cma2-11")
    assert rows["503"].message == "(QOSMaxCpuPerUserLimit)"
    assert (rows["504"].sighting, rows["504"].elapsed_seconds) == (Sighting.RUNNING, 183845)
    assert rows["505"].sighting is Sighting.UNSEEN
    assert rows["506"].reason is EndReason.PREEMPTED
    assert rows["507"].reason is EndReason.NODE_FAILED


def test_usage_of_23_11_is_summed_over_starts_and_waits_for_the_last() -> None:
    """Kinds of GPU are not counted twice, extern steps count nothing, a job put back into the queue is not final."""
    answer = RECORDS.parse_usage(read("23.11/sacct-steps.txt"))
    usage = usage_by_key(answer.rows, [key(51), key(52), key(56), key(58)], "sacct")
    assert usage.keys() == {key(51), key(52), key(58)}
    used = usage[key(51)]
    assert (used.cpu_seconds, used.max_rss_bytes, used.accelerators) == (82.517, 1300000768, 2)
    assert (used.read_bytes, used.written_bytes) == (3145728, 1048576)
    assert usage[key(52)].cpu_seconds == 93784.0
    assert usage[key(52)].max_rss_bytes == 4 * GIB


def test_a_reused_job_id_is_another_job() -> None:
    """Rows are told apart by name: an old job with the same number is not the attempt's."""
    lines = f"7|ada|COMPLETED|0:0|1|1|2|1|1|1|00:01||||1||n1|old\n7|ada|RUNNING|0:0|9|9|Unknown|1|1|1|00:01||||1||n1|{key(51)}\n"
    rows = [row for row in RECORDS.parse(lines).rows if row.name == key(51)]
    assert [(row.native_id, row.sighting, row.submitted_at) for row in rows] == [("7", Sighting.RUNNING, 9.0)]


def test_a_name_may_hold_the_separator() -> None:
    """A user's own job with bars in its name does not shift fields or make the answer incomplete."""
    answer = QUEUE.parse("1|ada|RUNNING|None|5|6|7|0:01|1|n1|a|b|c\n")
    assert answer.complete
    assert answer.rows[0].name == "a|b|c"


@given(st.text())
def test_garbage_is_never_a_complete_answer(text: str) -> None:
    """Whatever is printed, nothing crashes, and lines that are no rows make an answer incomplete."""
    for answer in (QUEUE.parse(text), RECORDS.parse(text)):
        assert answer.complete == (not text.replace("\n", "").strip()) or answer.rows
    RECORDS.parse_usage(text)
    load.parse_pools(text, text, load.parse_licences(text))
    list(load.parse_jobs(text, str))
    load.parse_configuration(text)
    parse_sbatch(1, text)
    expand_hosts(text)
    values.size_bytes(text)
    assert values.clock_seconds(text) is None or ":" in text


@given(st.lists(st.text("0123456789|:.-,[]abcRUNING \n", max_size=60), max_size=8))
def test_rows_that_are_almost_right_do_not_crash(lines: list[str]) -> None:
    """Text made of the same characters as real answers."""
    text = "\n".join(f"{line}|||||||||||||||||x" for line in lines)
    QUEUE.parse(text)
    RECORDS.parse(text)
    RECORDS.parse_usage(text)
    load.parse_pools(text, text, load.parse_licences(text))
    list(load.parse_jobs(text, str))
    expand_hosts(text)


@given(st.text())
def test_only_a_bare_number_is_a_submission(text: str) -> None:
    """sbatch's success without a number on a line of its own is not taken for a job."""
    outcome = parse_sbatch(0, text)
    assert isinstance(outcome, Submitted | Uncertain)
    if isinstance(outcome, Submitted):
        assert outcome.native_id in text


@pytest.mark.parametrize(
    "text",
    [
        (
            "sbatch: error: invalid partition specified: nope\n"
            "sbatch: error: Batch job submission failed: Invalid partition name specified"
        ),
        (
            "sbatch: error: Memory specification can not be satisfied\n"
            "sbatch: error: Batch job submission failed: Requested node configuration is not available"
        ),
        "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified",
        (
            "sbatch: error: QOSMaxCpuPerJobLimit\nsbatch: error: Batch job submission failed: "
            "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
        ),
        "sbatch: error: Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)",
        "sbatch: error: Batch job submission failed: Invalid license specification",
        "sbatch: unrecognized option '--frob'\nTry \"sbatch --help\" for more information",
    ],
)
def test_a_clear_no_is_rejected(text: str) -> None:
    """The controller looked at the job and refused it: the message says why."""
    outcome = parse_sbatch(1, text)
    assert isinstance(outcome, Rejected)
    assert "sbatch:" not in outcome.message


@pytest.mark.parametrize("limit", ["AssocMaxSubmitJobLimit", "AssocGrpSubmitJobsLimit", "QOSMaxSubmitJobPerUserLimit"])
def test_a_limit_on_jobs_in_the_queue_is_full(limit: str) -> None:
    """The controller would take the job once others have ended."""
    violates = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
    outcome = parse_sbatch(1, f"sbatch: error: {limit}\nsbatch: error: Batch job submission failed: {violates}")
    assert isinstance(outcome, Full)
    assert limit in outcome.message


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (1, "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"),
        (1, "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)"),
        (1, "sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received"),
        (1, "sbatch: error: Batch job submission failed: Unexpected message received"),
        (
            1,
            "sbatch: error: Batch job submission failed: Slurm temporarily unable to accept job, sleeping and retrying",
        ),
        (1, "sbatch: error: Batch job submission failed: Protocol authentication error"),
        (1, "sbatch: error: Socket timed out\nsbatch: error: Batch job submission failed: Invalid job id specified"),
        (124, ""),
        (127, "sh: sbatch: not found"),
        (255, "sbatch: fatal: Unable to process configuration file"),
        (0, "Submitted batch job\n"),
        (0, ""),
    ],
)
def test_anything_else_is_uncertain(code: int, text: str) -> None:
    """A time-out, a broken connection, a program that is not there, garbage: nobody knows."""
    assert isinstance(parse_sbatch(code, text), Uncertain)


def test_a_submission_may_name_the_cluster_and_warn() -> None:
    """`--parsable` prints `id;cluster`, and warnings may stand around it."""
    text = "sbatch: warning: can't honor --ntasks-per-node\n4711;alpha\n"
    assert parse_sbatch(0, text) == Submitted(native_id="4711")


def test_demand_becomes_options() -> None:
    """Each part of a demand is the option that means the same; sizes and times are rounded up."""
    demand = Demand(
        nodes=2,
        tasks_per_node=4,
        cpus=3,
        memory_bytes=GIB + 1,
        walltime_seconds=61,
        disk_bytes=5 * 1024**2,
        accelerators=Accelerators(count=2, kind="a100"),
        licences={"matlab": 2, "ansys": 1},
    )
    job = make_job("true", pool="gpu", demand=demand, native={"qos": "long"})
    argv = sbatch_argv(job, "/r/job.sh", "/r/100%", {"account": "phys", "exclusive": ""})
    for word in (
        f"--job-name={job.key}",
        f"--comment={job.key}",
        "--dependency=singleton",
        "--no-requeue",
        "--nodes=2",
        "--ntasks-per-node=4",
        "--cpus-per-task=3",
        "--mem=1025M",
        "--time=2",
        "--gres=gpu:a100:2",
        "--licenses=ansys:1,matlab:2",
        "--tmp=5M",
        "--partition=gpu",
        "--account=phys",
        "--qos=long",
        "--exclusive",
        "--output=/r/100%%/scheduler.out",
    ):
        assert word in argv
    assert argv[-1] == "/r/job.sh"


@pytest.mark.parametrize(
    "native", [{"wrap": "id"}, {"output": "/x"}, {"qos": "a b"}, {"qos": "-x"}, {"account": "a\nb"}]
)
def test_options_that_may_not_be_set_are_named(native: dict[str, str]) -> None:
    """Only known options with plain values pass."""
    assert check_native(native)
    assert not check_native({"qos": "long", "account": "phys_1"})


def test_every_state_has_one_meaning() -> None:
    """No word is in two groups, flags decide over base states, and the unknown says nothing."""
    assert not (QUEUED & RUNNING) | (QUEUED & ENDED.keys()) | (RUNNING & ENDED.keys())
    assert state_word("CANCELLED by 1000") == "CANCELLED"
    assert state_word(["RUNNING", "COMPLETING"]) == "COMPLETING"
    assert state_word(["FAILED", "REQUEUED"]) == "REQUEUED"
    for word in ("REVOKED", "", "TELEPORTED"):
        assert sighting_of(word, None, 0) == (Sighting.UNSEEN, None)
    assert sighting_of("FAILED", 0, 9)[1] is EndReason.SIGNALLED


def test_load_of_22_05() -> None:
    """Partitions with their nodes, devices, idle processors and queue."""
    pools = load.parse_pools(
        read("22.05/sinfo.txt"), read("22.05/squeue-load.txt"), load.parse_licences(read("22.05/licenses.txt"))
    )
    cpu, gpu = pools
    assert (cpu.name, cpu.nodes, cpu.cpus_per_node, cpu.free_cpus, cpu.free_nodes) == ("cpu", 2, 64, 116, 0)
    assert (cpu.queued_jobs, cpu.queued_cpu_seconds, cpu.running_cpu_seconds_left) == (0, 0.0, 60.0)
    assert (gpu.queued_jobs, gpu.queued_cpu_seconds, gpu.running_cpu_seconds_left) == (2, 600.0, 2400.0)
    assert (gpu.accelerators_per_node, gpu.accelerator_kind, gpu.max_walltime_seconds) == (4, "a100", 3600)
    configuration = load.parse_configuration(read("22.05/config.txt"))
    assert configuration == load.Configuration(version="22.05.8", cluster="hand", accounting=True)


def test_load_of_mixed_partitions() -> None:
    """Drained, down and silent nodes give nothing free; a partition of unlike nodes is described by most of them."""
    sinfo = "\n".join(
        [
            "10|idle|32|128000|gpu:a100:4(S:0-1),nvme:1|0/320/0/320|9000+|up|7-00:00:00|big",
            "2|idle~|64|512000+|gpu:h100:8|0/128/0/128|0|up|7-00:00:00|big",
            "1|drained|32|128000|(null)|0/0/32/32|0|up|7-00:00:00|big",
            "3|idle*|32|128000|(null)|0/96/0/96|0|up|7-00:00:00|big",
            "1|idle|8|1000|(null)|0/8/0/8|0|inact|infinite|off",
            "nonsense",
        ]
    )
    licences = "LicenseName=matlab Total=4 Used=1 Free=3 Reserved=0 Remote=no\nLicenseName=zero Total=0\n"
    big, off = load.parse_pools(
        sinfo, "PENDING|4|UNLIMITED|UNLIMITED|7|0|0|None|ada|big,off", load.parse_licences(licences)
    )
    assert (big.nodes, big.cpus_per_node, big.free_cpus, big.free_nodes) == (16, 32, 448, 12)
    assert (big.accelerators_per_node, big.accelerator_kind) == (4, "a100")
    assert (big.max_walltime_seconds, big.licences, big.queued_jobs) == (604800, {"matlab": 4}, 1)
    assert (off.up, off.free_cpus, off.max_walltime_seconds) == (False, 0, None)


def test_the_visible_queue_of_22_05() -> None:
    """Each job of anybody as a row: its size and limit, its times, the start that the site expects, its user's hash."""
    waiting, held, on_gpu = list(load.parse_jobs(read("22.05/squeue-load.txt"), str.upper))[1:]
    assert (waiting.running, waiting.held, waiting.user) == (False, False, "ISTH6F8844D9")
    assert waiting.expected_at == values.moment("2026-12-01T01:12:27")
    assert waiting.started_at is None
    assert (held.held, held.expected_at) == (True, None)
    assert (on_gpu.running, on_gpu.processors, on_gpu.limit_seconds, on_gpu.expected_at) == (True, 8, 300, None)
    assert on_gpu.started_at == values.moment("2026-12-01T01:07:27")


def test_rows_of_the_queue_survive_what_is_odd() -> None:
    """Arrays, several partitions and no limit are read; ended jobs, pools without a name and garbage are passed over."""
    lines = [
        "PENDING|4|UNLIMITED|UNLIMITED|7_3|1795704225|N/A|Resources|ada|big,off",
        "COMPLETED|1|5:00|0:00|8|1795704225|1795704226|None|ada|big",
        "RUNNING|1|5:00|0:00|9|1795704225|1795704226|None|ada|",
        "RUNNING|1|5:00|0:00|x|1795704225|1795704226|None|ada|big",
        "squeue: error: something",
    ]
    (job,) = load.parse_jobs("\n".join(lines), str)
    assert (job.id, job.pools, job.limit_seconds, job.submitted_at) == ("7_3", ("big", "off"), None, 1795704225.0)


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("n[1-3,07]", ("n1", "n2", "n3", "n07")),
        ("a1,b[09-10],c", ("a1", "b09", "b10", "c")),
        ("r[1-2]n[1-2]", ("r1n1", "r1n2", "r2n1", "r2n2")),
        ("None assigned", ()),
        ("(null)", ()),
        ("", ()),
    ],
)
def test_host_lists(text: str, hosts: tuple[str, ...]) -> None:
    """Host lists as Slurm folds them."""
    assert expand_hosts(text) == hosts


async def test_users_set_no_options_unless_the_operator_says_so() -> None:
    """What a task asks of the scheduler by name is refused before anything is sent, unless `user_options` has it."""
    job = make_job("true", pool="gpu", native={"qos": "urgent"})
    for allowed in ((), ("constraint",)):
        scheduler = SlurmCommands(ScriptedTransport(), user_options=allowed)
        outcome = (await scheduler.submit("", [job], {job.key: "/d"}))[job.key]
        assert isinstance(outcome, Rejected)
        assert "user_options" in outcome.message
    assert check_native(job.native, {"qos"}) == ""
