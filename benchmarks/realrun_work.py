"""The tasks of `benchmarks.realrun`: drawn from a seed, the same for every policy, with contents of each policy's own."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

BURST = 0.5  # of the tasks are handed in at once, the others one by one over `OVER_SECONDS`
OVER_SECONDS = 60.0
SPREAD = 0.25  # of the log of a task's seconds around its kind's
KEPT_AT = ("north", "south")  # the sites whose files become datasets where they lie
SETS = 8  # of each policy, in turn at these sites


class Kind(NamedTuple):
    """Tasks of one program: processors, median seconds; what of files it takes in, and bytes that it leaves."""

    program: str
    cpus: int
    seconds: float
    uploads: bool
    reads: bool
    leaves: int


KINDS = (
    Kind("probe", 1, 1.5, True, False, 100),
    Kind("align", 1, 6.0, False, True, 100_000),
    Kind("render", 2, 4.0, True, False, 1_000_000),
    Kind("fold", 2, 15.0, False, True, 100),
    Kind("merge", 4, 8.0, True, True, 100_000),
    Kind("solve", 8, 5.0, False, False, 100),
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """One task: when it comes, seconds it sleeps, bytes of its upload (0: none), its dataset by number (None: none)."""

    kind: int
    arrives: float
    seconds: float
    upload_bytes: int
    dataset: int | None

    @property
    def cpus(self) -> int:
        """Processors that it asks for."""
        return KINDS[self.kind].cpus


def drawn(seed: int, count: int, *, at_once: bool = False) -> list[Wanted]:
    """So many tasks, in the order in which they come."""
    rng = random.Random(seed)
    burst = count if at_once else round(BURST * count)
    arrivals = [0.0] * burst + sorted(rng.uniform(0.0, OVER_SECONDS) for _ in range(count - burst))
    found = []
    for arrives in arrivals:
        number = rng.randrange(len(KINDS))
        kind = KINDS[number]
        found.append(
            Wanted(
                kind=number,
                arrives=arrives,
                seconds=kind.seconds * rng.lognormvariate(0.0, SPREAD),
                upload_bytes=int(min(8e6, max(2e5, rng.lognormvariate(14.0, 1.0)))) if kind.uploads else 0,
                dataset=rng.randrange(SETS) if kind.reads else None,
            )
        )
    return found


def dataset_sizes(seed: int) -> list[int]:
    """Bytes of each dataset."""
    rng = random.Random(f"datasets {seed}")
    return [int(min(40e6, max(2e6, rng.lognormvariate(16.0, 0.7)))) for _ in range(SETS)]


def home_of(dataset: int) -> str:
    """The site at which a dataset lies."""
    return KEPT_AT[dataset % len(KEPT_AT)]


def allowed(policy: str, number: int, one: Wanted, sites: Mapping[str, int]) -> tuple[str, ...]:
    """Where a policy lets a task run. `sites`: processors of a node of each, the nearest to where uploads are first."""
    able = tuple(site for site, cpus in sites.items() if cpus >= one.cpus)
    match policy:
        case "isthmus":
            return able
        case "round_robin":
            return (able[number % len(able)],)
        case "nearest_data":
            return (able[0] if one.dataset is None else home_of(one.dataset),)
    raise ValueError(policy)


def document(
    one: Wanted, number: int, directory: Path, policy: str, project: str, sites: Sequence[str]
) -> dict[str, Any]:
    """The task as it is handed in; its upload is written to `directory`, other bytes for each policy."""
    kind = KINDS[one.kind]
    inputs: list[Any] = []
    if one.upload_bytes:
        path = directory / f"data-{number}.bin"
        path.write_bytes(random.Random(f"{policy} {number}").randbytes(one.upload_bytes))
        inputs.append({"file": str(path), "path": "data.bin"})
    if one.dataset is not None:
        inputs.append(f"data:{project}/{set_name(policy, one.dataset)}=in")
    return {
        "name": kind.program,
        "command": f"echo {kind.program}; cat data.bin in/* 2>/dev/null | wc -c > size.txt; "
        f"head -c {kind.leaves} /dev/urandom > out.bin; sleep {one.seconds:.2f}",
        "inputs": inputs,
        "outputs": ["size.txt", "out.bin"],
        "cpus": kind.cpus,
        "memory": "128M",
        "time": "3m",
        "sites": list(sites),
    }


def set_name(policy: str, number: int) -> str:
    """A dataset's name; each policy has its own, so that none finds another's copies."""
    return f"{policy.replace('_', '-')}-{number}"


def lay_out(directory: Path, policy: str, seed: int) -> list[tuple[str, Path]]:
    """The files of a policy's datasets, each in a directory of its own below `directory`, with its site."""
    found = []
    for number, size in enumerate(dataset_sizes(seed)):
        path = directory / set_name(policy, number)
        path.mkdir(parents=True)
        (path / "part.bin").write_bytes(random.Random(f"{policy} {seed} set {number}").randbytes(size))
        found.append((home_of(number), path))
    return found
