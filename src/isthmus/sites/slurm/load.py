"""What a cluster has and how busy it is: sinfo, squeue of all, configuration, licences."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from isthmus.domain.queue import QueuedJob
from isthmus.domain.site import Pool
from isthmus.sites.slurm import values

# Node states in which an idle processor can be had now or after waking the node.
_USABLE = frozenset({"idle", "mixed", "allocated", "completing", "planned", "reserved"})
_GRES = re.compile(r"(?P<name>[A-Za-z0-9_.-]+)(?::(?P<kind>[A-Za-z][^:(,]*))?(?::(?P<count>\d+))?(?:\([^)]*\))?")

SINFO = ["sinfo", "-h", "-a", "-e", "-o", "%D|%T|%c|%m|%G|%C|%d|%a|%l|%R"]
# In squeue's own order: what waits by its priority. %S of what waits is when the site expects it to start.
QUEUE = ["squeue", "-h", "-a", "-r", "-o", "%T|%C|%l|%L|%i|%V|%S|%r|%u|%P"]
_QUEUE_WIDTH = 10
_RUNNING = frozenset({"RUNNING", "COMPLETING", "CONFIGURING"})
# Causes for which a job waits that no room would help.
_HELD = ("JobHeld", "Dependency", "BeginTime", "Cleaning", "Assoc", "QOS", "ReqNodeNotAvail", "PartitionTimeLimit")
LICENCES = ["scontrol", "show", "licenses", "-o"]
CONFIGURATION = ["scontrol", "show", "config"]


@dataclass(slots=True)
class _Partition:
    groups: list[tuple[int, int, int, int, str, int]] = field(default_factory=list)
    nodes: int = 0
    up: bool = False
    usable: int = 0
    idle_nodes: int = 0
    idle_cpus: int = 0
    limit: int | None = None


@dataclass(slots=True)
class _Load:
    queued: int = 0
    queued_cpu_seconds: float = 0.0
    running_cpu_seconds_left: float = 0.0


def parse_pools(sinfo: str, queue: str, licences: Mapping[str, int], gpu_gres: str = "gpu") -> tuple[Pool, ...]:
    """A pool for each partition, each with all licences of the cluster. A partition of unlike nodes is described by its most frequent kind of node."""
    partitions: dict[str, _Partition] = {}
    for line in sinfo.splitlines():
        _add_group(line, partitions, gpu_gres)
    loads = _loads(queue)
    return tuple(_pool(name, found, loads.get(name, _Load()), licences) for name, found in sorted(partitions.items()))


def _add_group(line: str, partitions: dict[str, _Partition], gpu_gres: str) -> None:
    fields = line.split("|", 9)
    if len(fields) != 10:
        return
    nodes, state, cpus, memory, gres, cpu_states, disk, available, limit, name = (part.strip() for part in fields)
    count = values.whole(nodes) or 0
    word = state.rstrip("*~#!%$@^-+").lower()
    partition = partitions.setdefault(name, _Partition())
    partition.up = partition.up or available == "up"
    seconds = values.clock_seconds(limit)
    partition.limit = None if seconds is None else int(seconds)
    partition.nodes += count
    kind, accelerators = parse_gres(gres, gpu_gres)
    partition.groups.append(
        (count, values.whole(cpus.rstrip("+")) or 1, _mebibytes(memory), accelerators, kind, _mebibytes(disk))
    )
    if word in _USABLE and not state.endswith(("*", "$", "@")):
        partition.usable += count
        partition.idle_nodes += count if word == "idle" else 0
        states = cpu_states.split("/")
        partition.idle_cpus += (values.whole(states[1]) or 0) if len(states) == 4 else 0


def _mebibytes(text: str) -> int:
    return values.size_bytes(text.rstrip("+"), unit=1024**2)


def parse_gres(text: str, gpu_gres: str = "gpu") -> tuple[str, int]:
    """Kind and number of accelerators on a node from `gpu:a100:4(S:0-1),nvme:1`; the most frequent kind names them."""
    counts: dict[str, int] = {}
    for part in re.split(r",(?![^(]*\))", text):
        match = _GRES.fullmatch(part.strip())
        if match and match["name"] == gpu_gres:
            kind = (match["kind"] or "").lower()
            counts[kind] = counts.get(kind, 0) + (int(match["count"]) if match["count"] else 1)
    if not counts:
        return "", 0
    return max(counts, key=lambda kind: (counts[kind], kind)), sum(counts.values())


def _loads(queue: str) -> dict[str, _Load]:
    loads: dict[str, _Load] = {}
    for line in queue.splitlines():
        fields = line.split("|", _QUEUE_WIDTH - 1)
        if len(fields) != _QUEUE_WIDTH:
            continue
        state, cpus_text, limit, left, names = (*fields[:4], fields[-1])
        cpus = values.whole(cpus_text) or 1
        partitions = [name for name in names.split(",") if name]
        for name in partitions:  # a job that may go to several counts in each, as long as it waits
            load = loads.setdefault(name, _Load())
            if state == "PENDING":
                load.queued += 1
                load.queued_cpu_seconds += cpus * (values.clock_seconds(limit) or 0.0)
            elif state in _RUNNING:
                load.running_cpu_seconds_left += cpus * (values.clock_seconds(left) or 0.0)
    return loads


def parse_jobs(queue: str, hashed: Callable[[str], str]) -> Iterable[QueuedJob]:
    """Each job that runs or waits, in the order given; `hashed` takes a user's name away. A line that is none is passed over."""
    for line in queue.splitlines():
        fields = [field.strip() for field in line.split("|", _QUEUE_WIDTH - 1)]
        if len(fields) != _QUEUE_WIDTH:
            continue
        state, cpus, limit, _left, native_id, submitted, start, cause, user, names = fields
        running = state in _RUNNING
        pools = tuple(name for name in names.split(",") if name)
        if not pools or not native_id[:1].isdigit() or not (running or state == "PENDING"):
            continue
        seconds, began = values.clock_seconds(limit), values.moment(start)
        yield QueuedJob(
            id=native_id[:63],
            pools=pools,
            user=hashed(user),
            running=running,
            held=not running and cause.startswith(_HELD),
            processors=values.whole(cpus) or 1,
            limit_seconds=None if seconds is None else int(seconds),
            submitted_at=values.moment(submitted),
            started_at=began if running else None,
            expected_at=None if running else began,
        )


