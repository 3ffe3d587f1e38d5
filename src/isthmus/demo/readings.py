"""The part of the story about datasets: put at one centre, read by a task at another, led over a path that was chosen."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from isthmus.client import datasets, operations
from isthmus.client.records import Task
from isthmus.client.sync import Client
from isthmus.demo import agents, work
from isthmus.demo.centres import Centres
from isthmus.demo.checks import DemoError
from isthmus.demo.plane import Person
from isthmus.demo.receipts import way
from isthmus.demo.screen import Screen
from isthmus.domain.dataset import HOME, DatasetRef
from isthmus.domain.errors import Refused
from isthmus.domain.placement import Why

THIN, FAT = "coast", "ridge"
"""The routers in the middle of the two paths."""


@dataclass(slots=True, kw_only=True)
class Readings:
    """The dataset of the demonstration, the task that reads it, and one that may not leave its region."""

    screen: Screen
    client: Client
    person: Person
    operator: Person
    centres: Centres
    desk: Path
    carried_before: int = 0

    @property
    def moves(self) -> bool:
        """Whether there are centres between which it can move."""
        return self.centres.wan is not None

    def prepare(self, project: str) -> None:
        """Declare the network, and put the datasets where they belong."""
        megabytes = len(work.READINGS) * work.READING_BYTES // 1000**2
        self.screen.heading(f"{megabytes} MB of readings become a dataset" + (" at north" if self.moves else ""))
        if self.moves:
            assert self.centres.wan is not None
            file = self.desk / "network.yaml"
            file.write_text(json.dumps(agents.network(self.centres.wan.topology.name)), encoding="utf-8")
            self.operator.type("net", "load", file.name, "--yes", quiet=True)
        source = f"north:{self.centres.lay('north', self.desk / 'readings')}" if self.moves else "readings"
        self.person.type("data", "put", source, f"{project}/readings")
        if self.moves:
            self.screen.say("  the files stay where they are: north's agent hashed them there, nothing was copied")
            self.person.type("net", "paths", "north", "south", "--size", f"{megabytes}M")
            self.person.type("data", "put", "scans", f"{project}/scans", "--stay-in", "west", "--to", "north")
            self.carried_before = self.centres.carried(FAT)

    def checks(self, project: str, task: Task) -> list[tuple[object, str, object]]:
        """Condition, sentence and what is so instead, for each thing that should hold once the task has ended."""
        self.screen.heading("The dataset that a task read, where it went, and what the task made of it")
        made = self._dataset(project, "digests")
        self.person.type("data", "show", f"{project}/digests")
        origin = (made.made_by, made.made_from) == (task.id, [f"{project}/readings@1"])
        found: list[tuple[object, str, object]] = [
            (origin, "The result is a dataset that names its task and what it was made from", made.made_from)
        ]
        if not self.moves:
            return found
        self.person.type("data", "show", f"{project}/readings")
        copies = {copy.site: copy for copy in self._dataset(project, "readings").replicas if copy.state == "whole"}
        used = copies.get("south")
        found.append(
            (
                {"north", "south"} <= copies.keys() and used is not None and used.cached and used.uses == 1,
                "The copy at south came for the task and was used once",
                sorted(copies),
            )
        )
        return [*found, *self._path(project, task), self._bound(project)]

    def _path(self, project: str, task: Task) -> list[tuple[object, str, object]]:
        receipts = [one for one in self.client.run(operations.receipts(task.id)) if one.chosen_site]
        moved = [
            one
            for candidate in receipts[-1].candidates
            if candidate.why is Why.CHOSEN
            for one in candidate.transfers
            if one.source != HOME
        ]
        for one in moved:
            self.screen.say(f"  planned: {way(one, receipts[-1].decided_at)}")
        page = self.client.run(datasets.transfers(project=project, dataset="readings"))
        transfer = next((one for one in page.items if one.target == "south"), None)
        if transfer is None or transfer.started_at is None or transfer.ended_at is None:
            raise DemoError("No transfer brought the readings to south.", remedy="See `isthmus data transfers`.")
        seconds = (transfer.ended_at - transfer.started_at).total_seconds()
        rate = transfer.size_bytes / max(seconds, 1e-3) / 1e6
        self.screen.say(
            f"  in fact: {transfer.size_bytes / 1e6:.0f} MB from {transfer.source} to {transfer.target}, {transfer.through}, "
            f"in {seconds:.1f} s ({rate:.0f} MB/s)"
        )
        carried = self.centres.carried(FAT) - self.carried_before
        planned = bool(moved) and any(FAT in link for link in moved[0].links) and moved[0].ends > moved[0].begins
        return [
            (planned, f"The receipt names the fat path, by {FAT}, and its window", moved),
            (
                (transfer.source, transfer.through, transfer.state) == ("north", "direct", "done"),
                "It went directly from north to south, encrypted with certificates of the service's own authority",
                transfer,
            ),
            (
                carried >= transfer.size_bytes,
                f"Its packets went by {FAT}, which carried {carried / 1e6:.0f} MB, although packets by themselves go by {THIN}",
                carried,
            ),
        ]

    def _bound(self, project: str) -> tuple[object, str, object]:
        """What is bound to west does not go to south, which is in the east."""
        self.person.type("data", "cp", f"{project}/scans", "south", check=False)
        said: object = "it went"
        try:
            self.client.run(datasets.copy(DatasetRef(project=project, name="scans"), "south"))
        except Refused as error:
            said = error.code
        places = self._dataset(project, "scans").replicas
        stayed = said == "data_may_not_leave" and {copy.site for copy in places} <= {"north", HOME}
        return stayed, "What may not leave west was refused at south, which is in the east", said

    def _dataset(self, project: str, name: str) -> datasets.Dataset:
        return self.client.run(datasets.dataset(DatasetRef(project=project, name=name)))
