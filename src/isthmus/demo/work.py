"""The work that the demonstration hands in, on real input, and the truth that its results are compared with."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from isthmus.demo import programs
from isthmus.demo.checks import DemoError
from isthmus.demo.programs import best, digest, neighbours

DATA = "breast_cancer.csv"
NEIGHBOURS = (1, 3, 5, 7, 9, 15, 21, 31)
SWEEP = [(k, metric) for metric in neighbours.METRICS for k in NEIGHBOURS]
PART_BYTES = 40 * 1000**2
PARTS = ("part-1.bin", "part-2.bin", "part-3.bin")
READINGS = ("morning.bin", "evening.bin")
READING_BYTES = 32 * 1000**2
STORED = PARTS[-1]
"""The part that lies at a site already; the others are sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Which site does what; without batch systems some tasks are left out."""

    home: str
    """Where the summary runs: a site that reaches the service."""
    store: str
    """The site that holds one of the large files."""
    stored_path: str
    """Where it lies there."""
    batch: tuple[str, ...] = ()
    """The Slurm sites."""
    certificate: str = ""
    """The file by which the service's certificate is trusted."""
    reader: str = ""
    """Where the dataset is read."""

    @property
    def retry_sites(self) -> tuple[str, ...]:
        """Where the task that fails on purpose may go."""
        return self.batch or (self.home,)


def table_of_measurements() -> Path:
    """The Breast Cancer Wisconsin (Diagnostic) data that comes with scikit-learn; the package itself is not imported."""
    found = importlib.util.find_spec("sklearn")
    for place in (found.submodule_search_locations or ()) if found else ():
        path = Path(place) / "datasets" / "data" / DATA
        if path.is_file():
            return path
    raise DemoError(
        "scikit-learn is not installed, and its data are the demonstration's input.",
        remedy="Run `make demo`, or `pip install scikit-learn`.",
        code="demo",
    )


def write(directory: Path) -> None:
    """Make the person's directory: `sweep/` with the data, `large/` with the large files, `readings/` and `scans/` for
    datasets, and the programs."""
    here = Path(programs.__file__).parent
    for name, files in (
        ("sweep", ("neighbours.py",)),
        ("best", ("best.py",)),
        ("large", ("digest.py",)),
    ):
        (directory / name).mkdir()
        for file in files:
            shutil.copyfile(here / file, directory / name / file)
    shutil.copyfile(table_of_measurements(), directory / "sweep" / DATA)
    for number, name in enumerate(PARTS):
        # The same bytes on every machine: an extendable hash of a number.
        content = hashlib.shake_256(f"isthmus {number}".encode()).digest(PART_BYTES)
        (directory / "large" / name).write_bytes(content)
    for part in ("readings", "scans"):
        (directory / part).mkdir()
    for name in READINGS:
        content = hashlib.shake_256(f"isthmus {name}".encode()).digest(READING_BYTES)
        (directory / "readings" / name).write_bytes(content)
    (directory / "scans" / "scan.bin").write_bytes(hashlib.shake_256(b"isthmus scan").digest(10**6))


def sweep_file(layout: Layout, url: str) -> str:
    """The task file of the sweep and its summary: one submission, all or none."""
    ks, metrics = zip(*SWEEP, strict=True)
    return _yaml(
        {
            "defaults": {"time": "5m", "memory": "256M"},
            "tasks": [
                {
                    "name": "sweep",
                    "command": f'python3 neighbours.py {DATA} "$K" "$METRIC" > result.json',
                    "workdir": "sweep",
                    "outputs": ["result.json"],
                    "cpus": 2 if layout.batch else 1,
                    "array": {"size": len(SWEEP), "values": {"K": [str(k) for k in ks], "METRIC": list(metrics)}},
                },
                {
                    "name": "best",
                    "after": ["sweep"],
                    "command": "python3 best.py > best.json",
                    "workdir": "best",
                    "outputs": ["best.json"],
                    "sites": [layout.home],
                    "env": {
                        "ISTHMUS_URL": url,
                        "ISTHMUS_PROJECT": "demo",
                        "NAME": "sweep",
                        **({"SSL_CERT_FILE": layout.certificate} if layout.certificate else {}),
                    },
                    "secrets": {"ISTHMUS_TOKEN": "reader"},
                },
            ],
        }
    )


def other_file(layout: Layout) -> str:
    """The task file of everything else."""
    sent = {name: f"large/{name}" for name in PARTS if name != STORED}
    tasks: list[dict[str, Any]] = [
        {
            "name": "large",
            "command": f"python3 digest.py {' '.join(PARTS)} > digest.json",
            "inputs": [
                {"file": "large/digest.py", "path": "digest.py"},
                *({"file": source, "path": name} for name, source in sent.items()),
                {"path": STORED, "site_path": f"{layout.store}:{layout.stored_path}"},
            ],
            "outputs": ["digest.json"],
        },
        {
            "name": "readings",
            "command": f"python3 digest.py {' '.join(f'in/{name}' for name in READINGS)} > digest.json",
            "inputs": [{"file": "large/digest.py", "path": "digest.py"}, "data:demo/readings=in"],
            "outputs": ["digest.json=data:demo/digests"],
            "sites": [layout.reader or layout.home],
        },
        {
            "name": "stumbles",
            "command": (
                'if [ "$ISTHMUS_FENCE" = 1 ]; then echo "fails on purpose at $ISTHMUS_SITE" >&2; exit 3; fi; '
                'echo "well at $ISTHMUS_SITE" > well.txt'
            ),
            "outputs": ["well.txt"],
            "sites": list(layout.retry_sites),
            "goal": "cheapest",
            "retry_on_exit": True,
        },
    ]
    if layout.batch:
        tasks += [
            {
                "name": "two-nodes",
                "command": "srun sh -c 'echo $SLURMD_NODENAME' | sort > nodes.txt",
                "outputs": ["nodes.txt"],
                "sites": list(layout.batch),
                "nodes": 2,
            },
            {
                "name": "gpus",
                "command": 'echo "$CUDA_VISIBLE_DEVICES" > devices.txt',
                "outputs": ["devices.txt"],
                "gpus": "a100:2",
            },
        ]
    return _yaml({"defaults": {"time": "5m", "memory": "256M"}, "tasks": tasks})


def true_sweep(directory: Path) -> list[str]:
    """The result files of the sweep, computed here."""
    return [neighbours.result(directory / "sweep" / DATA, k, metric) for k, metric in SWEEP]


def true_best(results: Sequence[str]) -> str:
    """The summary, computed here."""
    return best.choose(list(results))


def true_digest(directory: Path) -> str:
    """The result file of the large task, computed here."""
    return digest.result([directory / "large" / name for name in PARTS])


def true_readings(directory: Path) -> str:
    """The result file of the task that reads the dataset, computed here."""
    return digest.result([directory / "readings" / name for name in READINGS])


def sha256(text: str) -> str:
    """The hash of a result file."""
    return hashlib.sha256(text.encode()).hexdigest()


def describe(text: str) -> str:
    """A summary in words."""
    found = json.loads(text)["best"]
    return (
        f"{found['k']} neighbours, {found['metric']}: {found['right']} of {found['rows']} right ({found['accuracy']})"
    )


def _yaml(document: dict[str, Any]) -> str:
    return yaml.safe_dump(document, sort_keys=False, width=120)