def parse_licences(text: str) -> dict[str, int]:
    """Number of licences the cluster owns, by name, from `LicenseName=matlab Total=4 Used=0 ...`."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        fields = dict(_pairs(line))
        total = values.whole(fields.get("Total", ""))
        if fields.get("LicenseName") and total:
            found[fields["LicenseName"]] = total
    return found


def _pairs(line: str) -> Iterable[tuple[str, str]]:
    return ((name, value) for name, equals, value in (word.partition("=") for word in line.split()) if equals)


def _pool(name: str, found: _Partition, load: _Load, licences: Mapping[str, int]) -> Pool:
    totals: dict[tuple[int, int, int, str, int], int] = {}
    for group in found.groups:
        count, shape = group[0], group[1:]
        totals[shape] = totals.get(shape, 0) + count
    cpus, memory, accelerators, kind, disk = max(totals, key=lambda shape: (totals[shape], shape))
    return Pool(
        name=name,
        nodes=max(1, found.nodes),
        cpus_per_node=cpus,
        memory_bytes_per_node=memory,
        disk_bytes_per_node=disk,
        accelerators_per_node=accelerators,
        accelerator_kind=kind,
        max_walltime_seconds=found.limit,
        licences=dict(licences),
        up=found.up and found.usable > 0,
        free_cpus=found.idle_cpus if found.up else 0,
        free_nodes=found.idle_nodes if found.up else 0,
        queued_jobs=load.queued,
        queued_cpu_seconds=load.queued_cpu_seconds,
        running_cpu_seconds_left=load.running_cpu_seconds_left,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """What the adapter must know of a cluster's configuration."""

    version: str = ""
    cluster: str = ""
    accounting: bool = True
    private_jobs: bool = False
    message_timeout_seconds: int = 10
    licences: Mapping[str, int] = field(default_factory=dict)


def parse_configuration(text: str, licences: str = "") -> Configuration:
    """Read `scontrol show config` and `scontrol show licenses -o`."""
    fields = {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in text.splitlines())}
    storage = fields.get("AccountingStorageType", "")
    timeout = fields.get("MessageTimeout", "").split(" ")[0]
    return Configuration(
        version=fields.get("SLURM_VERSION", ""),
        cluster=fields.get("ClusterName", ""),
        accounting="slurmdbd" in storage or "mysql" in storage,
        private_jobs="jobs" in fields.get("PrivateData", "").split(","),
        message_timeout_seconds=values.whole(timeout) or 10,
        licences=parse_licences(licences),
    )
