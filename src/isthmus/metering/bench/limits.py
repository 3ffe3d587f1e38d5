"""What the job was given: processors by affinity and quota, memory by cgroup, batch system and machine."""

from __future__ import annotations

import math
import os
import re
import resource
from dataclasses import dataclass

GROUPS = "/sys/fs/cgroup"
# Read by the libraries when they are loaded: OpenMP, OpenBLAS, MKL, BLIS, Accelerate.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")  # fmt: skip


@dataclass(frozen=True)
class Given:
    """What may be used: the processors (numbers of them that the job may run on), and bytes of memory."""

    cpus: tuple[int, ...]
    cpus_of_node: int
    quota: float | None  # processors' worth of time, where a cgroup limits it
    memory_bytes: int


def given(memory_bytes: int = 0) -> Given:
    """What this process may use; `memory_bytes` is a further limit, 0 for none."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    quota = _quota()
    count = len(allowed) if quota is None else min(len(allowed), max(1, math.ceil(quota - 0.01)))
    limits = [
        limit for limit in (memory_bytes, _group_memory(), _batch_memory(len(allowed)), _process_memory()) if limit
    ]
    return Given(
        cpus=tuple(allowed[:count]),
        cpus_of_node=os.cpu_count() or 1,
        quota=quota,
        memory_bytes=min([_machine_memory(), *limits]),
    )


def hold_threads(cpus: int) -> None:
    """Tell the libraries how many threads to use; before any of them is loaded."""
    for name in THREAD_VARIABLES:
        os.environ[name] = str(cpus)


def read(path: str) -> str:
    """A small file's text; empty when it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _groups(controller: str) -> list[str]:
    """Directories of this process's cgroup and of all above it, for a controller (version 1) or "" (version 2)."""
    for line in read("/proc/self/cgroup").splitlines():
        _number, controllers, path = line.split(":", 2)
        if (controller in controllers.split(",")) if controller else not controllers:
            base = f"{GROUPS}/{controllers}" if controller else GROUPS
            if controller and not os.path.isdir(base):
                base = f"{GROUPS}/{controller}"
            parts = [part for part in path.split("/") if part]
            return ["/".join([base, *parts[:count]]) for count in range(len(parts), -1, -1)]
    return []


def _quota() -> float | None:
    found: list[float] = []
    for directory in _groups(""):
        words = read(f"{directory}/cpu.max").split()
        if len(words) == 2 and words[0] != "max":
            found.append(int(words[0]) / int(words[1]))
    for directory in _groups("cpu"):
        quota, period = read(f"{directory}/cpu.cfs_quota_us").strip(), read(f"{directory}/cpu.cfs_period_us").strip()
        if quota.isdigit() and period.isdigit() and int(period) > 0:
            found.append(int(quota) / int(period))
    return min(found) if found else None


def _group_memory() -> int:
    found = [read(f"{directory}/memory.max").strip() for directory in _groups("")]
    found += [read(f"{directory}/memory.limit_in_bytes").strip() for directory in _groups("memory")]
    return min((int(text) for text in found if text.isdigit()), default=0)


def _batch_memory(cpus: int) -> int:
    """Slurm's grant in MiB, a node's or a processor's."""
    whole, each = os.environ.get("SLURM_MEM_PER_NODE", ""), os.environ.get("SLURM_MEM_PER_CPU", "")
    if whole.isdigit() and int(whole):
        return int(whole) * 1024**2
    return int(each) * cpus * 1024**2 if each.isdigit() else 0


def _process_memory() -> int:
    soft, _hard = resource.getrlimit(resource.RLIMIT_AS)
    return 0 if soft == resource.RLIM_INFINITY else soft


def _machine_memory() -> int:
    match = re.search(r"^MemAvailable:\s+(\d+)", read("/proc/meminfo"), re.M)
    return int(match.group(1)) * 1024 if match else 1024**3


def processor() -> dict[str, object]:
    """The processor's model, and the bytes of its last-level cache that this node's processors share (0: not known)."""
    info = read("/proc/cpuinfo")
    match = re.search(r"^model name\s*:\s*(.+)$", info, re.M)
    best: tuple[int, int] = (0, 0)
    for index in range(8):
        base = f"/sys/devices/system/cpu/cpu0/cache/index{index}"
        level, size = read(f"{base}/level").strip(), read(f"{base}/size").strip()
        if level.isdigit() and size[:-1].isdigit():
            best = max(best, (int(level), int(size[:-1]) * {"K": 1024, "M": 1024**2}.get(size[-1], 1)))
    return {"model": match.group(1).strip() if match else os.uname().machine, "cache_bytes": best[1]}
