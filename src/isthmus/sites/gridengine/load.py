"""What a cell has and how busy it is: qhost for hosts and queue instances, qstat for demand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from xml.etree import ElementTree

from isthmus.domain.queue import QueuedJob
from isthmus.domain.site import Pool
from isthmus.sites.gridengine.queue import parse_xml, sighting_of
from isthmus.sites.port import Sighting
from isthmus.sites.slurm.values import moment, size_bytes


@dataclass(slots=True)
class _Queue:
    shapes: Counter[tuple[int, int, int]] = field(default_factory=Counter)
    hosts: int = 0
    usable: int = 0
    free: int = 0
    idle_hosts: int = 0
    queued: int = 0
    queued_seconds: float = 0.0
    left_seconds: float = 0.0


def commands(gpu_resource: str) -> list[list[str]]:
    """What to ask."""
    shown = ",".join(["num_proc", "mem_total", *([gpu_resource] if gpu_resource else [])])
    return [["qhost", "-xml", "-q", "-F", shown], ["qstat", "-u", "*", "-s", "prs", "-r", "-xml"]]


def parse_pools(qhost: str, qstat: str, gpu_resource: str, gpu_kind: str, now: float) -> tuple[Pool, ...] | None:
    """A pool for each queue; None when an answer is no document. A job that names no queue waits in all of them."""
    hosts, jobs = parse_xml(qhost), parse_xml(qstat)
    if hosts is None or jobs is None:
        return None
    held: Counter[str] = Counter()
    for job in jobs.iter("job_list"):
        if sighting_of(_text(job, "state")) is Sighting.RUNNING:
            held[_text(job, "queue_name").partition("@")[2]] += _request(job, gpu_resource)
    queues: dict[str, _Queue] = {}
    for host in hosts.iter("host"):
        _add_host(host, queues, held[host.get("name", "")], gpu_resource)
    for job in jobs.iter("job_list"):
        _add_job(job, queues, now)
    return tuple(_pool(name, queue, gpu_kind) for name, queue in sorted(queues.items()))


def _add_host(host: ElementTree.Element, queues: dict[str, _Queue], held: int, gpu_resource: str) -> None:
    shown = {entry.get("name", ""): (entry.text or "").strip() for entry in host.iter("resourcevalue")}
    for entry in host.iter("queue"):
        values = {value.get("name", ""): (value.text or "").strip() for value in entry.iter("queuevalue")}
        slots = _whole(values.get("slots", ""))
        queue = queues.setdefault(entry.get("name", ""), _Queue())
        queue.hosts += 1
        # qhost shows what is left of a consumable; what running jobs hold belongs to the host as well.
        queue.shapes[slots, size_bytes(shown.get("mem_total", "")), _whole(shown.get(gpu_resource, "")) + held] += 1
        if not values.get("state_string"):  # any letter (alarm, disabled, unknown, error, ...) takes no jobs
            taken = _whole(values.get("slots_used", "")) + _whole(values.get("slots_resv", ""))
            queue.usable += 1
            queue.free += max(0, slots - taken)
            queue.idle_hosts += taken == 0


def _add_job(job: ElementTree.Element, queues: dict[str, _Queue], now: float) -> None:
    slots, limit = max(1, _whole(_text(job, "slots"))), _request(job, "h_rt")
    sighting = sighting_of(_text(job, "state"))
    if sighting is Sighting.RUNNING:
        queue = queues.get(_text(job, "queue_name").partition("@")[0])
        started = moment(_text(job, "JAT_start_time"))
        if queue is not None and started is not None and limit:
            queue.left_seconds += slots * max(0.0, started + limit - now)
    elif sighting is Sighting.QUEUED:
        wanted = {(entry.text or "").strip().partition("@")[0] for entry in job.iter("hard_req_queue")}
        for name, queue in queues.items():
            if not wanted or name in wanted:
                queue.queued += 1
                queue.queued_seconds += slots * limit


def parse_jobs(qstat: str, pools: Iterable[str], hashed: Callable[[str], str]) -> Iterable[QueuedJob]:
    """Each job that runs or waits, in qstat's order, by priority; one that names no queue waits in all `pools`."""
    document = parse_xml(qstat)
    known = tuple(pools)
    for job in document.iter("job_list") if document is not None else ():
        state = _text(job, "state")
        sighting = sighting_of(state)
        running = sighting is Sighting.RUNNING
        wanted = {(entry.text or "").strip().partition("@")[0] for entry in job.iter("hard_req_queue")}
        if running:
            wanted = {_text(job, "queue_name").partition("@")[0]}
        where = tuple(name for name in known if not wanted or name in wanted)
        number = _text(job, "JB_job_number")
        if not where or not number or not (running or sighting is Sighting.QUEUED):
            continue
        task = _text(job, "tasks")
        yield QueuedJob(
            id=f"{number}.{task}"[:63] if task else number[:63],
            pools=where,
            user=hashed(_text(job, "JB_owner")),
            running=running,
            held="h" in state or "E" in state,
            processors=max(1, _whole(_text(job, "slots"))),
            limit_seconds=_request(job, "h_rt") or None,
            submitted_at=moment(_text(job, "JB_submission_time")),
            started_at=moment(_text(job, "JAT_start_time")) if running else None,
        )


def _pool(name: str, queue: _Queue, gpu_kind: str) -> Pool:
    slots, memory, gpus = max(queue.shapes, key=lambda shape: (queue.shapes[shape], shape))
    return Pool(
        name=name,
        nodes=queue.hosts,
        cpus_per_node=max(1, slots),
        memory_bytes_per_node=memory,
        accelerators_per_node=gpus,
        accelerator_kind=gpu_kind if gpus else "",
        up=queue.usable > 0,
        free_cpus=queue.free,
        free_nodes=queue.idle_hosts,
        queued_jobs=queue.queued,
        queued_cpu_seconds=queue.queued_seconds,
        running_cpu_seconds_left=queue.left_seconds,
    )


def _request(job: ElementTree.Element, name: str) -> int:
    return next((_whole(e.text or "") for e in job.iter("hard_request") if name and e.get("name") == name), 0)


def _text(entry: ElementTree.Element, name: str) -> str:
    return (entry.findtext(name) or "").strip()


def _whole(text: str) -> int:
    head = text.strip().partition(".")[0]
    return int(head) if head.isascii() and head.isdigit() and len(head) < 16 else 0
