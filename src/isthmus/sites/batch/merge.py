"""One observation from what the queue, the accounting and the job's own traces say of one key.

The order of belief: the wrapper's result (it was there), then the queue's live states (it is now), then ended states of
queue and accounting. Nothing is concluded from silence unless all three were asked and answered.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from isthmus.domain.lifecycle import EndReason
from isthmus.sites.batch.rows import Answer, NativeJob
from isthmus.sites.port import Observation, Sighting
from isthmus.sites.traces import Trace

RESULT_GRACE_SECONDS = 60  # how long a shared file system may hide a result that was written on another node
END_GRACE_SECONDS = 300  # how long the scheduler may take to say why it ended a job whose result is there
_ENDED_BY_SITE = frozenset({EndReason.CANCELLED_AT_SITE, EndReason.SIGNALLED, EndReason.PREEMPTED})
_SHARPER = frozenset({EndReason.WALLTIME, EndReason.OUT_OF_MEMORY})
_SITE_TO_BLAME = frozenset({EndReason.NODE_FAILED, EndReason.REJECTED_BY_SITE})
_PUT_BACK = "The site put it back into the queue after it had started."
_SHARPER_THAN_SIGNAL = _SHARPER | {EndReason.PREEMPTED, EndReason.NODE_FAILED, EndReason.CANCELLED_AT_SITE}


def by_key(rows: Iterable[NativeJob], keys: Iterable[str]) -> dict[str, list[NativeJob]]:
    """Rows of each key; rows of other names are left out."""
    found: dict[str, list[NativeJob]] = {key: [] for key in keys}
    for row in rows:
        if row.name in found:
            found[row.name].append(row)
    return found


def native_ids(rows: Iterable[NativeJob]) -> tuple[str, ...]:
    """The ids of the rows, each once, lowest first."""
    return tuple(dict.fromkeys(row.native_id for row in sorted(rows, key=lambda row: row.order)))


def combine(queue: Sequence[NativeJob], records: Sequence[NativeJob]) -> list[NativeJob]:
    """The rows of one key from both sources, each start of a job once.

    The queue is newer and wins where it says something; an ended job takes its exit code and reason from the accounting.
    An accounting row that is still live, of a job that the queue does not know, says nothing: it lags or is stale.
    """
    rows: list[NativeJob] = []
    final = {row.native_id: row for row in records if row.sighting is Sighting.ENDED and not row.superseded}
    for row in queue:
        record = final.get(row.native_id)
        if row.sighting is Sighting.UNSEEN and record is not None:
            rows.append(record)
        elif row.sighting is Sighting.ENDED and record is not None:
            code = record.exit_code or row.exit_code  # slurmrestd 22.05 shows 0 in the accounting of any FAILED job
            blamed = row.reason in _SITE_TO_BLAME and record.reason in {EndReason.SIGNALLED, EndReason.EXIT_NONZERO}
            reason = row.reason if blamed else record.reason
            rows.append(replace(record, exit_code=code, reason=reason, message=record.message or row.message))
        else:
            rows.append(row)
            if row.sighting is not Sighting.ENDED:
                rows.extend(r for r in records if r.native_id == row.native_id and r.sighting is Sighting.ENDED)
    queued = {row.native_id for row in queue}
    for record in records:
        if record.superseded:
            rows.append(record)
        elif record.native_id not in queued:
            live = record.sighting in {Sighting.QUEUED, Sighting.RUNNING}
            rows.append(replace(record, sighting=Sighting.UNSEEN) if live else record)
    return rows


def observe_one(
    queue: Answer,
    records: Answer | None,
    trace: Trace | None,
    *,
    queue_rows: Sequence[NativeJob],
    record_rows: Sequence[NativeJob],
    now: float,
    has_accounting: bool = True,
) -> Observation:
    """Merge all that is known of one key; `records` None means that the accounting was not asked; `now` by the site."""
    rows = combine(queue_rows, record_rows)
    claim = trace.claim if trace is not None else None
    common = Observation(
        sighting=Sighting.UNSEEN,
        native_ids=native_ids(rows),
        claim_fence=claim.fence if claim is not None else None,
    )
    live = [row for row in rows if row.sighting in {Sighting.QUEUED, Sighting.RUNNING} and not row.superseded]
    running = [row for row in live if row.sighting is Sighting.RUNNING]
    if trace is not None and trace.ended is not None:
        answered = queue.complete and (not has_accounting or (records is not None and records.complete))
        if trace.ended.reason is EndReason.SIGNALLED and not rows and not answered:
            return replace(common, message="It was ended by a signal; who sent it is awaited from the scheduler.")
        return _by_whom(_with_result(trace.ended, rows, live, common, now), trace)
    if running:
        first = min(running, key=lambda row: row.order)
        return _show(first, common)
    if live:
        first = min(live, key=lambda row: row.order)
        if claim is not None:
            return replace(
                _show(first, common),
                message=f"{_PUT_BACK} It will not start anew.",
            )
        return _show(first, common)
    ended = [row for row in rows if row.sighting is Sighting.ENDED or row.superseded]
    if ended:
        return _by_whom(_without_result(ended, trace, common, now), trace)
    if rows and all(row.gone for row in rows) and records is not None and records.complete and trace is not None:
        if trace.claim is None:
            gone = replace(common, sighting=Sighting.ENDED, reason=EndReason.CANCELLED_AT_SITE)
            return _by_whom(replace(gone, message="It was taken out of the queue before it had started."), trace)
        return replace(common, sighting=Sighting.RUNNING, message="It is over; how is awaited from the accounting.")
    if rows:
        words = ", ".join(sorted({row.state for row in rows}))
        return replace(common, message=f"The site's answers about it do not agree or say nothing ({words}).")
    return _nowhere(queue, records, trace, common, has_accounting)


def _by_whom(seen: Observation, trace: Trace | None) -> Observation:
    """A job that the site ended after the user had cancelled it was ended by the user."""
    if trace is not None and trace.cancelled and seen.reason in _ENDED_BY_SITE:
        return replace(seen, reason=EndReason.CANCELLED_BY_USER)
    return seen


def _show(row: NativeJob, common: Observation) -> Observation:
    return replace(
        common,
        sighting=row.sighting,
        message=row.message,
        started_at=row.started_at if row.sighting is Sighting.RUNNING else None,
        nodes=row.nodes,
    )


def _with_result(
    ended: Observation, rows: Sequence[NativeJob], live: Sequence[NativeJob], common: Observation, now: float
) -> Observation:
    """A result is final; only why a command was killed is better known to the scheduler, so that is waited for."""
    rank = {EndReason.SIGNALLED: _SHARPER_THAN_SIGNAL, EndReason.EXIT_NONZERO: _SHARPER}
    sharper = rank.get(ended.reason) if ended.reason is not None else None
    reason, message = ended.reason, ended.message
    if sharper is not None:
        ending = [row for row in live if _is_ending(row, ended, now)]
        if ending:
            return _show(ending[0], common)
        explained = [row for row in rows if row.sighting is Sighting.ENDED and row.reason in sharper]
        if explained:
            first = min(explained, key=lambda row: row.order)
            reason, message = first.reason, first.message
        elif reason is EndReason.SIGNALLED and any(row.superseded or row in live for row in rows):
            reason, message = EndReason.PREEMPTED, _PUT_BACK
    nodes = next((row.nodes for row in rows if row.nodes), ended.nodes)
    return replace(ended, native_ids=common.native_ids, reason=reason, message=message, nodes=nodes)


def _is_ending(row: NativeJob, ended: Observation, now: float) -> bool:
    """Whether the queue still shows the start that wrote the result; a job that will not end is not waited for long."""
    if row.sighting is not Sighting.RUNNING or (row.started_at or 0.0) > (ended.started_at or 0.0) + 2:
        return False
    return ended.ended_at is None or now - ended.ended_at < END_GRACE_SECONDS


def _without_result(ended: Sequence[NativeJob], trace: Trace | None, common: Observation, now: float) -> Observation:
    row = _claimer(ended, trace)
    shown = replace(
        common,
        sighting=Sighting.ENDED,
        reason=row.reason,
        exit_code=row.exit_code,
        message=row.message,
        started_at=row.started_at,
        ended_at=row.ended_at,
        nodes=row.nodes,
    )
    if row.superseded:
        return replace(
            shown,
            reason=EndReason.PREEMPTED,
            exit_code=None,
            message=_PUT_BACK,
        )
    if row.reason not in {EndReason.EXIT_ZERO, EndReason.EXIT_NONZERO}:
        return replace(shown, exit_code=None)
    if trace is None:
        return replace(common, message="It ended, but its directory at the site cannot be read.")
    if row.ended_at is not None and abs(now - row.ended_at) < RESULT_GRACE_SECONDS and row.started_at is not None:
        return replace(
            common,
            sighting=Sighting.RUNNING,
            started_at=row.started_at,
            nodes=row.nodes,
            message="Its result is awaited.",
        )
    if trace.claim is not None and row.reason is EndReason.EXIT_NONZERO and row.exit_code:
        return shown
    if row.started_at is None or (not row.nodes and row.elapsed_seconds == 0):
        why = row.message or row.state
        return replace(shown, reason=EndReason.REJECTED_BY_SITE, exit_code=None, message=f"It never started: {why}.")
    why = "It ended at the site and left no result" + (f" ({row.message})." if row.message else ".")
    return replace(shown, reason=EndReason.NODE_FAILED, exit_code=None, message=why)


def _claimer(ended: Sequence[NativeJob], trace: Trace | None) -> NativeJob:
    """The row that made the claim: by its time when it tells, else the lowest job's last start."""
    at = trace.claim.claimed_at if trace is not None and trace.claim is not None else None
    rows = sorted(ended, key=lambda row: (row.order, row.started_at or 0.0))
    if at is not None:
        # Batch systems count whole seconds, so the claim may seem up to a second early.
        held = [r for r in rows if r.started_at is not None and r.started_at - 2 <= at <= (r.ended_at or at) + 2]
        if held:
            return max(held, key=lambda row: row.started_at or 0.0)
    lowest = rows[0].native_id
    return [row for row in rows if row.native_id == lowest][-1]


def _nowhere(
    queue: Answer, records: Answer | None, trace: Trace | None, common: Observation, has_accounting: bool
) -> Observation:
    if not queue.complete:
        return replace(common, message=queue.problem or "The queue's answer is not complete.")
    if has_accounting and records is None:
        return replace(common, message="The accounting was not asked.")
    if records is not None and not records.complete:
        return replace(common, message=records.problem or "The accounting's answer is not complete.")
    if trace is None:
        return replace(common, message="Its account's directory at the site tells nothing.")
    if trace.claim is not None:
        return replace(common, message="It started at the site, but neither queue nor accounting knows it.")
    return replace(common, sighting=Sighting.ABSENT)
