"""The oracle of fault histories on real sites: the tasks' own lines and the site's accounting against the store."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.faultrig import Rig

Accounting = Callable[[], list[tuple[str, str, int]]]  # (key, native id, elapsed seconds) of every job the site counted


@dataclass(slots=True)
class Verdict:
    """What was found wrong: one line each, by the task it is about."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    accounted: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def violations(self) -> list[str]:
        """All of it."""
        return [*self.lost, *self.doubled, *self.accounted, *self.wrong]


def check(rig: Rig, accepted: set[str], accounting: Accounting | None = None) -> Verdict:
    """Compare when everything is quiet. `accepted`: the ids that the control plane answered with."""
    verdict = Verdict()
    tasks = {row.id: row for row in rig.rows("SELECT id, state, reason, message FROM tasks")}
    attempts = {r.key: r for r in rig.rows("SELECT key, task_id, native_id, site, state, usage_state FROM attempts")}
    started: dict[str, list[str]] = defaultdict(list)
    completed: dict[str, list[str]] = defaultdict(list)
    for line in rig.side.read_text().splitlines():
        verb, task_id, key, _pid = line.split()
        (started if verb == "s" else completed)[task_id].append(key)
    verdict.lost += [f"task {task_id} was accepted and is not stored" for task_id in accepted - tasks.keys()]
    for task_id, row in tasks.items():
        done = completed[task_id]
        if row.state not in ("succeeded", "failed", "cancelled"):
            verdict.lost.append(f"task {task_id} is still {row.state}")
        elif row.state != "succeeded":
            verdict.wrong.append(f"task {task_id} is {row.state} ({row.reason}: {row.message})")
        elif not done:
            verdict.wrong.append(f"task {task_id} is called succeeded and never ran to its end")
        if len(done) > 1:
            verdict.doubled.append(f"task {task_id} ran to completion {len(done)} times, as {sorted(done)}")
        for key, times in Counter(started[task_id]).items():
            if times > 1:
                verdict.doubled.append(f"attempt {key} of task {task_id} was started {times} times")
    usage = rig.rows("SELECT attempt, native_id, site, elapsed_seconds FROM usage_records")
    recorded = {row.attempt: row for row in usage}
    for (site, native_id), times in Counter((row.site, row.native_id) for row in usage if row.native_id).items():
        if times > 1:
            verdict.accounted.append(f"job {native_id} of {site} was accounted {times} times")
    ran = {key for keys in started.values() for key in keys}
    verdict.accounted += [f"attempt {key} ran under no known attempt" for key in ran - attempts.keys()]
    finished = {key for keys in completed.values() for key in keys}
    verdict.accounted += [f"attempt {key} ran to its end and was not accounted" for key in finished - recorded.keys()]
    if accounting is not None:
        counted: dict[str, list[tuple[str, int]]] = defaultdict(list)
        for key, native_id, elapsed in accounting():
            counted[key].append((native_id, elapsed))
        for key, row in recorded.items():
            if not any(native == row.native_id and elapsed == row.elapsed_seconds for native, elapsed in counted[key]):
                verdict.accounted.append(
                    f"attempt {key}: {row.elapsed_seconds} s of job {row.native_id}, the site says {counted[key]}"
                )
        for key in ran & attempts.keys():
            if counted[key] and key not in recorded:
                verdict.accounted.append(f"attempt {key} is in the site's accounting only: {counted[key]}")
    return verdict
