"""Readers of training jobs, requests to language models and carbon series: whole where right, named where not."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from isthmus.domain.errors import Invalid
from isthmus.twin.readers.carbon import read_carbon
from isthmus.twin.readers.inference import read_requests
from isthmus.twin.readers.philly import read_training_jobs

HEADER = (
    "Datetime (UTC),Country,Zone Name,Zone Id,Carbon Intensity gCO₂eq/kWh (direct),Carbon Intensity gCO₂eq/kWh (LCA)\n"
)


def test_training_jobs_read_in_full(traces: Path) -> None:
    """The eleven virtual clusters hold 15,230 jobs, gangs of 1 to 64, none of them bad."""
    files = sorted((traces / "gpu" / "philly-vc-gavel").glob("*.trace.gz"))
    logs = [read_training_jobs(file) for file in files]
    assert (len(files), sum(map(len, logs))) == (11, 15_230)
    assert all(log.bad_lines == () for log in logs)
    assert min(log.accelerators.min() for log in logs) == 1
    assert max(log.accelerators.max() for log in logs) == 64
    first = logs[0]
    assert (first.kind[0], first.steps[0], first.arrival_seconds[1]) == ("Transformer (batch size 128)", 95_121, 6.0)


def test_a_bad_training_job_is_named(tmp_path: Path) -> None:
    """Six fields, no accelerator, a word for a number of steps."""
    good = "A\tcmd\t-n\t1\t10\t0.5\t2"
    (tmp_path / "a.trace").write_text(
        "\n".join([good, "A\tcmd\t-n\t1\t10\t0.5", good[:-1] + "0", good.replace("\t10\t", "\tten\t")])
    )
    jobs = read_training_jobs(tmp_path / "a.trace")
    assert (len(jobs), jobs.accelerators.tolist(), jobs.arrival_seconds.tolist()) == (1, [2], [0.5])
    assert [line.number for line in jobs.bad_lines] == [2, 3, 4]
    assert jobs.bad_lines[0].cause == "6 fields, not 7"


def test_requests_read_in_full(traces: Path) -> None:
    """Both Azure traces, as many requests as published, in order of time."""
    for name, count in (("code", 8_819), ("conv", 19_366)):
        requests = read_requests(traces / "llm" / f"AzureLLMInferenceTrace_{name}.csv.gz")
        assert (len(requests), requests.bad_lines) == (count, ())
        assert requests.arrival_seconds[0] == 0
        assert (requests.arrival_seconds[1:] >= requests.arrival_seconds[:-1]).all()
        assert requests.generated_tokens.min() >= 0


def test_a_bad_request_is_named(tmp_path: Path) -> None:
    """A missing field, a date that is none, a negative number; a time without a fraction is right."""
    (tmp_path / "a.csv").write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,1,2\n2023-11-16 18:17:04.5000000,3,4\n"
        "2023-11-16 18:17:05.0\nyesterday,1,2\n2023-11-16 18:17:06.0,-1,2\n"
    )
    requests = read_requests(tmp_path / "a.csv")
    assert requests.arrival_seconds.tolist() == [0.0, 1.5]
    assert [line.number for line in requests.bad_lines] == [4, 5, 6]


def test_a_carbon_series_holds_every_hour_of_its_year(traces: Path) -> None:
    """Four zones of 2022, 8,760 hours each."""
    for zone in ("BR", "ES", "NO", "US-CAL-CISO"):
        series = read_carbon(traces / "carbon" / f"{zone}_2022_hourly.csv.gz")
        assert (series.zone, len(series), series.bad_lines) == (zone, 8_760, ())
        assert series.start == datetime(2022, 1, 1, tzinfo=UTC)
        assert (series.life_cycle >= series.direct).mean() > 0.99


def test_a_gap_in_a_carbon_series_is_refused_not_filled(tmp_path: Path) -> None:
    """An hour that is missing, or whose value cannot be read, would shift all that follow."""
    hour = "2022-01-01 {:02d}:00:00,X,X,X,{},9.5\n"
    file = tmp_path / "x.csv"
    file.write_text(HEADER + hour.format(0, 1) + hour.format(1, 2))
    assert read_carbon(file).direct.tolist() == [1.0, 2.0]
    for lines in (hour.format(0, 1) + hour.format(2, 1), hour.format(0, 1) + hour.format(1, "") + hour.format(2, 1)):
        file.write_text(HEADER + lines)
        with pytest.raises(Invalid, match="not hourly at 2022-01-01 02:00"):
            read_carbon(file)
    file.write_text(HEADER + hour.format(0, -1))
    with pytest.raises(Invalid, match="no hour"):
        read_carbon(file)
