"""`isthmus twin run` replays a log without a service, and names what it leaves out."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from isthmus.cli.main import call
from isthmus.twin.readers import read_swf


def line(job: int, submit: int, run: int, processors: int, requested: int) -> str:
    """A line of the format: only what a scheduler needs is known."""
    return f"{job} {submit} -1 {run} -1 -1 -1 {processors} {requested} -1 1 7 -1 -1 -1 -1 -1 -1"


# A wide job waits for the first to end; the short and narrow third passes it; the others cannot be used.
LOG = "\n".join(
    [
        "; MaxProcs: 4",
        line(1, 0, 100, 3, 100),
        line(2, 1, 50, 4, 50),
        line(3, 2, 90, 1, 90),
        line(4, 3, 8, 5, 8),
        line(5, 3, 0, 1, 8),
        line(6, 3, 8, 1, -1),
        "7 three",
    ]
)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log with three good jobs, three that cannot run, and a bad line."""
    path = tmp_path / "log.swf"
    path.write_text(LOG + "\n")
    return path


def test_waits_are_written_in_all_forms(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """CSV, SWF and Parquet hold the same waits; the answer holds the figures and names what was left out."""
    waits, swf, table = tmp_path / "w.csv", tmp_path / "s.swf.gz", tmp_path / "s.parquet"
    words = ["twin", "run", "--swf", str(log), "--processors", "4", "--policy", "easy", "--json"]
    assert call([*words, "--waits-out", str(waits), "--swf-out", str(swf), "--parquet-out", str(table)]) == 0
    captured = capsys.readouterr()
    answer = json.loads(captured.out)
    assert (answer["jobs"], answer["mean_wait_s"], answer["makespan_s"]) == (3, 33.0, 150)
    assert answer["utilisation"] == pytest.approx((300 + 200 + 90) / 600)
    assert answer["bad_lines"] == [{"number": 8, "cause": "2 fields, not 18"}]
    assert answer["left_out"] == {
        "more than 4 processors": [4],
        "no run time of at least a second": [5],
        "no requested time": [6],
    }
    assert "line 8: 2 fields, not 18" in captured.err
    with waits.open() as file:
        assert list(csv.reader(file)) == [["job_id", "wait_seconds"], ["1", "0"], ["2", "99"], ["3", "0"]]
    assert read_swf(swf).wait_seconds.tolist() == [0, 99, 0]
    assert parquet.read_table(table)["wait_seconds"].to_pylist() == [0, 99, 0]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--swf", "/nowhere", "--processors", "4"], 64, "does not exist"),
        (["--processors", "4"], 64, "--swf"),
        (["--swf", "LOG", "--processors", "0"], 64, "range"),
        (["--swf", "LOG", "--processors", "4", "--policy", "best"], 64, "conservative"),
        (["--swf", "LOG", "--processors", "4", "--waits-out", "/no/where"], 65, "cannot be written"),
    ],
)
def test_what_is_wrong_is_said(
    words: list[str], code: int, said: str, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong word, file or place ends with its code and a sentence."""
    assert call(["twin", "run", *(str(log) if word == "LOG" else word for word in words)]) == code
    assert said in capsys.readouterr().err


def test_a_damaged_archive_and_an_empty_log_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither ends in a trace."""
    damaged, empty = tmp_path / "a.swf.gz", tmp_path / "b.swf"
    damaged.write_bytes(b"no gzip")
    empty.write_text("; nothing\n")
    assert call(["twin", "run", "--swf", str(damaged), "--processors", "4"]) == 65
    assert "cannot be read" in capsys.readouterr().err
    assert call(["twin", "run", "--swf", str(empty), "--processors", "4"]) == 65
    assert "no job" in capsys.readouterr().err


def test_the_waits_of_a_real_log_are_the_published_ones(traces: Path, tmp_path: Path) -> None:
    """What the command writes for KTH is the SC'15 artefact's wait of each job."""
    log, out = traces / "pwa" / "KTH-SP2.sc15-rebuilt.swf.gz", tmp_path / "w.csv"
    assert call(["twin", "run", "--swf", str(log), "--processors", "100", "--waits-out", str(out)]) == 0
    got = np.loadtxt(out, delimiter=",", skiprows=1, dtype=np.int64)
    reference = np.load(traces / "reference-sc15" / "KTH-SP2.waits.npz")
    assert np.array_equal(got[:, 0], reference["id"])
    assert np.array_equal(got[:, 1], reference["EASY"])


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        (line(1, 0, 100, 3, -1), "--estimate actual"),
        ("job,wait", "18 numbers a line"),
        (line(1, 0, 100, 30, 100), "more --processors"),
    ],
)
def test_a_log_of_which_nothing_can_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, remedy: str
) -> None:
    """The remedy is for what is wrong with it."""
    path = tmp_path / "log.swf"
    path.write_text(text + "\n")
    assert call(["twin", "run", "--swf", str(path), "--processors", "4"]) == 65
    assert remedy in capsys.readouterr().err
