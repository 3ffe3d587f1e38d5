"""Whole Slurm clusters on one machine: munge, slurmctld, one slurmd for each node, slurmdbd, slurmrestd.

Nodes are faked in size (`config_overrides`), the rest is real: scheduling, accounting, licences, GPUs as devices.
Intervals are short, so that a job that does nothing takes one to two seconds.
"""

from __future__ import annotations

import os
import secrets
import signal
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from isthmus.lab import registry, slurm_config
from isthmus.lab.commands import run_command
from isthmus.lab.errors import LabError
from isthmus.lab.mariadb import MariaDb
from isthmus.lab.ports import HOST, free_port, listening, own_address, short_host_name
from isthmus.lab.proc import ProcessId, descendants, process_id, with_environment
from isthmus.lab.processes import Daemons, wait_for

CPU_PARTITION = "cpu"
GPU_PARTITION = "gpu"
REST_ACCOUNT = "slurm"
REST_VERSION = "v0.0.38"


class SlurmCluster:
    """One Slurm cluster in one directory, with partitions `cpu` (default) and `gpu`.

    Any account of the machine may submit, with `environment` set or behind `command_prefix`.
    """

    def __init__(
        self,
        directory: Path,
        name: str,
        *,
        nodes: int = 2,
        gpu_nodes: int = 1,
        cpus_per_node: int = 8,
        memory_mib_per_node: int = 16_000,
        gpus_per_node: int = 4,
        licences: Mapping[str, int] | None = None,
        accounting: bool = True,
        database: MariaDb | None = None,
        enforce_memory: bool = False,
    ) -> None:
        """Describe the cluster; nothing is made before `start`.

        Without a `database` an accounting cluster starts its own. `enforce_memory` needs cgroup v1 with the memory
        controller: a job that takes more than it asked for ends as OUT_OF_MEMORY.
        """
        self.directory = directory.resolve()
        self.name = name
        self.cpu_nodes = [f"{name}-c{number}" for number in range(1, nodes + 1)]
        self.gpu_nodes = [f"{name}-g{number}" for number in range(1, gpu_nodes + 1)]
        self.cpus_per_node = cpus_per_node
        self.memory_mib_per_node = memory_mib_per_node
        self.gpus_per_node = gpus_per_node
        self.licences = dict(licences if licences is not None else {"matlab": 4})
        self.accounting = accounting
        self.enforce_memory = enforce_memory
        self.host = short_host_name()
        self.address = own_address()
        self.controller_port = free_port()
        self.accounting_port = free_port()
        self.node_ports = {node: free_port() for node in self.nodes}
        self.rest_port: int | None = None
        self.database = database
        self._own_database = database is None and accounting
        self._daemons: Daemons | None = None

    @property
    def nodes(self) -> list[str]:
        """The names of all nodes; they are unique to the cluster by its name."""
        return [*self.cpu_nodes, *self.gpu_nodes]

    @property
    def configuration(self) -> Path:
        """The path of slurm.conf."""
        return self.directory / "etc" / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        """The variables that point Slurm's commands to this cluster."""
        return {"SLURM_CONF": str(self.configuration)}

    @property
    def command_prefix(self) -> list[str]:
        """The words to put before a command where variables cannot be set, as over SSH."""
        return ["env", *(f"{name}={value}" for name, value in self.environment.items())]

    @property
    def rest_url(self) -> str:
        """The base URL of slurmrestd; raises LabError before `start_rest`."""
        if self.rest_port is None:
            raise LabError(f"slurmrestd of {self.name} was not started", "Call start_rest()")
        return f"http://{HOST}:{self.rest_port}"

    @property
    def daemons(self) -> Daemons:
        """The cluster's daemons; raises LabError before `start`."""
        if self._daemons is None:
            raise LabError(f"the cluster {self.name} was not started", "Call start()")
        return self._daemons

    def start(self) -> Self:
        """Start everything and wait until every node is idle; on failure what was started is stopped."""
        registry.check_reachable(self.directory)
        self._daemons = Daemons(self.directory)
        try:
            if self._own_database:
                self.database = MariaDb(self.directory / "mariadb").start()
            self._write_files()
            self._start_munge()
            if self.accounting:
                self.start_accounting()
                self._set_up_accounting()
            self._start_all()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the jobs, stop every daemon and remove what is outside of the directory; logs stay."""
        if self._daemons is None:
            return
        self._end_jobs()
        self._daemons.close()
        self._daemons = None
        self.rest_port = None
        if self._own_database and self.database is not None:
            self.database.stop()
            self.database = None

    def run(
        self, *argv: str, user: str | None = None, input_text: str | None = None, directory: Path | None = None
    ) -> str:
        """Run a command of Slurm, as an account if one is given, and return what it prints, stripped.

        Raises LabError with the command's own message when it fails.
        """
        return run_command(*argv, environment=self.environment, user=user, input_text=input_text, directory=directory)

    def submit(self, script: str, *options: str, user: str) -> int:
        """Submit a script with sbatch as an account and return the job's number."""
        return int(self.run("sbatch", "--parsable", *options, user=user, input_text=script).split(";")[0])

    def job_state(self, job: int) -> str:
        """Return the state of a job as the controller knows it, such as COMPLETED; raises LabError if unknown."""
        shown = self.run("scontrol", "show", "job", "-o", str(job))
        return dict(word.partition("=")[::2] for word in shown.split())["JobState"]

    def add_user(self, name: str, account: str = slurm_config.ACCOUNT) -> None:
        """Enter an account of the machine in the accounting, under a Slurm account."""
        self.run("sacctmgr", "-i", "-Q", "add", "user", name, f"account={account}")

    def ready(self) -> bool:
        """Tell whether the controller answers and every node is idle or at work."""
        try:
            states = self.run("sinfo", "-h", "-N", "-o", "%N %T").splitlines()
        except LabError:
            return False
        seen = dict(line.split() for line in states)
        return len(seen) == len(self.nodes) and set(seen.values()) <= {"idle", "mixed", "allocated"}

    def wait_ready(self, seconds: float = 90) -> None:
        """Wait until the cluster is ready; raises LabError when the seconds are over."""
        wait_for(self.ready, seconds, f"the nodes of {self.name} to be idle", interval_seconds=0.1)

    def start_controller(self) -> None:
        """Start slurmctld and wait until it answers."""
        self.daemons.start("slurmctld", ["slurmctld", "-D", "-f", self.configuration], environment=self.environment)
        self.daemons.wait_ready("slurmctld", self._controller_answers)

    def kill_controller(self) -> None:
        """Kill slurmctld as a crash would; running jobs go on.

        Slurm saves its jobs up to five seconds late: it forgets a younger job unless `save_job` was called.
        """
        self.daemons.kill("slurmctld")

    def save_job(self, job: int) -> None:
        """Make the controller write its jobs to disk, this one among them, and wait until it has."""
        saved = self.directory / "state" / "job_state"
        before = time.time_ns()
        # Any change of a job makes the controller save them all.
        self.run("scontrol", "update", f"JobId={job}", f"AdminComment=saved-{before}")
        wait_for(lambda: saved.exists() and saved.stat().st_mtime_ns > before, 60, "the controller to save its jobs")

    def restart_controller(self) -> None:
        """Stop slurmctld in an orderly way and start it again; running jobs go on."""
        self.daemons.stop("slurmctld")
        self.start_controller()

    def pause_controller(self) -> None:
        """Stop slurmctld where it stands (SIGSTOP): clients wait and time out."""
        self.daemons.send("slurmctld", signal.SIGSTOP)

    def resume_controller(self) -> None:
        """Let a paused slurmctld go on."""
        self.daemons.send("slurmctld", signal.SIGCONT)

    def start_node(self, node: str) -> None:
        """Start the slurmd of one node."""
        self.daemons.start(
            f"slurmd-{node}",
            ["slurmd", "-D", "-f", self.configuration, "-N", node],
            environment=self.environment,
        )

    def kill_node(self, node: str) -> None:
        """Kill the slurmd of one node with all that runs there, as a power cut would."""
        name = f"slurmd-{node}"
        family = self._processes_of(node)
        self.daemons.kill(name, family=True)
        self.daemons.end(family)

    def start_accounting(self) -> None:
        """Start slurmdbd and wait until it listens."""
        self.daemons.start("slurmdbd", ["slurmdbd", "-D"], environment=self.environment)
        self.daemons.wait_ready("slurmdbd", lambda: listening(self.accounting_port, self.address))

    def stop_accounting(self) -> None:
        """Stop slurmdbd; the controller keeps its records until it is back."""
        self.daemons.stop("slurmdbd")

    def start_rest(self) -> str:
        """Start slurmrestd, which takes tokens only, and return its base URL."""
        port = free_port()
        self.daemons.start(
            "slurmrestd",
            [
                "slurmrestd",
                "-f",
                self.configuration,
                "-a",
                "rest_auth/jwt",
                "-s",
                f"openapi/{REST_VERSION},openapi/db{REST_VERSION}",
                f"{HOST}:{port}",
            ],
            # "daemon": the token comes with each request, not from the environment.
            environment=self.environment | {"SLURM_JWT": "daemon"},
            user=REST_ACCOUNT,
        )
        self.daemons.wait_ready("slurmrestd", lambda: listening(port))
        self.rest_port = port
        return self.rest_url

    def stop_rest(self) -> None:
        """Stop slurmrestd."""
        self.daemons.stop("slurmrestd")
        self.rest_port = None

    def token(self, username: str, lifespan_seconds: int = 3600) -> str:
        """Return a JSON web token with which slurmrestd lets its bearer act as that account."""
        shown = self.run("scontrol", "token", f"username={username}", f"lifespan={lifespan_seconds}")
        return shown.partition("=")[2]

    def _write_files(self) -> None:
        for part in ("etc", "run", "log", "state", "spool", "jwt", "dev"):
            (self.directory / part).mkdir(exist_ok=True)
            (self.directory / part).chmod(0o755)
        _write_key(self.directory / "etc" / "munge.key", 128)
        _write_key(self.directory / "jwt" / "jwt.key", 32)
        for number in range(self.gpus_per_node):
            device = self.directory / "dev" / f"nvidia{number}"
            if not device.exists():
                # Slurm sets CUDA_VISIBLE_DEVICES only for character devices: another /dev/null will do.
                os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
                device.chmod(0o666)
        etc = self.directory / "etc"
        self.configuration.write_text(slurm_config.slurm_conf(self), encoding="utf-8")
        (etc / "gres.conf").write_text(slurm_config.gres_conf(self), encoding="utf-8")
        (etc / "cgroup.conf").write_text(slurm_config.cgroup_conf(self), encoding="utf-8")
        if self.database is not None:
            secret = etc / "slurmdbd.conf"
            secret.touch(mode=0o600)
            secret.write_text(slurm_config.slurmdbd_conf(self, self.database), encoding="utf-8")
        for node in self.nodes:
            (self.directory / "spool" / node).mkdir(exist_ok=True)
            if self.enforce_memory:
                for controller in slurm_config.CGROUPS.glob("*"):
                    self.daemons.own_path(controller / f"slurm_{node}")

    def _start_munge(self) -> None:
        run = self.directory / "run"
        munge_socket = run / "munge.sock"
        self.daemons.start(
            "munged",
            [
                "munged",
                "--foreground",
                f"--key-file={self.directory / 'etc' / 'munge.key'}",
                f"--socket={munge_socket}",
                f"--pid-file={run / 'munged.pid'}",
                f"--log-file={self.directory / 'log' / 'munged.log'}",
                f"--seed-file={run / 'munged.seed'}",
                "--num-threads=2",
            ],
        )
        self.daemons.wait_ready("munged", munge_socket.exists)

    def _start_all(self) -> None:
        for node in self.nodes:
            self.start_node(node)
        self.start_controller()
        self.wait_ready()

    def _set_up_accounting(self) -> None:
        for entry in (
            ("cluster", self.name),
            ("account", slurm_config.ACCOUNT, f"cluster={self.name}", "description=lab"),
            ("qos", slurm_config.EXPRESS, "priority=100"),
        ):
            self.run("sacctmgr", "-i", "-Q", "add", *entry)

    def _controller_answers(self) -> bool:
        try:
            return "is UP" in self.run("scontrol", "ping")
        except LabError:
            return False

    def _end_jobs(self) -> None:
        """Kill what runs on the nodes: a step's processes outlive slurmd by design."""
        family = {member for node in self.nodes for member in self._processes_of(node)}
        self.daemons.end(sorted(family, key=lambda member: member.started))

    def _processes_of(self, node: str) -> list[ProcessId]:
        """Return the steps of a node and their tasks, which know the node and this cluster's configuration."""
        ours = set(with_environment("SLURM_CONF", str(self.configuration)))
        tasks = [member for member in with_environment("SLURMD_NODENAME", node) if member in ours]
        name = f"slurmd-{node}"
        steps: list[ProcessId] = []
        if self.daemons.running(name):
            own = process_id(self.daemons.pid(name))
            steps = descendants(own.pid) if own else []
        return [*steps, *tasks]

    def __enter__(self) -> Self:
        """Start the cluster."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the cluster."""
        self.stop()


def _write_key(path: Path, size_bytes: int) -> None:
    if not path.exists():
        path.touch(mode=0o600)
        path.write_bytes(secrets.token_bytes(size_bytes))
