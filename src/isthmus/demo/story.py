"""The story of the demonstration from start to end: start, join, submit, watch, check, account, remove."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from isthmus.client import operations
from isthmus.client.records import Attempt, Output, Task
from isthmus.client.sync import Client
from isthmus.demo import ledger, receipts, work
from isthmus.demo.centres import HOME, REGIONS, STORE, USER, Centres
from isthmus.demo.checks import Checks, DemoError
from isthmus.demo.plane import Person, Plane
from isthmus.demo.readings import Readings
from isthmus.demo.screen import Board, Screen
from isthmus.domain.errors import IsthmusError
from isthmus.domain.placement import Receipt
from isthmus.lab import registry
from isthmus.lab.accounts import exists
from isthmus.lab.namespaces import exists as namespace_exists
from isthmus.lab.namespaces import processes_in
from isthmus.lab.network.places import namespace_of
from isthmus.lab.proc import with_environment
from isthmus.lab.processes import TAG, Daemons, remove_stale

PROJECT = "demo"
TASK_SECONDS = 240
SITE_SECONDS = 60
LEAVE_SECONDS = 60


def run(*, keep: bool) -> int:
    """Tell the whole story; 0 only if every check held. With `keep` everything stays until Ctrl-C or SIGTERM."""
    screen = Screen()
    checks = Checks()
    begun = time.monotonic()
    with _terminable():
        try:
            _Story(screen, checks).tell(keep)
        except KeyboardInterrupt:
            checks.broken.append("It was interrupted")
        except IsthmusError as error:
            checks.broken.append(f"It could not go on: {error}")
    screen.heading(f"{len(checks.held)} checks held, {len(checks.broken)} did not; {time.monotonic() - begun:.0f} s")
    for sentence in checks.broken:
        screen.say(f"  ✗ {sentence}", "red")
    return 1 if checks.broken else 0


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Turn the first SIGTERM into a KeyboardInterrupt, so that everything is removed; more of either change nothing."""

    def interrupt(_number: int, _frame: object) -> None:
        for other in (signal.SIGTERM, signal.SIGINT):
            signal.signal(other, signal.SIG_IGN)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Story:
    """What the parts of the story share."""

    def __init__(self, screen: Screen, checks: Checks) -> None:
        self.screen = screen
        self.checks = checks

    def tell(self, keep: bool) -> None:
        """Everything, with the removal at the end whatever happens."""
        work.table_of_measurements()
        if removed := remove_stale():
            self.screen.say(f"Removed what an earlier run left: {len(removed)} directories with their processes.")
        self.directory = registry.new_directory("isthmus-demo-")
        self.screen.shorten(str(self.directory), "DEMO")
        daemons = Daemons(self.directory / "plane")
        self.accounts: list[str] = []
        self.centres = Centres(self.directory, daemons)
        self.plane = Plane(daemons, daemons.directory / "state", self.screen)
        try:
            self._start(daemons.directory)
            self._work()
            if keep:
                self._wait_for_the_end()
            self._leave()
        finally:
            with _undisturbed():
                daemons.close()
                self.centres.stop()
                shutil.rmtree(self.directory, ignore_errors=True)
        self._nothing_is_left()

    def _start(self, place: Path) -> None:
        self.screen.heading("Centres on this machine")
        self.screen.exact(f"$ export DEMO={self.directory}")
        begun = time.monotonic()
        self.centres.start(self.screen)
        if not self.centres.python():
            raise DemoError("An ordinary account finds no python3 here.", remedy="Install the package python3.")
        for centre in self.centres.all:
            self.screen.say(f"  {centre.name}: {centre.what}")
        if links := self.centres.network():
            self.screen.say("  between them an emulated network with two paths, one thin and fast, one fat and slow:")
            for line in links:
                self.screen.say(f"    {line}")
        self.accounts = self.centres.accounts
        self.screen.say(
            f"  up after {time.monotonic() - begun:.0f} s; the local accounts for work are {', '.join(self.accounts)}"
        )
        self.screen.heading("The control plane: SQLite and a state directory of its own")
        self.plane.start(self.centres.place(), address=self.centres.address, region=REGIONS[HOME])
        self.desk = place / "desk"
        self.desk.mkdir(mode=0o700)
        work.write(self.desk)
        self.operator = Person(
            "admin", {"ISTHMUS_STATE": str(self.plane.state), **self.plane.trusted}, self.desk, self.screen
        )
        self.screen.heading("An operator joins the centres and maps a user to a local account")
        trusted = [f"{name}={value}" for name, value in self.plane.trusted.items()]
        self.screen.say(f"$ export {' '.join([f'ISTHMUS_STATE={self.plane.state}', *trusted])}", "cyan")
        self.operator.type("user", "add", USER)
        self.operator.type("project", "add", PROJECT)
        self.operator.type("project", "member", "add", PROJECT, USER)
        self.centres.join(self.operator, self.plane, self.screen)
        self._person()
        self._sites_answer()

    def _person(self) -> None:
        """The user's own token, in a file that is theirs alone."""
        token = self.desk / "token"
        self.screen.say(f"$ isthmus token create --user {USER} > {token}; chmod 600 {token}", "cyan")
        secret = self.operator.type("token", "create", "--user", USER, show=False).strip()
        token.touch(mode=0o600)
        token.write_text(secret, encoding="ascii")
        self.variables = {"ISTHMUS_URL": self.plane.url, "ISTHMUS_TOKEN_FILE": str(token), "ISTHMUS_PROJECT": PROJECT}
        self.variables |= self.plane.trusted
        self.person = Person(USER, self.variables, self.desk, self.screen)
        self.client = self.plane.client(secret, PROJECT)

    def _sites_answer(self) -> None:
        names = {centre.name for centre in self.centres.all}
        deadline = time.monotonic() + SITE_SECONDS
        while True:
            found = {site.name: site for site in self.client.sites()}
            keeping = {centre.name for centre in self.centres.all if centre.cluster}
            ready = {name for name, site in found.items() if site.reachable and site.pools}
            ready -= {name for name in keeping if not found[name].data.get("address")}
            if names <= ready or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        self.operator.type("site", "ls")
        missing = ", ".join(f"{name} ({found[name].error})" for name in sorted(names - ready))
        self.checks.expect(names <= ready, f"All {len(names)} sites answer", missing)
        if missing:
            raise DemoError(f"These sites do not answer: {missing}.", remedy="Read the log of the service.")

    def _work(self) -> None:
        stored = self.centres.store(self.desk / "large" / work.STORED)
        names = [centre.name for centre in self.centres.all]
        self.layout = work.Layout(
            home=HOME,
            store=STORE if STORE in names else HOME,
            stored_path=stored,
            batch=tuple(centre.name for centre in self.centres.all if centre.cluster),
            certificate=str(self.plane.certificate or ""),
            reader="south" if self.centres.wan else HOME,
        )
        self.readings = Readings(
            screen=self.screen,
            client=self.client,
            person=self.person,
            operator=self.operator,
            centres=self.centres,
            desk=self.desk,
        )
        self.readings.prepare(PROJECT)
        self.screen.heading(f"{USER} hands in real work")
        self.screen.say(f"$ export {' '.join(f'{name}={value}' for name, value in self.variables.items())}", "cyan")
        (self.desk / "sweep.yaml").write_text(work.sweep_file(self.layout, self.plane.url), encoding="utf-8")
        (self.desk / "other.yaml").write_text(work.other_file(self.layout), encoding="utf-8")
        self.screen.say("$ isthmus token create --scope tasks:read | isthmus secret set reader", "cyan")
        reader = self.person.type("token", "create", "--scope", "tasks:read", show=False)
        self.person.type("secret", "set", "reader", stdin=reader, show=False)
        self.screen.say(f"  {len(work.SWEEP)} tasks and their summary, on 569 real measurements, in one submission:")
        self.person.type("submit", "sweep.yaml", quiet=True)
        megabytes = len(work.PARTS) * work.PART_BYTES // 1000**2
        self.screen.say(
            f"  {megabytes} MB in three files, one of which is at {self.layout.store} already; and smaller ones:"
        )
        self.person.type("submit", "other.yaml", quiet=True)
        if not self.layout.batch:
            self.screen.say(
                "  left out without a batch system: a job on two nodes, a job with GPUs, the comparison with sacct",
                "yellow",
            )
        tasks = self._watch()
        self.truth = work.true_sweep(self.desk)
        self._compare(tasks)

    def _watch(self) -> dict[str, list[Task]]:
        """Follow all tasks to their ends; by name, arrays in order."""
        deadline = time.monotonic() + TASK_SECONDS
        with Board(self.screen) as board:
            while True:
                tasks = list(self.client.tasks(limit=None, project=PROJECT))
                board.show(tasks)
                if all(task.ended for task in tasks):
                    break
                if time.monotonic() > deadline:
                    late = ", ".join(sorted({f"{task.name} ({task.state})" for task in tasks if not task.ended}))
                    raise DemoError(f"Not done after {TASK_SECONDS} s: {late}.", remedy="Is the machine overloaded?")
                time.sleep(0.4)
        named: dict[str, list[Task]] = {}
        for task in sorted(tasks, key=lambda one: one.array_index or 0):
            named.setdefault(task.name, []).append(task)
        failed = [f"{task.name} {task.state}: {task.message or task.reason}" for task in tasks if not task.succeeded]
        self.checks.expect(not failed, f"All {len(tasks)} tasks succeeded", "; ".join(failed[:5]))
        if failed:
            raise DemoError("Some tasks did not succeed.", remedy="See the lines above.")
        return named

    def _compare(self, tasks: dict[str, list[Task]]) -> None:
        reader = _Reader(self.client)
        self.screen.heading("Where each task ran, and why")
        single = [task for name, group in tasks.items() if name != "sweep" for task in group]
        for task in single:
            for receipt in reader.receipts(task):
                self.screen.say(f"  {task.name}: {receipts.sentence(receipt)}")
        sweep = tasks["sweep"]
        rows = [
            (index, k, metric, f"{task.site}/{task.pool}", task.native_id, receipts.lost(reader.last(task)))
            for (index, (k, metric)), task in zip(enumerate(work.SWEEP), sweep, strict=True)
        ]
        self.screen.table(["SWEEP", "K", "METRIC", "RAN AT", "NATIVE", "THERE BECAUSE"], rows, right=(0, 1))
        self.screen.heading("Results against what this process computed itself")
        outputs = [reader.output(task) for task in sweep]
        right = sum(found.sha256 == work.sha256(true) for found, true in zip(outputs, self.truth, strict=True))
        self.checks.expect(right == len(sweep), f"{right} of {len(sweep)} sweep results have the right hash")
        summary = work.true_best(self.truth)
        self._same(reader, tasks["best"][0], summary, f"The summary of the array is right: {work.describe(summary)}")
        digest = work.true_digest(self.desk)
        self._same(reader, tasks["large"][0], digest, "The hash and the sum over 120 MB are right")
        self._same(reader, tasks["readings"][0], work.true_readings(self.desk), "The hash over the dataset is right")
        self._stumbled(reader, tasks["stumbles"][0])
        if self.layout.batch:
            self._two_nodes(tasks["two-nodes"][0])
            self._same(reader, tasks["gpus"][0], "0,1\n", "Two GPUs were set apart (CUDA_VISIBLE_DEVICES=0,1)")
        used = Counter(one.site for group in tasks.values() for task in group for one in reader.attempts(task))
        wanted = {centre.name for centre in self.centres.all}
        self._tell(set(used) == wanted, f"All {len(wanted)} sites did work: {dict(sorted(used.items()))}")
        for condition, sentence, otherwise in self.readings.checks(PROJECT, tasks["readings"][0]):
            self._tell(condition, sentence, otherwise)
        self._usage(sum(used.values()))

    def _tell(self, condition: object, sentence: str, otherwise: object = "") -> None:
        good = self.checks.expect(condition, sentence, otherwise)
        self.screen.say(f"  {'✓' if good else '✗'} {sentence}", "green" if good else "red")

    def _same(self, reader: _Reader, task: Task, true: str, sentence: str) -> None:
        found = reader.output(task)
        self._tell(found.sha256 == work.sha256(true), sentence, f"{task.name} left {found.sha256[:12]}")

    def _stumbled(self, reader: _Reader, task: Task) -> None:
        tries = reader.attempts(task)
        sites = [one.site for one in tries]
        apart = not self.layout.batch or len(set(sites)) == 2
        good = [one.exit_code for one in tries] == [3, 0] and apart
        self._tell(good, f"The task that fails on purpose failed at {sites[0]} and went well at {sites[-1]}", tries)
        self._same(reader, task, f"well at {sites[-1]}\n", "and left the result of the good try")

    def _two_nodes(self, task: Task) -> None:
        directory = self.desk / "fetched"
        (file,) = self.client.handle(task.id).fetch(directory)
        nodes = file.read_text(encoding="utf-8").split()
        (centre,) = [one for one in self.centres.all if one.name == task.site]
        known = centre.cluster.nodes if centre.cluster else []
        good = len(set(nodes)) == 2 and set(nodes) <= set(known)
        self._tell(good, f"One job ran on two nodes of {task.site}: {', '.join(nodes)}")

    def _usage(self, attempts: int) -> None:
        self.screen.heading("Usage, and what the clusters' own accounting says")
        deadline = time.monotonic() + SITE_SECONDS
        while len(records := list(self.client.usage(project=PROJECT))) < attempts and time.monotonic() < deadline:
            time.sleep(0.5)
        self.checks.expect(len(records) == attempts, f"Each of {attempts} attempts has one usage record", len(records))
        clusters = {centre.name: centre.cluster for centre in self.centres.all if centre.cluster}
        lines = ledger.compare(records, clusters)
        rows = [
            (
                line.record.site,
                line.record.native_id,
                line.account,
                line.record.elapsed_seconds,
                line.elapsed_seconds,
                line.record.allocated_cpu_seconds,
                line.allocated_cpu_seconds,
                "=" if line.equal else "≠",
            )
            for line in sorted(lines, key=lambda one: (one.record.site, int(one.record.native_id or 0)))
        ]
        if rows:
            headers = ["SITE", "JOB", "ACCOUNT", "ELAPSED S", "SACCT", "CPU S", "SACCT", ""]
            self.screen.table(headers, rows, right=(1, 3, 4, 5, 6))
            equal = sum(line.equal for line in lines)
            self._tell(equal == len(lines), f"{equal} of {len(lines)} records are equal to sacct")
            accounts = {(line.record.site, line.account) for line in lines}
            wanted = {(centre.name, centre.account) for centre in self.centres.all if centre.cluster}
            self._tell(
                accounts == wanted, f"Every job at Slurm ran as {', '.join(name for _, name in sorted(accounts))}"
            )
        self.operator.type("usage", "--by", "site", "--project", PROJECT)

    def _wait_for_the_end(self) -> None:
        self.screen.heading("Left running (--keep). Ctrl-C, or SIGTERM to this process, removes everything")
        self.screen.exact(f"export DEMO={self.directory}")
        for name, value in self.variables.items():
            self.screen.say(f"export {name}={value}")
        for text in (
            "isthmus ls",
            "isthmus why $(isthmus ls --json | python3 -c 'import json,sys; print(json.load(sys.stdin)[0][\"id\"])')",
            "isthmus run --cpus 2 -- sh -c 'echo hello from $ISTHMUS_SITE'",
            "isthmus run --nodes 2 -- srun hostname",
            f"isthmus submit {self.desk}/sweep.yaml",
        ):
            self.screen.say(f"$ {text}", "cyan")
        self.screen.say("As the operator:")
        for text in ("isthmus site show north", "isthmus site load north", "isthmus events"):
            self.screen.say(f"$ ISTHMUS_STATE={self.plane.state} {text}", "cyan")
        if self.centres.wan is not None:
            self.screen.say("The network, and the SSH host in it:")
            self.screen.say(f"$ isthmus lab show --network {self.centres.wan.topology.name}", "cyan")
            self.screen.say(f"$ {self.centres.ssh_command()}", "cyan")
        with contextlib.suppress(KeyboardInterrupt):
            self.screen.say(f"process {os.getpid()} waits")
            threading.Event().wait()

    def _leave(self) -> None:
        self.screen.heading("The operator takes the sites out; everything is removed")
        for centre in self.centres.all:
            self.operator.type("site", "leave", centre.name, "--yes")
        deadline = time.monotonic() + LEAVE_SECONDS
        while True:
            states = {site.name: site.state for site in self.client.sites()}
            if set(states.values()) <= {"left"} or time.monotonic() > deadline:
                break
            time.sleep(0.3)
        self.checks.expect(set(states.values()) <= {"left"}, "All sites left in peace", states)
        self.client.close()
        self.plane.stop()
        self.operator.type("check", "--content", check=False)
        said = self.operator.type("check", "--json", show=False, check=False).strip()
        self.checks.expect(said == "[]", "Every invariant of the store holds", said)

    def _nothing_is_left(self) -> None:
        running = with_environment(TAG, str(self.directory / "plane"))
        directories = [self.directory]
        if self.centres.wan is not None:
            name = self.centres.wan.topology.name
            spaces = [namespace_of(self.centres.wan.topology, node) for node in self.centres.wan.topology.nodes]
            running += [member for space in spaces for member in processes_in(space)]
            directories.append(self.centres.wan.directory)
            left = [space for space in spaces if namespace_exists(space)]
            self._tell(not left, f"No network is left of {name}", left)
            accounts = [account for account in self.accounts if exists(account)]
            self._tell(not accounts, "No account is left", accounts)
        self._tell(not running, "No process is left", running)
        remaining = [str(directory) for directory in directories if directory.exists()]
        self._tell(not remaining, "No directory is left", remaining)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Let nothing interrupt the removal."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Reader:
    """Reads what belongs to a task."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def receipts(self, task: Task) -> list[Receipt]:
        """The decisions that sent it somewhere, oldest first."""
        found = self._client.run(operations.receipts(task.id))
        return sorted((one for one in found if one.chosen_site), key=lambda one: one.decided_at)

    def last(self, task: Task) -> Receipt:
        """The last of them."""
        return self.receipts(task)[-1]

    def attempts(self, task: Task) -> list[Attempt]:
        """Its tries."""
        return self._client.run(operations.attempts(task.id))

    def output(self, task: Task) -> Output:
        """Its only output."""
        found = self._client.run(operations.outputs(task.id))
        if len(found) != 1:
            raise DemoError(f"{task.name} left {len(found)} files and not one.", remedy="See its log.")
        return found[0]
