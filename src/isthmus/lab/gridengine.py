"""A whole Grid Engine cell on one machine: qmaster and one execution host, with slots and four fake GPUs."""

from __future__ import annotations

import re
from pathlib import Path
from types import TracebackType
from typing import Self

from isthmus.lab import gridengine_config, registry
from isthmus.lab.commands import run_command
from isthmus.lab.errors import LabError
from isthmus.lab.ports import free_port, short_host_name
from isthmus.lab.processes import Daemons, wait_for

INSTALLED = Path("/var/lib/gridengine")
PROGRAMS = Path("/usr/lib/gridengine")
SHARED = Path("/usr/share/gridengine")


class GridEngineCell:
    """One Grid Engine cell in one directory, with the queue `all.q` and the parallel environment `smp`.

    Any account of the machine may submit, with `environment` set or behind `command_prefix`. Grid Engine cannot be
    bound to loopback: its two ports are open on every interface, and it refuses all hosts but this one by name.
    """

    def __init__(self, directory: Path, name: str = "cell", *, slots: int = 16, gpus: int = 4) -> None:
        """Describe the cell; nothing is made before `start`. `gpus` is a consumable named gpu, counted per job."""
        self.directory = directory.resolve()
        self.name = name
        self.slots = slots
        self.gpus = gpus
        self.host = short_host_name()
        self.master_port = free_port()
        self.execution_port = free_port()
        self._daemons: Daemons | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The variables that point Grid Engine's commands to this cell."""
        return {
            "SGE_ROOT": str(self.directory),
            "SGE_CELL": "default",
            "SGE_QMASTER_PORT": str(self.master_port),
            "SGE_EXECD_PORT": str(self.execution_port),
            "SGE_CLUSTER_NAME": self.name,
        }

    @property
    def command_prefix(self) -> list[str]:
        """The words to put before a command where variables cannot be set, as over SSH."""
        return ["env", *(f"{name}={value}" for name, value in self.environment.items())]

    @property
    def daemons(self) -> Daemons:
        """The cell's daemons; raises LabError before `start`."""
        if self._daemons is None:
            raise LabError(f"the cell {self.name} was not started", "Call start()")
        return self._daemons

    def start(self) -> Self:
        """Make the cell, start it and wait until its queue takes jobs; on failure what was started is stopped."""
        registry.check_reachable(self.directory)
        self._daemons = Daemons(self.directory)
        try:
            self._write_files()
            self.start_master()
            self._configure()
            self.start_execution()
            wait_for(self.ready, 90, f"the queue of {self.name}", interval_seconds=0.2)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop the daemons with the jobs that run; logs stay."""
        if self._daemons is not None:
            # Killed: an orderly end takes up to 15 seconds and saves nothing that is needed again.
            for name in ("sge_execd", "sge_qmaster"):
                self._daemons.kill(name, family=True)
            self._daemons.close()
            self._daemons = None

    def start_master(self) -> None:
        """Start sge_qmaster and wait until it answers."""
        self._start("sge_qmaster")
        self.daemons.wait_ready("sge_qmaster", self._master_answers)

    def kill_master(self) -> None:
        """Kill sge_qmaster as a crash would; running jobs go on."""
        self.daemons.kill("sge_qmaster")

    def restart_master(self) -> None:
        """Kill sge_qmaster and start it again; running jobs go on."""
        self.kill_master()
        self.start_master()

    def start_execution(self) -> None:
        """Start sge_execd."""
        self._start("sge_execd")

    def kill_execution(self) -> None:
        """Kill sge_execd with all that runs under it, as a power cut would."""
        self.daemons.kill("sge_execd", family=True)

    def ready(self) -> bool:
        """Tell whether the queue has its slots and no alarm or unknown state."""
        try:
            shown = self.run("qstat", "-f", "-q", "all.q")
        except LabError:
            return False
        # queuename qtype resv/used/tot. load_avg arch states: a sixth word would be a state such as "au".
        lines = [line.split() for line in shown.splitlines() if line.startswith("all.q@")]
        return bool(lines) and all(len(words) == 5 and "-NA-" not in words for words in lines)

    def run(
        self, *argv: str, user: str | None = None, input_text: str | None = None, directory: Path | None = None
    ) -> str:
        """Run a command of Grid Engine, as an account if one is given, and return what it prints, stripped.

        Raises LabError with the command's own message when it fails.
        """
        return run_command(*argv, environment=self.environment, user=user, input_text=input_text, directory=directory)

    def submit(self, script: str, *options: str, user: str) -> int:
        """Submit a script with qsub as an account and return the job's number."""
        shown = self.run("qsub", "-terse", "-S", "/bin/sh", *options, user=user, input_text=script)
        return int(shown.split(".")[0])

    def accounting(self, job: int) -> dict[str, str]:
        """Return what qacct knows of an ended job; empty while it knows nothing."""
        try:
            shown = self.run("qacct", "-j", str(job))
        except LabError:
            return {}
        words = (line.split(maxsplit=1) for line in shown.splitlines() if not line.startswith("="))
        return {pair[0]: pair[1].strip() for pair in words if len(pair) == 2}

    def _start(self, name: str) -> None:
        # SGE_ND: do not detach. The daemons are children of the lab and known by their pids.
        self.daemons.start(name, [name], environment=self.environment | {"SGE_ND": "1"})

    def _master_answers(self) -> bool:
        try:
            self.run("qconf", "-sh")
        except LabError:
            return False
        return True

    def _write_files(self) -> None:
        top = self.directory
        common = top / "default" / "common"
        for part in (common, top / "spool" / "qmaster" / "job_scripts", top / "spool" / "execd", top / "tmp"):
            part.mkdir(parents=True, exist_ok=True)
        for name in ("bin", "lib", "utilbin"):
            (top / name).symlink_to(INSTALLED / name)
        (top / "util").symlink_to(SHARED / "util")
        (common / "bootstrap").write_text(gridengine_config.bootstrap(self), encoding="ascii")
        (common / "act_qmaster").write_text(f"{self.host}\n", encoding="ascii")
        # 127.0.0.1 resolves back to localhost: the two are one host.
        (common / "host_aliases").write_text(f"{self.host} localhost\n", encoding="ascii")
        installed = (SHARED / "default-configuration").read_text(encoding="ascii")
        configuration = top / "configuration"
        configuration.write_text(gridengine_config.cell(self, installed), encoding="ascii")
        spooling = f"{common};{top / 'spool' / 'qmaster'}"
        self.run(str(PROGRAMS / "spoolinit"), "classic", "libspoolc", spooling, "init")
        defaults = str(PROGRAMS / "spooldefaults")
        self.run(defaults, "configuration", str(configuration))
        self.run(defaults, "complexes", str(SHARED / "util" / "resources" / "centry"))
        self.run(defaults, "usersets", str(SHARED / "util" / "resources" / "usersets"))
        self.run(defaults, "managers", "root")

    def _configure(self) -> None:
        self.run("qconf", "-as", self.host)
        scheduler = self.run("qconf", "-ssconf")
        for name, value in (
            ("schedule_interval", "0:0:1"),
            ("flush_submit_sec", "1"),
            ("flush_finish_sec", "1"),
        ):
            scheduler = re.sub(rf"^{name}\s.*$", f"{name} {value}", scheduler, flags=re.MULTILINE)
        self._set("-Msconf", scheduler)
        # "YES JOB": counted once for each job; plain YES would count it for every slot.
        self._set("-Mc", self.run("qconf", "-sc") + "\ngpu gpu INT <= YES JOB 0 0")
        self._set("-Ae", gridengine_config.execution_host(self))
        self._set("-Ahgrp", f"group_name @allhosts\nhostlist {self.host}")
        self._set("-Ap", gridengine_config.parallel_environment("smp"))
        self._set("-Aq", gridengine_config.queue(self, "all.q", "smp"))

    def _set(self, option: str, content: str) -> None:
        path = self.directory / "tmp" / option.strip("-")
        path.write_text(content + "\n", encoding="ascii")
        self.run("qconf", option, str(path))

    def __enter__(self) -> Self:
        """Start the cell."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the cell."""
        self.stop()
