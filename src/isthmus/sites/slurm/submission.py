"""sbatch and scancel: the argument list of a job, and what the answer means."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from typing import Final

from isthmus.domain.lifecycle import EndReason
from isthmus.sites.port import Full, Job, Rejected, SubmitOutcome, Submitted, Uncertain

# What may be passed through at all, each as the option of the same name; what users may is the operator's to say.
NATIVE: Final = frozenset({"account", "constraint", "exclusive", "nice", "qos", "reservation", "wckey"})
_VALUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.,:&|()*\[\]=+@/-]{0,254}")
_PARSABLE = re.compile(r"(\d{1,18})(?:;[^\s;]+)?")

# After these nobody knows whether the controller took the job.
_UNCERTAIN = re.compile(
    r"timed? ?out|unable to contact|connection|zero bytes|unexpected message|communication|"
    r"temporarily|try again|busy|authentication|credential|munge|protocol|send|receiv|"
    r"slurmctld|controller|backup|unspecified|i/o error|socket|shutdown",
    re.IGNORECASE,
)
_CLEAR = re.compile(
    r"Batch job submission failed: (?P<why>.+)|(?P<option>(?:unrecognized|invalid|ambiguous) (?:option|argument).*)|"
    r"error: (?P<other>invalid partition specified.*|Unable to open file .*|Invalid .* specification.*)",
)
_FULL = re.compile(r"\b(?:Assoc|QOS)\w*SubmitJob\w*")  # a limit on the jobs that may be in the queue at one time


def sbatch_argv(job: Job, script: str, directory: str, defaults: Mapping[str, str], gpu_gres: str = "gpu") -> list[str]:
    """The sbatch command of one job.

    The key is name and comment; `singleton` lets a second job of the same name and user start only after the first has
    ended, and Slurm must not start it again by itself. Demand that Slurm counts for each node stays for each node.
    """
    words = [
        "sbatch",
        "--parsable",
        f"--job-name={job.key}",
        f"--comment={job.key}",
        "--dependency=singleton",
        "--no-requeue",
        f"--partition={job.pool}",
        f"--chdir={directory}",
        f"--output={directory.replace('%', '%%')}/scheduler.out",
        "--open-mode=append",
        "--export=ALL",
        *_demand(job, gpu_gres),
    ]
    for name, value in sorted({**defaults, **job.native}.items()):
        words.append(f"--{name}" if value == "" else f"--{name}={value}")
    words.append(script)
    return words


def _demand(job: Job, gpu_gres: str) -> list[str]:
    demand = job.demand
    words = [
        f"--nodes={demand.nodes}",
        f"--ntasks-per-node={demand.tasks_per_node}",
        f"--cpus-per-task={demand.cpus}",
        f"--mem={math.ceil(demand.memory_bytes / 1024**2)}M",
        f"--time={math.ceil(job.limit_seconds / 60)}",
    ]
    if demand.accelerators.count:
        kind = f":{demand.accelerators.kind}" if demand.accelerators.kind else ""
        words.append(f"--gres={gpu_gres}{kind}:{demand.accelerators.count}")
    if demand.licences:
        words.append("--licenses=" + ",".join(f"{name}:{count}" for name, count in sorted(demand.licences.items())))
    if demand.disk_bytes:
        words.append(f"--tmp={math.ceil(demand.disk_bytes / 1024**2)}M")
    return words


def check_native(native: Mapping[str, str], allowed: Collection[str] = NATIVE) -> str:
    """What is wrong with native options of which only some are allowed, or an empty text."""
    for name, value in native.items():
        if name not in allowed or name not in NATIVE:
            return (
                f"The option {name!r} is not among those that may be set here: {', '.join(sorted(allowed)) or 'none'} "
                "(the site's setting user_options)."
            )
        if value and _VALUE.fullmatch(value) is None:
            return f"The value of the option {name!r} holds characters that are not allowed."
    return ""


def parse_sbatch(code: int, text: str) -> SubmitOutcome:
    """What sbatch's exit code and output (both streams) say. Only a clear no is Rejected, or Full where a later
    try may go through."""
    if code == 0:
        for line in text.splitlines():
            match = _PARSABLE.fullmatch(line.strip())
            if match:
                return Submitted(native_id=match[1])
        return Uncertain(message=f"sbatch succeeded but named no job: {_short(text)}")
    if code in {124, 126, 127, 137, 143}:
        return Uncertain(message=f"sbatch did not end by itself ({code}): {_short(text)}")
    for line in text.splitlines():
        match = _CLEAR.search(line)
        why = match and (match["why"] or match["option"] or match["other"])
        if why and not is_uncertain(why) and not is_uncertain(_before(text, line)):
            if _FULL.search(text):
                return Full(message=_explain(text))
            return Rejected(reason=EndReason.REJECTED_BY_SITE, message=_explain(text))
    return Uncertain(message=f"sbatch failed ({code}): {_short(text)}")


def is_uncertain(text: str) -> bool:
    """Whether an error's text leaves open if the controller took the job."""
    return _UNCERTAIN.search(text) is not None


def _before(text: str, line: str) -> str:
    """What was printed before the line: a rejection after a broken try says nothing about that try."""
    return text[: text.find(line)]


def _explain(text: str) -> str:
    lines = [re.sub(r"^sbatch: (?:error: )?", "", line).strip() for line in text.splitlines()]
    return _short("; ".join(line for line in lines if line and not line.startswith("Try ")))


def _short(text: str) -> str:
    return " ".join(text.split())[:500] or "(no output)"


def ask_to_end_argv(native_ids: list[str]) -> list[str]:
    """The command that sends TERM to the batch script of running jobs, and to nothing else of them."""
    return ["scancel", "--quiet", "--batch", "--signal=TERM", *native_ids]


def scancel_argv(native_ids: list[str]) -> list[str]:
    """The command that ends jobs; jobs that have ended already are passed over in silence."""
    return ["scancel", "--quiet", *native_ids]
