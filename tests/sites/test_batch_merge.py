"""How queue, accounting and a job's own traces become one observation: who is believed, and what silence means."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from isthmus.domain.lifecycle import EndReason
from isthmus.sites.batch.counting import usage_by_key
from isthmus.sites.batch.merge import by_key, observe_one
from isthmus.sites.batch.rows import Answer, NativeJob, UsageRow
from isthmus.sites.port import Observation, Sighting
from isthmus.sites.traces import Claim, Result, Trace

KEY = "01kb0000000000000000000001"
NOW = 10_000.0
NONE = Answer()
BROKEN = Answer(complete=False, problem="cut off")
BARE = Trace(directory=True, staged=True)
CLAIMED = Trace(directory=True, claim=Claim(fence=7, host="n1", claimed_at=5000.5))


def job(number: int = 1, sighting: Sighting = Sighting.RUNNING, **fields: object) -> NativeJob:
    """A row of the attempt."""
    return NativeJob(native_id=str(number), name=KEY, sighting=sighting, **fields)  # type: ignore[arg-type]


def over(reason: EndReason, number: int = 1, **fields: object) -> NativeJob:
    """A row of the attempt that has ended a while ago."""
    times = {"started_at": 5000.0, "ended_at": 6000.0, "nodes": ("n1",), "elapsed_seconds": 1000}
    return job(number, Sighting.ENDED, reason=reason, **{**times, **fields})


def finished(reason: EndReason, code: int | None, *, cancelled: bool = False) -> Trace:
    """Traces of an attempt that wrote a result."""
    result = Result(reason=reason, fence=7, exit_code=code, started_at=5001.0, ended_at=6000.0)
    return Trace(directory=True, cancelled=cancelled, claim=CLAIMED.claim, result=result)


def look(
    queue: Answer | list[NativeJob], records: Answer | list[NativeJob] | None, trace: Trace | None, **more: bool
) -> Observation:
    """Merge."""
    queue = queue if isinstance(queue, Answer) else Answer(rows=tuple(queue))
    records = Answer(rows=tuple(records)) if isinstance(records, list) else records
    return observe_one(
        queue,
        records,
        trace,
        queue_rows=by_key(queue.rows, [KEY])[KEY],
        record_rows=by_key(records.rows, [KEY])[KEY] if records else [],
        now=NOW,
        **more,
    )


def test_absence_needs_three_denials() -> None:
    """ABSENT only when queue, accounting and directory were asked, answered in full, and none knows the key."""
    assert look(NONE, NONE, BARE).sighting is Sighting.ABSENT
    assert look(NONE, NONE, Trace()).sighting is Sighting.ABSENT
    assert look(NONE, None, BARE, has_accounting=False).sighting is Sighting.ABSENT
    for queue, records, trace in (
        (BROKEN, NONE, BARE),
        (NONE, BROKEN, BARE),
        (NONE, None, BARE),
        (NONE, NONE, None),
        (NONE, NONE, CLAIMED),
    ):
        seen = look(queue, records, trace)
        assert seen.sighting is Sighting.UNSEEN
        assert seen.message


def test_the_result_is_believed_before_the_queue() -> None:
    """A result is the end, even while the queue still shows the job or nothing at all."""
    for queue in ([job()], NONE, BROKEN):
        seen = look(queue, None, finished(EndReason.EXIT_ZERO, 0))
        assert (seen.sighting, seen.reason, seen.exit_code, seen.claim_fence) == (
            Sighting.ENDED,
            EndReason.EXIT_ZERO,
            0,
            7,
        )


def test_why_a_command_was_killed_is_the_schedulers_to_say() -> None:
    """`signalled` is sharpened to the site's reason, and while the queue still ends the job that is waited for."""
    killed = finished(EndReason.SIGNALLED, 143)
    fresh = replace(killed, result=replace(killed.result, ended_at=NOW - 5))  # type: ignore[type-var]
    for state in ("RUNNING", "COMPLETING"):
        assert look([job(state=state, started_at=5000.0)], None, fresh).sighting is Sighting.RUNNING
    assert look([job(state="COMPLETING", started_at=5000.0)], None, killed).sighting is Sighting.ENDED
    for reason in (EndReason.WALLTIME, EndReason.PREEMPTED, EndReason.OUT_OF_MEMORY, EndReason.CANCELLED_AT_SITE):
        assert look([], [over(reason)], killed).reason is reason
    assert look([], NONE, killed).reason is EndReason.SIGNALLED
    assert (
        look([], [over(EndReason.OUT_OF_MEMORY)], finished(EndReason.EXIT_NONZERO, 137)).reason
        is EndReason.OUT_OF_MEMORY
    )
    assert look([], [over(EndReason.CANCELLED_AT_SITE)], finished(EndReason.EXIT_NONZERO, 3)).exit_code == 3


def test_a_cancelled_job_was_cancelled_by_its_user() -> None:
    """After the user's cancel the site's own word for it is the user's."""
    marked = Trace(directory=True, cancelled=True)
    assert look([over(EndReason.CANCELLED_AT_SITE)], NONE, marked).reason is EndReason.CANCELLED_BY_USER
    assert look([over(EndReason.WALLTIME)], NONE, marked).reason is EndReason.WALLTIME


def test_a_live_row_beats_an_ended_one() -> None:
    """A copy that ran and one that waits: nothing has ended until there is a result or nothing is live."""
    assert look([over(EndReason.NODE_FAILED), job(2, Sighting.QUEUED)], NONE, BARE).sighting is Sighting.QUEUED
    seen = look([job(3), job(12, Sighting.QUEUED), job(2, Sighting.QUEUED)], None, BARE)
    assert (seen.sighting, seen.native_ids) == (Sighting.RUNNING, ("2", "3", "12"))


