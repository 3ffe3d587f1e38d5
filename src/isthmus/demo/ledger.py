"""The usage that Isthmus has recorded, beside what each cluster's own accounting says of the same job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from isthmus.client.records import UsageRecord
from isthmus.lab.wan import WanSite


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One attempt at a cluster: processor-seconds here and there."""

    record: UsageRecord
    elapsed_seconds: int
    allocated_cpu_seconds: int
    account: str
    """The local account that the job ran as, as the cluster says."""

    @property
    def equal(self) -> bool:
        """Whether both say the same."""
        ours = (self.record.elapsed_seconds, self.record.allocated_cpu_seconds)
        return ours == (self.elapsed_seconds, self.allocated_cpu_seconds)


def compare(records: Sequence[UsageRecord], clusters: Mapping[str, WanSite]) -> list[Line]:
    """Every record of a cluster with what sacct says; a job that sacct does not know counts -1."""
    lines = []
    for name, cluster in clusters.items():
        shown = cluster.run(
            "sacct", "-X", "-n", "-P", "-a", "-S", "now-1hour", "-o", "JobID,ElapsedRaw,CPUTimeRAW,User"
        )
        counted: dict[str, tuple[int, int, str]] = {}
        for row in shown.splitlines():
            job, elapsed, seconds, account = row.split("|")
            counted[job] = (int(elapsed or 0), int(seconds or 0), account)
        for record in records:
            if record.site == name:
                elapsed_seconds, cpu_seconds, account = counted.get(record.native_id, (-1, -1, ""))
                lines.append(
                    Line(
                        record=record,
                        elapsed_seconds=elapsed_seconds,
                        allocated_cpu_seconds=cpu_seconds,
                        account=account,
                    )
                )
    return lines
