"""The configuration files of a lab's Slurm cluster, written from its description."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from isthmus.lab.ports import HOST

if TYPE_CHECKING:
    from isthmus.lab.mariadb import MariaDb
    from isthmus.lab.slurm import SlurmCluster

ACCOUNT = "research"
"""The Slurm account that every lab cluster with accounting has."""
EXPRESS = "express"
"""The quality of service, with a priority of 100, that every lab cluster with accounting has."""
CGROUPS = Path("/sys/fs/cgroup")


def slurm_conf(cluster: SlurmCluster) -> str:
    """Return slurm.conf."""
    top = cluster.directory
    lines = [
        f"ClusterName={cluster.name}",
        # The name must be the short host name, and its own address is what Slurm binds to by the two words below.
        f"SlurmctldHost={cluster.host}({cluster.address})",
        f"SlurmctldPort={cluster.controller_port}",
        f"CommunicationParameters={_binding(cluster.address)}",
        "AuthType=auth/munge",
        f"AuthInfo=socket={top}/run/munge.sock",
        "AuthAltTypes=auth/jwt",
        f"AuthAltParameters=jwt_key={top}/jwt/jwt.key",
        "CredType=cred/munge",
        "SlurmUser=root",
        "SlurmdUser=root",
        f"StateSaveLocation={top}/state",
        f"SlurmdSpoolDir={top}/spool/%n",
        f"SlurmctldPidFile={top}/run/slurmctld.pid",
        f"SlurmdPidFile={top}/run/slurmd-%n.pid",
        f"SlurmctldLogFile={top}/log/slurmctld.log",
        f"SlurmdLogFile={top}/log/slurmd-%n.log",
        *_enforcement(cluster.enforce_memory),
        "JobAcctGatherFrequency=5",
        "SchedulerType=sched/backfill",
        "SchedulerParameters=bf_interval=2,sched_interval=2,batch_sched_delay=0,sched_min_interval=0",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_Core_Memory",
        "SlurmdParameters=config_overrides",
        "GresTypes=gpu",
        "MpiDefault=none",
        "SwitchType=switch/none",
        "ReturnToService=2",
        "MailProg=/bin/true",
        "SlurmctldTimeout=10",
        "SlurmdTimeout=10",
        "InactiveLimit=0",
        "MinJobAge=300",
        "KillWait=2",
        "Waittime=0",
        "MessageTimeout=10",
        "TCPTimeout=2",
        "JobCompType=jobcomp/filetxt",
        f"JobCompLoc={top}/log/jobcomp.txt",
        *_accounting(cluster),
    ]
    if cluster.licences:
        lines.append("Licenses=" + ",".join(f"{name}:{count}" for name, count in cluster.licences.items()))
    lines += [_node(cluster, node) for node in cluster.nodes]
    for partition, nodes, default in (
        ("cpu", cluster.cpu_nodes, "YES"),
        ("gpu", cluster.gpu_nodes, "NO"),
    ):
        if nodes:
            lines.append(
                f"PartitionName={partition} Nodes={','.join(nodes)} Default={default} "
                f"DefMemPerCPU=100 DefaultTime=0:30:00 MaxTime=1-00:00:00 State=UP"
            )
    return "\n".join(lines) + "\n"


def gres_conf(cluster: SlurmCluster) -> str:
    """Return gres.conf: which devices are the GPUs of which nodes."""
    if not cluster.gpu_nodes or not cluster.gpus_per_node:
        return ""
    last = cluster.gpus_per_node - 1
    devices = f"{cluster.directory}/dev/nvidia" + (f"[0-{last}]" if last else "0")
    return f"NodeName={','.join(cluster.gpu_nodes)} Name=gpu Type=a100 File={devices}\n"


def cgroup_conf(cluster: SlurmCluster) -> str:
    """Return cgroup.conf; it constrains memory only, since the CPUs are not really there."""
    lines = ["CgroupPlugin=cgroup/v1"]
    if cluster.enforce_memory:
        lines += [
            f"CgroupMountpoint={CGROUPS}",
            "ConstrainRAMSpace=yes",
            "ConstrainSwapSpace=no",
            "ConstrainCores=no",
            "ConstrainDevices=no",
            "MinRAMSpace=5",
        ]
    return "\n".join(lines) + "\n"


def slurmdbd_conf(cluster: SlurmCluster, database: MariaDb) -> str:
    """Return slurmdbd.conf; it holds the password of the database."""
    top = cluster.directory
    return "\n".join(
        [
            "AuthType=auth/munge",
            f"AuthInfo=socket={top}/run/munge.sock",
            "AuthAltTypes=auth/jwt",
            f"AuthAltParameters=jwt_key={top}/jwt/jwt.key",
            # As for the controller: an address as DbdHost is refused.
            f"DbdHost={cluster.host}",
            f"DbdAddr={cluster.address}",
            "CommunicationParameters=NoInAddrAny",
            f"DbdPort={cluster.accounting_port}",
            "SlurmUser=root",
            f"LogFile={top}/log/slurmdbd.log",
            f"PidFile={top}/run/slurmdbd.pid",
            "StorageType=accounting_storage/mysql",
            f"StorageHost={HOST}",
            f"StoragePort={database.port}",
            f"StorageUser={database.user}",
            f"StoragePass={database.password}",
            f"StorageLoc=slurm_{cluster.name.replace('-', '_')}",
            "CommitDelay=1",
            "",
        ]
    )


def _binding(address: str) -> str:
    """Return the words that bind the daemons, and srun, to the machine's own address."""
    if address.startswith("127.") and address != HOST:
        # Debian's 127.0.1.1: who connects to it comes from 127.0.0.1, where Slurm then looks for an srun that is
        # bound to 127.0.1.1. Only the controller can be bound here; the others take munge credentials only.
        return "NoCtldInAddrAny"
    return "NoCtldInAddrAny,NoInAddrAny"


def _enforcement(enforce_memory: bool) -> list[str]:
    if enforce_memory:
        return [
            "ProctrackType=proctrack/cgroup",
            "TaskPlugin=task/cgroup",
            "JobAcctGatherType=jobacct_gather/cgroup",
        ]
    return [
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "JobAcctGatherType=jobacct_gather/linux",
    ]


def _accounting(cluster: SlurmCluster) -> list[str]:
    if not cluster.accounting:
        return ["AccountingStorageType=accounting_storage/none"]
    return [
        "AccountingStorageType=accounting_storage/slurmdbd",
        f"AccountingStorageHost={cluster.address}",
        f"AccountingStoragePort={cluster.accounting_port}",
        f"AccountingStoragePass={cluster.directory}/run/munge.sock",
        "AccountingStorageTRES=gres/gpu",
        # sacct -o comment: an adapter finds its jobs again by it.
        "AccountingStoreFlags=job_comment",
    ]


def _node(cluster: SlurmCluster, node: str) -> str:
    has_gpus = node in cluster.gpu_nodes and cluster.gpus_per_node > 0
    gpus = f"Gres=gpu:a100:{cluster.gpus_per_node} Feature=gpu,a100" if has_gpus else "Feature=cpu"
    return (
        f"NodeName={node} NodeHostname={cluster.host} NodeAddr={cluster.address} Port={cluster.node_ports[node]} "
        f"CPUs={cluster.cpus_per_node} Sockets=1 CoresPerSocket={cluster.cpus_per_node} ThreadsPerCore=1 "
        f"RealMemory={cluster.memory_mib_per_node} {gpus} State=UNKNOWN"
    )
