"""Readers of the traces that are no Standard Workload Format: all good lines are there, every bad one is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow
from pyarrow import parquet

from isthmus.twin.readers.alibaba import read_image_requests, read_instances, read_run_times
from isthmus.twin.readers.sampled import read_alea, read_cloud, read_surf
from isthmus.twin.schedulers import simulate


def test_samples_of_clouds(traces: Path) -> None:
    """About 100,000 jobs each; hours become seconds; they run on a site by what they took."""
    for name in ("azure-100k", "pai-100k", "mustang-trace-2015-100k"):
        log = read_cloud(traces / "cloud" / f"{name}.csv.gz")
        assert 90_000 < len(log) <= 100_000
        assert not log.bad_lines
    azure = read_cloud(traces / "cloud" / "azure-100k.csv.gz")
    first = azure.where(np.arange(len(azure)) < 3)
    assert first.run_seconds.tolist() == [2700, 68700, 21600]
    assert simulate(first, 8, "fcfs", "actual").tolist() == [0, 0, 2700]


def test_bad_lines_of_a_sample_are_named(tmp_path: Path) -> None:
    """A word, a part of a processor, a missing field, a length below 0: each with its number."""
    file = tmp_path / "cloud.csv"
    file.write_text("arrival_time,length,cpus\n0,1,1\n0,x,1\n0,1,0.5\n0,1\n0,-1,1\n1,1,2\n")
    log = read_cloud(file)
    assert log.submit_seconds.tolist() == [0, 3600]
    assert [line.number for line in log.bad_lines] == [3, 4, 5, 6]


def test_surf_with_its_deadlines(traces: Path, tmp_path: Path) -> None:
    """Both files; the month's jobs know whether they may be put off; a job that runs backwards is named."""
    week = read_surf(traces / "grid" / "surf_week.tasks.parquet")
    assert (len(week.log), week.deferrable.any(), week.log.bad_lines) == (6295, False, ())
    month = read_surf(traces / "grid" / "surf_month.tasks.parquet")
    assert len(month.log) == 68_648
    assert month.deferrable.any()
    assert (month.deadline_seconds[month.deferrable] >= month.log.submit_seconds[month.deferrable]).all()
    rows = {"submission_time": [1000, 2000], "duration": [-1, 5000], "cpu_count": [1, 2]}
    parquet.write_table(pyarrow.table(rows), tmp_path / "bad.parquet")
    bad = read_surf(tmp_path / "bad.parquet")
    assert (bad.log.submit_seconds.tolist(), [line.number for line in bad.log.bad_lines]) == ([1], [1])


def test_metacentrum(traces: Path) -> None:
    """All 17,900 jobs, from 0 on; the fields beyond the format's are left out."""
    log = read_alea(traces / "grid" / "metacentrum-wagap-2013.swf.gz")
    assert (len(log), len(log.bad_lines), int(log.submit_seconds.min())) == (17_900, 0, 0)
    assert log.run_seconds[:2].tolist() == [56_011, 1_164_297]


def test_alibaba_and_philly(traces: Path, tmp_path: Path) -> None:
    """Instances, image requests and run times; what is not a number is named."""
    instances = read_instances(traces / "gpu" / "alibaba2025_disaggregated_DLRM_trace.csv.gz")
    assert len(instances) + len(instances.bad_lines) == 23_871
    assert set(instances.role) == {"HN", "CN"}
    requests = read_image_requests(traces / "llm" / "alibaba2026_lora_request_trace.csv.gz")
    assert len(requests) + len(requests.bad_lines) == 26_823
    assert len(requests) > 25_000
    assert requests.run_seconds[:3].tolist() == [32.0, 43.0, 36.0]
    seconds, bad = read_run_times(traces / "gpu" / "philly_runtime.csv.gz")
    assert (len(seconds), len(bad)) == (83_154, 0)
    file = tmp_path / "runtime.csv"
    file.write_text("runtime\n1\nx\n-1\n")
    seconds, bad = read_run_times(file)
    assert (seconds.tolist(), [line.number for line in bad]) == ([1.0], [3, 4])