def test_a_stale_accounting_row_says_nothing() -> None:
    """The accounting calls it running, the queue does not know it: neither running nor ended nor absent."""
    assert look(NONE, [job()], CLAIMED).sighting is Sighting.UNSEEN


def test_exit_codes_come_from_the_accounting() -> None:
    """The queue only says FAILED."""
    seen = look([over(EndReason.EXIT_NONZERO)], [over(EndReason.EXIT_NONZERO, exit_code=4)], CLAIMED)
    assert (seen.reason, seen.exit_code) == (EndReason.EXIT_NONZERO, 4)


def test_success_without_a_result_is_no_success() -> None:
    """COMPLETED without a result is the end of a copy that lost the claim, or of a lost file system."""
    seen = look([over(EndReason.EXIT_ZERO)], NONE, CLAIMED)
    assert (seen.sighting, seen.reason, seen.exit_code) == (Sighting.ENDED, EndReason.NODE_FAILED, None)
    fresh = over(EndReason.EXIT_ZERO, ended_at=NOW - 5)
    assert look([fresh], NONE, CLAIMED).sighting is Sighting.RUNNING, "a shared file system may hide it for a while"
    assert look([over(EndReason.EXIT_ZERO)], NONE, None).sighting is Sighting.UNSEEN


def test_a_job_put_back_into_the_queue_ends_as_preempted() -> None:
    """The claim was made by the first start; the second lost it and exited 0."""
    first = job(1, Sighting.QUEUED, state="REQUEUED", superseded=True, started_at=4999.0, ended_at=5500.0)
    second = over(EndReason.EXIT_ZERO, started_at=7000.0, ended_at=7001.0)
    seen = look([second], [first, second], CLAIMED)
    assert (seen.sighting, seen.reason, seen.native_ids) == (Sighting.ENDED, EndReason.PREEMPTED, ("1",))
    waiting = look([job(1, Sighting.QUEUED)], [first], CLAIMED)
    assert waiting.sighting is Sighting.QUEUED
    assert "put it back" in waiting.message
    killed = look([job(1, Sighting.QUEUED)], [first], finished(EndReason.SIGNALLED, 143))
    assert (killed.sighting, killed.reason) == (Sighting.ENDED, EndReason.PREEMPTED)


def test_what_never_started_was_refused() -> None:
    """FAILED without a start, node or claim."""
    never = over(
        EndReason.EXIT_NONZERO,
        started_at=5000.0,
        ended_at=5000.0,
        nodes=(),
        elapsed_seconds=0,
        message="BadConstraints",
    )
    seen = look([never], [], BARE)
    assert seen.reason is EndReason.REJECTED_BY_SITE
    assert "BadConstraints" in seen.message


def test_what_is_gone_without_a_word() -> None:
    """A queue that only says `over`: without a claim it never started, with one the accounting is waited for."""
    gone = job(1, Sighting.UNSEEN, state="z", gone=True)
    assert look([gone], None, BARE).sighting is Sighting.UNSEEN
    assert look([gone], NONE, BARE).reason is EndReason.CANCELLED_AT_SITE
    assert look([gone], NONE, CLAIMED).sighting is Sighting.RUNNING
    assert look([gone], [over(EndReason.EXIT_NONZERO, exit_code=2)], CLAIMED).exit_code == 2


_ROWS = st.lists(
    st.builds(
        NativeJob,
        native_id=st.sampled_from(["1", "2", "10"]),
        name=st.sampled_from([KEY, "other"]),
        sighting=st.sampled_from(list(Sighting)),
        reason=st.sampled_from([None, *EndReason]),
        exit_code=st.sampled_from([None, 0, 3]),
        state=st.sampled_from(["RUNNING", "z", "?"]),
        started_at=st.sampled_from([None, 4000.0, 5000.0]),
        ended_at=st.sampled_from([None, 6000.0, NOW]),
        superseded=st.booleans(),
        gone=st.booleans(),
    ),
    max_size=4,
)


@given(_ROWS, st.booleans(), st.none() | _ROWS, st.booleans(), st.sampled_from([None, BARE, CLAIMED]))
def test_absence_is_never_a_guess(
    queue: list[NativeJob], whole: bool, records: list[NativeJob] | None, all_records: bool, trace: Trace | None
) -> None:
    """Over all answers: ABSENT implies that all were whole and none has a row or a claim."""
    seen = look(
        Answer(rows=tuple(queue), complete=whole),
        None if records is None else Answer(rows=tuple(records), complete=all_records),
        trace,
    )
    if seen.sighting is Sighting.ABSENT:
        assert whole
        assert records is not None
        assert all_records
        assert trace is BARE
        assert not any(row.name == KEY for row in (*queue, *records))
    if seen.sighting is Sighting.ENDED:
        assert any(row.name == KEY for row in (*queue, *(records or [])))


def test_usage_of_copies_is_that_of_the_one_that_ran() -> None:
    """Of two jobs with one key the one that ran counts; nothing counts before all are final."""
    rows = [
        UsageRow(native_id="2", name=KEY, final=True, elapsed_seconds=0, ended_at=5.0),
        UsageRow(native_id="10", name=KEY, final=True, elapsed_seconds=9, ended_at=9.0, cpus=2),
    ]
    assert usage_by_key(rows, [KEY], "sacct")[KEY].native_id == "10"
    assert usage_by_key([*rows, UsageRow(native_id="11", name=KEY)], [KEY], "sacct") == {}
    again = [*rows, UsageRow(native_id="10", name=KEY, final=True, elapsed_seconds=4, ended_at=20.0, cpus=2)]
    assert usage_by_key(again, [KEY], "sacct")[KEY].elapsed_seconds == 13
