"""The configuration of a lab's Grid Engine cell, written from its description."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from isthmus.lab.gridengine import GridEngineCell

LIMITS = ("rt", "cpu", "fsize", "data", "stack", "core", "rss", "vmem")


def bootstrap(cell: GridEngineCell) -> str:
    """Return the bootstrap file, which every command and daemon reads first."""
    top = cell.directory
    return _lines(
        {
            "admin_user": "none",
            "default_domain": "none",
            "ignore_fqdn": "true",
            "spooling_method": "classic",
            "spooling_lib": "libspoolc",
            "spooling_params": f"{top}/default/common;{top}/spool/qmaster",
            "binary_path": "/usr/sbin",
            "qmaster_spool_dir": f"{top}/spool/qmaster",
            "security_mode": "none",
            "listener_threads": "2",
            "worker_threads": "2",
            "scheduler_threads": "1",
        }
    )


def cell(cell: GridEngineCell, installed: str) -> str:
    """Return the cell's configuration: the installed default with short intervals and this cell's spool."""
    changed = installed.replace("flush_time=00:00:15", "accounting_flush_time=00:00:00 flush_time=00:00:01")
    for name, value in (
        ("execd_spool_dir", f"{cell.directory}/spool/execd"),
        ("min_uid", "0"),
        ("min_gid", "0"),
        ("load_report_time", "00:00:02"),
        ("max_unheard", "00:00:20"),
        ("mailer", "/bin/true"),
    ):
        changed = re.sub(rf"^{name}\s.*$", f"{name} {value}", changed, flags=re.MULTILINE)
    return changed


def execution_host(cell: GridEngineCell) -> str:
    """Return the description of the one execution host."""
    return _lines(
        {
            "hostname": cell.host,
            "load_scaling": "NONE",
            "complex_values": f"slots={cell.slots},gpu={cell.gpus}",
            "user_lists": "NONE",
            "xuser_lists": "NONE",
            "projects": "NONE",
            "xprojects": "NONE",
            "usage_scaling": "NONE",
            "report_variables": "NONE",
        }
    )


def parallel_environment(name: str) -> str:
    """Return a parallel environment whose slots all lie on one host."""
    return _lines(
        {
            "pe_name": name,
            "slots": "999",
            "user_lists": "NONE",
            "xuser_lists": "NONE",
            "start_proc_args": "NONE",
            "stop_proc_args": "NONE",
            "allocation_rule": "$pe_slots",
            "control_slaves": "FALSE",
            "job_is_first_task": "TRUE",
            "urgency_slots": "min",
            "accounting_summary": "FALSE",
            "qsort_args": "NONE",
        }
    )


def queue(cell: GridEngineCell, name: str, environment: str) -> str:
    """Return a queue on all hosts without limits and without load thresholds: the machine is a shared one."""
    none = (
        "load_thresholds suspend_thresholds ckpt_list prolog epilog starter_method suspend_method resume_method "
        "terminate_method owner_list user_lists xuser_lists subordinate_list complex_values projects xprojects "
        "calendar"
    )
    values = {
        "qname": name,
        "hostlist": "@allhosts",
        "seq_no": "0",
        "nsuspend": "1",
        "suspend_interval": "00:05:00",
        "priority": "0",
        "min_cpu_interval": "00:05:00",
        "processors": "UNDEFINED",
        "qtype": "BATCH INTERACTIVE",
        "pe_list": environment,
        "rerun": "FALSE",
        "slots": str(cell.slots),
        "tmpdir": "/tmp",  # noqa: S108 - where jobs get a directory of their own
        "shell": "/bin/sh",
        "shell_start_mode": "posix_compliant",
        "notify": "00:00:60",
        "initial_state": "default",
    }
    values |= dict.fromkeys(none.split(), "NONE")
    values |= {f"{kind}_{limit}": "INFINITY" for limit in LIMITS for kind in ("s", "h")}
    return _lines(values)


def _lines(values: dict[str, str]) -> str:
    return "".join(f"{name} {value}\n" for name, value in values.items())
