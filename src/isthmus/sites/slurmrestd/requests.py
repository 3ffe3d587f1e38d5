"""The documents that are sent to slurmrestd."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from typing import Any

from isthmus.domain.lifecycle import EndReason
from isthmus.sites.port import Job, Rejected, SubmitOutcome, Submitted, Uncertain
from isthmus.sites.slurm.submission import is_uncertain
from isthmus.sites.slurmrestd.documents import at, entries, integer

# Slurm's own error numbers (slurm/slurm_errno.h): from 2000 the controller looked at the job and refused it.
_REFUSALS = range(2000, 5000)
_PARSING = 9001


def submission(job: Job, directory: str, version: int, options: Mapping[str, str], gpu_gres: str) -> dict[str, Any]:
    """The body of `POST /slurm/v0.0.VERSION/job/submit`.

    Up to v0.0.38 `requeue` is accepted and ignored, so there a job may be put back into the queue; its second start finds
    the claim and ends.
    """
    demand = job.demand
    memory = math.ceil(demand.memory_bytes / 1024**2)
    minutes = math.ceil(job.limit_seconds / 60)
    accelerators = demand.accelerators
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
    if job.account:
        environment |= {"USER": job.account, "LOGNAME": job.account}
    old = version < 39
    body: dict[str, Any] = {
        "name": job.key,
        "comment": job.key,
        "dependency": "singleton",
        "requeue": False,
        "partition": job.pool,
        "nodes": [demand.nodes, demand.nodes] if old else f"{demand.nodes}-{demand.nodes}",
        "tasks": demand.nodes * demand.tasks_per_node,
        "tasks_per_node": demand.tasks_per_node,
        "cpus_per_task": demand.cpus,
        "memory_per_node": memory if old else {"set": True, "number": memory},
        "time_limit": minutes if old else {"set": True, "number": minutes},
        "current_working_directory": directory,
        "standard_output": directory.replace("%", "%%") + "/scheduler.out",
        "open_mode": "append",
        "environment": environment if old else [f"{name}={value}" for name, value in environment.items()],
    }
    if accelerators.count:
        kind = f":{accelerators.kind}" if accelerators.kind else ""
        gres = f"{gpu_gres}{kind}:{accelerators.count}"
        body["gres" if old else "tres_per_node"] = gres if old else f"gres/{gres}"
    if demand.licences:
        body["licenses"] = ",".join(f"{name}:{count}" for name, count in sorted(demand.licences.items()))
    if demand.disk_bytes:
        body["temporary_disk_per_node"] = math.ceil(demand.disk_bytes / 1024**2)
    body |= _options({**options, **job.native})
    script = launcher(f"{directory}/job.sh")
    if version >= 40:
        return {"job": body | {"script": script}}
    return {"job": body, "script": script}


def launcher(path: str) -> str:
    """The script that Slurm keeps: slurmrestd gives a job no home directory, so it is looked up at the node."""
    home = 'HOME=${HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)}; export HOME'
    return f"#!/bin/sh\n{home}\nexec /bin/sh {shlex.quote(path)}\n"


def _options(options: Mapping[str, str]) -> dict[str, Any]:
    names = {"constraint": "constraints"}
    body: dict[str, Any] = {}
    for name, value in options.items():
        body[names.get(name, name)] = int(value) if name == "nice" and value.lstrip("-").isdigit() else value
    return body


def read_submission(status: int, document: Any) -> SubmitOutcome:
    """What an answer to a submission says. Only Slurm's own refusal of the job is Rejected."""
    errors = error_texts(document)
    native_id = integer(at(document, "job_id")) or integer(at(document, "result", "job_id"))
    if status == 200 and native_id and not errors:
        return Submitted(native_id=str(native_id))
    text = "; ".join(errors)[:500] or f"HTTP status {status}"
    codes = [integer(item.get("error_code", item.get("error_number"))) for item in entries(document, "errors") or []]
    refused = any(code in _REFUSALS or code == _PARSING for code in codes)
    if status in {400, 500} and refused and not native_id and not is_uncertain(text):
        return Rejected(reason=EndReason.REJECTED_BY_SITE, message=text)
    return Uncertain(message=f"slurmrestd did not say whether it took the job: {text}.")


def error_texts(document: Any) -> list[str]:
    """The errors in an answer; that nothing was found is none."""
    texts: list[str] = []
    for item in entries(document, "errors") or []:
        code = integer(item.get("error_code", item.get("error_number")))
        parts = [str(item.get(name)) for name in ("error", "description") if item.get(name)]
        text = ": ".join(dict.fromkeys(parts)) or f"error {code}"
        if code == 9003 or "nothing found" in text.lower():
            continue
        texts.append(text[:300])
    return texts
