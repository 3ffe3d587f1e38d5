"""qsub and qdel: the argument list of a job, and what the answer means."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from isthmus.domain.lifecycle import EndReason
from isthmus.sites.gridengine.queue import PREFIX
from isthmus.sites.port import Full, Job, Rejected, SubmitOutcome, Submitted, Uncertain

# What may be passed through at all, with its option; what users may is the operator's to say.
NATIVE = {"project": "-P", "priority": "-p", "resources": "-l", "reservation": "-ar", "account": "-A"}
_VALUE = re.compile(r"[A-Za-z0-9_.-][A-Za-z0-9_.,:=*/-]{0,254}")
_TERSE = re.compile(r"(\d{1,18})(?:\.\d+(?:-\d+:\d+)?)?")
_UNCERTAIN = re.compile(
    r"commlib|qmaster|send error|connection|time[d]? ?out|communication|not responding", re.IGNORECASE
)
_CLEAR = re.compile(
    r"^(?:Unable to run job: (?P<why>.+)|Unable to read script file.*|qsub: (?:Unknown|ERROR).*)$", re.M
)
_FULL = re.compile(r"only \d+ jobs are allowed", re.IGNORECASE)  # max_u_jobs, max_jobs of the cell


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """How this cell names what a job demands; an empty name means that it is not asked for.

    `environment`: the parallel environment for several processors on one node; `nodes_environment`: for several nodes.
    """

    environment: str = "smp"
    nodes_environment: str = ""
    gpu: str = "gpu"
    gpu_per_slot: bool = False
    memory: str = ""
    memory_per_slot: bool = True


def qsub_argv(job: Job, script: str, directory: str, resources: Resources, defaults: Mapping[str, str]) -> list[str]:
    """The qsub command of one job. A job of the same name and owner that is there already is waited for."""
    name = f"{PREFIX}{job.key}"
    words = ["qsub", "-terse", "-N", name, "-ac", f"isthmus={job.key}", "-hold_jid", name, "-r", "n"]
    words += ["-S", "/bin/sh", "-wd", directory, "-o", f"{directory}/scheduler.out", "-j", "y", "-q", job.pool]
    demand = job.demand
    slots = demand.nodes * demand.cpus_per_node
    if demand.nodes > 1:
        words += ["-pe", resources.nodes_environment, str(slots)]
    elif slots > 1:
        words += ["-pe", resources.environment, str(slots)]
    asked = [f"h_rt={job.limit_seconds}"]
    if resources.memory:
        share = demand.cpus_per_node if resources.memory_per_slot else 1
        asked.append(f"{resources.memory}={math.ceil(demand.memory_bytes / share / 1024**2)}M")
    if demand.accelerators.count:
        count = demand.accelerators.count
        asked.append(f"{resources.gpu}={math.ceil(count / demand.cpus_per_node) if resources.gpu_per_slot else count}")
    asked += [f"{licence}={count}" for licence, count in sorted(demand.licences.items())]
    words += ["-l", ",".join(asked)]
    for option, value in sorted({**defaults, **job.native}.items()):
        words += [NATIVE[option], value]
    return [*words, script]


def check(job: Job, resources: Resources, user_options: Collection[str] = ()) -> str:
    """What this cell cannot take of a job, or an empty text. `user_options`: native options that a job may bring."""
    wrong = check_native(job.native, user_options)
    if wrong:
        return wrong
    if job.demand.nodes > 1 and not resources.nodes_environment:
        return "This site has no parallel environment for several nodes (setting pe_nodes)."
    if job.demand.accelerators.count and not resources.gpu:
        return "This site has no resource for accelerators (setting gpu_resource)."
    return ""


def check_native(native: Mapping[str, str], allowed: Collection[str] = frozenset(NATIVE)) -> str:
    """What is wrong with native options of which only some are allowed, or an empty text."""
    for name, value in native.items():
        if name not in allowed or name not in NATIVE:
            return (
                f"The option {name!r} is not among those that may be set here: {', '.join(sorted(allowed)) or 'none'} "
                "(the site's setting user_options)."
            )
        if _VALUE.fullmatch(value) is None:
            return f"The value of the option {name!r} is empty or holds characters that are not allowed."
    return ""


def parse_qsub(code: int, text: str) -> SubmitOutcome:
    """What qsub's exit code and output say. Only a clear no is Rejected, or Full where a later try may go
    through."""
    if code == 0:
        for line in reversed(text.splitlines()):
            match = _TERSE.fullmatch(line.strip())
            if match:
                return Submitted(native_id=match[1])
        return Uncertain(message=f"qsub succeeded but named no job: {_short(text)}")
    clear = _CLEAR.search(text)
    if code not in {124, 126, 127, 137, 143} and clear and not _UNCERTAIN.search(text):
        message = _short(clear["why"] or clear[0])
        if _FULL.search(text):
            return Full(message=message)
        return Rejected(reason=EndReason.REJECTED_BY_SITE, message=message)
    return Uncertain(message=f"qsub failed ({code}): {_short(text)}")


def _short(text: str) -> str:
    return " ".join(text.split())[:500] or "(no output)"
